//! The way of closures to an engine's threads: bounded, for async and blocking callers.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::job::Job;
use crate::{Error, Result};

/// Closures in one transaction.
pub(super) const GROUP_JOBS_MAX: usize = 256;
/// After this long a transaction takes no further closure, so that nobody's answer waits
/// for a stream of others.
pub(super) const GROUP_MILLIS_MAX: u64 = 20;
/// Closures waiting, for the writer and for the readers each.
const QUEUE_JOBS_MAX: usize = 4096;
/// How long a caller waits for a place in the queue before it is told `Busy`.
const QUEUE_SECS_MAX: u64 = 10;

pub(super) enum Message {
    Job(Box<dyn Job>, Option<OwnedSemaphorePermit>),
    Close,
}

/// The way to some threads. Async callers wait for a permit, since a crossbeam channel
/// cannot be awaited; blocking callers wait at the channel.
pub(super) struct Queue {
    sender: Sender<Message>,
    places: Arc<Semaphore>,
}

impl Queue {
    pub(super) fn new() -> (Queue, Receiver<Message>) {
        // Twice the permits: there is always a place for a caller that has one.
        let (sender, receiver) = crossbeam_channel::bounded(QUEUE_JOBS_MAX * 2);
        (Queue { sender, places: Arc::new(Semaphore::new(QUEUE_JOBS_MAX)) }, receiver)
    }

    pub(super) async fn send(&self, job: Box<dyn Job>) -> Result<()> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let wait = Arc::clone(&self.places).acquire_owned();
                match tokio::time::timeout(Duration::from_secs(QUEUE_SECS_MAX), wait).await {
                    Ok(Ok(permit)) => permit,
                    Ok(Err(_)) | Err(_) => return Err(Error::Busy),
                }
            }
        };
        match self.sender.try_send(Message::Job(job, Some(permit))) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Error::Busy),
        }
    }

    pub(super) fn send_blocking(&self, job: Box<dyn Job>) -> Result<()> {
        let wait = Duration::from_secs(QUEUE_SECS_MAX);
        self.sender.send_timeout(Message::Job(job, None), wait).map_err(|_| Error::Busy)
    }

    /// Ask `threads` threads to stop after what is queued, and refuse what comes later.
    fn close(&self, threads: usize) {
        self.places.close();
        for _ in 0..threads {
            // A thread that is gone already needs no message.
            let _ = self.sender.send(Message::Close);
        }
    }
}

/// The threads of an engine: one writer, some readers, and the queues to them.
pub(super) struct Threads {
    pub(super) writer: Queue,
    pub(super) readers: Queue,
    pub(super) readers_len: usize,
    pub(super) handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Answer what is queued, stop the threads and wait for them. Further calls do nothing.
    pub(super) fn close(&self) {
        let handles = std::mem::take(&mut *self.handles.lock());
        if handles.is_empty() {
            return;
        }
        self.readers.close(self.readers_len);
        self.writer.close(1);
        for handle in handles {
            if handle.join().is_err() {
                tracing::error!("a database thread panicked");
            }
        }
    }
}

pub(super) fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(run).map_err(|e| Error::io("start a database thread", e))
}

/// The same failure, for the next of those it hit.
pub(super) fn again(e: &Error) -> Error {
    match e {
        Error::Full => Error::Full,
        Error::Busy => Error::Busy,
        Error::Corrupt(what) => Error::Corrupt(what.clone()),
        Error::Conflict(what) => Error::Conflict(what.clone()),
        Error::Database(what) => Error::Database(what.clone()),
        Error::Unstorable(what) => Error::Unstorable(what.clone()),
        other => Error::Database(other.to_string()),
    }
}
