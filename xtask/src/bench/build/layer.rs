//! How much memory our server takes while it writes a large layer: it should be what is
//! configured, whatever the layer's size.

use std::fmt;
use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};

use super::world::World;

/// What a large layer weighed.
pub(super) struct Weight {
    layer_mib: u32,
    secs: f64,
    /// The most memory the server had resident before, and while it built.
    before_mib: f64,
    peak_mib: f64,
}

impl Weight {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::json!({"case": "layer", "engine": "portolan", "layer_mib": self.layer_mib, "secs": self.secs,
            "before_mib": self.before_mib, "peak_mib": self.peak_mib})
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "layer: a layer of {} MiB took {:.1} s; the server had {:.0} MiB before and {:.0} MiB at most meanwhile",
            self.layer_mib, self.secs, self.before_mib, self.peak_mib
        )
    }
}

/// Build an image with one layer of `mib` MiB that hardly compresses, and watch the server.
pub(super) fn weigh(world: &World, mib: u32) -> Result<Weight> {
    eprintln!("layer of {mib} MiB with portolan");
    let dir = world.work.join("ctx/layer");
    fs::create_dir_all(&dir)?;
    // 16 MiB of noise over and over: longer than any window of gzip's.
    let rounds = mib.div_ceil(16);
    let text = format!(
        "FROM busybox\nRUN dd if=/dev/urandom of=/noise bs=1M count=16 2>/dev/null && \
         for i in $(seq {rounds}); do cat /noise; done >/large && rm /noise\n"
    );
    fs::write(dir.join("Dockerfile"), text)?;
    let status = format!("/proc/{}/status", world.server);
    let before_mib = peak(&status)?;
    // From here on the peak is counted anew.
    fs::write(format!("/proc/{}/clear_refs", world.server), "5").context("reset the peak")?;
    let start = Instant::now();
    let dir = dir.to_string_lossy().into_owned();
    world.portolan(&["acr", "build", "-r", "benchreg", "-t", "layer:large", "--no-cache", &dir])?;
    let secs = start.elapsed().as_secs_f64();
    Ok(Weight { layer_mib: rounds * 16, secs, before_mib, peak_mib: peak(&status)? })
}

/// `VmHWM`, MiB.
fn peak(status: &str) -> Result<f64> {
    let text = fs::read_to_string(status)?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
