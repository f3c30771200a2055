//! `-o yaml`: block style. A text that some reader might take for something else (a time,
//! a number, `no`) is quoted, as az's own printer does.

use serde_json::Value;

pub(super) fn render(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(members) if !members.is_empty() => object(&mut out, members, 0),
        Value::Array(items) if !items.is_empty() => array(&mut out, items, 0),
        other => {
            out.push_str(&scalar(other));
            out.push('\n');
            // A lone plain scalar is ended, as az ends it.
            if !out.starts_with(['\'', '"', '[', '{']) {
                out.push_str("...\n");
            }
        }
    }
    out
}

fn object(out: &mut String, members: &serde_json::Map<String, Value>, indent: usize) {
    for (n, (key, value)) in members.iter().enumerate() {
        // The first member of an object in a list stands behind its dash.
        if n > 0 || !out.ends_with("- ") {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push_str(&text(key));
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                object(out, inner, indent + 2);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                array(out, items, indent);
            }
            other => {
                out.push(' ');
                out.push_str(&scalar(other));
                out.push('\n');
            }
        }
    }
}

fn array(out: &mut String, items: &[Value], indent: usize) {
    for (n, item) in items.iter().enumerate() {
        if n > 0 || !out.ends_with("- ") {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push_str("- ");
        match item {
            Value::Object(members) if !members.is_empty() => object(out, members, indent + 2),
            Value::Array(inner) if !inner.is_empty() => array(out, inner, indent + 2),
            other => {
                out.push_str(&scalar(other));
                out.push('\n');
            }
        }
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => text(s),
        Value::Array(_) => "[]".into(),
        Value::Object(_) => "{}".into(),
    }
}

fn text(text: &str) -> String {
    if text.chars().any(|c| c.is_control() || c == '\u{85}' || c == '\u{feff}') {
        // JSON's escapes are YAML's.
        return Value::from(text).to_string();
    }
    if is_plain(text) { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}

/// Whether a text can stand without quotes and still be read as a text.
fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else {
        return false;
    };
    let lower = text.to_ascii_lowercase();
    let word = matches!(lower.as_str(), "null" | "~" | "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n");
    // Numbers, times, and what only looks like one: better quoted once too often.
    let number = first.is_ascii_digit()
        || (matches!(first, '+' | '.') && text[1..].starts_with(|c: char| c.is_ascii_digit() || c == '.'));
    let number = number && text.chars().all(|c| c.is_ascii_digit() || "+-.:_eExXaAbBcCdDfFTtZz ".contains(c));
    let dash = first == '-' && text[1..].starts_with(|c: char| c.is_alphabetic());
    let special = !dash && "!&*-?|>@`%\"'#{}[],:=<".contains(first);
    !word
        && !number
        && !special
        && text.trim() == text
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with(':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn block_style() {
        let value = json!({
            "a": {"b": [{"x": 1, "y": [2, [3]]}, "s", {}]}, "c": [], "d": null, "e": true,
        });
        expect![[r#"
            a:
              b:
              - x: 1
                'y':
                - 2
                - - 3
              - s
              - {}
            c: []
            d: null
            e: true
        "#]]
        .assert_eq(&render(&value));
    }

    #[test]
    fn what_needs_quotes_gets_them() {
        for (text, expected) in [
            ("2026-11-20T10:00:00.1Z", "'2026-11-20T10:00:00.1Z'"),
            ("10", "'10'"),
            ("1.5", "'1.5'"),
            ("no", "'no'"),
            ("", "''"),
            ("*", "'*'"),
            ("docker.io/*", "docker.io/*"),
            ("sha256:ab", "sha256:ab"),
            ("a: b", "'a: b'"),
            ("it's", "it's"),
            ("'q'", "'''q'''"),
            ("v1.0.0", "v1.0.0"),
            ("two\nlines", "\"two\\nlines\""),
            ("https://h:8443", "https://h:8443"),
        ] {
            assert_eq!(super::text(text), expected);
        }
    }
}
