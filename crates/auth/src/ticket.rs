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
