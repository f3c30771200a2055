//! `Microsoft.Security`: pricings (which plans are on) and assessments (what is known of the
//! registries).

use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode};
use portolan_service::security::{Assessment, Plan, PlanInput};
use portolan_service::{Ctx, Error};
use portolan_types::ResourceId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::path::Extension;
use super::{Response, json_body, list_of, no_such_method, no_such_type, respond};
use crate::App;

#[derive(Debug, Default, Deserialize)]
pub(super) struct PricingBody {
    #[serde(default)]
    properties: PricingProperties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PricingProperties {
    pricing_tier: Option<String>,
    sub_plan: Option<String>,
    #[serde(default)]
    extensions: Value,
}

/// `/subscriptions/{s}/providers/Microsoft.Security/pricings[/{plan}]`
pub(super) async fn pricings(
    app: &App,
    ctx: &Ctx,
    parts: &Parts,
    body: Body,
    on: &Extension,
) -> Result<Response, Error> {
    let service = &app.service;
    if on.scope.key() != ResourceId::subscription(&service.subscription_id()).key() {
        return Err(no_such_type());
    }
    match (on.rest.as_slice(), &parts.method) {
        ([_], &Method::GET) => {
            Ok(list_of(service.list_plans(ctx).await?.iter().map(|plan| plan_to_wire(&on.scope, plan)).collect()))
        }
        ([_, name], &Method::GET) => {
            Ok(respond::json(StatusCode::OK, &plan_to_wire(&on.scope, &service.show_plan(ctx, name).await?)))
        }
        ([_, name], &Method::PUT) => {
            let PricingBody { properties } = json_body(body).await?;
            let input = PlanInput {
                tier: properties.pricing_tier,
                sub_plan: properties.sub_plan,
                extensions: properties.extensions,
            };
            let plan = service.put_plan(ctx, name, input).await?;
            Ok(respond::json(StatusCode::OK, &plan_to_wire(&on.scope, &plan)))
        }
        ([_] | [_, _], method) => Err(no_such_method(method)),
        _ => Err(no_such_type()),
    }
}

/// `{scope}/providers/Microsoft.Security/assessments[/{name}]`
pub(super) fn assessments(app: &App, ctx: &Ctx, method: &Method, on: &Extension) -> Result<Response, Error> {
    match (on.rest.as_slice(), method) {
        ([_], &Method::GET) => Ok(list_of(app.service.list_assessments(ctx, &on.scope)?.iter().map(to_wire).collect())),
        ([_, name], &Method::GET) => {
            Ok(respond::json(StatusCode::OK, &to_wire(&app.service.show_assessment(ctx, &on.scope, name)?)))
        }
        ([_] | [_, _], method) => Err(no_such_method(method)),
        _ => Err(no_such_type()),
    }
}

fn plan_to_wire(subscription: &ResourceId, plan: &Plan) -> Value {
    let mut properties = json!({
        "pricingTier": if plan.standard { "Standard" } else { "Free" },
        "freeTrialRemainingTime": "PT0S",
    });
    if let Some(sub_plan) = &plan.sub_plan {
        properties["subPlan"] = json!(sub_plan);
    }
    if let Some(enabled) = plan.enabled {
        properties["enablementTime"] = json!(enabled.rfc3339());
    }
    if let Some(other) = plan.replaced_by {
        properties["deprecated"] = json!(true);
        properties["replacedBy"] = json!([other]);
    }
    if plan.extensions.as_array().is_some_and(|list| !list.is_empty()) {
        properties["extensions"] = plan.extensions.clone();
    }
    json!({
        "id": format!("{subscription}/providers/Microsoft.Security/pricings/{}", plan.name),
        "name": plan.name,
        "type": "Microsoft.Security/pricings",
        "properties": properties,
    })
}

fn to_wire(assessment: &Assessment) -> Value {
    let about = assessment.about;
    let mut status = json!({"code": assessment.health.as_str()});
    if !assessment.cause.is_empty() {
        status["cause"] = json!(assessment.cause);
        status["description"] = json!(assessment.description);
    }
    json!({
        "id": format!("{}/providers/Microsoft.Security/assessments/{}", assessment.resource, about.id),
        "name": about.id,
        "type": "Microsoft.Security/assessments",
        "properties": {
            "displayName": about.title,
            "status": status,
            "resourceDetails": {"source": "Azure", "id": assessment.resource},
            "metadata": {
                "displayName": about.title,
                "assessmentType": "BuiltIn",
                "description": about.reason,
                "remediationDescription": about.remedy,
                "severity": about.severity,
                "categories": ["Data"],
            },
        },
    })
}
