//! The client itself.

use std::collections::BTreeMap;
use std::sync::Mutex;

use portolan_types::{Secret, Timestamp};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{PAGES_MAX, next_page};
use crate::error::{Error, Result};
use crate::identity::{ACR_RESOURCE, SignIn};
use crate::token::Token;
use crate::transport;

/// Items asked for on one page.
const PAGE_ITEMS: usize = 100;

/// How to get in.
#[derive(Clone, Debug)]
pub enum Login {
    /// By exchanging a directory token.
    Directory(SignIn),
    /// With the name and password of an admin user, token or service principal.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: Secret<String>,
    },
}

/// Tokens to keep from one command to the next.
#[derive(Clone, Debug, Default)]
pub struct AcrTokens {
    /// For access tokens of any scope.
    pub refresh: Option<Token>,
    /// By scope.
    pub access: BTreeMap<String, Token>,
}

/// A client of one registry's data plane.
#[derive(Debug)]
pub struct AcrClient {
    http: reqwest::Client,
    base: Url,
    service: String,
    login: Login,
    kept: Mutex<AcrTokens>,
}

impl AcrClient {
    /// `base`: `https://<login server>`. `kept`: tokens from before; stale ones do no harm.
    pub fn new(http: reqwest::Client, base: &str, login: Login, kept: AcrTokens) -> Result<AcrClient> {
        let base = transport::base_url(base)?;
        let service = base.port().map_or_else(
            || base.host_str().unwrap_or_default().to_owned(),
            |port| format!("{}:{port}", base.host_str().unwrap_or_default()),
        );
        Ok(AcrClient { http, base, service, login, kept: Mutex::new(kept) })
    }

    /// The tokens as they are now.
    pub fn kept(&self) -> AcrTokens {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn change_kept(&self, change: impl FnOnce(&mut AcrTokens)) {
        change(&mut self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// The refresh token that `docker login` takes as the password of [`super::TOKEN_USER`].
    /// A fresh one, so that it lives its full three hours.
    pub async fn refresh_token(&self) -> Result<Token> {
        let Login::Directory(sign_in) = &self.login else {
            return Err(Error::Local("a refresh token is made from a sign-in, not from a password".into()));
        };
        let directory = sign_in.token(ACR_RESOURCE).await?;
        let url = transport::join(&self.base, "/oauth2/exchange")?;
        let fields = [
            ("grant_type", "access_token"),
            ("service", &self.service),
            ("tenant", sign_in.tenant()),
            ("access_token", directory.secret.expose()),
        ];
        #[derive(Deserialize)]
        struct Answer {
            refresh_token: Secret<String>,
        }
        let response = transport::send_retried(&url, || self.http.post(url.clone()).form(&fields)).await?;
        let answer: Answer = transport::read_json(response).await?;
        let token = Token::new(answer.refresh_token, None, Timestamp::now());
        self.change_kept(|kept| kept.refresh = Some(token.clone()));
        Ok(token)
    }

    /// Ask the registry who we are to be: it must answer with a challenge.
    pub async fn challenge(&self) -> Result<()> {
        let url = transport::join(&self.base, "/v2/")?;
        match transport::send_limited(&url, || self.http.get(url.clone())).await {
            Err(Error::Refused(refusal)) if refusal.status == 401 => Ok(()),
            Ok(_) => Err(Error::protocol(&url, "it asks for no credentials")),
            Err(error) => Err(error),
        }
    }

    /// An access token for `scope`, kept or new.
    pub async fn access_token(&self, scope: &str) -> Result<Token> {
        let now = Timestamp::now();
        let kept = self.kept();
        if let Some(token) = kept.access.get(scope).filter(|t| t.is_fresh(now)) {
            return Ok(token.clone());
        }
        let token = match &self.login {
            Login::Password { username, password } => {
                self.token(&[
                    ("grant_type", "password"),
                    ("service", &self.service),
                    ("username", username),
                    ("password", password.expose()),
                    ("scope", scope),
                ])
                .await?
            }
            Login::Directory(_) => {
                let kept = kept.refresh.filter(|t| t.is_fresh(now));
                let was_kept = kept.is_some();
                let refresh = match kept {
                    Some(token) => token,
                    None => self.refresh_token().await?,
                };
                match self.token_by_refresh(&refresh, scope).await {
                    // A kept refresh token may be of a registry that was deleted and made anew.
                    Err(error) if was_kept && matches!(error.status(), Some(400 | 401)) => {
                        let refresh = self.refresh_token().await?;
                        self.token_by_refresh(&refresh, scope).await?
                    }
                    answer => answer?,
                }
            }
        };
        self.change_kept(|kept| {
            kept.access.retain(|_, t| t.is_fresh(now));
            kept.access.insert(scope.to_owned(), token.clone());
        });
        Ok(token)
    }

    async fn token_by_refresh(&self, refresh: &Token, scope: &str) -> Result<Token> {
        self.token(&[
            ("grant_type", "refresh_token"),
            ("service", &self.service),
            ("scope", scope),
            ("refresh_token", refresh.secret.expose()),
        ])
        .await
    }

    async fn token(&self, fields: &[(&str, &str)]) -> Result<Token> {
        #[derive(Deserialize)]
        struct Answer {
            access_token: Secret<String>,
            expires_in: Option<i64>,
        }
        let url = transport::join(&self.base, "/oauth2/token")?;
        let response = transport::send_retried(&url, || self.http.post(url.clone()).form(fields)).await?;
        let answer: Answer = transport::read_json(response).await?;
        Ok(Token::new(answer.access_token, answer.expires_in, Timestamp::now()))
    }

    /// `GET path`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, scope: &str) -> Result<T> {
        let url = transport::join(&self.base, path)?;
        transport::read_json(self.send(&Method::GET, &url, scope, None, "").await?).await
    }

    /// A manifest, as the registry has it.
    pub async fn manifest(&self, repo: &str, reference: &str) -> Result<bytes::Bytes> {
        let url =
            transport::join(&self.base, &format!("/v2/{}/manifests/{}", path(repo), transport::segment(reference)))?;
        let accept = crate::registry::ACCEPT_ALL.join(", ");
        let response = self.send(&Method::GET, &url, &format!("repository:{repo}:pull"), None, &accept).await?;
        transport::read_body(response, "the manifest", portolan_types::limits::MANIFEST_BYTES_MAX).await
    }

    /// `PATCH path`, answered with the object as it is now.
    pub async fn patch(&self, path: &str, scope: &str, body: &Value) -> Result<Value> {
        let url = transport::join(&self.base, path)?;
        transport::read_json(self.send(&Method::PATCH, &url, scope, Some(body), "").await?).await
    }

    /// `DELETE path`; the answer, if there is one in JSON.
    pub async fn delete(&self, path: &str, scope: &str) -> Result<Option<Value>> {
        let url = transport::join(&self.base, path)?;
        let response = self.send(&Method::DELETE, &url, scope, None, "").await?;
        let body = transport::read_body(response, "the answer", transport::ANSWER_BYTES_MAX).await?;
        Ok(serde_json::from_slice(&body).ok())
    }

    /// The items of a list (`member` of each page), in pages, at most `top`.
    pub async fn list(
        &self,
        path: &str,
        scope: &str,
        member: &str,
        top: Option<usize>,
        orderby: Option<&str>,
    ) -> Result<Vec<Value>> {
        let order = orderby.map(|o| format!("&orderby={o}")).unwrap_or_default();
        let first = top.map_or(PAGE_ITEMS, |top| top.clamp(1, PAGE_ITEMS));
        let mut url = transport::join(&self.base, &format!("{path}?n={first}{order}"))?;
        let mut items: Vec<Value> = Vec::new();
        for _ in 0..PAGES_MAX {
            let response = self.send(&Method::GET, &url, scope, None, "").await?;
            let next = next_page(&url, response.headers())?;
            let mut page: Value = transport::read_json(response).await?;
            if let Some(Value::Array(page)) = page.get_mut(member).map(Value::take) {
                items.extend(page);
            }
            match (next, top) {
                (_, Some(top)) if items.len() >= top => {
                    items.truncate(top);
                    return Ok(items);
                }
                (Some(next), _) => url = next,
                (None, _) => return Ok(items),
            }
        }
        Err(Error::protocol(&url, "the list does not end"))
    }

    /// Send with a token of the scope; when a kept one is refused, once more with a new one.
    async fn send(
        &self,
        method: &Method,
        url: &Url,
        scope: &str,
        body: Option<&Value>,
        accept: &str,
    ) -> Result<reqwest::Response> {
        let was_kept = self.kept().access.contains_key(scope);
        let token = self.access_token(scope).await?;
        match self.send_with(&token, method, url, body, accept).await {
            Err(error) if error.status() == Some(401) && was_kept => {
                self.change_kept(|kept| {
                    kept.access.remove(scope);
                });
                let token = self.access_token(scope).await?;
                self.send_with(&token, method, url, body, accept).await
            }
            answer => answer,
        }
    }

    async fn send_with(
        &self,
        token: &Token,
        method: &Method,
        url: &Url,
        body: Option<&Value>,
        accept: &str,
    ) -> Result<reqwest::Response> {
        transport::send_retried(url, || {
            let mut request = self.http.request(method.clone(), url.clone()).bearer_auth(token.secret.expose());
            if !accept.is_empty() {
                request = request.header(http::header::ACCEPT, accept);
            }
            match body {
                Some(body) => request.json(body),
                None => request,
            }
        })
        .await
    }
}

/// A repository name as a path: its slashes stay.
fn path(repo: &str) -> String {
    repo.split('/').map(transport::segment).collect::<Vec<_>>().join("/")
}
