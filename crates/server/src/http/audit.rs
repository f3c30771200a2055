//! What the audit log tells of: every change that somebody asked for, every sign-in, every
//! refusal of somebody who said who they are.
//!
//! The line is written at the rim, by the request itself, before it is answered: whoever
//! reads an acknowledgement finds the line. A client that goes away before its answer gets
//! one with the outcome `abandoned`: what it asked for may have been done. What *was* done
//! to manifests, tags and repositories stands besides, in the transaction that did it, in
//! the database's table of events, which no crash can part from the change.

use http::{Method, StatusCode};

use super::route::Route;

/// What a request is called in the audit log and how it ended; `None` for what is none of
/// its business. `status` is `None` when the client went away first.
pub(crate) fn of(
    route: Route,
    method: &Method,
    path: &str,
    status: Option<StatusCode>,
    has_credentials: bool,
) -> Option<(&'static str, &'static str)> {
    let outcome = match status {
        None => "abandoned",
        Some(s) if s.is_success() || s.is_redirection() => "success",
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => "denied",
        Some(StatusCode::TOO_MANY_REQUESTS) => "limited",
        Some(_) => "failed",
    };
    // "Sign in first" is how every docker push begins, and tells nothing.
    if status == Some(StatusCode::UNAUTHORIZED) && !has_credentials && !is_sign_in(route) {
        return None;
    }
    // A blob that came with its POST, or was mounted from another repository.
    if route == Route::V2Uploads && status == Some(StatusCode::CREATED) {
        return Some(("blob.push", outcome));
    }
    match change(route, method, path) {
        Some(event) => Some((event, outcome)),
        None if outcome == "denied" => Some(("access", outcome)),
        None => None,
    }
}

fn is_sign_in(route: Route) -> bool {
    matches!(
        route,
        Route::Oauth2Token
            | Route::Oauth2Exchange
            | Route::IdentityToken
            | Route::IdentityManaged
            | Route::IdentityMachine
            | Route::IdentitySignIn
            | Route::IdentityCallback
            | Route::IdentityPassword
    )
}

fn change(route: Route, method: &Method, path: &str) -> Option<&'static str> {
    let digest = || route.subject(path).1.is_some_and(|r| r.contains(':') || r.contains("%3"));
    Some(match (route, method.as_str()) {
        (
            Route::Oauth2Token
            | Route::Oauth2Exchange
            | Route::IdentityToken
            | Route::IdentityManaged
            | Route::IdentityMachine,
            "GET" | "POST",
        ) => "sign_in",
        (Route::IdentitySignIn, "POST") | (Route::IdentityCallback, "GET") => "sign_in",
        (Route::IdentityPassword, "POST") => "password.change",
        (Route::IdentityDeviceCode, "POST") => "sign_in.start",
        (Route::V2Manifest, "PUT") => "manifest.push",
        (Route::V2Manifest, "DELETE") if digest() => "manifest.delete",
        (Route::V2Manifest | Route::AcrTag, "DELETE") => "tag.delete",
        (Route::V2Blob, "DELETE") => "blob.delete",
        (Route::V2Uploads, "POST") => "upload.start",
        (Route::V2Upload, "PUT") => "blob.push",
        (Route::V2Upload, "DELETE") => "upload.cancel",
        (Route::AcrRepository, "DELETE") => "repository.delete",
        (Route::AcrManifest, "DELETE") => "manifest.delete",
        (Route::AcrRepository | Route::AcrTag | Route::AcrManifest, "PATCH") => "attributes.change",
        (Route::SignedBlob, "PUT") => "context.upload",
        (Route::ArmGroup, "PUT" | "PATCH") => "group.change",
        (Route::ArmGroup, "DELETE") => "group.delete",
        (Route::ArmRegistry, "PUT" | "PATCH") => "registry.change",
        (Route::ArmRegistry, "DELETE") => "registry.delete",
        (Route::ArmListCredentials, "POST") => "credentials.read",
        (Route::ArmRegenerateCredential, "POST") => "credentials.change",
        (Route::ArmUploadUrl, "POST") => "upload_url.create",
        (Route::ArmScheduleRun, "POST") => "run.start",
        (Route::ArmRun, "PATCH" | "PUT") => "run.change",
        (Route::ArmRunLog, "POST") => "log_url.create",
        (Route::ArmRunCancel, "POST") => "run.cancel",
        (Route::ArmCacheRule, "PUT" | "PATCH") => "cache_rule.change",
        (Route::ArmCacheRule, "DELETE") => "cache_rule.delete",
        (Route::ArmCustomDomain, "PUT") => "host.change",
        (Route::ArmCustomDomain, "DELETE") => "host.delete",
        (Route::ArmLock, "PUT") => "lock.change",
        (Route::ArmLock, "DELETE") => "lock.delete",
        (Route::ArmPricing, "PUT") => "security_plan.change",
        (Route::ArmScopeMap, "PUT" | "PATCH") => "scope_map.change",
        (Route::ArmScopeMap, "DELETE") => "scope_map.delete",
        (Route::ArmToken, "PUT" | "PATCH") => "token.change",
        (Route::ArmToken, "DELETE") => "token.delete",
        (Route::ArmGenerateCredentials, "POST") => "credentials.change",
        (Route::ArmIdentity, "PUT" | "PATCH") => "identity.change",
        (Route::ArmIdentity, "DELETE") => "identity.delete",
        (Route::ArmIdentitySecret, "POST") => "credentials.change",
        (Route::ArmIdentityFederatedOne, "PUT" | "DELETE") => "credentials.change",
        (Route::IdentityKeys, "POST") => "signing_key.change",
        (Route::GraphUsers, "POST") | (Route::GraphUser, "PATCH") => "user.change",
        (Route::GraphUser, "DELETE") => "user.delete",
        (Route::GraphUserOther, "POST") => "user.change",
        (Route::GraphApplications, "POST") | (Route::GraphApplication, "PATCH") => "application.change",
        (Route::GraphApplication, "DELETE") => "application.delete",
        (Route::GraphPrincipals, "POST") | (Route::GraphPrincipal, "PATCH") => "service_principal.change",
        (Route::GraphPrincipal, "DELETE") => "service_principal.delete",
        (
            Route::GraphApplicationAddPassword
            | Route::GraphApplicationRemovePassword
            | Route::GraphPrincipalAddPassword
            | Route::GraphPrincipalRemovePassword
            | Route::GraphFederated
            | Route::GraphFederatedOne,
            "POST" | "PATCH" | "DELETE",
        ) => "credentials.change",
        (Route::GraphOther | Route::GraphApplicationOther | Route::GraphPrincipalOther, "PUT" | "PATCH" | "DELETE") => {
            "resource.change"
        }
        // What is not known by name is still a change when its method says so.
        (Route::ArmRegistryPart | Route::ArmRegistryOther | Route::ArmOther, "PUT" | "PATCH" | "POST" | "DELETE") => {
            "resource.change"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Door;

    fn told(method: &Method, path: &str, status: u16, has_credentials: bool) -> Option<(&'static str, &'static str)> {
        let route = Route::of(Door::of(path), path);
        of(route, method, path, StatusCode::from_u16(status).ok().filter(|_| status != 999), has_credentials)
    }

    #[test]
    fn changes_sign_ins_and_refusals_are_told() {
        let d = "sha256:00";
        for (method, path, status, expected) in [
            (Method::PUT, "/v2/a/manifests/v1".to_owned(), 201, Some(("manifest.push", "success"))),
            (Method::PUT, "/v2/a/manifests/v1".to_owned(), 403, Some(("manifest.push", "denied"))),
            (Method::PUT, "/v2/a/manifests/v1".to_owned(), 400, Some(("manifest.push", "failed"))),
            (Method::PUT, "/v2/a/manifests/v1".to_owned(), 429, Some(("manifest.push", "limited"))),
            (Method::PUT, "/v2/a/manifests/v1".to_owned(), 999, Some(("manifest.push", "abandoned"))),
            (Method::DELETE, "/v2/a/manifests/v1".to_owned(), 202, Some(("tag.delete", "success"))),
            (Method::DELETE, format!("/v2/a/manifests/{d}"), 202, Some(("manifest.delete", "success"))),
            (Method::GET, "/v2/a/manifests/v1".to_owned(), 200, None),
            (Method::GET, "/v2/a/manifests/v1".to_owned(), 404, None),
            (Method::GET, "/v2/a/manifests/v1".to_owned(), 403, Some(("access", "denied"))),
            (Method::POST, "/oauth2/token".to_owned(), 200, Some(("sign_in", "success"))),
            (Method::POST, "/oauth2/token".to_owned(), 401, Some(("sign_in", "denied"))),
            (Method::GET, "/healthz".to_owned(), 200, None),
        ] {
            assert_eq!(told(&method, &path, status, true), expected, "{method} {path} {status}");
        }
    }

    #[test]
    fn the_first_challenge_of_every_push_is_not() {
        assert_eq!(told(&Method::GET, "/v2/", 401, false), None);
        assert_eq!(told(&Method::POST, "/v2/a/blobs/uploads/", 401, false), None);
        assert_eq!(told(&Method::GET, "/v2/", 401, true), Some(("access", "denied")));
        assert_eq!(told(&Method::POST, "/oauth2/token", 401, false), Some(("sign_in", "denied")));
    }
}
