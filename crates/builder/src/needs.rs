//! Which part of a context a build can ask for, read off its Dockerfile before anything is
//! sent.
//!
//! What is said here may be more than the build will need, never less as far as the file
//! itself tells. A base image's own `ONBUILD` triggers are not in the file: where one copies
//! from a context of which only a part was sent, the build ends with [`INCOMPLETE`], and the
//! client is told to send all of it from then on.

use portolan_types::Platform;

use crate::graph::{Globals, Graph};
use crate::instruct::{self, Command, MountKind, is_remote};
use crate::parse;

/// What is said when a base image wants files that were not sent.
pub const INCOMPLETE: &str = "the base image copies files of the build context (ONBUILD), of which only a part was sent; hint: build again, \
     and all of it is sent";

/// What a build may need of its context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needs {
    /// It cannot be told, or all of it.
    All,
    /// What is at these paths and below them. The last component of the path may be a
    /// pattern; then everything beside what matches is good enough.
    Paths(Vec<String>),
}

/// Paths that are told apart; with more, all is needed.
const PATHS_MAX: usize = 1_000;

/// What a build of this file for `target` may copy from its context.
pub fn context_needs(
    dockerfile: &[u8],
    target: Option<&str>,
    build_args: &[(String, String)],
    platform: &Platform,
) -> Needs {
    // Whatever is wrong with the file is for the build to say.
    paths(dockerfile, target, build_args, platform).map_or(Needs::All, Needs::Paths)
}

fn paths(
    dockerfile: &[u8],
    target: Option<&str>,
    build_args: &[(String, String)],
    platform: &Platform,
) -> Option<Vec<String>> {
    let file = parse::parse(dockerfile).and_then(instruct::read).ok()?;
    let build_arg = |name: &str| build_args.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let target = target.filter(|t| !t.is_empty());
    let globals = Globals::new(&file, platform, target, &build_arg).ok()?;
    let graph = Graph::new(&file, &globals, platform, target).ok()?;
    let mut out: Vec<String> = Vec::new();
    for index in graph.reachable(graph.target, &file).ok()? {
        for instruction in &file.stages.get(index)?.instructions {
            match &instruction.command {
                // Carried out in stages that stand on this one.
                Command::Onbuild(text) => {
                    let node = parse::parse_trigger(text, file.escape, instruction.span).ok()?;
                    command(&instruct::instruction(&node, file.escape).ok()?.command, &mut out)?;
                }
                other => command(other, &mut out)?,
            }
        }
    }
    out.sort();
    out.dedup();
    (out.len() <= PATHS_MAX).then_some(out)
}

/// Whether an instruction takes anything from the context.
pub(crate) fn takes_files(instruction: &Command) -> bool {
    let mut out = Vec::new();
    command(instruction, &mut out).is_none() || !out.is_empty()
}

/// Add what an instruction takes from the context; `None` when it may be anything.
fn command(command: &Command, out: &mut Vec<String>) -> Option<()> {
    match command {
        Command::Copy(copy) if copy.from.is_none() => {
            for source in copy.sources.iter().filter(|s| !(copy.add && is_remote(s))) {
                out.push(path(source)?);
            }
        }
        Command::Run(run) => {
            for mount in &run.mounts {
                if let MountKind::Bind { from: None, source, .. } = &mount.kind {
                    out.push(path(source.as_deref()?)?);
                }
            }
        }
        _ => {}
    }
    Some(())
}

/// The path up to the first component with a pattern in it; `None` for the whole context.
fn path(source: &str) -> Option<String> {
    // Variables are known only when the base image is; quotes are still in the word.
    if source.contains(['$', '"', '\'']) {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in source.split('/') {
        match part {
            "" | "." => {}
            // Above the root is the root.
            ".." => drop(parts.pop()),
            pattern if pattern.contains(['*', '?', '[', '\\']) => {
                parts.push("*");
                break;
            }
            name => parts.push(name),
        }
    }
    // A pattern at the root looks at everything there.
    (!parts.is_empty() && parts != ["*"]).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(dockerfile: &str, target: Option<&str>) -> Needs {
        context_needs(dockerfile.as_bytes(), target, &[], &Platform::host())
    }

    fn some(paths: &[&str]) -> Needs {
        Needs::Paths(paths.iter().map(|p| (*p).to_owned()).collect())
    }

    #[test]
    fn what_a_target_copies() {
        let file = "FROM a AS one\nCOPY ./src/ requirements.txt /app/\nCOPY --from=two /x /y\nRUN --mount=type=bind,source=cfg,target=/c true\n\
                    FROM b AS two\nADD lib/*.py https://example.com/x /l/\nONBUILD COPY late /\n\
                    FROM c AS three\nCOPY . .\n";
        assert_eq!(needs(file, Some("one")), some(&["cfg", "late", "lib/*", "requirements.txt", "src"]));
        assert_eq!(needs(file, Some("two")), some(&["late", "lib/*"]));
        assert_eq!(needs(file, None), Needs::All);
        assert_eq!(needs("FROM a\nRUN true\n", None), some(&[]));
    }

    #[test]
    fn what_cannot_be_told_is_all() {
        for file in [
            "FROM a\nCOPY *.py /\n",
            "FROM a\nARG d=src\nCOPY $d /\n",
            "FROM a\nCOPY / /x/\n",
            "FROM a\nCOPY \"two words\" /x/\n",
            "FROM a\nCOPY 'f' /x/\n",
            "FROM a\nCOPY src/.. /x/\n",
            "FROM a\nRUN --mount=type=bind,target=/c true\n",
            "FROM a\nONBUILD COPY . /\n",
            "no Dockerfile",
        ] {
            assert_eq!(needs(file, None), Needs::All, "{file}");
        }
    }
}
