//! A command's connection to the server: the profile, the cache, and clients made of them.
//!
//! What is known from before is used without asking: tokens until they run out, a
//! registry's login server until it fails. So most commands are one request.

use std::cell::RefCell;

use portolan_api::acr::{AcrClient, AcrTokens, Login};
use portolan_api::arm::{ArmClient, Registry, RegistryRef};
use portolan_api::graph::Graph;
use portolan_api::identity::{Credential, ManagedEndpoint, ManagedIdentity, SignIn, Which};
use portolan_api::transport::{self, TransportOptions};
use portolan_api::{Credentials, HttpClient, RegistryClient};
use portolan_types::Secret;
use serde_json::Value;

use crate::args::{self, Global, RegistryLogin};
use crate::error::{Failure, Result};
use crate::output::group_of_id;
use crate::profile::{Cache, ConfigDir, Identity, KeptRegistry, Profile, Who};

/// A signed-in command.
#[derive(Debug)]
pub(crate) struct Session {
    config: ConfigDir,
    profile: Profile,
    http: HttpClient,
    /// The control plane.
    pub arm: ArmClient,
    cache: RefCell<Cache>,
    changed: std::cell::Cell<bool>,
}

impl Session {
    /// From the profile. Fails when nobody is signed in; sends nothing.
    pub(crate) fn open(global: &Global) -> Result<Session> {
        let config = ConfigDir::find()?;
        let profile = config.profile()?.ok_or_else(|| {
            Failure::new("Please run 'portolan login' to sign in.").hint(
                "on the server's machine: `portolan login --bootstrap DATA/bootstrap.json`, DATA being the server's data folder",
            )
        })?;
        let cache = config.cache();
        Session::with(config, profile, cache, global.subscription.as_deref())
    }

    /// For a profile that is only being tried: with nothing kept from another.
    pub(crate) fn trying(profile: Profile) -> Result<Session> {
        Session::with(ConfigDir::find()?, profile, Cache::default(), None)
    }

    fn with(config: ConfigDir, profile: Profile, cache: Cache, subscription: Option<&str>) -> Result<Session> {
        let ca_pem = profile.ca_pem.as_ref().map(|p| p.clone().into_bytes());
        let http = transport::http_client(&TransportOptions { ca_pem, user_agent: None })?;
        let sign_in = sign_in(&http, &profile)?;
        let subscription = match subscription {
            Some(name) if name.eq_ignore_ascii_case(&profile.subscription_name) => &profile.subscription_id,
            Some(id) => id,
            None => &profile.subscription_id,
        };
        let arm = ArmClient::new(http.clone(), sign_in, subscription, cache.arm.clone().map(Into::into));
        Ok(Session { config, profile, http, arm, cache: RefCell::new(cache), changed: false.into() })
    }

    /// Who is signed in.
    pub(crate) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// A token of the directory for `resource`, or for the control plane.
    pub(crate) async fn directory_token(&self, resource: Option<&str>) -> Result<portolan_api::Token> {
        let sign_in = self.arm.sign_in();
        Ok(match resource {
            Some(resource) => sign_in.token(resource.trim_end_matches("/.default")).await?,
            None => sign_in.arm_token().await?,
        })
    }

    /// The directory.
    pub(crate) fn graph(&self) -> Graph<'_> {
        Graph(&self.arm)
    }

    /// The connections.
    pub(crate) fn http(&self) -> &HttpClient {
        &self.http
    }

    /// Where the profile is.
    pub(crate) fn config(&self) -> &ConfigDir {
        &self.config
    }

    /// Keep what this command learned. A failure costs the next command time, not more.
    pub(crate) fn keep(&self) {
        if let (Who::User { user_name, refresh_token }, Some(now)) =
            (&self.profile.who, self.arm.sign_in().refresh_token())
            && *refresh_token != now
        {
            let who = Who::User { user_name: user_name.clone(), refresh_token: now };
            if let Err(error) = self.config.update_profile(&Profile { who, ..self.profile.clone() }) {
                tracing::debug!(%error, "the refresh token was not kept");
            }
        }
        let token = self.arm.kept_token();
        let mut cache = self.cache.borrow_mut();
        let old = cache.arm.clone().map(portolan_api::Token::from);
        if token.as_ref().map(|t| t.secret.expose()) != old.as_ref().map(|t| t.secret.expose()) {
            cache.arm = token.map(Into::into);
            self.changed.set(true);
        }
        if self.changed.replace(false)
            && let Err(error) = self.config.set_cache(&cache)
        {
            tracing::debug!(%error, "the cache was not kept");
        }
    }

    /// A registry by name, and its group when the user gave one. Asks the server unless the
    /// registry was seen before.
    pub(crate) async fn registry(&self, name: &str, group: Option<&str>) -> Result<KeptRegistry> {
        let name = bare_name(name);
        let kept = self.cache.borrow().registries.get(&name.to_ascii_lowercase()).cloned();
        match kept.filter(|k| group.is_none_or(|g| g.eq_ignore_ascii_case(&k.group))) {
            Some(kept) => Ok(kept),
            None => self.find_registry(name, group).await,
        }
    }

    /// A registry for its data plane. Who may not see it in the control plane, as those who may
    /// only pull, can use it by its login server all the same, given or put together.
    pub(crate) async fn registry_to_use(&self, name: &str, group: Option<&str>) -> Result<KeptRegistry> {
        let unseen = match self.registry(name, group).await {
            Err(error) if error.exit == crate::error::EXIT_NOT_FOUND && group.is_none() => error,
            answer => return answer,
        };
        let login_server = match name.contains('.') {
            true => name.to_owned(),
            false => match self.arm.login_server_suffix().await? {
                Some(suffix) => format!("{name}.{suffix}"),
                None => return Err(unseen),
            },
        };
        Ok(KeptRegistry {
            name: bare_name(name).to_owned(),
            group: String::new(),
            login_server,
            refresh: None,
            access: Default::default(),
        })
    }

    /// A registry by name, asked of the server.
    pub(crate) async fn find_registry(&self, name: &str, group: Option<&str>) -> Result<KeptRegistry> {
        let (login_server, name) = (name, bare_name(name));
        let found = match group {
            Some(group) => {
                Some(self.arm.registry(&RegistryRef { group: group.to_owned(), name: name.to_owned() }).await?)
            }
            None => self.arm.registries(None).await?.into_iter().find(|r| {
                let is = |value: Option<&Value>, text: &str| {
                    value.and_then(Value::as_str).is_some_and(|v| v.eq_ignore_ascii_case(text))
                };
                is(r.get("name"), name) || is(r.pointer("/properties/loginServer"), login_server)
            }),
        };
        let Some(found) = found else {
            self.forget(name);
            return Err(Failure::not_found(format!(
                "(ResourceNotFound) The resource with name '{name}' and type 'Microsoft.ContainerRegistry/registries' could not be found in subscription '{}'.",
                self.arm.subscription()
            ))
            .hint("see what is there: `portolan acr list -o table`"));
        };
        self.saw_registry(&found)
    }

    /// Remember a registry that the server showed.
    pub(crate) fn saw_registry(&self, registry: &Value) -> Result<KeptRegistry> {
        let parsed: Registry = serde_json::from_value(registry.clone())
            .map_err(|e| Failure::new(format!("the server's registry does not parse: {e}")))?;
        let group = group_of_id(&parsed.id).unwrap_or_default().to_owned();
        let key = parsed.name.to_ascii_lowercase();
        let mut cache = self.cache.borrow_mut();
        let kept = cache.registries.get(&key).filter(|k| k.login_server == parsed.properties.login_server);
        let registry = KeptRegistry {
            name: parsed.name,
            group,
            login_server: parsed.properties.login_server,
            refresh: kept.and_then(|k| k.refresh.clone()),
            access: kept.map(|k| k.access.clone()).unwrap_or_default(),
        };
        cache.registries.insert(key, registry.clone());
        self.changed.set(true);
        Ok(registry)
    }

    /// Forget a registry that is gone.
    pub(crate) fn forget(&self, name: &str) {
        if self.cache.borrow_mut().registries.remove(&name.to_ascii_lowercase()).is_some() {
            self.changed.set(true);
        }
    }

    /// Do something with a registry's control plane. When a registry remembered is not
    /// there (any more), it is looked up and the thing done once more.
    pub(crate) async fn with_registry<T>(
        &self,
        name: &str,
        group: Option<&str>,
        work: impl AsyncFn(&RegistryRef) -> Result<T>,
    ) -> Result<T> {
        let kept = self.registry(name, group).await?;
        let by_name = |r: &KeptRegistry| RegistryRef { group: r.group.clone(), name: r.name.clone() };
        match work(&by_name(&kept)).await {
            Err(error) if error.status == Some(404) => {
                let found = self.find_registry(name, group).await?;
                if found.group == kept.group {
                    return Err(error);
                }
                work(&by_name(&found)).await
            }
            answer => answer,
        }
    }

    /// Do something with what lies below a registry, named by `rest` of its ARM id.
    pub(crate) async fn below<T>(
        &self,
        registry: &args::Registry,
        rest: &str,
        work: impl AsyncFn(&str) -> Result<T>,
    ) -> Result<T> {
        self.with_registry(&registry.name, registry.resource_group.as_deref(), async |r| {
            work(&format!("{}/{rest}", self.arm.registry_id(r))).await
        })
        .await
    }

    /// A registry's ARM id, for what takes several steps. Asked anew: the first of them may
    /// change something.
    pub(crate) async fn registry_id(&self, registry: &args::Registry) -> Result<String> {
        let found = self.find_registry(&registry.name, registry.resource_group.as_deref()).await?;
        Ok(self.arm.registry_id(&RegistryRef { group: found.group, name: found.name }))
    }

    /// A registry as the server shows it.
    pub(crate) async fn registry_object(&self, registry: &args::NamedRegistry) -> Result<Value> {
        let shown = self.with_registry(&registry.name, registry.resource_group.as_deref(), async |r| {
            Ok(self.arm.registry(r).await?)
        });
        shown.await
    }

    /// The same, of a Premium registry; of another, `refusal` is the error.
    pub(crate) async fn premium(&self, registry: &args::NamedRegistry, refusal: &str) -> Result<Value> {
        let shown = self.registry_object(registry).await?;
        match shown.pointer("/sku/name").and_then(Value::as_str) {
            Some(tier) if tier.eq_ignore_ascii_case("Premium") => Ok(shown),
            _ => Err(Failure::new(refusal)
                .hint(format!("change the tier: `portolan acr update -n {} --sku Premium`", registry.name))),
        }
    }

    /// Do something with a registry's data plane, with the same second try.
    pub(crate) async fn with_data_plane<T>(
        &self,
        name: &str,
        group: Option<&str>,
        login: &RegistryLogin,
        work: impl AsyncFn(&AcrClient) -> Result<T>,
    ) -> Result<T> {
        let kept = self.registry_to_use(name, group).await?;
        let client = self.data_plane(&kept, login)?;
        let answer = work(&client).await;
        if login.username.is_some() {
            return answer.map_err(|error| match error.status {
                Some(401) => error.hint("check --username and --password"),
                _ => error,
            });
        }
        self.keep_tokens(&kept, &client);
        match answer {
            // Refused or unreachable where the registry used to be: it may have moved.
            Err(error) if !kept.group.is_empty() && (error.unreachable || matches!(error.status, Some(401 | 404))) => {
                let found = match self.find_registry(name, group).await {
                    Ok(found) => found,
                    Err(gone) if gone.exit == crate::error::EXIT_NOT_FOUND => return Err(gone),
                    Err(_) => return Err(error),
                };
                if found.login_server == kept.login_server {
                    return Err(error);
                }
                let client = self.data_plane(&found, login)?;
                let answer = work(&client).await;
                self.keep_tokens(&found, &client);
                answer
            }
            answer => answer,
        }
    }

    /// A data-plane client with the tokens kept for the registry.
    pub(crate) fn data_plane(&self, registry: &KeptRegistry, login: &RegistryLogin) -> Result<AcrClient> {
        let base = self.data_plane_base(&registry.login_server);
        let (login, kept) = match (&login.username, &login.password) {
            (Some(username), Some(password)) => (
                Login::Password { username: username.clone(), password: password.clone().into() },
                AcrTokens::default(),
            ),
            _ => {
                let kept = AcrTokens {
                    refresh: registry.refresh.clone().map(Into::into),
                    access: registry.access.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect(),
                };
                (Login::Directory(self.arm.sign_in().clone()), kept)
            }
        };
        Ok(AcrClient::new(self.http.clone(), &base, login, kept)?)
    }

    fn keep_tokens(&self, registry: &KeptRegistry, client: &AcrClient) {
        let tokens = client.kept();
        let mut cache = self.cache.borrow_mut();
        let Some(kept) = cache.registries.get_mut(&registry.name.to_ascii_lowercase()) else {
            return;
        };
        let same = tokens.access.len() == kept.access.len()
            && tokens.access.iter().all(|(scope, token)| {
                kept.access.get(scope).is_some_and(|k| portolan_api::Token::from(k.clone()).secret == token.secret)
            });
        if !same {
            kept.refresh = tokens.refresh.map(Into::into);
            kept.access = tokens.access.into_iter().map(|(k, v)| (k, v.into())).collect();
            self.changed.set(true);
        }
    }

    /// An OCI client of a registry, for pulls.
    pub(crate) async fn oci_client(&self, registry: &KeptRegistry, login: &RegistryLogin) -> Result<RegistryClient> {
        let credentials = match (&login.username, &login.password) {
            (Some(username), Some(password)) => {
                Credentials::Basic { username: username.clone(), password: Secret::new(password.clone()) }
            }
            _ => Credentials::Refresh(self.data_plane(registry, login)?.refresh_token().await?.secret),
        };
        let base = self.data_plane_base(&registry.login_server);
        Ok(RegistryClient::with_http(self.http.clone(), &base, credentials)?)
    }

    /// The data plane speaks TLS, unless the server we signed in to is the login server, or
    /// the host above it, in plain HTTP.
    fn data_plane_base(&self, login_server: &str) -> String {
        let plain = self
            .profile
            .server
            .strip_prefix("http://")
            .is_some_and(|authority| login_server == authority || login_server.ends_with(&format!(".{authority}")));
        format!("{}://{login_server}", if plain { "http" } else { "https" })
    }
}

/// The sign-in of a profile.
pub(crate) fn sign_in(http: &HttpClient, profile: &Profile) -> Result<SignIn> {
    let base = transport::base_url(&profile.server)?;
    let credential = match &profile.who {
        Who::Secret { client_id, client_secret } => {
            Credential::Secret { client_id: client_id.clone(), secret: client_secret.clone() }
        }
        Who::Certificate { client_id, certificate } => {
            let pem = std::fs::read_to_string(certificate)
                .map_err(|e| Failure::new(format!("cannot read the certificate {}: {e}", certificate.display())))?;
            Credential::Certificate { client_id: client_id.clone(), pem: Secret::new(pem) }
        }
        Who::Federated { client_id, federated_token } => {
            Credential::Assertion { client_id: client_id.clone(), token: federated_token.clone() }
        }
        Who::User { refresh_token, .. } => Credential::Refresh(refresh_token.clone()),
        Who::Managed { managed_identity } => {
            let which = match managed_identity {
                Identity::Only => Which::Only,
                Identity::ClientId(id) => Which::ClientId(id.clone()),
                Identity::ObjectId(id) => Which::ObjectId(id.clone()),
                Identity::ResourceId(id) => Which::ResourceId(id.clone()),
            };
            Credential::Managed(ManagedIdentity { endpoint: managed_endpoint(), which })
        }
    };
    Ok(SignIn::with(http.clone(), base, &profile.tenant_id, credential))
}

/// Where managed identities are asked for: by the variables that every client of them reads.
fn managed_endpoint() -> ManagedEndpoint {
    let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    match (var("IDENTITY_ENDPOINT"), var("IDENTITY_HEADER"), var("MSI_ENDPOINT"), var("MSI_SECRET")) {
        (Some(url), Some(header), ..) => ManagedEndpoint::AppService { url, header: Secret::new(header) },
        (_, _, Some(url), Some(secret)) => ManagedEndpoint::Msi { url, secret: Secret::new(secret) },
        _ => {
            let host = var("AZURE_POD_IDENTITY_AUTHORITY_HOST");
            ManagedEndpoint::Imds { host: host.unwrap_or_else(|| "http://169.254.169.254".into()) }
        }
    }
}

/// A registry given by its login server is meant by its first label.
fn bare_name(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}
