//! The engine for many servers: one PostgreSQL database that all of them share.
//!
//! ```text
//! closures ─▶ queue ─▶ writer thread ── connection ──▶ ┐
//! closures ─▶ queue ─▶ reader threads ─ connections ─▶ │ PostgreSQL
//! notices  ◀─ queue ◀─ listener thread ─ connection ◀─ ┘
//! ```
//!
//! Each thread has a runtime of its own that runs only while the thread waits for an answer:
//! no other thread has to be woken for it. Writing is in [`write`], which also says how the
//! servers' transactions are kept apart; reading in [`read`]; how a connection is made and
//! made anew in [`link`].
//!
//! *What is acknowledged is on disk:* `synchronous_commit` is on whatever the server's
//! default is, and a commit whose answer was lost is looked up before anybody is answered.

mod config;
mod error;
mod link;
mod listen;
mod read;
mod session;
mod sql;
mod value;
mod write;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use uuid::Uuid;

pub use config::PostgresConfig;

use self::config::Server;
use self::link::Link;
use self::listen::Heard;
use self::write::Channel;
use super::Notice;
use super::queue::{Queue, Threads, spawn};
use super::schema::Migration;
use crate::stats::MetaStats;
use crate::{Error, Result};

/// Reading connections.
const READERS_MAX: usize = 64;

/// What there is between servers on one database.
pub(super) struct Shared {
    heard: Arc<Heard>,
    /// Dropped, it stops the listener.
    listening: Mutex<Option<oneshot::Sender<()>>>,
    closing: Arc<AtomicBool>,
}

impl Shared {
    pub(super) async fn notice(&self) -> Notice {
        self.heard.next().await
    }

    /// No longer wait for a database that is away, and listen no more.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.listening.lock().take();
    }
}

/// Connect, bring the schema up to date and start the threads.
pub(super) fn open(
    config: &PostgresConfig,
    migrations: &'static [Migration],
    stats: &Arc<MetaStats>,
) -> Result<(Threads, Shared)> {
    let server = Arc::new(Server::new(config)?);
    let closing = Arc::new(AtomicBool::new(false));
    let process = Uuid::new_v4().simple().to_string();
    let (writer, jobs) = Queue::new();
    let (readers, questions) = Queue::new();
    let readers_len = config.readers.clamp(1, READERS_MAX);
    let mut handles = Vec::with_capacity(2 + readers_len);

    let (ready, opened) = mpsc::sync_channel(1);
    let (wait, channel) = (config.wait, Channel { process: process.clone() });
    let mut link = Link::new(Arc::clone(&server), Arc::clone(&closing))?;
    let stats = Arc::clone(stats);
    handles.push(spawn("meta-write".into(), move || {
        let opened = link.open(wait).and_then(|()| write::migrate(&mut link, &channel, migrations));
        let is_open = opened.is_ok();
        // Whoever opens waits for this.
        let _ = ready.send(opened);
        if is_open {
            write::write_loop(&mut link, &channel, &jobs, &stats);
        }
        link.close();
    })?);
    let gone = || Error::Database("a database thread ended".to_owned());
    opened.recv().map_err(|_| gone())??;

    // Listens before anybody reads, so that no change falls in between.
    let heard = Arc::new(Heard::default());
    let (listening, stop) = oneshot::channel();
    let (ready, opened) = mpsc::sync_channel(1);
    let (place, hears) = (Arc::clone(&server), Arc::clone(&heard));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::io("start a runtime for the database", e))?;
    handles.push(spawn("meta-listen".into(), move || {
        runtime.block_on(listen::listen(place, process, hears, ready, stop));
    })?);
    opened.recv().map_err(|_| gone())?.map_err(Error::Database)?;

    for n in 0..readers_len {
        let mut link = Link::new(Arc::clone(&server), Arc::clone(&closing))?;
        let questions = questions.clone();
        handles.push(spawn(format!("meta-read-{n}"), move || {
            read::read_loop(&mut link, &questions);
            link.close();
        })?);
    }
    let threads = Threads { writer, readers, readers_len, handles: Mutex::new(handles) };
    Ok((threads, Shared { heard, listening: Mutex::new(Some(listening)), closing }))
}
