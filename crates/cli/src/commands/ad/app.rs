//! `portolan ad app …`: applications, and the outside issuers whose tokens they take.

use clap::{Args, Subcommand};
use portolan_api::graph::quoted;
use portolan_api::transport::segment;
use portolan_types::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::credential::{self, CredentialCommand};
use super::{Listing, by_name, find};
use crate::args::{Change, json_or_file, text_or_file, three_state, time_or_day};
use crate::commands::Context;
use crate::error::Result;
use crate::output::Output;
use crate::session::Session;

/// `portolan ad app …`
#[derive(Debug, Subcommand)]
pub(super) enum AppCommand {
    /// Create an application.
    Create(Box<AppArgs>),
    /// List applications.
    List {
        /// Application ID.
        #[arg(long)]
        app_id: Option<String>,
        /// Identifier URI.
        #[arg(long)]
        identifier_uri: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show an application.
    Show(Id),
    /// Change an application.
    Update {
        #[command(flatten)]
        id: Id,
        #[command(flatten)]
        app: Box<Members>,
        /// The display name of the application.
        #[arg(long)]
        display_name: Option<String>,
        #[command(flatten)]
        change: Change,
    },
    /// Delete an application, and its service principal with it.
    Delete(Id),
    /// Manage its passwords and certificates.
    #[command(subcommand)]
    Credential(CredentialCommand),
    /// Manage the outside issuers' tokens that it takes in place of a password.
    #[command(subcommand)]
    FederatedCredential(FederatedCommand),
}

/// An application.
#[derive(Debug, Args)]
pub(super) struct Id {
    /// Identifier URI, application ID, or object ID.
    #[arg(long = "id", value_name = "ID")]
    id: String,
}

/// `portolan ad app create`
#[derive(Debug, Args)]
pub(super) struct AppArgs {
    /// The display name of the application.
    #[arg(long)]
    display_name: String,
    #[command(flatten)]
    members: Members,
}

/// What can be said of an application.
#[derive(Debug, Args)]
pub(super) struct Members {
    /// Space-separated URIs that the application is known by.
    #[arg(long, num_args = 1..)]
    identifier_uris: Option<Vec<String>>,
    /// Who may sign in: kept and shown.
    #[arg(long)]
    sign_in_audience: Option<String>,
    /// Whether it is a public client: kept and shown.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = three_state, value_name = "true|false")]
    is_fallback_public_client: Option<bool>,
    /// Kept with the application.
    #[arg(long)]
    service_management_reference: Option<String>,
    /// Home page of the application.
    #[arg(long)]
    web_home_page_url: Option<String>,
    /// Space-separated addresses that sign-ins may lead to.
    #[arg(long, num_args = 1..)]
    web_redirect_uris: Option<Vec<String>>,
    /// The same for public clients.
    #[arg(long, num_args = 1..)]
    public_client_redirect_uris: Option<Vec<String>>,
    /// A certificate to sign in with: base64 DER, or @FILE.
    #[arg(long, value_parser = text_or_file, help_heading = "Key Credential")]
    key_value: Option<String>,
    /// Kind of the key.
    #[arg(long, default_value = "AsymmetricX509Cert", requires = "key_value", help_heading = "Key Credential")]
    key_type: String,
    /// Use of the key.
    #[arg(long, default_value = "Verify", requires = "key_value", help_heading = "Key Credential")]
    key_usage: String,
    /// Friendly name for the key.
    #[arg(long, requires = "key_value", help_heading = "Key Credential")]
    key_display_name: Option<String>,
    /// When the key becomes valid.
    #[arg(long, value_parser = time_or_day, requires = "key_value", help_heading = "Key Credential")]
    start_date: Option<Timestamp>,
    /// When the key expires.
    #[arg(long, value_parser = time_or_day, requires = "key_value", help_heading = "Key Credential")]
    end_date: Option<Timestamp>,
    /// Application roles, as JSON or a file: kept and shown.
    #[arg(long, value_parser = json_or_file, value_name = "JSON|FILE")]
    app_roles: Option<Value>,
    /// Optional claims, as JSON or a file: kept and shown.
    #[arg(long, value_parser = json_or_file, value_name = "JSON|FILE")]
    optional_claims: Option<Value>,
    /// What it needs of other applications, as JSON or a file: kept and shown.
    #[arg(long, value_parser = json_or_file, value_name = "JSON|FILE")]
    required_resource_accesses: Option<Value>,
}

impl Members {
    fn body(&self, display_name: Option<&str>) -> Value {
        let mut body = json!({});
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                body[key] = value;
            }
        };
        set("displayName", display_name.map(Into::into));
        set("identifierUris", self.identifier_uris.clone().map(Into::into));
        set("signInAudience", self.sign_in_audience.clone().map(Into::into));
        set("isFallbackPublicClient", self.is_fallback_public_client.map(Into::into));
        set("serviceManagementReference", self.service_management_reference.clone().map(Into::into));
        set("publicClient", self.public_client_redirect_uris.clone().map(|uris| json!({"redirectUris": uris})));
        set("appRoles", self.app_roles.clone());
        set("optionalClaims", self.optional_claims.clone());
        set("requiredResourceAccess", self.required_resource_accesses.clone());
        let mut web = json!({});
        if let Some(url) = &self.web_home_page_url {
            web["homePageUrl"] = url.as_str().into();
        }
        if let Some(uris) = &self.web_redirect_uris {
            web["redirectUris"] = json!(uris);
        }
        set("web", Some(web).filter(|w| w.as_object().is_some_and(|w| !w.is_empty())));
        if let Some(key) = &self.key_value {
            let mut credential = json!({
                "key": key,
                "keyId": Uuid::new_v4().to_string(),
                "type": self.key_type,
                "usage": self.key_usage,
                "displayName": self.key_display_name,
            });
            if let Some(start) = self.start_date {
                credential["startDateTime"] = start.rfc3339().into();
            }
            if let Some(end) = self.end_date {
                credential["endDateTime"] = end.rfc3339().into();
            }
            set("keyCredentials", Some(json!([credential])));
        }
        body
    }
}

/// `portolan ad app federated-credential …`
#[derive(Debug, Subcommand)]
pub(super) enum FederatedCommand {
    /// Take the tokens of an issuer for a subject.
    Create {
        #[command(flatten)]
        id: Id,
        /// name, issuer, subject, audiences and description, as JSON or a file.
        #[arg(long, value_parser = json_or_file, value_name = "JSON|FILE")]
        parameters: Value,
    },
    /// List them.
    List(Id),
    /// Show one.
    Show(Federated),
    /// Change one.
    Update {
        #[command(flatten)]
        credential: Federated,
        /// What is to be changed, as JSON or a file.
        #[arg(long, value_parser = json_or_file, value_name = "JSON|FILE")]
        parameters: Value,
    },
    /// Delete one.
    Delete(Federated),
}

/// A federated credential.
#[derive(Debug, Args)]
pub(super) struct Federated {
    #[command(flatten)]
    id: Id,
    /// ID or name of the federated identity credential.
    #[arg(long, value_name = "ID|NAME")]
    federated_credential_id: String,
}

pub(super) async fn run(ctx: &Context, session: &Session, command: AppCommand) -> Result<Output> {
    let graph = session.graph();
    match command {
        AppCommand::Create(args) => {
            let exactly = format!("displayName eq {}", quoted(&args.display_name));
            let apps = graph.list("applications", Some(&exactly), Some(2)).await?;
            let body = args.members.body(Some(&args.display_name));
            // The same name again changes the application that has it, as in az.
            if let [app] = apps.as_slice()
                && let Some(id) = app.get("id").and_then(Value::as_str)
            {
                ctx.talk.warn(format_args!("Found an existing application instance: (id) {id}. We will patch it."));
                let path = format!("applications/{}", segment(id));
                graph.patch(&path, &body).await?;
                return Ok(Output::value(graph.get(&path).await?));
            }
            Ok(Output::value(graph.post("applications", &body).await?))
        }
        AppCommand::List { app_id, identifier_uri, listing } => {
            let mut more = Vec::new();
            more.extend(app_id.map(|id| format!("appId eq {}", quoted(&id))));
            more.extend(identifier_uri.map(|uri| format!("identifierUris/any(s:s eq {})", quoted(&uri))));
            Ok(by_name(listing.of(ctx, session, "applications", more).await?))
        }
        AppCommand::Show(id) => Ok(Output::value(graph.get(&id.path(session).await?).await?)),
        AppCommand::Update { id, app, display_name, change } => {
            let mut body = app.body(display_name.as_deref());
            change.apply(&mut body)?;
            graph.patch(&id.path(session).await?, &body).await?;
            Ok(Output::none())
        }
        AppCommand::Delete(id) => {
            graph.delete(&id.path(session).await?).await?;
            Ok(Output::none())
        }
        AppCommand::Credential(command) => {
            let path = Id { id: command.id().to_owned() }.path(session).await?;
            let tenant = session.profile().tenant_id.clone();
            credential::run(ctx, session, &path, Some(&tenant), command).await
        }
        AppCommand::FederatedCredential(command) => federated(session, command).await,
    }
}

impl Id {
    async fn path(&self, session: &Session) -> Result<String> {
        Ok(format!("applications/{}", segment(&find::application(session, &self.id).await?)))
    }

    async fn federated(&self, session: &Session) -> Result<String> {
        Ok(format!("{}/federatedIdentityCredentials", self.path(session).await?))
    }
}

impl Federated {
    async fn path(&self, session: &Session) -> Result<String> {
        Ok(format!("{}/{}", self.id.federated(session).await?, segment(&self.federated_credential_id)))
    }
}

async fn federated(session: &Session, command: FederatedCommand) -> Result<Output> {
    let graph = session.graph();
    Ok(match command {
        FederatedCommand::Create { id, parameters } => {
            Output::value(graph.post(&id.federated(session).await?, &parameters).await?)
        }
        FederatedCommand::List(id) => {
            Output::value(Value::Array(graph.list(&id.federated(session).await?, None, None).await?))
        }
        FederatedCommand::Show(credential) => Output::value(graph.get(&credential.path(session).await?).await?),
        FederatedCommand::Update { credential, parameters } => {
            graph.patch(&credential.path(session).await?, &parameters).await?;
            Output::none()
        }
        FederatedCommand::Delete(credential) => {
            graph.delete(&credential.path(session).await?).await?;
            Output::none()
        }
    })
}
