//! Passwords and certificates of applications and service principals.

use portolan_auth::certificate::Certificate;
use portolan_auth::password;
use portolan_store::meta::credential::{CredentialKind, CredentialRow};
use portolan_store::meta::{self, Tx};
use portolan_types::{Secret, Timestamp};
use uuid::Uuid;

use super::{CREDENTIALS_MAX, NAME_CHARS_MAX, bad_request, no_such};
use crate::keys::key_error;
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// How long a password lasts that nobody gave an end: two years, as Graph's.
const DEFAULT_LIFE: std::time::Duration = std::time::Duration::from_secs(2 * 365 * 86_400);
/// How much of a password is kept to tell it from others.
const HINT_CHARS: usize = 3;

/// What an owner proves who it is with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Passwords, oldest first.
    pub passwords: Vec<PasswordInfo>,
    /// Certificates, oldest first.
    pub keys: Vec<KeyInfo>,
}

/// What is known of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordInfo {
    /// `keyId`
    pub id: Uuid,
    /// For people.
    pub name: Option<String>,
    /// Its first characters.
    pub hint: Option<String>,
    /// When it begins to work.
    pub starts: Timestamp,
    /// When it stops working.
    pub expires: Option<Timestamp>,
}

/// What is known of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// `keyId`
    pub id: Uuid,
    /// For people.
    pub name: Option<String>,
    /// SHA-1 over the certificate.
    pub thumbprint: [u8; 20],
    /// When it begins to work.
    pub starts: Timestamp,
    /// When it stops working.
    pub expires: Option<Timestamp>,
}

/// A password to be made.
#[derive(Clone, Debug, Default)]
pub struct PasswordInput {
    /// For people.
    pub name: Option<String>,
    /// When it is to begin to work; at once when absent.
    pub starts: Option<Timestamp>,
    /// When it is to stop; in two years when absent.
    pub expires: Option<Timestamp>,
}

/// A certificate to be kept, or added.
#[derive(Clone, Debug, Default)]
pub struct KeyInput {
    /// Its id; one that is there already stays as it is.
    pub id: Option<Uuid>,
    /// For people.
    pub name: Option<String>,
    /// The certificate, for one that is new: see [`Certificate::read`].
    pub certificate: Option<String>,
    /// When it is to begin to work.
    pub starts: Option<Timestamp>,
    /// When it is to stop; never later than the certificate says.
    pub expires: Option<Timestamp>,
}

impl Credentials {
    pub(super) fn load(tx: &mut dyn Tx, owner: Uuid) -> Result<Credentials> {
        let mut all = Credentials::default();
        for row in meta::credential::of(tx, owner)? {
            let (id, name, expires, starts) = (row.id, row.name, row.expires, row.starts.unwrap_or(row.created));
            match row.kind {
                CredentialKind::Password => {
                    all.passwords.push(PasswordInfo { id, name, hint: row.hint, starts, expires });
                }
                CredentialKind::Certificate => {
                    let read = Certificate::from_der(row.value)
                        .map_err(|_| portolan_store::Error::Corrupt(format!("certificate {id}")))?;
                    all.keys.push(KeyInfo { id, name, thumbprint: read.thumbprint, starts, expires });
                }
            }
        }
        Ok(all)
    }
}

/// Whose credentials: an application or a service principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// An application.
    Application,
    /// A service principal.
    ServicePrincipal,
}

impl Holder {
    /// The principal whose tokens end when a credential of `owner` goes.
    ///
    /// Errors: not found, when there is no such owner.
    pub(super) fn principal(self, tx: &mut dyn Tx, owner: Uuid) -> Result<Option<Uuid>> {
        match self {
            Holder::Application => {
                let row = meta::application::get(tx, owner)?.ok_or_else(|| no_such(owner))?;
                Ok(meta::principal::by_app(tx, row.app_id)?.map(|p| p.object_id))
            }
            Holder::ServicePrincipal => match meta::principal::get(tx, owner)? {
                Some(row) if row.kind == "ServicePrincipal" => Ok(Some(row.object_id)),
                // A managed identity's credentials are nobody's to handle.
                Some(row) if row.app_id.is_some() => {
                    Err(bad_request("A managed identity has no credentials that could be changed."))
                }
                _ => Err(no_such(owner)),
            },
        }
    }
}

impl Service {
    /// Give an application or a service principal another password. It is told here and never
    /// again.
    pub async fn add_password(
        &self,
        ctx: &Ctx,
        holder: Holder,
        owner: Uuid,
        input: &PasswordInput,
    ) -> Result<(PasswordInfo, Secret<String>)> {
        self.may_write_directory(ctx)?;
        let secret = password::generate().map_err(key_error)?;
        let starts = input.starts.unwrap_or(ctx.now);
        let expires = input.expires.unwrap_or_else(|| starts.plus(DEFAULT_LIFE));
        if expires <= starts || expires <= ctx.now {
            return Err(bad_request("The end of a credential must be after its beginning and in the future."));
        }
        let row = CredentialRow {
            id: Uuid::new_v4(),
            owner,
            kind: CredentialKind::Password,
            name: input.name.as_deref().map(name).transpose()?,
            value: password::hash(&secret).map_err(key_error)?,
            hint: Some(secret.expose().chars().take(HINT_CHARS).collect()),
            created: ctx.now,
            starts: Some(starts),
            expires: Some(expires),
        };
        let info =
            PasswordInfo { id: row.id, name: row.name.clone(), hint: row.hint.clone(), starts, expires: row.expires };
        self.alter(move |tx| {
            holder.principal(tx, owner)?;
            if meta::credential::of(tx, owner)?.len() >= CREDENTIALS_MAX {
                return Err(full());
            }
            Ok(meta::credential::insert(tx, &row)?)
        })
        .await?;
        Ok((info, secret))
    }

    /// Take a password away, and end the tokens got so far.
    pub async fn remove_password(&self, ctx: &Ctx, holder: Holder, owner: Uuid, id: Uuid) -> Result<()> {
        self.may_write_directory(ctx)?;
        let now = ctx.now;
        self.alter(move |tx| {
            let principal = holder.principal(tx, owner)?;
            let is_password = meta::credential::get(tx, id)?
                .is_some_and(|row| row.owner == owner && row.kind == CredentialKind::Password);
            if !is_password || !meta::credential::delete(tx, owner, id)? {
                return Err(bad_request(format!("No password credential found with keyId '{id}'.")));
            }
            match principal {
                Some(principal) => Ok(meta::principal::end_tokens(tx, principal, now)?),
                None => Ok(()),
            }
        })
        .await
    }
}

/// Make the certificates of an owner those of `wanted`; whether one went away.
pub(super) fn set_keys(tx: &mut dyn Tx, owner: Uuid, wanted: &[KeyInput], now: Timestamp) -> Result<bool> {
    let there = meta::credential::of(tx, owner)?;
    let (keys, others): (Vec<_>, Vec<_>) = there.into_iter().partition(|row| row.kind == CredentialKind::Certificate);
    if wanted.len() + others.len() > CREDENTIALS_MAX {
        return Err(full());
    }
    let mut kept = Vec::new();
    for input in wanted {
        if let Some(id) = input.id.filter(|id| keys.iter().any(|row| row.id == *id)) {
            kept.push(id);
            continue;
        }
        let Some(text) = &input.certificate else {
            return Err(bad_request("A key credential without a 'key' must be one that is there."));
        };
        let read = Certificate::read(text)
            .map_err(|why| bad_request(format!("Key credential value cannot be used: {why}.")))?;
        let starts = input.starts.unwrap_or(read.not_before).max(read.not_before);
        let expires = input.expires.unwrap_or(read.not_after).min(read.not_after);
        if expires <= now || expires <= starts {
            return Err(bad_request(
                "Key credential end date is invalid: it must be in the future and after its start.",
            ));
        }
        let row = CredentialRow {
            id: input.id.unwrap_or_else(Uuid::new_v4),
            owner,
            kind: CredentialKind::Certificate,
            name: match input.name.as_deref() {
                Some(given) => Some(name(given)?),
                None => Some(read.subject.chars().take(NAME_CHARS_MAX).collect()),
            },
            value: read.der,
            hint: None,
            created: now,
            starts: Some(starts),
            expires: Some(expires),
        };
        if meta::credential::get(tx, row.id)?.is_some() {
            return Err(bad_request(format!("A credential with keyId '{}' is there already.", row.id)));
        }
        meta::credential::insert(tx, &row)?;
        kept.push(row.id);
    }
    let mut gone = false;
    for row in keys.iter().filter(|row| !kept.contains(&row.id)) {
        gone |= meta::credential::delete(tx, owner, row.id)?;
    }
    Ok(gone)
}

fn name(text: &str) -> Result<String> {
    match text.chars().count() <= NAME_CHARS_MAX && !text.chars().any(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err(bad_request(format!("A credential's name may have {NAME_CHARS_MAX} characters."))),
    }
}

fn full() -> Error {
    Error::new(
        Kind::Invalid,
        "Request_BadRequest",
        format!("The object has {CREDENTIALS_MAX} credentials already; remove one first."),
    )
}
