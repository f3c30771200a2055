//! Roles: names for sets of operations, Azure's and those made here.
//!
//! A role definition chooses operations by patterns, in four lists: `actions` less
//! `notActions` of the control plane, `dataActions` less `notDataActions` of content. A
//! pattern is an operation's name in any case, in which `*` stands for any text, slashes too.
//! [`Permission::compile`] turns the lists into an [`ActionSet`]; operations that we do not
//! have are kept in the definition and choose nothing.
//!
//! Built-in roles: Microsoft Learn, "Azure built-in roles", categories General, Privileged,
//! Containers, Identity and Security.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use uuid::{Uuid, uuid};

use super::{Action, ActionSet};

/// Patterns in one role definition, over all of its lists.
pub const PATTERNS_MAX: usize = 1_024;
/// Bytes of one pattern.
pub const PATTERN_BYTES_MAX: usize = 256;

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
/// `Container Registry Repository Reader`
pub const REPOSITORY_READER: Uuid = uuid!("b93aa761-3e63-49ed-ac28-beffa264f7ac");
/// `Container Registry Repository Writer`
pub const REPOSITORY_WRITER: Uuid = uuid!("2a1e307c-b015-4ebd-883e-5b7698a07328");
/// `Container Registry Repository Contributor`
pub const REPOSITORY_CONTRIBUTOR: Uuid = uuid!("2efddaa5-3f1f-4df3-97df-af3f13818f4c");
/// `Container Registry Repository Catalog Lister`
pub const CATALOG_LISTER: Uuid = uuid!("bfdb9389-c9a5-478a-bb2f-ba9ca092c3c7");

/// What a role may do: one member of a definition's `permissions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Permission {
    /// Operations of the control plane.
    pub actions: Vec<String>,
    /// Taken out of `actions`; not a prohibition, another role may grant it.
    pub not_actions: Vec<String>,
    /// Operations on content.
    pub data_actions: Vec<String>,
    /// Taken out of `dataActions`.
    pub not_data_actions: Vec<String>,
}

/// Why a pattern was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// More than [`PATTERNS_MAX`].
    #[error("a role definition can have {PATTERNS_MAX} operations in all, not {0}")]
    TooMany(usize),
    /// Not the name of an operation, nor a pattern of names.
    #[error(
        "'{0}' is not an operation: use a name like Microsoft.ContainerRegistry/registries/read, or * for any text"
    )]
    Pattern(String),
}

impl Permission {
    /// Refuse what is no pattern.
    pub fn check(permissions: &[Permission]) -> Result<(), PatternError> {
        let lists = |p: &Permission| [&p.actions, &p.not_actions, &p.data_actions, &p.not_data_actions].map(Vec::len);
        let count = permissions.iter().flat_map(lists).sum();
        if count > PATTERNS_MAX {
            return Err(PatternError::TooMany(count));
        }
        for pattern in permissions
            .iter()
            .flat_map(|p| p.actions.iter().chain(&p.not_actions).chain(&p.data_actions).chain(&p.not_data_actions))
        {
            if !is_pattern(pattern) {
                return Err(PatternError::Pattern(pattern.chars().take(120).flat_map(char::escape_debug).collect()));
            }
        }
        Ok(())
    }

    /// The actions that the lists choose.
    pub fn compile(&self) -> ActionSet {
        let chosen = |action: &Action| {
            let (yes, no) = if action.is_data() {
                (&self.data_actions, &self.not_data_actions)
            } else {
                (&self.actions, &self.not_actions)
            };
            let any = |list: &[String]| list.iter().any(|pattern| matches(pattern, action.operation()));
            any(yes) && !any(no)
        };
        Action::ALL.iter().filter(|a| chosen(a)).fold(ActionSet::NONE, |sum, a| sum.with(ActionSet::of(&[*a])))
    }
}

/// A name of an operation, or a pattern of names: `Microsoft.X/y/*`, `*/read`, `*`.
fn is_pattern(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"./*_-".contains(&c);
    !text.is_empty()
        && text.len() <= PATTERN_BYTES_MAX
        && text.bytes().all(plain)
        && (text.contains('/') || text == "*")
}

/// Whether `text` fits `pattern`, in which `*` stands for any text; in any case.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    like(pattern.as_bytes(), text.as_bytes(), &|p, t| p.eq_ignore_ascii_case(&t))
}

/// Wildcard matching without recursion: a `*` is tried again one byte further on when what
/// follows it does not fit. At worst as many steps as the product of the lengths.
fn like(pattern: &[u8], text: &[u8], same: &dyn Fn(u8, u8) -> bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, t));
                p += 1;
            }
            Some(c) if same(*c, text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    p = star + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// A built-in role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Azure's id of the role definition.
    pub id: Uuid,
    /// Azure's name of it.
    pub name: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// What it may do, as Azure's definition says.
    pub permission: Permission,
    /// The same, compiled.
    pub actions: ActionSet,
}

/// The built-in roles.
pub fn roles() -> &'static [Role] {
    &ROLES
}

/// The built-in role with this id.
pub fn role(id: Uuid) -> Option<&'static Role> {
    ROLES.iter().find(|r| r.id == id)
}

static ROLES: LazyLock<Vec<Role>> = LazyLock::new(|| BUILT_IN.iter().map(BuiltIn::role).collect());

struct BuiltIn {
    id: Uuid,
    name: &'static str,
    description: &'static str,
    actions: &'static [&'static str],
    not_actions: &'static [&'static str],
    data_actions: &'static [&'static str],
}

impl BuiltIn {
    fn role(&self) -> Role {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let permission = Permission {
            actions: own(self.actions),
            not_actions: own(self.not_actions),
            data_actions: own(self.data_actions),
            not_data_actions: Vec::new(),
        };
        let actions = permission.compile();
        Role { id: self.id, name: self.name, description: self.description, permission, actions }
    }
}

const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        id: OWNER,
        name: "Owner",
        description: "Manage everything, and give roles to others.",
        actions: &["*"],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: CONTRIBUTOR,
        name: "Contributor",
        description: "Manage everything, but neither give roles nor manage locks or the directory.",
        actions: &["*"],
        not_actions: &[
            "Microsoft.Authorization/*/Delete",
            "Microsoft.Authorization/*/Write",
            "Microsoft.Authorization/elevateAccess/Action",
        ],
        data_actions: &[],
    },
    BuiltIn {
        id: READER,
        name: "Reader",
        description: "View everything, and change nothing.",
        actions: &["*/read"],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: uuid!("18d7d88d-d35e-4fb5-a5c3-7773c20a72d9"),
        name: "User Access Administrator",
        description: "Manage who may do what.",
        actions: &["*/read", "Microsoft.Authorization/*", "Microsoft.Support/*"],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: uuid!("f58310d9-a9f6-439a-9e8d-f62e7b41a168"),
        name: "Role Based Access Control Administrator",
        description: "Give roles to others and take them away, and do nothing else but view.",
        actions: &[
            "Microsoft.Authorization/roleAssignments/write",
            "Microsoft.Authorization/roleAssignments/delete",
            "*/read",
            "Microsoft.Support/*",
        ],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: ACR_PULL,
        name: "AcrPull",
        description: "Pull from a registry in the legacy mode.",
        actions: &["Microsoft.ContainerRegistry/registries/pull/read"],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: ACR_PUSH,
        name: "AcrPush",
        description: "Pull from and push to a registry in the legacy mode.",
        actions: &[
            "Microsoft.ContainerRegistry/registries/pull/read",
            "Microsoft.ContainerRegistry/registries/push/write",
        ],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: ACR_DELETE,
        name: "AcrDelete",
        description: "Delete content of a registry in the legacy mode.",
        actions: &["Microsoft.ContainerRegistry/registries/artifacts/delete"],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: uuid!("6cef56e8-d556-48e5-a04f-b8e64114680f"),
        name: "AcrImageSigner",
        description: "Sign for content trust, which no registry has any more.",
        actions: &["Microsoft.ContainerRegistry/registries/sign/write"],
        not_actions: &[],
        data_actions: &["Microsoft.ContainerRegistry/registries/trustedCollections/write"],
    },
    BuiltIn {
        id: uuid!("cdda3590-29a3-44f6-95f2-9f980659eb04"),
        name: "AcrQuarantineReader",
        description: "Pull what is in quarantine.",
        actions: &["Microsoft.ContainerRegistry/registries/quarantine/read"],
        not_actions: &[],
        data_actions: &["Microsoft.ContainerRegistry/registries/quarantinedArtifacts/read"],
    },
    BuiltIn {
        id: uuid!("c8d4ff99-41c3-41a8-9f60-21dfdad59608"),
        name: "AcrQuarantineWriter",
        description: "Pull what is in quarantine, and let it out.",
        actions: &[
            "Microsoft.ContainerRegistry/registries/quarantine/read",
            "Microsoft.ContainerRegistry/registries/quarantine/write",
        ],
        not_actions: &[],
        data_actions: &[
            "Microsoft.ContainerRegistry/registries/quarantinedArtifacts/read",
            "Microsoft.ContainerRegistry/registries/quarantinedArtifacts/write",
        ],
    },
    BuiltIn {
        id: REPOSITORY_READER,
        name: "Container Registry Repository Reader",
        description: "Pull from the repositories of a registry in the ABAC mode; not list them.",
        actions: &[],
        not_actions: &[],
        data_actions: &[
            "Microsoft.ContainerRegistry/registries/repositories/metadata/read",
            "Microsoft.ContainerRegistry/registries/repositories/content/read",
        ],
    },
    BuiltIn {
        id: REPOSITORY_WRITER,
        name: "Container Registry Repository Writer",
        description: "Pull from and push to the repositories of a registry in the ABAC mode; not list them.",
        actions: &[],
        not_actions: &[],
        data_actions: &[
            "Microsoft.ContainerRegistry/registries/repositories/metadata/read",
            "Microsoft.ContainerRegistry/registries/repositories/content/read",
            "Microsoft.ContainerRegistry/registries/repositories/metadata/write",
            "Microsoft.ContainerRegistry/registries/repositories/content/write",
        ],
    },
    BuiltIn {
        id: REPOSITORY_CONTRIBUTOR,
        name: "Container Registry Repository Contributor",
        description: "Pull from, push to and delete from the repositories of a registry in the ABAC mode; not list them.",
        actions: &[],
        not_actions: &[],
        data_actions: &[
            "Microsoft.ContainerRegistry/registries/repositories/metadata/read",
            "Microsoft.ContainerRegistry/registries/repositories/content/read",
            "Microsoft.ContainerRegistry/registries/repositories/metadata/write",
            "Microsoft.ContainerRegistry/registries/repositories/content/write",
            "Microsoft.ContainerRegistry/registries/repositories/metadata/delete",
            "Microsoft.ContainerRegistry/registries/repositories/content/delete",
        ],
    },
    BuiltIn {
        id: CATALOG_LISTER,
        name: "Container Registry Repository Catalog Lister",
        description: "List all repositories of a registry in the ABAC mode.",
        actions: &[],
        not_actions: &[],
        data_actions: &["Microsoft.ContainerRegistry/registries/catalog/read"],
    },
    BuiltIn {
        id: uuid!("fb382eab-e894-4461-af04-94435c366c3f"),
        name: "Container Registry Tasks Contributor",
        description: "Manage and run tasks and quick builds of a registry.",
        actions: &[
            "Microsoft.Authorization/*/read",
            "Microsoft.ContainerRegistry/registries/read",
            "Microsoft.ContainerRegistry/registries/agentpools/*",
            "Microsoft.ContainerRegistry/registries/listBuildSourceUploadUrl/action",
            "Microsoft.ContainerRegistry/registries/scheduleRun/action",
            "Microsoft.ContainerRegistry/registries/runs/*",
            "Microsoft.ContainerRegistry/registries/taskruns/*",
            "Microsoft.ContainerRegistry/registries/tasks/*",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: uuid!("577a9874-89fd-4f24-9dbd-b5034d0ad23a"),
        name: "Container Registry Data Importer and Data Reader",
        description: "Import images into a registry, and read what it has in the ABAC mode.",
        actions: &[
            "Microsoft.ContainerRegistry/registries/read",
            "Microsoft.ContainerRegistry/registries/importImage/action",
            "Microsoft.ContainerRegistry/registries/operationStatuses/read",
            "Microsoft.ContainerRegistry/registries/pull/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ],
        not_actions: &[],
        data_actions: &[
            "Microsoft.ContainerRegistry/registries/catalog/read",
            "Microsoft.ContainerRegistry/registries/repositories/metadata/read",
            "Microsoft.ContainerRegistry/registries/repositories/content/read",
        ],
    },
    BuiltIn {
        id: uuid!("3bc748fc-213d-45c1-8d91-9da5725539b9"),
        name: "Container Registry Contributor and Data Access Configuration Administrator",
        description: "Manage registries and how they are signed in to; neither their content nor roles.",
        actions: &[
            "Microsoft.Authorization/*/read",
            "Microsoft.ContainerRegistry/checkNameAvailability/read",
            "Microsoft.ContainerRegistry/registries/read",
            "Microsoft.ContainerRegistry/registries/write",
            "Microsoft.ContainerRegistry/registries/delete",
            "Microsoft.ContainerRegistry/registries/connectedRegistries/*",
            "Microsoft.ContainerRegistry/registries/generateCredentials/action",
            "Microsoft.ContainerRegistry/registries/listCredentials/action",
            "Microsoft.ContainerRegistry/registries/listUsages/read",
            "Microsoft.ContainerRegistry/registries/operationStatuses/read",
            "Microsoft.ContainerRegistry/registries/privateEndpointConnections/*",
            "Microsoft.ContainerRegistry/registries/regenerateCredential/action",
            "Microsoft.ContainerRegistry/registries/replications/*",
            "Microsoft.ContainerRegistry/registries/scopeMaps/*",
            "Microsoft.ContainerRegistry/registries/tokens/*",
            "Microsoft.ContainerRegistry/registries/webhooks/*",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: uuid!("69b07be0-09bf-439a-b9a6-e73de851bd59"),
        name: "Container Registry Configuration Reader and Data Access Configuration Reader",
        description: "View registries and how they are signed in to; neither their content nor secrets.",
        actions: &[
            "Microsoft.Authorization/*/read",
            "Microsoft.ContainerRegistry/registries/read",
            "Microsoft.ContainerRegistry/registries/connectedRegistries/read",
            "Microsoft.ContainerRegistry/registries/listUsages/read",
            "Microsoft.ContainerRegistry/registries/operationStatuses/read",
            "Microsoft.ContainerRegistry/registries/privateEndpointConnections/read",
            "Microsoft.ContainerRegistry/registries/replications/read",
            "Microsoft.ContainerRegistry/registries/scopeMaps/read",
            "Microsoft.ContainerRegistry/registries/tokens/read",
            "Microsoft.ContainerRegistry/registries/webhooks/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: uuid!("df87f177-bb12-4db1-9793-a413691eff94"),
        name: "Container Registry Cache Rule Administrator",
        description: "Manage the cache rules of a registry.",
        actions: &[
            "Microsoft.ContainerRegistry/registries/read",
            "Microsoft.ContainerRegistry/registries/cacheRules/*",
            "Microsoft.ContainerRegistry/registries/operationStatuses/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: uuid!("c357b964-0002-4b64-a50d-7a28f02edc52"),
        name: "Container Registry Cache Rule Reader",
        description: "View the cache rules of a registry.",
        actions: &[
            "Microsoft.ContainerRegistry/registries/read",
            "Microsoft.ContainerRegistry/registries/cacheRules/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: uuid!("f094fb07-0703-4400-ad6a-e16dd8000e14"),
        name: "Container Registry Credential Set Administrator",
        description: "Manage the credential sets of a registry.",
        actions: &[
            "Microsoft.ContainerRegistry/registries/read",
            "Microsoft.ContainerRegistry/registries/credentialSets/*",
            "Microsoft.ContainerRegistry/registries/operationStatuses/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: uuid!("29093635-9924-4f2c-913b-650a12949526"),
        name: "Container Registry Credential Set Reader",
        description: "View the credential sets of a registry.",
        actions: &[
            "Microsoft.ContainerRegistry/registries/read",
            "Microsoft.ContainerRegistry/registries/credentialSets/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: uuid!("e40ec5ca-96e0-45a2-b4ff-59039f2c2b59"),
        name: "Managed Identity Contributor",
        description: "Manage managed identities.",
        actions: &[
            "Microsoft.Authorization/*/read",
            "Microsoft.ManagedIdentity/userAssignedIdentities/read",
            "Microsoft.ManagedIdentity/userAssignedIdentities/write",
            "Microsoft.ManagedIdentity/userAssignedIdentities/delete",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: uuid!("f1a07417-d97a-45cb-824c-7a7467783830"),
        name: "Managed Identity Operator",
        description: "View managed identities, and let resources use them.",
        actions: &[
            "Microsoft.Authorization/*/read",
            "Microsoft.ManagedIdentity/userAssignedIdentities/*/read",
            "Microsoft.ManagedIdentity/userAssignedIdentities/read",
            "Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action",
            "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: uuid!("fb1c8493-542b-48eb-b624-b4c8fea62acd"),
        name: "Security Admin",
        description: "View and manage what is about security.",
        actions: &[
            "Microsoft.Authorization/*/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
            "Microsoft.Security/*",
        ],
        not_actions: &[],
        data_actions: &[],
    },
    BuiltIn {
        id: uuid!("39bc4728-0917-49c7-9d2c-d95423bc2eb4"),
        name: "Security Reader",
        description: "View what is about security.",
        actions: &[
            "Microsoft.Authorization/*/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
            "Microsoft.Security/*/read",
        ],
        not_actions: &[],
        data_actions: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(actions: &[&str], not_actions: &[&str]) -> Permission {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Permission { actions: own(actions), not_actions: own(not_actions), ..Permission::default() }
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, fits) in [
            ("*", "a/b", true),
            ("*/read", "a/b/read", true),
            ("*/READ", "a/Read", true),
            ("*/read", "read", false),
            ("*/read", "a/reader", false),
            ("a/*/c", "a/b/c", true),
            ("a/*/c", "a/b/x/c", true),
            ("a/*/c", "a/c", false),
            ("a/*", "a/", true),
            ("a", "a/b", false),
            ("a*b*c", "axbxbc", true),
            ("a*b*c", "axbx", false),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_role_is_its_actions_less_its_not_actions() {
        let all = permission(&["*"], &["Microsoft.Authorization/*/write"]).compile();
        assert!(all.contains(Action::RegistryDelete) && all.contains(Action::RoleAssignmentDelete));
        assert!(!all.contains(Action::RoleAssignmentWrite) && !all.contains(Action::PrincipalWrite));
        assert!(all.and(ActionSet::DATA).is_empty(), "`actions` are not about content");
        let data = Permission {
            data_actions: vec!["Microsoft.ContainerRegistry/registries/repositories/*".into()],
            not_data_actions: vec!["*/delete".into()],
            ..Permission::default()
        };
        let expected = ActionSet::DATA.without(ActionSet::of(&[Action::Delete, Action::CatalogList]));
        assert_eq!(data.compile(), expected);
    }

    #[test]
    fn contributors_cannot_make_themselves_owners() {
        let actions = role(CONTRIBUTOR).unwrap().actions;
        for action in
            [Action::RoleAssignmentWrite, Action::RoleDefinitionWrite, Action::PrincipalWrite, Action::LockDelete]
        {
            assert!(!actions.contains(action), "{action:?}");
        }
    }

    #[test]
    fn built_in_roles_are_well_formed_and_distinct() {
        for (at, one) in roles().iter().enumerate() {
            Permission::check(std::slice::from_ref(&one.permission)).unwrap();
            assert!(roles()[..at].iter().all(|other| other.id != one.id && other.name != one.name), "{}", one.name);
        }
    }

    #[test]
    fn what_is_no_operation_is_refused() {
        for bad in ["", "read", "a b/c", "a/b'c", "é/read", "a/\u{0}"] {
            assert!(Permission::check(&[permission(&[bad], &[])]).is_err(), "{bad:?}");
        }
        let long = format!("a/{}", "b".repeat(PATTERN_BYTES_MAX));
        assert!(Permission::check(&[permission(&[&long], &[])]).is_err());
        let many = vec!["a/b"; PATTERNS_MAX + 1];
        assert_eq!(Permission::check(&[permission(&many, &[])]), Err(PatternError::TooMany(PATTERNS_MAX + 1)));
        Permission::check(&[permission(&many[1..], &[])]).unwrap();
    }
}
