//! Passwords of people: which are good enough, and whether one is right.
//!
//! Checking one is slow on purpose. It happens on threads that may block, a few at a time, and
//! only so many wait; one that was right lately is known at once. Somebody who is not there
//! costs the same as somebody who is.

use std::sync::atomic::{AtomicUsize, Ordering};

use portolan_auth::password::{self, Recent};
use portolan_store::meta;
use portolan_store::meta::credential::{CredentialKind, CredentialRow};
use portolan_types::{Secret, Timestamp};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{Client, Method, Proof, Scopes, SignedIn};
use crate::keys::key_error;
use crate::service::Service;
use crate::snapshot::PrincipalState;
use crate::{Error, Kind, Result};

/// Passwords checked at one time: each takes a core and 19 MiB.
const CHECKS_MAX: usize = 2;
/// Sign-ins that wait for their turn; at some 50 ms each, the last waits for seconds.
const WAITING_MAX: usize = 128;
/// Characters of a password: Entra's bounds.
const CHARS_MIN: usize = 8;
const CHARS_MAX: usize = 256;
/// From this length on a password need not mix kinds of characters.
const PHRASE_CHARS_MIN: usize = 16;
/// Kinds of characters in a shorter one, of four.
const KINDS_MIN: usize = 3;

/// What checking passwords needs.
#[derive(Debug)]
pub(crate) struct Checker {
    recent: Recent,
    turns: Semaphore,
    waiting: AtomicUsize,
}

impl Checker {
    pub(crate) fn new() -> Result<Checker> {
        Ok(Checker {
            recent: Recent::new().map_err(key_error)?,
            turns: Semaphore::new(CHECKS_MAX),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Do `work`, which is slow, when its turn comes.
    ///
    /// Errors: `Unavailable` when too many wait.
    pub(crate) async fn slowly<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let busy =
            || Error::new(Kind::Unavailable, "temporarily_unavailable", "too many people sign in at this moment");
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(busy());
        }
        let waiting = Waiting(&self.waiting);
        let turn = self.turns.acquire().await.map_err(|_| busy())?;
        let done = tokio::task::spawn_blocking(work).await;
        drop((turn, waiting));
        done.map_err(|e| Error::new(Kind::Internal, "InternalServerError", "checking a password failed").with_source(e))
    }
}

/// One that waits; dropped when its client went away too.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether somebody may have this password.
///
/// Errors: `Invalid` (`Request_BadRequest`), with what is wanted.
pub fn check_policy(user_name: &str, password: &Secret<String>) -> Result<()> {
    let password = password.expose();
    let chars = password.chars().count();
    let kinds = [
        password.chars().any(char::is_lowercase),
        password.chars().any(char::is_uppercase),
        password.chars().any(|c| c.is_ascii_digit()),
        password.chars().any(|c| !c.is_alphanumeric()),
    ];
    let mixed = kinds.into_iter().filter(|there| *there).count() >= KINDS_MIN || chars >= PHRASE_CHARS_MIN;
    let own = user_name.split('@').next().unwrap_or_default().to_lowercase();
    let named = own.chars().count() > 3 && password.to_lowercase().contains(&own);
    if (CHARS_MIN..=CHARS_MAX).contains(&chars) && password.len() <= password::PASSWORD_BYTES_MAX && mixed && !named {
        return Ok(());
    }
    Err(Error::new(
        Kind::Invalid,
        "Request_BadRequest",
        format!(
            "The specified password does not comply with password complexity requirements. It needs {CHARS_MIN} to \
             {CHARS_MAX} characters, of three kinds (lower case, upper case, digits, others) when they are fewer than \
             {PHRASE_CHARS_MIN}, and must not contain the user name."
        ),
    ))
}

impl Service {
    /// Whether this is the password of the user of that name, and then the proof of it.
    /// `None` says that it is not, or that there is no such user, or that they have no
    /// password: callers count all of them as failed sign-ins.
    ///
    /// Errors: `invalid_grant` for somebody who is disabled (said only to who has the
    /// password) or when passwords are switched off; `Unavailable` when too many wait.
    pub async fn check_password(
        &self,
        user_name: &str,
        password: &Secret<String>,
        now: Timestamp,
    ) -> Result<Option<Proof>> {
        if !self.config.sign_in.passwords {
            return Err(super::invalid_grant(
                "AADSTS50034: Sign-in with a password is switched off on this server. Sign in with a browser or a device code.",
            ));
        }
        let (found, hashes) = {
            let snapshot = self.snapshot.load();
            let state = snapshot.user(user_name);
            (state.map(|s| (s.object_id, s.enabled)), state.map(|s| living(s, now)).unwrap_or_default())
        };
        let right = self.right_password(hashes, password).await?;
        match found.filter(|_| right) {
            None => Ok(None),
            Some((_, false)) => Err(super::invalid_grant("AADSTS50057: The user account is disabled.")),
            Some((object_id, true)) => Ok(Some(Proof { object_id, method: Method::Password, at: now })),
        }
    }

    /// What a client gets that has somebody's password itself. `None` as in
    /// [`Service::check_password`].
    pub async fn password_sign_in(
        &self,
        base: &str,
        client: &Client,
        user_name: &str,
        password: &Secret<String>,
        scopes: &Scopes,
        now: Timestamp,
    ) -> Result<Option<SignedIn>> {
        match self.check_password(user_name, password, now).await? {
            Some(proof) => self.grant(base, client, proof, scopes, None, now).map(Some),
            None => Ok(None),
        }
    }

    async fn right_password(&self, hashes: Vec<Vec<u8>>, password: &Secret<String>) -> Result<bool> {
        let checker = &self.checker;
        if hashes.iter().any(|hash| checker.recent.knows(hash, password.expose())) {
            return Ok(true);
        }
        let given = password.clone();
        let right = checker
            .slowly(move || {
                let right = hashes.iter().position(|hash| password::verify(hash, given.expose()));
                match right {
                    Some(at) => hashes.into_iter().nth(at),
                    None if hashes.is_empty() => {
                        password::verify_nobody_slow(given.expose());
                        None
                    }
                    None => None,
                }
            })
            .await?;
        if let Some(hash) = &right {
            checker.recent.remember(hash, password.expose());
        }
        Ok(right.is_some())
    }

    /// Let somebody who has their password choose another. Everything that was issued to them
    /// before is no longer good. Whether the old one was right.
    ///
    /// Errors: `Request_BadRequest` for one that is not good enough, and those of
    /// [`Service::check_password`].
    pub async fn change_password(
        &self,
        user_name: &str,
        old: &Secret<String>,
        new: &Secret<String>,
        now: Timestamp,
    ) -> Result<bool> {
        let Some(proof) = self.check_password(user_name, old, now).await? else { return Ok(false) };
        check_policy(user_name, new)?;
        if old == new {
            return Err(Error::new(Kind::Invalid, "Request_BadRequest", "The new password is the old one."));
        }
        self.set_password(proof.object_id, new, now).await?;
        Ok(true)
    }

    /// Give a user this password in place of any before, and end their sessions. The caller
    /// has asked [`check_policy`].
    pub async fn set_password(&self, object_id: Uuid, password: &Secret<String>, now: Timestamp) -> Result<()> {
        let given = password.clone();
        let hash = self.checker.slowly(move || password::hash_slow(&given)).await?.map_err(key_error)?;
        let row = CredentialRow {
            id: Uuid::new_v4(),
            owner: object_id,
            kind: CredentialKind::Password,
            name: None,
            value: hash,
            hint: None,
            created: now,
            starts: None,
            expires: None,
        };
        self.alter(move |tx| {
            if meta::principal::get(tx, object_id)?.is_none() {
                return Err(Error::new(Kind::NotFound, "Request_ResourceNotFound", "there is no such user"));
            }
            meta::principal::end_tokens(tx, object_id, now)?;
            meta::credential::delete_kind(tx, object_id, CredentialKind::Password)?;
            Ok(meta::credential::insert(tx, &row)?)
        })
        .await
    }
}

/// The hashes of a user's passwords that are good now.
fn living(state: &PrincipalState, now: Timestamp) -> Vec<Vec<u8>> {
    let good = state.secrets.iter().filter(|s| password::is_slow(&s.hash) && s.is_good(now));
    good.map(|s| s.hash.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_passwords_are_good_enough() {
        let check = |user: &str, password: &str| check_policy(user, &Secret::new(password.to_owned())).is_ok();
        for good in ["Passw0rd", "aB3$efgh", "correct horse battery staple", "ÄÖÜäöü12", &"aB3".repeat(80)] {
            assert!(check("bob@example.com", good), "{good}");
        }
        for bad in ["", "aB3$efg", "password", "PASSWORD1", "onlylowercase12", &"aB3".repeat(90)] {
            assert!(!check("bob@example.com", bad), "{bad}");
        }
        assert!(!check("alice@example.com", "Xy1-Alice-Xy1"));
        assert!(check("bo@example.com", "Xy1-bo-Xy1"));
    }
}
