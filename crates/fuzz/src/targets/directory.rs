//! The directory: what other issuers sign, certificates, and Graph's paths and filters.

use std::sync::LazyLock;
use std::time::Duration;

use portolan_auth::authority::NewDirectoryToken;
use portolan_auth::certificate::{CERTIFICATE_BYTES_MAX, Certificate};
use portolan_auth::foreign::{Keys, unverified_issuer};
use portolan_auth::ssh::SshKey;
use portolan_auth::{Authority, MasterKey, SigningKey};
use portolan_server::http::fuzzing as edge;
use portolan_service::directory::Filter;
use portolan_types::Timestamp;
use uuid::Uuid;

use super::text;
use crate::Target;

const ISSUER: &str = "https://h.example/00000000-0000-0000-0000-000000000007/v2.0";

fn now() -> Timestamp {
    Timestamp::from_unix_secs(1_700_000_000)
}

/// A token of another issuer, and its keys as it publishes them.
static ISSUED: LazyLock<(String, Vec<u8>)> = LazyLock::new(|| {
    let authority = Authority::new(MasterKey::new(&[9; 32]));
    authority.install(vec![SigningKey::generate().expect("a key").0]);
    let id = Uuid::from_u128(7);
    let new = NewDirectoryToken {
        issuer: ISSUER,
        audience: "a",
        tenant: id,
        object_id: id,
        app_id: Some(id),
        lifetime: Duration::from_secs(3_600),
    };
    let token = authority.issue_directory(&new, now()).expect("a token").token.into_exposed();
    let keys = serde_json::to_vec(&serde_json::json!({"keys": authority.jwks()})).expect("JSON");
    (token, keys)
});

/// Behind `V`: changes to a token that is good, at a place (two bytes) another byte. Else a
/// text that is tried as a token, and as a key set to check the good one with.
pub(super) const FOREIGN_TOKEN: Target = Target {
    name: "foreign_token",
    run: |input| {
        let (real, keys) = &*ISSUED;
        let good = Keys::parse(keys).expect("our keys");
        if let [b'V', edits @ ..] = input {
            let mut token = real.clone().into_bytes();
            for edit in edits.chunks_exact(3) {
                let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % token.len();
                token[at] = edit[2];
            }
            let Ok(token) = String::from_utf8(token) else { return };
            let verified = good.verify(&token, ISSUER, |a| a == "a", now());
            assert_eq!(verified.is_ok(), token == *real, "{token}");
            return;
        }
        if let Some(text) = text(input) {
            let _ = unverified_issuer(text);
            assert!(good.verify(text, ISSUER, |_| true, now()).is_err(), "{text}");
        }
        // Whatever a key set says, it verifies our token only when it has our key.
        if let Ok(keys) = Keys::parse(input) {
            assert!(keys.verify(real, ISSUER, |_| true, now()).is_err());
            assert!(keys.verify(real, "https://other.example", |_| true, now()).is_err());
        }
    },
    words: &[
        "V\x00\x01",
        "eyJhbGciOiJub25lIn0.",
        "eyJhbGciOiJIUzI1NiJ9.",
        "eyJhbGciOiJFUzI1NiJ9.",
        "e30.",
        "{\"keys\":[",
        "{\"kty\":\"RSA\",\"n\":\"",
        "\",\"e\":\"AQAB\"}",
        "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"",
        "{\"kty\":\"oct\",\"k\":\"AA\"}",
        "]}",
    ],
    bytes_max: 2_000,
};

pub(super) const CERTIFICATE: Target = Target {
    name: "certificate",
    run: |input| {
        if let Ok(read) = Certificate::from_der(input.to_vec()) {
            assert!(read.der == input && read.der.len() <= CERTIFICATE_BYTES_MAX);
            assert_eq!(Certificate::from_der(read.der.clone()), Ok(read));
        }
        let Some(text) = text(input) else { return };
        if let Ok(read) = Certificate::read(text) {
            assert_eq!(Certificate::from_der(read.der.clone()), Ok(read));
        }
    },
    words: &["-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n", "MIIB", "MIIC"],
    bytes_max: 2_000,
};

pub(super) const SSH_KEY: Target = Target {
    name: "ssh_key",
    run: |input| {
        let Ok(key) = SshKey::parse(input) else { return };
        // What is taken for a key can sign, and says the same of itself when it is read again.
        let again = SshKey::parse(input).unwrap();
        assert_eq!((key.public(), key.comment()), (again.public(), again.comment()));
        assert!(key.comment().chars().all(|c| !c.is_control()));
        assert!(key.sign(b"data", 4).is_ok());
    },
    words: &[
        "-----BEGIN OPENSSH PRIVATE KEY-----\n",
        "-----END OPENSSH PRIVATE KEY-----\n",
        "-----BEGIN EC PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\n",
        "-----END ",
        "b3BlbnNzaC1rZXktdjEA",
        "AAAABG5vbmU",
        "ENCRYPTED",
    ],
    bytes_max: 3_000,
};

pub(super) const GRAPH_FILTER: Target = Target {
    name: "graph_filter",
    run: |input| {
        let Some(text) = text(input) else { return };
        let Ok(filter) = Filter::parse(text) else { return };
        // Blanks around it say nothing.
        assert_eq!(Filter::parse(&format!("  {text} ")).ok(), Some(filter), "{text:?}");
    },
    words: &[
        "displayName eq '",
        "startswith(displayName,'",
        "servicePrincipalNames/any(c:c eq '",
        "')",
        " and ",
        "''",
        "accountEnabled eq true",
        " ne '",
    ],
    bytes_max: 2_000,
};

pub(super) const GRAPH_PATH: Target = Target {
    name: "graph_path",
    run: |input| {
        let Some(text) = text(input) else { return };
        let Some(parts) = edge::graph_path(text) else { return };
        assert!(parts.len() <= 9, "{parts:?}");
        assert!(parts.iter().all(|p| p != "." && p != ".."), "{parts:?}");
    },
    words: &["/v1.0/", "users('", "')", "applications(appId='", "/addPassword", "%2e%2e", "%2f", "''", "%27"],
    bytes_max: 500,
};
