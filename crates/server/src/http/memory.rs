//! Memory for request bodies that are read whole: one budget for all of them.
//!
//! A manifest, a form or a JSON document is read into memory before anything is done with
//! it, and stays there until it is done. So many at once that they would not fit wait
//! before they read, for a few seconds; then they are told to come again. What a request
//! holds is given back when the last reference to its bytes is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use portolan_service::{Error, Kind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is counted in: a permit of the semaphore.
const UNIT_BYTES: usize = 1_024;
/// What a body of unknown length asks for, again and again.
const STEP_BYTES: usize = 64 * 1_024;
/// How long a request waits for memory.
const WAIT_SECS_MAX: u64 = 5;

tokio::task_local! {
    /// The budget of the server whose request this task handles.
    static OWN: Memory;
}

/// The budget. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory {
    units: Arc<Semaphore>,
    units_max: usize,
    wait: Duration,
    refused_total: Arc<AtomicU64>,
}

/// [`Memory::read_body`] on the budget of the request under way; outside of one, without.
pub(crate) async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes, Error> {
    let own = OWN.try_with(Memory::clone).unwrap_or_else(|_| Memory::new(u64::MAX));
    own.read_body(body, bytes_max).await
}

impl Memory {
    /// A budget of so many bytes.
    pub fn new(bytes_max: u64) -> Memory {
        Memory::with_wait(bytes_max, Duration::from_secs(WAIT_SECS_MAX))
    }

    fn with_wait(bytes_max: u64, wait: Duration) -> Memory {
        // A permit of tokio's is a u32.
        let units_max = usize::try_from(bytes_max).unwrap_or(usize::MAX).div_ceil(UNIT_BYTES);
        let units_max = units_max.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Memory { units: Arc::new(Semaphore::new(units_max)), units_max, wait, refused_total: Arc::default() }
    }

    /// Handle a request: bodies that it reads whole are on this budget.
    pub(crate) async fn around<T>(&self, work: impl Future<Output = T>) -> T {
        OWN.scope(self.clone(), work).await
    }

    /// Bytes taken, and bytes there are.
    pub fn used(&self) -> (u64, u64) {
        let unit = UNIT_BYTES as u64;
        (unit * (self.units_max - self.units.available_permits()) as u64, unit * self.units_max as u64)
    }

    /// Requests that were refused for want of memory.
    pub fn refused(&self) -> u64 {
        self.refused_total.load(Ordering::Relaxed)
    }

    fn no_room(&self) -> Error {
        self.refused_total.fetch_add(1, Ordering::Relaxed);
        let message = "the server has no memory for this request at the moment; try again";
        Error::new(Kind::Unavailable, "UNAVAILABLE", message)
    }

    /// Room for a body that is about to be read; waits for it.
    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Error> {
        let units = self.units_of(bytes)?;
        match tokio::time::timeout(self.wait, Arc::clone(&self.units).acquire_many_owned(units)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(self.no_room()),
        }
    }

    /// More room for a body that is being read. It holds some already, so it does not wait:
    /// two that did could wait for each other.
    fn more_room(&self, held: &mut OwnedSemaphorePermit, bytes: usize) -> Result<(), Error> {
        let more = Arc::clone(&self.units).try_acquire_many_owned(self.units_of(bytes)?).map_err(|_| self.no_room())?;
        held.merge(more);
        Ok(())
    }

    fn units_of(&self, bytes: usize) -> Result<u32, Error> {
        let units = bytes.div_ceil(UNIT_BYTES);
        if units > self.units_max { Err(self.no_room()) } else { u32::try_from(units).map_err(|_| self.no_room()) }
    }

    /// Read a whole body of at most `bytes_max` bytes.
    ///
    /// Errors: `TooLarge` (`SIZE_INVALID`) as soon as the limit is passed, `Invalid`
    /// (`BODY_INVALID`) when the connection breaks off or stalls, `Unavailable` when there
    /// is no memory for it.
    pub async fn read_body(&self, body: Body, bytes_max: usize) -> Result<Bytes, Error> {
        let too_large =
            || Error::new(Kind::TooLarge, "SIZE_INVALID", format!("the body is larger than {bytes_max} bytes"));
        let hint = http_body::Body::size_hint(&body);
        if hint.lower() > bytes_max as u64 {
            return Err(too_large());
        }
        let expected = hint.exact().and_then(|n| usize::try_from(n).ok());
        if expected == Some(0) {
            return Ok(Bytes::new());
        }
        let mut room = expected.unwrap_or(STEP_BYTES.min(bytes_max));
        let mut permit = self.room(room).await?;
        let mut body = body;
        let mut all = BytesMut::with_capacity(expected.unwrap_or(0));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|cause| {
                Error::new(Kind::Invalid, "BODY_INVALID", "the request body broke off").with_source(cause.to_string())
            })?;
            let Ok(data) = frame.into_data() else { continue };
            let len = all.len() + data.len();
            if len > bytes_max {
                return Err(too_large());
            }
            if len > room {
                let step = STEP_BYTES.max(len - room).min(bytes_max - room);
                self.more_room(&mut permit, step)?;
                room += step;
            }
            all.extend_from_slice(&data);
        }
        Ok(Bytes::from_owner(Held { bytes: all, _permit: permit }))
    }
}

/// Bytes that give back their memory's permit when nobody has them any more.
struct Held {
    bytes: BytesMut,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(bytes_max: u64) -> Memory {
        Memory::with_wait(bytes_max, Duration::from_millis(1))
    }

    fn streamed(parts: &[&'static str]) -> Body {
        let parts: Vec<_> = parts.iter().map(|p| Ok::<_, std::io::Error>(Bytes::from_static(p.as_bytes()))).collect();
        Body::from_stream(futures_util::stream::iter(parts))
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_and_one_at_it_is_not() {
        let memory = small(1 << 20);
        assert_eq!(memory.read_body(Body::from("12345"), 5).await.unwrap(), "12345");
        let e = memory.read_body(Body::from("123456"), 5).await.unwrap_err();
        assert_eq!((e.kind, e.code), (Kind::TooLarge, "SIZE_INVALID"));
        assert_eq!(memory.read_body(streamed(&["12", "34", "56"]), 6).await.unwrap(), "123456");
        assert_eq!(memory.read_body(streamed(&["12", "34", "56"]), 5).await.unwrap_err().kind, Kind::TooLarge);
        assert_eq!(memory.read_body(Body::empty(), 5).await.unwrap(), "");
        assert_eq!(memory.used().0, 0, "all is given back");
    }

    #[tokio::test]
    async fn what_is_held_is_counted_until_the_last_reference_goes() {
        let memory = small(100 * 1_024);
        let one = memory.read_body(Body::from(vec![b'x'; 60 * 1_024]), 1 << 20).await.unwrap();
        assert_eq!(memory.used(), (60 * 1_024, 100 * 1_024));
        let part = one.slice(10..20);
        drop(one);
        assert_eq!(memory.used().0, 60 * 1_024);
        // No room for a second, whether its length is known or not.
        let known = memory.read_body(Body::from(vec![b'x'; 60 * 1_024]), 1 << 20).await.unwrap_err();
        assert_eq!(known.kind, Kind::Unavailable);
        let long: &'static str = "x".repeat(60 * 1_024).leak();
        assert_eq!(memory.read_body(streamed(&[long]), 1 << 20).await.unwrap_err().kind, Kind::Unavailable);
        drop(part);
        assert_eq!(memory.used().0, 0);
        assert_eq!(memory.read_body(streamed(&[long]), 1 << 20).await.unwrap().len(), 60 * 1_024);
        assert_eq!(memory.used().0, 0);
    }

    #[tokio::test]
    async fn one_that_waits_gets_its_turn() {
        let memory = Memory::with_wait(64 * 1_024, Duration::from_secs(600));
        let first = memory.read_body(Body::from(vec![b'x'; 64 * 1_024]), 1 << 20).await.unwrap();
        let waiting = tokio::spawn({
            let memory = memory.clone();
            async move { memory.read_body(Body::from("late"), 1 << 20).await }
        });
        drop(first);
        assert_eq!(waiting.await.unwrap().unwrap(), "late");
    }

    #[tokio::test]
    async fn a_body_that_can_never_fit_does_not_wait() {
        let memory = Memory::with_wait(16 * 1_024, Duration::from_secs(600));
        let e = memory.read_body(Body::from(vec![b'x'; 32 * 1_024]), 1 << 20).await.unwrap_err();
        assert_eq!(e.kind, Kind::Unavailable);
    }
}
