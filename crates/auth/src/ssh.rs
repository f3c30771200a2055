//! SSH private keys: read, shown by their public part, and signed with.
//!
//! What `ssh-keygen` writes (`OPENSSH PRIVATE KEY`, PROTOCOL.key of OpenSSH) and the older
//! PEM forms; Ed25519, ECDSA on the NIST curves and RSA of 2048 bits and more. Keys under a
//! passphrase are refused: there is nobody to ask. Signatures are those of RFC 4253, RFC
//! 5656, RFC 8332 and RFC 8709; none with SHA-1.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A key's file; the largest that `ssh-keygen` writes, RSA of 16384 bits, has 13 kB.
pub const KEY_BYTES_MAX: usize = 64 * 1024;
/// Flag of a signature request: RSA with SHA-256.
const RSA_SHA2_256: u32 = 2;
/// Flag of a signature request: RSA with SHA-512.
const RSA_SHA2_512: u32 = 4;
/// The longest comment that is kept.
const COMMENT_BYTES_MAX: usize = 256;

/// Why a key cannot be used. Says nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshKeyError {
    /// It is no private key in a form that is known.
    #[error("this is not a private key that OpenSSH writes")]
    Unknown,
    /// It is encrypted.
    #[error("the key is protected by a passphrase; load it into an agent and forward that")]
    Encrypted,
    /// Its kind is not supported.
    #[error("keys of this kind are not supported: use Ed25519, ECDSA or RSA of 2048 bits or more")]
    Unsupported,
    /// The signature that was asked for is not given.
    #[error("no signature of the kind that was asked for: RSA with SHA-1 is not given")]
    Refused,
}

/// A private key.
pub struct SshKey {
    pair: Pair,
    public: Vec<u8>,
    comment: String,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair, &'static Curve),
    Rsa(RsaKeyPair),
}

/// A curve: SSH's name, the algorithm's, and how long a number on it is.
struct Curve {
    name: &'static str,
    algorithm: &'static str,
    signing: &'static EcdsaSigningAlgorithm,
    bytes: usize,
}

static CURVES: [Curve; 3] = [
    Curve { name: "nistp256", algorithm: "ecdsa-sha2-nistp256", signing: &ECDSA_P256_SHA256_FIXED_SIGNING, bytes: 32 },
    Curve { name: "nistp384", algorithm: "ecdsa-sha2-nistp384", signing: &ECDSA_P384_SHA384_FIXED_SIGNING, bytes: 48 },
    Curve { name: "nistp521", algorithm: "ecdsa-sha2-nistp521", signing: &ECDSA_P521_SHA512_FIXED_SIGNING, bytes: 66 },
];

impl fmt::Debug for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshKey({})", self.comment)
    }
}

impl SshKey {
    /// Read a key's file.
    pub fn parse(file: &[u8]) -> Result<SshKey, SshKeyError> {
        let text = std::str::from_utf8(file).ok().filter(|t| t.len() <= KEY_BYTES_MAX).ok_or(SshKeyError::Unknown)?;
        let (_, rest) = text.split_once("-----BEGIN ").ok_or(SshKeyError::Unknown)?;
        let (kind, rest) = rest.split_once("-----").ok_or(SshKeyError::Unknown)?;
        let (body, _) = rest.split_once("-----END ").ok_or(SshKeyError::Unknown)?;
        if kind == "ENCRYPTED PRIVATE KEY" || body.contains("ENCRYPTED") {
            return Err(SshKeyError::Encrypted);
        }
        let body: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| SshKeyError::Unknown)?;
        match kind {
            "OPENSSH PRIVATE KEY" => openssh(&der),
            "RSA PRIVATE KEY" => rsa(RsaKeyPair::from_der(&der)),
            "EC PRIVATE KEY" => CURVES
                .iter()
                .find_map(|curve| {
                    EcdsaKeyPair::from_private_key_der(curve.signing, &der).ok().map(|pair| ecdsa(pair, curve))
                })
                .ok_or(SshKeyError::Unsupported),
            "PRIVATE KEY" => pkcs8(&der),
            "DSA PRIVATE KEY" => Err(SshKeyError::Unsupported),
            _ => Err(SshKeyError::Unknown),
        }
    }

    /// The public part, as the protocol writes it (RFC 4253, section 6.6).
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// What its owner calls it; may be empty.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// Sign `data`; `flags` are those of an agent's request. The signature is as the protocol
    /// writes it: the algorithm's name, and its bytes.
    pub fn sign(&self, data: &[u8], flags: u32) -> Result<Vec<u8>, SshKeyError> {
        let refused = |_| SshKeyError::Refused;
        let mut out = Vec::new();
        match &self.pair {
            Pair::Ed25519(pair) => {
                string(&mut out, b"ssh-ed25519");
                string(&mut out, pair.sign(data).as_ref());
            }
            Pair::Ecdsa(pair, curve) => {
                let signature = pair.sign(&SystemRandom::new(), data).map_err(refused)?;
                let (r, s) = signature.as_ref().split_at(signature.as_ref().len() / 2);
                let mut numbers = Vec::new();
                mpint(&mut numbers, r);
                mpint(&mut numbers, s);
                string(&mut out, curve.algorithm.as_bytes());
                string(&mut out, &numbers);
            }
            Pair::Rsa(pair) => {
                let (name, padding) = match flags {
                    flags if flags & RSA_SHA2_512 != 0 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    flags if flags & RSA_SHA2_256 != 0 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    _ => return Err(SshKeyError::Refused),
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &SystemRandom::new(), data, &mut signature).map_err(refused)?;
                string(&mut out, name.as_bytes());
                string(&mut out, &signature);
            }
        }
        Ok(out)
    }
}

fn ed25519(pair: Ed25519KeyPair) -> SshKey {
    let mut public = Vec::new();
    string(&mut public, b"ssh-ed25519");
    string(&mut public, pair.public_key().as_ref());
    SshKey { pair: Pair::Ed25519(pair), public, comment: String::new() }
}

fn ecdsa(pair: EcdsaKeyPair, curve: &'static Curve) -> SshKey {
    let mut public = Vec::new();
    string(&mut public, curve.algorithm.as_bytes());
    string(&mut public, curve.name.as_bytes());
    string(&mut public, pair.public_key().as_ref());
    SshKey { pair: Pair::Ecdsa(pair, curve), public, comment: String::new() }
}

fn rsa<E>(pair: Result<RsaKeyPair, E>) -> Result<SshKey, SshKeyError> {
    let pair = pair.map_err(|_| SshKeyError::Unsupported)?;
    let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
    let mut public = Vec::new();
    string(&mut public, b"ssh-rsa");
    mpint(&mut public, &e);
    mpint(&mut public, &n);
    Ok(SshKey { pair: Pair::Rsa(pair), public, comment: String::new() })
}

fn pkcs8(der: &[u8]) -> Result<SshKey, SshKeyError> {
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
        return Ok(ed25519(pair));
    }
    for curve in &CURVES {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve.signing, der) {
            return Ok(ecdsa(pair, curve));
        }
    }
    rsa(RsaKeyPair::from_pkcs8(der))
}

/// OpenSSH's own form: a head, the public key, and the private one, here in the clear.
fn openssh(bytes: &[u8]) -> Result<SshKey, SshKeyError> {
    let mut reader = Reader(bytes.strip_prefix(b"openssh-key-v1\0").ok_or(SshKeyError::Unknown)?);
    let (cipher, kdf) = (reader.string()?, reader.string()?);
    reader.string()?;
    if cipher != b"none" || kdf != b"none" {
        return Err(SshKeyError::Encrypted);
    }
    if reader.number()? != 1 {
        return Err(SshKeyError::Unsupported);
    }
    let public = reader.string()?;
    let mut reader = Reader(reader.string()?);
    if reader.number()? != reader.number()? {
        return Err(SshKeyError::Unknown);
    }
    let kind = reader.string()?;
    let mut key = match kind {
        b"ssh-ed25519" => {
            let (public, both) = (reader.string()?, reader.string()?);
            let seed = both.get(..32).ok_or(SshKeyError::Unknown)?;
            ed25519(Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(|_| SshKeyError::Unknown)?)
        }
        b"ssh-rsa" => {
            let mut numbers = || reader.string();
            let (n, e, d, iqmp, p, q) = (numbers()?, numbers()?, numbers()?, numbers()?, numbers()?, numbers()?);
            let (dp, dq) = (modulo(d, &minus_one(p)), modulo(d, &minus_one(q)));
            rsa(RsaKeyPair::from_der(&pkcs1([&[0], n, e, d, p, q, &dp, &dq, iqmp])))?
        }
        _ => {
            let curve = CURVES.iter().find(|curve| curve.algorithm.as_bytes() == kind);
            let curve = curve.ok_or(SshKeyError::Unsupported)?;
            let (_, point, number) = (reader.string()?, reader.string()?, significant(reader.string()?));
            let mut private = vec![0; curve.bytes.saturating_sub(number.len())];
            private.extend_from_slice(number);
            let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.signing, &private, point);
            ecdsa(pair.map_err(|_| SshKeyError::Unknown)?, curve)
        }
    };
    if key.public != public {
        return Err(SshKeyError::Unknown);
    }
    let comment = String::from_utf8_lossy(reader.string()?);
    key.comment = comment.chars().filter(|c| !c.is_control()).take(COMMENT_BYTES_MAX).collect();
    Ok(key)
}

/// Reads the protocol's values.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], SshKeyError> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(SshKeyError::Unknown)?;
        self.0 = rest;
        Ok(head)
    }

    fn number(&mut self) -> Result<u32, SshKeyError> {
        let bytes = self.take(4)?.try_into().map_err(|_| SshKeyError::Unknown)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn string(&mut self) -> Result<&'a [u8], SshKeyError> {
        let length = self.number()?;
        self.take(length as usize)
    }
}

/// Write a string of the protocol: its length, and its bytes.
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Write a number that is not negative.
fn mpint(out: &mut Vec<u8>, number: &[u8]) {
    let number = significant(number);
    let zero = number.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut bytes = vec![0; usize::from(zero)];
    bytes.extend_from_slice(number);
    string(out, &bytes);
}

/// A number without the zeros before it.
fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// One less than an odd number, such as a prime.
fn minus_one(number: &[u8]) -> Vec<u8> {
    let mut number = significant(number).to_vec();
    if let Some(last) = number.last_mut() {
        *last &= 0xfe;
    }
    number
}

/// The rest of a division, bit by bit: done twice when a key is read. Numbers are big-endian;
/// of nothing, or by zero, there is no rest.
fn modulo(number: &[u8], by: &[u8]) -> Vec<u8> {
    let by = significant(by);
    if by.is_empty() {
        return Vec::new();
    }
    // One byte more than the divisor, for what doubling carries.
    let mut rest = vec![0u8; by.len() + 1];
    let mut divisor = vec![0u8];
    divisor.extend_from_slice(by);
    for bit in number.iter().flat_map(|byte| (0..8).rev().map(move |n| (byte >> n) & 1)) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            let next = *byte >> 7;
            *byte = (*byte << 1) | carry;
            carry = next;
        }
        if rest >= divisor {
            let mut borrow = 0i16;
            for (byte, take) in rest.iter_mut().zip(&divisor).rev() {
                let difference = i16::from(*byte) - i16::from(*take) - borrow;
                borrow = i16::from(difference < 0);
                *byte = difference.rem_euclid(256) as u8;
            }
        }
    }
    significant(&rest).to_vec()
}

/// An `RSAPrivateKey` (RFC 8017, appendix A.1.2) of its numbers.
fn pkcs1(numbers: [&[u8]; 9]) -> Vec<u8> {
    let mut body = Vec::new();
    for number in numbers {
        let number = significant(number);
        let mut value = Vec::new();
        if number.first().is_none_or(|byte| byte & 0x80 != 0) {
            value.push(0);
        }
        value.extend_from_slice(number);
        body.push(0x02);
        der_length(&mut body, value.len());
        body.extend_from_slice(&value);
    }
    let mut out = vec![0x30];
    der_length(&mut out, body.len());
    out.extend_from_slice(&body);
    out
}

fn der_length(out: &mut Vec<u8>, length: usize) {
    if length < 0x80 {
        out.push(length as u8);
        return;
    }
    let bytes = length.to_be_bytes();
    let bytes = significant(&bytes);
    out.push(0x80 | bytes.len() as u8);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

    fn keygen(dir: &Path, name: &str, args: &[&str]) -> Vec<u8> {
        let path = dir.join(name);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-C", "me@here", "-f"])
            .arg(&path)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("tests need ssh-keygen: apt-get install openssh-client");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::read(path).unwrap()
    }

    /// Let OpenSSH check a signature, in the envelope of its own `ssh-keygen -Y sign`.
    fn verified(dir: &Path, name: &str, key: &SshKey, flags: u32) -> bool {
        let message = b"what was signed";
        let mut signed = b"SSHSIG".to_vec();
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, message);
        for part in [&b"test"[..], b"", b"sha512", hash.as_ref()] {
            string(&mut signed, part);
        }
        let mut envelope = b"SSHSIG".to_vec();
        envelope.extend_from_slice(&1u32.to_be_bytes());
        let signature = key.sign(&signed, flags).unwrap();
        for part in [key.public(), b"test", b"", b"sha512", &signature] {
            string(&mut envelope, part);
        }
        let armor =
            format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", STANDARD.encode(envelope));
        std::fs::write(dir.join("signature"), armor).unwrap();
        let public = std::fs::read_to_string(dir.join(name).with_extension("pub")).unwrap();
        std::fs::write(dir.join("signers"), format!("me@here {public}")).unwrap();
        std::fs::write(dir.join("message"), message).unwrap();
        let checked = Command::new("ssh-keygen")
            .args(["-Y", "verify", "-I", "me@here", "-n", "test", "-f"])
            .arg(dir.join("signers"))
            .arg("-s")
            .arg(dir.join("signature"))
            .stdin(std::fs::File::open(dir.join("message")).unwrap())
            .output()
            .unwrap();
        checked.status.success()
    }

    #[test]
    fn openssh_takes_our_signatures_with_all_its_keys() {
        let dir = tempfile::tempdir().unwrap();
        let kinds: [(&str, &[&str], u32); 8] = [
            ("ed25519", &["-t", "ed25519", "-N", ""], 0),
            ("p256", &["-t", "ecdsa", "-b", "256", "-N", ""], 0),
            ("p384", &["-t", "ecdsa", "-b", "384", "-N", ""], 0),
            ("p521", &["-t", "ecdsa", "-b", "521", "-N", ""], 0),
            ("rsa2048", &["-t", "rsa", "-b", "2048", "-N", ""], RSA_SHA2_512),
            ("rsa3072", &["-t", "rsa", "-b", "3072", "-N", ""], RSA_SHA2_256),
            ("rsapem", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""], RSA_SHA2_512),
            ("ecpem", &["-t", "ecdsa", "-m", "PEM", "-N", ""], 0),
        ];
        for (name, args, flags) in kinds {
            let key = SshKey::parse(&keygen(dir.path(), name, args)).unwrap();
            let public = std::fs::read_to_string(dir.path().join(name).with_extension("pub")).unwrap();
            let shown = public.split_whitespace().nth(1).unwrap();
            assert_eq!(STANDARD.encode(key.public()), shown, "{name}");
            assert_eq!(key.comment(), if name.ends_with("pem") { "" } else { "me@here" });
            assert!(verified(dir.path(), name, &key, flags), "{name}");
            assert!(!format!("{key:?}").contains("Pair"));
        }
        let rsa = SshKey::parse(&std::fs::read(dir.path().join("rsa2048")).unwrap()).unwrap();
        assert_eq!(rsa.sign(b"x", 0).err(), Some(SshKeyError::Refused), "SHA-1");
        // What the check above is worth: another key's signature does not pass.
        let other = SshKey::parse(&std::fs::read(dir.path().join("ed25519")).unwrap()).unwrap();
        assert!(!verified(dir.path(), "p256", &other, 0));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |file: &[u8]| SshKey::parse(file).unwrap_err();
        assert_eq!(refused(&keygen(dir.path(), "a", &["-t", "ed25519", "-N", "secret"])), SshKeyError::Encrypted);
        let pem = keygen(dir.path(), "b", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "secret"]);
        assert_eq!(refused(&pem), SshKeyError::Encrypted);
        assert_eq!(refused(b"hunter2"), SshKeyError::Unknown);
        assert_eq!(refused(&[0xff; 10]), SshKeyError::Unknown);
        let good = keygen(dir.path(), "c", &["-t", "ed25519", "-N", ""]);
        let body = String::from_utf8(good.clone()).unwrap();
        let body: String = body.lines().filter(|line| !line.starts_with('-')).collect();
        let bytes = STANDARD.decode(body).unwrap();
        // Cut anywhere, and with any byte of the head wrong, it is refused or read the same.
        for cut in 0..bytes.len() {
            let text = format!(
                "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
                STANDARD.encode(&bytes[..cut])
            );
            let _ = SshKey::parse(text.as_bytes());
        }
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0xff;
            let text = format!(
                "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
                STANDARD.encode(&wrong)
            );
            if let Ok(key) = SshKey::parse(text.as_bytes()) {
                assert_eq!(key.public(), SshKey::parse(&good).unwrap().public(), "byte {at}");
            }
        }
    }

    #[test]
    fn rests() {
        for (a, b) in [(1_000_003u64, 97u64), (u64::MAX, 0x1_0000_0001), (5, 7), (0, 3), (65_536, 256)] {
            let rest = modulo(&a.to_be_bytes(), &b.to_be_bytes());
            assert_eq!(rest, significant(&(a % b).to_be_bytes()), "{a} % {b}");
        }
        assert!(modulo(&[1], &[]).is_empty());
        assert_eq!(minus_one(&[0, 7]), [6]);
    }
}
