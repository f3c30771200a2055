//! Sign-in at the organisation's own OpenID provider: who somebody there is here.
//!
//! The server has sent the person there and has verified the id token that came back; what it
//! says is a [`Stranger`]. Somebody known is who they were the last time, by the provider's
//! issuer and the subject, the one name that never changes and is never used again there.
//! Somebody new must be allowed in: by the domain of their name, by a claim that the operator
//! demands. Then they become a user of this directory, or, where the operator has said so,
//! the user of that name who is there already.
//!
//! A user who was made here signs in as before; roles are given to users here, whoever vouches
//! for them.

use std::time::Duration;

use portolan_store::meta;
use portolan_store::meta::principal::PrincipalRow;
use portolan_types::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Method, Proof, invalid_grant};
use crate::service::Service;
use crate::{Error, Kind, Result};

/// Longest name that is taken from a claim, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Principals that the directory has at most when somebody new comes by themselves.
const PRINCIPALS_MAX: u64 = 100_000;

/// Who may come from the organisation's own provider, and under which name.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// The provider's issuer, as its tokens say.
    pub issuer: String,
    /// What the sign-in page calls it.
    pub name: String,
    /// The claim that becomes the user name.
    pub user_claim: String,
    /// Domains of user names that may come, in lower case; none for all.
    pub domains: Vec<String>,
    /// A claim that must have this value, or hold it in a list.
    pub required: Option<(String, String)>,
    /// Whether somebody new becomes a user here.
    pub create: bool,
    /// Whether somebody new may be a user of that name who is there already.
    pub link: bool,
    /// How long after a sign-in there the refresh tokens of ours end.
    pub session: Duration,
}

/// What the provider says of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// `sub`: never used again for somebody else.
    pub subject: String,
    /// What they are to be called here.
    pub user_name: String,
    /// For people.
    pub display_name: String,
}

impl ProviderConfig {
    /// Whether an id token says all that is asked of it: else the provider is asked for more.
    pub fn suffices(&self, claims: &Map<String, Value>) -> bool {
        let required = self.required.as_ref().map(|(name, _)| name);
        [&self.user_claim].into_iter().chain(required).all(|name| claims.contains_key(name.as_str()))
    }

    /// Read the verified claims of an id token, and whether this one may come.
    ///
    /// Errors: `access_denied`, with a sentence for the person.
    pub fn admit(&self, claims: &Map<String, Value>) -> Result<Stranger> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
        let refused = |why: String| Error::new(Kind::Forbidden, "access_denied", why);
        let subject = text("sub").filter(|s| s.len() <= NAME_BYTES_MAX);
        let user_name = text(&self.user_claim).filter(|name| is_user_name(name));
        let (Some(subject), Some(user_name)) = (subject, user_name) else {
            return Err(refused(format!("{} does not say who you are (the claim '{}').", self.name, self.user_claim)));
        };
        // An address that the provider itself does not believe proves nothing.
        if self.user_claim == "email" && claims.get("email_verified").is_some_and(|v| !is_true(v)) {
            return Err(refused(format!("{} has not verified your e-mail address.", self.name)));
        }
        let domain = user_name.rsplit_once('@').map_or("", |(_, domain)| domain).to_lowercase();
        if !self.domains.is_empty() && !self.domains.contains(&domain) {
            return Err(refused(format!("People of '{domain}' may not sign in here.")));
        }
        if let Some((claim, wanted)) = &self.required
            && !claims.get(claim).is_some_and(|value| holds(value, wanted))
        {
            return Err(refused(format!("{} does not say that you may sign in here.", self.name)));
        }
        let display_name = text("name").filter(|n| n.len() <= NAME_BYTES_MAX && !n.chars().any(char::is_control));
        Ok(Stranger {
            subject: subject.to_owned(),
            user_name: user_name.to_owned(),
            display_name: display_name.unwrap_or(user_name).to_owned(),
        })
    }
}

/// Providers write it as a boolean or as a word.
fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true) || value.as_str() == Some("true")
}

fn holds(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted,
        Value::Array(values) => values.iter().any(|v| v.as_str() == Some(wanted)),
        Value::Bool(b) => wanted == if *b { "true" } else { "false" },
        _ => false,
    }
}

/// Whether somebody can be called this: one word, perhaps with a domain.
fn is_user_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.matches('@').count() <= 1
        && !name.chars().any(|c| c.is_control() || c.is_whitespace())
}

impl Service {
    /// Who somebody of the organisation's provider is here, made a user if need be.
    ///
    /// Errors: `access_denied`, with a sentence for the person.
    pub async fn provider_sign_in(&self, provider: &ProviderConfig, who: &Stranger, now: Timestamp) -> Result<Proof> {
        let denied = |why: &str| Error::new(Kind::Forbidden, "access_denied", why);
        let (issuer, subject) = (provider.issuer.clone(), who.subject.clone());
        let known = self.meta.read(move |tx| meta::sign_in::linked(tx, &issuer, &subject)).await?;
        let object_id = match known {
            Some(object_id) => object_id,
            None => self.welcome_stranger(provider, who, now).await?,
        };
        let snapshot = self.snapshot.load();
        match snapshot.principals.get(&object_id) {
            Some(state) if state.enabled => Ok(Proof { object_id, method: Method::Provider, at: now }),
            Some(_) => Err(invalid_grant("AADSTS50057: The user account is disabled.")),
            None => Err(denied("You are not a user here any more. Ask the administrator.")),
        }
    }

    /// Somebody who was not here before: who they are from now on.
    async fn welcome_stranger(&self, provider: &ProviderConfig, who: &Stranger, now: Timestamp) -> Result<Uuid> {
        let (issuer, who) = (provider.issuer.clone(), who.clone());
        let (may_create, may_link) = (provider.create, provider.link);
        self.alter(move |tx| {
            let denied = |why: &str| Err(Error::new(Kind::Forbidden, "access_denied", why));
            // Another request may have been first.
            if let Some(known) = meta::sign_in::linked(tx, &issuer, &who.subject)? {
                return Ok(known);
            }
            let object_id = match meta::principal::by_user_name(tx, &who.user_name)? {
                Some(_) if !may_link => {
                    return denied("There is a user of your name here already, who is not you. Ask the administrator.");
                }
                // One user here is one person there: a name that was given to somebody else
                // at the provider does not lead to the one who had it.
                Some(user) if meta::sign_in::is_linked(tx, &issuer, user.object_id)? => {
                    return denied(
                        "The user of your name here is somebody else at your provider. Ask the administrator.",
                    );
                }
                Some(user) => user.object_id,
                None if !may_create => {
                    return denied("You are not a user here. Ask the administrator to make you one.");
                }
                None if meta::principal::count(tx)? >= PRINCIPALS_MAX => {
                    return denied("There are too many users here. Ask the administrator.");
                }
                None => {
                    let user = PrincipalRow {
                        object_id: Uuid::new_v4(),
                        app_id: None,
                        kind: "User".to_owned(),
                        display_name: who.display_name,
                        enabled: true,
                        valid_from: Timestamp(0),
                        created: now,
                        user_name: Some(who.user_name),
                        properties: "{}".to_owned(),
                    };
                    meta::principal::insert(tx, &user)?;
                    user.object_id
                }
            };
            meta::sign_in::link(tx, &issuer, &who.subject, object_id, now)?;
            Ok(object_id)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> ProviderConfig {
        ProviderConfig {
            issuer: "https://id.example".into(),
            name: "Example".into(),
            user_claim: "email".into(),
            domains: vec!["example.com".into()],
            required: Some(("groups".into(), "registry".into())),
            create: true,
            link: false,
            session: Duration::from_secs(1),
        }
    }

    fn admit(config: &ProviderConfig, claims: Value) -> Result<Stranger> {
        config.admit(claims.as_object().unwrap())
    }

    #[test]
    fn who_may_come() {
        let good = json!({"sub": "1", "email": "Al@Example.com", "email_verified": true, "name": "Al", "groups": ["x", "registry"]});
        let al = Stranger { subject: "1".into(), user_name: "Al@Example.com".into(), display_name: "Al".into() };
        assert_eq!(admit(&config(), good.clone()).unwrap(), al);
        for (claim, value) in [
            ("email_verified", json!(false)),
            ("email_verified", json!("false")),
            ("email", json!("al@evil.example")),
            ("email", json!("al@example.com@evil.example")),
            ("email", json!("al@evil.example\n@example.com")),
            ("email", json!(["al@example.com"])),
            ("email", json!("")),
            ("sub", json!("")),
            ("sub", json!(1)),
            ("groups", json!(["registryx"])),
            ("groups", json!({"registry": true})),
        ] {
            let mut claims = good.clone();
            claims[claim] = value.clone();
            assert!(admit(&config(), claims).is_err(), "{claim} {value}");
        }
        let mut claims = good;
        claims.as_object_mut().unwrap().remove("groups");
        assert!(admit(&config(), claims.clone()).is_err());
        assert!(admit(&ProviderConfig { required: None, ..config() }, claims).is_ok());
    }
}
