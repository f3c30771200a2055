//! Build checks: what is allowed in a Dockerfile and probably not meant.
//!
//! The rules, their names and their sentences are those of docker's build checks
//! (docs.docker.com/reference/build-checks), so that what people know, search for and skip
//! holds here. Each rule is looked at where what it needs is known: the text alone ([`file`]),
//! the stages (`graph`), values and base images (`solve`). What is found is told as warnings;
//! `# check=skip=…;error=true;experimental=…` in the file, or the build argument
//! `BUILDKIT_DOCKERFILE_CHECK` in its place, says which count and whether they end the build.

use crate::error::{Fault, Span};
use crate::instruct::File;
use crate::parse::Node;

/// What `# check=` may be long.
const OPTIONS_BYTES_MAX: usize = 4 * 1024;
/// Findings of one build that are kept.
const FINDINGS_MAX: usize = 1_000;

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident $description:literal)*) => {
        /// A build check.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule {
            $($(#[$doc])* $name,)*
        }

        impl Rule {
            /// Every rule, in the order of docker's list.
            pub const ALL: &[Rule] = &[$(Rule::$name,)*];

            /// The name, as it is shown and skipped.
            pub fn name(self) -> &'static str {
                match self { $(Rule::$name => stringify!($name),)* }
            }

            /// The rule in one sentence.
            pub fn description(self) -> &'static str {
                match self { $(Rule::$name => $description,)* }
            }
        }
    };
}

rules! {
    /// `FROM x AS Builder`.
    StageNameCasing "Stage names should be lowercase"
    /// `FROM x as b`.
    FromAsCasing "The 'as' keyword should match the case of the 'from' keyword"
    /// An empty line inside a continued one.
    NoEmptyContinuation "Empty continuation lines will become errors in a future release"
    /// `from x` and `RUN y` in one file.
    ConsistentInstructionCasing "All commands within the Dockerfile should use the same casing (either upper or lower)"
    /// Two stages of one name.
    DuplicateStageName "Stage names should be unique"
    /// A stage called `scratch` or `context`.
    ReservedStageName "Reserved words should not be used as stage names"
    /// `CMD` and `ENTRYPOINT` in the shell form.
    JSONArgsRecommended "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
    /// `MAINTAINER`.
    MaintainerDeprecated "The MAINTAINER instruction is deprecated, use a label instead to define an image author"
    /// `FROM $X` without `ARG X`.
    UndefinedArgInFrom "FROM command must use declared ARGs"
    /// `WORKDIR app` with no absolute one before it in the file.
    WorkdirRelativePath "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes"
    /// `$X` that nothing sets.
    UndefinedVar "Variables should be defined before their use"
    /// A second `CMD`, `ENTRYPOINT` or `HEALTHCHECK` in a stage.
    MultipleInstructionsDisallowed "Multiple instructions of the same type should not be used in the same stage"
    /// `ENV k v`.
    LegacyKeyValueFormat "Legacy key/value format with whitespace separator should not be used"
    /// A base image that is for something else.
    InvalidBaseImagePlatform "Base image platform does not match expected target platform"
    /// `FROM --platform=$TARGETPLATFORM`.
    RedundantTargetPlatform "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
    /// `ARG PASSWORD`.
    SecretsUsedInArgOrEnv "Sensitive data should not be used in the ARG or ENV commands"
    /// `FROM x:$TAG` where `TAG` has no default.
    InvalidDefaultArgInFrom "Default value for global ARG results in an empty or invalid base image name"
    /// `FROM --platform=linux/amd64`.
    FromPlatformFlagConstDisallowed "FROM --platform flag should not use a constant value"
    /// `COPY` of what the ignore file hides. Experimental.
    CopyIgnoredFile "Attempting to Copy file that is excluded by .dockerignore"
    /// A comment before a named stage or an `ARG` that does not describe it. Experimental.
    InvalidDefinitionDescription "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`"
    /// `EXPOSE 80/TCP`.
    ExposeProtoCasing "Protocol in EXPOSE instruction should be lowercase"
    /// `EXPOSE 127.0.0.1:80:80`.
    ExposeInvalidFormat "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release"
}

impl Rule {
    /// Whether it counts only when `experimental=` asks for it.
    pub fn is_experimental(self) -> bool {
        matches!(self, Rule::CopyIgnoredFile | Rule::InvalidDefinitionDescription)
    }

    /// Docker's page about it.
    pub fn url(self) -> String {
        let mut slug = String::new();
        let letters: Vec<char> = self.name().chars().collect();
        for (at, c) in letters.iter().enumerate() {
            let starts = c.is_uppercase()
                && at > 0
                && (letters[at - 1].is_lowercase() || letters.get(at + 1).is_some_and(|next| next.is_lowercase()));
            if starts {
                slug.push('-');
            }
            slug.extend(c.to_lowercase());
        }
        format!("https://docs.docker.com/go/dockerfile/rule/{slug}/")
    }
}

/// One place where a rule is not kept, for people: what [`crate::Engine::check`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule.
    pub rule: Rule,
    /// What is wrong, in a sentence.
    pub message: String,
    /// The line, from 1.
    pub line: usize,
    /// The lines around it, numbered and marked.
    pub excerpt: String,
}

/// One place where a rule is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) rule: Rule,
    pub(crate) message: String,
    pub(crate) span: Span,
}

impl Finding {
    pub(crate) fn new(rule: Rule, span: Span, message: impl Into<String>) -> Finding {
        Finding { rule, message: message.into(), span }
    }

    /// `StageNameCasing: Stage name 'B' should be lowercase (line 3)`.
    pub(crate) fn sentence(&self) -> String {
        format!("{}: {} (line {})", self.rule.name(), self.message, self.span.first)
    }
}

/// What `# check=` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checks {
    skip: Names,
    experimental: Names,
    /// Findings end the build.
    pub(crate) error: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    some: Vec<String>,
}

impl Names {
    fn parse(text: &str) -> Names {
        if text.trim() == "all" {
            return Names { all: true, some: Vec::new() };
        }
        Names { all: false, some: text.split(',').map(|name| name.trim().to_owned()).collect() }
    }

    fn has(&self, rule: Rule) -> bool {
        self.all || self.some.iter().any(|name| name == rule.name())
    }
}

impl Checks {
    /// Read `skip=A,B;error=true`. The error is a sentence.
    pub(crate) fn parse(text: &str) -> Result<Checks, String> {
        if text.len() > OPTIONS_BYTES_MAX {
            return Err(format!("the check options are longer than {OPTIONS_BYTES_MAX} bytes"));
        }
        let mut checks = Checks::default();
        for option in text.split(';').map(str::trim).filter(|option| !option.is_empty()) {
            let Some((key, value)) = option.split_once('=') else {
                return Err(format!("the check option {option:?} has no value"));
            };
            match (key.trim(), value.trim()) {
                ("skip", value) => checks.skip = Names::parse(value),
                ("experimental", value) => checks.experimental = Names::parse(value),
                ("error", "true" | "True" | "TRUE" | "t" | "T" | "1") => checks.error = true,
                ("error", "false" | "False" | "FALSE" | "f" | "F" | "0") => checks.error = false,
                ("error", value) => return Err(format!("the check option error={value} is neither true nor false")),
                (key, _) => return Err(format!("invalid check option {key:?}")),
            }
        }
        Ok(checks)
    }

    /// The findings that count, each once, by line.
    pub(crate) fn filter(&self, findings: impl IntoIterator<Item = Finding>) -> Vec<Finding> {
        let mut out: Vec<Finding> = findings
            .into_iter()
            .filter(|f| !self.skip.has(f.rule))
            .filter(|f| !f.rule.is_experimental() || self.experimental.has(f.rule))
            .collect();
        out.sort_by(|a, b| (a.span.first, a.rule, &a.message).cmp(&(b.span.first, b.rule, &b.message)));
        out.dedup();
        out.truncate(FINDINGS_MAX);
        out
    }

    /// The fault that ends the build, when findings do.
    pub(crate) fn fault(&self, findings: &[Finding]) -> Option<Fault> {
        let first = findings.first().filter(|_| self.error)?;
        let mut names: Vec<&str> = findings.iter().map(|f| f.rule.name()).collect();
        names.sort_unstable();
        names.dedup();
        let fault = Fault::new(first.span, format!("lint violation found for rules: {}", names.join(", ")));
        Some(fault.hint("the Dockerfile or the build says check=error=true"))
    }
}

/// What the text alone tells, once it is read.
pub(crate) fn file(nodes: &[Node], file: &File) -> Vec<Finding> {
    let mut out = Vec::new();
    casing(nodes, &mut out);
    let mut names: Vec<&str> = Vec::new();
    let mut stages = file.stages.iter();
    let mut add = |rule, span, message: String| out.push(Finding::new(rule, span, message));
    for node in nodes {
        let words: Vec<&str> = node.rest.split_whitespace().collect();
        match node.keyword.to_ascii_uppercase().as_str() {
            "FROM" => {
                let Some(stage) = stages.next() else { continue };
                if let ([_, r#as, name], Some(lower)) = (words.as_slice(), &stage.name) {
                    if *name != lower.as_str() {
                        add(Rule::StageNameCasing, node.span, format!("Stage name '{name}' should be lowercase"));
                    }
                    let from = &node.keyword;
                    let differ = (is_lower(from) && !is_lower(r#as)) || (is_upper(from) && !is_upper(r#as));
                    if differ {
                        let message = format!("'{}' and '{from}' keywords' casing do not match", r#as);
                        add(Rule::FromAsCasing, node.span, message);
                    }
                    if names.contains(&lower.as_str()) {
                        let message = format!("Duplicate stage name {lower:?}, stage names should be unique");
                        add(Rule::DuplicateStageName, node.span, message);
                    }
                    if ["scratch", "context"].contains(&lower.as_str()) {
                        let message = format!("Stage name should not use the same name as reserved stage {lower:?}");
                        add(Rule::ReservedStageName, node.span, message);
                    }
                    names.push(lower);
                }
                match stage.platform.as_deref() {
                    Some(text @ ("$TARGETPLATFORM" | "${TARGETPLATFORM}")) => {
                        let message = format!(
                            "Setting platform to predefined {text} in FROM is redundant as this is the default behavior"
                        );
                        add(Rule::RedundantTargetPlatform, node.span, message);
                    }
                    Some(text) if !text.contains('$') && !names_platform(stage.name.as_deref(), text) => {
                        let message = format!("FROM --platform flag should not use constant value {text:?}");
                        add(Rule::FromPlatformFlagConstDisallowed, node.span, message);
                    }
                    _ => {}
                }
                if let Some(name) = &stage.name {
                    described(node, "FROM", &[name], &mut add);
                }
            }
            "ARG" => {
                let words = crate::parse::words(&node.rest, file.escape);
                let keys: Vec<&str> = words.iter().map(|w| w.split('=').next().unwrap_or(w)).collect();
                described(node, "ARG", &keys, &mut add);
            }
            "MAINTAINER" => {
                let message = "Maintainer instruction is deprecated in favor of using label";
                add(Rule::MaintainerDeprecated, node.span, message.to_owned());
            }
            keyword @ ("ENV" | "LABEL") => {
                let words = crate::parse::words(&node.rest, file.escape);
                if words.first().is_some_and(|word| !word.contains('=')) {
                    let message = format!(
                        "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
                    );
                    add(Rule::LegacyKeyValueFormat, node.span, message);
                }
            }
            _ => {}
        }
    }
    out
}

/// All keywords in capitals or all in small letters, as most of them are.
fn casing(nodes: &[Node], out: &mut Vec<Finding>) {
    // What stands before the first stage is not counted.
    let nodes: Vec<&Node> = nodes.iter().skip_while(|node| !node.keyword.eq_ignore_ascii_case("FROM")).collect();
    let lower = nodes.iter().filter(|node| is_lower(&node.keyword)).count();
    let upper = nodes.iter().filter(|node| is_upper(&node.keyword)).count();
    let (fits, majority): (fn(&str) -> bool, _) = match lower > upper {
        true => (is_lower, "lowercase"),
        false => (is_upper, "uppercase"),
    };
    for node in nodes.iter().filter(|node| !fits(&node.keyword)) {
        let message = format!("Command '{}' should match the case of the command majority ({majority})", node.keyword);
        out.push(Finding::new(Rule::ConsistentInstructionCasing, node.span, message));
    }
}

fn is_lower(word: &str) -> bool {
    !word.contains(|c: char| c.is_ascii_uppercase())
}

fn is_upper(word: &str) -> bool {
    !word.contains(|c: char| c.is_ascii_lowercase())
}

/// Whether a stage is named after what it is for (`build-amd64`): then a constant is meant.
fn names_platform(stage: Option<&str>, platform: &str) -> bool {
    stage.is_some_and(|stage| platform.split('/').any(|part| !part.is_empty() && stage.contains(part)))
}

/// A comment right above a definition begins with the name of what is defined.
fn described(node: &Node, instruction: &str, names: &[&str], add: &mut impl FnMut(Rule, Span, String)) {
    let (Some(comment), Some(first)) = (node.comments.last(), names.first()) else { return };
    let word = comment.split(' ').next().unwrap_or_default();
    if names.contains(&word) {
        return;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { first };
    let message = format!("Comment for {instruction} should follow the format: `# {example} <description>`");
    add(Rule::InvalidDefinitionDescription, node.span, message);
}

/// Whether a name of `ARG` or `ENV` says that its value is a secret: one of a few words, as a
/// whole part of the name.
pub(crate) fn is_secret_name(name: &str) -> bool {
    const SECRET: [&str; 10] =
        ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    let name = name.to_ascii_lowercase();
    let has = |known: &[&str]| name.split('_').any(|part| known.contains(&part));
    has(&SECRET) && !has(&["public"])
}

#[cfg(test)]
mod tests;
