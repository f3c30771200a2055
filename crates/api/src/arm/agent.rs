//! `…/runs/{run}/relayAgent`, our own: questions of a build to the ssh agent of whoever
//! ordered it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{ArmClient, RegistryRef};
use crate::error::Result;

/// A question to an agent.
#[derive(Clone, Debug, Deserialize)]
pub struct AgentQuestion {
    /// Its number in the run.
    pub number: u64,
    /// Which agent, as the order called it.
    pub agent: String,
    /// The agent protocol's message, in base64.
    message: String,
}

impl AgentQuestion {
    /// The message; `None` when it is not base64.
    pub fn message(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.message).ok()
    }
}

/// What an agent answered.
#[derive(Clone, Debug, Serialize)]
pub struct AgentAnswer {
    number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl AgentAnswer {
    /// To the question `number`: a message, or that there is none.
    pub fn new(number: u64, message: Option<&[u8]>) -> AgentAnswer {
        AgentAnswer { number, message: message.map(|bytes| STANDARD.encode(bytes)) }
    }
}

/// What a run asks next.
#[derive(Clone, Debug, Deserialize)]
pub struct AgentQuestions {
    /// Perhaps none yet.
    #[serde(default)]
    pub questions: Vec<AgentQuestion>,
    /// Nothing more is asked.
    #[serde(default)]
    pub ended: bool,
}

impl ArmClient {
    /// Give answers and wait for the next questions, up to half a minute.
    pub async fn relay_agent(
        &self,
        registry: &RegistryRef,
        run: &str,
        answers: &[AgentAnswer],
    ) -> Result<AgentQuestions> {
        let body = serde_json::json!({ "answers": answers });
        let path = format!("{}/relayAgent", self.run_path(registry, run));
        self.request(Method::POST, &path, Some(&body)).await
    }
}
