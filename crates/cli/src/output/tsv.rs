//! `-o tsv`: one row for each item, its values between tabs. As az has it: an object's
//! values come in the order of their keys, a list inside a row is its length, an object
//! inside a row is empty.

use serde_json::Value;

pub(super) fn render(value: Value) -> String {
    let rows = match value {
        Value::Array(items) => items,
        single => vec![single],
    };
    let mut out = String::new();
    for row in rows {
        match row {
            Value::Object(members) => push_cells(&mut out, members.values()),
            Value::Array(items) => push_cells(&mut out, items.iter()),
            Value::Bool(b) => out.push_str(if b { "true" } else { "false" }),
            scalar => out.push_str(&cell(&scalar)),
        }
        out.push('\n');
    }
    out
}

fn push_cells<'a>(out: &mut String, values: impl Iterator<Item = &'a Value>) {
    for (n, value) in values.enumerate() {
        if n > 0 {
            out.push('\t');
        }
        out.push_str(&cell(value));
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => s.clone(),
        Value::Array(items) => items.len().to_string(),
        Value::Object(_) => String::new(),
    }
}
