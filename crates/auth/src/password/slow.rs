//! Passwords that people choose: hashed slowly, and remembered for a while once they were
//! right.
//!
//! Argon2id with what OWASP's password storage sheet asks for at least: 19 MiB, two passes,
//! one lane. A stored hash carries its parameters, so that they can grow. One verification
//! costs tens of milliseconds and the memory: callers do it off the threads that serve
//! requests, and not many at once.
//!
//! A password that was right is remembered as an HMAC over the stored hash and the password
//! under a key that lives and dies with the process. The same sign-in again costs two hashes
//! of SHA-256; renewing the password changes the stored hash, and with it what is remembered
//! no longer matches. Wrong passwords are never remembered.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use portolan_types::Secret;
use quick_cache::sync::Cache;

use super::SALT_BYTES;
use crate::master::{KeyError, random};

/// The version byte of a slow hash.
pub(super) const ARGON2ID: u8 = 2;
/// Memory of one hash, in KiB.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u8 = 2;
const LANES: u8 = 1;
const HASH_BYTES: usize = 32;
/// Version, memory, passes, lanes, salt, hash.
const STORED_BYTES: usize = 1 + 4 + 1 + 1 + SALT_BYTES + HASH_BYTES;
/// What a stored hash may ask of this machine at most: a row cannot make us allocate more.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u8 = 16;
const LANES_MAX: u8 = 16;
/// Right passwords remembered, each of 32 bytes.
const RECENT_MAX: usize = 4_096;
/// Longest password that is hashed, in bytes; longer ones are wrong.
pub const PASSWORD_BYTES_MAX: usize = 1_024;

/// What to store for a password that a person chose: version, parameters, salt, hash.
///
/// Slow on purpose: call it where waiting is allowed.
pub fn hash_slow(password: &Secret<String>) -> Result<Vec<u8>, KeyError> {
    let salt: [u8; SALT_BYTES] = random()?;
    let hash = argon2id(MEMORY_KIB, PASSES, LANES, &salt, password.expose()).ok_or(KeyError::Crypto("argon2id"))?;
    let mut out = Vec::with_capacity(STORED_BYTES);
    out.push(ARGON2ID);
    out.extend_from_slice(&MEMORY_KIB.to_be_bytes());
    out.extend_from_slice(&[PASSES, LANES]);
    out.extend_from_slice(&salt);
    out.extend_from_slice(&hash);
    Ok(out)
}

/// Whether verifying this hash is slow.
pub fn is_slow(stored: &[u8]) -> bool {
    stored.first() == Some(&ARGON2ID)
}

/// Whether `password` is the one that was hashed into `stored`, which is without its version
/// byte.
pub(super) fn verify(stored: &[u8], password: &str) -> bool {
    let Some((memory, rest)) = stored.split_first_chunk::<4>() else { return false };
    let Some((&[passes, lanes], rest)) = rest.split_first_chunk::<2>() else { return false };
    let Some((salt, hash)) = rest.split_at_checked(SALT_BYTES) else { return false };
    let memory = u32::from_be_bytes(*memory);
    if memory > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes > LANES_MAX {
        return false;
    }
    argon2id(memory, passes, lanes, salt, password).is_some_and(|ours| verify_slices_are_equal(&ours, hash).is_ok())
}

/// Spend the time of one slow [`super::verify`], for callers that found nobody of that name.
/// Always false.
pub fn verify_nobody_slow(password: &str) -> bool {
    let _ = argon2id(MEMORY_KIB, PASSES, LANES, &[0; SALT_BYTES], password);
    false
}

fn argon2id(memory_kib: u32, passes: u8, lanes: u8, salt: &[u8], password: &str) -> Option<[u8; HASH_BYTES]> {
    if password.len() > PASSWORD_BYTES_MAX {
        return None;
    }
    let params = Params::new(memory_kib, u32::from(passes), u32::from(lanes), Some(HASH_BYTES)).ok()?;
    let mut out = [0; HASH_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, &mut out)
        .ok()?;
    Some(out)
}

/// The passwords that were right lately.
pub struct Recent {
    key: hmac::Key,
    right: Cache<[u8; 32], ()>,
}

impl Recent {
    /// Remembers nothing yet.
    pub fn new() -> Result<Recent, KeyError> {
        let key = random::<32>()?;
        Ok(Recent { key: hmac::Key::new(hmac::HMAC_SHA256, &key), right: Cache::new(RECENT_MAX) })
    }

    /// Whether this password was right for this stored hash before. Cheap.
    pub fn knows(&self, stored: &[u8], password: &str) -> bool {
        self.tag(stored, password).is_some_and(|tag| self.right.get(&tag).is_some())
    }

    /// Remember that it was right.
    pub fn remember(&self, stored: &[u8], password: &str) {
        if let Some(tag) = self.tag(stored, password) {
            self.right.insert(tag, ());
        }
    }

    fn tag(&self, stored: &[u8], password: &str) -> Option<[u8; 32]> {
        let mut context = hmac::Context::with_key(&self.key);
        // The length first, so that no two pairs are one text.
        context.update(&u64::try_from(stored.len()).ok()?.to_be_bytes());
        context.update(stored);
        context.update(password.as_bytes());
        context.sign().as_ref().try_into().ok()
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recent({})", self.right.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::verify as verify_any;
    use super::*;

    #[test]
    fn a_slow_hash_knows_its_password_only() {
        let secret = Secret::new("correct horse battery staple".to_owned());
        let (a, b) = (hash_slow(&secret).unwrap(), hash_slow(&secret).unwrap());
        assert_ne!(a, b, "salted");
        assert_eq!(a.len(), STORED_BYTES);
        assert!(is_slow(&a) && verify_any(&a, secret.expose()));
        assert!(!verify_any(&a, "") && !verify_any(&a, "correct horse battery stapl"));
        for cut in [1, 4, 7, 22, STORED_BYTES - 1] {
            assert!(!verify_any(&a[..cut], secret.expose()), "{cut}");
        }
        assert!(!verify_nobody_slow("x"));
    }

    #[test]
    fn a_row_cannot_ask_for_all_the_memory() {
        let mut stored = hash_slow(&Secret::new("x".to_owned())).unwrap();
        stored[1..5].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(!verify_any(&stored, "x"));
    }

    #[test]
    fn a_password_too_long_is_wrong_and_cheap() {
        assert!(hash_slow(&Secret::new("x".repeat(PASSWORD_BYTES_MAX + 1))).is_err());
        let stored = hash_slow(&Secret::new("x".repeat(PASSWORD_BYTES_MAX))).unwrap();
        assert!(!verify_any(&stored, &"x".repeat(PASSWORD_BYTES_MAX + 1)));
    }

    #[test]
    fn what_is_remembered_is_one_hash_and_one_password() {
        let recent = Recent::new().unwrap();
        recent.remember(b"stored", "password");
        assert!(recent.knows(b"stored", "password"));
        for (stored, password) in
            [(&b"stored"[..], "Password"), (b"other", "password"), (b"store", "dpassword"), (b"storedp", "assword")]
        {
            assert!(!recent.knows(stored, password), "{password}");
        }
        assert!(!Recent::new().unwrap().knows(b"stored", "password"));
    }
}
