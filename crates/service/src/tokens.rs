//! Issuing directory tokens for a secret; [`crate::registry_auth`] has those of registries.
//! Nothing here writes: a token request costs no disk.

use portolan_auth::authority::{Issued, NewDirectoryToken};
use portolan_types::Timestamp;
use uuid::Uuid;

use crate::identity::NotThisClient;
use crate::keys::key_error;
use crate::service::Service;
use crate::{Error, Kind, Result};

impl Service {
    /// A directory token for a service principal that shows one of its secrets. `base` is
    /// `https://host[:port]` as the client knows this server, `resource` what the token is
    /// to be for.
    ///
    /// Errors: `invalid_client` with Entra's wording when the id or the secret is wrong;
    /// `invalid_request` for a tenant that is not ours.
    pub fn client_token(
        &self,
        base: &str,
        client_id: &str,
        secret: &str,
        resource: &str,
        now: Timestamp,
    ) -> Result<Issued> {
        // What is no id is nobody's, and is compared as long.
        let found = self.check_client(Uuid::try_parse(client_id).unwrap_or_default(), secret, now);
        let (object_id, app_id) = found.map_err(|why| {
            let message = match why {
                NotThisClient::Unknown => {
                    "AADSTS7000215: Invalid client secret provided, or the application was not found in the directory \
                     (AADSTS700016). Ensure the secret being sent in the request is the client secret value, not the \
                     client secret ID."
                }
                NotThisClient::Expired => {
                    "AADSTS7000222: The provided client secret keys are expired. Create new keys for your application."
                }
                NotThisClient::Disabled => "AADSTS7000112: The application is disabled.",
            };
            Error::new(Kind::Unauthenticated, "invalid_client", message)
        })?;
        self.application_token(base, object_id, app_id, resource, now)
    }

    /// A directory token for an application that has proved who it is.
    pub(crate) fn application_token(
        &self,
        base: &str,
        object_id: Uuid,
        app_id: Option<Uuid>,
        resource: &str,
        now: Timestamp,
    ) -> Result<Issued> {
        let tenant = self.tenant_id();
        let new = NewDirectoryToken {
            issuer: &format!("{base}/{tenant}/v2.0"),
            audience: resource,
            tenant,
            object_id,
            app_id,
            lifetime: self.config.directory_token_lifetime,
        };
        self.authority.issue_directory(&new, now).map_err(key_error)
    }
}
