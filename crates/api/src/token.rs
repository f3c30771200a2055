//! A token and the time it runs out.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portolan_types::{Secret, Timestamp};

/// How long before its end a token counts as run out: a request takes time to arrive.
const MARGIN_SECS: i64 = 30;
/// The life of a token that does not say how long it lives.
const LIFE_SECS_DEFAULT: i64 = 300;

/// A bearer token.
#[derive(Clone, Debug)]
pub struct Token {
    /// What goes behind `Bearer`.
    pub secret: Secret<String>,
    /// When it runs out, in seconds since 1970.
    pub expires: i64,
}

impl Token {
    /// A token that came at `now`. `expires_in` seconds, or what its own `exp` claim says,
    /// or five minutes.
    pub fn new(secret: Secret<String>, expires_in: Option<i64>, now: Timestamp) -> Token {
        let expires = match expires_in {
            Some(secs) => now.unix_secs().saturating_add(secs),
            None => claim_exp(secret.expose()).unwrap_or(now.unix_secs() + LIFE_SECS_DEFAULT),
        };
        Token { secret, expires }
    }

    /// A claim of a JWT that is text, such as `tid`. Nothing is verified.
    pub fn claim(&self, name: &str) -> Option<String> {
        let payload = URL_SAFE_NO_PAD.decode(self.secret.expose().split('.').nth(1)?).ok()?;
        let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
        claims.get(name)?.as_str().map(str::to_owned)
    }

    /// The actions of the first grant of a registry's access token (`access[0].actions`).
    pub fn granted_actions(&self) -> Vec<String> {
        let actions = || {
            let payload = URL_SAFE_NO_PAD.decode(self.secret.expose().split('.').nth(1)?).ok()?;
            let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
            let actions = claims.pointer("/access/0/actions")?.as_array()?;
            Some(actions.iter().filter_map(|a| a.as_str().map(str::to_owned)).collect())
        };
        actions().unwrap_or_default()
    }

    /// Whether it can still be sent at `now`.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now.unix_secs() + MARGIN_SECS < self.expires
    }
}

/// `exp` of a JWT. Nothing is verified: the token is ours to send, not to judge.
fn claim_exp(jwt: &str) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: i64,
    }
    let payload = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Claims>(&payload).ok().map(|c| c.exp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry() {
        let now = Timestamp::from_unix_secs(1_000);
        let jwt = format!("h.{}.s", URL_SAFE_NO_PAD.encode(r#"{"exp":5000}"#));
        assert_eq!(Token::new(jwt.into(), None, now).expires, 5_000);
        assert_eq!(Token::new(String::from("opaque").into(), None, now).expires, 1_300);
        let short = Token::new(String::from("x").into(), Some(60), now);
        assert!(short.is_fresh(now) && !short.is_fresh(Timestamp::from_unix_secs(1_031)));
    }
}
