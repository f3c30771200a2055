//! Buffers that are used again.
//!
//! A fresh buffer of this size costs a page fault for every 4 KiB the first time it is
//! written to, and falls out of the processor's cache when it is freed. So buffers come back
//! here when they are dropped, and a few are kept.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Buffers of one size. Cheap to clone; all clones are one pool.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Bytes of a buffer that are used; it begins at a multiple of `align`.
    bytes: usize,
    align: usize,
    kept_max: usize,
    out_max: usize,
    out: AtomicUsize,
    kept: Mutex<Vec<Vec<u8>>>,
}

/// A buffer on loan. Goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    pool: Pool,
    memory: Vec<u8>,
    begin: usize,
    filled: usize,
}

impl Pool {
    /// Buffers of `bytes` at multiples of `align` (a power of two). `kept_max` of them are
    /// kept when nobody needs them; no more than `out_max` are out at a time.
    pub(super) fn new(bytes: usize, align: usize, kept_max: usize, out_max: usize) -> Pool {
        Pool(Arc::new(Inner {
            bytes,
            align,
            kept_max,
            out_max,
            out: AtomicUsize::new(0),
            kept: Mutex::new(Vec::new()),
        }))
    }

    /// An empty buffer, if not too many are out.
    pub(super) fn take(&self) -> Option<Buffer> {
        let inner = &*self.0;
        if inner.out.fetch_add(1, Ordering::Relaxed) >= inner.out_max {
            inner.out.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let kept = inner.kept.lock().pop();
        let memory = kept.unwrap_or_else(|| vec![0; inner.bytes + inner.align]);
        let begin = memory.as_ptr().addr().next_multiple_of(inner.align) - memory.as_ptr().addr();
        Some(Buffer { pool: self.clone(), memory, begin, filled: 0 })
    }
}

impl Buffer {
    /// Bytes that still fit.
    pub(super) fn room(&self) -> usize {
        self.pool.0.bytes - self.filled
    }

    /// Copy what fits from the front of `bytes`; how many that was.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.room());
        let at = self.begin + self.filled;
        self.memory[at..at + len].copy_from_slice(&bytes[..len]);
        self.filled += len;
        len
    }

    /// Let `read` write to the room and say how many bytes it wrote.
    pub(super) fn fill_with<E>(&mut self, read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<usize, E> {
        let room: Range<usize> = self.begin + self.filled..self.begin + self.pool.0.bytes;
        let len = read(&mut self.memory[room])?.min(self.room());
        self.filled += len;
        Ok(len)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.begin..self.begin + self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let inner = &*self.pool.0;
        inner.out.fetch_sub(1, Ordering::Relaxed);
        let mut kept = inner.kept.lock();
        if kept.len() < inner.kept_max {
            kept.push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_bounded_and_used_again() {
        let pool = Pool::new(8192, 4096, 1, 2);
        let mut one = pool.take().unwrap();
        let two = pool.take().unwrap();
        assert!(pool.take().is_none(), "no more than two are out");
        assert_eq!(one.fill(&[7; 5000]), 5000);
        assert_eq!(one.fill(&[8; 5000]), 3192);
        assert_eq!((one.room(), one.as_ref().len(), one.as_ref()[5000]), (0, 8192, 8));
        let first = one.as_ref().as_ptr().addr();
        assert_eq!(first % 4096, 0);
        drop(one);
        let mut again = pool.take().unwrap();
        assert_eq!(again.as_ref(), b"", "what was in it is gone");
        assert_eq!(again.fill_with(|room| Ok::<_, ()>(room.len())), Ok(8192));
        assert_eq!(again.as_ref().as_ptr().addr(), first);
        drop((again, two));
        assert_eq!(pool.0.kept.lock().len(), 1, "one is kept");
    }
}
