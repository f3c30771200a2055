//! Here-documents: `<<EOF`, `<<-EOF`, `<<"EOF"`.

use crate::expand::Lexer;

/// A here-document and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heredoc {
    /// The word that ends it.
    pub(crate) name: String,
    /// Whether variables in it are expanded: no part of the word was quoted.
    pub(crate) expand: bool,
    /// Whether leading tabs are cut off (`<<-`).
    pub(crate) chomp: bool,
    /// The lines, ends included, leading tabs too.
    pub(crate) content: String,
}

impl Heredoc {
    /// The text, leading tabs cut where `<<-` asks for it.
    pub(crate) fn text(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// The here-documents that a line begins, in order.
pub(super) fn find(line: &str, escape: char) -> Vec<Heredoc> {
    // The words as the shell sees them, quotes kept.
    let words = Lexer { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Lexer::new(escape) }
        .words(line, &|_| None)
        .unwrap_or_default();
    words.iter().filter_map(|word| heredoc_word(word)).collect()
}

/// Read `3<<-"EOF"`. `None` when the word begins no here-document.
pub(crate) fn heredoc_word(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let lexer = Lexer { keep_unset: true, ..Lexer::new('\\') };
    let raw = Lexer { raw_quotes: true, raw_escapes: true, ..lexer };
    let one = |lexer: &Lexer| match lexer.words(rest, &|_| None).ok()?.as_slice() {
        [word] => Some(word.clone()),
        _ => None,
    };
    let name = one(&lexer)?;
    let expand = name == one(&raw)?;
    Some(Heredoc { name, expand, chomp, content: String::new() })
}
