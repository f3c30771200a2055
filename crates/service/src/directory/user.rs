//! Users: people who sign in.

use portolan_auth::password::hash_slow;
use portolan_store::meta::credential::{CredentialKind, CredentialRow};
use portolan_store::meta::principal::PrincipalRow;
use portolan_store::meta::{self, Tx};
use portolan_types::{Secret, Timestamp};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::query::{Facts, Field, Filter, Found, Page};
use super::{OBJECTS_MAX, PrincipalKind, own_id};
use super::{bad_request, display_name, merge, no_such, not_oneself, properties_read, properties_text, too_many};
use crate::keys::key_error;
use crate::service::Service;
use crate::sign_in::password::check_policy;
use crate::{Ctx, Error, Kind, Result};

/// Longest user name, in bytes.
const USER_NAME_BYTES_MAX: usize = 256;

/// What Graph may set on a user beside what has a meaning here.
const PROPERTIES: &[&str] = &[
    "businessPhones",
    "companyName",
    "department",
    "employeeId",
    "givenName",
    "jobTitle",
    "mail",
    "mailNickname",
    "mobilePhone",
    "officeLocation",
    "onPremisesImmutableId",
    "otherMails",
    "preferredLanguage",
    "surname",
    "usageLocation",
    "userType",
];

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    /// Object id.
    pub object_id: Uuid,
    /// What they sign in with.
    pub user_name: String,
    /// For people.
    pub display_name: String,
    /// Whether they may do anything.
    pub enabled: bool,
    /// What else Graph was told of them.
    pub properties: Map<String, Value>,
    /// When they were made.
    pub created: Timestamp,
}

/// What to set on a user.
#[derive(Clone, Debug, Default)]
pub struct UserInput {
    /// What they sign in with; required for a new one.
    pub user_name: Option<String>,
    /// For people; required for a new one.
    pub display_name: Option<String>,
    /// Whether they may do anything.
    pub enabled: Option<bool>,
    /// Their password. A user without one signs in at the organisation's own provider.
    pub password: Option<Secret<String>>,
    /// Members of [`PROPERTIES`]; `null` takes one away.
    pub properties: Map<String, Value>,
}

impl User {
    pub(super) fn from_row(row: PrincipalRow) -> Result<User> {
        Ok(User {
            properties: properties_read(&row.properties, row.object_id)?,
            object_id: row.object_id,
            user_name: row.user_name.unwrap_or_else(|| row.display_name.clone()),
            display_name: row.display_name,
            enabled: row.enabled,
            created: row.created,
        })
    }
}

struct Row<'a> {
    row: &'a PrincipalRow,
    properties: Map<String, Value>,
}

impl Facts for Row<'_> {
    fn field(&self, name: &str) -> Option<Field> {
        let property = |name: &str| {
            self.properties.get(name).and_then(Value::as_str).map_or(Field::Absent, |text| Field::Text(text.to_owned()))
        };
        match name {
            "id" => Some(Field::Text(self.row.object_id.to_string())),
            "userprincipalname" => Some(self.row.user_name.clone().map_or(Field::Absent, Field::Text)),
            "displayname" => Some(Field::Text(self.row.display_name.clone())),
            "accountenabled" => Some(Field::Switch(self.row.enabled)),
            "mail" => Some(property("mail")),
            "mailnickname" => Some(property("mailNickname")),
            "givenname" => Some(property("givenName")),
            "surname" => Some(property("surname")),
            _ => None,
        }
    }
}

fn is_user(row: &PrincipalRow) -> bool {
    row.kind == PrincipalKind::User.as_str()
}

fn picks(_: &mut dyn Tx, row: &PrincipalRow, filter: &Filter) -> Result<bool> {
    if !is_user(row) {
        return Ok(false);
    }
    let properties = properties_read(&row.properties, row.object_id)?;
    filter.picks(&Row { row, properties })
}

/// What somebody may sign in with: `name@domain`.
fn user_name(text: &str) -> Result<String> {
    let plain =
        |part: &str| !part.is_empty() && part.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != '/');
    let good = text.len() <= USER_NAME_BYTES_MAX
        && text.split_once('@').is_some_and(|(name, domain)| plain(name) && plain(domain) && !domain.contains('@'));
    match good {
        true => Ok(text.to_owned()),
        false => {
            Err(bad_request("Property userPrincipalName is invalid: it must be written NAME@DOMAIN, without blanks."))
        }
    }
}

fn taken() -> Error {
    Error::new(
        Kind::Invalid,
        "Request_BadRequest",
        "Another object with the same value for property userPrincipalName already exists.",
    )
}

/// Put a password in the place of the one before.
fn set_password(tx: &mut dyn Tx, owner: Uuid, hash: Vec<u8>, now: Timestamp) -> Result<()> {
    meta::credential::delete_kind(tx, owner, CredentialKind::Password)?;
    let row = CredentialRow {
        id: Uuid::new_v4(),
        owner,
        kind: CredentialKind::Password,
        name: None,
        value: hash,
        hint: None,
        created: now,
        starts: None,
        expires: None,
    };
    Ok(meta::credential::insert(tx, &row)?)
}

impl Service {
    /// Make a user.
    ///
    /// Errors: `Request_BadRequest` for a name that is taken or is none, or a password that is
    /// too weak.
    pub async fn create_user(&self, ctx: &Ctx, input: UserInput) -> Result<User> {
        self.may_write_directory(ctx)?;
        let sign_in = user_name(input.user_name.as_deref().unwrap_or_default())?;
        let name = display_name(input.display_name.as_deref().unwrap_or_default())?;
        let hash = match &input.password {
            Some(password) => Some(self.hash_password(&sign_in, password).await?),
            None => None,
        };
        let properties = merge(Map::new(), &input.properties, PROPERTIES)?;
        let row = PrincipalRow {
            object_id: Uuid::new_v4(),
            app_id: None,
            kind: PrincipalKind::User.as_str().to_owned(),
            display_name: name,
            enabled: input.enabled.unwrap_or(true),
            valid_from: Timestamp(0),
            created: ctx.now,
            user_name: Some(sign_in.clone()),
            properties: properties_text(&properties)?,
        };
        let now = ctx.now;
        self.alter(move |tx| {
            if meta::principal::by_user_name(tx, &sign_in)?.is_some() {
                return Err(taken());
            }
            if meta::principal::count(tx)? >= OBJECTS_MAX {
                return Err(too_many());
            }
            meta::principal::insert(tx, &row)?;
            if let Some(hash) = hash {
                set_password(tx, row.object_id, hash, now)?;
            }
            User::from_row(row)
        })
        .await
    }

    /// Change a user. Disabling them, or giving them another password, ends their sessions.
    pub async fn update_user(&self, ctx: &Ctx, id_or_name: &str, input: UserInput) -> Result<()> {
        self.may_write_directory(ctx)?;
        let id = self.user_id(id_or_name).await?;
        if input.enabled == Some(false) {
            not_oneself(ctx, id, "disable")?;
        }
        let name = input.display_name.as_deref().map(display_name).transpose()?;
        let sign_in = input.user_name.as_deref().map(user_name).transpose()?;
        let hash = match &input.password {
            Some(password) => {
                let known = self.snapshot.load().principals.get(&id).and_then(|s| s.user_name.clone());
                let called = sign_in.clone().or(known).unwrap_or_default();
                Some(self.hash_password(&called, password).await?)
            }
            None => None,
        };
        let now = ctx.now;
        self.alter(move |tx| {
            let mut row = user_row(tx, id)?;
            let properties = merge(properties_read(&row.properties, id)?, &input.properties, PROPERTIES)?;
            row.properties = properties_text(&properties)?;
            row.display_name = name.unwrap_or(row.display_name);
            if let Some(wanted) = sign_in {
                if meta::principal::by_user_name(tx, &wanted)?.is_some_and(|other| other.object_id != id) {
                    return Err(taken());
                }
                row.user_name = Some(wanted);
            }
            if hash.is_some() || (row.enabled && input.enabled == Some(false)) {
                row.valid_from = row.valid_from.max(now);
            }
            row.enabled = input.enabled.unwrap_or(row.enabled);
            meta::principal::update(tx, &row)?;
            match hash {
                Some(hash) => set_password(tx, id, hash, now),
                None => Ok(()),
            }
        })
        .await
    }

    /// Delete a user with their roles.
    pub async fn delete_user(&self, ctx: &Ctx, id_or_name: &str) -> Result<()> {
        self.may_write_directory(ctx)?;
        let id = self.user_id(id_or_name).await?;
        not_oneself(ctx, id, "delete")?;
        self.alter(move |tx| {
            user_row(tx, id)?;
            super::principal::remove(tx, id)
        })
        .await
    }

    /// The user with this object id or name.
    pub async fn user(&self, ctx: &Ctx, id_or_name: &str) -> Result<User> {
        let known = match Uuid::try_parse(id_or_name) {
            Ok(id) => Some(id),
            Err(_) => self.snapshot.load().user(id_or_name).map(|state| state.object_id),
        };
        self.may_read_directory(ctx, known)?;
        let id = known.ok_or_else(|| no_such(shown(id_or_name)))?;
        self.meta.read(move |tx| User::from_row(user_row(tx, id)?)).await
    }

    /// The user who asks.
    ///
    /// Errors: `BadRequest` for a caller who is no user, as Graph words it.
    pub async fn me(&self, ctx: &Ctx) -> Result<User> {
        let not_a_user = || bad_request("/me request is only valid with delegated authentication flow.");
        let id = own_id(ctx).ok_or_else(not_a_user)?;
        self.meta
            .read(move |tx| match meta::principal::get(tx, id)?.filter(is_user) {
                Some(row) => User::from_row(row),
                None => Err(not_a_user()),
            })
            .await
    }

    /// A page of the users that a filter picks.
    pub async fn users(&self, ctx: &Ctx, filter: Filter, page: Page) -> Result<Found<User>> {
        self.may_read_directory(ctx, None)?;
        self.meta
            .read(move |tx| {
                let load = |_: &mut dyn Tx, row| User::from_row(row);
                if let Some(name) = filter.text("userprincipalname") {
                    let row = meta::principal::by_user_name(tx, name)?;
                    return page.only(tx, row, &filter, picks, load);
                }
                if let Some(id) = filter.id("id") {
                    let row = meta::principal::get(tx, id)?;
                    return page.only(tx, row, &filter, picks, load);
                }
                page.scan(tx, &filter, meta::principal::page, |row| row.object_id, picks, load)
            })
            .await
    }

    /// End every session of a user: what they hold is no longer good.
    pub async fn revoke_sessions(&self, ctx: &Ctx, id_or_name: &str) -> Result<()> {
        self.may_write_directory(ctx)?;
        let (id, now) = (self.user_id(id_or_name).await?, ctx.now);
        self.alter(move |tx| {
            user_row(tx, id)?;
            Ok(meta::principal::end_tokens(tx, id, now)?)
        })
        .await
    }

    async fn user_id(&self, id_or_name: &str) -> Result<Uuid> {
        if let Ok(id) = Uuid::try_parse(id_or_name) {
            return Ok(id);
        }
        let name = id_or_name.to_owned();
        let row = self.meta.read(move |tx| meta::principal::by_user_name(tx, &name)).await?;
        row.map(|row| row.object_id).ok_or_else(|| no_such(shown(id_or_name)))
    }

    /// The hash of a password that is good enough. It takes its time: not on a thread that
    /// serves requests.
    async fn hash_password(&self, user_name: &str, password: &Secret<String>) -> Result<Vec<u8>> {
        check_policy(user_name, password)?;
        let password = password.clone();
        let hashed = self.checker.slowly(move || hash_slow(&password)).await?;
        hashed.map_err(key_error)
    }
}

fn user_row(tx: &mut dyn Tx, id: Uuid) -> Result<PrincipalRow> {
    meta::principal::get(tx, id)?.filter(is_user).ok_or_else(|| no_such(id))
}

fn shown(text: &str) -> String {
    text.chars().take(128).collect::<String>().escape_debug().to_string()
}
