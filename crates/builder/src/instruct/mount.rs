//! `RUN --mount=…`: what a step sees besides the image's files.
//!
//! The fields are comma-separated as in a CSV line, so that a value with a comma in it can
//! stand in quotes. Their values may have variables, those of `from` excepted, so a mount is
//! read twice: once as it is written, for what is wrong whatever the variables say, and once
//! expanded ([`Mount::expanded`]).

use crate::error::suggest;

/// Fields of one mount, at most.
const FIELDS_MAX: usize = 64;

/// One `--mount`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) kind: MountKind,
    /// Where it is in the step's files; a relative path is below `WORKDIR`. Always there for
    /// bind, cache and tmpfs. A secret without one is at `/run/secrets/<last part of its id>`
    /// unless it has a variable to be in, an agent's socket at `/run/buildkit/ssh_agent.<n>`,
    /// n being its number among the step's.
    pub(crate) target: Option<String>,
    /// The flag's value as it is written, before expansion.
    pub(crate) text: String,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MountKind {
    /// Files of the context, a stage or an image. What is written there is lost.
    Bind {
        /// A stage's name or number, an image, a named context; `None` is the context.
        from: Option<String>,
        /// A path in it; `None` is its root.
        source: Option<String>,
        rw: bool,
    },
    /// A folder that lasts from build to build.
    Cache {
        /// `None`: the target's path, made plain.
        id: Option<String>,
        sharing: Sharing,
        /// What it begins with; see `Bind`. `None` is an empty folder.
        from: Option<String>,
        source: Option<String>,
        /// Of the folder itself when it is made: 0755, 0 and 0 when absent.
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        ro: bool,
    },
    /// An empty folder in memory, gone after the step.
    Tmpfs {
        /// Bytes at most.
        size: Option<u64>,
    },
    /// A secret of the build as a file, or in a variable, or both.
    Secret {
        id: String,
        /// Without the secret the step fails; else it runs without.
        required: bool,
        /// The variable.
        env: Option<String>,
        /// Of the file: 0400, 0 and 0 when absent.
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    /// The socket of an ssh agent.
    Ssh {
        /// `default` when nothing is said.
        id: String,
        required: bool,
        /// Of the socket: 0600, 0 and 0 when absent.
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    },
}

/// What happens when two steps want one cache at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// They use it together.
    #[default]
    Shared,
    /// The second gets one of its own.
    Private,
    /// The second waits.
    Locked,
}

/// Fills in the variables of a word, or says what is wrong with it.
pub(crate) type Expand<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Why a mount cannot be read: the message, and a hint.
pub(crate) type Refusal = (String, Option<String>);

fn refuse<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err((message.into(), None))
}

fn refuse_hint<T>(message: impl Into<String>, hint: impl Into<String>) -> Result<T, Refusal> {
    Err((message.into(), Some(hint.into())))
}

/// The fields as they are given, before it is clear what they are for.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: Option<bool>,
    id: Option<String>,
    sharing: Option<Sharing>,
    required: Option<bool>,
    size: Option<u64>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    env: Option<String>,
    /// Fields whose values wait for their variables.
    waiting: bool,
}

const KEYS: [&str; 18] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
];
const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

impl Mount {
    /// Read a mount as it is written. Values with variables are not looked at.
    pub(crate) fn read(text: &str) -> Result<Mount, Refusal> {
        let fields = Fields::read(text, None)?;
        fields.mount(text)
    }

    /// The mount with its variables filled in by `expand`, which says what is wrong with a
    /// word.
    pub(crate) fn expanded(&self, expand: Expand<'_>) -> Result<Mount, Refusal> {
        Fields::read(&self.text, Some(expand))?.mount(&self.text)
    }

    /// The mount with its cache, if it is one, told apart from those of other namespaces
    /// (`BUILDKIT_CACHE_MOUNT_NS`). An empty namespace is none.
    pub(crate) fn in_namespace(mut self, namespace: &str) -> Mount {
        if let (MountKind::Cache { id, .. }, false) = (&mut self.kind, namespace.is_empty()) {
            let name = id.as_deref().or(self.target.as_deref()).unwrap_or_default();
            *id = Some(format!("{namespace}/{}", name.trim_start_matches('/')));
        }
        self
    }

    /// The stage, image or context that the mount shows.
    pub(crate) fn from(&self) -> Option<&str> {
        match &self.kind {
            MountKind::Bind { from, .. } | MountKind::Cache { from, .. } => from.as_deref(),
            _ => None,
        }
    }
}

impl Fields {
    fn read(text: &str, expand: Option<Expand<'_>>) -> Result<Fields, Refusal> {
        let mut fields = Fields::default();
        let parts = split(text).map_err(|why| (format!("--mount={text}: {why}"), None))?;
        if parts.len() > FIELDS_MAX {
            return refuse(format!("a --mount has more than {FIELDS_MAX} fields"));
        }
        for part in &parts {
            let (key, value) = match part.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
                None => (part.to_ascii_lowercase(), None),
            };
            let owned;
            let value = match (value, expand) {
                (Some(value), Some(expand)) if key != "from" => {
                    owned = expand(value).map_err(|why| (format!("--mount {key}: {why}"), None))?;
                    Some(owned.as_str())
                }
                (Some(value), None) if key != "from" && value.contains('$') => {
                    fields.wait(&key, value)?;
                    continue;
                }
                (value, _) => value,
            };
            fields.set(&key, value, part)?;
        }
        Ok(fields)
    }

    /// Note a field whose value is not known yet.
    fn wait(&mut self, key: &str, value: &str) -> Result<(), Refusal> {
        if !KEYS.contains(&key) && key != "env" {
            return unknown(key);
        }
        self.waiting = true;
        let text = || Some(value.to_owned());
        match key {
            "target" | "dst" | "destination" => self.target = text(),
            "source" | "src" => self.source = text(),
            "id" => self.id = text(),
            "env" => self.env = text(),
            _ => {}
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: Option<&str>, part: &str) -> Result<(), Refusal> {
        match (key, value) {
            ("readonly" | "ro", value) => self.read_only = Some(truth(key, value)?),
            ("readwrite" | "rw", value) => self.read_only = Some(!truth(key, value)?),
            ("required", value) => self.required = Some(truth(key, value)?),
            (key, None) if KEYS.contains(&key) || key == "env" => {
                return refuse(format!("--mount field {part:?} needs a value: {key}=…"));
            }
            ("type", Some(value)) => self.kind = Some(value.to_ascii_lowercase()),
            ("from", Some(value)) => {
                if value.contains('$') {
                    return refuse_hint(
                        "--mount from= cannot have variables",
                        "name the image in a stage of its own, FROM ${IMAGE} AS <name>, and mount from that",
                    );
                }
                self.from = Some(value.to_owned());
            }
            ("source" | "src", Some(value)) => self.source = Some(value.to_owned()),
            ("target" | "dst" | "destination", Some(value)) => self.target = Some(value.to_owned()),
            ("id", Some(value)) => self.id = Some(value.to_owned()),
            ("env", Some(value)) => self.env = Some(value.to_owned()),
            ("sharing", Some(value)) => {
                self.sharing = Some(match value.to_ascii_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => {
                        return refuse_hint(
                            format!("--mount sharing={value} is unknown"),
                            "it is shared, private or locked",
                        );
                    }
                });
            }
            ("size", Some(value)) => match bytes(value) {
                Some(size) => self.size = Some(size),
                None => return refuse_hint(format!("--mount size={value} is not a size"), "write 64m or 1g"),
            },
            ("mode", Some(value)) => match u32::from_str_radix(value, 8) {
                Ok(mode) if mode <= 0o7777 => self.mode = Some(mode),
                _ => {
                    return refuse_hint(format!("--mount mode={value} is not a mode"), "write an octal number: 0755");
                }
            },
            ("uid" | "gid", Some(value)) => match value.parse::<u32>() {
                Ok(id) if id < u32::MAX => *(if key == "uid" { &mut self.uid } else { &mut self.gid }) = Some(id),
                _ => return refuse(format!("--mount {key}={value} is not a number from 0 up")),
            },
            (key, _) => return unknown(key),
        }
        Ok(())
    }

    fn mount(self, text: &str) -> Result<Mount, Refusal> {
        let name = self.kind.clone().unwrap_or_else(|| "bind".to_owned());
        let kind = match name.as_str() {
            "bind" => {
                self.only("bind", &["from", "source", "target", "rw"])?;
                MountKind::Bind {
                    from: self.from.clone(),
                    source: self.source.clone(),
                    rw: self.read_only == Some(false),
                }
            }
            "cache" => {
                self.only("cache", &["from", "source", "target", "rw", "id", "sharing", "owner"])?;
                MountKind::Cache {
                    id: self.id.clone().filter(|id| !id.is_empty()),
                    sharing: self.sharing.unwrap_or_default(),
                    from: self.from.clone(),
                    source: self.source.clone(),
                    mode: self.mode,
                    uid: self.uid,
                    gid: self.gid,
                    ro: self.read_only == Some(true),
                }
            }
            "tmpfs" => {
                self.only("tmpfs", &["target", "rw", "size"])?;
                MountKind::Tmpfs { size: self.size }
            }
            "secret" => {
                self.only("secret", &["source", "target", "rw", "id", "required", "owner", "env"])?;
                // What it is called: said outright, or the last part of where it goes.
                let named = self.source.clone().or(self.id.clone()).filter(|id| !id.is_empty());
                let last = |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or("").to_owned();
                let id = match (named, &self.target) {
                    (Some(id), _) => id,
                    (None, Some(target)) if !last(target).is_empty() => last(target),
                    _ if self.waiting => String::new(),
                    _ => return refuse_hint("--mount=type=secret needs an id or a target", "write id=<name>"),
                };
                MountKind::Secret {
                    id,
                    required: self.required.unwrap_or(false),
                    env: self.env.clone(),
                    mode: self.mode,
                    uid: self.uid,
                    gid: self.gid,
                }
            }
            "ssh" => {
                self.only("ssh", &["source", "target", "rw", "id", "required", "owner"])?;
                let named = self.source.clone().or(self.id.clone()).filter(|id| !id.is_empty());
                MountKind::Ssh {
                    id: named.unwrap_or_else(|| "default".to_owned()),
                    required: self.required.unwrap_or(false),
                    mode: self.mode,
                    uid: self.uid,
                    gid: self.gid,
                }
            }
            other => {
                let hint = match suggest(other, TYPES) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!("it is one of {}", TYPES.join(", ")),
                };
                return refuse_hint(format!("--mount type={other} is unknown"), hint);
            }
        };
        let target = self.target.filter(|target| !target.is_empty());
        let placed = matches!(name.as_str(), "bind" | "cache" | "tmpfs");
        match &target {
            None if placed && !self.waiting => {
                return refuse_hint(format!("--mount=type={name} needs a target"), "write target=<path>");
            }
            Some(target) if super::is_root(target) => {
                return refuse("a --mount cannot have the root folder as its target");
            }
            _ => {}
        }
        Ok(Mount { kind, target, text: text.to_owned() })
    }

    /// Refuse what a type of mount has no use for.
    fn only(&self, kind: &str, uses: &[&str]) -> Result<(), Refusal> {
        let given = [
            ("from", "from", self.from.is_some()),
            ("source", "source", self.source.is_some()),
            ("target", "target", self.target.is_some()),
            ("readonly", "rw", self.read_only.is_some()),
            ("id", "id", self.id.is_some()),
            ("sharing", "sharing", self.sharing.is_some()),
            ("required", "required", self.required.is_some()),
            ("size", "size", self.size.is_some()),
            ("mode", "owner", self.mode.is_some()),
            ("uid", "owner", self.uid.is_some()),
            ("gid", "owner", self.gid.is_some()),
            ("env", "env", self.env.is_some()),
        ];
        match given.iter().find(|(_, group, is)| *is && !uses.contains(group)) {
            Some((field, ..)) => refuse(format!("--mount=type={kind} has no field {field:?}")),
            None => Ok(()),
        }
    }
}

fn unknown<T>(key: &str) -> Result<T, Refusal> {
    match suggest(key, KEYS.into_iter().chain(["env"])) {
        Some(meant) => refuse_hint(format!("--mount has no field {key:?}"), format!("did you mean {meant}?")),
        None => refuse(format!("--mount has no field {key:?}")),
    }
}

fn truth(key: &str, value: Option<&str>) -> Result<bool, Refusal> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("true" | "1" | "t") => Ok(true),
        Some("false" | "0" | "f") => Ok(false),
        Some(other) => refuse(format!("--mount {key}={other} is neither true nor false")),
    }
}

/// A size in bytes: a number, with a fraction or not, and a unit or not; units are powers of
/// 1024 however they are written (`64m`, `64MB`, `64MiB`).
fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let number: f64 = lower[..digits].parse().ok()?;
    let shift = match lower[digits..].trim().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let size = number * (1u64 << shift) as f64;
    (size < 9e18).then_some(size as u64)
}

/// The fields of a CSV line: cut at commas outside double quotes; `""` in quotes is a quote.
fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let mut field = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                    Some('"') => break,
                    Some(c) => field.push(c),
                    None => return Err("a double quote has no matching one"),
                }
            }
            if !matches!(chars.peek(), None | Some(',')) {
                return Err("there is text after a quoted field");
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                field.push(c);
            }
        }
        fields.push(field);
        if chars.next().is_none() {
            return Ok(fields);
        }
    }
}
