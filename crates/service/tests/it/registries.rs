//! Registries: making, changing and removing them, and where they answer.

use portolan_auth::access::{ACR_PULL, OWNER, Principal};
use portolan_service::registries::{NameCheck, RegistryInput};
use portolan_service::{Ctx, Error, Kind, Sku};
use portolan_store::meta;
use portolan_store::meta::principal::PrincipalRow;
use portolan_store::meta::role::AssignmentRow;
use portolan_types::{GroupName, RegistryName, ResourceId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{NOW, Site, nobody};

fn group() -> GroupName {
    "rg".parse().unwrap()
}

fn name(text: &str) -> RegistryName {
    text.parse().unwrap()
}

fn input(sku: &str, properties: Value) -> RegistryInput {
    RegistryInput {
        location: Some("eastus".into()),
        sku: Some(sku.parse().unwrap()),
        tags: None,
        properties: properties.as_object().cloned().unwrap(),
    }
}

#[tokio::test]
async fn a_repeated_put_is_an_update() {
    let site = Site::new().await;
    let (service, owner) = (&site.service, &site.owner);
    site.registry("first", json!({})).await;
    let (rg, myreg) = (group(), name("MyReg"));
    let put = |input| service.put_registry(owner, &rg, &myreg, input);
    let (reg, created) = put(input("basic", json!({}))).await.unwrap();
    assert!(created && !reg.admin_enabled && reg.sku == Sku::Basic);
    assert_eq!(reg.properties["policies"]["retentionPolicy"], json!({"days": 7, "status": "disabled"}));
    let (again, created) = put(input("Standard", json!({"adminUserEnabled": true}))).await.unwrap();
    assert!(!created && again.admin_enabled && again.sku == Sku::Standard);
    assert_eq!((again.id, again.created), (reg.id, reg.created));
    let elsewhere = RegistryInput { location: Some("westus".into()), ..input("Basic", json!({})) };
    assert_eq!(put(elsewhere).await.unwrap_err().code, "InvalidResourceLocation");
    let wrong = input("Basic", json!({"policies": {"retentionPolicy": {"days": 1000}}}));
    assert_eq!(put(wrong).await.unwrap_err().code, "InvalidRequestContent");
    assert_eq!(service.registry("myreg").unwrap().sku, Sku::Standard, "a refused change changes nothing");
}

#[tokio::test]
async fn patches_change_what_they_name() {
    let site = Site::new().await;
    let (service, owner) = (&site.service, &site.owner);
    site.registry("myreg", json!({"zoneRedundancy": "Enabled"})).await;
    let patch = |properties: Value, sku: Option<Sku>| {
        let input = RegistryInput { sku, properties: properties.as_object().cloned().unwrap(), ..Default::default() };
        async move { service.patch_registry(owner, &group(), &name("MYREG"), input).await }
    };
    let reg = patch(json!({}), Some(Sku::Premium)).await.unwrap();
    assert_eq!((reg.sku, &reg.properties["zoneRedundancy"]), (Sku::Premium, &json!("Enabled")));
    let policies = json!({"policies": {"retentionPolicy": {"days": 30, "status": "enabled"}}});
    let reg = patch(policies, None).await.unwrap();
    assert_eq!(reg.properties["policies"]["retentionPolicy"]["days"], 30);
    assert_eq!(reg.properties["policies"]["exportPolicy"]["status"], "enabled");
    let reg = patch(json!({"anonymousPullEnabled": true}), None).await.unwrap();
    assert!(reg.anonymous_pull);
    assert_eq!(reg.properties["policies"]["retentionPolicy"]["days"], 30, "and it lasts");
    let missing = service.patch_registry(owner, &group(), &name("nobody"), RegistryInput::default()).await;
    assert_eq!(missing.unwrap_err().code, "ResourceNotFound");
}

#[tokio::test]
async fn what_cannot_be_made_is_refused() {
    let site = Site::new().await;
    let (service, owner) = (&site.service, &site.owner);
    site.registry("myreg", json!({})).await;
    let other: GroupName = "rg2".parse().unwrap();
    let put = |g: GroupName, n: &str, input| {
        let n = name(n);
        async move { service.put_registry(owner, &g, &n, input).await.unwrap_err().code }
    };
    assert_eq!(put(other.clone(), "newreg", input("Basic", json!({}))).await, "ResourceGroupNotFound");
    service.put_group(owner, &other, Some("eastus"), None).await.unwrap();
    assert_eq!(put(other.clone(), "MYREG", input("Basic", json!({}))).await, "AlreadyInUse");
    let no_place = RegistryInput { location: None, ..input("Basic", json!({})) };
    assert_eq!(put(group(), "newreg", no_place).await, "LocationRequired");
    let no_sku = RegistryInput { sku: None, ..input("Basic", json!({})) };
    assert_eq!(put(group(), "newreg", no_sku).await, "InvalidSku");
    assert!("Gold".parse::<Sku>().is_err());
    let e: Error = service.show_registry(owner, &other, &name("myreg")).unwrap_err();
    assert_eq!(e.code, "ResourceNotFound", "a registry is shown in its own group only");
}

#[tokio::test]
async fn names_are_checked() {
    let site = Site::new().await;
    let (service, owner) = (&site.service, &site.owner);
    let check = |n: &str| service.check_name(owner, n).unwrap();
    assert_eq!(check("myreg"), NameCheck::Available { login_server: "localhost:8443".into() });
    site.registry("myreg", json!({})).await;
    assert_eq!(check("other1"), NameCheck::Available { login_server: "other1.localhost:8443".into() });
    assert!(matches!(check("MyReg"), NameCheck::Taken(_)));
    for bad in ["", "abcd", "my-reg", "my.reg", "../../x"] {
        assert!(matches!(check(bad), NameCheck::Invalid(_)), "{bad}");
    }
    assert_eq!(service.check_name(&nobody(), "myreg").unwrap_err().kind, Kind::Unauthenticated);
}

#[tokio::test]
async fn registries_answer_at_their_hosts() {
    let site = Site::new().await;
    let (service, owner) = (&site.service, &site.owner);
    let first = site.registry("First1", json!({})).await;
    let second = site.registry("second", json!({})).await;
    assert_eq!(first.login_server, "localhost:8443");
    assert_eq!(second.login_server, "second.localhost:8443");
    let at = |host: &str| service.registry_by_host(host).map(|r| r.name.to_string());
    for host in
        ["localhost:8443", "LOCALHOST", "localhost:5000", "127.0.0.1:8443", "[::1]:8443", "first1.localhost:8443"]
    {
        assert_eq!(at(host).as_deref(), Some("First1"), "{host}");
    }
    for host in ["second.localhost:8443", "SECOND.localhost", "second.localhost:5000"] {
        assert_eq!(at(host).as_deref(), Some("second"), "{host}");
    }
    for host in ["third.localhost:8443", "evil.example", "", ":8443", "localhost.evil"] {
        assert_eq!(at(host), None, "{host}");
    }
    // The server's own address goes to the next registry that is made.
    service.delete_registry(owner, &group(), &name("first1")).await.unwrap();
    assert_eq!(at("localhost:8443"), None);
    site.registry("third", json!({})).await;
    assert_eq!(at("localhost:8443").as_deref(), Some("third"));
    assert_eq!(at("second.localhost:8443").as_deref(), Some("second"), "others stay where they are");
}

#[tokio::test]
async fn a_deleted_registry_starts_clean_when_it_is_made_again() {
    let site = Site::new().await;
    let (service, owner) = (&site.service, &site.owner);
    let reg = site.with_admin("myreg").await;
    let old = service.list_credentials(owner, &group(), &reg.name).unwrap();
    let before = reg.clone();
    let token = site.access_token(&reg, "repository:a:pull", NOW);
    assert!(service.delete_registry(owner, &group(), &reg.name).await.unwrap());
    assert!(!service.delete_registry(owner, &group(), &reg.name).await.unwrap(), "again is fine");
    // An upload that was on its way cannot begin a repository that nobody would own.
    let late = Ctx::system("late", NOW);
    let e = service.start_upload(&late, &before, &"a".parse().unwrap()).await.unwrap_err();
    assert_eq!(e.kind, Kind::NotFound);
    let reg = site.with_admin("myreg").await;
    let new = service.list_credentials(owner, &group(), &reg.name).unwrap();
    assert_ne!(old.passwords[0].1, new.passwords[0].1);
    assert!(service.data_plane_bearer(&reg, &token, NOW).is_err());
}

#[tokio::test]
async fn roles_decide_who_sees_and_changes_what() {
    let site = Site::new().await;
    let (service, owner) = (&site.service, &site.owner);
    let (one, two) = (site.with_admin("one11").await, site.with_admin("two22").await);
    let puller = person(&site, &one.resource_id, ACR_PULL).await;
    let owner_of_two = person(&site, &two.resource_id, OWNER).await;
    let stranger = person(&site, &ResourceId("/subscriptions/x".into()), OWNER).await;

    let seen = |ctx: &Ctx| -> Vec<String> {
        service.list_registries(ctx, None).unwrap().iter().map(|r| r.name.to_string()).collect()
    };
    assert_eq!(seen(owner), ["one11", "two22"]);
    assert_eq!(seen(&owner_of_two), ["two22"]);
    assert!(seen(&puller).is_empty() && seen(&stranger).is_empty());

    for (ctx, reg) in [(&puller, &one), (&owner_of_two, &one), (&stranger, &two)] {
        let e = service.list_credentials(ctx, &group(), &reg.name).unwrap_err();
        assert_eq!((e.kind, e.code), (Kind::Forbidden, "AuthorizationFailed"));
        let e = service.delete_registry(ctx, &group(), &reg.name).await.unwrap_err();
        assert_eq!(e.kind, Kind::Forbidden);
        let e = service.show_registry(ctx, &group(), &name("missing")).unwrap_err();
        assert_eq!(e.kind, Kind::Forbidden, "who may not look is not told what is there");
    }
    service.list_credentials(&owner_of_two, &group(), &two.name).unwrap();
    // Roles on a registry go with it.
    service.delete_registry(owner, &group(), &two.name).await.unwrap();
    site.with_admin("two22").await;
    assert!(service.list_credentials(&owner_of_two, &group(), &two.name).is_err());
}

/// A new principal with one role.
async fn person(site: &Site, scope: &ResourceId, role: Uuid) -> Ctx {
    let object_id = Uuid::new_v4();
    let scope = scope.clone();
    let write = move |tx: &mut dyn meta::Tx| {
        meta::principal::insert(
            tx,
            &PrincipalRow {
                object_id,
                app_id: None,
                kind: "User".into(),
                display_name: "someone".into(),
                enabled: true,
                valid_from: portolan_types::Timestamp(0),
                created: NOW,
                user_name: None,
                properties: "{}".into(),
            },
        )?;
        let id = Uuid::new_v4();
        let row = AssignmentRow {
            id,
            scope,
            principal: object_id,
            role,
            description: None,
            condition: None,
            created: NOW,
            created_by: None,
            updated: NOW,
            updated_by: None,
        };
        meta::role::insert(tx, &row)
    };
    site.service.meta.write(write).await.unwrap();
    site.service.refresh().await.unwrap();
    Ctx { principal: Principal::Directory { object_id, app_id: None }, ..site.owner.clone() }
}
