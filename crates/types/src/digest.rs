//! Content digests: `sha256:<64 hex>` and `sha512:<128 hex>`.
//!
//! A `Digest` is the binary value, not the text: it is `Copy`, compares in one
//! instruction or two, and cannot hold upper-case hex, a wrong length or a path.
//! Grammar: OCI image-spec, descriptor.md, "Digests". Other registered algorithms are
//! refused as unsupported, as the specification allows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;
use sha2::digest::common::hazmat::SerializableState;

/// The hash functions a digest may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, what every client uses.
    Sha256,
    /// SHA-512, allowed by the OCI specification.
    Sha512,
}

impl Algorithm {
    /// The name as it stands before the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }
}

/// The digest of some content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// A SHA-256 value.
    Sha256([u8; 32]),
    /// A SHA-512 value.
    Sha512([u8; 64]),
}

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDigest {
    /// No `algorithm:hex` shape, wrong length, or a character that is not lower-case hex.
    #[error("not a digest: expected sha256:<64 lower-case hex digits> or sha512:<128>")]
    Malformed,
    /// Well formed, but of an algorithm this registry does not compute.
    #[error("unsupported digest algorithm: use sha256 or sha512")]
    Unsupported,
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::Sha256(sha2::Sha256::digest(bytes).into())
    }

    /// The digest of `bytes` under `algorithm`.
    pub fn of_with(algorithm: Algorithm, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Which hash function made it.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Digest::Sha256(_) => Algorithm::Sha256,
            Digest::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The raw hash value, 32 or 64 bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Digest::Sha256(b) => b,
            Digest::Sha512(b) => b,
        }
    }

    /// The hex part, without the algorithm.
    pub fn hex(&self) -> String {
        hex(self.bytes())
    }

    /// The first twelve hex digits, as docker shows an id to people.
    pub fn short(&self) -> String {
        hex(&self.bytes()[..6])
    }
}

/// Lower-case hex of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        out.push(DIGITS[usize::from(b >> 4)] as char);
        out.push(DIGITS[usize::from(b & 15)] as char);
    }
    out
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    fn nibble(c: u8) -> Option<u8> {
        match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        }
    }
    let text = text.as_bytes();
    if text.len() != N * 2 {
        return None;
    }
    let mut out = [0u8; N];
    for (o, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *o = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Digest, InvalidDigest> {
        let (algorithm, value) = text.split_once(':').ok_or(InvalidDigest::Malformed)?;
        match algorithm {
            "sha256" => unhex(value).map(Digest::Sha256).ok_or(InvalidDigest::Malformed),
            "sha512" => unhex(value).map(Digest::Sha512).ok_or(InvalidDigest::Malformed),
            "" => Err(InvalidDigest::Malformed),
            other
                if other.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"+._-".contains(&c))
                    && !value.is_empty() =>
            {
                Err(InvalidDigest::Unsupported)
            }
            _ => Err(InvalidDigest::Malformed),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm().as_str(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Digest, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[allow(clippy::large_enum_variant, reason = "a handful live at once, each beside a 256 KiB buffer")]
/// A digest in the making: fed while bytes stream by, so that hashing is never a second
/// pass over the content. `Clone` keeps the state of a resumable upload.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256 under way.
    Sha256(sha2::Sha256),
    /// SHA-512 under way.
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A fresh hasher.
    pub fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        }
    }

    /// Feed the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(h) => h.update(bytes),
            Hasher::Sha512(h) => h.update(bytes),
        }
    }

    /// The state after what was fed so far, for another process to go on from: an upload's
    /// chunks may reach different servers. About 100 bytes.
    pub fn save(&self) -> Vec<u8> {
        match self {
            Hasher::Sha256(h) => h.serialize().to_vec(),
            Hasher::Sha512(h) => h.serialize().to_vec(),
        }
    }

    /// Go on from what [`Hasher::save`] gave. `None` when it is no such state.
    pub fn resume(algorithm: Algorithm, state: &[u8]) -> Option<Hasher> {
        match algorithm {
            Algorithm::Sha256 => sha2::Sha256::deserialize(state.try_into().ok()?).ok().map(Hasher::Sha256),
            Algorithm::Sha512 => sha2::Sha512::deserialize(state.try_into().ok()?).ok().map(Hasher::Sha512),
        }
    }

    /// The digest of everything fed.
    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(h) => Digest::Sha256(h.finalize().into()),
            Hasher::Sha512(h) => Digest::Sha512(h.finalize().into()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hasher::Sha256(_) => "Hasher(sha256)",
            Hasher::Sha512(_) => "Hasher(sha512)",
        })
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        assert_eq!(
            Digest::of(b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(Digest::of_with(Algorithm::Sha512, b"").hex().len(), 128);
    }

    #[test]
    fn a_state_is_taken_up_again() {
        let bytes: Vec<u8> = (0..1000u32).map(|n| n as u8).collect();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for cut in [0, 1, 63, 64, 65, 127, 128, 129, 500, 1000] {
                let mut first = Hasher::new(algorithm);
                first.update(&bytes[..cut]);
                let state = first.save();
                assert!(state.len() <= 256, "{}", state.len());
                let mut second = Hasher::resume(algorithm, &state).unwrap();
                second.update(&bytes[cut..]);
                assert_eq!(second.finish(), Digest::of_with(algorithm, &bytes), "{cut}");
            }
            assert!(Hasher::resume(algorithm, b"short").is_none());
        }
        let state = Hasher::new(Algorithm::Sha256).save();
        assert!(Hasher::resume(Algorithm::Sha512, &state).is_none());
    }

    #[test]
    fn refuses() {
        let full = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for bad in [
            "",
            "sha256",
            "sha256:",
            "sha256:e3",
            &format!("sha256:{}", full.to_uppercase()),
            &format!("sha256:{full}0"),
            ":aa",
        ] {
            assert_eq!(bad.parse::<Digest>(), Err(InvalidDigest::Malformed), "{bad}");
        }
        assert_eq!("md5:abcd".parse::<Digest>(), Err(InvalidDigest::Unsupported));
    }

    proptest! {
        #[test]
        fn parse_of_render_is_identity(a in any::<[u8; 32]>(), b in any::<[u8; 64]>()) {
            for d in [Digest::Sha256(a), Digest::Sha512(b)] {
                prop_assert_eq!(d.to_string().parse::<Digest>(), Ok(d));
            }
        }

        #[test]
        fn never_panics(text in ".{0,200}") {
            let _ = text.parse::<Digest>();
        }
    }
}
