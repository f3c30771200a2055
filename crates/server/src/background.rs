//! The driver of background work: timers that poke.
//!
//! Each piece of work reads what it has to do from the store, takes no input and may be
//! run at any time; here is only when. A timer has some jitter, so that several servers on
//! one database do not work in step, and stops when the server drains.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_service::check;
use portolan_service::gc::{Collected, ROUND_ITEMS_MAX};
use portolan_types::Timestamp;
use tokio::task::JoinSet;

use crate::app::App;
use crate::tls::{REFRESH_EVERY, Tls};

/// How soon after the start each piece of work runs for the first time.
const FIRST_MILLIS: u64 = 50;

/// How often operations that nobody has in hand are looked for.
const OPERATIONS_EVERY: Duration = Duration::from_secs(5);
/// How often old rows of the activity log are removed.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);
/// How often the age of the signing key is looked at.
const KEYS_EVERY: Duration = Duration::from_secs(3_600);

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
    // Until the very end: requests that are finished while the server drains count on it.
    let keeping_up = app.clone();
    timers.spawn(async move {
        keeping_up.service.keep_up(|text| keeping_up.tasks.heard(text)).await;
    });
    every(&mut timers, app, "renew the signing key", KEYS_EVERY, |app| async move {
        let days = u64::from(app.settings.signing_key_days_max);
        let age_max = (days > 0).then(|| Duration::from_secs(days * 86_400));
        if app.service.rotate_old_signing_key(age_max, Timestamp::now()).await? {
            tracing::info!("another signing key is in use");
        }
        Ok(())
    });
    resume(&mut timers, app);
    let gc_period = app.settings.gc_interval_secs.secs();
    every(&mut timers, app, "collect garbage", gc_period, |app| async move { collect(&app).await });
    timers
}

/// What goes on after its request was answered: taken up again when the server that had it in
/// hand is gone, and at the start. And what is kept of the past.
fn resume(timers: &mut JoinSet<()>, app: &Arc<App>) {
    let mut first = true;
    every(timers, app, "go on with operations", OPERATIONS_EVERY, move |app| {
        let start = std::mem::take(&mut first);
        async move {
            if start {
                app.service.reclaim_operations().await?;
            }
            let ended = app.service.resume_operations().await?;
            if ended > 0 {
                tracing::info!(ended, "went on with operations that another start had begun");
            }
            Ok(())
        }
    });
    every(timers, app, "forget old activity", PRUNE_EVERY, |app| async move {
        let (now, settings) = (Timestamp::now(), &app.settings);
        let age = Duration::from_secs(u64::from(settings.activity_log_days.0) * 86_400);
        app.service.prune_activity(now, age, u64::from(settings.activity_log_events_max.0)).await?;
        app.service.prune_operations(now).await?;
        Ok(())
    });
}

/// A round of the garbage collector, or what it would do, with its figures.
async fn collect(app: &App) -> anyhow::Result<()> {
    let (now, begun) = (Timestamp::now(), Instant::now());
    if app.settings.gc_dry_run {
        let would = check::preview(&app.service.meta, now, Duration::ZERO, ROUND_ITEMS_MAX as u64).await?;
        app.metrics.gc.previewed(&would);
        if would.links + would.blobs > 0 {
            let (reviews, links, blobs, bytes) = (would.reviews, would.links, would.blobs, would.bytes);
            tracing::info!(reviews, links, blobs, bytes, "garbage that would go (gc_dry_run)");
        }
        return Ok(());
    }
    let collected = app.service.collect_garbage(now).await?;
    let took = begun.elapsed();
    let waiting = app.service.garbage_waiting().await?;
    app.metrics.gc.collected(&collected, waiting, took);
    if collected != Collected::default() {
        tracing::info!(
            reviews = collected.reviews,
            links = collected.links,
            blobs = collected.blobs,
            bytes = collected.bytes,
            uploads = collected.uploads,
            failed = collected.failed,
            waiting,
            millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "collected garbage"
        );
    }
    Ok(())
}

/// Run `work` soon after the start, for what an earlier server left half-done, then every
/// `period` and a little, until the server drains. A run that fails is
/// logged and tried again at the next turn; runs of one timer never overlap.
fn every<F, W>(timers: &mut JoinSet<()>, app: &Arc<App>, name: &'static str, period: Duration, mut work: W)
where
    W: FnMut(Arc<App>) -> F + Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let app = app.clone();
    timers.spawn(async move {
        let mut wait = period.min(Duration::from_millis(FIRST_MILLIS));
        loop {
            tokio::select! {
                biased;
                () = app.drain.begun() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = period + jitter(period);
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
