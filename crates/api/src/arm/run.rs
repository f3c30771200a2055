//! Builds and their runs: upload address, schedule, list, log address, cancel.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ArmClient, BuildOptions, RegistryRef};
use crate::error::{Error, Result};
use crate::transport;

/// Where a build context goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceUpload {
    /// What `sourceLocation` is to say.
    pub relative_path: String,
    /// Where to `PUT` it; signed, so it is a secret.
    pub upload_url: String,
    /// Where to ask what of it need not be sent; signed, too. Other registries have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_url: Option<String>,
}

/// `az acr build` on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub struct DockerBuildRequest {
    /// Names and tags, without the registry; `{{.Run.ID}}` and the like unexpanded.
    pub image_names: Vec<String>,
    /// Whether the result goes into the registry.
    pub is_push_enabled: bool,
    /// Whether the layer cache is to be passed by.
    #[serde(default)]
    pub no_cache: bool,
    /// A context's `relativePath`, or an address of a git repository or archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_location: Option<String>,
    /// What the image is to run on.
    pub platform: RunPlatform,
    /// The Dockerfile inside the context.
    pub docker_file_path: String,
    /// The stage to stop at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Build arguments.
    #[serde(default)]
    pub arguments: Vec<Argument>,
    /// How long the run may take, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// Where ACR would store the log, as `repository:tag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_template: Option<String>,
    /// As whom the run reads and writes its registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<RunCredentials>,
    /// What Azure's order has no word for.
    #[serde(default, skip_serializing_if = "BuildOptions::is_empty")]
    pub build_options: BuildOptions,
}

/// `{os, architecture, variant}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPlatform {
    /// `linux`
    pub os: String,
    /// `amd64`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// `v7`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// As whom a run reads and writes its registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunCredentials {
    /// In its own registry.
    pub source_registry: SourceRegistryCredentials,
}

/// As whom a run reads and writes its own registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceRegistryCredentials {
    /// `[caller]`, or absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

impl RunCredentials {
    /// From az's `--source-acr-auth-id`.
    pub fn of(identity: &str) -> RunCredentials {
        let identity = Some(identity.to_owned()).filter(|i| !i.eq_ignore_ascii_case("none"));
        RunCredentials { source_registry: SourceRegistryCredentials { identity } }
    }
}

/// One build argument.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Argument {
    /// Always `Argument`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether it is kept out of logs and listings.
    #[serde(default)]
    pub is_secret: bool,
}

impl Argument {
    /// An argument.
    pub fn new(name: impl Into<String>, value: impl Into<String>, is_secret: bool) -> Argument {
        Argument { kind: "Argument".into(), name: name.into(), value: value.into(), is_secret }
    }
}

impl std::fmt::Debug for Argument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = if self.is_secret { "***" } else { &self.value };
        write!(f, "{}={value}", self.name)
    }
}

/// What the client reads of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Its name, which is its id.
    #[serde(default)]
    pub name: String,
    /// The rest.
    pub properties: RunProperties,
}

/// What the client reads of a run's properties.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunProperties {
    /// `cb1`, …
    pub run_id: String,
    /// `Queued`, `Started`, `Running`, `Succeeded`, `Failed`, `Canceled`, `Error`, `Timeout`.
    pub status: String,
}

impl Run {
    /// Whether the status is a last one.
    pub fn is_over(&self) -> bool {
        matches!(self.properties.status.as_str(), "Succeeded" | "Failed" | "Canceled" | "Error" | "Timeout")
    }
}

impl ArmClient {
    /// Where to put a build context.
    pub async fn source_upload(&self, registry: &RegistryRef) -> Result<SourceUpload> {
        let path = format!("{}/listBuildSourceUploadUrl", self.registry_path(registry));
        let upload: SourceUpload = self.request(Method::POST, &path, None).await?;
        if upload.relative_path.is_empty() || upload.upload_url.is_empty() {
            return Err(Error::protocol(self.sign_in.base(), "it gave no address for the build context"));
        }
        Ok(upload)
    }

    /// Queue a build. Answers the run as JSON.
    pub async fn schedule_build(&self, registry: &RegistryRef, request: &DockerBuildRequest) -> Result<Value> {
        let body = serde_json::to_value(request).map_err(|e| Error::Local(format!("cannot write the request: {e}")))?;
        self.request(Method::POST, &format!("{}/scheduleRun", self.registry_path(registry)), Some(&body)).await
    }

    pub(super) fn run_path(&self, registry: &RegistryRef, run: &str) -> String {
        format!("{}/runs/{}", self.registry_path(registry), transport::segment(run))
    }

    /// One run, as JSON.
    pub async fn run(&self, registry: &RegistryRef, run: &str) -> Result<Value> {
        self.get(&self.run_path(registry, run)).await
    }

    /// The newest runs first, at most `top`; `filter` in OData, such as `Status eq 'Failed'`.
    pub async fn runs(&self, registry: &RegistryRef, filter: Option<&str>, top: usize) -> Result<Vec<Value>> {
        let mut query = format!("&$top={top}");
        if let Some(filter) = filter {
            query.push_str("&$filter=");
            query.push_str(&transport::segment(filter));
        }
        let mut runs = self.list(&format!("{}/runs", self.registry_path(registry)), &query).await?;
        runs.truncate(top);
        Ok(runs)
    }

    /// The signed address of a run's log.
    pub async fn log_url(&self, registry: &RegistryRef, run: &str) -> Result<String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            log_link: Option<String>,
            log_artifact_link: Option<String>,
        }
        let path = format!("{}/listLogSasUrl", self.run_path(registry, run));
        let answer: Answer = self.request(Method::POST, &path, None).await?;
        let link = answer.log_link.or(answer.log_artifact_link).filter(|l| !l.is_empty());
        link.ok_or_else(|| Error::protocol(self.sign_in.base(), "it gave no address for the log"))
    }

    /// Ask for a run to be cancelled.
    pub async fn cancel_run(&self, registry: &RegistryRef, run: &str) -> Result<()> {
        let path = format!("{}/cancel", self.run_path(registry, run));
        self.request::<Value>(Method::POST, &path, None).await.map(drop)
    }
}
