//! Secrets that the server makes itself, passwords that people choose, and how both are
//! remembered.
//!
//! What the server makes has at least 160 bits of entropy, so a salted SHA-256 is as strong
//! as any slow hash and keeps `docker login` cheap. What people choose is hashed slowly
//! ([`hash_slow`]). A stored hash begins with a version byte that says which it is.

mod slow;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Context, SHA256};
use portolan_types::Secret;

use crate::master::{KeyError, MasterKey, random};

pub use slow::{PASSWORD_BYTES_MAX, Recent, hash_slow, is_slow, verify_nobody_slow};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SHA256_SALTED: u8 = 1;
const SALT_BYTES: usize = 16;
/// How many hashes a sign-in compares at least: as many as a repository token has passwords.
pub const COMPARED_MIN: usize = 2;
/// Characters of a generated secret: 40 of 62, some 238 bits.
const SECRET_CHARS: usize = 40;

/// A new secret for a service principal.
pub fn generate() -> Result<Secret<String>, KeyError> {
    base62(&random::<64>()?, SECRET_CHARS).map(Secret::new).ok_or(KeyError::Random)
}

/// What to store for a secret: version, salt, hash.
pub fn hash(secret: &Secret<String>) -> Result<Vec<u8>, KeyError> {
    let salt: [u8; SALT_BYTES] = random()?;
    let mut out = vec![SHA256_SALTED];
    out.extend_from_slice(&salt);
    out.extend_from_slice(salted(&salt, secret.expose()).as_ref());
    Ok(out)
}

/// Whether `secret` is the one that was hashed, in time that does not tell how nearly. For
/// a hash of [`hash_slow`] it takes as long as making it did.
pub fn verify(stored: &[u8], secret: &str) -> bool {
    match stored.split_first() {
        Some((&SHA256_SALTED, rest)) => match rest.split_at_checked(SALT_BYTES) {
            Some((salt, hash)) => verify_slices_are_equal(salted(salt, secret).as_ref(), hash).is_ok(),
            None => false,
        },
        Some((&slow::ARGON2ID, rest)) => slow::verify(rest, secret),
        _ => false,
    }
}

/// Which of these stored hashes is of `secret`, if one is. Every one is compared, and at least
/// [`COMPARED_MIN`]: how long it takes tells neither which one came near nor, for those who
/// have no more than that, whether there is anybody of that name.
pub fn verify_any<'a>(stored: impl Iterator<Item = &'a [u8]>, secret: &str) -> Option<usize> {
    let (mut found, mut compared) = (None, 0);
    for (at, hash) in stored.enumerate() {
        if verify(hash, secret) {
            found = Some(at);
        }
        compared = at + 1;
    }
    for _ in compared..COMPARED_MIN {
        verify_nobody(secret);
    }
    found
}

/// Spend the time of one [`verify`], for callers that found nobody of that name, so that
/// the answer's time does not tell who exists. Always false.
pub fn verify_nobody(secret: &str) -> bool {
    let _ = verify_slices_are_equal(salted(&[0; SALT_BYTES], secret).as_ref(), &[0; 32]);
    false
}

fn salted(salt: &[u8], secret: &str) -> aws_lc_rs::digest::Digest {
    #[cfg(test)]
    tests::HASHED.with(|n| n.set(n.get() + 1));
    let mut context = Context::new(&SHA256);
    context.update(salt);
    context.update(secret.as_bytes());
    context.finish()
}

/// Which of the admin user's two passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdminPassword {
    /// `password`
    First,
    /// `password2`
    Second,
}

impl AdminPassword {
    /// Both, in the order ACR lists them.
    pub const BOTH: [AdminPassword; 2] = [AdminPassword::First, AdminPassword::Second];

    /// The name in `listCredentials` and `regenerateCredential`.
    pub fn as_str(self) -> &'static str {
        match self {
            AdminPassword::First => "password",
            AdminPassword::Second => "password2",
        }
    }

    /// Its place: 0 or 1.
    pub fn index(self) -> usize {
        match self {
            AdminPassword::First => 0,
            AdminPassword::Second => 1,
        }
    }
}

/// The admin password of a registry: derived, never stored. A new `generation` makes a new
/// password; `registry` is the registry's row id, so a registry deleted and made again
/// under the same name has other passwords.
pub fn admin(master: &MasterKey, registry: i64, which: AdminPassword, generation: u32) -> Secret<String> {
    let base = format!("{registry}/{}/{generation}", which.as_str());
    let mut bytes = Vec::with_capacity(64);
    for block in 0..2 {
        bytes.extend_from_slice(&master.hmac("admin-password", format!("{base}/{block}").as_bytes()));
    }
    Secret::new(base62(&bytes, SECRET_CHARS).unwrap_or_default())
}

/// Whether `given` is that password, in constant time.
pub fn verify_admin(master: &MasterKey, registry: i64, which: AdminPassword, generation: u32, given: &str) -> bool {
    let expected = admin(master, registry, which, generation);
    !expected.expose().is_empty() && verify_slices_are_equal(expected.expose().as_bytes(), given.as_bytes()).is_ok()
}

/// `chars` uniformly chosen characters out of random `bytes` (values of 248 and more are
/// skipped to keep them uniform); nothing when the bytes do not suffice.
fn base62(bytes: &[u8], chars: usize) -> Option<String> {
    let text: String =
        bytes.iter().filter(|b| **b < 248).take(chars).map(|b| char::from(BASE62[usize::from(b % 62)])).collect();
    (text.len() == chars).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// How many hashes this thread has made.
        pub(super) static HASHED: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn every_sign_in_costs_as_many_hashes_whoever_is_there() {
        let secrets: Vec<_> = (0..3).map(|_| generate().unwrap()).collect();
        let hashes: Vec<_> = secrets.iter().map(|s| hash(s).unwrap()).collect();
        let cost = |take: usize, secret: &str| {
            let before = HASHED.with(Cell::get);
            let found = verify_any(hashes[..take].iter().map(|h| &h[..]), secret);
            (found, HASHED.with(Cell::get) - before)
        };
        // Nobody of that name, one password, two; a wrong one, the first, the last.
        assert_eq!(cost(0, "wrong"), (None, 2));
        assert_eq!(cost(1, "wrong"), (None, 2));
        assert_eq!(cost(2, "wrong"), (None, 2));
        assert_eq!(cost(1, secrets[0].expose()), (Some(0), 2));
        assert_eq!(cost(2, secrets[0].expose()), (Some(0), 2));
        assert_eq!(cost(2, secrets[1].expose()), (Some(1), 2));
        assert_eq!(cost(2, secrets[2].expose()), (None, 2));
        assert_eq!(cost(3, secrets[0].expose()), (Some(0), 3));
    }

    #[test]
    fn hashes_know_their_secret_only() {
        let secret = generate().unwrap();
        assert_eq!(secret.expose().len(), SECRET_CHARS);
        let (a, b) = (hash(&secret).unwrap(), hash(&secret).unwrap());
        assert_ne!(a, b, "salted");
        assert!(verify(&a, secret.expose()) && verify(&b, secret.expose()));
        assert!(!verify(&a, "") && !verify(&a, "other") && !verify(&[], "x") && !verify(&[9, 9], "x"));
        assert!(!verify(&a[..20], secret.expose()));
        assert!(!verify_nobody("x"));
    }

    #[test]
    fn admin_passwords_change_alone() {
        let master = MasterKey::new(&[1; 32]);
        let one = admin(&master, 1, AdminPassword::First, 0);
        assert_eq!(one, admin(&master, 1, AdminPassword::First, 0));
        for other in [
            admin(&master, 1, AdminPassword::Second, 0),
            admin(&master, 1, AdminPassword::First, 1),
            admin(&master, 2, AdminPassword::First, 0),
        ] {
            assert_ne!(one, other);
        }
        assert!(verify_admin(&master, 1, AdminPassword::First, 0, one.expose()));
        assert!(!verify_admin(&master, 1, AdminPassword::First, 1, one.expose()));
        assert!(!verify_admin(&master, 1, AdminPassword::First, 0, ""));
    }

    #[test]
    fn every_generation_yields_a_full_password() {
        let master = MasterKey::new(&[3; 32]);
        for generation in 0..500 {
            assert_eq!(admin(&master, 7, AdminPassword::First, generation).expose().len(), SECRET_CHARS);
        }
    }
}
