//! Cutting the rest of a line into words.

/// Split `--flag` words off the front: the flags with quotes and backslashes resolved, and
/// what is left. `--` alone ends the flags.
pub(super) fn flags(rest: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = rest.trim_start();
    while rest.starts_with("--") {
        let mut word = String::new();
        let mut quote = None;
        let mut quoted = false;
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        while let Some((at, c)) = chars.next() {
            match (quote, c) {
                (None, c) if c.is_whitespace() => {
                    end = at;
                    break;
                }
                (None, '\'' | '"') => {
                    quote = Some(c);
                    quoted = true;
                }
                (Some(q), c) if q == c => quote = None,
                // A backslash stands for the character after it, whatever `# escape=` says.
                (_, '\\') => word.extend(chars.next().map(|(_, c)| c)),
                (_, c) => word.push(c),
            }
        }
        rest = rest[end..].trim_start();
        if word == "--" && !quoted {
            break;
        }
        flags.push(word);
    }
    (flags, rest)
}

/// Split on white space outside quotes. Quotes and escapes stay in the words, for the
/// expansion to resolve.
pub(crate) fn words(rest: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            _ => {}
        }
        // An escape takes the next character with it, except between single quotes, and
        // vanishes at the end.
        if c == escape && quote != Some('\'') {
            if let Some(next) = chars.next() {
                word.push(c);
                word.push(next);
            }
            continue;
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The JSON form `["a", "b"]`: an array of strings and nothing else. `None` when the text is
/// anything else, also when it is JSON of another shape (docker then takes it as shell text).
pub(crate) fn json_strings(rest: &str) -> Option<Vec<String>> {
    let rest = rest.trim();
    if !rest.starts_with('[') {
        return None;
    }
    serde_json::from_str(rest).ok()
}
