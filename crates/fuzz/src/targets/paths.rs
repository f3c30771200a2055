//! Paths of the front doors, and signed addresses.

use std::sync::LazyLock;

use portolan_auth::{Authority, MasterKey};
use portolan_server::http::blob::{Permission, signed_url};
use portolan_server::http::fuzzing::{self as edge, ArmPath, ArmPlace};
use portolan_types::{Reference, Timestamp};

use super::{grammar, request, text, two};
use crate::Target;

/// A repository of a path is a name and nothing else; no part of it climbs.
fn sound(found: &edge::Named) {
    if !found.repo.is_empty() {
        assert!(grammar::REPO_NAME.takes(&found.repo) && found.repo.len() <= 255, "{found:?}");
        assert!(!found.repo.split('/').any(|part| part.starts_with('.') || part.is_empty()));
    }
}

/// The path that names the same, every byte of it encoded.
fn encoded(path: &str) -> String {
    path.bytes().map(|b| if b == b'/' { "/".to_owned() } else { format!("%{b:02X}") }).collect()
}

pub(super) const V2_PATH: Target = Target {
    name: "v2_path",
    run: |input| {
        let Some(text) = text(input) else { return };
        let found = edge::v2_path(text);
        // What a refused request is told to ask for is one scope or none.
        if let Some(parts) = request(text, "host", b"h") {
            let scope = edge::scope_wanted(&parts);
            assert!(!scope.contains(['"', '\\', ' ', '\r', '\n', '\0']), "{scope}");
            if let Some(rest) = scope.strip_prefix("repository:") {
                assert!(grammar::REPO_NAME.takes(rest.rsplit_once(':').expect("a scope has actions").0));
            }
        }
        let Some(found) = found else { return };
        sound(&found);
        let edge::Named { what, repo, last } = &found;
        let again = match *what {
            "base" => "/v2/".to_owned(),
            "catalog" => "/v2/_catalog".to_owned(),
            "tags" => format!("/v2/{repo}/tags/list"),
            "manifest" => format!("/v2/{repo}/manifests/{last}"),
            "blob" => format!("/v2/{repo}/blobs/{last}"),
            "uploads" => format!("/v2/{repo}/blobs/uploads/"),
            "upload" => format!("/v2/{repo}/blobs/uploads/{last}"),
            "referrers" => format!("/v2/{repo}/referrers/{last}"),
            other => panic!("{other}"),
        };
        if what == &"blob" || what == &"referrers" {
            assert!(grammar::DIGEST.takes(last));
        }
        // The reference is still text, but one part of it.
        assert!(!last.contains('/'));
        assert_eq!(edge::v2_path(&encoded(&again)), Some(found.clone()));
        if last.parse::<Reference>().is_ok() || last.is_empty() {
            assert_eq!(edge::v2_path(&again), Some(found));
        }
    },
    words: &[
        "/v2/",
        "_catalog",
        "/manifests/",
        "/blobs/",
        "/blobs/uploads/",
        "/tags/list",
        "/referrers/",
        "sha256:",
        "%2F",
        "%3A",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ],
    bytes_max: 1_000,
};

pub(super) const ACR_PATH: Target = Target {
    name: "acr_path",
    run: |input| {
        let Some(text) = text(input) else { return };
        let Some(found) = edge::acr_path(text) else { return };
        sound(&found);
        let edge::Named { what, repo, last } = &found;
        let again = match *what {
            "catalog" => "/acr/v1/_catalog".to_owned(),
            "repo" => format!("/acr/v1/{repo}"),
            "tags" => format!("/acr/v1/{repo}/_tags"),
            "tag" => format!("/acr/v1/{repo}/_tags/{last}"),
            "manifests" => format!("/acr/v1/{repo}/_manifests"),
            "manifest" => format!("/acr/v1/{repo}/_manifests/{last}"),
            other => panic!("{other}"),
        };
        assert_eq!(edge::acr_path(&encoded(&again)), Some(found));
    },
    words: &["/acr/v1/", "_catalog", "/_tags", "/_tags/", "/_manifests/", "sha256:", "%5F"],
    bytes_max: 1_000,
};

/// Every text of an ARM path that came from the client.
fn names(path: &ArmPath) -> Vec<String> {
    match path {
        ArmPath::Tenants | ArmPath::Subscriptions | ArmPath::Unknown => Vec::new(),
        ArmPath::Provider(rest) => rest.clone(),
        ArmPath::Extension(on) => on.rest.clone(),
        ArmPath::In { subscription, place } => {
            let mut all = vec![subscription.clone()];
            match place {
                ArmPlace::Group(group)
                | ArmPlace::GroupResources(group)
                | ArmPlace::Registries(group)
                | ArmPlace::Identities(group)
                | ArmPlace::OperationResult(group) => {
                    all.push(group.clone());
                }
                ArmPlace::Extension(on) => all.extend(on.rest.iter().cloned()),
                ArmPlace::Identity { group, identity, rest } => {
                    all.extend([group.clone(), identity.clone()]);
                    all.extend(rest.iter().cloned());
                }
                ArmPlace::Provider { namespace, rest } => {
                    all.push(namespace.clone());
                    all.extend(rest.iter().cloned());
                }
                ArmPlace::Registry { group, registry, rest } => {
                    all.extend([group.clone(), registry.clone()]);
                    all.extend(rest.iter().cloned());
                }
                ArmPlace::Subscription
                | ArmPlace::Resources
                | ArmPlace::Groups
                | ArmPlace::Providers
                | ArmPlace::Locations
                | ArmPlace::Other => {}
            }
            all
        }
    }
}

pub(super) const ARM_PATH: Target = Target {
    name: "arm_path",
    run: |input| {
        let Some(text) = text(input) else { return };
        let found = ArmPath::parse(text);
        let all = names(&found);
        assert!(all.len() <= 32);
        for name in &all {
            assert!(!name.is_empty() && name != "." && name != "..", "{text:?}");
            assert!(!name.contains(['/', '\\']) && !name.chars().any(char::is_control), "{text:?}");
        }
        // The same without regard to case, and fully encoded.
        let lower = |all: &[String]| all.iter().map(|n| n.to_ascii_lowercase()).collect::<Vec<_>>();
        if !text.contains('%') {
            let shouted = ArmPath::parse(&text.to_ascii_uppercase());
            assert_eq!(std::mem::discriminant(&shouted), std::mem::discriminant(&found), "{text:?}");
            assert_eq!(lower(&names(&shouted)), lower(&all));
            assert_eq!(ArmPath::parse(&encoded(text)), found, "{text:?}");
        }
    },
    words: &[
        "/subscriptions/",
        "/resourceGroups/",
        "/providers/",
        "Microsoft.ContainerRegistry/",
        "registries/",
        "/tenants",
        "%2e%2e",
        "%2F",
        "%5C",
        "scheduleRun",
        "listCredentials",
    ],
    bytes_max: 1_000,
};

/// The key of the addresses in the corpus; it signs nothing else.
static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| Authority::new(MasterKey::new(&[7; 32])));
const CONTEXT: &str = "r7/source/0123.tar.gz";
const LOG: &str = "r7/logs/cb1/rawtext.log";

/// The two addresses that were signed with this key, as path and query.
pub fn signed_addresses() -> [(String, String, &'static str); 2] {
    let until = Timestamp::from_unix_secs(2_000);
    [(CONTEXT, Permission::Write, "w"), (LOG, Permission::Read, "r")].map(|(path, may, word)| {
        let url = signed_url(&AUTHORITY, "", path, may, until);
        let (path, query) = url.split_once('?').expect("a signed address has a query");
        (path.to_owned(), query.to_owned(), word)
    })
}

/// The path on the first line, the query on the second. Only what was signed opens, and
/// only for what it was signed for.
pub(super) const SIGNED_URL: Target = Target {
    name: "signed_url",
    run: |input| {
        let Some(text) = text(input) else { return };
        let (path, query) = two(text);
        if let Some((registry, place)) = edge::signed_place(path) {
            assert!(registry >= 0 && !place.is_empty());
        }
        let now = Timestamp::from_unix_secs(1_000);
        let Some(may) = edge::signed(&AUTHORITY, path, query, now) else { return };
        let mut ours = signed_addresses().into_iter();
        let (_, signed, word) = ours.find(|(ours, ..)| ours == path).expect("only signed paths open");
        assert_eq!(may, word);
        assert!(edge::signed_place(path).is_some());
        let signature = signed.rsplit_once("sig=").expect("it is signed").1;
        assert!(!signature.is_empty());
        // When its time is over it is over.
        assert_eq!(edge::signed(&AUTHORITY, path, query, Timestamp::from_unix_secs(2_000)), None);
    },
    words: &[
        "/blob/r7/source/0123.tar.gz",
        "/blob/r7/logs/cb1/rawtext.log",
        "se=2000",
        "sp=w",
        "sp=r",
        "&sig=",
        "comp=block",
        "&blockid=YQ%3D%3D",
        "wait=30",
    ],
    bytes_max: 400,
};
