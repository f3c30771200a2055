//! What other servers say: a connection that listens, and a queue of what it heard.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_postgres::AsyncMessage;

use super::super::Notice;
use super::config::Server;
use super::session::{Refusal, connect, hash, text_column};
use super::write::Channel;

/// Notices that nobody asked for yet; beyond these, all are dropped and `Missed` is told.
const NOTICES_MAX: usize = 10_000;
/// How often the connection is tried, when nothing comes over it.
const CHECK_SECS: u64 = 10;
/// How long an answer may take.
const ANSWER_SECS_MAX: u64 = 10;
/// Between attempts to connect.
const RETRY_MILLIS: u64 = 250;

/// What was heard and not yet told.
#[derive(Default)]
pub(super) struct Heard {
    queue: Mutex<VecDeque<Notice>>,
    more: Notify,
}

impl Heard {
    pub(super) async fn next(&self) -> Notice {
        loop {
            let more = self.more.notified();
            if let Some(notice) = self.queue.lock().pop_front() {
                return notice;
            }
            more.await;
        }
    }

    fn push(&self, notice: Notice) {
        let mut queue = self.queue.lock();
        if queue.len() >= NOTICES_MAX || notice == Notice::Missed {
            queue.clear();
            queue.push_back(Notice::Missed);
        } else {
            queue.push_back(notice);
        }
        self.more.notify_one();
    }
}

/// Listen until `stop` is dropped. `ready` is told when the first connection listens, or
/// why it does not.
pub(super) async fn listen(
    server: Arc<Server>,
    process: String,
    heard: Arc<Heard>,
    ready: std::sync::mpsc::SyncSender<Result<(), String>>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut ready = Some(ready);
    let mut told = false;
    loop {
        let once = once(&server, &process, &heard, &mut ready, &mut told);
        tokio::select! {
            _ = &mut stop => return,
            ended = once => {
                if let Some(ready) = ready.take() {
                    // Nobody waits when opening was given up.
                    let _ = ready.send(Err(ended));
                    return;
                }
                if !told {
                    told = true;
                    tracing::error!(why = ended, "nothing is heard from other servers until the database is back");
                }
            }
        }
        tokio::select! {
            _ = &mut stop => return,
            () = tokio::time::sleep(Duration::from_millis(RETRY_MILLIS)) => {}
        }
    }
}

/// One connection from beginning to end; why it ended.
async fn once(
    server: &Server,
    process: &str,
    heard: &Arc<Heard>,
    ready: &mut Option<std::sync::mpsc::SyncSender<Result<(), String>>>,
    told: &mut bool,
) -> String {
    let (client, mut connection) = match connect(server).await {
        Ok(connected) => connected,
        Err(refusal) => return Refusal::text(&refusal).to_owned(),
    };
    let (own, to) = (format!("{process} "), Arc::clone(heard));
    let mut messages = tokio::spawn(async move {
        loop {
            match poll_fn(|cx| connection.poll_message(cx)).await {
                Some(Ok(AsyncMessage::Notification(said))) => {
                    let text = said.payload();
                    if !text.starts_with(&own) {
                        let text = text.split_once(' ').map_or(text, |(_, text)| text);
                        to.push(Notice::Told(text.to_owned()));
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(e)) => return super::error::text(&e),
                None => return "the connection was closed".to_owned(),
            }
        }
    });
    let answered = |answer: Result<Result<_, tokio_postgres::Error>, _>| match answer {
        Ok(Ok(said)) => Ok(said),
        Ok(Err(e)) => Err(super::error::text(&e)),
        Err(_) => Err("it does not answer".to_owned()),
    };
    let limit = Duration::from_secs(ANSWER_SECS_MAX);
    let schema = "SELECT current_schema() AS schema";
    let schema = match answered(tokio::time::timeout(limit, client.simple_query(schema)).await) {
        Ok(said) => text_column(&said, "schema").unwrap_or_default(),
        Err(why) => return why,
    };
    let listen = format!("LISTEN {}", Channel::name(hash(schema.as_bytes())));
    if let Err(why) = answered(tokio::time::timeout(limit, client.simple_query(&listen)).await) {
        return why;
    }
    match ready.take() {
        Some(ready) => drop(ready.send(Ok(()))),
        None => {
            *told = false;
            heard.push(Notice::Missed);
        }
    }
    loop {
        tokio::select! {
            why = &mut messages => return why.unwrap_or_else(|e| e.to_string()),
            () = tokio::time::sleep(Duration::from_secs(CHECK_SECS)) => {}
        }
        if let Err(why) = answered(tokio::time::timeout(limit, client.simple_query("SELECT 1")).await) {
            messages.abort();
            return why;
        }
    }
}
