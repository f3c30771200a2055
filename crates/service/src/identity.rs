//! The tenant, its first owner, and how callers prove who they are.

use portolan_auth::access::{OWNER, Principal};
use portolan_auth::password;
use portolan_auth::token::TokenError;
use portolan_store::meta::application::ApplicationRow;
use portolan_store::meta::credential::{CredentialKind, CredentialRow};
use portolan_store::meta::principal::PrincipalRow;
use portolan_store::meta::role::AssignmentRow;
use portolan_store::meta::{self, Meta, Tx};
use portolan_types::{ResourceId, Secret, Timestamp};
use uuid::Uuid;

use crate::directory::PrincipalKind;
use crate::keys::key_error;
use crate::service::Service;
use crate::snapshot::{PrincipalState, SUBSCRIPTION, Snapshot, TENANT, is_loopback, without_port};
use crate::{Error, Kind, Result};

/// The audience of registry sign-in, as public clients name it.
pub const REGISTRY_AUDIENCE: &str = "https://containerregistry.azure.net";
/// Audiences under which clients that know only Azure's public names ask for ARM.
const ARM_AUDIENCES: [&str; 2] = ["https://management.azure.com", "https://management.core.windows.net"];
/// The same for Graph: its address, and its application id.
const GRAPH_AUDIENCES: [&str; 2] = ["https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000"];

/// What the first start makes: the values that `bootstrap.json` hands to the owner.
///
/// The order that survives a crash at any point: [`Bootstrap::generate`], write the file,
/// then [`Service::adopt_bootstrap`]; a start that finds the file and no tenant adopts the
/// file's values.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// The directory.
    pub tenant_id: Uuid,
    /// The one subscription.
    pub subscription_id: Uuid,
    /// Application id of the owner service principal.
    pub client_id: Uuid,
    /// Its secret; stored as a hash only.
    pub client_secret: Secret<String>,
}

impl Bootstrap {
    /// New random values.
    pub fn generate() -> Result<Bootstrap> {
        Ok(Bootstrap {
            tenant_id: Uuid::new_v4(),
            subscription_id: Uuid::new_v4(),
            client_id: Uuid::new_v4(),
            client_secret: password::generate().map_err(key_error)?,
        })
    }
}

impl Service {
    /// Whether nobody owns this store yet: [`Service::adopt_bootstrap`] has not been called.
    pub fn needs_bootstrap(&self) -> bool {
        self.tenant_id().is_nil()
    }

    /// Make the tenant, the subscription and the owner service principal, once. Doing it
    /// again with the same values changes nothing.
    ///
    /// Errors: `Conflict` when the store belongs to another tenant.
    pub async fn adopt_bootstrap(&self, bootstrap: &Bootstrap, now: Timestamp) -> Result<()> {
        let b = bootstrap.clone();
        let hash = password::hash(&b.client_secret).map_err(key_error)?;
        self.alter(move |tx| {
            match meta::setting::get(tx, TENANT)? {
                Some(tenant) if tenant == b.tenant_id.to_string() => return Ok(()),
                Some(_) => {
                    return Err(Error::new(
                        Kind::Conflict,
                        "TenantExists",
                        "the data folder already belongs to another tenant",
                    ));
                }
                None => {}
            }
            meta::setting::put(tx, TENANT, &b.tenant_id.to_string())?;
            meta::setting::put(tx, SUBSCRIPTION, &b.subscription_id.to_string())?;
            insert_owner(tx, &b, "portolan-owner", hash, now)
        })
        .await
    }

    /// The authority (host and port) to build URLs from: the one the client named, when it
    /// is one of ours, else the configured one.
    pub fn authority_for<'a>(&'a self, host: Option<&'a str>) -> &'a str {
        match host {
            Some(host) if self.is_own_host(host) => host,
            _ => &self.config.public_authority,
        }
    }

    /// Whether clients reach this server under `host` (with or without port).
    pub fn is_own_host(&self, host: &str) -> bool {
        let bare = without_port(host);
        let plain = bare.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_:[]".contains(&c));
        plain
            && (is_loopback(bare)
                || bare.eq_ignore_ascii_case(without_port(&self.config.public_authority))
                || self.config.other_authorities.iter().any(|a| bare.eq_ignore_ascii_case(without_port(a)))
                || self.config.domain.as_deref().is_some_and(|domain| below(bare, domain.trim_matches('.')))
                || self.snapshot.load().registry_at(host).is_some())
    }

    /// Whether a directory token for `audience` is meant for the control plane here.
    pub fn is_control_audience(&self, audience: &str) -> bool {
        let audience = audience.trim_end_matches('/');
        ARM_AUDIENCES.iter().any(|a| a.eq_ignore_ascii_case(audience)) || self.is_own_audience(audience)
    }

    /// Whether a directory token for `audience` is meant for Graph here: for this server, or
    /// under Azure's public name.
    pub fn is_graph_audience(&self, audience: &str) -> bool {
        let audience = audience.trim_end_matches('/');
        GRAPH_AUDIENCES.iter().any(|a| a.eq_ignore_ascii_case(audience)) || self.is_own_audience(audience)
    }

    /// Whether an audience is this server's own address.
    fn is_own_audience(&self, audience: &str) -> bool {
        ["https://", "http://"]
            .iter()
            .filter_map(|scheme| audience.strip_prefix(scheme))
            .any(|host| !host.contains('/') && self.is_own_host(host))
    }

    /// Whether a directory token for `audience` is meant for registry sign-in.
    pub fn is_registry_audience(&self, audience: &str) -> bool {
        audience.trim_end_matches('/').eq_ignore_ascii_case(REGISTRY_AUDIENCE)
    }

    /// The caller of the control plane, by a directory token.
    pub fn control_plane_bearer(&self, token: &str, now: Timestamp) -> Result<Principal> {
        self.directory_bearer(token, |a| self.is_control_audience(a), now)
    }

    /// The caller of Graph, by a directory token.
    pub fn graph_bearer(&self, token: &str, now: Timestamp) -> Result<Principal> {
        self.directory_bearer(token, |a| self.is_graph_audience(a), now)
    }

    fn directory_bearer(&self, token: &str, accepts: impl FnOnce(&str) -> bool, now: Timestamp) -> Result<Principal> {
        let refused = |code, message: &str| Error::new(Kind::Unauthenticated, code, message);
        let token = self.authority.verify_directory(token, accepts, now).map_err(|e| match e {
            TokenError::Expired => refused(
                "ExpiredAuthenticationToken",
                "The access token expiry UTC time is earlier than current UTC time.",
            ),
            TokenError::Audience => refused(
                "InvalidAuthenticationTokenAudience",
                "The access token has been obtained for wrong audience or resource.",
            ),
            _ => refused("InvalidAuthenticationToken", "The access token is invalid."),
        })?;
        let snapshot = self.snapshot.load();
        if token.tenant != snapshot.tenant {
            return Err(refused("InvalidAuthenticationTokenTenant", "The access token is from the wrong issuer."));
        }
        match live(&snapshot, token.object_id, token.issued) {
            Some(_) => Ok(Principal::Directory { object_id: token.object_id, app_id: token.app_id }),
            None => Err(refused("InvalidAuthenticationToken", "The access token is no longer valid.")),
        }
    }

    /// The enabled service principal whose secret this is: object id and application id.
    pub(crate) fn check_secret(&self, app_id: Uuid, secret: &str, now: Timestamp) -> Option<(Uuid, Option<Uuid>)> {
        self.check_client(app_id, secret, now).ok()
    }

    /// The same, or why not. Compares as often for an application that is not there, so that
    /// the time of the answer does not tell whether it is; and only who has the secret is told
    /// that it has expired or that the application is disabled.
    pub(crate) fn check_client(
        &self,
        app_id: Uuid,
        secret: &str,
        now: Timestamp,
    ) -> Result<(Uuid, Option<Uuid>), NotThisClient> {
        let snapshot = self.snapshot.load();
        // What a managed identity's endpoint is asked with is no secret of an application.
        let state = snapshot.application(app_id).filter(|state| state.kind == PrincipalKind::ServicePrincipal);
        let secrets = state.map_or(&[][..], |state| &state.secrets);
        let found = password::verify_any(secrets.iter().map(|s| &s.hash[..]), secret);
        match (state, found.map(|at| secrets[at].is_good(now))) {
            (Some(state), Some(true)) if state.enabled => Ok((state.object_id, state.app_id)),
            (Some(_), Some(true)) => Err(NotThisClient::Disabled),
            (Some(_), Some(false)) => Err(NotThisClient::Expired),
            _ => Err(NotThisClient::Unknown),
        }
    }

    /// Whether the principal may act on tokens issued to it at that time.
    pub(crate) fn welcome(&self, object_id: Uuid, issued: Timestamp) -> bool {
        live(&self.snapshot.load(), object_id, issued).is_some()
    }
}

/// Why somebody is not the client they say they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotThisClient {
    /// There is no such application, or this is not a secret of its.
    Unknown,
    /// This secret is no longer good, or not yet.
    Expired,
    /// The application may not sign in.
    Disabled,
}

/// Make one more owner of a database that has a tenant: for when nobody has the secret of one
/// any more. No server may be running on it: what servers hold in memory is not told.
///
/// Errors: `NoTenant` when the first start has not been.
pub async fn recover_owner(meta: &Meta, now: Timestamp) -> Result<Bootstrap> {
    let fresh = Bootstrap::generate()?;
    let hash = password::hash(&fresh.client_secret).map_err(key_error)?;
    meta.write(move |tx| {
        let id = |text: Option<String>| text.and_then(|t| Uuid::try_parse(&t).ok());
        let (tenant, subscription) = (meta::setting::get(tx, TENANT)?, meta::setting::get(tx, SUBSCRIPTION)?);
        let (Some(tenant_id), Some(subscription_id)) = (id(tenant), id(subscription)) else {
            return Err(Error::new(Kind::NotFound, "NoTenant", "nobody owned this store yet: start the server on it"));
        };
        let owner = Bootstrap { tenant_id, subscription_id, ..fresh };
        insert_owner(tx, &owner, "portolan-owner (recovered)", hash, now)?;
        Ok(owner)
    })
    .await
}

/// The rows of an owner: application, service principal, secret, role.
fn insert_owner(tx: &mut dyn Tx, b: &Bootstrap, name: &str, hash: Vec<u8>, now: Timestamp) -> Result<()> {
    let owner = PrincipalRow {
        object_id: Uuid::new_v4(),
        app_id: Some(b.client_id),
        kind: "ServicePrincipal".to_owned(),
        display_name: name.to_owned(),
        enabled: true,
        valid_from: Timestamp(0),
        created: now,
        user_name: None,
        properties: "{}".to_owned(),
    };
    meta::principal::insert(tx, &owner)?;
    let application = ApplicationRow {
        object_id: Uuid::new_v4(),
        app_id: b.client_id,
        display_name: owner.display_name.clone(),
        properties: "{}".to_owned(),
        created: now,
    };
    meta::application::insert(tx, &application)?;
    let secret = CredentialRow {
        id: Uuid::new_v4(),
        owner: owner.object_id,
        kind: CredentialKind::Password,
        name: Some("bootstrap".to_owned()),
        value: hash,
        hint: None,
        created: now,
        starts: None,
        expires: None,
    };
    meta::credential::insert(tx, &secret)?;
    let role = AssignmentRow {
        id: Uuid::new_v4(),
        scope: ResourceId::subscription(&b.subscription_id),
        principal: owner.object_id,
        role: OWNER,
        description: None,
        condition: None,
        created: now,
        created_by: None,
        updated: now,
        updated_by: None,
    };
    Ok(meta::role::insert(tx, &role)?)
}

/// The principal, if tokens issued to it at that time are good.
pub(crate) fn live(snapshot: &Snapshot, object_id: Uuid, issued: Timestamp) -> Option<&PrincipalState> {
    snapshot.principals.get(&object_id).filter(|p| p.enabled && p.valid_from <= issued)
}

/// Whether `host` is `domain` or a name below it.
pub(crate) fn below(host: &str, domain: &str) -> bool {
    let (host, domain) = (host.to_ascii_lowercase(), domain.to_ascii_lowercase());
    host.strip_suffix(&domain).is_some_and(|front| front.is_empty() || front.ends_with('.'))
}
