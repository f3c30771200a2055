//! The builders that are measured, each from a context to an image in a registry.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::cases::Case;
use super::world::{World, succeed};

/// All of them.
pub(super) fn engines(world: &World) -> Vec<Box<dyn Engine + '_>> {
    vec![Box::new(Ours { world }), Box::new(Docker(world)), Box::new(Buildah(world))]
}

/// One way to get from a context to an image in a registry.
pub(super) trait Engine {
    fn name(&self) -> &'static str;
    /// Forget every step done before, and what was pushed stays.
    fn forget(&mut self) -> Result<()>;
    /// Build and store under `tag`; `cold` may not use the cache. Answers how long the build
    /// alone took, before the push, where the two are apart.
    fn build(&mut self, case: &Case, tag: &str, cold: bool) -> Result<Option<Duration>>;
    /// Milliseconds the server itself took for the last build, where that is known.
    fn server_ms(&self) -> Option<f64> {
        None
    }
}

struct Ours<'a> {
    world: &'a World,
}

impl Engine for Ours<'_> {
    fn name(&self) -> &'static str {
        "portolan"
    }

    fn forget(&mut self) -> Result<()> {
        Ok(())
    }

    fn build(&mut self, case: &Case, tag: &str, cold: bool) -> Result<Option<Duration>> {
        let image = format!("{}:{tag}", case.name);
        let dir = case.dir.to_string_lossy().into_owned();
        let mut args = vec!["acr", "build", "-r", "benchreg", "-t", &image];
        if cold {
            args.push("--no-cache");
        }
        args.push(&dir);
        self.world.portolan(&args)?;
        Ok(None)
    }

    fn server_ms(&self) -> Option<f64> {
        let times = self
            .world
            .portolan(&["acr", "task", "list-runs", "-r", "benchreg", "--top", "1", "-o", "json"])
            .ok()
            .and_then(|out| serde_json::from_str::<serde_json::Value>(&out).ok())?;
        let run = times.get(0)?;
        let at = |name: &str| run.get(name).and_then(|v| v.as_str()).and_then(seconds_of_day);
        let took = at("finishTime")? - at("startTime")?;
        (took >= 0.0).then_some(took * 1000.0)
    }
}

/// Seconds since midnight of an RFC 3339 time.
fn seconds_of_day(time: &str) -> Option<f64> {
    let clock = time.split('T').nth(1)?;
    let clock = clock.trim_end_matches('Z').split('+').next()?;
    let mut parts = clock.split(':').map(|p| p.parse::<f64>().ok());
    Some(parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??)
}

struct Docker<'a>(&'a World);

impl Engine for Docker<'_> {
    fn name(&self) -> &'static str {
        "docker BuildKit"
    }

    fn forget(&mut self) -> Result<()> {
        succeed(self.0.docker().args(["builder", "prune", "-af"])).map(drop)
    }

    fn build(&mut self, case: &Case, tag: &str, cold: bool) -> Result<Option<Duration>> {
        let image = format!("{}/{}:{tag}", self.0.registry, case.name);
        let mut command = self.0.docker();
        command.args(["build", "-q", "--network", "host", "-t", &image]);
        if cold {
            command.arg("--no-cache");
        }
        let start = Instant::now();
        succeed(command.arg(&case.dir))?;
        let built = start.elapsed();
        succeed(self.0.docker().args(["push", "-q", &image]))?;
        Ok(Some(built))
    }
}

struct Buildah<'a>(&'a World);

impl Engine for Buildah<'_> {
    fn name(&self) -> &'static str {
        "buildah"
    }

    fn forget(&mut self) -> Result<()> {
        Ok(())
    }

    fn build(&mut self, case: &Case, tag: &str, cold: bool) -> Result<Option<Duration>> {
        let image = format!("{}/{}:{tag}", self.0.registry, case.name);
        let mut command = self.0.buildah();
        command.args(["bud", "-q", "--layers", "--network", "host", "--pull-never", "-t", &image]);
        if cold {
            command.arg("--no-cache");
        }
        let start = Instant::now();
        succeed(command.arg(&case.dir))?;
        let built = start.elapsed();
        succeed(self.0.buildah().args(["push", "-q", "--tls-verify=false", &image]))?;
        Ok(Some(built))
    }
}
