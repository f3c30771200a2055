//! Passwords and certificates of applications and service principals: the same commands for
//! both.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use portolan_types::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::args::{text_or_file, time_or_day, years_from};
use crate::commands::Context;
use crate::error::{Failure, Result};
use crate::output::Output;
use crate::output::shape::object;
use crate::profile::ConfigDir;
use crate::session::Session;

/// What az says whenever it prints a secret.
pub(super) const WARNING: &str = "The output includes credentials that you must protect. Be sure that you do not include these credentials in your code or check the credentials into your source control. For more information, see https://aka.ms/azadsp-cli";

/// What kind of credential, and for how long.
#[derive(Debug, Default, Args)]
pub(super) struct New {
    /// Number of years for which the credentials will be valid; 1 when not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) years: Option<u32>,
    /// A certificate to sign in with: PEM or base64 DER text, or @FILE. Without the private key.
    #[arg(long, value_name = "PEM", value_parser = text_or_file)]
    pub(super) cert: Option<String>,
    /// Create a self-signed certificate to sign in with, in a file of yours.
    #[arg(long, conflicts_with = "cert")]
    pub(super) create_cert: bool,
    /// Key vaults are Azure's.
    #[arg(long, hide = true)]
    pub(super) keyvault: Option<String>,
}

/// `… credential …`
#[derive(Debug, Subcommand)]
pub(super) enum CredentialCommand {
    /// Make a new password or certificate; all passwords of before stop working.
    Reset {
        /// The application's or service principal's ID or name.
        #[arg(long = "id", value_name = "ID")]
        id: String,
        #[command(flatten)]
        new: New,
        /// Keep the credentials of before.
        #[arg(long)]
        append: bool,
        /// The end of the credential, where --years is too coarse.
        #[arg(long, value_name = "TIME", value_parser = time_or_day, conflicts_with = "years")]
        end_date: Option<Timestamp>,
        /// Friendly name for the credential.
        #[arg(long)]
        display_name: Option<String>,
    },
    /// List credentials, without their secrets.
    List {
        /// The application's or service principal's ID or name.
        #[arg(long = "id", value_name = "ID")]
        id: String,
        /// Certificates in place of passwords.
        #[arg(long)]
        cert: bool,
    },
    /// Delete a credential.
    Delete {
        /// The application's or service principal's ID or name.
        #[arg(long = "id", value_name = "ID")]
        id: String,
        /// The credential's key ID.
        #[arg(long)]
        key_id: String,
        /// A certificate in place of a password.
        #[arg(long)]
        cert: bool,
    },
}

impl CredentialCommand {
    /// Whose.
    pub(super) fn id(&self) -> &str {
        match self {
            CredentialCommand::Reset { id, .. }
            | CredentialCommand::List { id, .. }
            | CredentialCommand::Delete { id, .. } => id,
        }
    }
}

/// A new certificate: what the server is told, and where it is kept when it was made here.
pub(super) struct Certificate {
    pub(super) key_credential: Value,
    pub(super) file: Option<PathBuf>,
}

impl New {
    /// The certificate asked for, if one was.
    pub(super) fn certificate(
        &self,
        display_name: Option<&str>,
        end: Option<Timestamp>,
    ) -> Result<Option<Certificate>> {
        if self.keyvault.is_some() {
            return Err(Failure::new(
                "--keyvault: key vaults are a service of Azure, which is not part of this server.",
            )
            .hint("give the certificate with --cert @FILE, or have one made with --create-cert"));
        }
        let (der_base64, file) = match (&self.cert, self.create_cert) {
            (Some(text), _) => (certificate_base64(text)?, None),
            (None, true) => {
                let (der_base64, file) = make_certificate(end.unwrap_or(self.end()?))?;
                (der_base64, Some(file))
            }
            (None, false) => return Ok(None),
        };
        let mut key_credential = json!({
            "@odata.type": "#microsoft.graph.keyCredential",
            "key": der_base64,
            "keyId": Uuid::new_v4().to_string(),
            "type": "AsymmetricX509Cert",
            "usage": "Verify",
        });
        if let Some(name) = display_name {
            key_credential["displayName"] = name.into();
        }
        Ok(Some(Certificate { key_credential, file }))
    }

    /// When it ends.
    pub(super) fn end(&self) -> Result<Timestamp> {
        years_from(Timestamp::now(), self.years.unwrap_or(1))
            .ok_or_else(|| Failure::usage("--years is more than the calendar has"))
    }
}

/// The base64 text inside a certificate in PEM; what is not PEM is taken to be that text.
fn certificate_base64(text: &str) -> Result<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let inner = match text.split_once(BEGIN) {
        Some((_, rest)) => rest.split_once(END).map(|(inner, _)| inner),
        None => Some(text),
    };
    let inner: Option<String> = inner.map(|i| i.chars().filter(|c| !c.is_whitespace()).collect());
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    inner.filter(|i| !i.is_empty() && i.chars().all(is_base64)).ok_or_else(|| {
        Failure::usage("--cert is no certificate in PEM or DER").hint("a file is read with --cert @FILE")
    })
}

/// A self-signed certificate with its key in a file only its owner reads: its base64 text,
/// and the file.
fn make_certificate(end: Timestamp) -> Result<(String, PathBuf)> {
    let fail = |e: rcgen::Error| Failure::new(format!("cannot make a certificate: {e}"));
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).map_err(fail)?;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "CLI-Login");
    let day = |t: Timestamp| {
        let text = t.rfc3339();
        let mut parts = text.get(..10).unwrap_or_default().split('-').map(|p| p.parse::<i32>().unwrap_or(1));
        let (year, month, day) = (parts.next(), parts.next(), parts.next());
        let small = |n: Option<i32>| u8::try_from(n.unwrap_or(1)).unwrap_or(1);
        rcgen::date_time_ymd(year.unwrap_or(2050).min(9999), small(month), small(day))
    };
    params.not_before = day(Timestamp::now());
    params.not_after = day(end);
    let certificate = params.self_signed(&key).map_err(fail)?;
    let pem = certificate.pem();
    // Beside the profile, where it is nobody else's: az leaves it in the home folder.
    let name = format!("sp-{}.pem", Uuid::new_v4().simple());
    let file = ConfigDir::find()?.write(&name, format!("{}{pem}", key.serialize_pem()).as_bytes())?;
    Ok((certificate_base64(&pem)?, file))
}

/// What the server is told to make a password.
pub(super) fn password_body(display_name: Option<&str>, end: Timestamp) -> Value {
    let mut credential = json!({"startDateTime": Timestamp::now().rfc3339(), "endDateTime": end.rfc3339()});
    if let Some(name) = display_name {
        credential["displayName"] = name.into();
    }
    json!({"passwordCredential": credential})
}

fn credentials<'a>(of: &'a Value, kind: &str) -> &'a [Value] {
    of.get(kind).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Remove all passwords.
pub(super) async fn remove_passwords(session: &Session, path: &str, of: &Value) -> Result<()> {
    for credential in credentials(of, "passwordCredentials") {
        let body = json!({"keyId": credential.get("keyId")});
        session.graph().post(&format!("{path}/removePassword"), &body).await?;
    }
    Ok(())
}

/// `path`: the object's, such as `applications/{id}`; `tenant`: shown beside the new secret
/// of a service principal.
pub(super) async fn run(
    ctx: &Context,
    session: &Session,
    path: &str,
    tenant: Option<&str>,
    command: CredentialCommand,
) -> Result<Output> {
    let graph = session.graph();
    let of = graph.get(path).await?;
    match command {
        CredentialCommand::List { cert, .. } => {
            let kind = if cert { "keyCredentials" } else { "passwordCredentials" };
            Ok(Output::value(Value::Array(credentials(&of, kind).to_vec())))
        }
        CredentialCommand::Delete { key_id, cert: false, .. } => {
            graph.post(&format!("{path}/removePassword"), &json!({"keyId": key_id})).await?;
            Ok(Output::none())
        }
        CredentialCommand::Delete { key_id, cert: true, id } => {
            let kept: Vec<&Value> = credentials(&of, "keyCredentials")
                .iter()
                .filter(|c| c.get("keyId").and_then(Value::as_str) != Some(&key_id))
                .collect();
            if kept.len() == credentials(&of, "keyCredentials").len() {
                return Err(Failure::new(format!(
                    "No key credential found with keyId as '{key_id}' in graph object '{id}'."
                )));
            }
            graph.patch(path, &json!({"keyCredentials": kept})).await?;
            Ok(Output::none())
        }
        CredentialCommand::Reset { new, append, end_date, display_name, .. } => {
            let certificate = new.certificate(display_name.as_deref(), end_date)?;
            if !append {
                remove_passwords(session, path, &of).await?;
            }
            let (password, file) = match certificate {
                None => {
                    let end = match end_date {
                        Some(end) => end,
                        None => new.end()?,
                    };
                    let made = graph
                        .post(&format!("{path}/addPassword"), &password_body(display_name.as_deref(), end))
                        .await?;
                    (made.get("secretText").cloned().unwrap_or(Value::Null), None)
                }
                Some(certificate) => {
                    let mut all = if append { credentials(&of, "keyCredentials").to_vec() } else { Vec::new() };
                    all.push(certificate.key_credential);
                    graph.patch(path, &json!({"keyCredentials": all})).await?;
                    (Value::Null, certificate.file)
                }
            };
            let mut shown =
                object([("appId", of.get("appId").cloned().unwrap_or(Value::Null)), ("password", password)]);
            if let Some(tenant) = tenant {
                shown["tenant"] = tenant.into();
            }
            if let Some(file) = &file {
                shown["fileWithCertAndPrivateKey"] = file.display().to_string().into();
            }
            ctx.talk.warn(WARNING);
            Ok(Output::value(shown))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_in_any_form() {
        let pem = "junk\n-----BEGIN CERTIFICATE-----\nAA\nBB==\n-----END CERTIFICATE-----\n";
        assert_eq!(certificate_base64(pem).unwrap(), "AABB==");
        assert_eq!(certificate_base64("AABB").unwrap(), "AABB");
        for bad in ["", "-----BEGIN CERTIFICATE-----\nAA", "no certificate!"] {
            assert!(certificate_base64(bad).is_err(), "{bad}");
        }
    }
}
