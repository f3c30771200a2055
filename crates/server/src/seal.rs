//! Secret build arguments in the database: AES-256-GCM under a key of the master key, so
//! that a copy of the database alone shows none.

use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portolan_auth::Authority;
use portolan_tasks::Seal;
use portolan_types::Secret;

const PURPOSE: &str = "run-secret";

/// Seals what a waiting run must not show.
pub(crate) struct RunSeal(pub(crate) Arc<Authority>);

impl Seal for RunSeal {
    fn seal(&self, label: &str, plain: &Secret<String>) -> io::Result<String> {
        let sealed = self.0.master().seal(PURPOSE, label, plain.expose().as_bytes()).map_err(io::Error::other)?;
        Ok(STANDARD.encode(sealed))
    }

    fn open(&self, label: &str, sealed: &str) -> Option<Secret<String>> {
        let sealed = STANDARD.decode(sealed).ok()?;
        let plain = self.0.master().open(PURPOSE, label, &sealed).ok()?;
        String::from_utf8(plain).ok().map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use portolan_auth::MasterKey;

    use super::*;

    #[test]
    fn opens_only_with_its_key_at_its_place() {
        let seal = |key| RunSeal(Arc::new(Authority::new(MasterKey::new(&[key; 32]))));
        let plain = Secret::new("hunter2".to_owned());
        let sealed = seal(1).seal("7/cb1/0", &plain).unwrap();
        assert!(!sealed.contains("hunter2") && !sealed.contains(&STANDARD.encode("hunter2")), "{sealed}");
        assert_eq!(seal(1).open("7/cb1/0", &sealed), Some(plain));
        assert_eq!(seal(1).open("7/cb1/1", &sealed), None, "another place");
        assert_eq!(seal(2).open("7/cb1/0", &sealed), None, "another master key");
        for damaged in ["", "hunter2", "!"] {
            assert_eq!(seal(1).open("7/cb1/0", damaged), None);
        }
    }
}
