//! Where a bucket is, and how to get in: addresses and credentials.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpConnector as _, ReqwestConnector};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::client::{Client, Stores};
use crate::blob::BlobConfig;

/// Seconds to connect. A bucket is near, or not there.
const CONNECT_SECS_MAX: u64 = 5;
/// Seconds without a byte of an answer before a request is given up.
const SILENCE_SECS_MAX: u64 = 60;
/// Seconds over which a request that failed is tried again.
const RETRY_SECS_MAX: u64 = 45;
/// … and how often.
const RETRIES_MAX: usize = 6;
/// The longest prefix inside a bucket.
const PREFIX_BYTES_MAX: usize = 200;

/// Whose storage it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    S3,
    Azure,
    Gcs,
}

impl Kind {
    /// What people call the thing that holds the blobs.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Kind::S3 | Kind::Gcs => "bucket",
            Kind::Azure => "container",
        }
    }
}

/// A bucket's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(super) kind: Kind,
    pub(super) bucket: String,
    /// Without slashes at its ends; may be empty.
    pub(super) prefix: String,
}

impl Place {
    /// Read `s3://bucket/prefix`. The error is for people.
    pub(crate) fn parse(url: &str) -> Result<Place, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
        let kind = match scheme {
            "s3" => Kind::S3,
            "az" => Kind::Azure,
            "gs" => Kind::Gcs,
            _ => {
                return Err(format!(
                    "{url:?} is not a place for blobs: use s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or \
                     gs://BUCKET/PREFIX, or leave it empty for the data folder"
                ));
            }
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let name = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
        if bucket.is_empty() || !bucket.bytes().all(name) {
            return Err(format!("{url:?} names no {}: {scheme}://NAME", kind.noun()));
        }
        let part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(name);
        let fits = prefix.len() <= PREFIX_BYTES_MAX && prefix.split('/').all(part);
        if !prefix.is_empty() && !fits {
            return Err(format!(
                "the prefix {prefix:?} in {url:?} may hold letters, digits, `-`, `.`, `_` and `/` only"
            ));
        }
        Ok(Place { kind, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }

    /// As it was written, to name it to people.
    pub(super) fn shown(&self) -> String {
        let scheme = match self.kind {
            Kind::S3 => "s3",
            Kind::Azure => "az",
            Kind::Gcs => "gs",
        };
        match self.prefix.is_empty() {
            true => format!("{scheme}://{}", self.bucket),
            false => format!("{scheme}://{}/{}", self.bucket, self.prefix),
        }
    }

    /// A client for it. Nothing is asked yet. The error is for people.
    pub(super) fn connect(self, config: &BlobConfig) -> Result<Client, String> {
        let plain = config.endpoint.as_deref().is_some_and(|e| e.starts_with("http://"));
        let options = ClientOptions::new()
            .with_allow_http(plain)
            .with_connect_timeout(Duration::from_secs(CONNECT_SECS_MAX))
            // A large answer takes as long as its reader does; silence is what must end.
            .with_timeout_disabled()
            .with_read_timeout(Duration::from_secs(SILENCE_SECS_MAX));
        let retry = RetryConfig {
            backoff: BackoffConfig { max_backoff: Duration::from_secs(8), ..BackoffConfig::default() },
            max_retries: RETRIES_MAX,
            retry_timeout: Duration::from_secs(RETRY_SECS_MAX),
        };
        let stores = match self.kind {
            Kind::S3 => self.s3(config, plain, options, retry)?,
            Kind::Azure => self.azure(config, options, retry)?,
            Kind::Gcs => self.gcs(config, options, retry)?,
        };
        Ok(Client::new(self, stores))
    }

    fn s3(
        &self,
        config: &BlobConfig,
        plain: bool,
        options: ClientOptions,
        retry: RetryConfig,
    ) -> Result<Stores, String> {
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&self.bucket)
            .with_client_options(options.clone())
            .with_retry(retry)
            // TLS protects the bytes on their way; without it the signature does.
            .with_unsigned_payload(!plain);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        if let Some(region) = &config.region {
            builder = builder.with_region(region);
        }
        let mut account = config.account.clone();
        let mut secret = config.secret.clone();
        if let Some(path) = &config.credentials_file {
            let text = read(path)?;
            let profile = std::env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
            let values = profile_of(&text, &profile);
            let value = |name: &str| values.get(name).copied();
            account = account.or(value("aws_access_key_id").map(str::to_owned));
            secret = secret.or(value("aws_secret_access_key").map(|s| s.to_owned().into()));
            if account.is_none() || secret.is_none() {
                return Err(format!(
                    "{} has no aws_access_key_id and aws_secret_access_key under [{profile}]",
                    path.display()
                ));
            }
            if let Some(token) = value("aws_session_token") {
                builder = builder.with_token(token);
            }
        }
        match (&account, &secret) {
            (Some(id), Some(secret)) => {
                builder = builder.with_access_key_id(id).with_secret_access_key(secret.expose());
            }
            (None, None) => {}
            _ => return Err("blob_account and blob_secret go together: set both, or neither".to_owned()),
        }
        if builder.get_config_value(&AmazonS3ConfigKey::Region).is_none() {
            builder = builder.with_region("us-east-1");
        }
        let store = Arc::new(builder.build().map_err(plainly)?);
        let raw = ReqwestConnector::default().connect(&options).map_err(plainly)?;
        Ok(Stores { objects: store.clone(), parts: store.clone(), signer: store, raw: Some(raw) })
    }

    fn azure(&self, config: &BlobConfig, options: ClientOptions, retry: RetryConfig) -> Result<Stores, String> {
        let mut builder = MicrosoftAzureBuilder::from_env()
            .with_container_name(&self.bucket)
            .with_client_options(options)
            .with_retry(retry);
        if let Some(account) = &config.account {
            builder = builder.with_account(account);
        }
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        if let Some(path) = &config.credentials_file {
            builder = builder.with_access_key(read(path)?.trim());
        }
        if let Some(key) = &config.secret {
            builder = builder.with_access_key(key.expose());
        }
        if builder.get_config_value(&AzureConfigKey::AccountName).is_none() {
            return Err("no storage account is named: set blob_account (or AZURE_STORAGE_ACCOUNT_NAME)".to_owned());
        }
        let store = Arc::new(builder.build().map_err(plainly)?);
        Ok(Stores { objects: store.clone(), parts: store.clone(), signer: store, raw: None })
    }

    fn gcs(&self, config: &BlobConfig, options: ClientOptions, retry: RetryConfig) -> Result<Stores, String> {
        let mut builder = GoogleCloudStorageBuilder::from_env()
            .with_bucket_name(&self.bucket)
            .with_client_options(options)
            .with_retry(retry);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_base_url(endpoint.trim_end_matches('/'));
        }
        if let Some(path) = &config.credentials_file {
            // Read here, so that what is wrong with it is said in our words.
            builder = builder.with_config(GoogleConfigKey::ServiceAccountKey, read(path)?);
        }
        let store = Arc::new(builder.build().map_err(plainly)?);
        Ok(Stores { objects: store.clone(), parts: store.clone(), signer: store, raw: None })
    }
}

/// What the library says about settings, without its own frame around it.
fn plainly(error: object_store::Error) -> String {
    match error {
        object_store::Error::Generic { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("the credentials file {} cannot be read: {e}", path.display()))
}

/// The settings of one profile in a credentials file as AWS's tools have it.
fn profile_of<'a>(text: &'a str, profile: &str) -> HashMap<&'a str, &'a str> {
    let mut here = false;
    let mut values = HashMap::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            here = name.trim() == profile;
        } else if here
            && !line.starts_with(['#', ';'])
            && let Some((name, value)) = line.split_once('=')
        {
            values.insert(name.trim(), value.trim());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (url, kind, bucket, prefix) in [
            ("s3://b", Kind::S3, "b", ""),
            ("s3://b/", Kind::S3, "b", ""),
            ("az://c/a/b", Kind::Azure, "c", "a/b"),
            ("gs://my.bucket-1/portolan/", Kind::Gcs, "my.bucket-1", "portolan"),
        ] {
            let place = Place::parse(url).unwrap();
            assert_eq!((place.kind, place.bucket.as_str(), place.prefix.as_str()), (kind, bucket, prefix), "{url}");
        }
        for bad in ["", "s3", "s3://", "s3:///x", "file:///x", "s3://b/../x", "s3://b//x", "s3://b/a b", "s3://b?x=1"] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_files() {
        let text = "[other]\naws_access_key_id=no\n[default]\n# comment\naws_access_key_id = AKID\naws_secret_access_key= a/b+c=\n";
        let values = profile_of(text, "default");
        assert_eq!((values["aws_access_key_id"], values["aws_secret_access_key"]), ("AKID", "a/b+c="));
        assert!(profile_of(text, "absent").is_empty());
    }
}
