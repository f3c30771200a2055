//! Instructions with their meaning: what each keyword takes, checked; variables not yet
//! expanded. A file becomes global arguments and stages.

mod flags;
mod read;

use portolan_types::oci::Healthcheck;

use crate::error::{Fault, Span};
use crate::parse::Dockerfile;

pub(crate) use read::instruction;

/// A Dockerfile by stages.
#[derive(Debug)]
pub(crate) struct File {
    /// `ARG`s before the first `FROM`.
    pub(crate) global_args: Vec<Instruction>,
    pub(crate) stages: Vec<Stage>,
    /// The file's escape character.
    pub(crate) escape: char,
    pub(crate) warnings: Vec<Fault>,
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
    /// `--network=none` or not.
    pub(crate) network: bool,
}

/// `COPY` and `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    /// Whether it is `ADD`.
    pub(crate) add: bool,
    /// Whether local archives are unpacked.
    pub(crate) unpack: bool,
    pub(crate) sources: Vec<String>,
    /// Sources written in place.
    pub(crate) documents: Vec<Document>,
    pub(crate) dest: String,
    /// A stage's name or number, or an image.
    pub(crate) from: Option<String>,
    pub(crate) chown: Option<String>,
    pub(crate) chmod: Option<String>,
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

/// Read a parsed file.
pub(crate) fn read(file: Dockerfile) -> Result<File, Fault> {
    let mut out = File { global_args: Vec::new(), stages: Vec::new(), escape: file.escape, warnings: file.warnings };
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
    Ok(out)
}

#[cfg(test)]
mod tests;
