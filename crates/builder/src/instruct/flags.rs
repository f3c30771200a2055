//! `--name=value` words.

use crate::error::{Fault, Span, suggest};

/// The flags of one instruction, taken out one by one; what is left at the end is unknown.
pub(super) struct Flags<'a> {
    keyword: &'a str,
    span: Span,
    left: Vec<(&'a str, Option<&'a str>)>,
    known: Vec<&'static str>,
}

impl<'a> Flags<'a> {
    pub(super) fn new(keyword: &'a str, words: &'a [String], span: Span) -> Flags<'a> {
        let split = |word: &'a String| {
            let word = word.strip_prefix("--").unwrap_or(word);
            word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)))
        };
        Flags { keyword, span, left: words.iter().map(split).collect(), known: Vec::new() }
    }

    fn fault(&self, name: &str, message: String) -> Fault {
        Fault::new(self.span, message).at(&format!("--{name}"))
    }

    /// All values of a flag that may be repeated.
    pub(super) fn all(&mut self, name: &'static str) -> Result<Vec<String>, Fault> {
        self.known.push(name);
        let mut values = Vec::new();
        let mut missing = false;
        self.left.retain(|(n, value)| {
            if *n == name {
                missing |= value.is_none();
                values.extend(value.map(str::to_owned));
            }
            *n != name
        });
        if missing {
            return Err(self.fault(name, format!("--{name} needs a value: --{name}=…")));
        }
        Ok(values)
    }

    /// The value of a flag that is given once at most.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Fault> {
        let mut values = self.all(name)?;
        if values.len() > 1 {
            return Err(self.fault(name, format!("--{name} is given more than once")));
        }
        Ok(values.pop())
    }

    /// A switch: `--name`, `--name=true`, `--name=false`.
    pub(super) fn switch(&mut self, name: &'static str) -> Result<Option<bool>, Fault> {
        self.known.push(name);
        let mut found = None;
        let mut bad = None;
        self.left.retain(|(n, value)| {
            if *n == name {
                match value {
                    None | Some("true") => found = Some(true),
                    Some("false") => found = Some(false),
                    Some(other) => bad = Some(*other),
                }
            }
            *n != name
        });
        match bad {
            Some(other) => Err(self.fault(name, format!("--{name} is true or false, not {other:?}"))),
            None => Ok(found),
        }
    }

    /// Refuse what nobody took.
    pub(super) fn finish(self) -> Result<(), Fault> {
        let Some((name, _)) = self.left.first() else { return Ok(()) };
        let fault = self.fault(name, format!("{} has no flag --{name}", self.keyword));
        Err(match suggest(name, self.known.iter().copied()) {
            Some(meant) => fault.hint(format!("did you mean --{meant}?")),
            None if self.known.is_empty() => fault,
            None => {
                let known: Vec<String> = self.known.iter().map(|k| format!("--{k}")).collect();
                fault.hint(format!("it has {}", known.join(", ")))
            }
        })
    }
}
