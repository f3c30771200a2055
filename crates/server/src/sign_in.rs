//! How people sign in, as the settings have it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use portolan_api::openid::{self, OpenId};
use portolan_service::sign_in::SignInConfig;
use portolan_service::sign_in::provider::ProviderConfig;
use portolan_types::Secret;

use crate::http::identity::provider::OwnProvider;
use crate::settings::Settings;

/// Longest client secret of another provider, in bytes.
const SECRET_BYTES_MAX: usize = 4_096;

/// What the rules need to know.
///
/// Errors: settings that contradict each other, with what to change.
pub(crate) fn config(settings: &Settings) -> Result<SignInConfig> {
    let days = |n: u32| Duration::from_secs(u64::from(n) * 86_400);
    Ok(SignInConfig {
        passwords: settings.sign_in_passwords,
        device_codes: settings.sign_in_device_codes,
        refresh_idle: days(settings.sign_in_idle_days.0),
        session: days(settings.sign_in_days_max.0),
        provider: provider(settings)?,
    })
}

/// A setting's text; empty when it is not set.
fn text(setting: &Option<String>) -> &str {
    setting.as_deref().unwrap_or_default().trim()
}

fn provider(settings: &Settings) -> Result<Option<ProviderConfig>> {
    let issuer = text(&settings.openid_issuer);
    if issuer.is_empty() {
        if !text(&settings.openid_client_id).is_empty() {
            bail!("openid_client_id is set but openid_issuer is not");
        }
        return Ok(None);
    }
    if !openid::is_issuer(issuer) {
        bail!("openid_issuer is not an issuer: it must begin with https:// (or be on this machine) and have no query");
    }
    if text(&settings.openid_client_id).is_empty() {
        bail!("openid_issuer is set but openid_client_id is not");
    }
    let required = match text(&settings.openid_required_claim) {
        "" => None,
        text => match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => Some((name.to_owned(), value.to_owned())),
            _ => bail!("openid_required_claim is not NAME=VALUE"),
        },
    };
    let domains = text(&settings.openid_domains).split(',').map(|d| d.trim().trim_start_matches('@').to_lowercase());
    Ok(Some(ProviderConfig {
        issuer: issuer.to_owned(),
        name: settings.openid_name.clone(),
        user_claim: settings.openid_user_claim.clone(),
        domains: domains.filter(|d| !d.is_empty()).collect(),
        required,
        create: settings.openid_create_users,
        link: settings.openid_link_users,
        session: Duration::from_secs(u64::from(settings.openid_session_hours.0) * 3_600),
    }))
}

/// This server as a client of the organisation's provider.
///
/// Errors: a file that cannot be read.
pub(crate) fn client(settings: &Settings) -> Result<Option<OwnProvider>> {
    if text(&settings.openid_issuer).is_empty() {
        return Ok(None);
    }
    let ca_pem = match &settings.openid_ca_file {
        Some(path) => {
            Some(std::fs::read(path).with_context(|| format!("{} (setting openid_ca_file)", path.display()))?)
        }
        None => None,
    };
    Ok(Some(OwnProvider {
        openid: OpenId::new(ca_pem).map_err(|e| anyhow::anyhow!("{e} (setting openid_ca_file)"))?,
        client_id: text(&settings.openid_client_id).to_owned(),
        client_secret: settings.openid_client_secret_file.as_deref().map(secret).transpose()?,
        scopes: settings.openid_scopes.clone(),
    }))
}

fn secret(path: &Path) -> Result<Secret<String>> {
    let at = || format!("{} (setting openid_client_secret_file)", path.display());
    let text = std::fs::read_to_string(path).with_context(at)?;
    let text = text.trim();
    if text.is_empty() || text.len() > SECRET_BYTES_MAX {
        bail!("{}: it holds no secret", at());
    }
    Ok(Secret::new(text.to_owned()))
}
