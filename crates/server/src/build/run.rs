//! Carrying out one build run, from the packed context to the tags.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use portolan_auth::access::{Principal, RoleMode};
use portolan_builder::ports::BaseImage;
use portolan_builder::{BuildRequest, BuildSecret, Built, Cancel, Engine, SshForward};
use portolan_service::{Ctx, Registry};
use portolan_store::blob::BoxFuture;
use portolan_tasks::{CancelFlag, Job, Outcome, OutputImage, RunLog, Runner};
use portolan_types::{ImageRef, Platform, Reference, Timestamp};
use serde_json::json;

use super::Builds;
use super::attest::{self, Attester, Facts};
use super::cache::{self, Caches};
use super::check::check;
use super::images::RunImages;
use super::platforms::Package;
use super::remote::Fetcher;
use super::source::Source;
use super::steps::RegistrySteps;
use super::stock::Owner;
use super::tell::Teller;

impl Runner for Builds {
    fn run(&self, job: Job, log: RunLog, cancel: CancelFlag) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Some(registry) = self.shared.service.registry_by_id(job.registry) else {
                return Outcome::Error("the registry was deleted".into());
            };
            let dir = self.runs_dir.join(format!("{}-{}", job.registry, job.id));
            let outcome = self.build(&job, &registry, &dir, &log, &cancel).await;
            match outcome {
                Ok(images) => Outcome::Succeeded(images),
                Err(_) if cancel.is_raised() => Outcome::Stopped,
                Err(Trouble::Stopped) => Outcome::Stopped,
                Err(Trouble::Order(why)) => Outcome::Failed(why),
                Err(Trouble::Server(why)) => Outcome::Error(why),
            }
        })
    }
}

/// Why a run has no image.
pub(super) enum Trouble {
    /// The order, the context or the Dockerfile is at fault.
    Order(String),
    /// We are.
    Server(String),
    /// It was stopped.
    Stopped,
}

impl Builds {
    async fn build(
        &self,
        job: &Job,
        registry: &Arc<Registry>,
        dir: &Path,
        log: &RunLog,
        cancel: &CancelFlag,
    ) -> Result<Vec<OutputImage>, Trouble> {
        let mut ctx = Ctx::system(format!("run:{}", job.id), Timestamp::now());
        // In this mode a run has no right of its own: it has its caller's, as they are now.
        if registry.role_mode == RoleMode::Abac {
            ctx.principal = match job.build.caller {
                Some(object_id) => Principal::Directory { object_id, app_id: None },
                None => Principal::Anonymous,
            };
        }
        let stop = Cancel::new();
        let _watch = AbortOnDrop(tokio::spawn({
            let (flag, stop) = (cancel.clone(), stop.clone());
            async move {
                flag.raised().await;
                stop.cancel();
            }
        }));
        let (begun, started) = (Instant::now(), ctx.now);
        let options = &job.build.options;
        let caching = cache::Wishes::read(options).map_err(Trouble::Order)?;
        let mut attesting = attest::Wishes::read(options).map_err(Trouble::Order)?;
        attesting.always_index = truth(job, "BUILDKIT_MULTI_PLATFORM");

        let (agents, _relay) = super::ssh::agents(&self.relays, job).map_err(Trouble::Order)?;
        log.note("Downloading source code...");
        let images = Arc::new(RunImages {
            shared: self.shared.clone(),
            registry: registry.clone(),
            ctx: ctx.clone(),
            cancel: cancel.clone(),
            found: Mutex::default(),
        });
        let fetcher = Fetcher::new(self.shared.clone(), job, cancel.clone(), dir);
        let mut fetcher = fetcher.map_err(|e| Trouble::Server(format!("make a folder for what is fetched: {e}")))?;
        fetcher.keep_git_dir = truth(job, "BUILDKIT_CONTEXT_KEEP_GIT_DIR");
        let source = self.source(job, &images, &fetcher, dir, log, &stop).await?;
        let (origin, _fetched) = (source.origin.clone(), source.fetched.clone());
        let named_contexts = self.named_contexts(job, &images, &fetcher, log, &stop).await?;
        log.note("Finished downloading source code");

        let timeout = job.timeout_secs;
        log.note(&format!("Executing step ID: build. Timeout(sec): {timeout}, Working directory: '', Network: ''"));
        let platforms = platforms(job);
        let caches = Caches { shared: &self.shared, registry, ctx: &ctx };
        let imported = caches.import(&caching, &platforms, log).await;
        let steps = Arc::new(RegistrySteps::new(self.steps.clone(), registry.id, tenant(job, registry)));
        let engine = self.engine.for_build(images.clone(), steps, imported);
        let dockerfile = (source.dockerfile_name.clone(), source.dockerfile.clone());
        let origin_labels = attest::origin_labels(origin.as_ref());
        attesting.tell_origin(&origin_labels);
        let request = BuildRequest {
            named_contexts,
            remotes: Some(Arc::new(fetcher)),
            tenant: tenant(job, registry),
            origin_labels,
            source_date_epoch: options.source_date_epoch,
            cache_export: caching.export(),
            attest: attesting.attest(),
            annotations: attesting.annotations.clone(),
            oci_types: attesting.attests(),
            ..request(job, source, agents)
        };
        let reproducible = request.epoch();
        if job.build.options.check {
            let (log, stop) = (log.clone(), stop.clone());
            return blocking(move || check(&engine, &request, &log, &stop)).await?.map(|()| Vec::new());
        }
        let built = blocking({
            let (log, stop) = (log.clone(), stop.clone());
            move || build(&engine, &request, &platforms, &log, &stop)
        })
        .await?;
        if let Err(Trouble::Order(why)) = &built
            && why.contains(portolan_builder::needs::INCOMPLETE)
            && let Ok(shelf) = self.stock.shelf(&Owner { registry: registry.id, caller: job.build.caller })
        {
            shelf.send_whole(&dockerfile.1);
        }
        let built = built?;
        if stop.is_cancelled() {
            return Err(Trouble::Stopped);
        }

        let mut stored = Vec::new();
        if job.build.push {
            let attester = Attester { shared: &self.shared, registry, job };
            let facts = Facts { source: origin, dockerfile, started, finished: Timestamp::now(), reproducible };
            let attached = attester.attest(&attesting, &built, &facts).await?;
            let mut package = Package::of(&built, attached.children.clone(), &attesting).map_err(Trouble::Server)?;
            package.referrers = attester.referrers(&attached, &package.top.descriptor).await?;
            let ours = job.lease.storing().await;
            if !ours.map_err(|e| Trouble::Server(format!("say that the image is being stored: {e}")))? {
                return Err(Trouble::Stopped);
            }
            stored = self.store(job, registry, &ctx, &package, log).await?;
        }
        caches.export(&caching, &built, log).await?;
        let secs = begun.elapsed().as_secs_f64();
        log.note(&format!("Step ID: build marked as successful (elapsed time in seconds: {secs:.6})"));
        dependencies(registry, &built, &images.found.lock(), &stored, log);
        Ok(stored)
    }
}

/// Whether a build argument of BuildKit's turns something on.
pub(super) fn truth(job: &Job, name: &str) -> bool {
    let given = job.build.args.iter().rev().find(|arg| arg.name == name);
    given.is_some_and(|arg| matches!(arg.value.expose().as_str(), "1" | "t" | "T" | "true" | "True" | "TRUE"))
}

fn request(job: &Job, source: Source, ssh: Vec<SshForward>) -> BuildRequest {
    let (args, options) = (&job.build.args, &job.build.options);
    let context = source.context;
    BuildRequest {
        dockerfile_name: source.dockerfile_name,
        ignore: source.ignore,
        build_args: args.iter().map(|a| (a.name.clone(), a.value.expose().clone())).collect(),
        secret_args: args.iter().filter(|a| a.secret).map(|a| a.name.clone()).collect(),
        target: job.build.target.clone(),
        no_cache: job.build.no_cache,
        labels: options.labels.clone(),
        secrets: options.secrets.iter().map(|s| BuildSecret { id: s.id.clone(), value: s.value.clone() }).collect(),
        ssh,
        tenant: job.registry.to_string(),
        ..BuildRequest::new(context, source.dockerfile, job.platform.clone(), Timestamp::now())
    }
}

/// Whose steps a build shares: its registry's. Where roles are asked for each repository, its
/// caller's: who may build one thing there may not see what comes of another.
fn tenant(job: &Job, registry: &Registry) -> String {
    tenant_of(registry.id, registry.role_mode, job.build.caller)
}

fn tenant_of(registry: i64, mode: RoleMode, caller: Option<uuid::Uuid>) -> String {
    match (mode, caller) {
        (RoleMode::Abac, Some(caller)) => format!("{registry}-{caller}"),
        (RoleMode::Abac, None) => format!("{registry}-nobody"),
        _ => registry.to_string(),
    }
}

/// What to build for.
fn platforms(job: &Job) -> Vec<Platform> {
    match job.build.options.platforms.as_slice() {
        [] => vec![job.platform.clone()],
        many => many.to_vec(),
    }
}

fn build(
    engine: &Engine,
    request: &BuildRequest,
    platforms: &[Platform],
    log: &RunLog,
    stop: &Cancel,
) -> Result<Vec<Built>, Trouble> {
    let teller = Teller::new(log);
    let built = engine.build_all(request, platforms, &|event| teller.event(&event), stop);
    let built = built.map_err(|error| teller.failed(error))?;
    teller.warnings();
    Ok(built)
}

/// What the image was built from, as ACR tells it at the end of a log: clients read it. The
/// runtime dependency is the image that the result lies on, the others helped.
fn dependencies(
    registry: &Registry,
    built: &[Built],
    found: &[(ImageRef, BaseImage)],
    stored: &[OutputImage],
    log: &RunLog,
) {
    if stored.is_empty() {
        return;
    }
    let under = found
        .iter()
        .enumerate()
        .filter(|(_, (_, base))| !base.layers.is_empty() && built.iter().any(|b| b.layers.starts_with(&base.layers)))
        .max_by_key(|(_, (_, base))| base.layers.len())
        .map(|(n, _)| n);
    let dependency = |(image, base): &(ImageRef, BaseImage)| {
        let tag = match image.reference() {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        };
        json!({
            "registry": image.host, "repository": image.repo, "tag": tag, "digest": base.digest,
            "reference": format!("{}/{}", image.host, image.repo_and_reference()),
        })
    };
    let runtime = under.and_then(|n| found.get(n)).map(dependency);
    let others = found.iter().enumerate().filter(|(n, _)| Some(*n) != under);
    let buildtime: Vec<_> = others.map(|(_, base)| dependency(base)).collect();
    let all: Vec<_> = stored
        .iter()
        .map(|image| {
            let host = &registry.login_server;
            let tag = image.tag.as_ref().map_or("", |t| t.as_str());
            json!({
                "image": {
                    "registry": host, "repository": image.repo, "tag": image.tag, "digest": image.digest,
                    "reference": format!("{host}/{}:{tag}", image.repo),
                },
                "runtime-dependency": runtime,
                "buildtime-dependency": buildtime,
            })
        })
        .collect();
    if let Ok(text) = serde_json::to_string_pretty(&all) {
        log.note("The following dependencies were found:");
        log.line(&text);
        log.line("");
    }
}

/// Run on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Trouble> {
    tokio::task::spawn_blocking(work).await.map_err(|cause| {
        tracing::error!(%cause, "a build panicked");
        Trouble::Server("the server failed in the middle of the build".into())
    })
}

/// Ends a helper task with the work it helps.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_steps_a_build_shares() {
        let (a, b) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
        let plain = |caller| tenant_of(7, RoleMode::Legacy, caller);
        assert_eq!(plain(Some(a)), plain(Some(b)));
        assert_ne!(plain(Some(a)), tenant_of(8, RoleMode::Legacy, Some(a)));
        let apart: std::collections::HashSet<String> =
            [Some(a), Some(b), None].map(|caller| tenant_of(7, RoleMode::Abac, caller)).into();
        assert_eq!(apart.len(), 3);
        assert!(!apart.contains(&plain(Some(a))));
    }
}
