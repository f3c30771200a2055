//! `{scope}/providers/Microsoft.Authorization/roleAssignments[/{id}]`,
//! `…/roleDefinitions[/{id}]` and `…/denyAssignments`: who may do what.
//!
//! Definitions are the same wherever they are asked for, and named by the subscription:
//! clients compare the ids of lists with those in assignments, as text.

use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode};
use portolan_auth::access::Permission;
use portolan_service::roles::{
    AssignmentFilter, AssignmentInput, RoleAssignment, RoleDefinition, RoleDefinitionInput, role_id,
};
use portolan_service::{Ctx, Error, Kind};
use portolan_types::ResourceId;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::path::Extension;
use super::{Response, json_body, list_of, no_such_method, no_such_type, respond};
use crate::App;

/// Bytes of a `$filter`.
const FILTER_BYTES_MAX: usize = 2_048;

/// Answer what follows `Microsoft.Authorization` for roles.
pub(super) async fn handle(
    app: &Arc<App>,
    ctx: &Ctx,
    parts: &Parts,
    body: Body,
    on: &Extension,
) -> Result<Response, Error> {
    let kind = on.rest[0].to_ascii_lowercase();
    match (kind.as_str(), on.rest.get(1), on.rest.len()) {
        ("roleassignments", None, 1) => list_assignments(app, ctx, parts, &on.scope),
        ("roleassignments", Some(id), 2) => assignment(app, ctx, &parts.method, body, &on.scope, id).await,
        ("roledefinitions", None, 1) => list_definitions(app, ctx, parts, &on.scope),
        ("roledefinitions", Some(id), 2) => definition(app, ctx, &parts.method, body, &on.scope, id).await,
        ("denyassignments", None, 1) => {
            get_only(&parts.method)?;
            // Asked as for the assignments, of which these are the other half: there are none.
            app.service.list_role_assignments(ctx, &on.scope, AssignmentFilter::default())?;
            Ok(list_of(Vec::new()))
        }
        _ => Err(no_such_type()),
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct AssignmentBody {
    #[serde(default)]
    properties: AssignmentProperties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AssignmentProperties {
    role_definition_id: Option<String>,
    principal_id: Option<String>,
    principal_type: Option<String>,
    description: Option<String>,
    condition: Option<String>,
    condition_version: Option<String>,
}

fn list_assignments(app: &App, ctx: &Ctx, parts: &Parts, scope: &ResourceId) -> Result<Response, Error> {
    get_only(&parts.method)?;
    let mut filter = AssignmentFilter::default();
    for term in terms(parts)? {
        match term {
            Term::Call(name, None) if name.eq_ignore_ascii_case("atScope") => filter.at_scope = true,
            // There are no groups: what is assigned to somebody is assigned to them alone.
            Term::Call(name, Some(id)) if name.eq_ignore_ascii_case("assignedTo") => {
                filter.principal = Some(principal_id(&id)?);
            }
            Term::Equals(name, id) if name.eq_ignore_ascii_case("principalId") => {
                filter.principal = Some(principal_id(&id)?);
            }
            _ => return Err(bad_filter()),
        }
    }
    let found = app.service.list_role_assignments(ctx, scope, filter)?;
    Ok(list_of(found.iter().map(|a| assignment_to_wire(app, a)).collect()))
}

async fn assignment(
    app: &App,
    ctx: &Ctx,
    method: &Method,
    body: Body,
    scope: &ResourceId,
    id: &str,
) -> Result<Response, Error> {
    let id = assignment_id(id)?;
    match *method {
        Method::GET => {
            let found = app.service.show_role_assignment(ctx, scope, id)?;
            Ok(respond::json(StatusCode::OK, &assignment_to_wire(app, &found)))
        }
        Method::PUT => {
            let AssignmentBody { properties } = json_body(body).await?;
            let input = AssignmentInput {
                role: role_id(&needed(properties.role_definition_id, "roleDefinitionId")?)?,
                principal: principal_id(&needed(properties.principal_id, "principalId")?)?,
                principal_type: properties.principal_type,
                description: properties.description,
                condition: properties.condition,
                condition_version: properties.condition_version,
            };
            let (found, new) = app.service.put_role_assignment(ctx, scope, id, input).await?;
            let status = if new { StatusCode::CREATED } else { StatusCode::OK };
            Ok(respond::json(status, &assignment_to_wire(app, &found)))
        }
        Method::DELETE => Ok(match app.service.delete_role_assignment(ctx, scope, id).await? {
            Some(gone) => respond::json(StatusCode::OK, &assignment_to_wire(app, &gone)),
            None => respond::empty(StatusCode::NO_CONTENT),
        }),
        _ => Err(no_such_method(method)),
    }
}

fn assignment_to_wire(app: &App, assignment: &RoleAssignment) -> Value {
    let a = assignment;
    json!({
        "id": a.arm_id(),
        "name": a.id,
        "type": "Microsoft.Authorization/roleAssignments",
        "properties": {
            "roleDefinitionId": definition_id(app, a.role),
            "principalId": a.principal,
            "principalType": app.service.principal_type(a.principal),
            "scope": a.scope,
            "description": a.description,
            "condition": a.condition,
            "conditionVersion": a.condition.as_ref().map(|_| "2.0"),
            "createdOn": a.created.rfc3339_arm(),
            "createdBy": a.created_by.map(|id| id.to_string()).unwrap_or_default(),
            "updatedOn": a.updated.rfc3339_arm(),
            "updatedBy": a.updated_by.map(|id| id.to_string()).unwrap_or_default(),
            "delegatedManagedIdentityResourceId": null,
        },
    })
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct DefinitionBody {
    #[serde(default)]
    properties: DefinitionProperties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DefinitionProperties {
    role_name: Option<String>,
    description: Option<String>,
    permissions: Option<Vec<PermissionBody>>,
    assignable_scopes: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PermissionBody {
    actions: Option<Vec<String>>,
    not_actions: Option<Vec<String>>,
    data_actions: Option<Vec<String>>,
    not_data_actions: Option<Vec<String>>,
    condition: Option<Value>,
}

impl PermissionBody {
    fn read(self) -> Result<Permission, Error> {
        if self.condition.is_some_and(|c| !c.is_null()) {
            return Err(Error::new(
                Kind::Invalid,
                "InvalidRoleDefinition",
                "Conditions in role definitions are not supported: put the condition on the role assignment.",
            ));
        }
        Ok(Permission {
            actions: self.actions.unwrap_or_default(),
            not_actions: self.not_actions.unwrap_or_default(),
            data_actions: self.data_actions.unwrap_or_default(),
            not_data_actions: self.not_data_actions.unwrap_or_default(),
        })
    }
}

fn list_definitions(app: &App, ctx: &Ctx, parts: &Parts, scope: &ResourceId) -> Result<Response, Error> {
    get_only(&parts.method)?;
    let (mut named, mut custom, mut below) = (None, None, false);
    for term in terms(parts)? {
        match term {
            Term::Equals(name, text) if name.eq_ignore_ascii_case("roleName") => named = Some(text.to_lowercase()),
            Term::Equals(name, text) if name.eq_ignore_ascii_case("type") => {
                custom = Some(text.eq_ignore_ascii_case("CustomRole"));
            }
            Term::Call(name, None) if name.eq_ignore_ascii_case("atScopeAndBelow") => below = true,
            _ => return Err(bad_filter()),
        }
    }
    let found = app.service.list_role_definitions(ctx, scope, below)?;
    let wanted = |d: &&RoleDefinition| {
        named.as_ref().is_none_or(|name| d.name.to_lowercase() == *name) && custom.is_none_or(|is| d.is_custom == is)
    };
    Ok(list_of(found.iter().filter(wanted).map(|d| definition_to_wire(app, d)).collect()))
}

async fn definition(
    app: &App,
    ctx: &Ctx,
    method: &Method,
    body: Body,
    scope: &ResourceId,
    id: &str,
) -> Result<Response, Error> {
    let id = role_id(id)?;
    match *method {
        Method::GET => {
            let found = app.service.show_role_definition(ctx, scope, id)?;
            Ok(respond::json(StatusCode::OK, &definition_to_wire(app, &found)))
        }
        Method::PUT => {
            let DefinitionBody { properties } = json_body(body).await?;
            let permissions = properties.permissions.unwrap_or_default();
            let input = RoleDefinitionInput {
                name: needed(properties.role_name, "roleName")?,
                description: properties.description.unwrap_or_default(),
                permissions: permissions.into_iter().map(PermissionBody::read).collect::<Result<_, _>>()?,
                scopes: properties.assignable_scopes.unwrap_or_default(),
            };
            let (found, _) = app.service.put_role_definition(ctx, id, input).await?;
            // Azure says so for one that was there, too, and its SDK takes nothing else.
            Ok(respond::json(StatusCode::CREATED, &definition_to_wire(app, &found)))
        }
        Method::DELETE => Ok(match app.service.delete_role_definition(ctx, scope, id).await? {
            Some(gone) => respond::json(StatusCode::OK, &definition_to_wire(app, &gone)),
            None => respond::empty(StatusCode::NO_CONTENT),
        }),
        _ => Err(no_such_method(method)),
    }
}

fn definition_id(app: &App, id: Uuid) -> String {
    let subscription = app.service.subscription_id();
    format!("/subscriptions/{subscription}/providers/Microsoft.Authorization/roleDefinitions/{id}")
}

fn definition_to_wire(app: &App, definition: &RoleDefinition) -> Value {
    let d = definition;
    let by = |id: Option<Uuid>| id.map(|id| id.to_string());
    json!({
        "id": definition_id(app, d.id),
        "name": d.id,
        "type": "Microsoft.Authorization/roleDefinitions",
        "properties": {
            "roleName": d.name,
            "type": if d.is_custom { "CustomRole" } else { "BuiltInRole" },
            "description": d.description,
            "assignableScopes": d.scopes,
            "permissions": d.permissions,
            "createdOn": d.created.map(|t| t.rfc3339_arm()),
            "createdBy": by(d.created_by),
            "updatedOn": d.updated.map(|t| t.rfc3339_arm()),
            "updatedBy": by(d.updated_by),
        },
    })
}

fn get_only(method: &Method) -> Result<(), Error> {
    if method == Method::GET { Ok(()) } else { Err(no_such_method(method)) }
}

fn needed(value: Option<String>, name: &str) -> Result<String, Error> {
    value.filter(|v| !v.is_empty()).ok_or_else(|| {
        Error::new(Kind::Invalid, "InvalidRequestContent", format!("`properties.{name}` is missing or empty."))
    })
}

fn principal_id(text: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(text).map_err(|_| {
        Error::new(
            Kind::Invalid,
            "InvalidPrincipalId",
            "The principal ID must be a GUID: the object id of a principal.",
        )
    })
}

fn assignment_id(text: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(text).map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Error::new(
            Kind::Invalid,
            "InvalidRoleAssignmentId",
            format!(
                "The role assignment ID '{}' is not valid. The role assignment ID must be a GUID.",
                shown.escape_debug()
            ),
        )
    })
}

/// One condition of a `$filter`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    /// `name()` or `name('text')`
    Call(String, Option<String>),
    /// `name eq 'text'`
    Equals(String, String),
}

/// The conditions of the `$filter`, all of which must hold.
fn terms(parts: &Parts) -> Result<Vec<Term>, Error> {
    let query = respond::query(&parts.uri);
    let filter = query.iter().find(|(name, _)| name.eq_ignore_ascii_case("$filter")).map_or("", |(_, text)| text);
    if filter.trim().is_empty() {
        return Ok(Vec::new());
    }
    parse_filter(filter).ok_or_else(bad_filter)
}

fn parse_filter(filter: &str) -> Option<Vec<Term>> {
    if filter.len() > FILTER_BYTES_MAX {
        return None;
    }
    let mut terms = Vec::new();
    let mut rest = filter.trim();
    loop {
        let end = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let (name, after) = rest.split_at(end);
        if name.is_empty() {
            return None;
        }
        let after = after.trim_start();
        if let Some(inside) = after.strip_prefix('(') {
            let inside = inside.trim_start();
            let (text, left) = match quoted(inside) {
                Some((text, left)) => (Some(text), left),
                None => (None, inside),
            };
            rest = left.trim_start().strip_prefix(')')?.trim_start();
            terms.push(Term::Call(name.to_owned(), text));
        } else {
            let (text, left) = quoted(keyword(after, "eq")?)?;
            rest = left.trim_start();
            terms.push(Term::Equals(name.to_owned(), text));
        }
        if rest.is_empty() {
            return Some(terms);
        }
        rest = keyword(rest, "and")?;
    }
}

/// What follows a word and the space after it.
fn keyword<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let head = text.get(..word.len()).filter(|head| head.eq_ignore_ascii_case(word))?;
    let rest = &text[head.len()..];
    rest.starts_with(char::is_whitespace).then(|| rest.trim_start())
}

/// A text in single quotes, in which two stand for one, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('\'')?;
    let mut out = String::new();
    loop {
        let (part, after) = rest.split_once('\'')?;
        out.push_str(part);
        match after.strip_prefix('\'') {
            Some(more) => {
                out.push('\'');
                rest = more;
            }
            None => return Some((out, after)),
        }
    }
}

fn bad_filter() -> Error {
    Error::new(
        Kind::Invalid,
        "UnsupportedQuery",
        "The filter is not supported. Supported filters are 'atScope()', 'principalId eq '{value}'' and \
         'assignedTo('{value}')' for role assignments, and 'roleName eq '{value}'', 'type eq '{value}'' and \
         'atScopeAndBelow()' for role definitions.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read() {
        let call = |name: &str, text: Option<&str>| Term::Call(name.into(), text.map(str::to_owned));
        let equals = |name: &str, text: &str| Term::Equals(name.into(), text.into());
        for (filter, expected) in [
            ("atScope()", Some(vec![call("atScope", None)])),
            ("atScope() and assignedTo('x')", Some(vec![call("atScope", None), call("assignedTo", Some("x"))])),
            ("roleName eq 'acrpull'", Some(vec![equals("roleName", "acrpull")])),
            (
                "roleName EQ 'it''s' AND type eq 'CustomRole'",
                Some(vec![equals("roleName", "it's"), equals("type", "CustomRole")]),
            ),
            ("roleName eq 'a and b'", Some(vec![equals("roleName", "a and b")])),
            ("roleName eq 'a' or type eq 'b'", None),
            ("roleName eq 'a", None),
            ("roleName eq a", None),
            ("roleName eq'a'", None),
            ("atScope(", None),
            ("atScope() and", None),
            ("é", None),
            ("roleName éé 'a'", None),
        ] {
            assert_eq!(parse_filter(filter), expected, "{filter}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_filter_is_read_or_refused(text in "\\PC{0,60}", inside in "(a|eq|and|'|\\(|\\)| ){0,20}") {
            let _ = parse_filter(&text);
            let _ = parse_filter(&inside);
        }
    }
}
