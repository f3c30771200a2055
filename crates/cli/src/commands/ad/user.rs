//! `portolan ad user …`: people.

use clap::{Args, Subcommand};
use portolan_api::graph::quoted;
use portolan_api::transport::segment;
use serde_json::{Value, json};

use crate::args::{text_or_file, three_state};
use crate::error::Result;
use crate::output::Output;
use crate::session::Session;

/// `portolan ad user …`
#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Create a user.
    Create {
        /// Object's display name.
        #[arg(long)]
        display_name: String,
        /// The name to sign in with, such as ada@example.com.
        #[arg(long)]
        user_principal_name: String,
        /// User password, or @FILE.
        #[arg(long, value_parser = text_or_file)]
        password: String,
        /// Kept and shown.
        #[arg(long)]
        immutable_id: Option<String>,
        #[command(flatten)]
        members: Members,
    },
    /// List users.
    List {
        /// Object's display name or its prefix.
        #[arg(long)]
        display_name: Option<String>,
        /// User principal name, such as ada@example.com.
        #[arg(long)]
        upn: Option<String>,
        /// OData filter, such as "accountEnabled eq false".
        #[arg(long, value_name = "ODATA")]
        filter: Option<String>,
    },
    /// Show a user.
    Show(Id),
    /// Change a user: --account-enabled false shuts them out.
    Update {
        #[command(flatten)]
        id: Id,
        /// Object's display name.
        #[arg(long)]
        display_name: Option<String>,
        /// User password, or @FILE.
        #[arg(long, value_parser = text_or_file)]
        password: Option<String>,
        /// Whether the user may sign in.
        #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = three_state, value_name = "true|false")]
        account_enabled: Option<bool>,
        #[command(flatten)]
        members: Members,
    },
    /// Delete a user.
    Delete(Id),
}

/// A user.
#[derive(Debug, Args)]
pub(super) struct Id {
    /// The object ID or principal name of the user.
    #[arg(long = "id", value_name = "ID|NAME")]
    id: String,
}

/// What both ways of making it so take.
#[derive(Debug, Args)]
pub(super) struct Members {
    /// Mail alias.
    #[arg(long)]
    mail_nickname: Option<String>,
    /// Whether the password must be changed at the next sign-in.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = three_state, value_name = "true|false")]
    force_change_password_next_sign_in: Option<bool>,
}

/// `portolan ad signed-in-user …`
#[derive(Debug, Subcommand)]
pub(super) enum SignedInCommand {
    /// Show the user who is signed in.
    Show,
    /// List what that user owns.
    ListOwnedObjects {
        /// Only objects of a type, such as application.
        #[arg(short = 't', long = "type", value_name = "TYPE")]
        kind: Option<String>,
    },
}

fn body(display_name: Option<String>, password: Option<String>, enabled: Option<bool>, members: Members) -> Value {
    let mut body = json!({});
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            body[key] = value;
        }
    };
    set("displayName", display_name.map(Into::into));
    set("accountEnabled", enabled.map(Into::into));
    set("mailNickname", members.mail_nickname.map(Into::into));
    let mut profile = json!({});
    if let Some(password) = password {
        profile["password"] = password.into();
    }
    if let Some(force) = members.force_change_password_next_sign_in {
        profile["forceChangePasswordNextSignIn"] = force.into();
    }
    set("passwordProfile", Some(profile).filter(|p| p.as_object().is_some_and(|p| !p.is_empty())));
    body
}

pub(super) async fn run(session: &Session, command: UserCommand) -> Result<Output> {
    let graph = session.graph();
    let path = |id: &Id| format!("users/{}", segment(&id.id));
    Ok(match command {
        UserCommand::Create { display_name, user_principal_name, password, immutable_id, mut members } => {
            let nickname = user_principal_name.split('@').next().unwrap_or_default().to_owned();
            members.mail_nickname.get_or_insert(nickname);
            members.force_change_password_next_sign_in.get_or_insert(false);
            let mut body = body(Some(display_name), Some(password), Some(true), members);
            body["userPrincipalName"] = user_principal_name.into();
            if let Some(id) = immutable_id {
                body["onPremisesImmutableId"] = id.into();
            }
            Output::value(graph.post("users", &body).await?)
        }
        UserCommand::List { display_name, upn, filter } => {
            let mut filters: Vec<String> = filter.into_iter().collect();
            filters.extend(upn.map(|upn| format!("userPrincipalName eq {}", quoted(&upn))));
            filters.extend(display_name.map(|name| format!("startswith(displayName,{})", quoted(&name))));
            let filter = Some(filters.join(" and ")).filter(|f| !f.is_empty());
            Output::value(Value::Array(graph.list("users", filter.as_deref(), None).await?))
        }
        UserCommand::Show(id) => Output::value(graph.get(&path(&id)).await?),
        UserCommand::Update { id, display_name, password, account_enabled, members } => {
            graph.patch(&path(&id), &body(display_name, password, account_enabled, members)).await?;
            Output::none()
        }
        UserCommand::Delete(id) => {
            graph.delete(&path(&id)).await?;
            Output::none()
        }
    })
}

pub(super) async fn signed_in_user(session: &Session, command: SignedInCommand) -> Result<Output> {
    let graph = session.graph();
    Ok(match command {
        SignedInCommand::Show => Output::value(graph.get("me").await?),
        SignedInCommand::ListOwnedObjects { kind } => {
            let mut owned = graph.list("me/ownedObjects", None, None).await?;
            if let Some(kind) = kind {
                owned.retain(|object| {
                    let is = object.get("@odata.type").and_then(Value::as_str).unwrap_or_default();
                    is.eq_ignore_ascii_case(&kind)
                        || is.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case(&kind))
                });
            }
            Output::value(Value::Array(owned))
        }
    })
}
