//! Who sent a request: `Authorization` turned into a `Ctx`.
//!
//! From memory alone: no query, and no signature check for a token that was seen before.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use http::header::AUTHORIZATION;
use http::request::Parts;
use portolan_auth::access::{Action, Principal, Target, scope_text};
use portolan_service::registry_auth::{NULL_USER, SignIn};
use portolan_service::{Ctx, Error, Kind, Reach, Registry};
use portolan_types::{RepoName, Secret, Timestamp};

use super::rate::Attempt;
use super::{Conn, RequestId, Who, host};
use crate::App;

/// Longest `Authorization` header that is looked at.
const HEADER_BYTES_MAX: usize = 96 * 1024;

/// What the logs have for a name that nobody here has.
const UNKNOWN_NAME: &str = "(unknown)";

/// Of a name that somebody claims, no more than this is kept for the logs.
const CLAIM_CHARS_MAX: usize = 128;

/// What an `Authorization` header holds.
#[derive(Debug)]
pub enum Credentials {
    /// No header.
    None,
    /// `Bearer`
    Bearer(Secret<String>),
    /// `Basic`
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret<String>,
    },
}

/// Read the `Authorization` header. `None` when it is there and cannot be read.
pub fn credentials(parts: &Parts) -> Option<Credentials> {
    let mut values = parts.headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Some(Credentials::None) };
    // Two headers: which one a proxy before us believed is not for us to guess.
    if values.next().is_some() || value.len() > HEADER_BYTES_MAX {
        return None;
    }
    let (scheme, rest) = value.to_str().ok()?.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Credentials::Bearer(Secret::new(rest.to_owned())));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        let (user, password) = pair.split_once(':')?;
        return Some(Credentials::Basic { user: user.to_owned(), password: Secret::new(password.to_owned()) });
    }
    None
}

/// The caller of the data plane of `registry`: a registry access token, or Basic with what
/// `docker login` takes. Nobody in particular without a header; [`Service::check`]
/// (portolan_service::Service::check) then says what to sign in for.
///
/// Errors: `Unauthenticated` with a challenge when the header is there and is not good.
pub fn data_plane(app: &App, registry: &Registry, parts: &Parts) -> Result<Ctx, Error> {
    let now = Timestamp::now();
    let signed_in = match credentials(parts) {
        Some(Credentials::None) => Ok((Principal::Anonymous, Reach::Principal)),
        Some(Credentials::Bearer(token)) => app.service.data_plane_bearer(registry, token.expose(), now),
        Some(Credentials::Basic { user, password }) => {
            claim(app, Some(registry), parts, &user);
            let sign_in = SignIn::Password { user: &user, password: password.expose() };
            let attempt = attempt(app, parts, registry, &sign_in)?;
            let signed_in = app.service.data_plane_basic(registry, &user, password.expose(), now);
            match attempt {
                Some(attempt) => attempt.answered(signed_in),
                None => signed_in,
            }
        }
        None => Err(Error::new(Kind::Unauthenticated, "UNAUTHORIZED", "the Authorization header cannot be read")),
    };
    let (principal, reach) = signed_in.map_err(|mut e| {
        e.challenge = Some(scope_wanted(&parts.method, parts.uri.path()));
        e
    })?;
    app.rates.request(reads(&parts.method), &principal, peer(parts))?;
    Ok(ctx(parts, principal, reach, now))
}

/// Ask whether a sign-in to a registry is looked at, and count it as failed unless it turns out
/// otherwise. Nobody in particular has nothing to guess.
///
/// Errors: `TOOMANYREQUESTS`.
pub(super) fn attempt<'a>(
    app: &'a App,
    parts: &Parts,
    registry: &Registry,
    sign_in: &SignIn<'_>,
) -> Result<Option<Attempt<'a>>, Error> {
    let peer = peer(parts);
    let attempt = match sign_in {
        SignIn::Anonymous => return Ok(None),
        // Everybody's refresh tokens go under one name, and nobody guesses one.
        SignIn::Refresh(_) | SignIn::Password { user: NULL_USER, .. } => app.rates.attempt(peer, None)?,
        // An application is the same one at every door; other names are a registry's own.
        SignIn::Password { user, .. } if uuid::Uuid::try_parse(user).is_ok() => app.rates.attempt(peer, Some(user))?,
        SignIn::Password { user, .. } => app.rates.attempt(peer, Some(&format!("{}/{user}", registry.name)))?,
    };
    Ok(Some(attempt))
}

/// The client's address, as far as the connection knows it.
pub(super) fn peer(parts: &Parts) -> IpAddr {
    parts.extensions.get::<Conn>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |conn| conn.peer.ip())
}

/// Note for the logs who somebody says they are, before it is known whether they are. What is
/// no name here is not written down: it may be a password in the wrong field.
pub(super) fn claim(app: &App, registry: Option<&Registry>, parts: &Parts, user: &str) {
    if let Some(who) = parts.extensions.get::<Who>() {
        match app.service.is_sign_in_name(registry, user) {
            true => who.claim(user.chars().take(CLAIM_CHARS_MAX).collect::<String>()),
            false => who.claim(UNKNOWN_NAME),
        }
    }
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// The caller of the control plane: a directory token for it.
///
/// Errors: `Unauthenticated` in ARM's words. Without a header the caller is nobody, which
/// the access check refuses.
pub fn control_plane(app: &App, parts: &Parts) -> Result<Ctx, Error> {
    let now = Timestamp::now();
    let principal = match credentials(parts) {
        Some(Credentials::None) => Principal::Anonymous,
        Some(Credentials::Bearer(token)) => app.service.control_plane_bearer(token.expose(), now)?,
        Some(Credentials::Basic { .. }) | None => {
            return Err(Error::new(
                Kind::Unauthenticated,
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is provided in an invalid format.",
            ));
        }
    };
    app.rates
        .request(reads(&parts.method), &principal, peer(parts))
        .map_err(|e| Error { code: "TooManyRequests", ..e })?;
    Ok(ctx(parts, principal, Reach::Principal, now))
}

/// The caller of Graph: a directory token for it.
///
/// Errors: `Unauthenticated`. Without a header the caller is nobody.
pub fn graph(app: &App, parts: &Parts) -> Result<Ctx, Error> {
    let now = Timestamp::now();
    let principal = match credentials(parts) {
        Some(Credentials::None) => Principal::Anonymous,
        Some(Credentials::Bearer(token)) => app.service.graph_bearer(token.expose(), now)?,
        Some(Credentials::Basic { .. }) | None => {
            return Err(Error::new(
                Kind::Unauthenticated,
                "InvalidAuthenticationToken",
                "The Authorization header is in an invalid format.",
            ));
        }
    };
    app.rates
        .request(reads(&parts.method), &principal, peer(parts))
        .map_err(|e| Error { code: "TooManyRequests", ..e })?;
    Ok(ctx(parts, principal, Reach::Principal, now))
}

/// `https://host[:port]` for URLs in answers: the host that the client used when it is one
/// of ours, else the configured one.
pub fn base_url(app: &App, parts: &Parts) -> String {
    let scheme = parts.extensions.get::<Conn>().map_or("https", |conn| conn.scheme);
    let mut base = String::with_capacity(64);
    // Writing to a String cannot fail.
    let _ = write!(base, "{scheme}://{}", app.service.authority_for(host::of(parts)));
    base
}

/// Tell the logs who it is.
pub(super) fn name(parts: &Parts, principal: &Principal) {
    if let Some(who) = parts.extensions.get::<Who>() {
        match principal {
            Principal::Directory { object_id, app_id } => match app_id {
                Some(app_id) => who.set("sp", app_id.to_string()),
                None => who.set("user", object_id.to_string()),
            },
            Principal::AdminUser(registry) => who.set("admin", registry.as_str()),
            Principal::Token { name, .. } => who.set("token", name.as_str()),
            Principal::Anonymous | Principal::System => {}
        }
    }
}

fn ctx(parts: &Parts, principal: Principal, reach: Reach, now: Timestamp) -> Ctx {
    name(parts, &principal);
    let request_id = parts.extensions.get::<RequestId>().map_or_else(String::new, |id| id.0.clone());
    Ctx { principal, reach, request_id, now }
}

/// The scope that a request of the data plane needs, for the challenge that answers a bad
/// token; empty when the path names no repository.
pub(super) fn scope_wanted(method: &Method, path: &str) -> String {
    let (rest, metadata) = match (path.strip_prefix("/v2/"), path.strip_prefix("/acr/v1/")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => return String::new(),
    };
    if rest == "_catalog" {
        return scope_text(&Target::Registry, Action::CatalogList);
    }
    let ends: &[&str] =
        if metadata { &["/_tags", "/_manifests"] } else { &["/manifests/", "/blobs/", "/tags/list", "/referrers/"] };
    let name = match ends.iter().filter_map(|end| rest.rfind(end)).max() {
        Some(at) => &rest[..at],
        None if metadata => rest,
        None => return String::new(),
    };
    let Ok(name) = name.parse::<RepoName>() else { return String::new() };
    let action = match (method, metadata) {
        (&Method::DELETE, _) => Action::Delete,
        (&Method::GET | &Method::HEAD, true) => Action::MetadataRead,
        (_, true) => Action::MetadataWrite,
        (&Method::GET | &Method::HEAD, false) => Action::Pull,
        (_, false) => Action::Push,
    };
    scope_text(&Target::Repo(name), action)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Option<Credentials> {
        let mut req = http::Request::builder().uri("/");
        for v in values {
            req = req.header("authorization", *v);
        }
        credentials(&req.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn headers_are_read_or_refused() {
        assert!(matches!(read(&[]), Some(Credentials::None)));
        assert!(matches!(read(&["bearer abc"]), Some(Credentials::Bearer(t)) if t.expose() == "abc"));
        assert!(
            matches!(read(&["Basic dTpwOnE="]), Some(Credentials::Basic { user, password }) if user == "u" && password.expose() == "p:q")
        );
        for bad in ["", "Bearer", "Basic !!!", "Basic dQ==", "Digest x", "Basic //8="] {
            assert!(read(&[bad]).is_none(), "{bad}");
        }
        assert!(read(&["Bearer a", "Bearer b"]).is_none());
    }

    #[test]
    fn the_scope_a_request_needs() {
        let scope = |method: &Method, path: &str| scope_wanted(method, path);
        assert_eq!(scope(&Method::GET, "/v2/"), "");
        assert_eq!(scope(&Method::GET, "/v2/a/b/manifests/v1"), "repository:a/b:pull");
        assert_eq!(scope(&Method::POST, "/v2/a/blobs/uploads/"), "repository:a:pull,push");
        assert_eq!(scope(&Method::DELETE, "/v2/a/manifests/v1"), "repository:a:delete");
        assert_eq!(scope(&Method::GET, "/v2/_catalog"), "registry:catalog:*");
        assert_eq!(scope(&Method::GET, "/acr/v1/a/b/_tags"), "repository:a/b:metadata_read");
        assert_eq!(scope(&Method::PATCH, "/acr/v1/a"), "repository:a:metadata_write");
        assert_eq!(scope(&Method::GET, "/v2/manifests/manifests/v1"), "repository:manifests:pull");
        assert_eq!(scope(&Method::GET, "/v2/\"x/manifests/v1"), "");
    }
}
