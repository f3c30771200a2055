//! Locks, the activity log, and what goes on after its request was answered.

use std::time::Duration;

use portolan_auth::access::{CONTRIBUTOR, OWNER, Principal, READER};
use portolan_auth::{Authority, MasterKey};
use portolan_service::activity::{Detail, Event, PAGE_ITEMS_MAX, Wanted};
use portolan_service::locks::{Level, Which};
use portolan_service::operations::Status;
use portolan_service::registries::RegistryInput;
use portolan_service::registry_identity::IdentitiesInput;
use portolan_service::security::{Health, PlanInput};
use portolan_service::{Ctx, Error, Kind, Service, ServiceConfig};
use portolan_store::meta;
use portolan_store::meta::principal::PrincipalRow;
use portolan_store::meta::role::AssignmentRow;
use portolan_types::{GroupName, RegistryName, ResourceId, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{NOW, Site, nobody};

fn rg() -> GroupName {
    "rg".parse().unwrap()
}

fn name(text: &str) -> RegistryName {
    text.parse().unwrap()
}

fn subscription(service: &Service) -> ResourceId {
    ResourceId::subscription(&service.subscription_id())
}

fn group(service: &Service) -> ResourceId {
    ResourceId::group(&service.subscription_id(), "rg")
}

fn registry(service: &Service, name: &str) -> ResourceId {
    ResourceId::registry(&service.subscription_id(), "rg", name)
}

/// Another server on the same store, which is told nothing.
async fn beside(site: &Site) -> Service {
    let authority = std::sync::Arc::new(Authority::new(MasterKey::new(&[9; 32])));
    let (meta, blobs) = (site.service.meta.clone(), site.service.blobs.clone());
    Service::open(meta, blobs, authority, ServiceConfig::default()).await.unwrap()
}

/// Somebody with this role there.
async fn somebody(site: &Site, role: Uuid, scope: ResourceId) -> Ctx {
    let object_id = Uuid::new_v4();
    let write = move |tx: &mut dyn meta::Tx| {
        let principal = PrincipalRow {
            object_id,
            app_id: None,
            kind: "User".into(),
            display_name: "somebody".into(),
            enabled: true,
            valid_from: Timestamp(0),
            created: NOW,
            user_name: None,
            properties: "{}".into(),
        };
        meta::principal::insert(tx, &principal)?;
        let row = AssignmentRow {
            id: Uuid::new_v4(),
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

fn tags(value: &str) -> RegistryInput {
    RegistryInput { tags: json!({"a": value}).as_object().cloned(), ..RegistryInput::default() }
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(e) => e.code,
    }
}

#[tokio::test]
async fn a_lock_holds_for_all_below_it_and_for_everybody() {
    let site = Site::new().await;
    let (service, owner) = (&site.service, &site.owner);
    site.registry("myreg", json!({"adminUserEnabled": true})).await;
    let put = async |scope: ResourceId, level: &str| {
        service.put_lock(owner, &scope, "keep", Some(level), Some("because".into())).await.unwrap()
    };
    // What each may still do: PATCH, see the passwords, renew one, show, delete.
    let tried = async || {
        [
            code(service.patch_registry(owner, &rg(), &name("myreg"), tags("x")).await),
            code(service.list_credentials(owner, &rg(), &name("myreg"))),
            code(service.show_registry(owner, &rg(), &name("myreg"))),
            code(service.delete_registry(owner, &rg(), &name("myreg")).await),
            code(service.delete_group(owner, &rg()).await),
        ]
    };
    let locked = "ScopeLocked";
    for scope in [subscription(service), group(service), registry(service, "MYREG")] {
        let (lock, new) = put(scope.clone(), "cannotdelete").await;
        assert!(new && lock.level == Level::CanNotDelete);
        assert_eq!(tried().await, ["ok", "ok", "ok", locked, locked], "{scope}");
        let (_, new) = put(scope.clone(), "ReadOnly").await;
        assert!(!new);
        // A group can be changed while something in it is read-only, but not be removed.
        assert_eq!(tried().await, [locked, locked, "ok", locked, locked], "{scope}");
        let e = service.patch_registry(owner, &rg(), &name("myreg"), tags("x")).await.unwrap_err();
        assert_eq!(e.kind, Kind::Conflict);
        assert!(e.message.contains("cannot perform write operation") && e.message.contains(&lock.scope.0), "{e}");
        // Images are not the control plane's: a push is for the locks of images.
        let reg = service.registry("myreg").unwrap();
        let target = portolan_auth::access::Target::Repo("a".parse().unwrap());
        service.check(owner, &reg, &target, portolan_auth::access::Action::Push).unwrap();
        assert!(service.delete_lock(owner, &scope, "KEEP").await.unwrap());
        assert!(!service.delete_lock(owner, &scope, "keep").await.unwrap());
    }
    let (lock, _) = put(registry(service, "myreg"), "ReadOnly").await;
    assert_eq!(lock.scope, registry(service, "myreg"));
    let input = RegistryInput {
        location: Some("eastus".into()),
        sku: Some("Basic".parse().unwrap()),
        ..RegistryInput::default()
    };
    let new = service.put_registry(owner, &rg(), &name("other"), input).await;
    assert_eq!(code(new), "ok", "beside what is locked nothing is");

    // It is on disk.
    let again = beside(&site).await;
    assert_eq!(again.list_locks(owner, &subscription(service), Which::Within).unwrap(), [lock]);
    assert_eq!(code(again.delete_registry(owner, &rg(), &name("myreg")).await), locked);
}

#[tokio::test]
async fn a_lock_that_this_server_has_not_heard_of_holds_for_what_it_removes() {
    let site = Site::new().await;
    let (service, owner) = (&site.service, &site.owner);
    site.registry("myreg", json!({})).await;
    let late = beside(&site).await;
    service.put_lock(owner, &registry(service, "myreg"), "keep", Some("CanNotDelete"), None).await.unwrap();
    assert_eq!(late.list_locks(owner, &subscription(service), Which::Within).unwrap(), [], "it has not heard of it");
    assert_eq!(code(late.delete_registry(owner, &rg(), &name("myreg")).await), "ScopeLocked");
    assert_eq!(code(late.delete_group(owner, &rg()).await), "ScopeLocked");
}

#[tokio::test]
async fn locks_are_for_owners_and_read_by_readers() {
    let site = Site::new().await;
    let service = &site.service;
    site.registry("myreg", json!({})).await;
    let (sub, group, reg) = (subscription(service), group(service), registry(service, "myreg"));
    service.put_lock(&site.owner, &reg, "deep", Some("ReadOnly"), None).await.unwrap();
    service.put_lock(&site.owner, &sub, "high", Some("CanNotDelete"), None).await.unwrap();
    for (role, may) in [(CONTRIBUTOR, false), (READER, false), (OWNER, true)] {
        let who = somebody(&site, role, group.clone()).await;
        let expected = if may { "ok" } else { "AuthorizationFailed" };
        assert_eq!(code(service.put_lock(&who, &group, "l", Some("ReadOnly"), None).await), expected);
        assert_eq!(code(service.delete_lock(&who, &group, "l").await), expected);
        assert_eq!(code(service.delete_lock(&who, &sub, "high").await), "AuthorizationFailed", "it is higher up");
        let names = |which| -> Vec<String> {
            service.list_locks(&who, &group, which).unwrap().into_iter().map(|l| l.name).collect()
        };
        assert_eq!((names(Which::Within), names(Which::Over)), (vec!["deep".into()], vec!["high".to_owned()]));
        assert_eq!(code(service.list_locks(&who, &sub, Which::Within)), "AuthorizationFailed");
        assert_eq!(code(service.show_lock(&who, &reg, "Deep")), "ok");
        assert_eq!(code(service.show_lock(&who, &group, "deep")), "LockNotFound");
    }
    assert_eq!(service.list_locks(&nobody(), &group, Which::Within).unwrap_err().kind, Kind::Unauthenticated);
}

#[tokio::test]
async fn what_is_no_lock_is_refused() {
    let site = Site::new().await;
    let (service, owner) = (&site.service, &site.owner);
    site.registry("myreg", json!({})).await;
    let reg = registry(service, "myreg");
    let put = async |scope: &ResourceId, name: &str, level: Option<&str>, notes: &str| {
        code(service.put_lock(owner, scope, name, level, Some(notes.to_owned())).await)
    };
    assert_eq!(put(&reg, "a/b", Some("ReadOnly"), "").await, "InvalidLockName");
    assert_eq!(put(&reg, "l", Some("NotSpecified"), "").await, "InvalidLockLevel");
    assert_eq!(put(&reg, "l", None, "").await, "InvalidLockLevel");
    assert_eq!(put(&reg, "l", Some("ReadOnly"), &"n".repeat(513)).await, "InvalidLockNotes");
    assert_eq!(put(&registry(service, "nobody"), "l", Some("ReadOnly"), "").await, "ResourceNotFound");
    let elsewhere = ResourceId::registry(&service.subscription_id(), "rg2", "myreg");
    assert_eq!(put(&elsewhere, "l", Some("ReadOnly"), "").await, "ResourceNotFound");
    let identity =
        ResourceId(format!("{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/robot", group(service)));
    assert_eq!(put(&identity, "l", Some("ReadOnly"), "").await, "ResourceNotFound");
    service.put_identity(owner, &rg(), "robot", &Default::default()).await.unwrap();
    assert_eq!(put(&identity, "l", Some("CanNotDelete"), "").await, "ok");
    assert_eq!(code(service.delete_identity(owner, &rg(), "Robot").await), "ScopeLocked");
    let no_group = ResourceId::group(&service.subscription_id(), "rg2");
    assert_eq!(put(&no_group, "l", Some("ReadOnly"), "").await, "ResourceGroupNotFound");
    assert_eq!(put(&reg.child("tokens", "t"), "l", Some("ReadOnly"), "").await, "LockScopeNotSupported");
    for n in 0..20 {
        assert_eq!(put(&reg, &format!("l{n}"), Some("ReadOnly"), "").await, "ok");
    }
    assert_eq!(put(&reg, "l20", Some("ReadOnly"), "").await, "TooManyLocks");
    assert_eq!(put(&reg, "L0", Some("CanNotDelete"), "").await, "ok", "a change is no new one");
}

#[tokio::test]
async fn a_removal_that_was_promised_is_done_after_a_restart() {
    let site = Site::new().await;
    let (service, owner) = (&site.service, &site.owner);
    for name in ["myreg", "other"] {
        site.registry(name, json!({})).await;
    }
    let told = event(service, owner, "Microsoft.Resources/subscriptions/resourceGroups/delete", NOW);
    let begun = service.begin_group_deletion(owner, &"RG".parse().unwrap(), Some(told)).await.unwrap();
    let same = service.begin_group_deletion(owner, &rg(), None).await.unwrap();
    assert_eq!(begun.id, same.id, "asked for again it is the same");
    assert!(service.show_group(owner, &rg()).await.unwrap().going);
    // Nothing is made in what is going, on no server.
    let late = beside(&site).await;
    for service in [service, &late] {
        let input = RegistryInput {
            location: Some("eastus".into()),
            sku: Some("Basic".parse().unwrap()),
            ..RegistryInput::default()
        };
        let refused = "ResourceGroupBeingDeleted";
        assert_eq!(code(service.put_registry(owner, &rg(), &name("third"), input).await), refused);
        assert_eq!(code(service.put_group(owner, &rg(), Some("eastus"), None).await), refused);
        assert_eq!(code(service.put_lock(owner, &group(service), "l", Some("ReadOnly"), None).await), refused);
    }
    assert_eq!(service.show_operation(owner, begun.id).await.unwrap().status, Status::InProgress);

    // The server ended before it did anything; the next one has it from its row.
    assert_eq!(late.resume_operations().await.unwrap(), 1);
    assert_eq!(late.resume_operations().await.unwrap(), 0);
    assert_eq!(code(late.show_group(owner, &rg()).await), "ResourceGroupNotFound");
    assert!(late.registry("myreg").is_err() && late.registry("other").is_err());
    let ended = late.show_operation(owner, begun.id).await.unwrap();
    assert_eq!(ended.status, Status::Succeeded);
    assert!(ended.ended.is_some());
    let events = late.list_activity(owner, &Wanted::default(), None).await.unwrap().items;
    assert_eq!(events.iter().map(|e| e.status.as_str()).collect::<Vec<_>>(), ["Succeeded"], "the log has its end");

    let reader = somebody(&site, READER, registry(service, "x")).await;
    assert_eq!(code(late.show_operation(&reader, begun.id).await), "OperationNotFound", "others are not told");
    assert_eq!(late.prune_operations(Timestamp::now()).await.unwrap(), 0);
    let tomorrow = Timestamp::now().plus(Duration::from_secs(25 * 3_600));
    assert_eq!(late.prune_operations(tomorrow).await.unwrap(), 1);
    assert_eq!(code(late.show_operation(owner, begun.id).await), "OperationNotFound");
}

fn event(service: &Service, who: &Ctx, operation: &str, at: Timestamp) -> Event {
    Event {
        id: Uuid::new_v4(),
        at,
        correlation: "c1".into(),
        caller: match &who.principal {
            Principal::Directory { object_id, .. } => object_id.to_string(),
            _ => "nobody".into(),
        },
        operation: operation.to_owned(),
        status: "Started".into(),
        resource: registry(service, "myreg"),
        detail: Detail { method: "PUT".into(), uri: "/x".into(), ..Detail::default() },
    }
}

#[tokio::test]
async fn the_log_is_read_backwards_page_by_page_by_those_who_may() {
    let site = Site::new().await;
    let (service, owner) = (&site.service, &site.owner);
    site.registry("myreg", json!({})).await;
    let (all, secs) = (PAGE_ITEMS_MAX + 30, 1_000_000);
    for n in 0..all {
        // Several at one time: pages must not lose or repeat any.
        let at = Timestamp(NOW.0 + i64::try_from(n / 7).unwrap() * secs);
        let mut one = event(service, owner, "Microsoft.ContainerRegistry/registries/write", at);
        one.correlation = format!("c{n}");
        service.note_activity(one).await.unwrap();
    }
    let first = service.list_activity(owner, &Wanted::default(), None).await.unwrap();
    assert_eq!(first.items.len(), PAGE_ITEMS_MAX);
    let second = service.list_activity(owner, &Wanted::default(), first.next.as_deref()).await.unwrap();
    assert_eq!(second.next, None);
    let seen: Vec<String> = first.items.iter().chain(&second.items).map(|e| e.correlation.clone()).collect();
    let expected: Vec<String> = (0..all).rev().map(|n| format!("c{n}")).collect();
    assert_eq!(seen, expected);
    assert_eq!(code(service.list_activity(owner, &Wanted::default(), Some("x")).await), "InvalidSkipToken");

    let one = Wanted { correlation: Some("C9".into()), ..Wanted::default() };
    assert_eq!(service.list_activity(owner, &one, None).await.unwrap().items.len(), 1);
    let span = Wanted { from: Timestamp(NOW.0 + secs), to: Timestamp(NOW.0 + 2 * secs), ..Wanted::default() };
    assert_eq!(service.list_activity(owner, &span, None).await.unwrap().items.len(), 14);

    for (role, scope, sees) in
        [(READER, group(service), true), (READER, ResourceId::group(&service.subscription_id(), "rg2"), false)]
    {
        let who = somebody(&site, role, scope).await;
        let seen = service.list_activity(&who, &Wanted::default(), None).await.unwrap();
        assert_eq!(seen.items.is_empty(), !sees);
    }
    assert_eq!(service.list_activity(&nobody(), &one, None).await.unwrap_err().kind, Kind::Unauthenticated);

    let day = Duration::from_secs(24 * 3_600);
    assert_eq!(service.prune_activity(Timestamp(NOW.0 + 10 * secs), day, 1_000).await.unwrap(), 0);
    let newest_50 = service.prune_activity(Timestamp(NOW.0 + 10 * secs), day, 50).await.unwrap();
    assert_eq!(newest_50, (all - 50) as u64);
    let left = service.list_activity(owner, &Wanted::default(), None).await.unwrap().items;
    assert_eq!(left.first().map(|e| e.correlation.clone()), expected.first().cloned(), "the newest stay");
    assert_eq!(service.prune_activity(Timestamp(NOW.0 + 2 * 86_400 * secs), day, 50).await.unwrap(), 50, "by age too");
}

#[tokio::test]
async fn plans_are_kept_and_assessments_tell_what_is() {
    let site = Site::new().await;
    let (service, owner) = (&site.service, &site.owner);
    let open_to_all = json!({"adminUserEnabled": true, "anonymousPullEnabled": true});
    site.registry("myreg", open_to_all).await;
    assert!(service.list_plans(owner).await.unwrap().iter().all(|p| !p.standard));
    let input = |tier: &str| PlanInput { tier: Some(tier.to_owned()), extensions: Value::Null, ..PlanInput::default() };
    let plan = service.put_plan(owner, "containerregistry", input("standard")).await.unwrap();
    assert_eq!((plan.name, plan.standard, plan.enabled), ("ContainerRegistry", true, Some(NOW)));
    assert!(service.show_plan(owner, "CONTAINERREGISTRY").await.unwrap().standard);
    assert_eq!(code(service.put_plan(owner, "Containers", input("Gold")).await), "InvalidPricingTier");
    assert_eq!(code(service.put_plan(owner, "VirtualMachines", input("Free")).await), "PricingNotFound");
    let reader = somebody(&site, READER, subscription(service)).await;
    assert_eq!(code(service.put_plan(&reader, "Containers", input("Free")).await), "AuthorizationFailed");
    assert_eq!(code(service.list_plans(&reader).await), "ok");

    let health = |scope: &ResourceId| -> Vec<Health> {
        service.list_assessments(owner, scope).unwrap().iter().map(|a| a.health).collect()
    };
    let (bad, good, unknown) = (Health::Unhealthy, Health::Healthy, Health::NotApplicable);
    assert_eq!(health(&subscription(service)), [bad, bad, bad, unknown]);
    let shut = json!({"adminUserEnabled": false, "anonymousPullEnabled": false, "publicNetworkAccess": "Disabled"});
    let input = RegistryInput {
        sku: Some("Premium".parse().unwrap()),
        properties: shut.as_object().cloned().unwrap(),
        ..RegistryInput::default()
    };
    service.patch_registry(owner, &rg(), &name("myreg"), input).await.unwrap();
    assert_eq!(health(&registry(service, "MyReg")), [good, good, good, unknown], "as it is now");
    let one = &service.list_assessments(owner, &group(service)).unwrap()[0];
    let shown = service.show_assessment(owner, &one.resource, &one.about.id.to_string()).unwrap();
    assert_eq!(&shown, one);
    assert_eq!(code(service.show_assessment(owner, &one.resource, "x")), "AssessmentNotFound");
    let stranger = somebody(&site, READER, ResourceId::group(&service.subscription_id(), "rg2")).await;
    assert_eq!(service.list_assessments(&stranger, &subscription(service)).unwrap(), []);
}

#[tokio::test]
async fn a_registry_has_the_identities_it_is_given() {
    let site = Site::new().await;
    let (service, owner) = (&site.service, &site.owner);
    site.registry("myreg", json!({})).await;
    let robot = service.put_identity(owner, &rg(), "robot", &Default::default()).await.unwrap().0;
    let set = async |who: &Ctx, own: bool, assigned: Option<Vec<String>>| {
        let input = IdentitiesInput { own, assigned };
        code(service.set_registry_identities(who, &rg(), &name("myreg"), input).await)
    };
    let has = || service.registry("myreg").unwrap().identities.clone();
    assert_eq!(set(owner, true, Some(vec![robot.id.0.to_uppercase()])).await, "ok");
    let [own, assigned] = &has()[..] else { panic!("{:?}", has()) };
    assert_eq!((own.id.as_ref(), assigned.principal), (None, robot.principal_id));
    let (principal, id) = (own.principal, assigned.id.clone().unwrap());
    assert_eq!(set(owner, true, None).await, "ok", "the others stay");
    assert_eq!((has().len(), has()[0].principal), (2, principal));
    let nobody_there = id.replace("robot", "nobody");
    assert_eq!(set(owner, true, Some(vec![nobody_there])).await, "FailedIdentityOperation");
    assert_eq!(set(owner, true, Some(vec!["/subscriptions/x".into()])).await, "FailedIdentityOperation");
    assert_eq!(has().len(), 2, "what was refused changed nothing");

    // Who may change the registry, but not use the identity, cannot lend it to the registry.
    assert_eq!(set(owner, false, Some(vec![])).await, "ok");
    let reader = somebody(&site, READER, registry(service, "myreg")).await;
    assert_eq!(set(&reader, true, Some(vec![])).await, "AuthorizationFailed");
    let contributor = somebody(&site, CONTRIBUTOR, registry(service, "myreg")).await;
    assert_eq!(set(&contributor, true, Some(vec![id.clone()])).await, "AuthorizationFailed");
    assert_eq!(set(&contributor, true, Some(vec![])).await, "ok");

    // They go with the identity, and the registry's own goes with the registry.
    assert_eq!(set(owner, true, Some(vec![id])).await, "ok");
    service.delete_identity(owner, &rg(), "robot").await.unwrap();
    assert_eq!(has().iter().filter(|i| i.id.is_some()).count(), 0);
    let own = has()[0].principal;
    service.delete_registry(owner, &rg(), &name("myreg")).await.unwrap();
    let gone = service.meta.read(move |tx| meta::principal::get(tx, own)).await.unwrap();
    assert_eq!(gone, None);
}
