//! Tokens: nothing but what was signed is believed; and what scope maps say of repositories.

use std::sync::LazyLock;
use std::time::Duration;

use portolan_auth::access::{ActionSet, ScopeMap};
use portolan_auth::authority::{NewAccessToken, NewDirectoryToken, NewRefreshToken, RegistryAudience};
use portolan_auth::token::{DirectoryToken, Subject};
use portolan_auth::{Authority, MasterKey, SigningKey};
use portolan_types::{RepoName, Timestamp};
use uuid::Uuid;

use super::{text, two};
use crate::Target;

const HOUR: Duration = Duration::from_secs(3_600);
const REGISTRY: RegistryAudience<'static> = RegistryAudience { login_server: "reg.localhost", id: 7 };

fn now() -> Timestamp {
    Timestamp::from_unix_secs(1_700_000_000)
}

/// An authority with a key of its own, and one token of each kind.
struct Tokens {
    authority: Authority,
    real: [String; 3],
}

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let authority = Authority::new(MasterKey::new(&[7; 32]));
    authority.install(vec![SigningKey::generate().expect("a key").0]);
    let id = Uuid::from_u128(7);
    let who = DirectoryToken { object_id: id, app_id: Some(id), tenant: id, issued: now() };
    let new = NewDirectoryToken {
        issuer: &format!("https://h.example/{id}/v2.0"),
        audience: "https://h.example",
        tenant: id,
        object_id: id,
        app_id: Some(id),
        lifetime: HOUR,
    };
    let directory = authority.issue_directory(&new, now()).expect("a token");
    let new =
        NewRefreshToken { registry: REGISTRY, who: &who, may: ActionSet::ALL, by_repository: true, lifetime: HOUR };
    let refresh = authority.issue_refresh(&new, now()).expect("a token");
    let new = NewAccessToken {
        registry: REGISTRY,
        tenant: id,
        subject: &Subject::Anonymous,
        since: Timestamp(0),
        grants: &[],
        lifetime: HOUR,
    };
    let access = authority.issue_access(&new, now()).expect("a token");
    let real = [directory, refresh, access].map(|issued| issued.token.expose().clone());
    Tokens { authority, real }
});

/// Either a text that is tried as a token, or, behind `V` and one of `012`, changes to a
/// real token of that kind: at a place (two bytes, modulo its length) another byte.
fn candidate(input: &[u8]) -> Option<String> {
    let [b'V', kind @ b'0'..=b'2', edits @ ..] = input else { return text(input).map(str::to_owned) };
    let mut token = TOKENS.real[usize::from(kind - b'0')].clone().into_bytes();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % token.len();
        token[at] = edit[2];
    }
    String::from_utf8(token).ok()
}

pub(super) const TOKEN: Target = Target {
    name: "token",
    run: |input| {
        let Some(token) = candidate(input) else { return };
        let Tokens { authority, real } = &*TOKENS;
        let believed = [
            authority.verify_directory(&token, |_| true, now()).is_ok(),
            authority.verify_refresh(&token, REGISTRY, now()).is_ok(),
            authority.verify_access(&token, REGISTRY, now()).is_ok(),
        ];
        // Each token is good for its own purpose, in its own spelling, and for no other.
        let want = [0, 1, 2].map(|kind| real[kind] == token);
        assert_eq!(believed, want, "{token}");
        let later = now().plus(HOUR);
        assert!(authority.verify_access(&token, REGISTRY, later).is_err(), "its time is over");
        let other = RegistryAudience { id: 8, ..REGISTRY };
        assert!(authority.verify_access(&token, other, now()).is_err(), "another registry");
    },
    words: &[
        "V0",
        "V1",
        "V2",
        "eyJhbGciOiJub25lIn0.",
        "eyJhbGciOiJIUzI1NiJ9.",
        "eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.",
        "e30.",
        ".",
    ],
    bytes_max: 2_000,
};

/// A repository in the first line, actions of a scope map in the others.
pub(super) const SCOPE_MAP: Target = Target {
    name: "scope_map",
    run: |input| {
        let Some((name, actions)) = text(input).map(two) else { return };
        let lines: Vec<&str> = actions.lines().collect();
        let Ok(map) = ScopeMap::parse(&lines) else { return };
        let Ok(name) = name.parse::<RepoName>() else { return };
        let allowed = map.allowed(&name);
        // What it opens is said by some line for that repository, or for a pattern it is under.
        let said = lines.iter().filter_map(|line| {
            let line = line.to_ascii_lowercase();
            let (pattern, _) = line.strip_prefix("repositories/")?.rsplit_once('/')?.0.rsplit_once('/')?;
            let under = pattern == "*"
                || pattern == name.as_str()
                || pattern.strip_suffix('*').is_some_and(|p| p.ends_with('/') && name.as_str().starts_with(p));
            under.then_some(())
        });
        assert_eq!(said.count() > 0, allowed != ActionSet::NONE, "{name} in {lines:?}");
        // A longer list never opens less, and the order says nothing.
        let backwards: Vec<&str> = lines.iter().rev().copied().collect();
        assert_eq!(ScopeMap::parse(&backwards).map(|map| map.allowed(&name)), Ok(allowed));
        if let Some((_, fewer)) = lines.split_last() {
            let fewer = ScopeMap::parse(fewer).expect("fewer lines of a scope map are one").allowed(&name);
            assert_eq!(fewer.with(allowed), allowed);
        }
    },
    words: &[
        "a/b\n",
        "repositories/",
        "gateway/",
        "*",
        "/*",
        "/content/read",
        "/content/write",
        "/content/delete",
        "/metadata/read",
        "/metadata/write",
        "/config/read",
        "\n",
    ],
    bytes_max: 1_000,
};
