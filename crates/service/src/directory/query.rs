//! Lists of the directory: the filters that clients ask with, and pages.
//!
//! Of OData's `$filter` this is what command lines use: conditions joined by `and`, each
//! `name eq 'text'`, `name eq true`, `name ne …`, `startswith(name,'text')`, or
//! `names/any(x:x eq 'text')`. Texts are compared without regard to case, as Graph does. A
//! filter that names an id is answered by the row of that id; others by reading through.

use portolan_store::meta::Tx;
use portolan_types::odata::quoted;
use uuid::Uuid;

use super::bad_request;
use crate::{Error, Result};

/// Longest filter, in bytes.
const FILTER_BYTES_MAX: usize = 8 * 1024;
/// Conditions in one filter.
const CONDITIONS_MAX: usize = 16;
/// Rows read in one step.
pub(super) const STEP: usize = 500;
/// Items on a page.
pub const PAGE_ITEMS_MAX: usize = 999;
/// Items on a page that nobody said the size of.
pub const PAGE_ITEMS: usize = 100;

/// A filter; without conditions it picks everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Vec<Condition>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Is(String, String),
    IsNot(String, String),
    Switch(String, bool),
    StartsWith(String, String),
    Any(String, String),
}

/// One thing that filters look at.
pub(super) enum Field {
    Text(String),
    Texts(Vec<String>),
    Switch(bool),
    Absent,
}

/// What filters look at, by name in lower case; `None` for a name that cannot be filtered by.
pub(super) trait Facts {
    fn field(&self, name: &str) -> Option<Field>;
}

/// Which page is wanted.
#[derive(Clone, Debug)]
pub struct Page {
    /// After the object with this id; empty for the first.
    pub after: String,
    /// How many at most.
    pub items_max: usize,
}

impl Default for Page {
    fn default() -> Page {
        Page { after: String::new(), items_max: PAGE_ITEMS }
    }
}

/// A page.
#[derive(Clone, Debug)]
pub struct Found<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// After which id the next begins, if there is one.
    pub next: Option<String>,
}

impl Filter {
    /// Read a filter.
    ///
    /// Errors: `Request_UnsupportedQuery` for what is not understood.
    pub fn parse(text: &str) -> Result<Filter> {
        let unsupported = || {
            let shown: String = text.chars().take(128).collect();
            Error {
                code: "Request_UnsupportedQuery",
                ..bad_request(format!("Unsupported or invalid query filter clause: '{}'.", shown.escape_debug()))
            }
        };
        if text.len() > FILTER_BYTES_MAX {
            return Err(unsupported());
        }
        let mut conditions = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if conditions.len() >= CONDITIONS_MAX {
                return Err(unsupported());
            }
            let (condition, after) = condition(rest).ok_or_else(unsupported)?;
            conditions.push(condition);
            rest = match after.trim_start() {
                "" => "",
                after => match after.get(..4) {
                    Some(word) if word.eq_ignore_ascii_case("and ") => after[4..].trim_start(),
                    _ => return Err(unsupported()),
                },
            };
            if rest.is_empty() && after.trim().len() >= 3 {
                return Err(unsupported());
            }
        }
        Ok(Filter(conditions))
    }

    /// The id that a condition asks for by that name.
    pub(super) fn id(&self, name: &str) -> Option<Uuid> {
        self.text(name).and_then(|text| Uuid::try_parse(text).ok())
    }

    /// The text that a condition asks for by that name.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|condition| match condition {
            Condition::Is(field, text) | Condition::Any(field, text) if field == name => Some(text.as_str()),
            _ => None,
        })
    }

    /// Whether every condition holds.
    ///
    /// Errors: for a name that cannot be filtered by.
    pub(super) fn picks(&self, facts: &dyn Facts) -> Result<bool> {
        for condition in &self.0 {
            let name = condition.name();
            let field = facts.field(name).ok_or_else(|| Error {
                code: "Request_UnsupportedQuery",
                ..bad_request(format!(
                    "Unsupported or invalid query filter clause specified for property '{}'.",
                    name.escape_debug()
                ))
            })?;
            if !condition.holds(&field) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Condition {
    fn name(&self) -> &str {
        match self {
            Condition::Is(name, _)
            | Condition::IsNot(name, _)
            | Condition::Switch(name, _)
            | Condition::StartsWith(name, _)
            | Condition::Any(name, _) => name,
        }
    }

    fn holds(&self, field: &Field) -> bool {
        let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
        match (self, field) {
            (Condition::Is(_, wanted), Field::Text(text)) => same(text, wanted),
            (Condition::IsNot(_, wanted), Field::Text(text)) => !same(text, wanted),
            (Condition::IsNot(..), Field::Absent) => true,
            (Condition::Switch(_, wanted), Field::Switch(on)) => on == wanted,
            (Condition::StartsWith(_, wanted), Field::Text(text)) => {
                text.to_lowercase().starts_with(&wanted.to_lowercase())
            }
            (Condition::Any(_, wanted), Field::Texts(texts)) => texts.iter().any(|text| same(text, wanted)),
            _ => false,
        }
    }
}

/// One condition, and what follows it.
fn condition(text: &str) -> Option<(Condition, &str)> {
    if let Some(inside) = text.get(..11).filter(|w| w.eq_ignore_ascii_case("startswith(")).and(text.get(11..)) {
        let (name, rest) = word(inside)?;
        let (value, rest) = quoted(rest.trim_start().strip_prefix(',')?.trim_start())?;
        return Some((Condition::StartsWith(name, value), rest.trim_start().strip_prefix(')')?));
    }
    let (name, rest) = word(text)?;
    if let Some(inside) = rest.strip_prefix("/any(") {
        let (variable, rest) = word(inside)?;
        let (again, rest) = word(rest.trim_start().strip_prefix(':')?.trim_start())?;
        let (value, rest) = quoted(eq(rest.trim_start())?.trim_start())?;
        return (variable == again)
            .then_some(())
            .and_then(|()| Some((Condition::Any(name, value), rest.trim_start().strip_prefix(')')?)));
    }
    let rest = rest.strip_prefix(' ')?.trim_start();
    if let Some(value) = rest.get(..3).filter(|w| w.eq_ignore_ascii_case("ne ")).and(rest.get(3..)) {
        let (value, rest) = quoted(value.trim_start())?;
        return Some((Condition::IsNot(name, value), rest));
    }
    let value = eq(rest)?.trim_start();
    if value.starts_with('\'') {
        let (value, rest) = quoted(value)?;
        return Some((Condition::Is(name, value), rest));
    }
    let (value, rest) = word(value)?;
    match value.as_str() {
        "true" => Some((Condition::Switch(name, true), rest)),
        "false" => Some((Condition::Switch(name, false), rest)),
        // Graph takes ids with and without quotes.
        id => Uuid::try_parse(id).ok().map(|id| (Condition::Is(name, id.to_string()), rest)),
    }
}

fn eq(text: &str) -> Option<&str> {
    text.get(..3).filter(|w| w.eq_ignore_ascii_case("eq ")).and(text.get(3..))
}

/// A name, in lower case.
fn word(text: &str) -> Option<(String, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_ascii_lowercase(), &text[end..]))
}

impl Page {
    /// The page that holds one row at most.
    pub(super) fn only<R, T>(
        &self,
        tx: &mut dyn Tx,
        row: Option<R>,
        filter: &Filter,
        picks: impl Fn(&mut dyn Tx, &R, &Filter) -> Result<bool>,
        load: impl Fn(&mut dyn Tx, R) -> Result<T>,
    ) -> Result<Found<T>> {
        let mut items = Vec::new();
        if let Some(row) = row
            && picks(tx, &row, filter)?
        {
            items.push(load(tx, row)?);
        }
        Ok(Found { items, next: None })
    }

    /// Read through the rows, in the order of their ids, until the page is full.
    pub(super) fn scan<R, T>(
        &self,
        tx: &mut dyn Tx,
        filter: &Filter,
        read: impl Fn(&mut dyn Tx, &str, usize) -> portolan_store::Result<Vec<R>>,
        id: impl Fn(&R) -> Uuid,
        picks: impl Fn(&mut dyn Tx, &R, &Filter) -> Result<bool>,
        load: impl Fn(&mut dyn Tx, R) -> Result<T>,
    ) -> Result<Found<T>> {
        let items_max = self.items_max.clamp(1, PAGE_ITEMS_MAX);
        let (mut items, mut after) = (Vec::new(), self.after.clone());
        let mut last = None;
        loop {
            let rows = read(tx, &after, STEP)?;
            let end = rows.len() < STEP;
            for row in rows {
                after = id(&row).to_string();
                if !picks(tx, &row, filter)? {
                    continue;
                }
                if items.len() == items_max {
                    return Ok(Found { items, next: last });
                }
                last = Some(after.clone());
                items.push(load(tx, row)?);
            }
            if end {
                return Ok(Found { items, next: None });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One;

    impl Facts for One {
        fn field(&self, name: &str) -> Option<Field> {
            match name {
                "displayname" => Some(Field::Text("It's Me".into())),
                "names" => Some(Field::Texts(vec!["a".into(), "https://B".into()])),
                "accountenabled" => Some(Field::Switch(true)),
                "mail" => Some(Field::Absent),
                _ => None,
            }
        }
    }

    #[test]
    fn filters_pick() {
        for (text, picked) in [
            ("", true),
            ("displayName eq 'it''s me'", true),
            ("displayName eq 'it''s'", false),
            ("startswith(displayName,'it')", true),
            ("startswith(displayName, 'me')", false),
            ("names/any(c:c eq 'https://b')", true),
            ("names/any(c:c eq 'b')", false),
            ("accountEnabled eq true and displayName ne 'x'", true),
            ("accountEnabled eq false", false),
            ("mail eq 'x'", false),
            ("displayName eq 'it''s me' and displayName eq 'no'", false),
        ] {
            assert_eq!(Filter::parse(text).unwrap().picks(&One).unwrap(), picked, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "displayName",
            "displayName eq",
            "displayName eq 'x",
            "displayName eq 'x' or displayName eq 'y'",
            "displayName eq 'x' and",
            "displayName eq 'x' and ",
            "startswith(displayName,'x'",
            "names/any(a:b eq 'x')",
            "displayName eq x",
            "é eq 'x'",
            "startswith",
            "not (a eq 'b')",
            &"a eq 'b' and ".repeat(17),
            &"x".repeat(10_000),
        ] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
        let unknown = Filter::parse("secret eq 'x'").unwrap();
        assert_eq!(unknown.picks(&One).unwrap_err().code, "Request_UnsupportedQuery");
    }
}
