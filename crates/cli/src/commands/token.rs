//! `portolan acr token …`: tokens that are of one registry and no directory.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use portolan_types::Timestamp;
use serde_json::{Value, json};

use super::scope_map::Rules;
use super::{Context, signed_in};
use crate::args::{Registry, three_state};
use crate::error::{Failure, Result};
use crate::output::table::{member, time};
use crate::output::{Output, shape};
use crate::session::Session;

/// `portolan acr token …`
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

/// A token by name.
#[derive(Debug, Args)]
struct Named {
    #[command(flatten)]
    registry: Registry,
    /// The name of the token.
    #[arg(short = 'n', long, value_name = "NAME")]
    name: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Status {
    Enabled,
    Disabled,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Status::Enabled => "enabled",
            Status::Disabled => "disabled",
        }
    }
}

/// Until when passwords are good; for ever when not said.
#[derive(Debug, Args)]
struct Expiry {
    /// UTC time for which the credentials will be valid, such as 2027-12-31T12:59:59Z.
    #[arg(long, value_name = "TIME", value_parser = exact_time)]
    expiration: Option<Timestamp>,
    /// Number of days for which the credentials will be valid.
    #[arg(long, alias = "days", value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3_000_000), conflicts_with = "expiration")]
    expiration_in_days: Option<u32>,
}

fn exact_time(text: &str) -> Result<Timestamp, String> {
    let shaped = text.len() == 20 && text.ends_with('Z');
    Timestamp::parse(text)
        .filter(|_| shaped)
        .ok_or_else(|| "it is not a valid datetime. Valid example: 2027-12-31T12:59:59Z".into())
}

impl Expiry {
    fn at(&self) -> Option<Timestamp> {
        let days = |days| Timestamp::now().plus(Duration::from_secs(u64::from(days) * 24 * 3600));
        self.expiration.or_else(|| self.expiration_in_days.map(days))
    }
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Create a token, with a scope map that is there or one of its own.
    Create(Box<CreateArgs>),
    /// List tokens.
    List {
        #[command(flatten)]
        registry: Registry,
    },
    /// Show a token, without its passwords.
    Show {
        #[command(flatten)]
        token: Named,
    },
    /// Change a token.
    Update {
        #[command(flatten)]
        token: Named,
        /// The name of the scope map to give it.
        #[arg(long, value_name = "NAME")]
        scope_map: Option<String>,
        /// Whether it opens anything.
        #[arg(long, value_enum, ignore_case = true, default_value = "enabled")]
        status: Status,
    },
    /// Delete a token.
    Delete {
        #[command(flatten)]
        token: Named,
        /// Do not ask.
        #[arg(short = 'y', long)]
        yes: bool,
    },
    /// Manage a token's passwords.
    #[command(subcommand)]
    Credential(CredentialCommand),
}

/// `portolan acr token create`
#[derive(Debug, Args)]
struct CreateArgs {
    #[command(flatten)]
    token: Named,
    /// The name of the scope map.
    #[arg(long, value_name = "NAME")]
    scope_map: Option<String>,
    #[command(flatten)]
    rules: Rules<0>,
    /// Whether it opens anything.
    #[arg(long, value_enum, ignore_case = true, default_value = "enabled")]
    status: Status,
    /// Generate no passwords yet.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = three_state, value_name = "true|false", conflicts_with_all = ["expiration", "expiration_in_days"])]
    no_passwords: Option<bool>,
    #[command(flatten)]
    expiry: Expiry,
}

#[derive(Debug, Subcommand)]
enum CredentialCommand {
    /// Make passwords anew: both, or the one named. They are shown once.
    Generate {
        #[command(flatten)]
        token: Named,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        expiry: Expiry,
    },
    /// Delete passwords.
    Delete {
        #[command(flatten)]
        token: Named,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// The first password.
    #[arg(long)]
    password1: bool,
    /// The second password.
    #[arg(long)]
    password2: bool,
}

pub(super) async fn run(ctx: &Context, args: TokenArgs) -> Result<Output> {
    if let TokenCommand::Delete { token, yes } = &args.command {
        let question = format!(
            "Deleting the token '{}' will invalidate access to anyone using its credentials. Proceed?",
            token.name
        );
        ctx.talk.confirm(&question, *yes)?;
    }
    signed_in(ctx, async |session: &Session| with(ctx, session, args.command).await).await
}

async fn with(ctx: &Context, session: &Session, command: TokenCommand) -> Result<Output> {
    let arm = &session.arm;
    let at = |token: &Named| format!("tokens/{}", token.name);
    Ok(match command {
        TokenCommand::Create(args) => create(ctx, session, *args).await?,
        TokenCommand::List { registry } => {
            let found = session.below(&registry, "tokens", async |id| Ok(arm.all_of(id, None).await?)).await?;
            Output::with_columns(shape::each(found, shape::token), columns)
        }
        TokenCommand::Show { token } => {
            shown(session.below(&token.registry, &at(&token), async |id| Ok(arm.by_id(id).await?)).await?)
        }
        TokenCommand::Update { token, scope_map, status } => {
            let registry = session.registry_id(&token.registry).await?;
            let mut properties = json!({"status": status.as_str()});
            if let Some(map) = scope_map {
                properties["scopeMapId"] = format!("{registry}/scopeMaps/{map}").into();
            }
            let id = format!("{registry}/{}", at(&token));
            shown(arm.patch_by_id(&id, &json!({"properties": properties})).await?)
        }
        TokenCommand::Delete { token, .. } => {
            session.below(&token.registry, &at(&token), async |id| Ok(arm.delete_by_id(id).await?)).await?;
            Output::none()
        }
        TokenCommand::Credential(CredentialCommand::Generate { token, which, expiry }) => {
            let registry = session.registry_id(&token.registry).await?;
            let name = match (which.password1, which.password2) {
                (true, false) => Some("password1"),
                (false, true) => Some("password2"),
                _ => None,
            };
            let made = generate(session, &registry, &token.name, name, expiry.at()).await?;
            Output::with_columns(made, password_columns)
        }
        TokenCommand::Credential(CredentialCommand::Delete { token, which }) => {
            if !which.password1 && !which.password2 {
                return Err(Failure::new("No credentials to delete."));
            }
            let at = at(&token);
            let deleted = session.below(&token.registry, &at, async |id| {
                let now = arm.by_id(id).await?;
                let mut names: Vec<String> = now
                    .pointer("/properties/credentials/passwords")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(|p| Some(p.get("name")?.as_str()?.to_owned()))
                    .collect();
                for (wanted, name, said) in
                    [(which.password1, "password1", "Password1"), (which.password2, "password2", "Password2")]
                {
                    if wanted && !names.iter().any(|n| n == name) {
                        return Err(Failure::new(format!(
                            "Unable to perform operation. {said} credential doesn't exist."
                        )));
                    }
                    names.retain(|n| !wanted || n != name);
                }
                let kept: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
                let body = json!({"properties": {"credentials": {"passwords": kept}}});
                Ok(arm.patch_by_id(id, &body).await?)
            });
            shown(deleted.await?)
        }
    })
}

async fn create(ctx: &Context, session: &Session, args: CreateArgs) -> Result<Output> {
    if args.rules.is_empty() == args.scope_map.is_none() {
        return Err(Failure::new("usage error: can't use --scope-map and --repository | --gateway")
            .hint("give one of them: --scope-map NAME, or --repository REPO ACTION [ACTION ...]"));
    }
    let arm = &session.arm;
    let registry = session.registry_id(&args.token.registry).await?;
    let name = &args.token.name;
    let map = match &args.scope_map {
        Some(map) => format!("{registry}/scopeMaps/{map}"),
        None => {
            let id = format!("{registry}/scopeMaps/{name}-scope-map");
            let mut actions = args.rules.actions()?;
            match arm.by_id(&id).await {
                Ok(there) => {
                    let mut has: Vec<&str> = there
                        .pointer("/properties/actions")
                        .and_then(Value::as_array)
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .collect();
                    has.sort_unstable();
                    actions.sort_unstable();
                    if has != actions {
                        return Err(Failure::new(
                            "The default scope map was already configured with different repository permissions.",
                        )
                        .hint(format!(
                            "change it: `portolan acr scope-map update -r {} -n {name}-scope-map --add-repository REPO ACTION --remove-repository REPO ACTION`",
                            args.token.registry.name
                        )));
                    }
                }
                Err(error) if error.is_not_found() => {
                    let properties = json!({"actions": actions, "description": format!("Created by token: {name}")});
                    arm.put_by_id(&id, &json!({"properties": properties})).await?;
                }
                Err(error) => return Err(error.into()),
            }
            id
        }
    };
    let body = json!({"properties": {"scopeMapId": map, "status": args.status.as_str()}});
    let mut token = shape::token(arm.put_by_id(&format!("{registry}/tokens/{name}"), &body).await?);
    if args.no_passwords == Some(true) {
        return Ok(Output::with_columns(token, columns));
    }
    let made = generate(session, &registry, name, None, args.expiry.at()).await?;
    let login_server =
        session.registry(&args.token.registry.name, args.token.registry.resource_group.as_deref()).await?.login_server;
    // Not the password itself, as az has it: what is said goes into logs, what is printed is
    // asked for.
    ctx.talk.warn(format_args!(
        "Please store your generated credentials safely: they are shown once. Meanwhile you can use them through \"docker login {login_server} -u {} -p PASSWORD\".",
        member(&made, &["username"])
    ));
    token["credentials"] = made;
    Ok(Output::with_columns(token, columns))
}

async fn generate(
    session: &Session,
    registry: &str,
    token: &str,
    name: Option<&str>,
    expiry: Option<Timestamp>,
) -> Result<Value> {
    let mut body = json!({"tokenId": format!("{registry}/tokens/{token}")});
    if let Some(name) = name {
        body["name"] = name.into();
    }
    if let Some(expiry) = expiry {
        body["expiry"] = expiry.rfc3339().into();
    }
    let mut made = session.arm.post_by_id(&format!("{registry}/generateCredentials"), Some(&body)).await?;
    if let Some(passwords) = made.get_mut("passwords") {
        *passwords = shape::token_passwords(passwords.take());
    }
    Ok(made)
}

fn shown(token: Value) -> Output {
    Output::with_columns(shape::token(token), columns)
}

fn expiry_of(password: &Value) -> String {
    match password.get("expiry") {
        None | Some(Value::Null) => "Never".into(),
        Some(_) => time(password, &["expiry"]),
    }
}

fn columns(item: &Value) -> Vec<(&'static str, String)> {
    let map = member(item, &["scopeMapId"]);
    let expiry = |name: &str| {
        let passwords = item.pointer("/credentials/passwords").and_then(Value::as_array);
        let found = passwords.into_iter().flatten().find(|p| p.get("name").and_then(Value::as_str) == Some(name));
        found.map(expiry_of).unwrap_or_default()
    };
    let status = member(item, &["status"]);
    let mut letters = status.chars();
    let title = letters.next().map(|c| c.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default();
    vec![
        ("NAME", member(item, &["name"])),
        ("SCOPE MAP", map.rsplit('/').next().unwrap_or_default().to_owned()),
        ("PASSWORD1 EXPIRY", expiry("password1")),
        ("PASSWORD2 EXPIRY", expiry("password2")),
        ("STATUS", title),
        ("PROVISIONING STATE", member(item, &["provisioningState"])),
        ("CREATION DATE", time(item, &["creationDate"])),
    ]
}

fn password_columns(item: &Value) -> Vec<(&'static str, String)> {
    let mut row = vec![("USERNAME", member(item, &["username"]))];
    for password in item.get("passwords").and_then(Value::as_array).into_iter().flatten() {
        let (name, expiry) = match password.get("name").and_then(Value::as_str) {
            Some("password1") => ("PASSWORD1", "PASSWORD1 EXPIRY"),
            _ => ("PASSWORD2", "PASSWORD2 EXPIRY"),
        };
        row.push((name, member(password, &["value"])));
        row.push((expiry, expiry_of(password)));
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let token = json!({"name": "ci", "scopeMapId": "/x/scopeMaps/team", "status": "enabled",
            "credentials": {"passwords": [{"name": "password1", "expiry": null},
                {"name": "password2", "expiry": "2027-01-02T03:04:05.6+00:00"}]},
            "provisioningState": "Succeeded", "creationDate": "2026-01-02T03:04:05.6+00:00"});
        let row: Vec<String> = columns(&token).into_iter().map(|(_, text)| text).collect();
        assert_eq!(
            row,
            ["ci", "team", "Never", "2027-01-02T03:04:05Z", "Enabled", "Succeeded", "2026-01-02T03:04:05Z"]
        );
    }

    #[test]
    fn times_have_one_form() {
        assert!(exact_time("2027-12-31T12:59:59Z").is_ok());
        for bad in ["2027-12-31", "2027-12-31T12:59:59+01:00", "soon"] {
            assert!(exact_time(bad).is_err(), "{bad}");
        }
    }
}
