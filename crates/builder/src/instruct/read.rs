//! One instruction out of its text.

use portolan_types::oci::Healthcheck;

use super::flags::Flags;
use super::{Command, CommandLine, Copy, Document, Instruction, Mount, NetworkMode, Pair, Run, Security, Stage};
use crate::error::{Fault, suggest};
use crate::parse::{Heredoc, Node, heredoc_word, json_strings, words};

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Sources of one COPY, words of one EXPOSE and the like, at most.
const ARGUMENTS_MAX: usize = 10_000;

/// Mounts of one RUN.
const MOUNTS_MAX: usize = 128;

/// Read `FROM`.
pub(super) fn stage(node: &Node) -> Result<Stage, Fault> {
    let fault = |message: &str| Fault::new(node.span, message);
    let mut flags = Flags::new("FROM", &node.flags, node.span);
    let platform = flags.text("platform")?;
    flags.finish()?;
    let words: Vec<&str> = node.rest.split_whitespace().collect();
    let (base, name) = match words.as_slice() {
        [base] => (*base, None),
        [base, r#as, name] if r#as.eq_ignore_ascii_case("as") => (*base, Some(name.to_lowercase())),
        [] => return Err(fault("FROM needs an image").hint("FROM scratch begins with an empty one")),
        _ => return Err(fault("FROM takes one argument or three").hint("FROM <image> [AS <name>]")),
    };
    if let Some(name) = &name {
        let ok = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
        if !ok {
            return Err(fault(&format!("invalid stage name {name:?}"))
                .at(words.last().copied().unwrap_or_default())
                .hint("it begins with a letter and has letters, digits, `-`, `_` and `.`"));
        }
    }
    Ok(Stage { base: base.to_owned(), name, platform, instructions: Vec::new(), span: node.span })
}

/// Read any instruction but `FROM`.
pub(crate) fn instruction(node: &Node, escape: char) -> Result<Instruction, Fault> {
    let keyword = node.keyword.to_ascii_uppercase();
    let reader = Reader { node, keyword: &keyword, escape };
    let command = reader.command()?;
    let text = match node.text.split_once(char::is_whitespace) {
        Some((_, rest)) => format!("{keyword} {}", rest.trim()),
        None => keyword.clone(),
    };
    Ok(Instruction { command, text, span: node.span })
}

struct Reader<'a> {
    node: &'a Node,
    keyword: &'a str,
    escape: char,
}

impl Reader<'_> {
    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.node.span, message)
    }

    fn flags(&self) -> Flags<'_> {
        Flags::new(self.keyword, &self.node.flags, self.node.span)
    }

    fn command(&self) -> Result<Command, Fault> {
        let command = match self.keyword {
            "RUN" => return self.run().map(Command::Run),
            "COPY" | "ADD" => return self.copy().map(Command::Copy),
            "HEALTHCHECK" => return self.healthcheck().map(Command::Healthcheck),
            "FROM" => return Err(self.fault("FROM cannot stand here")),
            "ARG" => Command::Arg(self.args()?),
            "ENV" => Command::Env(self.pairs()?),
            "LABEL" => Command::Label(self.pairs()?),
            "MAINTAINER" => Command::Maintainer(self.one()?),
            "WORKDIR" => Command::Workdir(self.one()?),
            "USER" => Command::User(self.one()?),
            "STOPSIGNAL" => Command::StopSignal(self.one()?),
            "EXPOSE" => Command::Expose(self.some(self.split())?),
            "VOLUME" => Command::Volume(self.volumes()?),
            "SHELL" => Command::Shell(self.shell()?),
            "CMD" => Command::Cmd(self.line(&self.node.rest)?),
            "ENTRYPOINT" => Command::Entrypoint(self.line(&self.node.rest)?),
            "ONBUILD" => Command::Onbuild(self.onbuild()?),
            other => {
                let fault = self.fault(format!("unknown instruction: {}", self.node.keyword)).at(&self.node.keyword);
                return Err(match suggest(other, KEYWORDS) {
                    Some(meant) => fault.hint(format!("did you mean {meant}?")),
                    None => fault,
                });
            }
        };
        self.flags().finish()?;
        Ok(command)
    }

    fn split(&self) -> Vec<String> {
        self.node.rest.split_whitespace().map(str::to_owned).collect()
    }

    fn one(&self) -> Result<String, Fault> {
        if self.node.rest.is_empty() {
            return Err(self.fault(format!("{} needs an argument", self.keyword)));
        }
        Ok(self.node.rest.clone())
    }

    fn some(&self, arguments: Vec<String>) -> Result<Vec<String>, Fault> {
        match arguments.len() {
            0 => Err(self.fault(format!("{} needs at least one argument", self.keyword))),
            n if n > ARGUMENTS_MAX => {
                Err(self.fault(format!("{} has more than {ARGUMENTS_MAX} arguments", self.keyword)))
            }
            _ => Ok(arguments),
        }
    }

    /// The JSON form, or nothing when it is written otherwise. JSON that is an array but not
    /// of strings is a mistake.
    fn json(&self, rest: &str) -> Result<Option<Vec<String>>, Fault> {
        if let Some(strings) = json_strings(rest) {
            return Ok(Some(strings));
        }
        if rest.starts_with('[') && serde_json::from_str::<Vec<serde_json::Value>>(rest).is_ok() {
            return Err(self
                .fault("the JSON form is an array of strings only")
                .at("[")
                .hint("put every item in double quotes"));
        }
        Ok(None)
    }

    fn list(&self) -> Result<Vec<String>, Fault> {
        match self.json(&self.node.rest)? {
            Some(list) => Ok(list),
            None => Ok(self.split()),
        }
    }

    fn volumes(&self) -> Result<Vec<String>, Fault> {
        let volumes = self.some(self.list()?)?;
        if volumes.iter().any(|v| v.trim().is_empty()) {
            return Err(self.fault("a VOLUME cannot have an empty path"));
        }
        Ok(volumes)
    }

    fn shell(&self) -> Result<Vec<String>, Fault> {
        match self.json(&self.node.rest)? {
            Some(shell) if !shell.is_empty() => Ok(shell),
            _ => Err(self.fault("SHELL takes the JSON form only").hint(r#"SHELL ["/bin/bash", "-c"]"#)),
        }
    }

    fn line(&self, rest: &str) -> Result<CommandLine, Fault> {
        match self.json(rest)? {
            Some(args) => Ok(CommandLine { args, shell: false }),
            None if rest.is_empty() => Ok(CommandLine { args: Vec::new(), shell: true }),
            None => Ok(CommandLine { args: vec![rest.to_owned()], shell: true }),
        }
    }

    fn args(&self) -> Result<Vec<(String, Option<String>)>, Fault> {
        let words = self.some(words(&self.node.rest, self.escape))?;
        words
            .iter()
            .map(|word| match word.split_once('=') {
                Some(("", _)) => Err(self.fault("an ARG needs a name before the `=`")),
                Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
                None => Ok((word.clone(), None)),
            })
            .collect()
    }

    /// `K=V K2="V 2"`, or the old form `K V`.
    fn pairs(&self) -> Result<Vec<Pair>, Fault> {
        let keyword = self.keyword;
        let words = self.some(words(&self.node.rest, self.escape))?;
        if !words[0].contains('=') {
            let Some((key, value)) = self.node.rest.split_once(char::is_whitespace) else {
                return Err(self
                    .fault(format!("{keyword} {} has no value", self.node.rest))
                    .hint(format!("write {keyword} name=value")));
            };
            return Ok(vec![Pair { key: key.to_owned(), value: value.trim_start().to_owned() }]);
        }
        words
            .iter()
            .map(|word| match word.split_once('=') {
                Some(("", _)) => Err(self.fault(format!("{keyword} needs a name before the `=`"))),
                Some((key, value)) => Ok(Pair { key: key.to_owned(), value: value.to_owned() }),
                None => Err(self
                    .fault(format!("there is no `=` in {word:?}"))
                    .at(word)
                    .hint(format!("write {keyword} name=value, with quotes around a value that has spaces"))),
            })
            .collect()
    }

    fn run(&self) -> Result<Run, Fault> {
        let mut flags = self.flags();
        let mut mounts = Vec::new();
        for text in flags.all("mount")? {
            let mount = Mount::read(&text)
                .map_err(|(message, hint)| Fault { hint, ..self.fault(message) }.at(&format!("--mount={text}")))?;
            mounts.push(mount);
        }
        if mounts.len() > MOUNTS_MAX {
            return Err(self.fault(format!("RUN has more than {MOUNTS_MAX} mounts")));
        }
        let network = match flags.text("network")?.as_deref() {
            None | Some("default") => NetworkMode::Default,
            Some("none") => NetworkMode::None,
            Some("host") => NetworkMode::Host,
            Some(other) => {
                return Err(self
                    .fault(format!("--network={other} is unknown"))
                    .at("--network")
                    .hint("it is default, none or host"));
            }
        };
        let security = match flags.text("security")?.as_deref() {
            None | Some("sandbox") => Security::Sandbox,
            Some("insecure") => Security::Insecure,
            Some(other) => {
                return Err(self
                    .fault(format!("--security={other} is unknown"))
                    .at("--security")
                    .hint("it is sandbox or insecure"));
            }
        };
        if !flags.all("device")?.is_empty() {
            return Err(self
                .fault("RUN --device is not available here")
                .at("--device")
                .hint("steps have no devices of the host"));
        }
        flags.finish()?;
        let line = self.line(&self.node.rest)?;
        if line.args.is_empty() {
            return Err(self.fault("RUN needs a command"));
        }
        let documents = self.node.heredocs.iter().map(document).collect();
        Ok(Run { line, documents, mounts, network, security })
    }

    fn copy(&self) -> Result<Copy, Fault> {
        let keyword = self.keyword;
        let add = keyword == "ADD";
        let mut flags = self.flags();
        let from = if add { None } else { flags.text("from")? };
        let chown = flags.text("chown")?;
        let chmod = flags.text("chmod")?;
        let link = flags.switch("link")?.unwrap_or(false);
        let exclude = flags.all("exclude")?;
        if exclude.len() > ARGUMENTS_MAX {
            return Err(self.fault(format!("{keyword} has more than {ARGUMENTS_MAX} --exclude")));
        }
        let parents = !add && flags.switch("parents")?.unwrap_or(false);
        let checksum = if add { flags.text("checksum")? } else { None };
        let keep_git_dir = add && flags.switch("keep-git-dir")?.unwrap_or(false);
        let unpacking = if add { flags.switch("unpack")? } else { Some(false) };
        let (unpack, unpack_fetched) = (unpacking.unwrap_or(true), unpacking == Some(true));
        flags.finish()?;
        let mut arguments = match self.json(&self.node.rest)? {
            Some(list) => list,
            None => words(&self.node.rest, self.escape),
        };
        if arguments.len() < 2 {
            return Err(self
                .fault(format!("{keyword} needs a source and a destination"))
                .hint(format!("{keyword} <source>… <destination>")));
        }
        let mut arguments = self.some(std::mem::take(&mut arguments))?;
        let dest = arguments.pop().unwrap_or_default();
        if heredoc_word(&dest).is_some() {
            return Err(self.fault(format!("{keyword} cannot have a here-document as its destination")));
        }
        let mut documents = Vec::new();
        let mut sources = Vec::new();
        for source in arguments {
            let written =
                heredoc_word(&source).and_then(|word| self.node.heredocs.iter().find(|h| h.name == word.name));
            match written {
                Some(heredoc) => documents.push(document(heredoc)),
                None => sources.push(source),
            }
        }
        if let Some(url) = sources.iter().find(|s| !add && is_remote(s)) {
            return Err(self
                .fault(format!("COPY cannot have a URL as its source: {url}"))
                .at(url)
                .hint("ADD fetches URLs and git addresses"));
        }
        Ok(Copy {
            add,
            unpack,
            unpack_fetched,
            sources,
            documents,
            dest,
            from,
            chown,
            chmod,
            link,
            parents,
            exclude,
            checksum,
            keep_git_dir,
        })
    }

    fn onbuild(&self) -> Result<String, Fault> {
        if self.node.rest.is_empty() {
            return Err(self.fault("ONBUILD needs an instruction"));
        }
        let inner = self.node.inner()?;
        match inner.keyword.to_ascii_uppercase().as_str() {
            "ONBUILD" => return Err(self.fault("ONBUILD ONBUILD is not allowed")),
            trigger @ ("FROM" | "MAINTAINER") => {
                return Err(self.fault(format!("{trigger} is not allowed as an ONBUILD trigger")).at(&inner.keyword));
            }
            _ => {}
        }
        instruction(&inner, self.escape)?;
        let mut text = inner.text.clone();
        for heredoc in &inner.heredocs {
            text.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
        }
        Ok(text)
    }

    fn healthcheck(&self) -> Result<Healthcheck, Fault> {
        let (kind, rest) = match self.node.rest.split_once(char::is_whitespace) {
            Some((kind, rest)) => (kind, rest.trim()),
            None => (self.node.rest.as_str(), ""),
        };
        let mut flags = self.flags();
        let mut check = Healthcheck::default();
        match kind.to_ascii_uppercase().as_str() {
            "" => {
                return Err(self
                    .fault("HEALTHCHECK needs an argument")
                    .hint("HEALTHCHECK CMD <command>, or HEALTHCHECK NONE"));
            }
            "NONE" if rest.is_empty() => check.test = vec!["NONE".to_owned()],
            "NONE" => return Err(self.fault("HEALTHCHECK NONE takes no arguments")),
            "CMD" => {
                let line = self.line(rest)?;
                if line.args.is_empty() {
                    return Err(self.fault("HEALTHCHECK CMD needs a command"));
                }
                check.test.push(if line.shell { "CMD-SHELL" } else { "CMD" }.to_owned());
                check.test.extend(line.args);
                check.interval = self.interval(&mut flags, "interval")?;
                check.timeout = self.interval(&mut flags, "timeout")?;
                check.start_period = self.interval(&mut flags, "start-period")?;
                check.start_interval = self.interval(&mut flags, "start-interval")?;
                if let Some(retries) = flags.text("retries")? {
                    check.retries = retries
                        .parse::<u32>()
                        .map_err(|_| {
                            let message = format!("--retries={retries} is not a whole number from 0 up");
                            self.fault(message).at("--retries")
                        })?
                        .into();
                }
            }
            _ => {
                return Err(self
                    .fault(format!("HEALTHCHECK {kind} is unknown"))
                    .at(kind)
                    .hint("HEALTHCHECK CMD <command>, or HEALTHCHECK NONE"));
            }
        }
        flags.finish()?;
        Ok(check)
    }

    /// Nanoseconds; docker allows 0 or at least one millisecond.
    fn interval(&self, flags: &mut Flags<'_>, name: &'static str) -> Result<i64, Fault> {
        let Some(text) = flags.text(name)?.filter(|t| !t.is_empty()) else { return Ok(0) };
        match duration_nanos(&text) {
            None => Err(self
                .fault(format!("--{name}={text} is not a duration"))
                .at(&format!("--{name}"))
                .hint("write a number and a unit, such as 30s, 1m30s or 500ms")),
            Some(nanos) if nanos != 0 && nanos < 1_000_000 => {
                Err(self.fault(format!("--{name}={text} is less than 1ms")).at(&format!("--{name}")))
            }
            Some(nanos) => Ok(nanos),
        }
    }
}

fn document(heredoc: &Heredoc) -> Document {
    Document { name: heredoc.name.clone(), text: heredoc.text(), raw: heredoc.content.clone(), expand: heredoc.expand }
}

/// Whether a source is somewhere on the network: a URL, a git address.
pub(crate) fn is_remote(source: &str) -> bool {
    let schemes = ["http://", "https://", "git://", "ssh://", "git@"];
    schemes.iter().any(|scheme| source.starts_with(scheme))
        || (source.starts_with("github.com/") && source.contains(".git"))
}

/// Go's duration text (`1h15m30.5s`) in nanoseconds.
fn duration_nanos(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() || negative {
        return None;
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (total < 9e18).then_some(total.round() as i64)
}
