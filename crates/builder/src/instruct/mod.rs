//! Instructions with their meaning: what each keyword takes, checked; variables not yet
//! expanded. A file becomes global arguments and stages.

mod flags;
mod mount;
mod read;

use portolan_types::oci::Healthcheck;

use crate::error::{Fault, Span};
use crate::graph::Origin;
use crate::lint::{self, Checks, Finding};
use crate::parse::Dockerfile;

pub(crate) use mount::{Mount, MountKind, Sharing};
pub(crate) use read::{instruction, is_remote};

/// A Dockerfile by stages.
#[derive(Debug)]
pub(crate) struct File {
    /// `ARG`s before the first `FROM`.
    pub(crate) global_args: Vec<Instruction>,
    pub(crate) stages: Vec<Stage>,
    /// The file's escape character.
    pub(crate) escape: char,
    pub(crate) findings: Vec<Finding>,
    /// What the file itself says of build checks.
    pub(crate) checks: Checks,
    /// Contexts of the build by their names, and how many of the stages stand for them: the
    /// last ones ([`crate::named`]).
    pub(crate) contexts: Vec<(String, Origin)>,
    pub(crate) synthetic: usize,
}

impl File {
    /// How many stages the file itself has.
    pub(crate) fn own_stages(&self) -> usize {
        self.stages.len() - self.synthetic
    }
}

/// `FROM` and what follows it.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The image or stage it is built on, not expanded.
    pub(crate) base: String,
    /// `AS name`, in lower case.
    pub(crate) name: Option<String>,
    /// `--platform`, not expanded.
    pub(crate) platform: Option<String>,
    pub(crate) instructions: Vec<Instruction>,
    pub(crate) span: Span,
}

/// One instruction of a stage.
#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    pub(crate) command: Command,
    /// As it is written, on one line, the keyword in capitals.
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// `K=V` of `ENV` and `LABEL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// What an instruction does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<Pair>),
    Label(Vec<Pair>),
    Maintainer(String),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Volume(Vec<String>),
    StopSignal(String),
    Shell(Vec<String>),
    Cmd(CommandLine),
    Entrypoint(CommandLine),
    Healthcheck(Healthcheck),
    Onbuild(String),
    Copy(Copy),
    Run(Run),
}

impl Command {
    /// The stages, images and named contexts that it takes files from.
    pub(crate) fn origins(&self) -> impl Iterator<Item = &str> {
        let (from, mounts): (Option<&str>, &[Mount]) = match self {
            Command::Copy(copy) => (copy.from.as_deref(), &[]),
            Command::Run(run) => (None, &run.mounts),
            _ => (None, &[]),
        };
        from.into_iter().chain(mounts.iter().filter_map(Mount::from))
    }
}

/// The argument of `RUN`, `CMD` and `ENTRYPOINT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// One text for the shell, or the words of the JSON form.
    pub(crate) args: Vec<String>,
    /// Whether it was written as shell text.
    pub(crate) shell: bool,
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) line: CommandLine,
    pub(crate) documents: Vec<Document>,
    /// In the order in which they are written.
    pub(crate) mounts: Vec<Mount>,
    pub(crate) network: NetworkMode,
    pub(crate) security: Security,
}

/// `RUN --network`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum NetworkMode {
    /// As the server has it.
    #[default]
    Default,
    /// No network at all.
    None,
    /// The host's own.
    Host,
}

/// `RUN --security`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Security {
    #[default]
    Sandbox,
    /// Without what keeps a step in.
    Insecure,
}

/// `COPY` and `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    /// Whether it is `ADD`.
    pub(crate) add: bool,
    /// Whether local archives are unpacked.
    pub(crate) unpack: bool,
    /// Whether those that are fetched are, too: `--unpack` says so outright.
    pub(crate) unpack_fetched: bool,
    /// Paths and patterns; of `ADD` also URLs and git addresses ([`is_remote`]).
    pub(crate) sources: Vec<String>,
    /// Sources written in place.
    pub(crate) documents: Vec<Document>,
    pub(crate) dest: String,
    /// A stage's name or number, or an image.
    pub(crate) from: Option<String>,
    pub(crate) chown: Option<String>,
    /// Octal, or symbolic as in `u=rwX,go=rX`.
    pub(crate) chmod: Option<String>,
    /// The layer is made without looking at what is below it.
    pub(crate) link: bool,
    /// Sources keep the folders they are in.
    pub(crate) parents: bool,
    /// Patterns of what is left out.
    pub(crate) exclude: Vec<String>,
    /// What a download must have, or the commit that a git address must lead to.
    pub(crate) checksum: Option<String>,
    /// Whether `.git` of a git address is kept.
    pub(crate) keep_git_dir: bool,
}

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) name: String,
    pub(crate) text: String,
    /// As it stood, leading tabs included, for handing on to a shell.
    pub(crate) raw: String,
    pub(crate) expand: bool,
}

/// Whether a path is the root folder, however it is written.
fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "." | ".."))
}

/// Read a parsed file.
pub(crate) fn read(file: Dockerfile) -> Result<File, Fault> {
    let checks = match &file.checks {
        Some((text, span)) => Checks::parse(text).map_err(|why| {
            Fault::new(*span, why).at(text).hint("write # check=skip=<name>,<name>;error=true, or # check=skip=all")
        })?,
        None => Checks::default(),
    };
    let findings = Vec::new();
    let mut out = File {
        global_args: Vec::new(),
        stages: Vec::new(),
        escape: file.escape,
        findings,
        checks,
        contexts: Vec::new(),
        synthetic: 0,
    };
    for node in &file.nodes {
        if node.keyword.eq_ignore_ascii_case("FROM") {
            out.stages.push(read::stage(node)?);
            continue;
        }
        let instruction = instruction(node, file.escape)?;
        match (out.stages.last_mut(), &instruction.command) {
            (Some(stage), _) => stage.instructions.push(instruction),
            (None, Command::Arg(_)) => out.global_args.push(instruction),
            (None, _) => {
                return Err(Fault::new(node.span, format!("{} before the first FROM", node.keyword.to_uppercase()))
                    .hint("a Dockerfile begins with FROM; only ARG may stand before it"));
            }
        }
    }
    if out.stages.is_empty() {
        let last = file.nodes.last().map_or(Span { first: 1, last: 1 }, |n| n.span);
        return Err(Fault::new(last, "there is no FROM, so there is nothing to build"));
    }
    out.findings = file.findings;
    let found = lint::file(&file.nodes, &out);
    out.findings.extend(found);
    Ok(out)
}

#[cfg(test)]
mod tests;
