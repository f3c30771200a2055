//! Custom domains: host names of a registry's own. Not in ACR; see `docs/reference/registries.md`.

use reqwest::Method;
use serde_json::{Value, json};

use super::{ArmClient, RegistryRef};
use crate::error::Result;
use crate::transport;

impl ArmClient {
    fn custom_domain_path(&self, registry: &RegistryRef, host: &str) -> String {
        format!("{}/customDomains/{}", self.registry_path(registry), transport::segment(host))
    }

    /// All custom domains of a registry.
    pub async fn custom_domains(&self, registry: &RegistryRef) -> Result<Vec<Value>> {
        self.list(&format!("{}/customDomains", self.registry_path(registry)), "").await
    }

    /// One custom domain.
    pub async fn custom_domain(&self, registry: &RegistryRef, host: &str) -> Result<Value> {
        self.get(&self.custom_domain_path(registry, host)).await
    }

    /// Make a custom domain, or change its certificate: a chain and its key (PEM). Without
    /// them the certificate stays; with an empty chain and no key it goes.
    pub async fn put_custom_domain(
        &self,
        registry: &RegistryRef,
        host: &str,
        certificate: Option<&str>,
        key: Option<&str>,
    ) -> Result<Value> {
        let mut properties = json!({});
        if let Some(chain) = certificate {
            properties["certificate"] = chain.into();
        }
        if let Some(key) = key {
            properties["privateKey"] = key.into();
        }
        let body = json!({"properties": properties});
        self.request(Method::PUT, &self.custom_domain_path(registry, host), Some(&body)).await
    }

    /// Delete a custom domain.
    pub async fn delete_custom_domain(&self, registry: &RegistryRef, host: &str) -> Result<()> {
        self.request::<Value>(Method::DELETE, &self.custom_domain_path(registry, host), None).await.map(drop)
    }

    /// The bytes that each repository of a registry holds, by name.
    pub async fn repository_usages(&self, registry: &RegistryRef) -> Result<Vec<Value>> {
        self.list(&format!("{}/listRepositoryUsages", self.registry_path(registry)), "").await
    }
}
