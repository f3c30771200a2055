//! ARM paths: `/subscriptions/{s}/resourceGroups/{g}/providers/{ns}/{type}/{name}/…`.
//!
//! Every fixed part is compared without regard to case, as ARM does; names keep the case
//! they came in. A path is split once, here, into what it is about.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use portolan_service::Registry;
use portolan_types::ResourceId;

/// The provider of registries.
pub const PROVIDER: &str = "Microsoft.ContainerRegistry";
/// Providers of what can be put on any resource: roles, locks, the activity log, security.
const EXTENSIONS: [&str; 3] = ["microsoft.authorization", "microsoft.insights", "microsoft.security"];
/// How the fixed parts of a scope are spelled when it is shown; names keep their case.
const SPELLINGS: [&str; 7] = [
    "subscriptions",
    "resourceGroups",
    "providers",
    PROVIDER,
    "registries",
    "Microsoft.ManagedIdentity",
    "userAssignedIdentities",
];
/// Parts of a path; more is no path of ours.
const PARTS_MAX: usize = 32;

/// The registry that a path is about, for the handlers of what is inside it.
#[derive(Clone, Debug)]
pub struct ArmTarget {
    /// The registry. That the caller may do what it wants to is for the handler to ask.
    pub registry: Arc<Registry>,
    /// `https://host[:port]` as the client reached this server: what absolute URLs in
    /// answers (`Location`, upload and log links) begin with.
    pub base: String,
}

/// What an ARM path is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArmPath {
    /// `/tenants`
    Tenants,
    /// `/subscriptions`
    Subscriptions,
    /// `/providers/{rest}`: what has no subscription.
    Provider(Vec<String>),
    /// `/subscriptions/{s}/…`
    In {
        /// The subscription, as it came.
        subscription: String,
        /// What of it.
        place: Place,
    },
    /// `/providers/{ns}/{type}[/…]` of an extension, on everything there is.
    Extension(Extension),
    /// Nothing that ARM has here.
    Unknown,
}

/// `{scope}/providers/{namespace}/{type}[/…]`: something that can be put on any resource, by the
/// last `providers` of the path that names such a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// What it is on; empty for everything there is. Whether that exists is not looked at.
    pub scope: ResourceId,
    /// The provider, in lower case.
    pub namespace: String,
    /// The type and what follows it, in the case it came; never empty.
    pub rest: Vec<String>,
}

/// What a path below a subscription is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The subscription itself.
    Subscription,
    /// `/resources`
    Resources,
    /// `/resourcegroups`
    Groups,
    /// `/resourcegroups/{g}`
    Group(String),
    /// `/resourcegroups/{g}/resources`
    GroupResources(String),
    /// `/providers`
    Providers,
    /// `/providers/{ns}[/…]` of the subscription; lower case but for names.
    Provider {
        /// The namespace, in lower case.
        namespace: String,
        /// What follows it.
        rest: Vec<String>,
    },
    /// `/resourcegroups/{g}/providers/Microsoft.ContainerRegistry/registries`
    Registries(String),
    /// `/resourcegroups/{g}/providers/Microsoft.ContainerRegistry/registries/{r}[/…]`
    Registry {
        /// The group, as it came.
        group: String,
        /// The registry, as it came.
        registry: String,
        /// What follows, in the case it came; empty for the registry itself.
        rest: Vec<String>,
    },
    /// `/resourcegroups/{g}/providers/Microsoft.ManagedIdentity/userAssignedIdentities`
    Identities(String),
    /// `/resourcegroups/{g}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{i}[/…]`
    Identity {
        /// The group, as it came.
        group: String,
        /// The identity, as it came.
        identity: String,
        /// What follows, in the case it came; empty for the identity itself.
        rest: Vec<String>,
    },
    /// `{scope}/providers/{namespace}/{type}[/…]` of an extension.
    Extension(Extension),
    /// `/locations`
    Locations,
    /// `/operationresults/{id}`
    OperationResult(String),
    /// Anything else in a group.
    Other,
}

impl ArmPath {
    /// Split a path. Parts are percent-decoded; one that then holds a slash, a control
    /// character or no UTF-8, and the parts `.` and `..`, make the path [`ArmPath::Unknown`].
    pub fn parse(path: &str) -> ArmPath {
        let Some(parts) = split(path) else { return ArmPath::Unknown };
        if let Some(extension) = extension(&parts) {
            return match parts.get(1) {
                Some(subscription) if lower(&parts[0]) == "subscriptions" => {
                    ArmPath::In { subscription: subscription.clone(), place: Place::Extension(extension) }
                }
                _ if extension.scope.0.is_empty() => ArmPath::Extension(extension),
                _ => ArmPath::Unknown,
            };
        }
        let mut parts = parts.into_iter();
        let Some(first) = parts.next() else { return ArmPath::Unknown };
        let rest: Vec<String> = parts.collect();
        match (lower(&first).as_str(), rest.split_first()) {
            ("tenants", None) => ArmPath::Tenants,
            ("subscriptions", None) => ArmPath::Subscriptions,
            ("providers", _) => ArmPath::Provider(rest),
            ("subscriptions", Some((subscription, rest))) => {
                ArmPath::In { subscription: subscription.clone(), place: place(rest) }
            }
            _ => ArmPath::Unknown,
        }
    }
}

/// Split a path at the last `providers` that an extension follows, with a type of it.
/// `…/providers/{ns}` and `…/providers/{ns}/register` are about the provider itself.
fn extension(parts: &[String]) -> Option<Extension> {
    let is = |at: usize| {
        parts[at].eq_ignore_ascii_case("providers")
            && parts.get(at + 1).is_some_and(|ns| EXTENSIONS.contains(&lower(ns).as_str()))
            && parts.get(at + 2).is_some_and(|kind| !kind.eq_ignore_ascii_case("register"))
    };
    let at = (0..parts.len()).rev().find(|at| is(*at))?;
    let spelled = |part: &String| {
        let known = SPELLINGS.iter().find(|word| word.eq_ignore_ascii_case(part));
        format!("/{}", known.map_or(part.as_str(), |word| word))
    };
    // Fixed parts and names take turns: a group may be called `providers`.
    let scope = parts[..at].iter().enumerate().map(|(i, part)| {
        let fixed = i % 2 == 0 || parts[i - 1].eq_ignore_ascii_case("providers");
        if fixed { spelled(part) } else { format!("/{part}") }
    });
    Some(Extension {
        scope: ResourceId(scope.collect()),
        namespace: lower(&parts[at + 1]),
        rest: parts[at + 2..].to_vec(),
    })
}

fn place(parts: &[String]) -> Place {
    let words: Vec<String> = parts.iter().map(|p| lower(p)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => Place::Subscription,
        ["resources"] => Place::Resources,
        ["locations"] => Place::Locations,
        ["operationresults", _] => Place::OperationResult(parts[1].clone()),
        ["resourcegroups"] => Place::Groups,
        ["resourcegroups", _] => Place::Group(parts[1].clone()),
        ["resourcegroups", _, "resources"] => Place::GroupResources(parts[1].clone()),
        ["providers"] => Place::Providers,
        ["providers", namespace, ..] => {
            Place::Provider { namespace: (*namespace).to_owned(), rest: parts[2..].to_vec() }
        }
        ["resourcegroups", _, "providers", "microsoft.managedidentity", "userassignedidentities"] => {
            Place::Identities(parts[1].clone())
        }
        ["resourcegroups", _, "providers", "microsoft.managedidentity", "userassignedidentities", _, ..] => {
            Place::Identity { group: parts[1].clone(), identity: parts[5].clone(), rest: parts[6..].to_vec() }
        }
        ["resourcegroups", _, "providers", "microsoft.containerregistry", "registries"] => {
            Place::Registries(parts[1].clone())
        }
        ["resourcegroups", _, "providers", "microsoft.containerregistry", "registries", _, ..] => {
            Place::Registry { group: parts[1].clone(), registry: parts[5].clone(), rest: parts[6..].to_vec() }
        }
        _ => Place::Other,
    }
}

pub(super) fn split(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let raw: Vec<&str> = path.split('/').collect();
    if raw.len() > PARTS_MAX {
        return None;
    }
    let decoded: Option<Vec<String>> =
        raw.iter().map(|part| Some(percent_decode_str(part).decode_utf8().ok()?.into_owned())).collect();
    let decoded = decoded?;
    // Clients put a resource's parent between namespace and type, and have nothing to put
    // there when it has none: `providers/{ns}//{type}/{name}`.
    let is_no_parent = |at: usize| at >= 2 && raw[at].is_empty() && decoded[at - 2].eq_ignore_ascii_case("providers");
    let kept: Vec<&String> = (0..raw.len()).filter(|at| !is_no_parent(*at)).map(|at| &decoded[at]).collect();
    let plain =
        |part: &str| !["", ".", ".."].contains(&part) && !part.chars().any(|c| c == '/' || c == '\\' || c.is_control());
    kept.iter().all(|part| plain(part)).then(|| kept.into_iter().cloned().collect())
}

fn lower(part: &str) -> String {
    part.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_compared_without_case_and_names_keep_theirs() {
        let place = |path: &str| match ArmPath::parse(path) {
            ArmPath::In { place, .. } => place,
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(place("/subscriptions/S/resourcegroups/RG-1"), Place::Group("RG-1".into()));
        assert_eq!(place("/SUBSCRIPTIONS/S/RESOURCEGROUPS/RG-1/"), Place::Group("RG-1".into()));
        assert_eq!(
            place(
                "/subscriptions/S/resourceGroups/g/providers/microsoft.containerregistry/REGISTRIES/MyReg/scheduleRun"
            ),
            Place::Registry { group: "g".into(), registry: "MyReg".into(), rest: vec!["scheduleRun".into()] }
        );
        assert_eq!(
            place("/subscriptions/S/providers/Microsoft.ContainerRegistry/checkNameAvailability"),
            Place::Provider {
                namespace: "microsoft.containerregistry".into(),
                rest: vec!["checkNameAvailability".into()]
            }
        );
        assert_eq!(place("/subscriptions/S/resourceGroups/a%20b"), Place::Group("a b".into()));
        assert_eq!(ArmPath::parse("/tenants"), ArmPath::Tenants);
        assert_eq!(ArmPath::parse("/Subscriptions"), ArmPath::Subscriptions);
    }

    #[test]
    fn extensions_are_on_what_stands_before_them() {
        let of = |path: &str| match ArmPath::parse(path) {
            ArmPath::In { place: Place::Extension(e), .. } | ArmPath::Extension(e) => (e.scope.0, e.namespace, e.rest),
            other => panic!("{path}: {other:?}"),
        };
        let parts = |scope: &str, namespace: &str, rest: &[&str]| {
            (scope.to_owned(), namespace.to_owned(), rest.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>())
        };
        let authorization = "microsoft.authorization";
        assert_eq!(
            of("/subscriptions/S/providers/Microsoft.Authorization/roleAssignments"),
            parts("/subscriptions/S", authorization, &["roleAssignments"])
        );
        assert_eq!(
            of("/Subscriptions/S/resourcegroups/G/Providers/MICROSOFT.ContainerRegistry/Registries/R/providers/\
                Microsoft.Authorization/roleAssignments/x"),
            parts(
                "/subscriptions/S/resourceGroups/G/providers/Microsoft.ContainerRegistry/registries/R",
                authorization,
                &["roleAssignments", "x"]
            )
        );
        assert_eq!(
            of("/providers/Microsoft.Authorization/roleDefinitions/x"),
            parts("", authorization, &["roleDefinitions", "x"])
        );
        assert_eq!(
            of("/subscriptions/S/providers/microsoft.insights/eventtypes/management/values"),
            parts("/subscriptions/S", "microsoft.insights", &["eventtypes", "management", "values"])
        );
        // A lock on an assignment is a lock.
        assert_eq!(
            of("/subscriptions/S/providers/Microsoft.Authorization/roleAssignments/x/providers/\
                Microsoft.Authorization/locks/l"),
            parts(
                "/subscriptions/S/providers/Microsoft.Authorization/roleAssignments/x",
                authorization,
                &["locks", "l"]
            )
        );
        // A group may be called as a fixed part.
        assert_eq!(
            of("/subscriptions/S/resourceGroups/REGISTRIES/providers/Microsoft.Authorization/locks").0,
            "/subscriptions/S/resourceGroups/REGISTRIES"
        );
        for path in [
            "/subscriptions/S/providers/Microsoft.Authorization",
            "/subscriptions/S/providers/Microsoft.Authorization/register",
        ] {
            let found = ArmPath::parse(path);
            assert!(matches!(found, ArmPath::In { place: Place::Provider { .. }, .. }), "{path}: {found:?}");
        }
        assert_eq!(ArmPath::parse("/tenants/x/providers/Microsoft.Authorization/locks"), ArmPath::Unknown);
    }

    #[test]
    fn tricks_lead_nowhere() {
        for path in [
            "",
            "/",
            "/subscriptions/S/resourceGroups/..",
            "/subscriptions/S/resourceGroups/%2e%2e",
            "/subscriptions/S/resourceGroups/a%2Fb",
            "/subscriptions/S/resourceGroups/a%5Cb",
            "/subscriptions/S//resourceGroups",
            "/subscriptions/S/resourceGroups/%00",
            "/subscriptions/S/resourceGroups/%ff",
            "/other",
            &format!("/subscriptions{}", "/a".repeat(40)),
        ] {
            assert_eq!(ArmPath::parse(path), ArmPath::Unknown, "{path}");
        }
    }
}
