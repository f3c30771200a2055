//! Applications: what a program is called, and what it proves who it is with.

use portolan_store::meta::application::ApplicationRow;
use portolan_store::meta::{self, Tx};
use portolan_types::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::credential::set_keys;
use super::query::{Facts, Field, Filter, Found, Page};
use super::{Credentials, KeyInput, OBJECTS_MAX};
use super::{bad_request, display_name, merge, no_such, not_oneself, properties_read, properties_text, too_many};
use crate::service::Service;
use crate::{Ctx, Result};

/// What Graph may set on an application beside its name and credentials: kept, returned, and
/// without effect here but for `identifierUris`, by which it can be found, and redirect
/// addresses, to which a browser may be sent back.
const PROPERTIES: &[&str] = &[
    "api",
    "appRoles",
    "description",
    "groupMembershipClaims",
    "identifierUris",
    "info",
    "isDeviceOnlyAuthSupported",
    "isFallbackPublicClient",
    "notes",
    "optionalClaims",
    "parentalControlSettings",
    "publicClient",
    "requiredResourceAccess",
    "serviceManagementReference",
    "signInAudience",
    "spa",
    "tags",
    "web",
];

/// An application.
#[derive(Clone, Debug)]
pub struct Application {
    /// Object id: not that of its service principal.
    pub object_id: Uuid,
    /// What clients name it by.
    pub app_id: Uuid,
    /// For people.
    pub display_name: String,
    /// What else Graph was told of it.
    pub properties: Map<String, Value>,
    /// When it was made.
    pub created: Timestamp,
    /// What it proves who it is with.
    pub credentials: Credentials,
}

/// What to set on an application.
#[derive(Clone, Debug, Default)]
pub struct ApplicationInput {
    /// For people; required for a new one.
    pub display_name: Option<String>,
    /// Members of [`PROPERTIES`]; `null` takes one away.
    pub properties: Map<String, Value>,
    /// All the certificates it is to have.
    pub keys: Option<Vec<KeyInput>>,
}

impl Application {
    fn load(tx: &mut dyn Tx, row: ApplicationRow) -> Result<Application> {
        Ok(Application {
            properties: properties_read(&row.properties, row.object_id)?,
            credentials: Credentials::load(tx, row.object_id)?,
            object_id: row.object_id,
            app_id: row.app_id,
            display_name: row.display_name,
            created: row.created,
        })
    }

    /// The names by which it can be found beside its ids.
    pub fn identifier_uris(&self) -> Vec<String> {
        identifier_uris(&self.properties)
    }
}

pub(super) fn identifier_uris(properties: &Map<String, Value>) -> Vec<String> {
    let uris = properties.get("identifierUris").and_then(Value::as_array);
    uris.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What a filter looks at.
struct Row<'a> {
    row: &'a ApplicationRow,
    properties: Map<String, Value>,
}

impl Facts for Row<'_> {
    fn field(&self, name: &str) -> Option<Field> {
        match name {
            "id" => Some(Field::Text(self.row.object_id.to_string())),
            "appid" => Some(Field::Text(self.row.app_id.to_string())),
            "displayname" => Some(Field::Text(self.row.display_name.clone())),
            "identifieruris" => Some(Field::Texts(identifier_uris(&self.properties))),
            "signinaudience" => Some(Field::Text(audience(&self.properties))),
            _ => None,
        }
    }
}

fn audience(properties: &Map<String, Value>) -> String {
    properties.get("signInAudience").and_then(Value::as_str).unwrap_or("AzureADMyOrg").to_owned()
}

impl Service {
    /// Make an application. It has no service principal yet.
    pub async fn create_application(&self, ctx: &Ctx, input: ApplicationInput) -> Result<Application> {
        self.may_write_directory(ctx)?;
        let name = display_name(input.display_name.as_deref().unwrap_or_default())?;
        let properties = merge(Map::new(), &input.properties, PROPERTIES)?;
        let row = ApplicationRow {
            object_id: Uuid::new_v4(),
            app_id: Uuid::new_v4(),
            display_name: name,
            properties: properties_text(&properties)?,
            created: ctx.now,
        };
        let now = ctx.now;
        self.alter(move |tx| {
            if meta::application::count(tx)? >= OBJECTS_MAX {
                return Err(too_many());
            }
            uris_are_free(tx, &properties, None)?;
            meta::application::insert(tx, &row)?;
            if let Some(keys) = &input.keys {
                set_keys(tx, row.object_id, keys, now)?;
            }
            Application::load(tx, row)
        })
        .await
    }

    /// Change an application. Taking a certificate away ends the tokens got so far.
    pub async fn update_application(&self, ctx: &Ctx, id: Uuid, input: ApplicationInput) -> Result<()> {
        self.may_write_directory(ctx)?;
        let name = input.display_name.as_deref().map(display_name).transpose()?;
        let now = ctx.now;
        self.alter(move |tx| {
            let mut row = meta::application::get(tx, id)?.ok_or_else(|| no_such(id))?;
            let properties = merge(properties_read(&row.properties, id)?, &input.properties, PROPERTIES)?;
            uris_are_free(tx, &properties, Some(id))?;
            row.properties = properties_text(&properties)?;
            let principal = meta::principal::by_app(tx, row.app_id)?;
            if let Some(name) = name {
                // Its service principal is called the same as long as it was.
                if let Some(mut principal) = principal.clone().filter(|p| p.display_name == row.display_name) {
                    principal.display_name.clone_from(&name);
                    meta::principal::update(tx, &principal)?;
                }
                row.display_name = name;
            }
            meta::application::update(tx, &row)?;
            let gone = match &input.keys {
                Some(keys) => set_keys(tx, id, keys, now)?,
                None => false,
            };
            if let Some(principal) = principal.filter(|_| gone) {
                meta::principal::end_tokens(tx, principal.object_id, now)?;
            }
            Ok(())
        })
        .await
    }

    /// Delete an application, its service principal and what they hold.
    pub async fn delete_application(&self, ctx: &Ctx, id: Uuid) -> Result<()> {
        self.may_write_directory(ctx)?;
        let ctx = ctx.clone();
        self.alter(move |tx| {
            let row = meta::application::get(tx, id)?.ok_or_else(|| no_such(id))?;
            if let Some(principal) = meta::principal::by_app(tx, row.app_id)? {
                not_oneself(&ctx, principal.object_id, "delete")?;
                super::principal::remove(tx, principal.object_id)?;
            }
            meta::credential::delete_all(tx, id)?;
            meta::federated::delete_all(tx, id)?;
            meta::application::delete(tx, id)?;
            Ok(())
        })
        .await
    }

    /// The application with this object id.
    pub async fn application(&self, ctx: &Ctx, id: Uuid) -> Result<Application> {
        self.may_read_directory(ctx, None)?;
        self.meta
            .read(move |tx| {
                let row = meta::application::get(tx, id)?.ok_or_else(|| no_such(id))?;
                Application::load(tx, row)
            })
            .await
    }

    /// The application with this application id.
    pub async fn application_by_app_id(&self, ctx: &Ctx, app_id: Uuid) -> Result<Application> {
        self.may_read_directory(ctx, None)?;
        self.meta
            .read(move |tx| {
                let row = meta::application::by_app(tx, app_id)?.ok_or_else(|| no_such(app_id))?;
                Application::load(tx, row)
            })
            .await
    }

    /// A page of the applications that a filter picks.
    pub async fn applications(&self, ctx: &Ctx, filter: Filter, page: Page) -> Result<Found<Application>> {
        self.may_read_directory(ctx, None)?;
        self.meta
            .read(move |tx| {
                if let Some(app_id) = filter.id("appid") {
                    let row = meta::application::by_app(tx, app_id)?;
                    return page.only(tx, row, &filter, picks, Application::load);
                }
                if let Some(id) = filter.id("id") {
                    let row = meta::application::get(tx, id)?;
                    return page.only(tx, row, &filter, picks, Application::load);
                }
                page.scan(tx, &filter, meta::application::page, |row| row.object_id, picks, Application::load)
            })
            .await
    }
}

fn picks(_: &mut dyn Tx, row: &ApplicationRow, filter: &Filter) -> Result<bool> {
    let properties = properties_read(&row.properties, row.object_id)?;
    filter.picks(&Row { row, properties })
}

/// Two applications must not be found by the same name.
fn uris_are_free(tx: &mut dyn Tx, properties: &Map<String, Value>, own: Option<Uuid>) -> Result<()> {
    let wanted = identifier_uris(properties);
    if properties.contains_key("identifierUris") && !properties["identifierUris"].is_array() {
        return Err(bad_request("Invalid value specified for property 'identifierUris'."));
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let mut after = String::new();
    loop {
        let rows = meta::application::page(tx, &after, super::query::STEP)?;
        for row in &rows {
            after = row.object_id.to_string();
            let taken = Some(row.object_id) != own
                && identifier_uris(&properties_read(&row.properties, row.object_id)?)
                    .iter()
                    .any(|u| wanted.contains(u));
            if taken {
                return Err(bad_request(
                    "Another object with the same value for property identifierUris already exists.",
                ));
            }
        }
        if rows.len() < super::query::STEP {
            return Ok(());
        }
    }
}
