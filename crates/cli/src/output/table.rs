//! `-o table`: a header, a line of dashes, left-aligned columns two spaces apart.

use serde_json::Value;

/// The columns of one item: header and text.
pub(crate) type Columns = fn(&Value) -> Vec<(&'static str, String)>;

/// One row: headers and texts.
pub(crate) type Row = Vec<(String, String)>;

/// Rows by columns made for the value.
pub(crate) fn rows_by(columns: Columns, value: &Value) -> Vec<Row> {
    // `{"value": […]}` is a list as ARM writes it, `references` as the referrers come.
    let inner = ["value", "references"].iter().find_map(|m| value.get(m).filter(|v| v.is_array()));
    let items: &[Value] = match inner.unwrap_or(value) {
        Value::Array(items) => items,
        _ => std::slice::from_ref(value),
    };
    items.iter().map(|i| columns(i).into_iter().map(|(h, t)| (h.to_owned(), t)).collect()).collect()
}

/// Rows out of the value's own members: scalars only, without `id`, `type` and `etag`.
pub(crate) fn rows_of_members(value: Value) -> Vec<Row> {
    let items = match value {
        Value::Array(items) => items,
        single => vec![single],
    };
    items.into_iter().map(row_of_members).collect()
}

fn row_of_members(item: Value) -> Row {
    match item {
        Value::Object(members) => members
            .into_iter()
            .filter(|(key, value)| {
                !matches!(key.as_str(), "id" | "type" | "etag")
                    && !matches!(value, Value::Null | Value::Array(_) | Value::Object(_))
            })
            .map(|(key, value)| (capitalized(&key), text(&value)))
            .collect(),
        Value::Array(items) => items.iter().enumerate().map(|(n, v)| (format!("Column{}", n + 1), text(v))).collect(),
        scalar => vec![("Result".to_owned(), text(&scalar))],
    }
}

fn capitalized(key: &str) -> String {
    let mut chars = key.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// The text of a member for a table: a space where there is nothing.
pub(crate) fn member(item: &Value, path: &[&str]) -> String {
    let mut at = item;
    for step in path {
        let next = match step.parse::<usize>() {
            Ok(index) => at.get(index),
            Err(_) => at.get(*step),
        };
        match next {
            Some(next) => at = next,
            None => return " ".into(),
        }
    }
    match at {
        Value::Null => " ".into(),
        Value::String(s) if s.is_empty() => " ".into(),
        Value::Array(items) if items.is_empty() => " ".into(),
        other => text(other),
    }
}

/// A time to the second.
pub(crate) fn time(item: &Value, path: &[&str]) -> String {
    let text = member(item, path);
    match portolan_types::Timestamp::parse(text.trim()) {
        // `2026-11-20T10:00:00.…Z` without the fraction.
        Some(time) => format!("{}Z", time.rfc3339().split('.').next().unwrap_or_default()),
        None => text,
    }
}

/// `hh:mm:ss` between two times.
pub(crate) fn duration(item: &Value, from: &[&str], to: &[&str]) -> String {
    let parse = |path| portolan_types::Timestamp::parse(member(item, path).trim());
    match (parse(from), parse(to)) {
        (Some(from), Some(to)) => {
            let secs = to.since(from).as_secs();
            format!("{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)
        }
        _ => " ".into(),
    }
}

/// Lay out rows; each row may have columns of its own.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut headers: Vec<&str> = Vec::new();
    for (header, _) in rows.iter().flatten() {
        if !headers.contains(&header.as_str()) {
            headers.push(header);
        }
    }
    if headers.is_empty() {
        return String::new();
    }
    let cell = |row: &Row, header: &str| {
        row.iter().find(|(h, _)| h == header).map(|(_, t)| t.replace(['\n', '\r'], " ")).unwrap_or_default()
    };
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = headers
        .iter()
        .map(|h| rows.iter().map(|r| width(&cell(r, h))).chain([width(h) + 2]).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    let mut line = |cells: Vec<String>| {
        let mut text = String::new();
        for (cell, wide) in cells.iter().zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', wide.saturating_sub(width(cell)) + 2));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(headers.iter().map(|h| (*h).to_owned()).collect());
    line(widths.iter().map(|w| "-".repeat(*w)).collect());
    for row in rows {
        line(headers.iter().map(|h| cell(row, h)).collect());
    }
    out
}
