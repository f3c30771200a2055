//! A closure on its way to the thread that runs it, and its answer on the way back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use tokio::sync::oneshot;

use super::Tx;
use crate::{Error, Result};

/// One queued closure, its types forgotten.
///
/// Running and answering are two steps, since a write may be answered only when the
/// transaction it shares with others is on disk. A job dropped without an answer makes
/// its caller's wait end with `Error::Busy`.
pub(super) trait Job: Send {
    /// Run the closure. `true` when its changes are to be kept.
    fn run(&mut self, tx: &mut dyn Tx) -> bool;
    /// Send the closure's result, or `failure` in the place of a success.
    fn answer(self: Box<Self>, failure: Option<Error>);
}

struct Typed<T, E, F, R> {
    closure: Option<F>,
    result: Option<Result<T, E>>,
    reply: R,
}

impl<T, E, F, R> Job for Typed<T, E, F, R>
where
    F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send,
    T: Send,
    E: From<Error> + Send,
    R: FnOnce(Result<T, E>) + Send,
{
    fn run(&mut self, tx: &mut dyn Tx) -> bool {
        let Some(closure) = self.closure.take() else { return false };
        // The closure is gone after a panic and the caller undoes its savepoint, so
        // nothing half-changed can be seen.
        let result = catch_unwind(AssertUnwindSafe(|| closure(tx))).unwrap_or_else(|panic| {
            let what = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            tracing::error!(panic = %what, "a query panicked");
            Err(E::from(Error::Database(format!("a query panicked: {what}"))))
        });
        let keep = result.is_ok();
        self.result = Some(result);
        keep
    }

    fn answer(self: Box<Self>, failure: Option<Error>) {
        let result = match (self.result, failure) {
            (Some(Err(own)), _) => Err(own),
            (_, Some(failure)) => Err(E::from(failure)),
            (Some(Ok(value)), None) => Ok(value),
            (None, None) => Err(E::from(Error::Busy)),
        };
        (self.reply)(result);
    }
}

/// A job whose answer is awaited.
pub(super) fn asynchronous<T, E, F>(closure: F) -> (Box<dyn Job>, oneshot::Receiver<Result<T, E>>)
where
    F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    // A caller that went away does not want its answer.
    let reply = move |result| drop(sender.send(result));
    (Box::new(Typed { closure: Some(closure), result: None, reply }), receiver)
}

/// A job whose answer a thread waits for.
pub(super) fn blocking<T, E, F>(closure: F) -> (Box<dyn Job>, mpsc::Receiver<Result<T, E>>)
where
    F: FnOnce(&mut dyn Tx) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    let (sender, receiver) = mpsc::sync_channel(1);
    let reply = move |result| drop(sender.send(result));
    (Box::new(Typed { closure: Some(closure), result: None, reply }), receiver)
}
