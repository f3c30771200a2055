//! The server's master key and what hangs on it.
//!
//! Thirty-two random bytes in a file beside the database (`master.key`, mode 0600). It is
//! never used directly: each purpose has its own key, derived by HMAC-SHA256 over the
//! purpose's name, so that a value made for one purpose means nothing to another. What
//! the database keeps secret (signing keys) is sealed under such a key with AES-256-GCM,
//! so that a copy of the database alone signs nothing.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;

/// Why a key could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Sealed under another master key, or damaged.
    #[error("a stored key does not open with this master key; is master.key the one this data was made with?")]
    Sealed,
    /// The cryptographic library refused.
    #[error("cryptography failed: {0}")]
    Crypto(&'static str),
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system")]
    Random,
}

/// The root secret of one server (or of a group of servers that share a database).
#[derive(Clone)]
pub struct MasterKey(hmac::Key);

impl MasterKey {
    /// Length of the key, in bytes.
    pub const BYTES: usize = 32;

    /// From the 32 bytes of the key file.
    pub fn new(bytes: &[u8; MasterKey::BYTES]) -> MasterKey {
        MasterKey(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Fresh random bytes for a new key file.
    pub fn generate() -> Result<[u8; MasterKey::BYTES], KeyError> {
        random()
    }

    /// The key for one purpose.
    fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"portolan/1/");
        context.update(purpose.as_bytes());
        bytes32(context.sign().as_ref())
    }

    /// HMAC-SHA256 of `data` under the key for `purpose`.
    pub fn hmac(&self, purpose: &str, data: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.derive(purpose));
        bytes32(hmac::sign(&key, data).as_ref())
    }

    /// Whether `tag` is [`MasterKey::hmac`] of the same purpose and data, in constant time.
    pub fn verify_hmac(&self, purpose: &str, data: &[u8], tag: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.hmac(purpose, data), tag).is_ok()
    }

    /// Encrypt `plain` for storage. `purpose` and `label` (a row's own name) must be given
    /// again to open it, so that sealed values cannot be swapped between rows.
    pub fn seal(&self, purpose: &str, label: &str, plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut body = plain.to_vec();
        self.aead(purpose)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(label.as_bytes()), &mut body)
            .map_err(|_| KeyError::Crypto("seal"))?;
        let mut out = Vec::with_capacity(NONCE_LEN + body.len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&body);
        Ok(out)
    }

    /// The inverse of [`MasterKey::seal`].
    pub fn open(&self, purpose: &str, label: &str, sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(KeyError::Sealed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyError::Sealed)?;
        let mut body = body.to_vec();
        let plain = self
            .aead(purpose)?
            .open_in_place(nonce, Aad::from(label.as_bytes()), &mut body)
            .map_err(|_| KeyError::Sealed)?;
        Ok(plain.to_vec())
    }

    fn aead(&self, purpose: &str) -> Result<LessSafeKey, KeyError> {
        let key = self.derive(&format!("seal/{purpose}"));
        UnboundKey::new(&AES_256_GCM, &key).map(LessSafeKey::new).map_err(|_| KeyError::Crypto("seal key"))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

/// `N` random bytes from the operating system.
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut out = [0u8; N];
    getrandom::fill(&mut out).map_err(|_| KeyError::Random)?;
    Ok(out)
}

/// An HMAC-SHA256 value as an array.
fn bytes32(tag: &[u8]) -> [u8; 32] {
    let mut out = [0u8; 32];
    for (o, b) in out.iter_mut().zip(tag) {
        *o = *b;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_are_apart() {
        let key = MasterKey::new(&[7; 32]);
        assert_ne!(key.hmac("a", b"x"), key.hmac("b", b"x"));
        assert!(key.verify_hmac("a", b"x", &key.hmac("a", b"x")));
        assert!(!key.verify_hmac("a", b"x", &key.hmac("b", b"x")));
        assert!(!key.verify_hmac("a", b"x", b""));
        assert_ne!(key.hmac("a", b"x"), MasterKey::new(&[8; 32]).hmac("a", b"x"));
    }

    #[test]
    fn sealed_values_open_only_where_they_belong() {
        let key = MasterKey::new(&[7; 32]);
        let sealed = key.seal("signing-key", "k1", b"private").unwrap();
        assert_eq!(key.open("signing-key", "k1", &sealed).unwrap(), b"private");
        assert_eq!(key.open("signing-key", "k2", &sealed), Err(KeyError::Sealed));
        assert_eq!(key.open("other", "k1", &sealed), Err(KeyError::Sealed));
        assert_eq!(MasterKey::new(&[8; 32]).open("signing-key", "k1", &sealed), Err(KeyError::Sealed));
        for cut in [0, 5, 12, sealed.len() - 1] {
            assert_eq!(key.open("signing-key", "k1", &sealed[..cut]), Err(KeyError::Sealed), "{cut}");
        }
        let mut flipped = sealed.clone();
        flipped[20] ^= 1;
        assert_eq!(key.open("signing-key", "k1", &flipped), Err(KeyError::Sealed));
    }
}
