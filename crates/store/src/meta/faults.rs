//! A database that fails on purpose, and counts what it is asked: for tests of this crate
//! and of those above it, on any engine ([`super::Meta::with_faults`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Row, Tx, Value};
use crate::{Error, Result};

/// Where a transaction fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Before its first statement.
    Begin,
    /// At a statement.
    Call,
    /// At the commit: nothing of it is kept.
    Commit,
    /// After the commit: all of it is kept, and the caller is told that it failed.
    AfterCommit,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// [`Error::Busy`].
    Busy,
    /// [`Error::Full`].
    Full,
    /// [`Error::Database`].
    Database,
}

impl Failure {
    fn error(self) -> Error {
        match self {
            Failure::Busy => Error::Busy,
            Failure::Full => Error::Full,
            Failure::Database => Error::Database("made to fail".into()),
        }
    }
}

#[derive(Debug)]
struct Plan {
    point: Point,
    failure: Failure,
    /// Passes of the point still to go well.
    left: u64,
    fired: bool,
}

/// What is to fail, and what was counted.
#[derive(Debug, Default)]
pub struct Faults {
    plan: Mutex<Option<Plan>>,
    latency: Mutex<Duration>,
    /// Statements run.
    calls: AtomicU64,
    /// Rows handed to whoever asked.
    rows: AtomicU64,
}

impl Faults {
    /// Fail once, at the `nth` (from 1) pass of `point` from now on.
    pub fn fail_at(&self, point: Point, nth: u64, failure: Failure) {
        *self.plan.lock() = Some(Plan { point, failure, left: nth.saturating_sub(1), fired: false });
    }

    /// Fail no more; whether it failed since [`Faults::fail_at`].
    pub fn clear(&self) -> bool {
        self.plan.lock().take().is_some_and(|plan| plan.fired)
    }

    /// Take so long for each transaction.
    pub fn set_latency(&self, latency: Duration) {
        *self.latency.lock() = latency;
    }

    /// Statements run and rows read since the last call.
    pub fn counts(&self) -> (u64, u64) {
        (self.calls.swap(0, Ordering::SeqCst), self.rows.swap(0, Ordering::SeqCst))
    }

    pub(super) fn pass(&self, point: Point) -> Result<()> {
        if point == Point::Begin {
            let latency = *self.latency.lock();
            std::thread::sleep(latency);
        }
        let mut plan = self.plan.lock();
        let Some(plan) = plan.as_mut().filter(|plan| plan.point == point && !plan.fired) else { return Ok(()) };
        if plan.left > 0 {
            plan.left -= 1;
            return Ok(());
        }
        plan.fired = true;
        Err(plan.failure.error())
    }
}

/// A transaction under a plan.
pub(super) struct Planned<'a> {
    pub(super) tx: &'a mut dyn Tx,
    pub(super) faults: &'a Faults,
}

impl Tx for Planned<'_> {
    fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64> {
        self.faults.pass(Point::Call)?;
        self.faults.calls.fetch_add(1, Ordering::SeqCst);
        self.tx.execute(sql, params)
    }

    fn query(&mut self, sql: &str, params: &[Value<'_>], each: &mut dyn FnMut(&dyn Row) -> Result<()>) -> Result<()> {
        self.faults.pass(Point::Call)?;
        self.faults.calls.fetch_add(1, Ordering::SeqCst);
        let rows = &self.faults.rows;
        self.tx.query(sql, params, &mut |row| {
            rows.fetch_add(1, Ordering::SeqCst);
            each(row)
        })
    }

    fn notify(&mut self, text: &str) -> Result<()> {
        self.tx.notify(text)
    }
}
