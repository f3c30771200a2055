//! Roles: what they open, and that nobody gets more by them than somebody who may give it gave.

use portolan_auth::access::{
    ACR_PULL, Action, CATALOG_LISTER, CONTRIBUTOR, OWNER, Permission, Principal, READER, REPOSITORY_WRITER, Target,
};
use portolan_service::directory::UserInput;
use portolan_service::roles::{AssignmentFilter, AssignmentInput, RoleDefinitionInput};
use portolan_service::{Ctx, Error, Reach, Service};
use portolan_types::ResourceId;
use serde_json::json;
use uuid::{Uuid, uuid};

use crate::support::{NOW, Site};

const USER_ACCESS_ADMINISTRATOR: Uuid = uuid!("18d7d88d-d35e-4fb5-a5c3-7773c20a72d9");
const TEAM: &str = "@Request[Microsoft.ContainerRegistry/registries/repositories:name] StringStartsWith 'team/'";

/// A new user's object id and circumstances.
async fn user(site: &Site, name: &str) -> (Uuid, Ctx) {
    let input = UserInput {
        user_name: Some(format!("{name}@example.com")),
        display_name: Some(name.to_owned()),
        ..UserInput::default()
    };
    let object_id = site.service.create_user(&site.owner, input).await.unwrap().object_id;
    let principal = Principal::Directory { object_id, app_id: None };
    (object_id, Ctx { principal, reach: Reach::Principal, request_id: "test".into(), now: NOW })
}

fn input(role: Uuid, principal: Uuid) -> AssignmentInput {
    AssignmentInput {
        role,
        principal,
        principal_type: None,
        description: None,
        condition: None,
        condition_version: None,
    }
}

async fn give(service: &Service, by: &Ctx, role: Uuid, to: Uuid, scope: &ResourceId) -> Result<Uuid, Error> {
    let id = Uuid::new_v4();
    service.put_role_assignment(by, scope, id, input(role, to)).await.map(|_| id)
}

fn custom(name: &str, actions: &[&str], scope: &ResourceId) -> RoleDefinitionInput {
    RoleDefinitionInput {
        name: name.to_owned(),
        description: String::new(),
        permissions: vec![Permission {
            actions: actions.iter().map(|a| (*a).to_owned()).collect(),
            ..Permission::default()
        }],
        scopes: vec![scope.0.clone()],
    }
}

fn repo(name: &str) -> Target {
    Target::Repo(name.parse().unwrap())
}

fn subscription(site: &Site) -> ResourceId {
    ResourceId::subscription(&site.service.subscription_id())
}

fn code<T>(result: Result<T, Error>) -> &'static str {
    result.err().map_or("it was allowed", |e| e.code)
}

#[tokio::test]
async fn a_role_holds_at_once_and_no_longer_than_it_is_held() {
    let site = Site::new().await;
    let reg = site.registry("myreg", json!({})).await;
    let service = &site.service;
    let (alice, ctx) = user(&site, "alice").await;
    let may = |action| service.check(&ctx, &reg, &repo("a"), action).is_ok();
    assert!(!may(Action::Pull));
    let id = give(service, &site.owner, ACR_PULL, alice, &reg.resource_id).await.unwrap();
    assert!(may(Action::Pull) && !may(Action::Push));
    let gone = service.delete_role_assignment(&site.owner, &reg.resource_id, id).await.unwrap();
    assert_eq!(gone.unwrap().principal, alice);
    assert!(!may(Action::Pull));
    assert_eq!(service.delete_role_assignment(&site.owner, &reg.resource_id, id).await.unwrap(), None);
}

#[tokio::test]
async fn scopes_in_another_case_are_the_same_scope() {
    let site = Site::new().await;
    let reg = site.registry("MyReg", json!({})).await;
    let (alice, ctx) = user(&site, "alice").await;
    let shouted = ResourceId(reg.resource_id.0.to_uppercase());
    let id = give(&site.service, &site.owner, ACR_PULL, alice, &shouted).await.unwrap();
    site.service.check(&ctx, &reg, &repo("a"), Action::Pull).unwrap();
    let shown = site.service.show_role_assignment(&site.owner, &shouted, id).unwrap();
    assert_eq!(shown.scope, reg.resource_id, "it is shown as the registry is spelled");
    assert_eq!(code(give(&site.service, &site.owner, ACR_PULL, alice, &reg.resource_id).await), "RoleAssignmentExists");
}

#[tokio::test]
async fn conditions_open_the_repositories_they_name_and_no_others() {
    let site = Site::new().await;
    let reg = site.registry("myreg", json!({"roleAssignmentMode": "AbacRepositoryPermissions"})).await;
    let service = &site.service;
    let (alice, ctx) = user(&site, "alice").await;
    let (id, scope) = (Uuid::new_v4(), &reg.resource_id);
    let with = |condition: &str| AssignmentInput {
        condition: Some(condition.to_owned()),
        condition_version: Some("2.0".to_owned()),
        ..input(REPOSITORY_WRITER, alice)
    };
    service.put_role_assignment(&site.owner, scope, id, with(TEAM)).await.unwrap();
    let may = |target: &Target, action| service.check(&ctx, &reg, target, action).is_ok();
    assert!(may(&repo("team/a"), Action::Push) && !may(&repo("team/a"), Action::Delete));
    assert!(!may(&repo("teams"), Action::Pull) && !may(&Target::Registry, Action::CatalogList));
    // The condition may be changed, and holds at once.
    let other = TEAM.replace("team/", "other/");
    let (changed, new) = service.put_role_assignment(&site.owner, scope, id, with(&other)).await.unwrap();
    assert!(!new && changed.condition.as_deref() == Some(other.as_str()));
    assert!(!may(&repo("team/a"), Action::Pull) && may(&repo("other/a"), Action::Pull));
    // Nothing else of an assignment may.
    for input in [input(OWNER, alice), input(REPOSITORY_WRITER, user(&site, "bob").await.0)] {
        let moved = service.put_role_assignment(&site.owner, scope, id, input).await;
        assert_eq!(code(moved), "RoleAssignmentUpdateNotPermitted");
    }
    for (condition, version) in [("true", "2.0"), (TEAM, "1.0"), ("@Request[x] StringEquals 'a'", "2.0")] {
        let input = AssignmentInput { condition_version: Some(version.into()), ..with(condition) };
        let refused = service.put_role_assignment(&site.owner, scope, Uuid::new_v4(), input).await;
        assert_eq!(code(refused), "InvalidRoleAssignmentCondition", "{condition} {version}");
    }
}

#[tokio::test]
async fn in_the_abac_mode_an_owner_has_no_content_and_listers_only_list() {
    let site = Site::new().await;
    let reg = site.registry("myreg", json!({"roleAssignmentMode": "AbacRepositoryPermissions"})).await;
    let service = &site.service;
    for (target, action) in [(repo("a"), Action::Pull), (Target::Registry, Action::CatalogList)] {
        assert_eq!(code(service.check(&site.owner, &reg, &target, action)), "DENIED");
    }
    let (lister, ctx) = user(&site, "lister").await;
    give(service, &site.owner, CATALOG_LISTER, lister, &reg.resource_id).await.unwrap();
    service.check(&ctx, &reg, &Target::Registry, Action::CatalogList).unwrap();
    assert!(service.check(&ctx, &reg, &repo("a"), Action::MetadataRead).is_err());
}

#[tokio::test]
async fn only_who_may_give_roles_gives_them() {
    let site = Site::new().await;
    let reg = site.registry("myreg", json!({})).await;
    let other = site.registry("other1", json!({})).await;
    let service = &site.service;
    let sub = subscription(&site);
    let (alice, contributor) = user(&site, "alice").await;
    let (bob, administrator) = user(&site, "bob").await;
    give(service, &site.owner, CONTRIBUTOR, alice, &sub).await.unwrap();
    give(service, &site.owner, USER_ACCESS_ADMINISTRATOR, bob, &reg.resource_id).await.unwrap();
    assert_eq!(code(give(service, &contributor, OWNER, alice, &sub).await), "AuthorizationFailed");
    assert_eq!(code(give(service, &contributor, ACR_PULL, alice, &reg.resource_id).await), "AuthorizationFailed");
    give(service, &administrator, READER, alice, &reg.resource_id).await.unwrap();
    for scope in [&sub, &other.resource_id] {
        assert_eq!(code(give(service, &administrator, OWNER, bob, scope).await), "AuthorizationFailed");
    }
    // Nor does an assignment go to somebody who is not there, or at what is not there.
    assert_eq!(code(give(service, &site.owner, READER, Uuid::new_v4(), &sub).await), "PrincipalNotFound");
    let nowhere = ResourceId(format!("{}x", reg.resource_id));
    assert_eq!(code(give(service, &site.owner, READER, bob, &nowhere).await), "ResourceNotFound");
    assert_eq!(code(give(service, &site.owner, Uuid::new_v4(), bob, &sub).await), "RoleDefinitionDoesNotExist");
    let user_type = AssignmentInput { principal_type: Some("ServicePrincipal".into()), ..input(READER, bob) };
    let wrong = service.put_role_assignment(&site.owner, &sub, Uuid::new_v4(), user_type).await;
    assert_eq!(code(wrong), "UnmatchedPrincipalType");
}

#[tokio::test]
async fn a_custom_role_cannot_be_widened_past_its_author() {
    let site = Site::new().await;
    let reg = site.registry("myreg", json!({})).await;
    let service = &site.service;
    let sub = subscription(&site);
    let (author, ctx) = user(&site, "author").await;
    let id = Uuid::new_v4();
    let own = ["Microsoft.Authorization/roleDefinitions/*", "Microsoft.ContainerRegistry/registries/read"];
    service.put_role_definition(&site.owner, id, custom("authors", &own, &sub)).await.unwrap();
    give(service, &site.owner, id, author, &sub).await.unwrap();
    service.check(&ctx, &reg, &Target::Registry, Action::RegistryRead).unwrap();
    // Its holder may write definitions, so may write this one; but not put in what it lacks.
    let wide = ["*"];
    let widened = service.put_role_definition(&ctx, id, custom("authors", &wide, &sub)).await;
    assert_eq!(code(widened), "AuthorizationFailed");
    let fresh = service.put_role_definition(&ctx, Uuid::new_v4(), custom("fresh", &wide, &sub)).await;
    assert_eq!(code(fresh), "AuthorizationFailed");
    service.put_role_definition(&ctx, id, custom("authors", &own[..1], &sub)).await.unwrap();
    assert!(service.check(&ctx, &reg, &Target::Registry, Action::RegistryRead).is_err(), "it holds at once");
}

#[tokio::test]
async fn custom_roles_have_their_scopes_and_names() {
    let site = Site::new().await;
    let reg = site.registry("myreg", json!({})).await;
    let service = &site.service;
    let sub = subscription(&site);
    let (alice, ctx) = user(&site, "alice").await;
    let id = Uuid::new_v4();
    let runner = custom("Runner", &["Microsoft.ContainerRegistry/registries/scheduleRun/action"], &reg.resource_id);
    let (made, new) = service.put_role_definition(&site.owner, id, runner.clone()).await.unwrap();
    assert!(new && made.is_custom);
    assert_eq!(
        code(give(service, &site.owner, id, alice, &sub).await),
        "RoleAssignmentScopeNotAssignableToRoleDefinition"
    );
    let assignment = give(service, &site.owner, id, alice, &reg.resource_id).await.unwrap();
    service.check(&ctx, &reg, &Target::Registry, Action::ScheduleRun).unwrap();
    let listed = |scope: &ResourceId| {
        let found = service.list_role_definitions(&site.owner, scope, false).unwrap();
        found.iter().any(|d| d.id == id)
    };
    assert!(listed(&reg.resource_id) && !listed(&sub));
    for name in ["RUNNER", "owner"] {
        let taken = RoleDefinitionInput { name: name.into(), ..runner.clone() };
        let refused = service.put_role_definition(&site.owner, Uuid::new_v4(), taken).await;
        assert_eq!(code(refused), "RoleDefinitionWithSameNameExists", "{name}");
    }
    let held = service.delete_role_definition(&site.owner, &sub, id).await;
    assert_eq!(code(held), "RoleDefinitionHasAssignments");
    service.delete_role_assignment(&site.owner, &reg.resource_id, assignment).await.unwrap();
    assert!(service.delete_role_definition(&site.owner, &sub, id).await.unwrap().is_some());
    assert_eq!(service.delete_role_definition(&site.owner, &sub, id).await.unwrap(), None);
    for role in [OWNER, READER] {
        let changed = service.put_role_definition(&site.owner, role, runner.clone()).await;
        assert_eq!(code(changed), "BuiltInRoleDefinitionCannotBeUpdated");
        let gone = service.delete_role_definition(&site.owner, &sub, role).await;
        assert_eq!(code(gone), "BuiltInRoleDefinitionCannotBeDeleted");
    }
}

#[tokio::test]
async fn the_last_way_in_stays() {
    let site = Site::new().await;
    let service = &site.service;
    let sub = subscription(&site);
    let all = service.list_role_assignments(&site.owner, &sub, AssignmentFilter::default()).unwrap();
    assert_eq!(all.len(), 1);
    let last = service.delete_role_assignment(&site.owner, &sub, all[0].id).await;
    assert_eq!(code(last), "LastRoleAssignment");
    let (alice, ctx) = user(&site, "alice").await;
    give(service, &site.owner, OWNER, alice, &sub).await.unwrap();
    service.delete_role_assignment(&ctx, &sub, all[0].id).await.unwrap().unwrap();
    assert_eq!(code(give(service, &site.owner, READER, alice, &sub).await), "AuthorizationFailed");
}

#[tokio::test]
async fn lists_say_what_holds_where() {
    let site = Site::new().await;
    let reg = site.registry("myreg", json!({})).await;
    let service = &site.service;
    let sub = subscription(&site);
    let group = ResourceId::group(&service.subscription_id(), "rg");
    let (alice, ctx) = user(&site, "alice").await;
    give(service, &site.owner, READER, alice, &group).await.unwrap();
    give(service, &site.owner, ACR_PULL, alice, &reg.resource_id).await.unwrap();
    let count = |scope: &ResourceId, filter| service.list_role_assignments(&site.owner, scope, filter).unwrap().len();
    let at = AssignmentFilter { at_scope: true, principal: None };
    let of = AssignmentFilter { at_scope: false, principal: Some(alice) };
    let every = AssignmentFilter::default();
    assert_eq!([count(&sub, at), count(&sub, every), count(&sub, of)], [1, 3, 2]);
    assert_eq!([count(&group, at), count(&group, every)], [2, 3]);
    assert_eq!([count(&reg.resource_id, at), count(&ResourceId(String::new()), every)], [3, 3]);
    // A reader of the group sees who holds what there, and not above it.
    service.list_role_assignments(&ctx, &group, every).unwrap();
    assert_eq!(code(service.list_role_assignments(&ctx, &sub, every)), "AuthorizationFailed");
}
