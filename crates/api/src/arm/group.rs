//! Resource groups (`Microsoft.Resources`).

use reqwest::Method;
use serde_json::{Value, json};

use super::ArmClient;
use crate::error::Result;

impl ArmClient {
    /// Make a resource group, or change it to what is given.
    pub async fn put_group(&self, group: &str, location: &str, tags: Option<&Value>) -> Result<Value> {
        let mut body = json!({"location": location});
        if let Some(tags) = tags {
            body["tags"] = tags.clone();
        }
        self.request(Method::PUT, &self.group_path(group), Some(&body)).await
    }

    /// One resource group.
    pub async fn group(&self, group: &str) -> Result<Value> {
        self.get(&self.group_path(group)).await
    }

    /// All resource groups of the subscription.
    pub async fn groups(&self) -> Result<Vec<Value>> {
        self.list(&format!("{}/resourceGroups", self.subscription_path()), "").await
    }

    /// Delete a resource group and all in it. Waits for the end if `wait`.
    pub async fn delete_group(&self, group: &str, wait: bool) -> Result<()> {
        let path = self.group_path(group);
        if wait {
            self.request::<Value>(Method::DELETE, &path, None).await.map(drop)
        } else {
            self.request_no_wait(Method::DELETE, &path).await
        }
    }

    /// The subscriptions this identity sees.
    pub async fn subscriptions(&self) -> Result<Vec<Value>> {
        self.list("/subscriptions", "").await
    }
}
