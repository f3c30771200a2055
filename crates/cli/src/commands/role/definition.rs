//! `portolan role definition …`

use clap::Subcommand;
use portolan_api::graph::quoted;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{collection, is_guid, last, scope, text};
use crate::args::{json_or_file, not_empty, three_state};
use crate::error::{Failure, Result};
use crate::output::table::member;
use crate::output::{Output, shape};
use crate::session::Session;

/// `portolan role definition …`
#[derive(Debug, Subcommand)]
pub(super) enum DefinitionCommand {
    /// List roles.
    List(Which),
    /// Show a role.
    Show {
        /// The role's GUID.
        #[arg(short = 'n', long, requires = "scope", required_unless_present = "id")]
        name: Option<String>,
        /// Where it is looked for.
        #[arg(long, requires = "name")]
        scope: Option<String>,
        /// The role's full ID.
        #[arg(long = "id", value_name = "ID", conflicts_with = "name")]
        id: Option<String>,
    },
    /// Create a role.
    Create {
        /// The role as JSON, or a file with it: Name, Description, Actions, DataActions, AssignableScopes, …
        #[arg(long, value_parser = json_or_file, value_name = "JSON|FILE")]
        role_definition: Value,
    },
    /// Change a role.
    Update {
        /// The role as JSON, or a file with it.
        #[arg(long, value_parser = json_or_file, value_name = "JSON|FILE")]
        role_definition: Value,
    },
    /// Delete a role.
    Delete(Which),
}

/// Which roles.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// The role's name or GUID.
    #[arg(short = 'n', long, value_parser = not_empty)]
    name: Option<String>,
    /// Where it is looked for.
    #[arg(long)]
    scope: Option<String>,
    /// Name of a resource group, in place of --scope.
    #[arg(short = 'g', long, value_name = "GROUP")]
    resource_group: Option<String>,
    /// Only roles made here, not the built-in ones.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = three_state, value_name = "true|false")]
    custom_role_only: Option<bool>,
}

pub(super) async fn run(session: &Session, command: DefinitionCommand) -> Result<Output> {
    let arm = &session.arm;
    Ok(match command {
        DefinitionCommand::List(which) => {
            let at = scope(session, which.scope.as_deref(), which.resource_group.as_deref())?;
            let found = search(session, which.name.as_deref(), &at, which.custom_role_only == Some(true)).await?;
            Output::with_columns(shape::each(found, shape::role_definition), |item| {
                vec![
                    ("Name", member(item, &["roleName"])),
                    ("Type", member(item, &["type"])),
                    ("Description", member(item, &["description"])),
                ]
            })
        }
        DefinitionCommand::Show { name, scope: at, id } => {
            let id = match (id, name, at) {
                (Some(id), ..) => id,
                (None, Some(name), Some(at)) => {
                    format!("{}/{name}", collection(&scope(session, Some(&at), None)?, "roleDefinitions"))
                }
                _ => return Err(Failure::new("Usage error: Provide --scope and --name, or --id")),
            };
            Output::value(shape::role_definition(arm.by_id(&id).await?))
        }
        DefinitionCommand::Create { role_definition } => {
            let given = camel(role_definition)?;
            let name = given.get("name").or(given.get("roleName")).and_then(Value::as_str);
            let name = name.filter(|n| !n.is_empty()).ok_or_else(|| Failure::new("please provide role name"))?;
            put(session, &Uuid::new_v4().to_string(), name, &given).await?
        }
        DefinitionCommand::Update { role_definition } => {
            let given = camel(role_definition)?;
            match given.get("id").and_then(Value::as_str) {
                Some(id) => {
                    let name = given.get("roleName").and_then(Value::as_str);
                    let name = name.ok_or_else(|| Failure::new("please provide 'roleName'"))?;
                    put(session, last(id), name, &given).await?
                }
                None => {
                    let name = given.get("name").and_then(Value::as_str).unwrap_or_default();
                    let at = text(&given, "/assignableScopes/0");
                    let at = if at.is_empty() { session.arm.subscription_scope() } else { at.to_owned() };
                    let found = search(session, Some(name), &at, false).await?;
                    match found.as_slice() {
                        [one] => put(session, text(one, "/name"), text(one, "/properties/roleName"), &given).await?,
                        [] => {
                            return Err(Failure::new(format!("No definition was found with the name of \"{name}\"")));
                        }
                        _ => {
                            return Err(Failure::new(format!(
                                "More than 2 definitions are found with the name of \"{name}\""
                            )));
                        }
                    }
                }
            }
        }
        DefinitionCommand::Delete(which) => {
            let name = which.name.as_deref().ok_or_else(|| Failure::usage("--name/-n is missing"))?;
            let at = scope(session, which.scope.as_deref(), which.resource_group.as_deref())?;
            let found = search(session, Some(name), &at, which.custom_role_only == Some(true)).await?;
            if found.is_empty() {
                return Err(Failure::new(format!("No definition was found with the name of \"{name}\"")));
            }
            for role in found {
                let id = format!("{}/{}", collection(&at, "roleDefinitions"), text(&role, "/name"));
                arm.delete_by_id(&id).await?;
            }
            Output::none()
        }
    })
}

/// Roles by name or GUID: only names are something the server filters by.
async fn search(session: &Session, name: Option<&str>, at: &str, custom_only: bool) -> Result<Vec<Value>> {
    let filter = name.filter(|n| !is_guid(n)).map(|n| format!("roleName eq {}", quoted(n)));
    let mut found = session.arm.all_of(&collection(at, "roleDefinitions"), filter.as_deref()).await?;
    if let Some(name) = name {
        found.retain(|r| {
            text(r, "/name").eq_ignore_ascii_case(name) || text(r, "/properties/roleName").eq_ignore_ascii_case(name)
        });
    }
    if custom_only {
        found.retain(|r| text(r, "/properties/type") == "CustomRole");
    }
    Ok(found)
}

/// `AssignableScopes` and `assignableScopes` are one.
fn camel(value: Value) -> Result<Value> {
    let Value::Object(members) = value else {
        return Err(Failure::new("Invalid role definition. A valid dictionary JSON representation is expected."));
    };
    let lower = |key: String| {
        let mut chars = key.chars();
        chars.next().map(|c| c.to_lowercase().chain(chars).collect::<String>()).unwrap_or_default()
    };
    Ok(Value::Object(members.into_iter().map(|(key, value)| (lower(key), value)).collect()))
}

async fn put(session: &Session, guid: &str, name: &str, given: &Value) -> Result<Output> {
    let at = text(given, "/assignableScopes/0");
    if at.is_empty() {
        return Err(Failure::new("please provide 'assignableScopes'"));
    }
    let permission = |from: &Value| {
        let mut permission = json!({});
        for key in ["actions", "notActions", "dataActions", "notDataActions"] {
            permission[key] = from.get(key).filter(|v| !v.is_null()).cloned().unwrap_or_else(|| json!([]));
        }
        permission
    };
    let permissions: Vec<Value> = match given.get("permissions").and_then(Value::as_array) {
        Some(several) => several.iter().map(permission).collect(),
        None => vec![permission(given)],
    };
    let body = json!({"properties": {
        "roleName": name,
        "description": given.get("description"),
        "type": "CustomRole",
        "assignableScopes": given.get("assignableScopes"),
        "permissions": permissions,
    }});
    let id = format!("{}/{guid}", collection(at, "roleDefinitions"));
    Ok(Output::value(shape::role_definition(session.arm.put_by_id(&id, &body).await?)))
}
