//! `portolan ad sp …`: service principals.

use clap::{Args, Subcommand};
use portolan_api::graph::quoted;
use portolan_api::transport::segment;
use portolan_types::Timestamp;
use serde_json::{Value, json};

use super::credential::{self, CredentialCommand, New, WARNING};
use super::{Listing, by_name, find};
use crate::args::{Change, three_state};
use crate::commands::Context;
use crate::commands::role::give;
use crate::error::{Failure, Result};
use crate::output::Output;
use crate::output::shape::object;
use crate::session::Session;

/// `portolan ad sp …`
#[derive(Debug, Subcommand)]
pub(super) enum SpCommand {
    /// Create an application, its service principal and a password, and give it a role.
    CreateForRbac(Box<RbacArgs>),
    /// Create the service principal of an application that is there.
    Create {
        /// Application ID, object ID or identifier URI of the application.
        #[arg(long = "id", value_name = "ID")]
        id: String,
    },
    /// List service principals.
    List {
        /// Service principal name.
        #[arg(long)]
        spn: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Show a service principal.
    Show {
        /// Service principal name, or object ID.
        #[arg(long = "id", value_name = "ID")]
        id: String,
    },
    /// Change a service principal: --set accountEnabled=false disables it.
    Update {
        /// Service principal name, or object ID.
        #[arg(long = "id", value_name = "ID")]
        id: String,
        #[command(flatten)]
        change: Change,
    },
    /// Delete a service principal; nobody signs in as it any more.
    Delete {
        /// Service principal name, or object ID.
        #[arg(long = "id", value_name = "ID")]
        id: String,
    },
    /// Manage its passwords and certificates.
    #[command(subcommand)]
    Credential(CredentialCommand),
}

/// `portolan ad sp create-for-rbac`
#[derive(Debug, Args)]
pub(super) struct RbacArgs {
    /// Display name; of the time when not given.
    #[arg(short = 'n', long = "name", alias = "display-name", value_name = "NAME")]
    name: Option<String>,
    /// Role of the service principal.
    #[arg(long, requires = "scopes")]
    role: Option<String>,
    /// Space-separated scopes of the role.
    #[arg(long, num_args = 1.., requires = "role", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Whether to make a password.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = three_state, value_name = "true|false")]
    create_password: Option<bool>,
    #[command(flatten)]
    new: New,
    /// Print what Azure's SDKs read from a file.
    #[arg(long, alias = "sdk-auth", num_args = 0..=1, default_missing_value = "true", value_parser = three_state, value_name = "true|false")]
    json_auth: Option<bool>,
    /// Taken for az's sake: without --role there is no assignment.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = three_state, hide = true)]
    skip_assignment: Option<bool>,
    /// Kept with the application.
    #[arg(long, hide = true)]
    service_management_reference: Option<String>,
}

pub(super) async fn run(ctx: &Context, session: &Session, command: SpCommand) -> Result<Output> {
    let graph = session.graph();
    match command {
        SpCommand::CreateForRbac(args) => create_for_rbac(ctx, session, *args).await,
        SpCommand::Create { id } => {
            let object_id = find::application(session, &id).await?;
            let app = graph.get(&format!("applications/{}", segment(&object_id))).await;
            // az goes on with what it was given, and so does whoever names another tenant's.
            let app_id = app.ok().and_then(|a| Some(a.get("appId")?.as_str()?.to_owned())).unwrap_or(id);
            Ok(Output::value(make(session, &app_id).await?))
        }
        SpCommand::List { spn, listing } => {
            let more = spn.map(|spn| format!("servicePrincipalNames/any(c:c eq {})", quoted(&spn)));
            Ok(by_name(listing.of(ctx, session, "servicePrincipals", more.into_iter().collect()).await?))
        }
        SpCommand::Show { id } => Ok(Output::value(graph.get(&path(session, &id).await?).await?)),
        SpCommand::Update { id, change } => {
            let mut body = json!({});
            change.apply(&mut body)?;
            graph.patch(&path(session, &id).await?, &body).await?;
            Ok(Output::none())
        }
        SpCommand::Delete { id } => {
            graph.delete(&path(session, &id).await?).await?;
            Ok(Output::none())
        }
        SpCommand::Credential(command) => {
            let path = path(session, command.id()).await?;
            let tenant = session.profile().tenant_id.clone();
            if let CredentialCommand::Reset { append: false, .. } = &command {
                forget_of_application(session, &path).await?;
            }
            credential::run(ctx, session, &path, Some(&tenant), command).await
        }
    }
}

/// The passwords of its application open the same: a reset that left them would be none.
async fn forget_of_application(session: &Session, path: &str) -> Result<()> {
    let graph = session.graph();
    let principal = graph.get(path).await?;
    let by = format!("appId eq {}", quoted(&text(&principal, "appId")));
    for app in graph.list("applications", Some(&by), Some(1)).await? {
        let path = format!("applications/{}", segment(&text(&app, "id")));
        credential::remove_passwords(session, &path, &app).await?;
    }
    Ok(())
}

async fn path(session: &Session, id: &str) -> Result<String> {
    Ok(format!("servicePrincipals/{}", segment(&find::service_principal(session, id).await?)))
}

async fn make(session: &Session, app_id: &str) -> Result<Value> {
    Ok(session.graph().post("servicePrincipals", &json!({"appId": app_id, "accountEnabled": true})).await?)
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

async fn create_for_rbac(ctx: &Context, session: &Session, args: RbacArgs) -> Result<Output> {
    let graph = session.graph();
    let name = args.name.clone().unwrap_or_else(|| {
        let now = Timestamp::now().rfc3339();
        format!("azure-cli-{}", now.get(..19).unwrap_or(&now).replace(['T', ':'], "-"))
    });
    // The same name again is the same application with a new password, as in az.
    let exactly = format!("displayName eq {}", quoted(&name));
    let existing = match args.name {
        Some(_) => graph.list("servicePrincipals", Some(&exactly), Some(1)).await?.into_iter().next(),
        None => None,
    };
    let end = args.new.end()?;
    let certificate = args.new.certificate(None, Some(end))?;
    let mut body = json!({"displayName": name, "keyCredentials": []});
    if let Some(certificate) = &certificate {
        body["keyCredentials"] = json!([certificate.key_credential]);
    }
    if let Some(reference) = &args.service_management_reference {
        body["serviceManagementReference"] = reference.as_str().into();
    }
    let mut apps = graph.list("applications", Some(&exactly), Some(2)).await?;
    let app = match apps.len() {
        0 => graph.post("applications", &body).await?,
        1 => {
            let app = apps.remove(0);
            ctx.talk.warn(format_args!(
                "Found an existing application instance: (id) {}. We will patch it.",
                text(&app, "id")
            ));
            let path = format!("applications/{}", segment(&text(&app, "id")));
            if certificate.is_none() {
                body = json!({"displayName": name});
            }
            graph.patch(&path, &body).await?;
            app
        }
        _ => {
            let ids: Vec<String> = apps.iter().map(|a| text(a, "id")).collect();
            return Err(Failure::new(format!(
                "More than one application have the same display name '{name}': (id) {}, please remove them first.",
                ids.join(", ")
            )));
        }
    };
    let app_path = format!("applications/{}", segment(&text(&app, "id")));
    credential::remove_passwords(session, &app_path, &app).await?;
    let mut password = Value::Null;
    if args.create_password != Some(false) && certificate.is_none() {
        let made =
            graph.post(&format!("{app_path}/addPassword"), &credential::password_body(Some("rbac"), end)).await?;
        password = made.get("secretText").cloned().unwrap_or(Value::Null);
    }
    let app_id = text(&app, "appId");
    let principal = match existing {
        Some(principal) => principal,
        None => make(session, &app_id).await?,
    };
    if let Some(role) = &args.role {
        for scope in &args.scopes {
            ctx.talk.warn(format_args!("Creating '{role}' role assignment under scope '{scope}'"));
            let to = find::Found { id: text(&principal, "id"), kind: Some("ServicePrincipal") };
            match give(session, role, scope, &to, json!({}), None).await {
                Err(error) if error.message.contains("RoleAssignmentExists") => {
                    ctx.talk.warn("  Role assignment already exists.");
                }
                answer => drop(answer?),
            }
        }
    }
    let file = certificate.and_then(|c| c.file);
    if !password.is_null() || file.is_some() {
        ctx.talk.warn(WARNING);
    }
    let tenant = session.profile().tenant_id.clone();
    if args.json_auth == Some(true) {
        let server = &session.profile().server;
        let mut shown = json!({
            "clientId": app_id,
            "subscriptionId": session.arm.subscription(),
            "tenantId": tenant,
            "activeDirectoryEndpointUrl": server,
            "resourceManagerEndpointUrl": server,
            "activeDirectoryGraphResourceId": server,
            "managementEndpointUrl": server,
        });
        match &file {
            Some(file) => shown["clientCertificate"] = file.display().to_string().into(),
            None => shown["clientSecret"] = password,
        }
        return Ok(Output::value(shown));
    }
    let mut shown = object([
        ("appId", app_id.into()),
        ("displayName", name.into()),
        ("password", password),
        ("tenant", tenant.into()),
    ]);
    if let Some(file) = file {
        ctx.talk.warn(format_args!(
            "Please copy {} to a safe place. When you run `portolan login`, provide the file path in the --certificate argument",
            file.display()
        ));
        shown["fileWithCertAndPrivateKey"] = file.display().to_string().into();
    }
    Ok(Output::value(shown))
}
