//! Who may do what: one pure decision.
//!
//! Every front door (registry, ACR data plane, ARM, workers) turns its caller into a
//! [`Principal`] and its wish into an [`Action`] on a [`Resource`], and asks [`decide`].
//! What a role may do is the table [`ROLES`]; what a token opens of that is [`grants_allow`].

mod scope_map;

use portolan_types::{RegistryName, RepoName};
use uuid::{Uuid, uuid};

pub use scope_map::{SCOPE_MAP_ACTIONS_MAX, ScopeMap, ScopeMapError};

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Nobody said who they are.
    Anonymous,
    /// A user, service principal or managed identity of the directory, by object id.
    Directory {
        /// Object id.
        object_id: Uuid,
        /// Application id, for service principals and managed identities.
        app_id: Option<Uuid>,
    },
    /// The admin user of one registry.
    AdminUser(RegistryName),
    /// A repository token of one registry.
    Token {
        /// The registry it belongs to.
        registry: RegistryName,
        /// Its name.
        name: String,
    },
    /// The server itself: builds pushing their result, background work.
    System,
}

/// What is wanted. Data actions name ACR's data-plane rights, control actions are ARM
/// operations reduced to what the roles tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Read blobs and manifests, list tags and referrers.
    Pull,
    /// Write blobs, manifests and tags.
    Push,
    /// Delete manifests and repositories; untag.
    Delete,
    /// Read attributes of repositories, tags and manifests.
    MetadataRead,
    /// Change them.
    MetadataWrite,
    /// List repositories.
    CatalogList,
    /// Read a control-plane resource.
    ControlRead,
    /// Create, change or delete a control-plane resource.
    ControlWrite,
    /// See or renew the admin user's passwords.
    ListCredentials,
    /// Schedule a run, upload a context for it, cancel it.
    RunTasks,
    /// Read runs and their logs.
    ReadTasks,
    /// Change role assignments.
    AssignRoles,
}

/// One entry of a registry access token's `access` claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Grant {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Repository name, or `catalog`.
    pub name: String,
    /// `pull`, `push`, `delete`, `metadata_read`, `metadata_write`, `*`.
    pub actions: Vec<String>,
}

/// What an action on a registry's data is done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The registry as a whole (the catalog).
    Registry,
    /// One repository.
    Repo(RepoName),
}

/// A set of actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActionSet(u32);

impl ActionSet {
    /// No action.
    pub const NONE: ActionSet = ActionSet(0);
    /// What can be done to a registry's content.
    pub const DATA: ActionSet = ActionSet::of(&[
        Action::Pull,
        Action::Push,
        Action::Delete,
        Action::MetadataRead,
        Action::MetadataWrite,
        Action::CatalogList,
    ]);
    /// Every action.
    pub const ALL: ActionSet = ActionSet::of(&[
        Action::ControlRead,
        Action::ControlWrite,
        Action::ListCredentials,
        Action::RunTasks,
        Action::ReadTasks,
        Action::AssignRoles,
    ])
    .with(ActionSet::DATA);

    /// The set of these actions.
    pub const fn of(actions: &[Action]) -> ActionSet {
        let (mut bits, mut i) = (0, 0);
        while i < actions.len() {
            bits |= 1 << actions[i] as u32;
            i += 1;
        }
        ActionSet(bits)
    }

    /// Both sets together.
    pub const fn with(self, other: ActionSet) -> ActionSet {
        ActionSet(self.0 | other.0)
    }

    /// This set less the other.
    pub const fn without(self, other: ActionSet) -> ActionSet {
        ActionSet(self.0 & !other.0)
    }

    /// Whether `action` is in the set.
    pub const fn contains(self, action: Action) -> bool {
        self.0 & (1 << action as u32) != 0
    }

    /// The data actions of this set, in the words of a refresh token's `permissions` claim.
    pub fn scope_map_words(self) -> Vec<String> {
        const WORDS: [(Action, &str); 5] = [
            (Action::Pull, "read"),
            (Action::Push, "write"),
            (Action::Delete, "delete"),
            (Action::MetadataRead, "metadata/read"),
            (Action::MetadataWrite, "metadata/write"),
        ];
        WORDS.iter().filter(|(action, _)| self.contains(*action)).map(|(_, word)| (*word).to_owned()).collect()
    }
}

/// A built-in role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// Azure's id of the role definition.
    pub id: Uuid,
    /// Azure's name of it.
    pub name: &'static str,
    /// What it may do, in registries with registry-wide permissions.
    pub actions: ActionSet,
}

/// `Owner`
pub const OWNER: Uuid = uuid!("8e3af657-a8ff-443c-a75c-2fe8c4bcb635");
/// `Contributor`
pub const CONTRIBUTOR: Uuid = uuid!("b24988ac-6180-42a0-ab88-20f7382dd24c");
/// `Reader`
pub const READER: Uuid = uuid!("acdd72a7-3385-48ef-bd42-f606fba81ae7");
/// `AcrPull`
pub const ACR_PULL: Uuid = uuid!("7f951dda-4ed3-4680-a7ca-43fe172d538d");
/// `AcrPush`
pub const ACR_PUSH: Uuid = uuid!("8311e382-0749-4cb8-b61a-304f252e45ec");
/// `AcrDelete`
pub const ACR_DELETE: Uuid = uuid!("c2f4ef07-c644-48eb-af81-4b1b4947fb11");

const PULLS: ActionSet = ActionSet::of(&[Action::Pull, Action::MetadataRead, Action::CatalogList]);

/// The built-in roles, with ACR's effects in its `LegacyRegistryPermissions` mode.
pub const ROLES: &[Role] = &[
    Role { id: OWNER, name: "Owner", actions: ActionSet::ALL },
    Role {
        id: CONTRIBUTOR,
        name: "Contributor",
        actions: ActionSet::ALL.without(ActionSet::of(&[Action::AssignRoles])),
    },
    Role { id: READER, name: "Reader", actions: PULLS.with(ActionSet::of(&[Action::ControlRead, Action::ReadTasks])) },
    Role { id: ACR_PULL, name: "AcrPull", actions: PULLS },
    Role { id: ACR_PUSH, name: "AcrPush", actions: PULLS.with(ActionSet::of(&[Action::Push, Action::MetadataWrite])) },
    Role { id: ACR_DELETE, name: "AcrDelete", actions: ActionSet::of(&[Action::Delete]) },
];

/// The role with this id.
pub fn role(id: Uuid) -> Option<&'static Role> {
    ROLES.iter().find(|r| r.id == id)
}

/// A role that a principal holds at a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The scope's [`ResourceId::key`](portolan_types::ResourceId::key).
    pub scope: String,
    /// What the role may do.
    pub actions: ActionSet,
}

/// What an action is done to.
#[derive(Clone, Copy, Debug)]
pub struct Resource<'a> {
    /// Its ARM id, as [`ResourceId::key`](portolan_types::ResourceId::key).
    pub scope: &'a str,
    /// The registry it is or belongs to; none for subscriptions and groups.
    pub registry: Option<RegistryFacts<'a>>,
}

/// What the decision needs to know of a registry.
#[derive(Clone, Copy, Debug)]
pub struct RegistryFacts<'a> {
    /// Its name.
    pub name: &'a RegistryName,
    /// Whether its admin user may sign in.
    pub admin_enabled: bool,
    /// Whether anybody may pull.
    pub anonymous_pull: bool,
}

/// What `principal`, who holds these assignments, may do to `resource`.
pub fn allowed(principal: &Principal, assignments: &[Assignment], resource: &Resource<'_>) -> ActionSet {
    match (principal, resource.registry) {
        (Principal::System, _) => ActionSet::ALL,
        (Principal::Directory { .. }, _) => assignments
            .iter()
            .filter(|a| within(resource.scope, &a.scope))
            .fold(ActionSet::NONE, |sum, a| sum.with(a.actions)),
        (Principal::AdminUser(of), Some(registry))
            if registry.admin_enabled && of.as_str().eq_ignore_ascii_case(registry.name.as_str()) =>
        {
            ActionSet::DATA
        }
        (Principal::Anonymous, Some(registry)) if registry.anonymous_pull => {
            ActionSet::of(&[Action::Pull, Action::MetadataRead])
        }
        (Principal::AdminUser(_) | Principal::Token { .. } | Principal::Anonymous, _) => ActionSet::NONE,
    }
}

/// Whether `principal`, who holds these assignments, may do `action` to `resource`.
pub fn decide(principal: &Principal, assignments: &[Assignment], action: Action, resource: &Resource<'_>) -> bool {
    allowed(principal, assignments, resource).contains(action)
}

/// Whether `scope` is `outer` or lies below it; both in key form.
fn within(scope: &str, outer: &str) -> bool {
    scope.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The action's word in token scopes; none for control actions, which no registry token opens.
pub fn scope_word(action: Action) -> Option<&'static str> {
    match action {
        Action::Pull => Some("pull"),
        Action::Push => Some("push"),
        Action::Delete => Some("delete"),
        Action::MetadataRead => Some("metadata_read"),
        Action::MetadataWrite => Some("metadata_write"),
        Action::CatalogList => Some("*"),
        _ => None,
    }
}

/// The scope to ask a token for, when `action` on `target` was refused for want of one.
pub fn scope_text(target: &Target, action: Action) -> String {
    let word = scope_word(action).unwrap_or("pull");
    match target {
        Target::Registry => "registry:catalog:*".to_owned(),
        // A push reads what is there before it writes, and clients ask for what they are told.
        Target::Repo(name) if action == Action::Push => format!("repository:{name}:pull,push"),
        Target::Repo(name) => format!("repository:{name}:{word}"),
    }
}

/// Whether a token with these grants opens `action` on `target`.
pub fn grants_allow(grants: &[Grant], target: &Target, action: Action) -> bool {
    let Some(word) = scope_word(action) else {
        return false;
    };
    let (kind, name) = match target {
        Target::Registry => ("registry", "catalog"),
        Target::Repo(name) => ("repository", name.as_str()),
    };
    grants.iter().any(|g| {
        g.kind == kind
            && (g.name == name || (kind == "repository" && g.name == "*"))
            && g.actions.iter().any(|a| a == word || a == "*")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const SUB: &str = "/subscriptions/s";
    const REG: &str = "/subscriptions/s/resourcegroups/g/providers/microsoft.containerregistry/registries/myreg";
    const ACTIONS: [Action; 12] = [
        Action::Pull,
        Action::Push,
        Action::Delete,
        Action::MetadataRead,
        Action::MetadataWrite,
        Action::CatalogList,
        Action::ControlRead,
        Action::ControlWrite,
        Action::ListCredentials,
        Action::RunTasks,
        Action::ReadTasks,
        Action::AssignRoles,
    ];

    fn someone() -> Principal {
        Principal::Directory { object_id: Uuid::nil(), app_id: None }
    }

    fn name(text: &str) -> RegistryName {
        text.parse().unwrap()
    }

    fn row(who: &str, principal: &Principal, assignments: &[Assignment], resource: &Resource<'_>) -> String {
        let marks: String =
            ACTIONS.iter().map(|a| if decide(principal, assignments, *a, resource) { " x" } else { " ." }).collect();
        format!("{who:<22}{marks}\n")
    }

    #[test]
    fn who_may_do_what() {
        let myreg = name("MyReg");
        let facts = RegistryFacts { name: &myreg, admin_enabled: true, anonymous_pull: false };
        let registry = Resource { scope: REG, registry: Some(facts) };
        let open = Resource { registry: Some(RegistryFacts { anonymous_pull: true, ..facts }), ..registry };
        let closed = Resource { registry: Some(RegistryFacts { admin_enabled: false, ..facts }), ..registry };
        let at = |scope: &str, role: &Role| [Assignment { scope: scope.to_owned(), actions: role.actions }];

        let mut table = format!("{:<22} {}\n", "", "p P d m M c r w l t T a");
        for r in ROLES {
            table += &row(r.name, &someone(), &at(SUB, r), &registry);
        }
        let owner = role(OWNER).unwrap();
        table += &row("Owner here", &someone(), &at(REG, owner), &registry);
        table += &row("Owner elsewhere", &someone(), &at("/subscriptions/s/resourcegroups/g2", owner), &registry);
        table += &row("Owner of a prefix", &someone(), &at("/subscriptions/s/resourcegroups/", owner), &registry);
        table += &row("Owner of /sub…/s2", &someone(), &at("/subscriptions/s2", owner), &registry);
        table += &row("no role", &someone(), &[], &registry);
        table += &row("admin user", &Principal::AdminUser(name("myreg")), &[], &registry);
        table += &row("admin user, disabled", &Principal::AdminUser(name("myreg")), &[], &closed);
        table += &row("admin user of another", &Principal::AdminUser(name("other")), &[], &registry);
        let token = Principal::Token { registry: myreg.clone(), name: "t".into() };
        table += &row("repository token", &token, &[], &registry);
        table += &row("anonymous", &Principal::Anonymous, &at(SUB, owner), &registry);
        table += &row("anonymous pull", &Principal::Anonymous, &[], &open);
        table += &row("system", &Principal::System, &[], &registry);
        expect![[r#"
                                   p P d m M c r w l t T a
            Owner                  x x x x x x x x x x x x
            Contributor            x x x x x x x x x x x .
            Reader                 x . . x . x x . . . x .
            AcrPull                x . . x . x . . . . . .
            AcrPush                x x . x x x . . . . . .
            AcrDelete              . . x . . . . . . . . .
            Owner here             x x x x x x x x x x x x
            Owner elsewhere        . . . . . . . . . . . .
            Owner of a prefix      . . . . . . . . . . . .
            Owner of /sub…/s2      . . . . . . . . . . . .
            no role                . . . . . . . . . . . .
            admin user             x x x x x x . . . . . .
            admin user, disabled   . . . . . . . . . . . .
            admin user of another  . . . . . . . . . . . .
            repository token       . . . . . . . . . . . .
            anonymous              . . . . . . . . . . . .
            anonymous pull         x . . x . . . . . . . .
            system                 x x x x x x x x x x x x
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn grants_open_what_they_name() {
        let grant = |kind: &str, name: &str, actions: &[&str]| Grant {
            kind: kind.into(),
            name: name.into(),
            actions: actions.iter().map(|a| (*a).to_owned()).collect(),
        };
        let a = Target::Repo("a".parse().unwrap());
        let b = Target::Repo("a/b".parse().unwrap());
        let pull_a = [grant("repository", "a", &["pull"])];
        assert!(grants_allow(&pull_a, &a, Action::Pull));
        assert!(!grants_allow(&pull_a, &a, Action::Push));
        assert!(!grants_allow(&pull_a, &b, Action::Pull), "a repository does not open those below it");
        assert!(!grants_allow(&pull_a, &Target::Registry, Action::CatalogList));
        let catalog = [grant("registry", "catalog", &["*"])];
        assert!(grants_allow(&catalog, &Target::Registry, Action::CatalogList));
        assert!(!grants_allow(&catalog, &a, Action::Pull));
        let named_catalog = [grant("repository", "catalog", &["*"])];
        assert!(!grants_allow(&named_catalog, &Target::Registry, Action::CatalogList));
        let all = [grant("repository", "*", &["*"])];
        assert!(grants_allow(&all, &b, Action::Delete) && !grants_allow(&all, &Target::Registry, Action::CatalogList));
        assert!(!grants_allow(&all, &a, Action::ControlWrite), "no registry token opens the control plane");
    }

    #[test]
    fn scopes_to_ask_for() {
        let a = Target::Repo("a".parse().unwrap());
        assert_eq!(scope_text(&a, Action::Pull), "repository:a:pull");
        assert_eq!(scope_text(&a, Action::Push), "repository:a:pull,push");
        assert_eq!(scope_text(&Target::Registry, Action::CatalogList), "registry:catalog:*");
    }
}
