//! `portolan role assignment …`

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{collection, last, role_id, scope, text};
use crate::args::{json_or_file, not_empty, three_state};
use crate::commands::Context;
use crate::commands::ad::{Found, assignee, names_of, object_type};
use crate::error::{Failure, Result};
use crate::output::table::member;
use crate::output::{Output, shape};
use crate::session::Session;

/// `portolan role assignment …`
#[derive(Debug, Subcommand)]
pub(super) enum AssignmentCommand {
    /// Give a role to somebody.
    Create(Box<CreateArgs>),
    /// List who has which role.
    List(Box<ListArgs>),
    /// Change the description or condition of an assignment.
    Update {
        /// The assignment as JSON, or a file with it.
        #[arg(long, value_parser = json_or_file, value_name = "JSON|FILE")]
        role_assignment: Value,
    },
    /// Take roles away.
    Delete(Box<DeleteArgs>),
}

/// Who.
#[derive(Debug, Args)]
struct Assignee {
    /// A user's sign-in name, a service principal's name, or an object ID.
    #[arg(long, value_parser = not_empty, value_name = "NAME|ID")]
    assignee: Option<String>,
    /// The object ID, without asking the directory.
    #[arg(long, value_parser = not_empty, value_name = "ID", conflicts_with = "assignee")]
    assignee_object_id: Option<String>,
}

impl Assignee {
    fn is_given(&self) -> bool {
        self.assignee.is_some() || self.assignee_object_id.is_some()
    }

    async fn id(&self, session: &Session) -> Result<Option<String>> {
        match (&self.assignee_object_id, &self.assignee) {
            (Some(id), _) => Ok(Some(id.clone())),
            (None, Some(name)) => Ok(Some(assignee(session, name).await?.id)),
            (None, None) => Ok(None),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PrincipalType {
    #[value(name = "User")]
    User,
    #[value(name = "Group")]
    Group,
    #[value(name = "ServicePrincipal")]
    ServicePrincipal,
    #[value(name = "ForeignGroup")]
    ForeignGroup,
}

impl PrincipalType {
    fn as_str(self) -> &'static str {
        match self {
            PrincipalType::User => "User",
            PrincipalType::Group => "Group",
            PrincipalType::ServicePrincipal => "ServicePrincipal",
            PrincipalType::ForeignGroup => "ForeignGroup",
        }
    }
}

/// `portolan role assignment create`
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Role name or ID.
    #[arg(long, value_parser = not_empty)]
    role: String,
    /// Where: the ID of a subscription, resource group or resource.
    #[arg(long, value_parser = not_empty)]
    scope: String,
    #[command(flatten)]
    to: Assignee,
    /// The kind of principal, with --assignee-object-id.
    #[arg(long, value_enum, ignore_case = true, requires = "assignee_object_id")]
    assignee_principal_type: Option<PrincipalType>,
    /// Description of the assignment.
    #[arg(long)]
    description: Option<String>,
    /// Condition under which the role holds.
    #[arg(long)]
    condition: Option<String>,
    /// Version of the condition's language; 2.0 when not given.
    #[arg(long, requires = "condition")]
    condition_version: Option<String>,
    /// A GUID for the assignment; a new one when not given.
    #[arg(short = 'n', long, value_name = "GUID")]
    name: Option<String>,
}

/// `portolan role assignment list`
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    to: Assignee,
    /// Role name or ID.
    #[arg(long, value_parser = not_empty)]
    role: Option<String>,
    /// Where: the ID of a subscription, resource group or resource.
    #[arg(long, value_parser = not_empty)]
    scope: Option<String>,
    /// Name of a resource group, in place of --scope.
    #[arg(short = 'g', long, value_parser = not_empty, value_name = "GROUP")]
    resource_group: Option<String>,
    /// Include what is inherited from above.
    #[arg(long)]
    include_inherited: bool,
    /// All assignments of the subscription.
    #[arg(long, conflicts_with_all = ["scope", "resource_group"])]
    all: bool,
    /// Include what the groups of the assignee have.
    #[arg(long)]
    include_groups: bool,
    /// Ask the directory for the names of principals.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = three_state, value_name = "true|false")]
    fill_principal_name: Option<bool>,
    /// Ask for the names of roles.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_parser = three_state, value_name = "true|false")]
    fill_role_definition_name: Option<bool>,
}

/// `portolan role assignment delete`
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// Space-separated IDs of assignments.
    #[arg(long, num_args = 1..)]
    ids: Vec<String>,
    #[command(flatten)]
    to: Assignee,
    /// Role name or ID.
    #[arg(long, value_parser = not_empty)]
    role: Option<String>,
    /// Where: the ID of a subscription, resource group or resource.
    #[arg(long, value_parser = not_empty)]
    scope: Option<String>,
    /// Name of a resource group, in place of --scope.
    #[arg(short = 'g', long, value_parser = not_empty, value_name = "GROUP")]
    resource_group: Option<String>,
    /// Include what is inherited from above.
    #[arg(long)]
    include_inherited: bool,
    /// Taken for az's sake: nothing is asked.
    #[arg(short = 'y', long)]
    yes: bool,
}

/// Give a role. `more`: description, condition and its version. Answers the assignment as it
/// came.
pub(in crate::commands) async fn give(
    session: &Session,
    role: &str,
    at: &str,
    to: &Found,
    more: Value,
    name: Option<String>,
) -> Result<Value> {
    let at = scope(session, Some(at), None)?;
    let mut properties = json!({"roleDefinitionId": role_id(session, role, &at).await?, "principalId": to.id});
    if let Some(kind) = to.kind {
        properties["principalType"] = kind.into();
    }
    if let Value::Object(more) = more {
        for (key, value) in more {
            properties[key.as_str()] = value;
        }
    }
    let name = name.unwrap_or_else(|| Uuid::new_v4().to_string());
    let id = format!("{}/{name}", collection(&at, "roleAssignments"));
    Ok(session.arm.put_by_id(&id, &json!({"properties": properties})).await?)
}

pub(super) async fn run(ctx: &Context, session: &Session, command: AssignmentCommand) -> Result<Output> {
    match command {
        AssignmentCommand::Create(args) => create(ctx, session, *args).await,
        AssignmentCommand::List(args) => list(ctx, session, *args).await,
        AssignmentCommand::Update { role_assignment } => update(session, &role_assignment).await,
        AssignmentCommand::Delete(args) => delete(ctx, session, *args).await,
    }
}

async fn create(ctx: &Context, session: &Session, args: CreateArgs) -> Result<Output> {
    let to = match (&args.to.assignee, args.to.assignee_object_id) {
        (Some(name), None) => assignee(session, name).await?,
        (None, Some(id)) => match args.assignee_principal_type {
            Some(kind) => Found { id, kind: Some(kind.as_str()) },
            None => {
                // Without the right to ask, the server decides what it is.
                let found = session.graph().by_ids(std::slice::from_ref(&id)).await.unwrap_or_default();
                Found { kind: found.first().and_then(object_type), id }
            }
        },
        _ => return Err(Failure::new("usage error: --assignee STRING | --assignee-object-id GUID")),
    };
    let mut more = json!({});
    if let Some(description) = args.description {
        more["description"] = description.into();
    }
    if let Some(condition) = args.condition {
        more["condition"] = condition.into();
        more["conditionVersion"] = args.condition_version.unwrap_or_else(|| "2.0".into()).into();
    }
    match give(session, &args.role, &args.scope, &to, more, args.name).await {
        // The same again is no error: the one that is there is the answer.
        Err(error) if error.message.contains("RoleAssignmentExists") => {
            let at = scope(session, Some(&args.scope), None)?;
            let query =
                Query { at: Some(at.clone()), assignee: Some(to.id), role: Some(args.role), ..Query::default() };
            match query.run(session).await?.into_iter().next() {
                Some(there) => {
                    let mut found = vec![shape::role_assignment(there)];
                    name_roles(session, &at, &mut found).await?;
                    name_principals(ctx, session, &mut found).await;
                    Ok(Output::value(found.remove(0)))
                }
                None => Err(error),
            }
        }
        answer => Ok(Output::value(shape::role_assignment(answer?))),
    }
}

/// Which assignments.
#[derive(Debug, Default)]
struct Query {
    /// The scope; the whole subscription without.
    at: Option<String>,
    assignee: Option<String>,
    role: Option<String>,
    inherited: bool,
    groups: bool,
}

impl Query {
    async fn run(&self, session: &Session) -> Result<Vec<Value>> {
        let subscription = session.arm.subscription_scope();
        let at = self.at.as_deref().unwrap_or(&subscription);
        let assigned = self.assignee.as_deref().map(|id| (id, self.groups));
        let filter = match (&self.at, assigned) {
            (Some(_), Some((id, true))) => Some(format!("atScope() and assignedTo('{id}')")),
            (Some(_), _) => Some("atScope()".to_owned()),
            (None, Some((id, true))) => Some(format!("assignedTo('{id}')")),
            (None, Some((id, false))) => Some(format!("principalId eq '{id}'")),
            (None, None) => None,
        };
        let mut found = session.arm.all_of(&collection(at, "roleAssignments"), filter.as_deref()).await?;
        if self.at.is_some() && !self.inherited {
            found.retain(|a| {
                text(a, "/properties/scope").trim_end_matches('/').eq_ignore_ascii_case(at.trim_end_matches('/'))
            });
        }
        if let Some(role) = &self.role {
            let role = role_id(session, role, at).await?;
            found.retain(|a| last(text(a, "/properties/roleDefinitionId")).eq_ignore_ascii_case(last(&role)));
        }
        if let Some((id, false)) = assigned {
            found.retain(|a| text(a, "/properties/principalId").eq_ignore_ascii_case(id));
        }
        Ok(found)
    }
}

async fn list(ctx: &Context, session: &Session, args: ListArgs) -> Result<Output> {
    let at = match args.all {
        true => None,
        false => Some(scope(session, args.scope.as_deref(), args.resource_group.as_deref())?),
    };
    let query = Query {
        at: at.clone(),
        assignee: args.to.id(session).await?,
        role: args.role,
        inherited: args.include_inherited,
        groups: args.include_groups,
    };
    let mut found: Vec<Value> = query.run(session).await?.into_iter().map(shape::role_assignment).collect();
    if !found.is_empty() && args.fill_role_definition_name != Some(false) {
        let at = at.unwrap_or_else(|| session.arm.subscription_scope());
        name_roles(session, &at, &mut found).await?;
    }
    if !found.is_empty() && args.fill_principal_name != Some(false) {
        name_principals(ctx, session, &mut found).await;
    }
    Ok(Output::with_columns(found, |item| {
        vec![
            ("Principal", member(item, &["principalName"])),
            ("Role", member(item, &["roleDefinitionName"])),
            ("Scope", member(item, &["scope"])),
        ]
    }))
}

/// Add the roles' names.
async fn name_roles(session: &Session, at: &str, found: &mut [Value]) -> Result<()> {
    let roles = session.arm.all_of(&collection(at, "roleDefinitions"), None).await?;
    let names: BTreeMap<String, &str> =
        roles.iter().map(|r| (text(r, "/name").to_ascii_lowercase(), text(r, "/properties/roleName"))).collect();
    for assignment in found {
        let id = last(text(assignment, "/roleDefinitionId")).to_ascii_lowercase();
        assignment["roleDefinitionName"] = names.get(&id).map_or(Value::Null, |n| (*n).into());
    }
    Ok(())
}

/// Add the principals' names. Who may not ask for them still sees the roles.
async fn name_principals(ctx: &Context, session: &Session, found: &mut [Value]) {
    let ids: BTreeSet<String> = found.iter().map(|a| text(a, "/principalId").to_owned()).collect();
    match names_of(session, &ids.into_iter().collect::<Vec<_>>()).await {
        Ok(names) => {
            for assignment in found {
                let name = names.get(text(assignment, "/principalId")).cloned().unwrap_or_default();
                assignment["principalName"] = name.into();
            }
        }
        Err(error) => ctx.talk.detail(format_args!("the principals' names are not known: {error}")),
    }
}

async fn update(session: &Session, new: &Value) -> Result<Output> {
    let (at, name) = (text(new, "/scope"), text(new, "/name"));
    if at.is_empty() || name.is_empty() {
        return Err(Failure::new("'scope' and 'name' are required in the role assignment JSON."));
    }
    let id = format!("{}/{name}", collection(at, "roleAssignments"));
    let before = session.arm.by_id(&id).await?;
    let old_version = text(&before, "/properties/conditionVersion");
    if text(new, "/conditionVersion").starts_with("1.") && old_version.starts_with("2.") {
        return Err(Failure::new("Condition version cannot be downgraded to '1.X'."));
    }
    let mut properties = json!({});
    for key in ["roleDefinitionId", "principalId", "principalType", "description", "condition", "conditionVersion"] {
        let said = new.get(key).filter(|v| !v.is_null());
        let was = before.pointer(&format!("/properties/{key}")).filter(|v| !v.is_null());
        if let Some(value) = said.or(was) {
            properties[key] = value.clone();
        }
    }
    let updated = session.arm.put_by_id(&id, &json!({"properties": properties})).await?;
    Ok(Output::value(shape::role_assignment(updated)))
}

async fn delete(ctx: &Context, session: &Session, args: DeleteArgs) -> Result<Output> {
    let narrowed = args.to.is_given() || args.role.is_some() || args.scope.is_some() || args.resource_group.is_some();
    if args.ids.is_empty() && !narrowed {
        return Err(Failure::new(
            "Please provide at least one of these arguments: --ids, --assignee, --assignee-object-id, --role, --resource-group, --scope",
        ));
    }
    if !args.ids.is_empty() {
        if narrowed {
            ctx.talk.warn("All other arguments will be ignored due to use of '--ids'.");
        }
        for id in &args.ids {
            session.arm.delete_by_id(id).await?;
        }
        return Ok(Output::none());
    }
    let query = Query {
        at: Some(scope(session, args.scope.as_deref(), args.resource_group.as_deref())?),
        assignee: args.to.id(session).await?,
        role: args.role,
        inherited: args.include_inherited,
        groups: false,
    };
    let found = query.run(session).await?;
    if found.is_empty() {
        return Err(Failure::new("No matched assignments were found to delete"));
    }
    for assignment in &found {
        session.arm.delete_by_id(text(assignment, "/id")).await?;
    }
    Ok(Output::none())
}
