//! The directory in Microsoft Graph's words (`/v1.0`): users, applications, service
//! principals, with the control plane's sign-in.

use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::arm::ArmClient;
use crate::error::{Error, Result};
use crate::transport;

/// Pages one list may have.
const PAGES_MAX: usize = 10_000;
/// Ids that one question about them may hold (directoryObject: getByIds).
const IDS_MAX: usize = 1_000;

/// What an OData filter may hold as text: a quote is written twice.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The directory, through a control plane client.
#[derive(Clone, Copy, Debug)]
pub struct Graph<'a>(pub &'a ArmClient);

impl Graph<'_> {
    fn url(&self, path: &str, filter: Option<&str>) -> Result<Url> {
        let filter = filter.map(|f| format!("?$filter={}", transport::segment(f))).unwrap_or_default();
        transport::join(self.0.base(), &format!("/v1.0/{path}{filter}"))
    }

    /// `GET path`; `path` is relative and percent-encoded where it needs to be.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.0.exchange(Method::GET, &self.url(path, None)?, None).await
    }

    /// `POST path`: made things come back, with what is shown once.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.0.exchange(Method::POST, &self.url(path, None)?, Some(body)).await
    }

    /// `PATCH path`.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        self.0.exchange(Method::PATCH, &self.url(path, None)?, Some(body)).await
    }

    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.0.exchange(Method::DELETE, &self.url(path, None)?, None).await.map(drop)
    }

    /// The items of a list, page after page, at most `items_max` and the rest of their page.
    pub async fn list(&self, path: &str, filter: Option<&str>, items_max: Option<usize>) -> Result<Vec<Value>> {
        let mut url = self.url(path, filter)?;
        let mut items = Vec::new();
        for _ in 0..PAGES_MAX {
            let mut page = self.0.exchange(Method::GET, &url, None).await?;
            if let Some(Value::Array(page)) = page.get_mut("value").map(Value::take) {
                items.extend(page);
            }
            let next = page.get("@odata.nextLink").and_then(Value::as_str).filter(|l| !l.is_empty());
            match next {
                Some(next) if items_max.is_none_or(|max| items.len() < max) => url = self.0.same_server(&url, next)?,
                _ => return Ok(items),
            }
        }
        Err(Error::protocol(&url, "the list does not end"))
    }

    /// The objects that have these ids, of those that there are.
    pub async fn by_ids(&self, ids: &[String]) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        for ids in ids.chunks(IDS_MAX) {
            let types = ["user", "group", "servicePrincipal", "directoryObjectPartnerReference"];
            let mut page = self.post("directoryObjects/getByIds", &json!({"ids": ids, "types": types})).await?;
            if let Some(Value::Array(page)) = page.get_mut("value").map(Value::take) {
                items.extend(page);
            }
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn quotes_do_not_end_a_filter() {
        assert_eq!(super::quoted("O'Brien' or 1 eq 1"), "'O''Brien'' or 1 eq 1'");
    }
}
