//! `RUN`, evaluated.

use super::super::history;
use super::super::mounts::RunMount;
use super::values::{Vars, absolute};
use super::{Eval, Op, Refused, RunOp, is_predefined};
use crate::error::{Fault, Span};
use crate::exec::Network;
use crate::instruct::{CommandLine, Instruction, Mount, NetworkMode, Run, Security};

/// Build arguments of BuildKit's that say how steps run; no `ARG` mentions them.
const HOSTNAME_ARG: &str = "BUILDKIT_SANDBOX_HOSTNAME";
const CACHE_NAMESPACE_ARG: &str = "BUILDKIT_CACHE_MOUNT_NS";
/// As long as the kernel takes a host name.
const HOSTNAME_BYTES_MAX: usize = 64;

impl Eval<'_> {
    /// A step's mounts, expanded.
    fn mounts(&self, mounts: &[Mount], span: Span) -> Result<Vec<RunMount>, Fault> {
        let namespace = self.inputs.build_arg(CACHE_NAMESPACE_ARG).map_or("", String::as_str);
        let expand =
            |text: &str| self.lexer().word(text, &|name| self.stage.env.get(name).cloned()).map_err(|e| e.to_string());
        let read = |mount: &Mount| {
            let expanded = mount.expanded(&expand).map_err(|(message, hint)| {
                Fault { hint, ..Fault::new(span, message) }.at(&format!("--mount={}", mount.text))
            });
            expanded.map(|mount| mount.in_namespace(namespace))
        };
        let workdir = &self.stage.image.config.working_dir;
        let origin = |from: &str| (self.inputs.source)(from, span).map_err(Refused::Fault);
        let mut agents = 0;
        let complete = |mount: Mount| {
            RunMount::new(&mount, &|path| absolute(workdir, path), &origin, &mut agents).map_err(|why| match why {
                Refused::Fault(fault) => fault,
                Refused::Message(message) => Fault::new(span, message).at("--mount"),
            })
        };
        mounts.iter().map(read).collect::<Result<Vec<_>, Fault>>()?.into_iter().map(complete).collect()
    }

    /// What steps call their machine, if a build argument says so.
    fn hostname(&self, span: Span) -> Result<Option<String>, Fault> {
        let Some(name) = self.inputs.build_arg(HOSTNAME_ARG).filter(|name| !name.is_empty()) else { return Ok(None) };
        let fits = name.len() <= HOSTNAME_BYTES_MAX
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
        match fits {
            true => Ok(Some(name.clone())),
            false => Err(Fault::new(span, format!("--build-arg {HOSTNAME_ARG}={name:?} is no host name"))),
        }
    }

    /// What `--network` and `--security` ask for, if this server gives it.
    fn allowed(&self, run: &Run, span: Span) -> Result<(Network, bool), Fault> {
        let allowed = self.inputs.allowed;
        if run.network == NetworkMode::Host && !allowed.host_network {
            return Err(Fault::new(span, "RUN --network=host is not allowed on this server")
                .at("--network")
                .hint("leave the flag out; whoever runs the server allows it with build_allow_host_network"));
        }
        if run.security == Security::Insecure && !allowed.insecure {
            return Err(Fault::new(span, "RUN --security=insecure is not allowed on this server")
                .at("--security")
                .hint("leave the flag out; whoever runs the server allows it with build_allow_insecure"));
        }
        let network = match run.network {
            NetworkMode::Default => Network::Default,
            NetworkMode::None => Network::None,
            NetworkMode::Host => Network::Host,
        };
        Ok((network, run.security == Security::Insecure))
    }

    pub(super) fn run_step(&mut self, run: &Run, instruction: &Instruction, trigger: bool) -> Result<(), Fault> {
        let span = instruction.span;
        let mounts = self.mounts(&run.mounts, span)?;
        let (network, insecure) = self.allowed(run, span)?;
        let hostname = self.hostname(span)?;
        let mut shown = self.shown(instruction, true);
        let mut script = None;
        let argv = match run.documents.as_slice() {
            [] => self.with_shell(&run.line),
            [document, ..] => {
                let text = run.line.args.join(" ");
                if crate::parse::heredoc_word(&text).is_some() {
                    // Nothing but the document: it is the command, or the program.
                    shown.push_str(&format!(" ({})", history::summary(&document.text)));
                    if document.text.starts_with("#!") {
                        let path = format!("/dev/pipes/{}", document.name.replace('/', "_"));
                        script = Some((path.clone(), document.text.clone()));
                        vec![path]
                    } else {
                        self.with_shell(&CommandLine { args: vec![document.text.clone()], shell: true })
                    }
                } else {
                    // Documents that the shell reads: it gets all as it stood.
                    let documents: String = run.documents.iter().map(|d| format!("\n{}{}", d.raw, d.name)).collect();
                    self.with_shell(&CommandLine { args: vec![text + &documents], shell: true })
                }
            }
        };
        let mut values = Vars::default();
        for (name, value) in &self.stage.args {
            let value = self.stage.env.get(name).or(value.as_ref());
            values.set(name, value.map_or("", String::as_str));
        }
        let mut words = values.pairs();
        if !words.is_empty() {
            words.insert(0, format!("|{}", words.len()));
        }
        words.extend(argv.iter().cloned());
        let created_by = format!("RUN {} # buildkit", words.join(" "));
        let given = |(name, value): &(String, String)| {
            (is_predefined(name) && self.stage.env.get(name).is_none()).then(|| (name.clone(), value.clone()))
        };
        let config = &self.stage.image.config;
        let op = RunOp {
            argv,
            env: self.stage.env.all.clone(),
            extra_env: self.inputs.build_args.iter().filter_map(given).collect(),
            cwd: absolute("/", &config.working_dir),
            user: config.user.clone(),
            network,
            insecure,
            hostname,
            mounts,
            script,
        };
        self.step(instruction, trigger, shown, Op::Run(op));
        self.history(&created_by, true);
        Ok(())
    }
}
