//! `/resources` of the subscription or of a group: everything that there is, which is how
//! clients find the group that a registry is in.

use http::Method;
use http::request::Parts;
use portolan_service::{Ctx, Error, Kind};
use portolan_types::{GroupName, Timestamp};
use serde_json::{Value, json};

use super::filter::{self, Op, Term};
use super::{Response, list_of, no_such_method, respond};
use crate::App;

const REGISTRY: &str = "Microsoft.ContainerRegistry/registries";
const IDENTITY: &str = "Microsoft.ManagedIdentity/userAssignedIdentities";

/// `GET …/resources[?$filter=…][&$top=n][&$expand=createdTime,changedTime,provisioningState]`
pub(super) async fn list(app: &App, ctx: &Ctx, parts: &Parts, group: Option<&GroupName>) -> Result<Response, Error> {
    if parts.method != Method::GET {
        return Err(no_such_method(&parts.method));
    }
    let query = respond::query(&parts.uri);
    let wanted = Wanted::of(&filter::parse(respond::field(&query, "$filter").unwrap_or_default())?)?;
    let top = top(&query)?;
    let expand = respond::field(&query, "$expand").unwrap_or_default().to_ascii_lowercase();
    if let Some(group) = group {
        // A group that is not there has no list, not an empty one.
        app.service.show_group(ctx, group).await?;
    }
    let mut all = Vec::new();
    for r in app.service.list_registries(ctx, group)? {
        let value = json!({
            "id": r.resource_id,
            "name": r.name,
            "type": REGISTRY,
            "location": r.location,
            "sku": {"name": r.sku.as_str(), "tier": r.sku.as_str()},
            "tags": r.tags,
        });
        all.push(Found { group: r.group.to_string(), value, created: r.created, changed: r.updated });
    }
    for i in app.service.identities(ctx, group).await? {
        let value = json!({
            "id": i.id,
            "name": i.name,
            "type": IDENTITY,
            "location": i.location,
            "tags": i.tags,
        });
        all.push(Found { group: i.group.to_string(), value, created: i.created, changed: i.created });
    }
    let items = all.into_iter().filter(|found| wanted.takes(found)).take(top);
    Ok(list_of(items.map(|found| found.shown(&expand)).collect()))
}

/// `$top`: how many items at most.
///
/// Errors: `InvalidTopInQueryString`.
pub(super) fn top(query: &[(String, String)]) -> Result<usize, Error> {
    match respond::field(query, "$top").map(str::trim) {
        None | Some("") => Ok(usize::MAX),
        Some(text) => text.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
            Error::new(Kind::Invalid, "InvalidTopInQueryString", "Invalid $top: it must be a number above zero.")
        }),
    }
}

struct Found {
    group: String,
    value: Value,
    created: Timestamp,
    changed: Timestamp,
}

impl Found {
    fn text(&self, member: &str) -> &str {
        self.value[member].as_str().unwrap_or_default()
    }

    /// With what `$expand` asks for.
    fn shown(self, expand: &str) -> Value {
        let mut value = self.value;
        for word in expand.split(',').map(str::trim) {
            match word {
                "createdtime" => value["createdTime"] = json!(self.created.rfc3339()),
                "changedtime" => value["changedTime"] = json!(self.changed.rfc3339()),
                "provisioningstate" => value["provisioningState"] = json!("Succeeded"),
                _ => {}
            }
        }
        value
    }
}

/// What is asked for of a list of resources.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// Members that must, or must not, be so: `(member, must, text)`.
    members: Vec<(Member, bool, String)>,
    name_has: Option<String>,
    tag_name: Option<String>,
    tag_begins: Option<String>,
    tag_value: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Member {
    Kind,
    Name,
    Group,
    Location,
}

impl Wanted {
    pub(super) fn of(terms: &[Term]) -> Result<Wanted, Error> {
        let invalid = || {
            Error::new(
                Kind::Invalid,
                "InvalidFilterInQueryString",
                "Invalid $filter: use resourceType, name, resourceGroup or location with `eq` or `ne`, tagName and \
                 tagValue with `eq`, substringof('text', name) or startswith(tagName, 'text'), joined by `and`.",
            )
        };
        let mut wanted = Wanted::default();
        for term in terms {
            match term {
                Term::Compare { field, op, value } => {
                    let must = match op {
                        Op::Eq => true,
                        Op::Ne => false,
                        _ => return Err(invalid()),
                    };
                    let member = match field.to_ascii_lowercase().as_str() {
                        "resourcetype" => Member::Kind,
                        "name" => Member::Name,
                        "resourcegroup" => Member::Group,
                        "location" => Member::Location,
                        "tagname" if must => {
                            wanted.tag_name = Some(value.to_lowercase());
                            continue;
                        }
                        "tagvalue" if must => {
                            wanted.tag_value = Some(value.clone());
                            continue;
                        }
                        _ => return Err(invalid()),
                    };
                    wanted.members.push((member, must, value.clone()));
                }
                Term::Call { function, arguments } => match (function.as_str(), arguments.as_slice()) {
                    ("startswith", [field, text]) if field.eq_ignore_ascii_case("tagname") => {
                        wanted.tag_begins = Some(text.to_lowercase());
                    }
                    ("substringof", [text, field]) if field.eq_ignore_ascii_case("name") => {
                        wanted.name_has = Some(text.to_lowercase());
                    }
                    _ => return Err(invalid()),
                },
            }
        }
        Ok(wanted)
    }

    fn takes(&self, found: &Found) -> bool {
        let members = self.members.iter().all(|(member, must, text)| {
            let is = match member {
                Member::Kind => found.text("type"),
                Member::Name => found.text("name"),
                Member::Group => &found.group,
                Member::Location => found.text("location"),
            };
            // Places are written with and without blanks: `East US`.
            let same = match member {
                Member::Location => text.replace(' ', "").eq_ignore_ascii_case(is),
                _ => text.eq_ignore_ascii_case(is),
            };
            same == *must
        });
        let named = self.name_has.as_ref().is_none_or(|has| found.text("name").to_lowercase().contains(has));
        members && named && self.takes_tags(&found.value["tags"])
    }

    fn takes_tags(&self, tags: &Value) -> bool {
        if self.tag_name.is_none() && self.tag_begins.is_none() && self.tag_value.is_none() {
            return true;
        }
        tags.as_object().is_some_and(|tags| {
            tags.iter().any(|(name, value)| {
                let name = name.to_lowercase();
                self.tag_name.as_ref().is_none_or(|n| name == *n)
                    && self.tag_begins.as_ref().is_none_or(|b| name.starts_with(b))
                    && self.tag_value.as_ref().is_none_or(|v| value.as_str() == Some(v))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(text: &str) -> Option<bool> {
        let found = Found {
            group: "RG".into(),
            value: json!({"name": "MyReg", "type": REGISTRY, "location": "eastus", "tags": {"Env": "prod", "team": "a"}}),
            created: Timestamp(0),
            changed: Timestamp(0),
        };
        Some(Wanted::of(&filter::parse(text).ok()?).ok()?.takes(&found))
    }

    #[test]
    fn filters() {
        for (text, taken) in [
            ("", true),
            ("resourceType eq 'microsoft.containerregistry/REGISTRIES'", true),
            ("resourceType ne 'Microsoft.ContainerRegistry/registries'", false),
            ("name eq 'myreg' and resourceGroup eq 'rg'", true),
            ("name eq 'myreg' and resourceGroup eq 'rg2'", false),
            ("location eq 'East US'", true),
            ("tagname eq 'env'", true),
            ("tagname eq 'env' and tagvalue eq 'prod'", true),
            ("tagname eq 'env' and tagvalue eq 'a'", false),
            ("startswith(tagname, 'te')", true),
            ("startswith(tagname, 'x')", false),
            ("substringof('yre', name)", true),
        ] {
            assert_eq!(takes(text), Some(taken), "{text}");
        }
        for bad in ["a eq 'b'", "name ge 'x'", "tagname ne 'x'", "endswith(name, 'x')", "startswith(name, 'x')"] {
            assert_eq!(takes(bad), None, "{bad}");
        }
    }

    #[test]
    fn top_is_a_number() {
        let of = |text: &str| top(&[("$top".to_owned(), text.to_owned())]).ok();
        assert_eq!((of("3"), of(""), of("0"), of("-1"), of("x")), (Some(3), Some(usize::MAX), None, None, None));
    }
}
