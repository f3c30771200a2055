//! Federated credentials: workload identity federation.
//!
//! Whoever holds a token of that issuer, for that subject and one of those audiences, may act
//! as the application or managed identity. All three are compared as they stand, as Entra
//! does: no patterns, no case folded.

use portolan_store::meta::federated::FederatedRow;
use portolan_store::meta::{self, Tx};
use portolan_types::GroupName;
use uuid::Uuid;

use super::{FEDERATED_MAX, PrincipalKind, bad_request, no_such};
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// Longest issuer, subject and audience, in bytes (Entra: 600).
const PART_BYTES_MAX: usize = 600;
/// Audiences of one credential (Entra: 1).
const AUDIENCES_MAX: usize = 8;

/// Whose federated credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An application, by object id.
    Application(Uuid),
    /// A managed identity, by where it is.
    Identity(GroupName, String),
}

/// A federated credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederatedCredential {
    /// Its id.
    pub id: Uuid,
    /// Unique for its owner, in any case.
    pub name: String,
    /// The issuer, exactly.
    pub issuer: String,
    /// The subject, exactly.
    pub subject: String,
    /// The audiences that will do, exactly.
    pub audiences: Vec<String>,
    /// For people.
    pub description: Option<String>,
}

/// What to set on a federated credential; all but the description are required for a new one.
#[derive(Clone, Debug, Default)]
pub struct FederatedInput {
    /// The issuer.
    pub issuer: Option<String>,
    /// The subject.
    pub subject: Option<String>,
    /// The audiences.
    pub audiences: Option<Vec<String>>,
    /// For people; an inner `None` takes it away.
    pub description: Option<Option<String>>,
}

impl FederatedCredential {
    fn from_row(row: FederatedRow) -> Result<FederatedCredential> {
        let audiences = serde_json::from_str(&row.audiences)
            .map_err(|_| portolan_store::Error::Corrupt(format!("JSON of federated credential {}", row.id)))?;
        Ok(FederatedCredential {
            id: row.id,
            name: row.name,
            issuer: row.issuer,
            subject: row.subject,
            audiences,
            description: row.description,
        })
    }
}

impl Service {
    /// Make a federated credential, or change the one of that name when it is there and
    /// `replace` says so. Whether it is new.
    pub async fn put_federated(
        &self,
        ctx: &Ctx,
        owner: &Owner,
        name: &str,
        input: FederatedInput,
        replace: bool,
    ) -> Result<(FederatedCredential, bool)> {
        self.may_federate(ctx, owner, true)?;
        let (owner, name, now) = (owner.clone(), credential_name(name)?, ctx.now);
        self.alter(move |tx| {
            let owner = owner.find(tx)?;
            let there = meta::federated::find(tx, owner, &name)?.filter(|row| row.name.eq_ignore_ascii_case(&name));
            let is_new = there.is_none();
            if !is_new && !replace {
                return Err(Error::new(
                    Kind::Conflict,
                    "Request_MultipleObjectsWithSameKeyValue",
                    format!("FederatedIdentityCredential with name {name} already exists."),
                ));
            }
            let required = |what: &str| bad_request(format!("The property '{what}' is required."));
            let row = FederatedRow {
                id: there.as_ref().map_or_else(Uuid::new_v4, |row| row.id),
                owner,
                name: there.as_ref().map_or_else(|| name.clone(), |row| row.name.clone()),
                issuer: input.issuer.ok_or_else(|| required("issuer"))?,
                subject: input.subject.ok_or_else(|| required("subject"))?,
                audiences: audiences_text(&input.audiences.ok_or_else(|| required("audiences"))?)?,
                description: input.description.flatten(),
                created: there.as_ref().map_or(now, |row| row.created),
            };
            check(tx, &row)?;
            if is_new {
                if meta::federated::of(tx, owner)?.len() >= FEDERATED_MAX {
                    return Err(bad_request(format!(
                        "There may be {FEDERATED_MAX} federated credentials for one application or identity."
                    )));
                }
                meta::federated::insert(tx, &row)?;
            } else {
                meta::federated::update(tx, &row)?;
            }
            Ok((FederatedCredential::from_row(row)?, is_new))
        })
        .await
    }

    /// Change what is given of a federated credential.
    pub async fn patch_federated(
        &self,
        ctx: &Ctx,
        owner: &Owner,
        name_or_id: &str,
        input: FederatedInput,
    ) -> Result<()> {
        self.may_federate(ctx, owner, true)?;
        let (owner, wanted) = (owner.clone(), name_or_id.to_owned());
        self.alter(move |tx| {
            let owner = owner.find(tx)?;
            let mut row = meta::federated::find(tx, owner, &wanted)?.ok_or_else(|| no_such(shown(&wanted)))?;
            row.issuer = input.issuer.unwrap_or(row.issuer);
            row.subject = input.subject.unwrap_or(row.subject);
            if let Some(audiences) = &input.audiences {
                row.audiences = audiences_text(audiences)?;
            }
            row.description = input.description.unwrap_or(row.description);
            check(tx, &row)?;
            meta::federated::update(tx, &row)?;
            Ok(())
        })
        .await
    }

    /// Delete a federated credential; whether it was there. Tokens got with it end when they
    /// expire, unless the principal's are ended.
    pub async fn delete_federated(&self, ctx: &Ctx, owner: &Owner, name_or_id: &str) -> Result<bool> {
        self.may_federate(ctx, owner, true)?;
        let (owner, wanted, now) = (owner.clone(), name_or_id.to_owned(), ctx.now);
        self.alter(move |tx| {
            let principal = owner.principal(tx)?;
            let owner = owner.find(tx)?;
            let Some(row) = meta::federated::find(tx, owner, &wanted)? else { return Ok(false) };
            if let Some(principal) = principal {
                meta::principal::end_tokens(tx, principal, now)?;
            }
            Ok(meta::federated::delete(tx, owner, row.id)?)
        })
        .await
    }

    /// The federated credentials of an owner.
    pub async fn federated(&self, ctx: &Ctx, owner: &Owner) -> Result<Vec<FederatedCredential>> {
        self.may_federate(ctx, owner, false)?;
        let owner = owner.clone();
        self.meta
            .read(move |tx| {
                let owner = owner.find(tx)?;
                meta::federated::of(tx, owner)?.into_iter().map(FederatedCredential::from_row).collect()
            })
            .await
    }

    /// One federated credential, by name or id.
    pub async fn one_federated(&self, ctx: &Ctx, owner: &Owner, name_or_id: &str) -> Result<FederatedCredential> {
        self.may_federate(ctx, owner, false)?;
        let (owner, wanted) = (owner.clone(), name_or_id.to_owned());
        self.meta
            .read(move |tx| {
                let owner = owner.find(tx)?;
                let row = meta::federated::find(tx, owner, &wanted)?.ok_or_else(|| no_such(shown(&wanted)))?;
                FederatedCredential::from_row(row)
            })
            .await
    }

    fn may_federate(&self, ctx: &Ctx, owner: &Owner, write: bool) -> Result<()> {
        match (owner, write) {
            (Owner::Application(_), true) => self.may_write_directory(ctx),
            (Owner::Application(_), false) => self.may_read_directory(ctx, None),
            (Owner::Identity(group, name), write) => self.may_identity(ctx, group, name, write),
        }
    }
}

impl Owner {
    /// The object id that federated credentials hang on.
    fn find(&self, tx: &mut dyn Tx) -> Result<Uuid> {
        match self {
            Owner::Application(id) => match meta::application::get(tx, *id)? {
                Some(row) => Ok(row.object_id),
                None => Err(no_such(id)),
            },
            Owner::Identity(group, name) => match meta::managed_identity::get(tx, group, name)? {
                Some(row) => Ok(row.principal),
                None => Err(super::managed::not_found(group, name)),
            },
        }
    }

    fn principal(&self, tx: &mut dyn Tx) -> Result<Option<Uuid>> {
        match self {
            Owner::Application(id) => match meta::application::get(tx, *id)? {
                Some(row) => Ok(meta::principal::by_app(tx, row.app_id)?.map(|p| p.object_id)),
                None => Ok(None),
            },
            Owner::Identity(..) => self.find(tx).map(Some),
        }
    }
}

fn audiences_text(audiences: &[String]) -> Result<String> {
    let good = |a: &String| !a.is_empty() && a.len() <= PART_BYTES_MAX && !a.chars().any(char::is_control);
    if audiences.is_empty() || audiences.len() > AUDIENCES_MAX || !audiences.iter().all(good) {
        return Err(bad_request(format!(
            "'audiences' must hold 1 to {AUDIENCES_MAX} texts of 1 to {PART_BYTES_MAX} bytes."
        )));
    }
    serde_json::to_string(audiences).map_err(|e| bad_request(e.to_string()))
}

fn check(tx: &mut dyn Tx, row: &FederatedRow) -> Result<()> {
    let good = |text: &str| !text.is_empty() && text.len() <= PART_BYTES_MAX && !text.chars().any(char::is_control);
    let secure = row.issuer.starts_with("https://") || is_here(&row.issuer);
    if !good(&row.issuer) || !secure || row.issuer.contains(['?', '#', '@', ' ']) {
        return Err(bad_request("'issuer' must be the https address of an OpenID issuer."));
    }
    if !good(&row.subject) {
        return Err(bad_request(format!("'subject' must have 1 to {PART_BYTES_MAX} bytes.")));
    }
    if row.description.as_ref().is_some_and(|text| text.len() > PART_BYTES_MAX) {
        return Err(bad_request(format!("'description' may have {PART_BYTES_MAX} bytes.")));
    }
    let same = |other: &FederatedRow| other.id != row.id && other.issuer == row.issuer && other.subject == row.subject;
    match meta::federated::of(tx, row.owner)?.iter().any(same) {
        true => Err(bad_request("Issuer and subject combination already exists for this application or identity.")),
        false => Ok(()),
    }
}

/// `http://localhost…`: an issuer on this machine, for trying things out.
fn is_here(issuer: &str) -> bool {
    issuer.strip_prefix("http://").is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or_default();
        crate::snapshot::is_loopback(crate::snapshot::without_port(host))
    })
}

fn credential_name(text: &str) -> Result<String> {
    let good = (3..=120).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
        && text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
    match good {
        true => Ok(text.to_owned()),
        false => Err(bad_request(
            "A federated credential's name has 3 to 120 letters, digits, '-' and '_', the first a letter or digit.",
        )),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(128).collect::<String>().escape_debug().to_string()
}

/// Whether principals of this kind may have federated credentials.
pub(crate) fn may_have(kind: PrincipalKind) -> bool {
    kind != PrincipalKind::User
}
