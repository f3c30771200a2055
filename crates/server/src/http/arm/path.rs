//! ARM paths: `/subscriptions/{s}/resourceGroups/{g}/providers/{ns}/{type}/{name}/…`.
//!
//! Every fixed part is compared without regard to case, as ARM does; names keep the case
//! they came in. A path is split once, here, into what it is about.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use portolan_service::Registry;

/// The provider of registries.
pub const PROVIDER: &str = "Microsoft.ContainerRegistry";
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
    /// Nothing that ARM has here.
    Unknown,
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
    /// Anything else in a group.
    Other,
}

impl ArmPath {
    /// Split a path. Parts are percent-decoded; one that then holds a slash, a control
    /// character or no UTF-8, and the parts `.` and `..`, make the path [`ArmPath::Unknown`].
    pub fn parse(path: &str) -> ArmPath {
        let Some(parts) = split(path) else { return ArmPath::Unknown };
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

fn place(parts: &[String]) -> Place {
    let words: Vec<String> = parts.iter().map(|p| lower(p)).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => Place::Subscription,
        ["resources"] => Place::Resources,
        ["resourcegroups"] => Place::Groups,
        ["resourcegroups", _] => Place::Group(parts[1].clone()),
        ["resourcegroups", _, "resources"] => Place::GroupResources(parts[1].clone()),
        ["providers"] => Place::Providers,
        ["providers", namespace, ..] => {
            Place::Provider { namespace: (*namespace).to_owned(), rest: parts[2..].to_vec() }
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

fn split(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.split('/').count() > PARTS_MAX {
        return None;
    }
    path.split('/')
        .map(|part| {
            let part = percent_decode_str(part).decode_utf8().ok()?.into_owned();
            let plain = !part.is_empty() && part != "." && part != "..";
            (plain && !part.chars().any(|c| c == '/' || c == '\\' || c.is_control())).then_some(part)
        })
        .collect()
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
