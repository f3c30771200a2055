//! `POST …/runs/{id}/relayAgent`, of our own: a client's ssh agent answers for the steps of a
//! run that it ordered.
//!
//! The client sends what its agent answered and waits for the next questions, again and again
//! for as long as it follows the run:
//!
//! ```json
//! {"answers": [{"number": 1, "message": "<base64>"}]}
//! {"questions": [{"number": 2, "agent": "default", "message": "<base64>"}], "ended": false}
//! ```
//!
//! An answer without a message says that there is none.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use portolan_auth::access::{Action, Principal};
use portolan_service::{Ctx, Error, Kind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::run::{found, invalid};
use super::{ArmTarget, Response, json_body, respond};
use crate::App;
use crate::build::ssh::{Look, MESSAGE_BYTES_MAX};

/// How long a client waits for questions in one request; less than any proxy's patience.
const WAIT: Duration = Duration::from_secs(20);
/// Answers in one request.
const ANSWERS_MAX: usize = 64;

#[derive(Default, Deserialize)]
struct Answers {
    #[serde(default)]
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    number: u64,
    message: Option<String>,
}

/// Answer one such request.
pub(super) async fn handle(
    app: &Arc<App>,
    ctx: &Ctx,
    target: &ArmTarget,
    id: &str,
    body: Body,
) -> Result<Response, Error> {
    let run = found(app, ctx, target, id, Action::ScheduleRun).await?;
    let Principal::Directory { object_id: client, .. } = ctx.principal else { return Err(forbidden()) };
    let answers = json_body::<Answers>(body).await?.answers;
    if answers.len() > ANSWERS_MAX {
        return Err(invalid(format!("more than {ANSWERS_MAX} answers in one request")));
    }
    let answers = answers.into_iter().map(read).collect::<Result<_, Error>>()?;
    let patience = if run.status.is_final() { Duration::ZERO } else { WAIT };
    let (questions, ended) = match app.relays.look(target.registry.id, &run.id, client, answers, patience).await {
        Look::Forbidden => return Err(forbidden()),
        Look::Questions(questions) => (questions, false),
        Look::None => {
            let run = found(app, ctx, target, id, Action::ScheduleRun).await?;
            (Vec::new(), run.status.is_final())
        }
    };
    let question = |q: &crate::build::ssh::Question| -> Value {
        json!({"number": q.number, "agent": q.agent, "message": STANDARD.encode(&q.message)})
    };
    let questions: Vec<Value> = questions.iter().map(question).collect();
    Ok(respond::json(StatusCode::OK, &json!({"questions": questions, "ended": ended})))
}

fn read(answer: Answer) -> Result<(u64, Option<Vec<u8>>), Error> {
    let Some(text) = answer.message else { return Ok((answer.number, None)) };
    let bytes = STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty() && bytes.len() <= MESSAGE_BYTES_MAX);
    let bytes = bytes.ok_or_else(|| invalid("an answer is a message of the agent's protocol in base64"))?;
    Ok((answer.number, Some(bytes)))
}

fn forbidden() -> Error {
    Error::new(Kind::Forbidden, "AuthorizationFailed", "only who ordered a run can answer for its ssh agent")
}
