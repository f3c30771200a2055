//! The build checks that need values: what `lint` has to say of a stage while it is
//! evaluated.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::{Eval, Pair};
use crate::error::{Span, suggest};
use crate::instruct::{Command, CommandLine};
use crate::lint::{Finding, Rule, is_secret_name};

/// Findings of one stage that are kept.
const FINDINGS_MAX: usize = 1_000;

/// What was found, and what has to be remembered for it.
#[derive(Default)]
pub(super) struct Noted {
    findings: RefCell<Vec<Finding>>,
    /// Where instructions stand of which only the last counts.
    used: BTreeMap<&'static str, Span>,
    /// A `WORKDIR` of this file holds already.
    pub(super) workdir_set: bool,
}

impl Noted {
    /// `workdir_set`: as the stage below has it.
    pub(super) fn new(workdir_set: bool) -> Noted {
        Noted { workdir_set, ..Noted::default() }
    }

    pub(super) fn take(&mut self) -> Vec<Finding> {
        std::mem::take(self.findings.get_mut())
    }

    fn add(&self, rule: Rule, span: Span, message: impl Into<String>) {
        let mut findings = self.findings.borrow_mut();
        if findings.len() < FINDINGS_MAX {
            findings.push(Finding::new(rule, span, message));
        }
    }
}

impl Eval<'_> {
    /// Note variables that were used and that nothing sets.
    pub(super) fn note_unset(&self, unset: Vec<String>, span: Span) {
        for name in unset {
            // One that is declared may be left without a value on purpose.
            if self.stage.args_seen.contains(&name) {
                continue;
            }
            let mut message = format!("Usage of undefined variable '${name}'");
            let known = self.stage.env.all.iter().map(|(name, _)| name.as_str());
            let known = known.chain(self.stage.args_seen.iter().map(String::as_str));
            if let Some(meant) = suggest(&name, known) {
                message.push_str(&format!(" (did you mean ${meant}?)"));
            }
            self.noted.add(Rule::UndefinedVar, span, message);
        }
    }

    /// Look at an instruction before it is evaluated.
    pub(super) fn check(&mut self, command: &Command, span: Span) {
        match command {
            Command::Arg(args) => args.iter().for_each(|(name, _)| self.check_secret("ARG", name, span)),
            Command::Env(pairs) => pairs.iter().for_each(|Pair { key, .. }| self.check_secret("ENV", key, span)),
            Command::Cmd(line) => self.check_line("CMD", line, span),
            Command::Entrypoint(line) => self.check_line("ENTRYPOINT", line, span),
            Command::Healthcheck(_) => self.once("HEALTHCHECK", span),
            Command::Workdir(path) => {
                if !self.noted.workdir_set && !path.starts_with(['/', '$']) {
                    let message =
                        format!("Relative workdir {path:?} can have unexpected results if the base image changes");
                    self.noted.add(Rule::WorkdirRelativePath, span, message);
                }
                self.noted.workdir_set = true;
            }
            Command::Expose(ports) => ports.iter().for_each(|port| self.check_port(port, span)),
            _ => {}
        }
    }

    fn check_secret(&self, instruction: &str, name: &str, span: Span) {
        if is_secret_name(name) {
            let message = format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})");
            self.noted.add(Rule::SecretsUsedInArgOrEnv, span, message);
        }
    }

    fn check_line(&mut self, name: &'static str, line: &CommandLine, span: Span) {
        let own_shell = self.stage.image.config.shell.as_ref().is_some_and(|shell| !shell.is_empty());
        if line.shell && !line.args.is_empty() && !own_shell {
            let message =
                format!("JSON arguments recommended for {name} to prevent unintended behavior related to OS signals");
            self.noted.add(Rule::JSONArgsRecommended, span, message);
        }
        self.once(name, span);
    }

    /// The earlier one is told of, because that is what has no effect.
    fn once(&mut self, name: &'static str, span: Span) {
        if let Some(earlier) = self.noted.used.insert(name, span) {
            let message = format!(
                "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
            );
            self.noted.add(Rule::MultipleInstructionsDisallowed, earlier, message);
        }
    }

    fn check_port(&self, port: &str, span: Span) {
        if port.contains('$') {
            return;
        }
        if port.contains(':') {
            let message =
                format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
            self.noted.add(Rule::ExposeInvalidFormat, span, message);
        }
        if port.split_once('/').is_some_and(|(_, protocol)| protocol.contains(|c: char| c.is_ascii_uppercase())) {
            let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
            self.noted.add(Rule::ExposeProtoCasing, span, message);
        }
    }
}
