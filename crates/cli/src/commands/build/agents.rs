//! `--ssh`: the ssh agent here answers for a build on the server.
//!
//! The server hands on what a step asks at its socket; the agent here is asked, and the answer
//! goes back. Keys stay where they are. The server is trusted with no more than a step is: it
//! may see which keys there are and have something signed, nothing else.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portolan_api::arm::{AgentAnswer, AgentQuestion, RegistryRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::log::Voice;
use crate::session::Session;
use crate::talk::Talk;

/// The longest message, as OpenSSH's own agent has it.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// `SSH_AGENTC_REQUEST_IDENTITIES`
const REQUEST_IDENTITIES: u8 = 11;
/// `SSH_AGENTC_SIGN_REQUEST`
const SIGN_REQUEST: u8 = 13;
/// How long the agent may take; somebody may have to touch a key.
const ANSWER_SECS_MAX: u64 = 170;
/// How often the server may fail to answer in a row.
const FAILURES_MAX: u32 = 8;

/// Answer for a run until it is over, and then never come back: the log says how it ended.
pub(super) async fn answer(
    session: &Session,
    registry: &RegistryRef,
    run: &str,
    agents: &[(String, PathBuf)],
    talk: &Talk,
    voice: &Voice,
) -> Infallible {
    let mut answers = Vec::new();
    let mut failures = 0;
    while !agents.is_empty() {
        match session.arm.relay_agent(registry, run, &answers).await {
            Ok(next) if next.ended => break,
            Ok(next) => {
                failures = 0;
                answers.clear();
                for question in &next.questions {
                    let answer = ask(question, agents).await;
                    if let Err(error) = &answer {
                        voice.say(talk, &format!("WARNING: --ssh {}: {error}", question.agent));
                    }
                    answers.push(AgentAnswer::new(question.number, answer.ok().as_deref()));
                }
            }
            Err(error) => {
                failures += 1;
                if failures == FAILURES_MAX {
                    voice.say(
                        talk,
                        &format!("WARNING: the ssh agent here can no longer be asked by the build: {error}"),
                    );
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    std::future::pending().await
}

/// Ask the agent that a question is for.
async fn ask(question: &AgentQuestion, agents: &[(String, PathBuf)]) -> io::Result<Vec<u8>> {
    let refused = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why.to_owned()));
    let Some((_, socket)) = agents.iter().find(|(id, _)| *id == question.agent) else {
        return refused("the server asked for an agent that was not offered");
    };
    match question.message() {
        Some(message) if matches!(message.first(), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST))) => {
            let answer = exchange(socket, &message);
            tokio::time::timeout(Duration::from_secs(ANSWER_SECS_MAX), answer)
                .await
                .unwrap_or_else(|_| Err(io::Error::other("the agent here took too long to answer")))
        }
        _ => refused("the server asked for more than the list of keys and signatures"),
    }
}

/// One message to an agent and its answer.
async fn exchange(socket: &Path, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&(message.len() as u32).to_be_bytes()).await?;
    stream.write_all(message).await?;
    let length = stream.read_u32().await? as usize;
    if length == 0 || length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the agent here gave an answer that is too long"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(agent: &str, message: &[u8]) -> AgentQuestion {
        let answer = serde_json::to_value(AgentAnswer::new(1, Some(message))).unwrap();
        let question = serde_json::json!({"number": 1, "agent": agent, "message": answer["message"]});
        serde_json::from_value(question).unwrap()
    }

    #[tokio::test]
    async fn the_server_gets_signatures_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let echo = tokio::spawn(async move {
            let mut asked = Vec::new();
            while asked.len() < 2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut message = vec![0; stream.read_u32().await.unwrap() as usize];
                stream.read_exact(&mut message).await.unwrap();
                stream.write_all(&[0, 0, 0, 2, 14, message[0]]).await.unwrap();
                asked.push(message[0]);
            }
            asked
        });
        let agents = vec![("default".to_owned(), path)];
        // Adding a key, removing all of them, locking, an extension; another agent; nothing.
        for kind in [17, 19, 22, 25, 27] {
            assert!(ask(&question("default", &[kind, 0]), &agents).await.is_err(), "{kind}");
        }
        assert!(ask(&question("other", &[11]), &agents).await.is_err());
        assert!(ask(&question("default", &[]), &agents).await.is_err());
        assert_eq!(ask(&question("default", &[11]), &agents).await.unwrap(), [14, 11]);
        assert_eq!(ask(&question("default", &[13, 5]), &agents).await.unwrap(), [14, 13]);
        assert_eq!(echo.await.unwrap(), [11, 13]);
    }
}
