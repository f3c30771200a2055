//! The objects of the directory as Graph writes them, and its bodies read.

use portolan_service::Error;
use portolan_service::directory::{
    Application, Credentials, DirectoryObject, FederatedCredential, FederatedInput, KeyInput, PasswordInfo,
    PasswordInput, PrincipalKind, ServicePrincipal, User,
};
use portolan_types::digest::hex;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{bad_request, invalid, take_text, take_time};

/// Any object, with the member that says what it is.
pub(super) fn object(object: &DirectoryObject, tenant: Uuid) -> Value {
    let (kind, mut value) = match object {
        DirectoryObject::User(one) => ("#microsoft.graph.user", user(one)),
        DirectoryObject::ServicePrincipal(one) => ("#microsoft.graph.servicePrincipal", principal(one, tenant)),
    };
    value["@odata.type"] = json!(kind);
    value
}

/// A user. What was never set is `null`.
pub(super) fn user(user: &User) -> Value {
    let mut value = json!({
        "businessPhones": [],
        "displayName": user.display_name,
        "givenName": null,
        "id": user.object_id,
        "jobTitle": null,
        "mail": null,
        "mobilePhone": null,
        "officeLocation": null,
        "preferredLanguage": null,
        "surname": null,
        "userPrincipalName": user.user_name,
        "accountEnabled": user.enabled,
        "createdDateTime": user.created.rfc3339(),
    });
    set(&mut value, &user.properties);
    value
}

/// An application.
pub(super) fn application(app: &Application) -> Value {
    let mut value = json!({
        "addIns": [],
        "api": {"acceptMappedClaims": null, "knownClientApplications": [], "oauth2PermissionScopes": [],
                "preAuthorizedApplications": [], "requestedAccessTokenVersion": null},
        "appId": app.app_id,
        "appRoles": [],
        "createdDateTime": app.created.rfc3339(),
        "deletedDateTime": null,
        "description": null,
        "displayName": app.display_name,
        "id": app.object_id,
        "identifierUris": [],
        "isFallbackPublicClient": null,
        "keyCredentials": keys(&app.credentials),
        "notes": null,
        "optionalClaims": null,
        "passwordCredentials": passwords(&app.credentials),
        "publicClient": {"redirectUris": []},
        "requiredResourceAccess": [],
        "serviceManagementReference": null,
        "signInAudience": "AzureADMyOrg",
        "spa": {"redirectUris": []},
        "tags": [],
        "web": {"homePageUrl": null, "implicitGrantSettings":
                {"enableAccessTokenIssuance": false, "enableIdTokenIssuance": false},
                "logoutUrl": null, "redirectUriSettings": [], "redirectUris": []},
    });
    set(&mut value, &app.properties);
    value
}

/// A service principal or managed identity.
pub(super) fn principal(principal: &ServicePrincipal, tenant: Uuid) -> Value {
    let managed = principal.kind == PrincipalKind::ManagedIdentity;
    let names: Vec<String> =
        std::iter::once(principal.app_id.to_string()).chain(principal.identifier_uris.iter().cloned()).collect();
    let mut value = json!({
        "accountEnabled": principal.enabled,
        "addIns": [],
        "alternativeNames": [],
        "appDisplayName": if managed { Value::Null } else { json!(principal.display_name) },
        "appId": principal.app_id,
        "appOwnerOrganizationId": if managed { Value::Null } else { json!(tenant) },
        "appRoleAssignmentRequired": false,
        "appRoles": [],
        "createdDateTime": principal.created.rfc3339(),
        "deletedDateTime": null,
        "description": null,
        "displayName": principal.display_name,
        "homepage": null,
        "id": principal.object_id,
        "keyCredentials": keys(&principal.credentials),
        "loginUrl": null,
        "logoutUrl": null,
        "notes": null,
        "notificationEmailAddresses": [],
        "oauth2PermissionScopes": [],
        "passwordCredentials": passwords(&principal.credentials),
        "preferredSingleSignOnMode": null,
        "replyUrls": [],
        "servicePrincipalNames": names,
        "servicePrincipalType": if managed { "ManagedIdentity" } else { "Application" },
        "signInAudience": if managed { Value::Null } else { json!("AzureADMyOrg") },
        "tags": [],
    });
    set(&mut value, &principal.properties);
    if let Some(resource) = &principal.resource {
        value["alternativeNames"] = json!(["isExplicit=True", resource]);
    }
    value
}

/// A password, and its text where it was just made.
pub(super) fn password(info: &PasswordInfo, secret: Option<&str>) -> Value {
    json!({
        "customKeyIdentifier": null,
        "displayName": info.name,
        "endDateTime": info.expires.map(|t| t.rfc3339()),
        "hint": info.hint,
        "keyId": info.id,
        "secretText": secret,
        "startDateTime": info.starts.rfc3339(),
    })
}

fn passwords(credentials: &Credentials) -> Vec<Value> {
    credentials.passwords.iter().map(|info| password(info, None)).collect()
}

fn keys(credentials: &Credentials) -> Vec<Value> {
    credentials
        .keys
        .iter()
        .map(|key| {
            json!({
                "customKeyIdentifier": hex(&key.thumbprint).to_uppercase(),
                "displayName": key.name,
                "endDateTime": key.expires.map(|t| t.rfc3339()),
                "key": null,
                "keyId": key.id,
                "startDateTime": key.starts.rfc3339(),
                "type": "AsymmetricX509Cert",
                "usage": "Verify",
            })
        })
        .collect()
}

/// A federated credential.
pub(super) fn federated(credential: &FederatedCredential) -> Value {
    json!({
        "audiences": credential.audiences,
        "description": credential.description,
        "id": credential.id,
        "issuer": credential.issuer,
        "name": credential.name,
        "subject": credential.subject,
    })
}

fn set(value: &mut Value, properties: &Map<String, Value>) {
    for (name, given) in properties {
        match (value.get_mut(name), given) {
            (Some(Value::Object(there)), Value::Object(given)) => {
                for (name, given) in given {
                    there.insert(name.clone(), given.clone());
                }
            }
            _ => value[name.as_str()] = given.clone(),
        }
    }
}

/// Take `keyCredentials` out of a body.
pub(super) fn take_keys(body: &mut Map<String, Value>) -> Result<Option<Vec<KeyInput>>, Error> {
    match body.remove("keyCredentials") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(keys)) => keys.into_iter().map(key).collect::<Result<_, _>>().map(Some),
        Some(_) => Err(invalid("keyCredentials")),
    }
}

fn key(value: Value) -> Result<KeyInput, Error> {
    let Value::Object(mut key) = value else { return Err(invalid("keyCredentials")) };
    let id = match take_text(&mut key, "keyId")? {
        Some(id) => Some(Uuid::try_parse(&id).map_err(|_| invalid("keyId"))?),
        None => None,
    };
    let kind = take_text(&mut key, "type")?.unwrap_or_else(|| "AsymmetricX509Cert".to_owned());
    let usage = take_text(&mut key, "usage")?.unwrap_or_else(|| "Verify".to_owned());
    if !kind.eq_ignore_ascii_case("AsymmetricX509Cert") || !usage.eq_ignore_ascii_case("Verify") {
        return Err(bad_request("A key credential must be of type 'AsymmetricX509Cert' and usage 'Verify'."));
    }
    Ok(KeyInput {
        id,
        name: take_text(&mut key, "displayName")?,
        certificate: take_text(&mut key, "key")?,
        starts: take_time(&mut key, "startDateTime")?,
        expires: take_time(&mut key, "endDateTime")?,
    })
}

/// Passwords are made by `addPassword`; that there are none can be said again.
pub(super) fn no_passwords(body: &mut Map<String, Value>) -> Result<(), Error> {
    match body.remove("passwordCredentials") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Array(all)) if all.is_empty() => Ok(()),
        Some(_) => Err(bad_request("Passwords are made with addPassword and taken away with removePassword.")),
    }
}

/// The body of `addPassword`.
pub(super) fn password_input(mut body: Map<String, Value>) -> Result<PasswordInput, Error> {
    let mut given = match body.remove("passwordCredential") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(given)) => given,
        Some(_) => return Err(invalid("passwordCredential")),
    };
    if given.get("secretText").is_some_and(|text| !text.is_null()) {
        return Err(bad_request("The text of a password is the server's to choose."));
    }
    Ok(PasswordInput {
        name: take_text(&mut given, "displayName")?,
        starts: take_time(&mut given, "startDateTime")?,
        expires: take_time(&mut given, "endDateTime")?,
    })
}

/// The body of `removePassword`: which.
pub(super) fn key_id(mut body: Map<String, Value>) -> Result<Uuid, Error> {
    let text = take_text(&mut body, "keyId")?.ok_or_else(|| bad_request("Property 'keyId' is required."))?;
    Uuid::try_parse(&text).map_err(|_| invalid("keyId"))
}

/// The body of a federated credential, and the name in it.
pub(super) fn federated_input(mut body: Map<String, Value>) -> Result<(Option<String>, FederatedInput), Error> {
    let name = take_text(&mut body, "name")?;
    let audiences = match body.remove("audiences") {
        None | Some(Value::Null) => None,
        Some(Value::Array(all)) => {
            let all: Option<Vec<String>> = all.iter().map(|a| a.as_str().map(str::to_owned)).collect();
            Some(all.ok_or_else(|| invalid("audiences"))?)
        }
        Some(_) => return Err(invalid("audiences")),
    };
    let description = match body.remove("description") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(Value::String(text)) => Some(Some(text)),
        Some(_) => return Err(invalid("description")),
    };
    let input = FederatedInput {
        issuer: take_text(&mut body, "issuer")?,
        subject: take_text(&mut body, "subject")?,
        audiences,
        description,
    };
    Ok((name, input))
}
