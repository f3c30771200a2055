//! What a stage amounts to, without touching a file system: variables expanded, the image
//! configuration, and the steps that are left to do.

use portolan_types::Platform;
use portolan_types::oci::{Empty, ImageConfig};
mod checks;
mod copy;
mod run;
mod values;

use std::collections::BTreeMap;

use super::blot::Blots;
use super::history::{self, entry};
use super::mounts::RunMount;
use super::remote::RemoteAdd;
use super::signal;
use crate::cancel::Cancel;
use crate::copy::Chmod;
use crate::error::{Fault, Span};
use crate::exec::Network;
use crate::expand::Lexer;
use crate::graph::{Globals, Origin};
use crate::instruct::{Command, CommandLine, Instruction, Pair};
use crate::lint::Finding;
use crate::ports::BaseImage;
use checks::Noted;
use values::{Vars, absolute, exposed};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Build arguments that are there without an `ARG`, for `RUN` only, and never in a cache key
/// or the history (Dockerfile reference, "Predefined ARGs").
const PROXY_ARGS: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Ports of one `EXPOSE`, at most all there are.
const PORTS_MAX: usize = 65_536;
/// Steps of one stage. No runtime mounts as many layers.
const STEPS_MAX: usize = 500;
/// The environment of a stage; the kernel takes no more from a program's start.
const ENV_BYTES_MAX: usize = 512 * 1024;
/// What all instructions of a stage say in the history.
const HISTORY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What the log shows of one instruction.
const TITLE_BYTES_MAX: usize = 4 * 1024;

/// Whether a build argument may be given without an `ARG` for it.
pub(super) fn is_predefined(name: &str) -> bool {
    PROXY_ARGS.iter().any(|p| p.eq_ignore_ascii_case(name))
}

/// A stage, evaluated.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) platform: Platform,
    /// Its configuration; the history is complete but for the times.
    pub(super) image: ImageConfig,
    pub(super) steps: Vec<Step>,
    /// How many steps the log counts, a base image's `FROM` among them.
    pub(super) total: usize,
    /// Names that `ARG` instructions mentioned.
    pub(super) args_seen: Vec<String>,
    /// What expansion and `RUN` see: `ENV` and `ARG`.
    env: Vars,
    /// What the image keeps: `ENV` alone.
    kept_env: Vars,
    args: Vec<(String, Option<String>)>,
    cmd_set: bool,
    /// A `WORKDIR` of the file holds in it.
    workdir_set: bool,
    /// What it probably does not mean.
    pub(super) findings: Vec<Finding>,
}

/// Something to do that makes a layer.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) title: String,
    pub(super) span: Span,
    pub(super) op: Op,
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    /// `WORKDIR`: make the directory.
    Mkdir {
        /// Absolute.
        path: String,
        /// `USER`, whom what is made will belong to.
        user: String,
    },
    Copy(CopyOp),
    Run(RunOp),
}

#[derive(Clone, Debug)]
pub(super) struct CopyOp {
    /// `None` is the context.
    pub(super) from: Option<Origin>,
    pub(super) sources: Vec<String>,
    /// Name and text.
    pub(super) documents: Vec<(String, String)>,
    /// Absolute; a slash at the end says that it is a directory.
    pub(super) dest: String,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<Chmod>,
    /// `--parents`.
    pub(super) parents: bool,
    /// `--exclude`, expanded.
    pub(super) exclude: Vec<String>,
    pub(super) unpack: bool,
    /// `--unpack` said outright: archives that are fetched too.
    pub(super) unpack_fetched: bool,
    /// `--link`.
    pub(super) link: bool,
    /// Sources of `ADD` that are elsewhere.
    pub(super) remotes: Vec<RemoteAdd>,
}

#[derive(Clone, Debug)]
pub(super) struct RunOp {
    pub(super) argv: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    /// Not part of what the step is, for the key: proxies.
    pub(super) extra_env: Vec<(String, String)>,
    pub(super) cwd: String,
    pub(super) user: String,
    pub(super) network: Network,
    /// `--security=insecure`, and allowed.
    pub(super) insecure: bool,
    /// What the machine is called, when the build says so.
    pub(super) hostname: Option<String>,
    pub(super) mounts: Vec<RunMount>,
    /// A script to mount: its path inside, and its text.
    pub(super) script: Option<(String, String)>,
}

impl Op {
    /// The stages and images that it takes files from.
    pub(super) fn origins(&self) -> Vec<&Origin> {
        match self {
            Op::Mkdir { .. } => Vec::new(),
            Op::Copy(copy) => copy.from.iter().collect(),
            Op::Run(run) => run.mounts.iter().filter_map(RunMount::origin).collect(),
        }
    }
}

/// What steps may ask for beyond what everybody's may.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowed {
    pub(super) host_network: bool,
    pub(super) insecure: bool,
}

/// Why a mount is refused: with a place of its own, or by what it says.
enum Refused {
    Fault(Fault),
    Message(String),
}

impl From<String> for Refused {
    fn from(message: String) -> Refused {
        Refused::Message(message)
    }
}

/// What evaluation takes from outside.
pub(super) struct Inputs<'a> {
    pub(super) globals: &'a Globals,
    pub(super) escape: char,
    pub(super) build_args: &'a [(String, String)],
    /// What must not be seen.
    pub(super) blots: &'a Blots,
    /// What steps may ask for.
    pub(super) allowed: Allowed,
    /// Looked at between instructions.
    pub(super) cancel: &'a Cancel,
    /// What `COPY --from` names.
    pub(super) source: &'a dyn Fn(&str, Span) -> Result<Origin, Fault>,
}

impl Inputs<'_> {
    fn build_arg(&self, name: &str) -> Option<&String> {
        self.build_args.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// The text with secrets blotted out.
    pub(super) fn redact(&self, text: &str) -> String {
        self.blots.text(text).into_owned()
    }
}

/// What a stage begins with.
pub(super) enum Begin<'a> {
    Scratch,
    Image(&'a BaseImage),
    Stage(&'a Stage),
}

/// A stage under evaluation.
pub(super) struct Eval<'a> {
    inputs: &'a Inputs<'a>,
    stage: Stage,
    /// Number and total of the next step in the log.
    number: usize,
    total: usize,
    label: &'a str,
    /// What the history holds so far.
    history_bytes: usize,
    noted: Noted,
}

impl<'a> Eval<'a> {
    /// `label` is what the log calls the stage.
    pub(super) fn begin(inputs: &'a Inputs<'a>, label: &'a str, platform: &Platform, begin: &Begin<'_>) -> Eval<'a> {
        let mut stage = match begin {
            Begin::Stage(base) => Stage { steps: Vec::new(), cmd_set: false, findings: Vec::new(), ..(*base).clone() },
            _ => Stage {
                platform: platform.clone(),
                image: match begin {
                    Begin::Image(base) => base.config.clone(),
                    _ => ImageConfig::default(),
                },
                steps: Vec::new(),
                total: 0,
                args_seen: Vec::new(),
                env: Vars::default(),
                kept_env: Vars::default(),
                args: Vec::new(),
                cmd_set: false,
                workdir_set: false,
                findings: Vec::new(),
            },
        };
        let image = &mut stage.image;
        if image.architecture.is_empty() || image.os.is_empty() {
            image.os = platform.os.clone();
            image.architecture = platform.architecture.clone();
            image.variant = platform.variant.clone();
        }
        image.created = None;
        image.config.on_build = None;
        if matches!(begin, Begin::Image(_)) {
            history::fit(&mut image.history, image.rootfs.diff_ids.len());
        }
        let env = image.config.env.get_or_insert_default();
        if !env.iter().any(|e| e.starts_with("PATH=")) {
            env.push(format!("PATH={PATH}"));
        }
        stage.kept_env = Vars::default();
        for pair in env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            stage.env.set(name, value);
            stage.kept_env.set(name, value);
        }
        let workdir = &mut image.config.working_dir;
        *workdir =
            if workdir.is_empty() && !matches!(begin, Begin::Scratch) { String::new() } else { absolute("/", workdir) };
        let first = usize::from(matches!(begin, Begin::Image(..)));
        let history_bytes = stage.image.history.iter().filter_map(|h| h.created_by.as_ref()).map(String::len).sum();
        let noted = Noted::new(stage.workdir_set);
        Eval { inputs, stage, number: first, total: first, label, history_bytes, noted }
    }

    /// Evaluate all instructions: a base's `ONBUILD` triggers first, then the stage's own.
    pub(super) fn run(mut self, triggers: &[Instruction], own: &[Instruction]) -> Result<Stage, Fault> {
        let makes_step =
            |i: &&Instruction| matches!(i.command, Command::Copy(_) | Command::Run(_) | Command::Workdir(_));
        self.total += triggers.iter().chain(own).filter(makes_step).count();
        self.stage.total = self.total;
        let all = triggers.iter().map(|i| (i, true)).chain(own.iter().map(|i| (i, false)));
        for (instruction, trigger) in all {
            let fault = |message: String| Err(Fault::new(instruction.span, message));
            if self.inputs.cancel.is_cancelled() {
                return fault("the build was cancelled".to_owned());
            }
            self.check(&instruction.command, instruction.span);
            self.instruction(instruction, trigger)?;
            if self.stage.steps.len() > STEPS_MAX {
                return fault(format!("the stage has more than {STEPS_MAX} steps that make layers"));
            }
            if self.stage.env.bytes > ENV_BYTES_MAX {
                return fault(format!("the environment is larger than {ENV_BYTES_MAX} bytes"));
            }
            if self.history_bytes > HISTORY_BYTES_MAX {
                return fault(format!("the instructions so far say more than {HISTORY_BYTES_MAX} bytes"));
            }
        }
        self.stage.findings = self.noted.take();
        self.stage.workdir_set = self.noted.workdir_set;
        self.stage.image.config.env = Some(self.stage.kept_env.pairs());
        Ok(self.stage)
    }

    fn lexer(&self) -> Lexer {
        Lexer::new(self.inputs.escape)
    }

    fn expand(&self, text: &str, span: Span) -> Result<String, Fault> {
        let mut unset = Vec::new();
        let value = self
            .lexer()
            .word_noting(text, &|name| self.stage.env.get(name).cloned(), &mut unset)
            .map_err(|e| Fault::new(span, e.to_string()).at(text))?;
        self.note_unset(unset, span);
        Ok(value)
    }

    fn expand_all(&self, texts: &[String], span: Span) -> Result<Vec<String>, Fault> {
        texts.iter().map(|t| self.expand(t, span)).collect()
    }

    fn history(&mut self, created_by: &str, layer: bool) {
        let text = self.inputs.redact(created_by);
        self.history_bytes += text.len();
        self.stage.image.history.push(entry(text, layer));
    }

    fn step(&mut self, instruction: &Instruction, trigger: bool, shown: String, op: Op) {
        let mut title = format!("{}{}", self.prefix(trigger), self.inputs.redact(&shown));
        if title.len() > TITLE_BYTES_MAX {
            title.truncate(title.floor_char_boundary(TITLE_BYTES_MAX));
            title.push('…');
        }
        self.stage.steps.push(Step { title, span: instruction.span, op });
    }

    /// `[builder 2/4] `, counting up.
    fn prefix(&mut self, trigger: bool) -> String {
        self.number += 1;
        prefix(self.label, self.number, self.total) + if trigger { "ONBUILD " } else { "" }
    }

    /// The instruction's text for the log, with variables that are set filled in.
    fn shown(&self, instruction: &Instruction, keep_quotes: bool) -> String {
        let lexer =
            Lexer { raw_quotes: keep_quotes, raw_escapes: keep_quotes, keep_unset: keep_quotes, ..self.lexer() };
        lexer
            .word(&instruction.text, &|name| self.stage.env.get(name).cloned())
            .unwrap_or_else(|_| instruction.text.clone())
    }

    fn instruction(&mut self, instruction: &Instruction, trigger: bool) -> Result<(), Fault> {
        let span = instruction.span;
        match &instruction.command {
            Command::Arg(args) => return self.arg(args, span),
            Command::Env(pairs) => {
                let pairs = self.pairs(pairs, span)?;
                for Pair { key, value } in &pairs {
                    self.stage.env.set(key, value);
                    self.stage.kept_env.set(key, value);
                }
                self.history(&format!("ENV{}", joined(&pairs)), false);
            }
            Command::Label(pairs) => {
                let pairs = self.pairs(pairs, span)?;
                let labels: &mut BTreeMap<_, _> = self.stage.image.config.labels.get_or_insert_default();
                labels.extend(pairs.iter().map(|p| (p.key.clone(), p.value.clone())));
                self.history(&format!("LABEL{}", joined(&pairs)), false);
            }
            Command::Maintainer(author) => {
                self.stage.image.author = Some(author.clone());
                self.history(&format!("MAINTAINER {author}"), false);
            }
            Command::Workdir(path) => {
                let path = absolute(&self.stage.image.config.working_dir, &self.expand(path, span)?);
                self.stage.image.config.working_dir.clone_from(&path);
                let layer = path != "/";
                if layer {
                    let user = self.stage.image.config.user.clone();
                    let shown = self.shown(instruction, false);
                    self.step(instruction, trigger, shown, Op::Mkdir { path: path.clone(), user });
                }
                self.history(&format!("WORKDIR {path}"), layer);
            }
            Command::User(user) => {
                let user = self.expand(user, span)?;
                if user.trim().is_empty() {
                    return Err(Fault::new(span, "USER is empty once expanded"));
                }
                self.history(&format!("USER {user}"), false);
                self.stage.image.config.user = user;
            }
            Command::Expose(ports) => self.expose(ports, span)?,
            Command::Volume(volumes) => {
                let volumes = self.expand_all(volumes, span)?;
                if volumes.iter().any(String::is_empty) {
                    return Err(Fault::new(span, "a VOLUME is empty once expanded"));
                }
                self.history(&format!("VOLUME {}", history::listed(&volumes)), false);
                self.stage.image.config.volumes.extend(volumes.into_iter().map(|v| (v, Empty {})));
            }
            Command::StopSignal(name) => {
                let name = self.expand(name, span)?;
                if !signal::is_known(&name) {
                    return Err(Fault::new(span, format!("unknown signal {name:?}"))
                        .at(&name)
                        .hint("a name such as SIGTERM, or a number"));
                }
                self.history(&format!("STOPSIGNAL {name}"), false);
                self.stage.image.config.stop_signal = Some(name);
            }
            Command::Shell(shell) => {
                self.stage.image.config.shell = Some(shell.clone());
                self.history(&format!("SHELL {}", history::listed(shell)), false);
            }
            Command::Cmd(line) => {
                let args = self.with_shell(line);
                self.history(&format!("CMD {}", history::quoted(&args)), false);
                self.stage.cmd_set = true;
                let config = &mut self.stage.image.config;
                config.cmd = Some(args);
                // Meaningless here, but BuildKit sets it and tools compare configurations.
                config.args_escaped = true;
            }
            Command::Entrypoint(line) => {
                let args = self.with_shell(line);
                self.history(&format!("ENTRYPOINT {}", history::quoted(&args)), false);
                if !self.stage.cmd_set {
                    self.stage.image.config.cmd = None;
                }
                self.stage.image.config.entrypoint = Some(args);
            }
            Command::Healthcheck(check) => {
                self.history(&history::healthcheck(check), false);
                self.stage.image.config.healthcheck = Some(check.clone());
            }
            Command::Onbuild(text) => {
                self.stage.image.config.on_build.get_or_insert_default().push(text.clone());
            }
            Command::Copy(copy) => self.copy(copy, instruction, trigger)?,
            Command::Run(run) => self.run_step(run, instruction, trigger)?,
        }
        Ok(())
    }

    fn pairs(&self, pairs: &[Pair], span: Span) -> Result<Vec<Pair>, Fault> {
        pairs
            .iter()
            .map(|p| {
                let key = self.expand(&p.key, span)?;
                if key.is_empty() {
                    return Err(Fault::new(span, format!("the name {:?} is empty once expanded", p.key)));
                }
                Ok(Pair { key, value: self.expand(&p.value, span)? })
            })
            .collect()
    }

    fn arg(&mut self, args: &[(String, Option<String>)], span: Span) -> Result<(), Fault> {
        let mut shown = Vec::new();
        for (name, default) in args {
            let value = match (self.inputs.build_arg(name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(default, span)?),
                (None, None) => self.inputs.globals.get(name),
            };
            if let Some(value) = &value {
                self.stage.env.set(name, value);
            }
            shown.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            self.stage.args_seen.push(name.clone());
            self.stage.args.push((name.clone(), value));
        }
        self.history(&format!("ARG {}", shown.join(" ")), false);
        Ok(())
    }

    fn expose(&mut self, ports: &[String], span: Span) -> Result<(), Fault> {
        let mut out = Vec::new();
        for port in ports {
            // For what it has to say of variables.
            self.expand(port, span)?;
            let words = self
                .lexer()
                .words(port, &|name| self.stage.env.get(name).cloned())
                .map_err(|e| Fault::new(span, e.to_string()))?;
            for word in words {
                out.extend(exposed(&word).ok_or_else(|| {
                    Fault::new(span, format!("{word:?} is not a port"))
                        .at(&word)
                        .hint("a number from 0 to 65535 or a range of them, with /tcp, /udp or /sctp after it")
                })?);
                if out.len() > PORTS_MAX {
                    return Err(Fault::new(span, format!("more than {PORTS_MAX} ports")));
                }
            }
        }
        self.history(&format!("EXPOSE {}", history::ports(&out)), false);
        self.stage.image.config.exposed_ports.extend(out.into_iter().map(|p| (p, Empty {})));
        Ok(())
    }

    fn with_shell(&self, line: &CommandLine) -> Vec<String> {
        if !line.shell {
            return line.args.clone();
        }
        let mut args = match &self.stage.image.config.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        };
        args.push(line.args.join(" "));
        args
    }
}

/// `[builder 2/4] `, the number as wide as the total.
pub(super) fn prefix(label: &str, number: usize, total: usize) -> String {
    let width = total.to_string().len();
    let space = if label.is_empty() { "" } else { " " };
    format!("[{label}{space}{number:>width$}/{total}] ")
}

fn joined(pairs: &[Pair]) -> String {
    pairs.iter().map(|p| format!(" {}={}", p.key, p.value)).collect()
}

#[cfg(test)]
mod tests;
