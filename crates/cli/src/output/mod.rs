//! Results on stdout, in the forms az prints.
//!
//! A command answers an [`Output`]: a JSON value, and how it looks as a table. `--query`
//! is applied first; then the table's own columns no longer fit and the columns are the
//! value's own members.

pub(crate) mod query;
pub(crate) mod shape;
pub(crate) mod table;
mod tsv;
mod yaml;

use std::io::Write;

use serde_json::Value;

use crate::args::{Format, Global};
use crate::error::{Failure, Result};

/// What a command has to say.
#[derive(Debug)]
pub struct Output {
    value: Value,
    columns: Option<table::Columns>,
    /// What the table's rows are made of, where it is not the value.
    rows: Option<Value>,
}

impl Output {
    /// Nothing.
    pub fn none() -> Output {
        Output { value: Value::Null, columns: None, rows: None }
    }

    /// A value whose members are its columns.
    pub fn value(value: impl Into<Value>) -> Output {
        Output { value: value.into(), columns: None, rows: None }
    }

    /// A value with columns made for it.
    pub fn with_columns(value: impl Into<Value>, columns: table::Columns) -> Output {
        Output { value: value.into(), columns: Some(columns), rows: None }
    }

    /// A value with a table of other rows than its own.
    pub fn with_rows(value: impl Into<Value>, rows: Vec<Value>, columns: table::Columns) -> Output {
        Output { value: value.into(), columns: Some(columns), rows: Some(rows.into()) }
    }

    /// Print to stdout.
    pub fn print(self, global: &Global, color: bool) -> Result<()> {
        let text = self.render(global, color)?;
        match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
            // `… | head` has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            done => done.map_err(Failure::from),
        }
    }

    /// The text to print; empty for nothing.
    pub fn render(self, global: &Global, color: bool) -> Result<String> {
        let queried = global.query.is_some();
        let value = match &global.query {
            Some(query) => query.run(&self.value)?,
            None => self.value,
        };
        if value.is_null() {
            return Ok(String::new());
        }
        Ok(match global.output {
            Format::None => String::new(),
            Format::Json => json(&sorted(value)),
            Format::Jsonc if color => json_in_color(&json(&sorted(value))),
            Format::Jsonc => json(&sorted(value)),
            Format::Yaml | Format::Yamlc => yaml::render(&sorted(value)),
            Format::Tsv => tsv::render(if queried { value } else { sorted(value) }),
            Format::Table => match self.columns {
                Some(columns) if !queried => {
                    table::render(&table::rows_by(columns, self.rows.as_ref().unwrap_or(&value)))
                }
                _ => table::render(&table::rows_of_members(if queried { value } else { sorted(value) })),
            },
        })
    }
}

fn json(value: &Value) -> String {
    // A `Value` always serializes.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// Members in alphabetical order, as az prints them.
fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Object(object) => {
            let mut members: Vec<(String, Value)> = object.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(members.into_iter().collect())
        }
        scalar => scalar,
    }
}

/// Keys blue, strings green, the rest as it is; works line by line on our own printing.
fn json_in_color(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        out.push_str(&line[..indent]);
        let rest = &line[indent..];
        // A key's closing quote is the first `": ` after it: inside a key a quote is `\"`.
        let (key, value) = match rest.strip_prefix('"').and_then(|r| r.find("\": ").map(|at| rest.split_at(at + 2))) {
            Some((key, value)) => (key, value),
            None => ("", rest),
        };
        if !key.is_empty() {
            out.push_str(&crate::talk::paint(crate::talk::Paint::Cyan, key));
        }
        let start = value.find('"');
        match start {
            Some(start) => {
                let end = value.rfind('"').map_or(value.len(), |end| end + 1);
                out.push_str(&value[..start]);
                out.push_str(&crate::talk::paint(crate::talk::Paint::Green, &value[start..end]));
                out.push_str(&value[end..]);
            }
            None => out.push_str(value),
        }
        out.push('\n');
    }
    out
}

/// The resource group in an ARM id.
pub(crate) fn group_of_id(id: &str) -> Option<&str> {
    let mut parts = id.split('/');
    parts.find(|p| p.eq_ignore_ascii_case("resourceGroups"))?;
    parts.next().filter(|g| !g.is_empty())
}
