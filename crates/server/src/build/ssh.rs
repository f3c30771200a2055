//! SSH agents of builds: keys that came with the order, and clients' own agents.
//!
//! A step talks to a socket ([`portolan_builder::SshForward`]); what it asks ends here. Keys of the
//! order sign in this process, and are forgotten with the run. A client's own agent is asked by
//! way of a *relay*: the question waits in a run's [`Relay`] until the client, which asks again
//! and again while it follows its run (`…/runs/{run}/relayAgent`), takes it along and comes
//! back with the answer. The keys never leave the client.
//!
//! *Architecture invariant:* whoever ordered the run, and nobody else, sees its questions: an
//! answer of somebody else would sign a step in with keys that are not the caller's.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use portolan_auth::ssh::SshKey;
use portolan_builder::ports::SshAgent;
use portolan_builder::{Cancel, SshForward};
use portolan_tasks::Job;
use portolan_types::RunId;
use tokio::sync::watch;
use uuid::Uuid;

/// `SSH_AGENTC_REQUEST_IDENTITIES`
const REQUEST_IDENTITIES: u8 = 11;
/// `SSH_AGENT_IDENTITIES_ANSWER`
const IDENTITIES_ANSWER: u8 = 12;
/// `SSH_AGENTC_SIGN_REQUEST`
const SIGN_REQUEST: u8 = 13;
/// `SSH_AGENT_SIGN_RESPONSE`
const SIGN_RESPONSE: u8 = 14;
/// `SSH_AGENT_FAILURE`
const FAILURE: u8 = 5;
/// The longest message, as OpenSSH's own agent has it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Questions of one run that wait at once.
const QUESTIONS_MAX: usize = 64;
/// How long a question waits for a client to come for it.
const FETCH_MAX: Duration = Duration::from_secs(45);
/// How long a client may take to answer: somebody may have to touch a key.
const ANSWER_MAX: Duration = Duration::from_secs(180);

/// Signs with keys that came with an order.
struct Keys(Vec<SshKey>);

impl SshAgent for Keys {
    fn ask(&self, message: &[u8], _: &Cancel) -> io::Result<Vec<u8>> {
        let (kind, rest) = message.split_first().ok_or(io::ErrorKind::InvalidData)?;
        match *kind {
            REQUEST_IDENTITIES => {
                let mut answer = vec![IDENTITIES_ANSWER];
                answer.extend_from_slice(&(self.0.len() as u32).to_be_bytes());
                for key in &self.0 {
                    string(&mut answer, key.public());
                    string(&mut answer, key.comment().as_bytes());
                }
                Ok(answer)
            }
            SIGN_REQUEST => Ok(self.sign(rest).unwrap_or_else(|| vec![FAILURE])),
            _ => Ok(vec![FAILURE]),
        }
    }
}

impl Keys {
    fn sign(&self, request: &[u8]) -> Option<Vec<u8>> {
        let (public, rest) = take(request)?;
        let (data, rest) = take(rest)?;
        let flags = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?);
        let key = self.0.iter().find(|key| key.public() == public)?;
        let signature = key.sign(data, flags).ok()?;
        let mut answer = vec![SIGN_RESPONSE];
        string(&mut answer, &signature);
        Some(answer)
    }
}

/// A string of the protocol, and what follows it.
fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(4)?;
    rest.split_at_checked(u32::from_be_bytes(length.try_into().ok()?) as usize)
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A question of a step to its caller's agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// Its number in the run.
    pub(crate) number: u64,
    /// Which agent it is for, as the order calls it.
    pub(crate) agent: String,
    /// The agent protocol's message.
    pub(crate) message: Vec<u8>,
}

/// What comes of a client's looking for questions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// These wait; perhaps none yet.
    Questions(Vec<Question>),
    /// It is not this client's run.
    Forbidden,
    /// The run has no relay here, not yet or not any more.
    None,
}

/// The relays of all runs that this process carries out.
pub(crate) struct Relays {
    all: Mutex<HashMap<(i64, RunId), Arc<Relay>>>,
    changed: watch::Sender<u64>,
}

impl Default for Relays {
    fn default() -> Relays {
        Relays { all: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

/// Where a run's questions and their answers meet.
struct Relay {
    owner: Uuid,
    state: Mutex<Questions>,
    answered: Condvar,
    asked: watch::Sender<u64>,
}

#[derive(Default)]
struct Questions {
    next: u64,
    open: BTreeMap<u64, Open>,
    closed: bool,
}

/// A question without an end yet.
struct Open {
    question: Question,
    /// Whether a client has come for it.
    fetched: bool,
    /// `Some(None)`: the client has no answer.
    answer: Option<Option<Vec<u8>>>,
}

/// A run's relay for as long as the run lives.
pub(crate) struct OpenRelay {
    relays: Arc<Relays>,
    key: (i64, RunId),
    relay: Arc<Relay>,
}

impl Relays {
    fn open(self: &Arc<Relays>, registry: i64, run: &RunId, owner: Uuid) -> OpenRelay {
        let relay =
            Arc::new(Relay { owner, state: Mutex::default(), answered: Condvar::new(), asked: watch::Sender::new(0) });
        let key = (registry, run.clone());
        self.all.lock().insert(key.clone(), relay.clone());
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
        OpenRelay { relays: self.clone(), key, relay }
    }

    /// For `client`: take in answers to questions of a run, and wait up to `patience` for the
    /// next questions. An answer of `None` says that there is none.
    pub(crate) async fn look(
        &self,
        registry: i64,
        run: &RunId,
        client: Uuid,
        answers: Vec<(u64, Option<Vec<u8>>)>,
        patience: Duration,
    ) -> Look {
        let until = tokio::time::Instant::now() + patience;
        let key = (registry, run.clone());
        let mut changed = self.changed.subscribe();
        let relay = loop {
            if let Some(relay) = self.all.lock().get(&key).cloned() {
                break relay;
            }
            if tokio::time::timeout_at(until, changed.changed()).await.is_err() {
                return Look::None;
            }
        };
        if relay.owner != client {
            return Look::Forbidden;
        }
        let mut asked = relay.asked.subscribe();
        relay.take_in(answers);
        loop {
            asked.borrow_and_update();
            match relay.fetch() {
                None => return Look::None,
                Some(questions) if !questions.is_empty() => return Look::Questions(questions),
                Some(_) => {}
            }
            if !matches!(tokio::time::timeout_at(until, asked.changed()).await, Ok(Ok(()))) {
                return Look::Questions(Vec::new());
            }
        }
    }
}

impl Drop for OpenRelay {
    fn drop(&mut self) {
        self.relays.all.lock().remove(&self.key);
        let mut state = self.relay.state.lock();
        state.closed = true;
        drop(state);
        self.relay.answered.notify_all();
        self.relay.asked.send_modify(|n| *n = n.wrapping_add(1));
    }
}

impl Relay {
    fn take_in(&self, answers: Vec<(u64, Option<Vec<u8>>)>) {
        let mut state = self.state.lock();
        for (number, answer) in answers {
            if let Some(open) = state.open.get_mut(&number) {
                open.answer.get_or_insert(answer);
            }
        }
        drop(state);
        self.answered.notify_all();
    }

    /// The questions without an answer; `None` once the run is over.
    fn fetch(&self) -> Option<Vec<Question>> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        let open = state.open.values_mut().filter(|open| open.answer.is_none());
        Some(
            open.map(|open| {
                open.fetched = true;
                open.question.clone()
            })
            .collect(),
        )
    }

    fn ask(self: &Arc<Relay>, agent: &str, message: &[u8], stop: &Cancel) -> io::Result<Vec<u8>> {
        // Under the lock, so that it cannot come between a look and the wait after it.
        let _wake = stop.on_cancel({
            let relay = self.clone();
            move || {
                drop(relay.state.lock());
                relay.answered.notify_all();
            }
        });
        let failed = |why: &str| Err(io::Error::other(why.to_owned()));
        let begun = Instant::now();
        let mut state = self.state.lock();
        if state.open.len() >= QUESTIONS_MAX {
            return failed("too many questions to the client's ssh agent wait");
        }
        state.next += 1;
        let number = state.next;
        let question = Question { number, agent: agent.to_owned(), message: message.to_vec() };
        state.open.insert(number, Open { question, fetched: false, answer: None });
        self.asked.send_modify(|n| *n = n.wrapping_add(1));
        loop {
            let closed = state.closed || stop.is_cancelled();
            let Some(open) = state.open.get_mut(&number) else { return failed("a question was lost") };
            let waited = begun.elapsed();
            let limit = if open.fetched { ANSWER_MAX } else { FETCH_MAX };
            if closed || open.answer.is_some() || waited >= limit {
                let fetched = open.fetched;
                let answer = state.open.remove(&number).and_then(|open| open.answer);
                return match answer {
                    Some(Some(answer)) => Ok(answer),
                    Some(None) => failed("the client's ssh agent did not answer"),
                    None if closed => failed("the run is over"),
                    None if fetched => failed("the client's ssh agent took too long"),
                    None => failed("no client came to answer for its ssh agent"),
                };
            }
            self.answered.wait_for(&mut state, limit - waited);
        }
    }
}

/// A client's own agent, as a step's socket sees it.
struct Forwarded {
    relay: Arc<Relay>,
    id: String,
}

impl SshAgent for Forwarded {
    fn ask(&self, message: &[u8], stop: &Cancel) -> io::Result<Vec<u8>> {
        self.relay.ask(&self.id, message, stop)
    }
}

/// The agents of a run. Keep the relay for as long as the run goes on. The error is a sentence
/// for whoever ordered it.
pub(super) fn agents(relays: &Arc<Relays>, job: &Job) -> Result<(Vec<SshForward>, Option<OpenRelay>), String> {
    let options = &job.build.options;
    let mut relay = None;
    let mut agents = Vec::new();
    for ssh in &options.ssh {
        let id = ssh.id.clone();
        let agent: Arc<dyn SshAgent> = if ssh.forward {
            let owner = options.ssh_owner.ok_or_else(|| format!("nobody can answer for the ssh agent {id}"))?;
            let open = relay.get_or_insert_with(|| relays.open(job.registry, &job.id, owner));
            Arc::new(Forwarded { relay: open.relay.clone(), id: id.clone() })
        } else {
            let read = |key: &portolan_types::Secret<Vec<u8>>| SshKey::parse(key.expose());
            let keys: Result<Vec<SshKey>, _> = ssh.keys.iter().map(read).collect();
            Arc::new(Keys(keys.map_err(|why| format!("a key of the ssh agent {id} cannot be used: {why}"))?))
        };
        agents.push(SshForward { id, agent });
    }
    Ok((agents, relay))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn keys_are_listed_and_sign_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "c", "-f"]).arg(&path).status();
        assert!(made.expect("tests need ssh-keygen").success());
        let keys = Keys(vec![SshKey::parse(&std::fs::read(path).unwrap()).unwrap()]);
        let ask = |message: &[u8]| keys.ask(message, &Cancel::new()).unwrap();
        let list = ask(&[REQUEST_IDENTITIES]);
        let (public, rest) = take(&list[5..]).unwrap();
        assert_eq!((&list[..5], public, take(rest).unwrap().0), (&[12, 0, 0, 0, 1][..], keys.0[0].public(), &b"c"[..]));
        let mut request = vec![SIGN_REQUEST];
        string(&mut request, public);
        string(&mut request, b"data");
        request.extend_from_slice(&[0; 4]);
        let signed = ask(&request);
        assert_eq!(signed[0], SIGN_RESPONSE);
        assert!(take(take(&signed[1..]).unwrap().0).unwrap().0.starts_with(b"ssh-ed25519"));
        request[8] ^= 1;
        assert_eq!(ask(&request), [FAILURE], "a key that is not here");
        for cut in 1..request.len() {
            assert_eq!(ask(&request[..cut]), [FAILURE]);
        }
        assert_eq!(ask(&[19]), [FAILURE]);
        assert!(keys.ask(&[], &Cancel::new()).is_err());
    }

    fn run() -> RunId {
        RunId::nth(1)
    }

    const NOW: Duration = Duration::ZERO;
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_question_goes_to_its_owner_and_the_answer_comes_back() {
        let relays = Arc::new(Relays::default());
        let (me, other) = (Uuid::new_v4(), Uuid::new_v4());
        assert_eq!(relays.look(1, &run(), me, Vec::new(), NOW).await, Look::None);
        let open = relays.open(1, &run(), me);
        assert_eq!(relays.look(1, &run(), other, Vec::new(), LONG).await, Look::Forbidden);
        assert_eq!(relays.look(2, &run(), me, Vec::new(), NOW).await, Look::None, "a run of another registry");
        let agent = Forwarded { relay: open.relay.clone(), id: "default".into() };
        let asking = tokio::task::spawn_blocking(move || agent.ask(&[11], &Cancel::new()));
        let Look::Questions(questions) = relays.look(1, &run(), me, Vec::new(), LONG).await else { panic!() };
        assert_eq!(questions, [Question { number: 1, agent: "default".into(), message: vec![11] }]);
        // Somebody else's answer counts for nothing, nor does one to another question.
        let forged = vec![(1, Some(vec![66]))];
        assert_eq!(relays.look(1, &run(), other, forged, NOW).await, Look::Forbidden);
        relays.look(1, &run(), me, vec![(7, Some(vec![7]))], NOW).await;
        assert_eq!(relays.look(1, &run(), me, vec![(1, Some(vec![12, 0]))], NOW).await, Look::Questions(Vec::new()));
        assert_eq!(asking.await.unwrap().unwrap(), [12, 0]);
        drop(open);
        assert_eq!(relays.look(1, &run(), me, Vec::new(), NOW).await, Look::None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_question_ends_with_its_step_its_run_or_a_refusal() {
        let relays = Arc::new(Relays::default());
        let me = Uuid::new_v4();
        let open = relays.open(1, &run(), me);
        let ask = |stop: &Cancel| {
            let (agent, stop) = (Forwarded { relay: open.relay.clone(), id: "a".into() }, stop.clone());
            tokio::task::spawn_blocking(move || agent.ask(&[11], &stop).unwrap_err().to_string())
        };
        let stop = Cancel::new();
        let asking = ask(&stop);
        relays.look(1, &run(), me, Vec::new(), LONG).await;
        stop.cancel();
        assert_eq!(asking.await.unwrap(), "the run is over");
        let asking = ask(&Cancel::new());
        let Look::Questions(questions) = relays.look(1, &run(), me, Vec::new(), LONG).await else { panic!() };
        relays.look(1, &run(), me, vec![(questions[0].number, None)], NOW).await;
        assert_eq!(asking.await.unwrap(), "the client's ssh agent did not answer");
        let asking = ask(&Cancel::new());
        let waiting = tokio::spawn({
            let relays = relays.clone();
            async move {
                relays.look(1, &run(), me, Vec::new(), LONG).await;
                relays.look(1, &run(), me, vec![(99, None)], LONG).await
            }
        });
        relays.look(1, &run(), me, Vec::new(), LONG).await;
        drop(open);
        assert_eq!(asking.await.unwrap(), "the run is over");
        // Whoever waited for questions hears of the end at once.
        assert!(matches!(waiting.await.unwrap(), Look::None | Look::Questions(_)));
    }
}
