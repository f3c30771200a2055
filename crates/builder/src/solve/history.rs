//! The sentences that an image's history and the log have for instructions, as BuildKit
//! words them.

use portolan_types::oci::{Healthcheck, History};

/// What BuildKit writes beside every entry of its own; tools look for it.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// An entry; `created` is filled in at the end.
pub(super) fn entry(created_by: String, layer: bool) -> History {
    History {
        created: None,
        created_by: Some(created_by),
        author: None,
        comment: Some(COMMENT.to_owned()),
        empty_layer: !layer,
    }
}

/// Make a base image's history tell of exactly `layers` layers: images in the wild have more
/// or fewer entries, and what is added after them must line up.
pub(super) fn fit(history: &mut Vec<History>, layers: usize) {
    let mut told = history.iter().filter(|h| !h.empty_layer).count();
    for entry in history.iter_mut().filter(|h| !h.empty_layer) {
        if told <= layers {
            break;
        }
        entry.empty_layer = true;
        told -= 1;
    }
    history.extend((told..layers).map(|_| History::default()));
}

/// `["a" "b"]`: Go's `%q` of a list.
pub(super) fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|w| quote(w)).collect();
    format!("[{}]", words.join(" "))
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `[a b]`: Go's `%v` of a list.
pub(super) fn listed(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// The ports of an `EXPOSE`: Go's `%v` of a map, in the order of its keys.
pub(super) fn ports(ports: &[String]) -> String {
    let mut ports: Vec<String> = ports.iter().map(|port| format!("{port}:{{}}")).collect();
    ports.sort_unstable();
    ports.dedup();
    format!("map{}", listed(&ports))
}

/// Go's `%q` of the structure, which takes the number of retries for a character. The
/// start interval is told where there is one: builders that know none leave it out.
pub(super) fn healthcheck(check: &Healthcheck) -> String {
    let mut durations = vec![check.interval, check.timeout, check.start_period];
    durations.extend(Some(check.start_interval).filter(|interval| *interval != 0));
    let durations: Vec<String> = durations.into_iter().map(|d| format!("\"{}\"", duration(d))).collect();
    format!("HEALTHCHECK &{{{} {} {}}}", quoted(&check.test), durations.join(" "), quoted_char(check.retries))
}

/// Go's `%q` of a number.
fn quoted_char(number: i64) -> String {
    let c = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    let text = match c {
        '\'' => "\\'".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\u{7}' => "\\a".to_owned(),
        '\u{8}' => "\\b".to_owned(),
        '\u{b}' => "\\v".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        c if c < ' ' || c == '\u{7f}' => format!("\\x{:02x}", c as u32),
        c if c.is_control() => format!("\\u{:04x}", c as u32),
        c => c.to_string(),
    };
    format!("'{text}'")
}

/// Go's text for a duration in nanoseconds: `1m30s`, `500ms`, `0s`.
fn duration(nanos: i64) -> String {
    let fraction = |nanos: i64, unit: i64| {
        let text = format!("{}.{:09}", nanos / unit, (nanos % unit) * (1_000_000_000 / unit));
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000)),
        _ => {
            let secs = nanos / 1_000_000_000;
            let tail = fraction(nanos % 60_000_000_000, 1_000_000_000);
            match (secs / 3600, secs / 60 % 60) {
                (0, 0) => format!("{tail}s"),
                (0, minutes) => format!("{minutes}m{tail}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{tail}s"),
            }
        }
    }
}

/// The first line of a here-document, for the log.
pub(super) fn summary(document: &str) -> String {
    let mut lines = document.trim().lines();
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() { format!("{first}...") } else { first.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wording() {
        assert_eq!(quoted(&["sh".into(), "-c".into(), "echo \"a\\b\"\n".into()]), r#"["sh" "-c" "echo \"a\\b\"\n"]"#);
        for (nanos, text) in [
            (0, "0s"),
            (30_000_000_000, "30s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (1_500_000_000, "1.5s"),
            (500_000_000, "500ms"),
            (1_500_000, "1.5ms"),
        ] {
            assert_eq!(duration(nanos), text);
        }
        for (number, text) in
            [(0, r"'\x00'"), (3, r"'\x03'"), (10, r"'\n'"), (39, r"'\''"), (65, "'A'"), (-1, "'\u{fffd}'")]
        {
            assert_eq!(quoted_char(number), text);
        }
        assert_eq!(ports(&["80/tcp".into(), "443/tcp".into(), "80/tcp".into()]), "map[443/tcp:{} 80/tcp:{}]");
        assert_eq!(summary("\nset -e\necho\n"), "set -e...");
    }
}
