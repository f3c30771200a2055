//! What we hand to a client that only we are to read when it comes back: directory refresh
//! tokens, authorization codes, the state of a sign-in page.
//!
//! A ticket is JSON sealed with AES-256-GCM under a key of its purpose and of a random salt
//! of its own (so that no number of tickets wears a key out), in base64url. Any server with
//! the master key opens it; nothing is stored. A ticket made for one purpose opens for no
//! other. Whether it has expired, and whether its holder is still welcome, its content and
//! the caller say.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portolan_types::Secret;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::master::{KeyError, MasterKey, random};

const SALT_BYTES: usize = 16;
/// Longest ticket that is looked at, in bytes.
pub const TICKET_BYTES_MAX: usize = 16 * 1024;

/// What a ticket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A directory refresh token.
    Refresh,
    /// An authorization code.
    Code,
    /// What a sign-in page must send back.
    Page,
    /// The `state` that travels by an organisation's own provider.
    Delegated,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Purpose::Refresh => "ticket/refresh",
            Purpose::Code => "ticket/code",
            Purpose::Page => "ticket/page",
            Purpose::Delegated => "ticket/delegated",
        }
    }
}

/// Seal `content` into a ticket.
pub fn seal(master: &MasterKey, purpose: Purpose, content: &impl Serialize) -> Result<Secret<String>, KeyError> {
    let plain = serde_json::to_vec(content).map_err(|_| KeyError::Crypto("write a ticket"))?;
    let salt: [u8; SALT_BYTES] = random()?;
    let mut out = salt.to_vec();
    out.extend_from_slice(&master.seal(&key_name(purpose, &salt), "", &plain)?);
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(out)))
}

/// What is in a ticket of that purpose; `None` for anything that is not one.
pub fn open<T: DeserializeOwned>(master: &MasterKey, purpose: Purpose, ticket: &str) -> Option<T> {
    if ticket.len() > TICKET_BYTES_MAX {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(ticket).ok()?;
    let (salt, sealed) = bytes.split_at_checked(SALT_BYTES)?;
    let plain = master.open(&key_name(purpose, salt), "", sealed).ok()?;
    serde_json::from_slice(&plain).ok()
}

/// Letters of a user code: none that could be taken for another, and no vowels, so that no
/// word comes out (RFC 8628, section 6.1).
pub const USER_CODE_LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters in a user code: 38 bits, for a quarter of an hour.
pub const USER_CODE_CHARS: usize = 9;

/// A new code for a person to type.
pub fn user_code() -> Result<String, KeyError> {
    let bytes: [u8; 64] = random()?;
    // 240 is the largest multiple of 20: what is above would make some letters likelier.
    let letters = bytes.iter().filter(|b| **b < 240).take(USER_CODE_CHARS);
    let code: String = letters.map(|b| char::from(USER_CODE_LETTERS[usize::from(b % 20)])).collect();
    if code.len() == USER_CODE_CHARS { Ok(code) } else { Err(KeyError::Random) }
}

/// Whether `verifier` is what the challenge was made from with method S256 (RFC 7636).
pub fn proves(challenge: &str, verifier: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-._~".contains(&c);
    if !(43..=128).contains(&verifier.len()) || !verifier.bytes().all(plain) {
        return false;
    }
    let made = self::challenge(verifier);
    aws_lc_rs::constant_time::verify_slices_are_equal(made.as_bytes(), challenge.as_bytes()).is_ok()
}

/// The S256 challenge of a verifier (RFC 7636).
pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes()))
}

fn key_name(purpose: Purpose, salt: &[u8]) -> String {
    format!("{}/{}", purpose.name(), URL_SAFE_NO_PAD.encode(salt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_for_its_purpose_and_master_key_only() {
        let master = MasterKey::new(&[1; 32]);
        let ticket = seal(&master, Purpose::Refresh, &("a", 7)).unwrap().into_exposed();
        assert_eq!(open::<(String, u8)>(&master, Purpose::Refresh, &ticket), Some(("a".to_owned(), 7)));
        for other in [Purpose::Code, Purpose::Page, Purpose::Delegated] {
            assert_eq!(open::<(String, u8)>(&master, other, &ticket), None, "{other:?}");
        }
        assert_eq!(open::<(String, u8)>(&MasterKey::new(&[2; 32]), Purpose::Refresh, &ticket), None);
        assert_eq!(open::<(u8, u8)>(&master, Purpose::Refresh, &ticket), None);
    }

    #[test]
    fn user_codes_are_of_their_letters() {
        for _ in 0..200 {
            let code = user_code().unwrap();
            assert!(code.len() == USER_CODE_CHARS && code.bytes().all(|c| USER_CODE_LETTERS.contains(&c)), "{code}");
        }
        assert_ne!(user_code().unwrap(), user_code().unwrap());
    }

    #[test]
    fn a_verifier_proves_its_challenge() {
        // RFC 7636, appendix B.
        let (verifier, challenge) =
            ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(proves(challenge, verifier));
        assert!(!proves(challenge, &verifier.replace('d', "e")));
        assert!(!proves(verifier, verifier), "the plain method");
        assert!(!proves("", "") && !proves(challenge, ""));
    }

    #[test]
    fn a_changed_ticket_opens_nothing() {
        let master = MasterKey::new(&[1; 32]);
        let ticket = seal(&master, Purpose::Code, &"content").unwrap().into_exposed();
        assert_ne!(ticket, seal(&master, Purpose::Code, &"content").unwrap().into_exposed());
        let bytes = URL_SAFE_NO_PAD.decode(&ticket).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(open::<String>(&master, Purpose::Code, &URL_SAFE_NO_PAD.encode(changed)), None, "{at}");
        }
        for text in ["", "A", "!", &ticket[..10], &"A".repeat(TICKET_BYTES_MAX + 1)] {
            assert_eq!(open::<String>(&master, Purpose::Code, text), None);
        }
    }
}
