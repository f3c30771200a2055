//! What clients read before they sign in: where everything is, and who verifies tokens.

use http::request::Parts;
use serde_json::{Value, json};

use crate::App;
use crate::http::caller::base_url;
use crate::http::host;

/// The document that `az cloud register` reads.
pub(super) fn endpoints(app: &App, parts: &Parts) -> Value {
    let base = base_url(app, parts);
    let suffix = app.service.login_server_suffix();
    let bare = host::without_port(app.service.authority_for(host::of(parts)));
    json!({
        "name": "Portolan",
        "portal": base,
        "resourceManager": base,
        "authentication": {
            "loginEndpoint": base,
            "audiences": [base],
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "graphAudience": base,
        "graph": base,
        "microsoftGraphResourceId": base,
        "suffixes": {
            "acrLoginServer": suffix,
            "storage": bare,
            "keyVaultDns": format!("vault.{bare}"),
        },
    })
}

/// OpenID Connect Discovery 1.0, "OpenID Provider Metadata".
pub(super) fn discovery(app: &App, parts: &Parts) -> Value {
    let base = base_url(app, parts);
    let tenant = app.service.tenant_id();
    json!({
        "issuer": format!("{base}/{tenant}/v2.0"),
        "authorization_endpoint": format!("{base}/{tenant}/oauth2/v2.0/authorize"),
        "token_endpoint": format!("{base}/{tenant}/oauth2/v2.0/token"),
        "device_authorization_endpoint": format!("{base}/{tenant}/oauth2/v2.0/devicecode"),
        "jwks_uri": format!("{base}/{tenant}/discovery/v2.0/keys"),
        "end_session_endpoint": format!("{base}/{tenant}/oauth2/v2.0/logout"),
        "grant_types_supported": [
            "authorization_code", "client_credentials", "password", "refresh_token",
            "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "token_endpoint_auth_methods_supported":
            ["client_secret_post", "client_secret_basic", "private_key_jwt", "none"],
        "token_endpoint_auth_signing_alg_values_supported":
            ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"],
        "code_challenge_methods_supported": ["S256"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "form_post"],
        // `sub` is the object id, whichever client asks.
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nbf", "auth_time", "amr", "nonce", "name", "preferred_username", "tid", "oid", "appid", "ver"],
    })
}
