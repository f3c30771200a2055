//! Cache rules: which repositories stand for ones of another registry.

use reqwest::Method;
use serde_json::{Value, json};

use super::{ArmClient, RegistryRef};
use crate::error::Result;
use crate::transport;

impl ArmClient {
    fn cache_rule_path(&self, registry: &RegistryRef, rule: &str) -> String {
        format!("{}/cacheRules/{}", self.registry_path(registry), transport::segment(rule))
    }

    /// All cache rules of a registry.
    pub async fn cache_rules(&self, registry: &RegistryRef) -> Result<Vec<Value>> {
        self.list(&format!("{}/cacheRules", self.registry_path(registry)), "").await
    }

    /// One cache rule.
    pub async fn cache_rule(&self, registry: &RegistryRef, rule: &str) -> Result<Value> {
        self.get(&self.cache_rule_path(registry, rule)).await
    }

    /// Make a cache rule: `source` (`docker.io/library/ubuntu`) stands behind `target` (`ubuntu`).
    pub async fn put_cache_rule(
        &self,
        registry: &RegistryRef,
        rule: &str,
        source: &str,
        target: &str,
    ) -> Result<Value> {
        let body = json!({"properties": {"sourceRepository": source, "targetRepository": target}});
        self.request(Method::PUT, &self.cache_rule_path(registry, rule), Some(&body)).await
    }

    /// Delete a cache rule; what it has brought in stays.
    pub async fn delete_cache_rule(&self, registry: &RegistryRef, rule: &str) -> Result<()> {
        self.request::<Value>(Method::DELETE, &self.cache_rule_path(registry, rule), None).await.map(drop)
    }
}
