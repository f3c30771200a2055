//! What can be attached to any scope: roles (`Microsoft.Authorization`), locks, the activity
//! log (`Microsoft.Insights`), security plans (`Microsoft.Security`).

use reqwest::Method;
use serde_json::Value;

use super::ArmClient;
use crate::error::Result;
use crate::transport;

/// A scope or resource id as a path: its slashes stay.
pub fn path_of(id: &str) -> String {
    let path = id.split('/').map(transport::segment).collect::<Vec<_>>().join("/");
    let path = path.trim_end_matches('/');
    if path.starts_with('/') || path.is_empty() { path.to_owned() } else { format!("/{path}") }
}

fn filter(text: &str) -> String {
    format!("&$filter={}", transport::segment(text))
}

impl ArmClient {
    /// `/subscriptions/{id}`, the scope commands mean when none is given.
    pub fn subscription_scope(&self) -> String {
        format!("/subscriptions/{}", self.subscription())
    }

    /// The ARM id of a registry.
    pub fn registry_id(&self, registry: &super::RegistryRef) -> String {
        format!(
            "{}/resourceGroups/{}/providers/Microsoft.ContainerRegistry/registries/{}",
            self.subscription_scope(),
            registry.group,
            registry.name
        )
    }

    /// Any object by its ARM id.
    pub async fn by_id(&self, id: &str) -> Result<Value> {
        self.get(&path_of(id)).await
    }

    /// Put an object at its ARM id.
    pub async fn put_by_id(&self, id: &str, body: &Value) -> Result<Value> {
        self.request(Method::PUT, &path_of(id), Some(body)).await
    }

    /// Change members of an object at its ARM id.
    pub async fn patch_by_id(&self, id: &str, body: &Value) -> Result<Value> {
        self.request(Method::PATCH, &path_of(id), Some(body)).await
    }

    /// Ask an object to do something: `POST id/action`.
    pub async fn post_by_id(&self, id: &str, body: Option<&Value>) -> Result<Value> {
        self.request(Method::POST, &path_of(id), body).await
    }

    /// Delete an object by its ARM id. Answers what it was, or `null`.
    pub async fn delete_by_id(&self, id: &str) -> Result<Value> {
        self.request(Method::DELETE, &path_of(id), None).await
    }

    /// All objects of a collection, such as `{scope}/providers/Microsoft.Authorization/locks`,
    /// that an OData filter lets through.
    pub async fn all_of(&self, collection: &str, odata: Option<&str>) -> Result<Vec<Value>> {
        self.list(&path_of(collection), &odata.map(filter).unwrap_or_default()).await
    }

    /// As [`all_of`](Self::all_of), with further members of the query, which begin with `&`.
    pub async fn all_of_with(&self, collection: &str, odata: Option<&str>, query: &str) -> Result<Vec<Value>> {
        self.list(&path_of(collection), &format!("{}{query}", odata.map(filter).unwrap_or_default())).await
    }
}

#[cfg(test)]
mod tests {
    use super::path_of;

    #[test]
    fn ids_stay_below_their_server() {
        assert_eq!(path_of("/subscriptions/s/resourceGroups/a b"), "/subscriptions/s/resourceGroups/a%20b");
        assert_eq!(path_of("subscriptions/s?x=1/"), "/subscriptions/s%3Fx%3D1");
        assert_eq!(path_of("/"), "");
        assert_eq!(path_of("//evil.example/x"), "//evil.example/x");
    }
}
