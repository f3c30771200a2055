//! Sign-in, tokens, and the ways they end.

use portolan_auth::access::{Action, Principal, Target};
use portolan_auth::password::AdminPassword;
use portolan_service::registry_auth::SignIn;
use portolan_service::{Ctx, Kind, Reach, Registry, Service, ServiceConfig};
use portolan_store::meta;
use serde_json::json;

use crate::support::{BASE, NOW, Site, later, nobody, open, signed_in};

fn repo(name: &str) -> Target {
    Target::Repo(name.parse().unwrap())
}

/// The context that a bearer token makes.
fn bearer(service: &Service, registry: &Registry, token: &str) -> Ctx {
    let (principal, reach) = service.data_plane_bearer(registry, token, NOW).unwrap();
    Ctx { principal, reach, request_id: "test".into(), now: NOW }
}

#[tokio::test]
async fn the_first_start_makes_an_owner_and_the_next_finds_it() {
    let Site { service, bootstrap, dir, .. } = Site::new().await;
    assert!(!service.needs_bootstrap());
    assert_eq!((service.tenant_id(), service.subscription_id()), (bootstrap.tenant_id, bootstrap.subscription_id));
    // A start that crashed after writing the file adopts it again.
    service.adopt_bootstrap(&bootstrap, later(5)).await.unwrap();
    let other = portolan_service::identity::Bootstrap::generate().unwrap();
    assert_eq!(service.adopt_bootstrap(&other, NOW).await.unwrap_err().kind, Kind::Conflict);

    let before = service.authority.jwks()[0].kid.clone();
    service.meta.close().await;
    drop(service);
    let service = open(dir.path(), ServiceConfig::default()).await;
    assert_eq!(service.tenant_id(), bootstrap.tenant_id);
    assert_eq!(service.authority.jwks()[0].kid, before, "the same signing key");
    signed_in(&service, &bootstrap);
}

#[tokio::test]
async fn wrong_client_secrets_get_one_answer() {
    let site = Site::new().await;
    let id = site.bootstrap.client_id.to_string();
    let good = site.bootstrap.client_secret.expose();
    for (id, secret) in [
        (id.as_str(), "wrong"),
        (id.as_str(), ""),
        (id.as_str(), &good[1..]),
        ("11111111-1111-1111-1111-111111111111", good.as_str()),
        ("not-an-id", good.as_str()),
        ("", ""),
    ] {
        let e = site.service.client_token(BASE, id, secret, "x", NOW).unwrap_err();
        assert_eq!((e.kind, e.code), (Kind::Unauthenticated, "invalid_client"), "{id}");
        assert!(e.message.starts_with("AADSTS7000215: "), "{e}");
        assert!(!e.message.contains(secret) || secret.is_empty() || secret == "wrong");
    }
}

#[tokio::test]
async fn directory_tokens_open_what_they_are_for() {
    let site = Site::new().await;
    let reg = site.with_admin("myreg").await;
    let service = &site.service;
    for resource in
        [BASE, "https://management.azure.com/", "https://management.core.windows.net", "https://127.0.0.1:8443"]
    {
        let token = site.directory_token(resource, NOW);
        service.control_plane_bearer(&token, NOW).unwrap();
        service.exchange(&reg, &token, NOW).unwrap();
    }
    let token = site.directory_token("https://containerregistry.azure.net", NOW);
    let e = service.control_plane_bearer(&token, NOW).unwrap_err();
    assert_eq!(e.code, "InvalidAuthenticationTokenAudience");
    service.exchange(&reg, &token, NOW).unwrap();
    let graph = site.directory_token("https://graph.microsoft.com", NOW);
    assert!(service.control_plane_bearer(&graph, NOW).is_err() && service.exchange(&reg, &graph, NOW).is_err());
    let evil = site.directory_token("https://localhost:8443.evil.example", NOW);
    assert!(service.control_plane_bearer(&evil, NOW).is_err());

    let strict = json!({"policies": {"azureADAuthenticationAsArmPolicy": {"status": "disabled"}}});
    let strict = site.registry("strict", strict).await;
    assert!(service.exchange(&strict, &site.directory_token(BASE, NOW), NOW).is_err());
    service.exchange(&strict, &token, NOW).unwrap();

    let arm = site.directory_token(BASE, NOW);
    let e = service.control_plane_bearer(&arm, later(3_600)).unwrap_err();
    assert_eq!(e.code, "ExpiredAuthenticationToken");
    assert_eq!(service.control_plane_bearer("x.y.z", NOW).unwrap_err().code, "InvalidAuthenticationToken");
    let refresh = site.refresh_token(&reg, NOW);
    assert_eq!(service.control_plane_bearer(&refresh, NOW).unwrap_err().code, "InvalidAuthenticationToken");
}

#[tokio::test]
async fn a_token_opens_its_repository_and_no_other() {
    let site = Site::new().await;
    let (reg, other) = (site.with_admin("myreg").await, site.with_admin("other1").await);
    let service = &site.service;
    let ctx = bearer(service, &reg, &site.access_token(&reg, "repository:a:pull", NOW));
    service.check(&ctx, &reg, &repo("a"), Action::Pull).unwrap();

    let e = service.check(&ctx, &reg, &repo("b"), Action::Pull).unwrap_err();
    assert_eq!((e.kind, e.code), (Kind::Unauthenticated, "UNAUTHORIZED"));
    assert_eq!(e.challenge.as_deref(), Some("repository:b:pull"), "docker is told what to ask for");
    for (target, action) in [
        (repo("a"), Action::Push),
        (repo("a"), Action::Delete),
        (repo("a/b"), Action::Pull),
        (Target::Registry, Action::CatalogList),
        (repo("a"), Action::RegistryWrite),
    ] {
        assert!(service.check(&ctx, &reg, &target, action).is_err(), "{target:?} {action:?}");
    }
    // Another registry does not take it, whatever it is asked with.
    let token = site.access_token(&reg, "repository:a:pull", NOW);
    assert!(service.data_plane_bearer(&other, &token, NOW).is_err());
    let refresh = site.refresh_token(&reg, NOW);
    assert!(service.access_token(&other, SignIn::Refresh(&refresh), &[], NOW).is_err());
    assert!(service.data_plane_bearer(&reg, &refresh, NOW).is_err(), "a refresh token is no access token");
    assert!(service.data_plane_bearer(&reg, &site.directory_token(BASE, NOW), NOW).is_err());
    // Times.
    assert!(service.data_plane_bearer(&reg, &token, later(75 * 60)).is_err());
    assert!(service.access_token(&reg, SignIn::Refresh(&refresh), &[], later(3 * 3_600)).is_err());
    service.access_token(&reg, SignIn::Refresh(&refresh), &[], later(3 * 3_600 - 1)).unwrap();
}

#[tokio::test]
async fn docker_signs_in_in_every_way() {
    let site = Site::new().await;
    let reg = site.with_admin("MyReg").await;
    let service = &site.service;
    let refresh = site.refresh_token(&reg, NOW);
    let passwords = service.list_credentials(&site.owner, &reg.group, &reg.name).unwrap().passwords;
    let client_id = site.bootstrap.client_id.to_string();
    for (user, password) in [
        ("00000000-0000-0000-0000-000000000000", refresh.as_str()),
        ("myreg", passwords[0].1.expose()),
        ("MyReg", passwords[1].1.expose()),
        (&client_id, site.bootstrap.client_secret.expose()),
    ] {
        let (principal, reach) = service.data_plane_basic(&reg, user, password, NOW).unwrap();
        assert_eq!(reach, Reach::Principal);
        let ctx = Ctx { principal, reach, request_id: String::new(), now: NOW };
        service.check(&ctx, &reg, &repo("a"), Action::Push).unwrap();
        service.check(&ctx, &reg, &Target::Registry, Action::CatalogList).unwrap();
        let sign_in = SignIn::Password { user, password };
        let token = service.access_token(&reg, sign_in, &["repository:a:pull,push"], NOW).unwrap();
        let ctx = bearer(service, &reg, token.token.expose());
        service.check(&ctx, &reg, &repo("a"), Action::Push).unwrap();
    }
    for (user, password) in [
        ("myreg", "wrong"),
        ("myreg", ""),
        ("", ""),
        ("00000000-0000-0000-0000-000000000000", "x"),
        ("00000000-0000-0000-0000-000000000000", passwords[0].1.expose()),
        (&client_id, "wrong"),
        ("somebody", passwords[0].1.expose()),
    ] {
        let e = service.data_plane_basic(&reg, user, password, NOW).unwrap_err();
        assert_eq!((e.kind, e.code), (Kind::Unauthenticated, "UNAUTHORIZED"), "{user}");
        assert!(e.challenge.is_some());
    }
}

#[tokio::test]
async fn a_renewed_admin_password_ends_what_the_old_one_opened() {
    let site = Site::new().await;
    let reg = site.with_admin("myreg").await;
    let service = &site.service;
    let old = service.list_credentials(&site.owner, &reg.group, &reg.name).unwrap();
    let [(_, first), (_, second)] = &old.passwords;
    let get = |reg: &Registry, password: &str| {
        service.access_token(reg, SignIn::Password { user: "myreg", password }, &["repository:a:pull"], NOW)
    };
    let token = get(&reg, first.expose()).unwrap().token;
    let token2 = get(&reg, second.expose()).unwrap().token;
    let new = service.regenerate_credential(&site.owner, &reg.group, &reg.name, AdminPassword::First).await.unwrap();
    assert_ne!(new.passwords[0].1, *first);
    assert_eq!(new.passwords[1].1, *second, "the other password stays");

    let reg = service.registry("myreg").unwrap();
    assert!(get(&reg, first.expose()).is_err());
    assert!(service.data_plane_bearer(&reg, token.expose(), NOW).is_err(), "its tokens end too");
    service.data_plane_bearer(&reg, token2.expose(), NOW).unwrap();

    // Off: neither the password nor a token opens anything.
    let input = portolan_service::registries::RegistryInput {
        properties: json!({"adminUserEnabled": false}).as_object().cloned().unwrap(),
        ..Default::default()
    };
    let reg = service.patch_registry(&site.owner, &reg.group, &reg.name, input).await.unwrap();
    assert!(get(&reg, second.expose()).is_err());
    assert!(service.data_plane_bearer(&reg, token2.expose(), NOW).is_err());
    let e = service.list_credentials(&site.owner, &reg.group, &reg.name).unwrap_err();
    assert_eq!((e.kind, e.code), (Kind::Invalid, "UnAuthorizedForCredentialOperations"));
}

#[tokio::test]
async fn a_disabled_principal_is_out_at_once() {
    let site = Site::new().await;
    let reg = site.with_admin("myreg").await;
    let service = &site.service;
    let access = site.access_token(&reg, "repository:a:pull", NOW);
    let (refresh, arm) = (site.refresh_token(&reg, NOW), site.directory_token(BASE, NOW));
    service.data_plane_bearer(&reg, &access, NOW).unwrap();
    let Principal::Directory { object_id, .. } = site.owner.principal else { panic!("the owner is of the directory") };
    let set = |enabled| async move {
        service.meta.write(move |tx| meta::principal::set_enabled(tx, object_id, enabled, later(1))).await.unwrap();
        service.refresh().await.unwrap();
    };
    set(false).await;
    let out = || {
        assert!(service.data_plane_bearer(&reg, &access, later(2)).is_err());
        assert!(service.access_token(&reg, SignIn::Refresh(&refresh), &[], later(2)).is_err());
        assert!(service.control_plane_bearer(&arm, later(2)).is_err());
        assert!(service.exchange(&reg, &arm, later(2)).is_err());
    };
    out();
    assert!(service.check(&site.owner, &reg, &repo("a"), Action::Pull).is_err(), "its roles do not count");
    let client = site.bootstrap.client_id.to_string();
    let secret = site.bootstrap.client_secret.expose();
    assert!(service.client_token(BASE, &client, secret, BASE, later(2)).is_err());
    set(true).await;
    out();
    service.client_token(BASE, &client, secret, BASE, later(2)).unwrap();
}

#[tokio::test]
async fn anonymous_callers_are_told_how_to_sign_in() {
    let site = Site::new().await;
    let reg = site.with_admin("myreg").await;
    let service = &site.service;
    let e = service.check(&nobody(), &reg, &repo("a"), Action::Push).unwrap_err();
    assert_eq!((e.kind, e.challenge.as_deref()), (Kind::Unauthenticated, Some("repository:a:pull,push")));
    let e = service.check(&nobody(), &reg, &Target::Registry, Action::RegistryRead).unwrap_err();
    assert_eq!(e.kind, Kind::Unauthenticated);
    assert!(service.access_token(&reg, SignIn::Anonymous, &["repository:a:pull"], NOW).is_err());

    let open = site.registry("openreg", json!({"anonymousPullEnabled": true})).await;
    service.check(&nobody(), &open, &repo("a"), Action::Pull).unwrap();
    assert!(service.check(&nobody(), &open, &repo("a"), Action::Push).is_err());
    let token = service.access_token(&open, SignIn::Anonymous, &["repository:a:pull,push"], NOW).unwrap();
    let ctx = bearer(service, &open, token.token.expose());
    service.check(&ctx, &open, &repo("a"), Action::Pull).unwrap();
    assert!(service.check(&ctx, &open, &repo("a"), Action::Push).is_err());
}

#[tokio::test]
async fn keys_rotate_without_logging_anyone_out() {
    let site = Site::new().await;
    let reg = site.with_admin("myreg").await;
    let service = &site.service;
    let token = site.access_token(&reg, "repository:a:pull", NOW);
    service.rotate_signing_key(later(10)).await.unwrap();
    assert_eq!(service.authority.jwks().len(), 2);
    service.data_plane_bearer(&reg, &token, later(20)).unwrap();
    // Long after, what the first key signed is over: the key goes.
    service.rotate_signing_key(later(20_000)).await.unwrap();
    assert_eq!(service.authority.jwks().len(), 2);
    assert!(service.data_plane_bearer(&reg, &token, NOW).is_err());
}

#[tokio::test]
async fn the_clients_host_is_used_when_it_is_ours() {
    let config = ServiceConfig {
        domain: Some("cr.example.com".into()),
        public_authority: "api.example.com:8443".into(),
        other_authorities: vec!["build-host:8443".into()],
        ..ServiceConfig::default()
    };
    let site = Site::with(config).await;
    let reg = site.with_admin("myreg").await;
    assert_eq!(reg.login_server, "myreg.cr.example.com:8443");
    let authority = |host| site.service.authority_for(host).to_owned();
    for own in [
        "api.example.com:8443",
        "API.example.com",
        "build-host:8443",
        "x.cr.example.com",
        "localhost:8443",
        "127.0.0.1:5000",
    ] {
        assert_eq!(authority(Some(own)), own);
    }
    for foreign in [
        "evil.example",
        "api.example.com.evil",
        "xcr.example.com",
        "evil.example/.cr.example.com",
        "\"x\".cr.example.com",
        "",
    ] {
        assert_eq!(authority(Some(foreign)), "api.example.com:8443", "{foreign}");
    }
    assert_eq!(authority(None), "api.example.com:8443");
}
