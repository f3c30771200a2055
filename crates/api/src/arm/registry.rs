//! Registries (`Microsoft.ContainerRegistry/registries`).

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ArmClient;
use crate::error::Result;
use crate::transport;

/// What the client reads of a registry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registry {
    /// The full ARM id.
    pub id: String,
    /// The name, in the case it was made with.
    pub name: String,
    /// The home region.
    #[serde(default)]
    pub location: String,
    /// The tier.
    pub sku: Sku,
    /// The rest.
    pub properties: RegistryProperties,
}

/// A registry's tier.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sku {
    /// `Basic`, `Standard` or `Premium`.
    pub name: String,
}

/// What the client reads of a registry's properties.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryProperties {
    /// Host and port of the data plane.
    pub login_server: String,
    /// Whether the admin user may sign in.
    #[serde(default)]
    pub admin_user_enabled: bool,
}

/// A registry named by its group and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryRef {
    /// The resource group.
    pub group: String,
    /// The name.
    pub name: String,
}

impl Registry {
    /// The resource group, out of the id.
    pub fn group(&self) -> Option<&str> {
        let mut parts = self.id.split('/');
        parts.find(|p| p.eq_ignore_ascii_case("resourceGroups"))?;
        parts.next()
    }
}

const PROVIDER: &str = "providers/Microsoft.ContainerRegistry";

impl ArmClient {
    pub(crate) fn registry_path(&self, registry: &RegistryRef) -> String {
        format!("{}/{PROVIDER}/registries/{}", self.group_path(&registry.group), transport::segment(&registry.name))
    }

    /// One registry, as JSON.
    pub async fn registry(&self, registry: &RegistryRef) -> Result<Value> {
        self.get(&self.registry_path(registry)).await
    }

    /// The registries of a group, or of the subscription.
    pub async fn registries(&self, group: Option<&str>) -> Result<Vec<Value>> {
        let scope = group.map_or_else(|| self.subscription_path(), |g| self.group_path(g));
        self.list(&format!("{scope}/{PROVIDER}/registries"), "").await
    }

    /// Make a registry, or change it to what is given. `body`: location, sku, properties, tags.
    pub async fn put_registry(&self, registry: &RegistryRef, body: &Value) -> Result<Value> {
        self.request(Method::PUT, &self.registry_path(registry), Some(body)).await
    }

    /// Change the members given.
    pub async fn patch_registry(&self, registry: &RegistryRef, body: &Value) -> Result<Value> {
        self.request(Method::PATCH, &self.registry_path(registry), Some(body)).await
    }

    /// Delete a registry and all in it.
    pub async fn delete_registry(&self, registry: &RegistryRef) -> Result<()> {
        self.request::<Value>(Method::DELETE, &self.registry_path(registry), None).await.map(drop)
    }

    /// Whether a name is free: `{nameAvailable, reason, message, …}`.
    pub async fn check_registry_name(&self, name: &str) -> Result<Value> {
        let body = json!({"name": name, "type": "Microsoft.ContainerRegistry/registries"});
        let path = format!("{}/{PROVIDER}/checkNameAvailability", self.subscription_path());
        self.request(Method::POST, &path, Some(&body)).await
    }

    /// The admin user's name and both passwords.
    pub async fn registry_credentials(&self, registry: &RegistryRef) -> Result<Value> {
        self.request(Method::POST, &format!("{}/listCredentials", self.registry_path(registry)), None).await
    }

    /// Make a new `password` or `password2`.
    pub async fn renew_registry_credential(&self, registry: &RegistryRef, which: &str) -> Result<Value> {
        let path = format!("{}/regenerateCredential", self.registry_path(registry));
        self.request(Method::POST, &path, Some(&json!({"name": which}))).await
    }

    /// Quotas and what is used of them.
    pub async fn registry_usages(&self, registry: &RegistryRef) -> Result<Value> {
        self.get(&format!("{}/listUsages", self.registry_path(registry))).await
    }
}
