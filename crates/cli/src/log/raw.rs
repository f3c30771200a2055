//! The log as BuildKit's `rawjson` progress: one JSON object a line, with the members of its
//! `SolveStatus` that the log has anything for. Times are when the line came here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portolan_types::{Digest, Timestamp};
use serde_json::{Value, json};

use super::Shown;
use super::read::Line;

/// Turns lines into objects.
#[derive(Debug, Default)]
pub(super) struct Raw {
    /// Names of steps and when they began.
    steps: std::collections::HashMap<u32, (String, String)>,
}

impl Raw {
    pub(super) fn line(&mut self, line: Shown<'_>, out: &mut Vec<u8>) {
        if let Some(value) = self.value(&line.means, &Timestamp::now().rfc3339()) {
            out.extend_from_slice(value.to_string().as_bytes());
            out.push(b'\n');
        }
    }

    fn value(&mut self, line: &Line<'_>, now: &str) -> Option<Value> {
        let data = |text: &str| STANDARD.encode(format!("{text}\n"));
        Some(match line {
            Line::Title(step, name) => {
                self.steps.insert(*step, ((*name).to_owned(), now.to_owned()));
                json!({"vertexes": [self.vertex(*step, json!({}))]})
            }
            Line::Output(step, _, text) => json!({
                "logs": [{"vertex": name(*step), "stream": 1, "data": data(text), "timestamp": now}],
            }),
            Line::Moved(step, what, current, total) => json!({
                "statuses": [{"id": what, "vertex": name(*step), "current": current, "total": total, "timestamp": now}],
            }),
            Line::Note(step, text) => json!({
                "statuses": [{"id": text, "vertex": name(*step), "current": 0, "timestamp": now}],
            }),
            Line::Done(step, _) => json!({"vertexes": [self.vertex(*step, json!({"completed": now}))]}),
            Line::Cached(step) => {
                json!({"vertexes": [self.vertex(*step, json!({"completed": now, "cached": true}))]})
            }
            Line::Failed(step, why) => {
                json!({"vertexes": [self.vertex(*step, json!({"completed": now, "error": why}))]})
            }
            Line::Cancelled(step) => {
                json!({"vertexes": [self.vertex(*step, json!({"completed": now, "error": "canceled"}))]})
            }
            Line::Gap => return None,
            Line::Other(text) => match text.strip_prefix("WARNING: ") {
                Some(text) => json!({"warnings": [{"level": 1, "short": STANDARD.encode(text)}]}),
                // Lines of the run around its steps: BuildKit has none.
                None => json!({"lines": [text]}),
            },
        })
    }

    /// A step, with what is new about it.
    fn vertex(&self, step: u32, mut more: Value) -> Value {
        let (title, started) = self.steps.get(&step).cloned().unwrap_or_default();
        more["digest"] = json!(name(step));
        more["name"] = json!(title);
        more["started"] = json!(started);
        more
    }
}

/// BuildKit names steps by digests; ours have numbers.
fn name(step: u32) -> String {
    Digest::of(format!("step {step}").as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step() {
        let mut raw = Raw::default();
        let mut value = |line: Line<'_>| raw.value(&line, "now").unwrap();
        let begun = value(Line::Title(5, "[2/2] RUN x"));
        assert_eq!(
            (&begun["vertexes"][0]["name"], &begun["vertexes"][0]["started"]),
            (&json!("[2/2] RUN x"), &json!("now"))
        );
        let log = value(Line::Output(5, 0.1, "hi"));
        assert_eq!(
            (&log["logs"][0]["data"], &log["logs"][0]["vertex"]),
            (&json!("aGkK"), &begun["vertexes"][0]["digest"])
        );
        assert_eq!(value(Line::Cached(5))["vertexes"][0]["cached"], json!(true));
        assert_eq!(value(Line::Failed(5, "no"))["vertexes"][0]["error"], json!("no"));
        assert_eq!(value(Line::Moved(5, "sha256:a", 1, 2))["statuses"][0]["total"], json!(2));
        assert_eq!(value(Line::Other("WARNING: x"))["warnings"][0]["short"], json!("eA=="));
        assert_eq!(raw.value(&Line::Gap, "now"), None);
    }
}
