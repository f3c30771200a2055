//! The driver of background work: timers that poke.
//!
//! Each piece of work reads what it has to do from the store, takes no input and may be
//! run at any time; here is only when. A timer has some jitter, so that several servers on
//! one database do not work in step, and stops when the server drains.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portolan_types::Timestamp;
use tokio::task::JoinSet;

use crate::app::App;
use crate::tls::{REFRESH_EVERY, Tls};

/// Start every timer. They end when the server drains; the set is for waiting for that.
pub(crate) fn start(app: &Arc<App>, tls: &Arc<Tls>) -> JoinSet<()> {
    let mut timers = JoinSet::new();
    {
        let tls = tls.clone();
        every(&mut timers, app, "renew the certificate", REFRESH_EVERY, move |_| {
            let tls = tls.clone();
            async move {
                if tls.refresh(Timestamp::now(), false)? {
                    tracing::info!("another TLS certificate is in use");
                }
                Ok(())
            }
        });
    }
    let gc_period = app.settings.gc_interval_secs.secs();
    every(&mut timers, app, "collect garbage", gc_period, |app| async move {
        let collected = app.service.collect_garbage(Timestamp::now()).await?;
        app.metrics.gc_blobs_total.fetch_add(collected.blobs, Ordering::Relaxed);
        app.metrics.gc_uploads_total.fetch_add(collected.uploads, Ordering::Relaxed);
        if collected != Default::default() {
            tracing::info!(
                links = collected.links,
                blobs = collected.blobs,
                uploads = collected.uploads,
                failed = collected.failed,
                "collected garbage"
            );
        }
        Ok(())
    });
    timers
}

/// Run `work` every `period` and a little, until the server drains. A run that fails is
/// logged and tried again at the next turn; runs of one timer never overlap.
fn every<F, W>(timers: &mut JoinSet<()>, app: &Arc<App>, name: &'static str, period: Duration, mut work: W)
where
    W: FnMut(Arc<App>) -> F + Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let app = app.clone();
    timers.spawn(async move {
        loop {
            tokio::select! {
                biased;
                () = app.drain.begun() => return,
                () = tokio::time::sleep(period + jitter(period)) => {}
            }
            if let Err(why) = work(app.clone()).await {
                tracing::warn!(why = format!("{why:#}"), "{name}");
            }
        }
    });
}

/// Up to a tenth of the period.
fn jitter(period: Duration) -> Duration {
    let mut byte = [0u8; 1];
    // Without randomness there is no jitter, and no harm.
    let _ = getrandom::fill(&mut byte);
    period.mul_f64(f64::from(byte[0]) / 2_560.0)
}
