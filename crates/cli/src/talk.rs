//! What is said to people: on stderr, so that stdout holds data and nothing else.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use crate::args::Global;
use crate::error::{Failure, Result};

/// Where messages go, and which.
#[derive(Clone, Copy, Debug)]
pub struct Talk {
    /// Warnings are shown.
    pub warnings: bool,
    /// `--verbose`
    pub verbose: bool,
    /// stderr is a terminal.
    pub terminal: bool,
    /// Colour may be used on stderr.
    pub color: bool,
    /// Colour may be used on stdout.
    pub color_out: bool,
}

/// Red, bold, … as SGR parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Paint {
    /// Errors.
    Red,
    /// Success.
    Green,
    /// Warnings.
    Yellow,
    /// What names a thing.
    Cyan,
    /// What matters less.
    Dim,
}

/// The SGR sequence around `text`.
pub(crate) fn paint(paint: Paint, text: impl Display) -> String {
    let code = match paint {
        Paint::Red => "31",
        Paint::Green => "32",
        Paint::Yellow => "33",
        Paint::Cyan => "36",
        Paint::Dim => "2",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

impl Talk {
    /// From the arguments, the environment (`NO_COLOR`, `TERM`) and the terminal.
    pub fn new(global: &Global) -> Talk {
        let allowed = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let terminal = std::io::stderr().is_terminal();
        Talk {
            warnings: !global.only_show_errors,
            verbose: global.verbose || global.debug,
            terminal,
            color: allowed && terminal,
            color_out: allowed && std::io::stdout().is_terminal(),
        }
    }

    fn line(&self, color: Paint, text: &str) {
        let text = if self.color { paint(color, text) } else { text.to_owned() };
        // A closed stderr is no reason to fail.
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// Something to know about what is being done.
    pub fn say(&self, text: impl Display) {
        if self.warnings {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Something to beware of.
    pub fn warn(&self, text: impl Display) {
        if self.warnings {
            self.line(Paint::Yellow, &format!("WARNING: {text}"));
        }
    }

    /// Only with `--verbose`.
    pub fn detail(&self, text: impl Display) {
        if self.verbose {
            self.line(Paint::Dim, &text.to_string());
        }
    }

    /// Why the command failed.
    pub fn failure(&self, failure: &Failure) {
        self.line(Paint::Red, &format!("ERROR: {}", failure.message));
        if let Some(hint) = &failure.hint {
            let word = if self.color { paint(Paint::Cyan, "hint:") } else { "hint:".into() };
            let _ = writeln!(std::io::stderr(), "{word} {hint}");
        }
    }

    /// Ask for a yes. Without a terminal there is nobody to ask.
    pub fn confirm(&self, question: &str, yes: bool) -> Result<()> {
        if yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            return Err(Failure::new("Unable to prompt for confirmation as no tty available. Use --yes."));
        }
        let mut stderr = std::io::stderr();
        for _ in 0..3 {
            write!(stderr, "{question} (y/n): ")?;
            stderr.flush()?;
            let mut answer = String::new();
            if std::io::stdin().read_line(&mut answer)? == 0 {
                break;
            }
            match answer.trim().to_ascii_lowercase().as_str() {
                "y" | "yes" => return Ok(()),
                "n" | "no" => break,
                _ => {}
            }
        }
        Err(Failure::new("Operation cancelled."))
    }
}
