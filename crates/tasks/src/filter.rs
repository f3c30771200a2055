//! The `$filter` of `GET …/runs`: the part of OData that `az acr task list-runs` and the
//! SDKs send.
//!
//! ```text
//! filter = clause *( "and" clause )
//! clause = field "eq" literal
//!        | "contains" "(" "OutputImageManifests" "," literal ")"
//! field  = "TaskName" | "Status" | "RunId" | "IsArchiveEnabled"
//! ```
//! Words are compared without regard to case; a literal is `'text'` with `''` for a quote,
//! or `true`/`false`.

use portolan_store::meta::run::RunFilter;
use portolan_types::{Digest, RepoName};

use crate::model::RunStatus;

/// A filter's length.
pub const FILTER_BYTES_MAX: usize = 4096;

/// Read a filter. The error is a sentence for the caller.
pub fn parse(text: &str) -> Result<RunFilter, String> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(format!("$filter is longer than {FILTER_BYTES_MAX} bytes"));
    }
    let tokens = tokens(text)?;
    let mut filter = RunFilter::default();
    if tokens.is_empty() {
        return Ok(filter);
    }
    let mut rest = tokens.as_slice();
    loop {
        rest = clause(rest, &mut filter)?;
        match rest {
            [] => return Ok(filter),
            [Token::Word(and), more @ ..] if and.eq_ignore_ascii_case("and") => rest = more,
            [token, ..] => return Err(format!("$filter: expected `and` before {token}")),
        }
    }
}

fn clause<'t>(tokens: &'t [Token], filter: &mut RunFilter) -> Result<&'t [Token], String> {
    match tokens {
        [
            Token::Word(name),
            Token::Mark('('),
            Token::Word(field),
            Token::Mark(','),
            Token::Text(value),
            Token::Mark(')'),
            rest @ ..,
        ] if name.eq_ignore_ascii_case("contains") && field.eq_ignore_ascii_case("OutputImageManifests") => {
            let image = image(value).ok_or_else(|| format!("$filter: '{value}' is not repository@digest"))?;
            set(&mut filter.image, image, "OutputImageManifests")?;
            Ok(rest)
        }
        [Token::Word(field), Token::Word(eq), value, rest @ ..] if eq.eq_ignore_ascii_case("eq") => {
            let text = match value {
                Token::Text(text) | Token::Word(text) => text,
                Token::Mark(_) => return Err(format!("$filter: expected a value before {value}")),
            };
            match field.to_ascii_lowercase().as_str() {
                "taskname" => set(&mut filter.task, text.clone(), field)?,
                "status" => {
                    let status: RunStatus =
                        text.parse().map_err(|()| format!("$filter: no run has the status '{text}'"))?;
                    set(&mut filter.status, status.as_str().to_owned(), field)?;
                }
                "runid" => set(&mut filter.id, text.parse().map_err(|e| format!("$filter: {e}"))?, field)?,
                "isarchiveenabled" => {
                    let archived = match text.to_ascii_lowercase().as_str() {
                        "true" => true,
                        "false" => false,
                        _ => return Err(format!("$filter: '{text}' is not true or false")),
                    };
                    set(&mut filter.archived, archived, field)?;
                }
                _ => return Err(unsupported(field)),
            }
            Ok(rest)
        }
        [first, ..] => Err(unsupported(&first.to_string())),
        [] => Err("$filter: it ends in the middle".to_owned()),
    }
}

fn unsupported(what: &str) -> String {
    format!(
        "$filter: {what} is not supported; use TaskName eq '…', Status eq '…', RunId eq '…' or \
         contains(OutputImageManifests, 'repository@digest'), joined by `and`"
    )
}

fn set<T: PartialEq>(slot: &mut Option<T>, value: T, field: &str) -> Result<(), String> {
    match slot {
        Some(before) if *before != value => Err(format!("$filter: {field} cannot have two values")),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn image(text: &str) -> Option<(RepoName, Digest)> {
    let (repo, digest) = text.split_once('@')?;
    Some((repo.parse().ok()?, digest.parse().ok()?))
}

#[derive(Debug)]
enum Token {
    Word(String),
    Text(String),
    Mark(char),
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::Word(word) => write!(f, "`{word}`"),
            Token::Text(text) => write!(f, "'{text}'"),
            Token::Mark(mark) => write!(f, "`{mark}`"),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '(' | ')' | ',' => found.push(Token::Mark(c)),
            '\'' => {
                let mut value = String::new();
                loop {
                    match chars.next() {
                        Some('\'') if chars.peek() == Some(&'\'') => {
                            chars.next();
                            value.push('\'');
                        }
                        Some('\'') => break,
                        Some(c) => value.push(c),
                        None => return Err("$filter: a quote is not closed".to_owned()),
                    }
                }
                found.push(Token::Text(value));
            }
            c if c.is_alphanumeric() => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || "_./-".contains(*c)) {
                    word.push(c);
                }
                found.push(Token::Word(word));
            }
            other => return Err(format!("$filter: `{other}` is not understood here")),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_az_sends() {
        let digest = Digest::of(b"x");
        let f = parse(&format!("TaskName eq 'build it' and contains(OutputImageManifests, 'a/b@{digest}')")).unwrap();
        assert_eq!(f.task.as_deref(), Some("build it"));
        assert_eq!(f.image, Some(("a/b".parse().unwrap(), digest)));
        let f = parse("status EQ 'failed' AND RunId eq 'cb1' and IsArchiveEnabled eq true").unwrap();
        assert_eq!((f.status.as_deref(), f.archived), (Some("Failed"), Some(true)));
        assert_eq!(f.id.unwrap().as_str(), "cb1");
        assert_eq!(parse("  ").unwrap(), RunFilter::default());
        assert_eq!(parse("TaskName eq 'it''s'").unwrap().task.as_deref(), Some("it's"));
    }

    #[test]
    fn what_is_refused() {
        for bad in [
            "TaskName",
            "TaskName eq",
            "TaskName eq 'a' or Status eq 'Failed'",
            "Status eq 'Great'",
            "and",
            "TaskName eq 'a' and",
            "TaskName eq 'a' TaskName eq 'b'",
            "TaskName eq 'a' and TaskName eq 'b'",
            "contains(OutputImageManifests, 'a')",
            "contains(Name, 'a@b')",
            "TaskName eq 'a",
            "TaskName ne 'a'",
            "a;b",
        ] {
            assert!(parse(bad).unwrap_err().starts_with("$filter"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn clauses_in_any_order(task in "[a-z' ]{1,20}", status in 0usize..8, first in any::<bool>()) {
            let status = RunStatus::ALL[status];
            let a = format!("TaskName eq '{}'", task.replace('\'', "''"));
            let b = format!("Status eq '{status}'");
            let text = if first { format!("{a} and {b}") } else { format!("{b}  and  {a}") };
            let filter = parse(&text).unwrap();
            prop_assert_eq!(filter.task, Some(task));
            prop_assert_eq!(filter.status.as_deref(), Some(status.as_str()));
        }
    }
}
