//! Service principals: what applications are given roles as.

use portolan_store::meta::principal::PrincipalRow;
use portolan_store::meta::{self, Tx};
use portolan_types::{ResourceId, Timestamp};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::application::identifier_uris;
use super::credential::set_keys;
use super::query::{Facts, Field, Filter, Found, Page};
use super::{Credentials, KeyInput, OBJECTS_MAX, PrincipalKind};
use super::{bad_request, display_name, merge, no_such, not_oneself, properties_read, properties_text, too_many};
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// What Graph may set on a service principal beside what has a meaning here.
const PROPERTIES: &[&str] = &[
    "alternativeNames",
    "appRoleAssignmentRequired",
    "description",
    "homepage",
    "loginUrl",
    "logoutUrl",
    "notes",
    "notificationEmailAddresses",
    "preferredSingleSignOnMode",
    "replyUrls",
    "tags",
];

/// A service principal or managed identity.
#[derive(Clone, Debug)]
pub struct ServicePrincipal {
    /// Object id.
    pub object_id: Uuid,
    /// Its application's id.
    pub app_id: Uuid,
    /// [`PrincipalKind::ServicePrincipal`] or [`PrincipalKind::ManagedIdentity`].
    pub kind: PrincipalKind,
    /// For people.
    pub display_name: String,
    /// Whether it may do anything.
    pub enabled: bool,
    /// What else Graph was told of it.
    pub properties: Map<String, Value>,
    /// When it was made.
    pub created: Timestamp,
    /// Other names of its application.
    pub identifier_uris: Vec<String>,
    /// Its own credentials; its application has others.
    pub credentials: Credentials,
    /// Where a managed identity is.
    pub resource: Option<ResourceId>,
}

/// What to set on a service principal.
#[derive(Clone, Debug, Default)]
pub struct ServicePrincipalInput {
    /// For people; its application's name for a new one.
    pub display_name: Option<String>,
    /// Whether it may do anything.
    pub enabled: Option<bool>,
    /// Members of [`PROPERTIES`]; `null` takes one away.
    pub properties: Map<String, Value>,
    /// All the certificates it is to have.
    pub keys: Option<Vec<KeyInput>>,
}

impl ServicePrincipal {
    pub(super) fn load(tx: &mut dyn Tx, row: PrincipalRow, subscription: &Uuid) -> Result<ServicePrincipal> {
        let kind = PrincipalKind::parse(&row.kind).unwrap_or(PrincipalKind::ServicePrincipal);
        let app_id = row.app_id.ok_or_else(|| {
            portolan_store::Error::Corrupt(format!("service principal {} has no application id", row.object_id))
        })?;
        let resource = match kind {
            PrincipalKind::ManagedIdentity => meta::managed_identity::of(tx, row.object_id)?
                .map(|i| super::managed::resource_id(subscription, i.group.as_str(), &i.name)),
            _ => None,
        };
        // What a managed identity's endpoint is asked with is no credential of its.
        let credentials = match kind {
            PrincipalKind::ManagedIdentity => Credentials::default(),
            _ => Credentials::load(tx, row.object_id)?,
        };
        Ok(ServicePrincipal {
            identifier_uris: uris(tx, app_id)?,
            credentials,
            properties: properties_read(&row.properties, row.object_id)?,
            object_id: row.object_id,
            app_id,
            kind,
            display_name: row.display_name,
            enabled: row.enabled,
            created: row.created,
            resource,
        })
    }
}

fn uris(tx: &mut dyn Tx, app_id: Uuid) -> Result<Vec<String>> {
    match meta::application::by_app(tx, app_id)? {
        Some(row) => Ok(identifier_uris(&properties_read(&row.properties, row.object_id)?)),
        None => Ok(Vec::new()),
    }
}

struct Row<'a> {
    row: &'a PrincipalRow,
    names: Vec<String>,
}

impl Facts for Row<'_> {
    fn field(&self, name: &str) -> Option<Field> {
        match name {
            "id" => Some(Field::Text(self.row.object_id.to_string())),
            "appid" => Some(self.row.app_id.map_or(Field::Absent, |id| Field::Text(id.to_string()))),
            "displayname" | "appdisplayname" => Some(Field::Text(self.row.display_name.clone())),
            "accountenabled" => Some(Field::Switch(self.row.enabled)),
            "serviceprincipalnames" => Some(Field::Texts(self.names.clone())),
            "serviceprincipaltype" => Some(Field::Text(type_word(&self.row.kind).to_owned())),
            _ => None,
        }
    }
}

fn type_word(kind: &str) -> &'static str {
    if kind == "ManagedIdentity" { "ManagedIdentity" } else { "Application" }
}

fn picks(tx: &mut dyn Tx, row: &PrincipalRow, filter: &Filter) -> Result<bool> {
    let Some(app_id) = row.app_id else { return Ok(false) };
    let mut names = vec![app_id.to_string()];
    if filter.text("serviceprincipalnames").is_some() {
        names.extend(uris(tx, app_id)?);
    }
    filter.picks(&Row { row, names })
}

/// Remove a principal with its credentials and its roles.
pub(super) fn remove(tx: &mut dyn Tx, id: Uuid) -> Result<()> {
    meta::credential::delete_all(tx, id)?;
    meta::federated::delete_all(tx, id)?;
    meta::principal::delete_assignments(tx, id)?;
    meta::registry_identity::forget(tx, id)?;
    meta::principal::delete(tx, id)?;
    Ok(())
}

impl Service {
    /// Make the service principal of an application.
    ///
    /// Errors: `Request_MultipleObjectsWithSameKeyValue` when it has one.
    pub async fn create_service_principal(
        &self,
        ctx: &Ctx,
        app_id: Uuid,
        input: ServicePrincipalInput,
    ) -> Result<ServicePrincipal> {
        self.may_write_directory(ctx)?;
        let name = input.display_name.as_deref().map(display_name).transpose()?;
        let properties = merge(Map::new(), &input.properties, PROPERTIES)?;
        let (now, subscription) = (ctx.now, self.subscription_id());
        self.alter(move |tx| {
            let application = meta::application::by_app(tx, app_id)?.ok_or_else(|| {
                bad_request(format!(
                    "The appId '{app_id}' of the service principal does not reference a valid application object."
                ))
            })?;
            if meta::principal::by_app(tx, app_id)?.is_some() {
                return Err(Error::new(
                    Kind::Conflict,
                    "Request_MultipleObjectsWithSameKeyValue",
                    format!(
                        "The service principal cannot be created, updated, or restored because the service principal \
                         name {app_id} is already in use."
                    ),
                ));
            }
            if meta::principal::count(tx)? >= OBJECTS_MAX {
                return Err(too_many());
            }
            let row = PrincipalRow {
                object_id: Uuid::new_v4(),
                app_id: Some(app_id),
                kind: PrincipalKind::ServicePrincipal.as_str().to_owned(),
                display_name: name.unwrap_or(application.display_name),
                enabled: input.enabled.unwrap_or(true),
                valid_from: Timestamp(0),
                created: now,
                user_name: None,
                properties: properties_text(&properties)?,
            };
            meta::principal::insert(tx, &row)?;
            if let Some(keys) = &input.keys {
                set_keys(tx, row.object_id, keys, now)?;
            }
            ServicePrincipal::load(tx, row, &subscription)
        })
        .await
    }

    /// Change a service principal. Disabling it, or taking a certificate away, ends the tokens
    /// it got so far.
    pub async fn update_service_principal(&self, ctx: &Ctx, id: Uuid, input: ServicePrincipalInput) -> Result<()> {
        self.may_write_directory(ctx)?;
        let name = input.display_name.as_deref().map(display_name).transpose()?;
        if input.enabled == Some(false) {
            not_oneself(ctx, id, "disable")?;
        }
        let now = ctx.now;
        self.alter(move |tx| {
            let mut row = service_principal_row(tx, id)?;
            if row.kind == PrincipalKind::ManagedIdentity.as_str() && (name.is_some() || input.keys.is_some()) {
                return Err(bad_request(
                    "The name and the credentials of a managed identity are not Graph's to change.",
                ));
            }
            let properties = merge(properties_read(&row.properties, id)?, &input.properties, PROPERTIES)?;
            row.properties = properties_text(&properties)?;
            row.display_name = name.unwrap_or(row.display_name);
            let gone = match &input.keys {
                Some(keys) => set_keys(tx, id, keys, now)?,
                None => false,
            };
            if gone || (row.enabled && input.enabled == Some(false)) {
                row.valid_from = row.valid_from.max(now);
            }
            row.enabled = input.enabled.unwrap_or(row.enabled);
            meta::principal::update(tx, &row)?;
            Ok(())
        })
        .await
    }

    /// Delete a service principal with its roles and its own credentials. Its application
    /// stays.
    pub async fn delete_service_principal(&self, ctx: &Ctx, id: Uuid) -> Result<()> {
        self.may_write_directory(ctx)?;
        not_oneself(ctx, id, "delete")?;
        self.alter(move |tx| {
            let row = service_principal_row(tx, id)?;
            if row.kind == PrincipalKind::ManagedIdentity.as_str() {
                return Err(bad_request("A managed identity is deleted where it is: as a resource of its group."));
            }
            remove(tx, id)
        })
        .await
    }

    /// The service principal with this object id.
    pub async fn service_principal(&self, ctx: &Ctx, id: Uuid) -> Result<ServicePrincipal> {
        self.may_read_directory(ctx, Some(id))?;
        let subscription = self.subscription_id();
        self.meta
            .read(move |tx| {
                let row = service_principal_row(tx, id)?;
                ServicePrincipal::load(tx, row, &subscription)
            })
            .await
    }

    /// The service principal of an application.
    pub async fn service_principal_by_app_id(&self, ctx: &Ctx, app_id: Uuid) -> Result<ServicePrincipal> {
        let own = self.snapshot.load().application(app_id).map(|state| state.object_id);
        self.may_read_directory(ctx, own)?;
        let subscription = self.subscription_id();
        self.meta
            .read(move |tx| {
                let row = meta::principal::by_app(tx, app_id)?.ok_or_else(|| no_such(app_id))?;
                ServicePrincipal::load(tx, row, &subscription)
            })
            .await
    }

    /// A page of the service principals that a filter picks.
    pub async fn service_principals(&self, ctx: &Ctx, filter: Filter, page: Page) -> Result<Found<ServicePrincipal>> {
        let app_id = filter.id("appid").or_else(|| filter.id("serviceprincipalnames"));
        let own = {
            let snapshot = self.snapshot.load();
            app_id.and_then(|id| snapshot.application(id)).map(|state| state.object_id)
        };
        self.may_read_directory(ctx, own)?;
        let subscription = self.subscription_id();
        self.meta
            .read(move |tx| {
                let load = |tx: &mut dyn Tx, row| ServicePrincipal::load(tx, row, &subscription);
                if let Some(app_id) = app_id {
                    let row = meta::principal::by_app(tx, app_id)?;
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
}

fn service_principal_row(tx: &mut dyn Tx, id: Uuid) -> Result<PrincipalRow> {
    meta::principal::get(tx, id)?.filter(|row| row.app_id.is_some()).ok_or_else(|| no_such(id))
}
