//! The reading side: some threads, each with a connection, one snapshot for each closure.

use crossbeam_channel::Receiver;

use super::super::queue::{Message, again};
use super::super::tx::storable;
use super::super::{Row, Tx, Value};
use super::error::Failure;
use super::link::Link;
use crate::{Error, Result};

/// One snapshot, taken by the first statement.
struct ReadTx<'l> {
    link: &'l mut Link,
    begun: bool,
    /// The first failure of a statement; the transaction does nothing after it.
    failed: Option<Error>,
    /// The connection is gone.
    lost: bool,
}

impl ReadTx<'_> {
    fn statement(
        &mut self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<()>,
    ) -> Result<u64> {
        storable(params)?;
        if let Some(failed) = &self.failed {
            return Err(again(failed));
        }
        let mut may_retry = !self.begun;
        loop {
            let mut rows = false;
            let mut each = |row: &dyn Row| {
                rows = true;
                each(row)
            };
            let open = if self.begun { self.link.same_session() } else { self.link.session() };
            let (runtime, session) = match open {
                Ok(open) => open,
                Err(e) => return Err(self.fail(e, true)),
            };
            let before = if self.begun { "" } else { "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" };
            match runtime.block_on(session.run(before, sql, params, &mut each)) {
                Err(Failure::Lost(_)) if may_retry && !rows => {
                    may_retry = false;
                    self.link.lose();
                }
                Err(Failure::Lost(e) | Failure::Aborted(e)) => return Err(self.fail(e, true)),
                Err(Failure::Statement(e)) => return Err(self.fail(e, false)),
                Err(Failure::Row(e)) => {
                    self.begun = true;
                    return Err(e);
                }
                Ok(n) => {
                    self.begun = true;
                    return Ok(n);
                }
            }
        }
    }

    fn fail(&mut self, e: Error, lost: bool) -> Error {
        (self.begun, self.lost, self.failed) = (true, lost, Some(again(&e)));
        e
    }
}

impl Tx for ReadTx<'_> {
    fn execute(&mut self, sql: &str, params: &[Value<'_>]) -> Result<u64> {
        self.statement(sql, params, &mut |_| Ok(()))
    }

    fn query(&mut self, sql: &str, params: &[Value<'_>], each: &mut dyn FnMut(&dyn Row) -> Result<()>) -> Result<()> {
        self.statement(sql, params, each).map(drop)
    }

    fn notify(&mut self, _: &str) -> Result<()> {
        Err(Error::Database("a notice in a transaction that only reads".to_owned()))
    }
}

/// Take closures and run them, until the store closes.
pub(super) fn read_loop(link: &mut Link, questions: &Receiver<Message>) {
    while let Ok(Message::Job(mut job, permit)) = questions.recv() {
        let mut tx = ReadTx { link, begun: false, failed: None, lost: false };
        job.run(&mut tx);
        let (begun, lost) = (tx.begun, tx.lost.then(|| tx.failed.take()).flatten());
        drop(permit);
        let is_lost = lost.is_some();
        job.answer(lost);
        if is_lost {
            link.lose();
        } else if begun {
            // Nothing was changed, so how it ends does not matter; nobody waits for it.
            if let Ok((runtime, session)) = link.same_session()
                && runtime.block_on(session.simple("ROLLBACK")).is_err()
            {
                link.lose();
            }
        }
    }
}
