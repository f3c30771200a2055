//! `…/registries/{r}/cacheRules[/{name}]`: under which names upstream images are found.

use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode};
use portolan_service::cache_rules::{CacheRule, CacheRuleInput};
use portolan_service::{Ctx, Error, Kind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ArmTarget, Response, json_body, list_of, no_such_method, no_such_type, respond};
use crate::App;

const TYPE: &str = "Microsoft.ContainerRegistry/registries/cacheRules";

#[derive(Debug, Default, Deserialize)]
pub(super) struct RuleBody {
    #[serde(default)]
    properties: RuleProperties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleProperties {
    source_repository: Option<String>,
    target_repository: Option<String>,
    credential_set_resource_id: Option<String>,
}

/// Answer what follows a registry's path, for cache rules.
pub(super) async fn handle(
    app: &Arc<App>,
    ctx: &Ctx,
    target: &ArmTarget,
    rest: &[String],
    parts: &Parts,
    body: Body,
) -> Result<Response, Error> {
    let (service, registry) = (&app.service, &*target.registry);
    match (rest, &parts.method) {
        ([_], &Method::GET) => {
            let rules = service.list_cache_rules(ctx, registry).await?;
            Ok(list_of(rules.iter().map(|rule| to_wire(target, rule)).collect()))
        }
        ([_, name], &Method::GET) => {
            Ok(respond::json(StatusCode::OK, &to_wire(target, &service.cache_rule(ctx, registry, name).await?)))
        }
        ([_, name], &Method::PUT) => {
            let RuleBody { properties } = json_body(body).await?;
            let input = CacheRuleInput {
                source: needed(properties.source_repository, "sourceRepository")?,
                target: needed(properties.target_repository, "targetRepository")?,
                credential: properties.credential_set_resource_id.filter(|c| !c.is_empty()),
            };
            let (rule, new) = service.put_cache_rule(ctx, registry, name, input).await?;
            let status = if new { StatusCode::CREATED } else { StatusCode::OK };
            Ok(respond::json(status, &to_wire(target, &rule)))
        }
        ([_, name], &Method::DELETE) => {
            // Whether or not there was one: the libraries take no 200 for this type.
            service.delete_cache_rule(ctx, registry, name).await?;
            Ok(respond::empty(StatusCode::NO_CONTENT))
        }
        ([_] | [_, _], method) => Err(no_such_method(method)),
        _ => Err(no_such_type()),
    }
}

fn needed(value: Option<String>, name: &str) -> Result<String, Error> {
    value.filter(|v| !v.is_empty()).ok_or_else(|| {
        Error::new(Kind::Invalid, "InvalidParameter", format!("`properties.{name}` is missing or empty"))
    })
}

/// A rule as ARM shows it.
fn to_wire(target: &ArmTarget, rule: &CacheRule) -> Value {
    json!({
        "id": target.registry.resource_id.child("cacheRules", &rule.name),
        "name": rule.name,
        "type": TYPE,
        "properties": {
            "sourceRepository": rule.source,
            "targetRepository": rule.target,
            "credentialSetResourceId": rule.credential,
            "creationDate": rule.created.rfc3339_arm(),
            "provisioningState": "Succeeded",
        },
    })
}
