//! `…/registries/{r}/customDomains[/{host}]`: host names of a registry besides its login
//! server, with their certificates. Ours: ACR has no API for this.
//!
//! `PUT` with `{"properties": {"certificate": PEM, "privateKey": PEM}}`. Without either the
//! certificate stays as it is; with an empty `certificate` the server's own serves again. The
//! key is never shown. A certificate is refused when it is not for the host, is over, or does
//! not belong to the key.

use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{Method, StatusCode};
use portolan_service::hosts::{CustomHost, NewCertificate};
use portolan_service::{Ctx, Error, Kind};
use portolan_types::{Secret, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ArmTarget, Response, json_body, list_of, no_such_method, no_such_type, respond};
use crate::App;
use crate::tls::host as tls;

const TYPE: &str = "Microsoft.ContainerRegistry/registries/customDomains";

#[derive(Default, Deserialize)]
pub(super) struct HostBody {
    #[serde(default)]
    properties: HostProperties,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HostProperties {
    certificate: Option<String>,
    private_key: Option<Secret<String>>,
}

/// Answer what follows a registry's path, for custom hosts.
pub(super) async fn handle(
    app: &Arc<App>,
    ctx: &Ctx,
    target: &ArmTarget,
    rest: &[String],
    parts: &Parts,
    body: Body,
) -> Result<Response, Error> {
    let (service, registry) = (&app.service, &*target.registry);
    let ok = |host: &CustomHost| respond::json(StatusCode::OK, &to_wire(target, host));
    match (rest, &parts.method) {
        ([_], &Method::GET) => {
            let hosts = service.list_hosts(ctx, registry).await?;
            Ok(list_of(hosts.iter().map(|host| to_wire(target, host)).collect()))
        }
        ([_, name], &Method::GET) => Ok(ok(&service.custom_host(ctx, registry, name).await?)),
        ([_, name], &Method::PUT) => {
            // Before its certificate is looked at: who may not write learns nothing of it.
            service.check_host_write(ctx, registry)?;
            let HostBody { properties } = json_body(body).await?;
            let certificate = certificate(properties, name, ctx.now)?;
            let (host, new) = service.put_host(ctx, registry, name, certificate).await?;
            let status = if new { StatusCode::CREATED } else { StatusCode::OK };
            Ok(respond::json(status, &to_wire(target, &host)))
        }
        ([_, name], &Method::DELETE) => {
            let existed = service.delete_host(ctx, registry, name).await?;
            Ok(respond::empty(if existed { StatusCode::OK } else { StatusCode::NO_CONTENT }))
        }
        ([_] | [_, _], method) => Err(no_such_method(method)),
        _ => Err(no_such_type()),
    }
}

fn certificate(given: HostProperties, host: &str, now: Timestamp) -> Result<NewCertificate, Error> {
    let invalid = |why: &str| Error::new(Kind::Invalid, "InvalidCertificate", format!("The certificate {why}."));
    match (given.certificate, given.private_key) {
        (None, None) => Ok(NewCertificate::Keep),
        (Some(chain), None) if chain.is_empty() => Ok(NewCertificate::None),
        (Some(chain), Some(key)) => {
            tls::check(&chain, key.expose(), &host.to_ascii_lowercase(), now).map_err(|why| invalid(&why))?;
            Ok(NewCertificate::Own(chain, key))
        }
        (Some(_), None) => Err(invalid("comes without its private key (privateKey)")),
        (None, Some(_)) => Err(invalid("is missing beside its private key (certificate)")),
    }
}

fn to_wire(target: &ArmTarget, host: &CustomHost) -> Value {
    let certificate = host.chain.as_deref().and_then(tls::facts).map(|facts| {
        json!({
            "subject": facts.subject,
            "thumbprint": facts.thumbprint,
            "notBefore": facts.not_before.rfc3339(),
            "notAfter": facts.not_after.rfc3339(),
        })
    });
    json!({
        "id": format!("{}/customDomains/{}", target.registry.resource_id, host.host),
        "name": host.host,
        "type": TYPE,
        "properties": {
            "hostName": host.host,
            "creationDate": host.created.rfc3339_arm(),
            "provisioningState": "Succeeded",
            "certificate": certificate,
        },
    })
}
