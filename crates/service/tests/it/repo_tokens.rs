//! Registry authentication below HTTP: what ends what, and the limits of tokens and scope maps.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portolan_auth::access::{Action, Principal, REPOSITORY_READER, Target};
use portolan_service::registry_auth::SignIn;
use portolan_service::repo_tokens::TokenInput;
use portolan_service::roles::AssignmentInput;
use portolan_service::scope_maps::ScopeMapInput;
use portolan_service::{Ctx, Kind, Reach, Registry, Service, ServiceConfig, Sku};
use portolan_store::meta;
use portolan_types::Timestamp;
use serde_json::{Value, json};

use crate::support::{NOW, Site};

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn map(actions: &[&str]) -> ScopeMapInput {
    ScopeMapInput { description: None, actions: Some(actions.iter().map(|a| (*a).to_owned()).collect()) }
}

const READ: &str = "repositories/a/content/read";

/// A token called `token1` with one scope map, and its first password.
async fn token(site: &Site, registry: &Registry) -> String {
    site.service.put_scope_map(&site.owner, registry, "reader", map(&[READ])).await.unwrap();
    let scope_map_id = Some(registry.resource_id.child("scopeMaps", "reader").to_string());
    let input = TokenInput { scope_map_id, ..TokenInput::default() };
    site.service.put_token(&site.owner, registry, "token1", input).await.unwrap();
    let id = registry.resource_id.child("tokens", "token1").to_string();
    let made = site.service.generate_credentials(&site.owner, registry, &id, None, None).await.unwrap();
    made.passwords[0].1.expose().clone()
}

fn may_pull(service: &Service, registry: &Registry, token: &str, now: Timestamp) -> bool {
    service.data_plane_bearer(registry, token, now).is_ok_and(|(principal, reach)| {
        let ctx = Ctx { principal, reach, request_id: "test".into(), now };
        service.check(&ctx, registry, &Target::Repo("a".parse().unwrap()), Action::Pull).is_ok()
    })
}

/// Everything here plays within one second: tokens from before are out, those from after are
/// good, and the one that is kept to be handed out again is not.
#[tokio::test]
async fn a_renewal_parts_what_was_issued_before_from_what_is_issued_after() {
    let site = Site::new().await;
    let reg = site.with_admin("myreg").await;
    let service = &site.service;
    let micros = |n: i64| Timestamp(NOW.0 + n);
    let (refresh, access) = (site.refresh_token(&reg, NOW), site.access_token(&reg, "repository:a:pull", NOW));
    assert!(may_pull(service, &reg, &access, micros(1)));
    let Principal::Directory { object_id, .. } = site.owner.principal else { panic!("the owner is of the directory") };
    for (enabled, at) in [(false, 10), (true, 11)] {
        let write = service.meta.write(move |tx| meta::principal::set_enabled(tx, object_id, enabled, micros(at)));
        write.await.unwrap();
        service.refresh().await.unwrap();
    }
    assert!(service.access_token(&reg, SignIn::Refresh(&refresh), &[], micros(20)).is_err(), "a replay");
    assert!(!may_pull(service, &reg, &access, micros(20)));
    let renewed = site.access_token(&reg, "repository:a:pull", micros(20));
    assert_ne!(renewed, access);
    assert!(may_pull(service, &reg, &renewed, micros(21)), "as soon as it is issued");
}

#[tokio::test]
async fn lifetimes_are_the_operators() {
    let secs = std::time::Duration::from_secs;
    let config = ServiceConfig {
        directory_token_lifetime: secs(120),
        refresh_token_lifetime: secs(300),
        access_token_lifetime: secs(60),
        ..ServiceConfig::default()
    };
    let site = Site::with(config).await;
    let reg = site.with_admin("myreg").await;
    let lasts = |token: &str| {
        let claims = claims(token);
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap()
    };
    let directory = site.directory_token("https://containerregistry.azure.net", NOW);
    let (refresh, access) = (site.refresh_token(&reg, NOW), site.access_token(&reg, "repository:a:pull", NOW));
    assert_eq!((lasts(&directory), lasts(&refresh), lasts(&access)), (120, 300, 60));
}

/// What acr-cli tells such registries by, and what it asks them for.
#[tokio::test]
async fn registries_with_permissions_for_each_repository_say_so() {
    let site = Site::new().await;
    let reg = site.registry("abacreg", json!({"roleAssignmentMode": "AbacRepositoryPermissions"})).await;
    let plain = site.with_admin("plain").await;
    // An owner may do nothing to the content there, and gets no token for it.
    let directory = site.directory_token("https://containerregistry.azure.net", NOW);
    assert_eq!(site.service.exchange(&reg, &directory, NOW).unwrap_err().kind, Kind::Unauthenticated);
    let Principal::Directory { object_id, .. } = site.owner.principal else { panic!("the owner is of the directory") };
    let input = AssignmentInput {
        role: REPOSITORY_READER,
        principal: object_id,
        principal_type: None,
        description: None,
        condition: None,
        condition_version: None,
    };
    let id = uuid::Uuid::from_u128(1);
    site.service.put_role_assignment(&site.owner, &reg.resource_id, id, input).await.unwrap();
    let refresh = site.refresh_token(&reg, NOW);
    let claimed = claims(&refresh);
    assert_eq!(claimed["aad_identity"], claimed["oid"]);
    assert!(claims(&site.refresh_token(&plain, NOW)).get("aad_identity").is_none());
    let wildcard = |reg: &Registry| {
        let token = site.access_token(reg, "registry:catalog:* repository:*:*", NOW);
        claims(&token)["access"].as_array().unwrap().iter().any(|g| g["name"] == "*")
    };
    assert!(wildcard(&plain) && !wildcard(&reg));
    let token_of = |scope: &str| claims(&site.access_token(&reg, scope, NOW));
    assert_eq!(token_of("repository:a:pull,push")["access"][0]["actions"], json!(["pull"]));
    assert_eq!(token_of("registry:catalog:*")["access"], json!([]), "that is another role's");
    // A repository token has its scope map there too, wildcard and all.
    let password = token(&site, &reg).await;
    let input = map(&["repositories/*/content/read"]);
    site.service.patch_scope_map(&site.owner, &reg, "reader", input).await.unwrap();
    let sign_in = SignIn::Password { user: "token1", password: &password };
    let issued = site.service.access_token(&reg, sign_in, &["repository:*:*"], NOW).unwrap();
    assert_eq!(claims(issued.token.expose())["access"][0]["actions"], json!(["pull"]));
}

#[tokio::test]
async fn scope_strings_with_tricks_open_nothing_for_a_token() {
    let site = Site::new().await;
    let reg = site.with_admin("myreg").await;
    let password = token(&site, &reg).await;
    let sign_in = SignIn::Password { user: "token1", password: &password };
    for scope in [
        "repository:*:*",
        "repository:*:pull",
        "repository:a:push",
        "repository:a/*:pull",
        "repository:a/b:pull",
        "repository:A:pull",
        "repository:a:PULL",
        "repository:./a:pull",
        "repository:a%20:pull",
        "repository: a:pull",
        "repository:a\u{0}:pull",
        "registry:catalog:*",
        "registry:a:*",
        "REPOSITORY:a:pull",
    ] {
        let issued = site.service.access_token(&reg, sign_in, &[scope], NOW).unwrap();
        assert_eq!(claims(issued.token.expose())["access"], json!([]), "{scope:?}");
    }
    let many: Vec<String> =
        (0..1_000).map(|n| format!("repository:r{n}:pull")).chain(["repository:a:pull".into()]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let issued = site.service.access_token(&reg, sign_in, &many, NOW).unwrap();
    assert_eq!(claims(issued.token.expose())["access"], json!([]), "only so many are looked at");
    let issued = site.service.access_token(&reg, sign_in, &["repository:a:*"], NOW).unwrap();
    assert_eq!(claims(issued.token.expose())["access"][0]["actions"], json!(["pull"]));
    // Whatever a token says, the scope map is asked again.
    let (principal, _) = service_basic(&site, &reg, &password);
    let wide = portolan_auth::access::Grant { kind: "repository".into(), name: "*".into(), actions: vec!["*".into()] };
    let ctx = Ctx { principal, reach: Reach::Grants([wide].into()), request_id: "test".into(), now: NOW };
    for (name, action, expected) in [("a", Action::Pull, true), ("a", Action::Push, false), ("b", Action::Pull, false)]
    {
        let target = Target::Repo(name.parse().unwrap());
        assert_eq!(site.service.check(&ctx, &reg, &target, action).is_ok(), expected, "{name} {action:?}");
    }
}

fn service_basic(site: &Site, reg: &Registry, password: &str) -> (Principal, Reach) {
    site.service.data_plane_basic(reg, "token1", password, NOW).unwrap()
}

#[tokio::test]
async fn a_tier_has_room_for_so_many() {
    let mut config = ServiceConfig::default();
    config.tiers.basic.tokens_max = 2;
    config.tiers.basic.scope_maps_max = 3;
    let site = Site::with(config).await;
    let reg = site.with_admin("myreg").await;
    let input = portolan_service::registries::RegistryInput { sku: Some(Sku::Basic), ..Default::default() };
    let reg = site.service.patch_registry(&site.owner, &reg.group, &reg.name, input).await.unwrap();
    let (service, owner) = (&site.service, &site.owner);
    for name in ["first", "second", "third"] {
        assert!(service.put_scope_map(owner, &reg, name, map(&[READ])).await.unwrap().1);
    }
    let full = service.put_scope_map(owner, &reg, "fourth", map(&[READ])).await.unwrap_err();
    assert_eq!(full.kind, Kind::Conflict, "{full}");
    assert!(!service.put_scope_map(owner, &reg, "FIRST", map(&[READ])).await.unwrap().1, "a change needs no room");
    let scope_map_id = Some(reg.resource_id.child("scopeMaps", "first").to_string());
    let input = TokenInput { scope_map_id, ..TokenInput::default() };
    for name in ["token1", "token2"] {
        service.put_token(owner, &reg, name, input.clone()).await.unwrap();
    }
    let full = service.put_token(owner, &reg, "token3", input.clone()).await.unwrap_err();
    assert_eq!(full.kind, Kind::Conflict, "{full}");
    service.delete_token(owner, &reg, "token2").await.unwrap();
    service.put_token(owner, &reg, "token3", input).await.unwrap();

    // Page by page.
    let (page, more) = service.list_scope_maps(owner, &reg, "", 2).await.unwrap();
    let names = |page: &[portolan_service::scope_maps::ScopeMapInfo]| -> Vec<String> {
        page.iter().filter(|m| !m.is_system).map(|m| m.name.clone()).collect()
    };
    assert!(more && names(&page) == ["first", "second"]);
    let (page, more) = service.list_scope_maps(owner, &reg, "Second", 2).await.unwrap();
    assert!(!more && names(&page) == ["third"] && page.len() == 1);
    let (page, more) = service.list_tokens(owner, &reg, "", 1).await.unwrap();
    assert!(more && page[0].name.as_str() == "token1" && page[0].scope_map.as_deref() == Some("first"));
    let (page, more) = service.list_tokens(owner, &reg, "token1", 1).await.unwrap();
    assert!(!more && page[0].name.as_str() == "token3");
}
