//! `$filter` as ARM's lists have it: comparisons and a few functions, joined by `and`.

use portolan_service::{Error, Kind};
use portolan_types::odata::quoted;

/// Terms that one filter may have.
const TERMS_MAX: usize = 16;

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Eq,
    Ne,
    Ge,
    Gt,
    Le,
    Lt,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Term {
    /// `field op value`, the value a text in quotes or a bare word (a time).
    Compare { field: String, op: Op, value: String },
    /// `function(a, b)`, texts without their quotes.
    Call { function: String, arguments: Vec<String> },
}

/// Read a filter; an empty one has no terms.
///
/// Errors: `InvalidFilterInQueryString`.
pub(super) fn parse(text: &str) -> Result<Vec<Term>, Error> {
    terms(text).ok_or_else(|| {
        Error::new(
            Kind::Invalid,
            "InvalidFilterInQueryString",
            "Invalid $filter: it is not a row of comparisons (`field eq 'text'`) joined by `and`.",
        )
    })
}

fn terms(text: &str) -> Option<Vec<Term>> {
    let mut rest = text.trim();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (term, after) = term(rest)?;
        found.push(term);
        if found.len() > TERMS_MAX {
            return None;
        }
        rest = after.trim_start();
        if rest.is_empty() {
            break;
        }
        rest = word(rest, "and")?;
        if rest.is_empty() {
            return None;
        }
    }
    Some(found)
}

fn term(text: &str) -> Option<(Term, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_' || c == '/'))?;
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    if let Some(mut rest) = rest.strip_prefix('(') {
        let mut arguments = Vec::new();
        loop {
            let (value, after) = value(rest.trim_start())?;
            arguments.push(value);
            rest = after.trim_start();
            match rest.strip_prefix(',') {
                Some(more) if arguments.len() < TERMS_MAX => rest = more,
                _ => break,
            }
        }
        let rest = rest.strip_prefix(')')?;
        return Some((Term::Call { function: name.to_ascii_lowercase(), arguments }, rest));
    }
    let rest = rest.trim_start();
    let ops = [("eq", Op::Eq), ("ne", Op::Ne), ("ge", Op::Ge), ("gt", Op::Gt), ("le", Op::Le), ("lt", Op::Lt)];
    let (op, rest) = ops.iter().find_map(|(text, op)| Some((*op, word(rest, text)?)))?;
    let (value, rest) = value(rest)?;
    Some((Term::Compare { field: name.to_owned(), op, value }, rest))
}

/// What follows `wanted`, in any case, and at least one blank.
fn word<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    let head = text.get(..wanted.len())?;
    let rest = &text[wanted.len()..];
    (head.eq_ignore_ascii_case(wanted) && rest.starts_with(' ')).then(|| rest.trim_start())
}

/// A text (`'it''s'`) or a bare word, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    if text.starts_with('\'') {
        return quoted(text);
    }
    let end = text.find([' ', ',', '(', ')', '\'']).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_owned(), &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(field: &str, op: Op, value: &str) -> Term {
        Term::Compare { field: field.into(), op, value: value.into() }
    }

    #[test]
    fn filters() {
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(
            parse("resourceType eq 'A/b' AND name EQ 'it''s'").unwrap(),
            [compare("resourceType", Op::Eq, "A/b"), compare("name", Op::Eq, "it's")]
        );
        assert_eq!(
            parse("eventTimestamp ge 2026-01-01T00:00:00.5Z and a lt 'x'").unwrap(),
            [compare("eventTimestamp", Op::Ge, "2026-01-01T00:00:00.5Z"), compare("a", Op::Lt, "x")]
        );
        let call = Term::Call { function: "startswith".into(), arguments: vec!["tagname".into(), "x, y".into()] };
        assert_eq!(parse("startswith(tagname, 'x, y') and b eq 'c'").unwrap(), [call, compare("b", Op::Eq, "c")]);
        for bad in [
            "name",
            "name eq",
            "name eq ",
            "name eq 'x",
            "name like 'x'",
            "name eq 'x' or name eq 'y'",
            "name eq 'x' and ",
            "name eq 'x' and",
            "name eq 'x' name eq 'y'",
            "f(",
            "f()",
            "f('a'",
            "eq 'x'",
            &"a eq 'b' and ".repeat(40),
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}", like in "[a-z]{0,4} (eq|ge|and) ['a-z(), ]{0,12}") {
            let _ = (parse(&text), parse(&like));
        }
    }
}
