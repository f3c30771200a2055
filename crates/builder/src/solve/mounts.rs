//! `RUN --mount`: what a step is to see, and bringing it there.
//!
//! The life of a mount: evaluation makes a [`RunMount`] of it, with every default filled in;
//! the planner adds it to the step's key by what it says, never by a secret's value or what a
//! cache holds; before the step takes its turn the states of stages and images are waited for
//! and then its caches, in one order for all steps, so that steps cannot wait in a ring; then
//! everything is mounted, and what was written to a bind goes when the step has ended.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portolan_types::{Digest, Secret};

use super::eval::Step;
use super::key::Key;
use super::perform::Folder;
use super::plan::{StagePlan, copy_error};
use super::work::{Crew, State, Stop};
use crate::agent::Agent;
use crate::caches::{Hold, Owner};
use crate::copy::{CopyOpts, Plan, SelectOpts};
use crate::error::ErrorKind;
use crate::exec::StepMount;
use crate::fsys;
use crate::graph::Origin;
use crate::instruct::{Mount, MountKind, Sharing};
use crate::snapshot::{Active, Chain};

/// Where secrets are unless the mount says otherwise (Dockerfile reference).
const SECRETS_DIR: &str = "/run/secrets";
/// Where agents' sockets are, the number of the mount after it.
const AGENT_SOCKET: &str = "/run/buildkit/ssh_agent.";
/// Tells programs where the agent is.
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";
/// What a tmpfs without a size may hold.
const TMPFS_BYTES_MAX: u64 = 1 << 30;

/// A mount with every default filled in.
#[derive(Clone, Debug)]
pub(super) struct RunMount {
    /// Absolute; `None` for a secret that is only a variable.
    pub(super) target: Option<String>,
    pub(super) kind: RunMountKind,
}

#[derive(Clone, Debug)]
pub(super) enum RunMountKind {
    Bind {
        /// `None` is the context.
        from: Option<Origin>,
        /// A path in it.
        source: String,
        rw: bool,
    },
    Cache {
        id: String,
        sharing: Sharing,
        /// What it begins with; `None` is an empty folder.
        from: Option<Origin>,
        source: String,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        ro: bool,
    },
    Tmpfs {
        size: Option<u64>,
    },
    Secret {
        id: String,
        required: bool,
        env: Option<String>,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Ssh {
        id: String,
        required: bool,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

impl RunMount {
    /// What an expanded mount of a step amounts to. `absolute` makes a path of the step so,
    /// `origin` says what a `from` names; `agents` counts the step's sockets. The error is a
    /// sentence about the mount.
    pub(super) fn new<E: From<String>>(
        mount: &Mount,
        absolute: &dyn Fn(&str) -> String,
        origin: &dyn Fn(&str) -> Result<Origin, E>,
        agents: &mut usize,
    ) -> Result<RunMount, E> {
        let from = |from: &Option<String>| from.as_deref().map(origin).transpose();
        let source = |source: &Option<String>| source.clone().unwrap_or_else(|| "/".to_owned());
        let mut target = mount.target.as_deref().map(absolute);
        let needed = |target: &Option<String>| match target.as_deref() {
            None | Some("/") => Err(E::from(format!("--mount={} needs a target below the root folder", mount.text))),
            Some(_) => Ok(()),
        };
        let kind = match &mount.kind {
            MountKind::Bind { from: of, source: path, rw } => {
                needed(&target)?;
                RunMountKind::Bind { from: from(of)?, source: source(path), rw: *rw }
            }
            MountKind::Cache { id, sharing, from: of, source: path, mode, uid, gid, ro } => {
                needed(&target)?;
                RunMountKind::Cache {
                    id: id.clone().or_else(|| target.clone()).unwrap_or_default(),
                    sharing: *sharing,
                    from: from(of)?,
                    source: source(path),
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                    ro: *ro,
                }
            }
            MountKind::Tmpfs { size } => {
                needed(&target)?;
                RunMountKind::Tmpfs { size: *size }
            }
            MountKind::Secret { id, required, env, mode, uid, gid } => {
                let env = env.clone().filter(|env| !env.is_empty());
                if env.as_deref().is_some_and(|env| env.contains(['=', '\0'])) {
                    return Err(E::from(format!("--mount={}: env is the name of a variable", mount.text)));
                }
                let name = id.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                if target.is_none() && env.is_none() {
                    if matches!(name, "" | "." | "..") {
                        return Err(E::from(format!("--mount={} needs an id or a target", mount.text)));
                    }
                    target = Some(format!("{SECRETS_DIR}/{name}"));
                }
                RunMountKind::Secret {
                    id: id.clone(),
                    required: *required,
                    env,
                    mode: mode.unwrap_or(0o400),
                    uid: uid.unwrap_or(0),
                    gid: gid.unwrap_or(0),
                }
            }
            MountKind::Ssh { id, required, mode, uid, gid } => {
                target.get_or_insert_with(|| format!("{AGENT_SOCKET}{agents}"));
                *agents += 1;
                RunMountKind::Ssh {
                    id: id.clone(),
                    required: *required,
                    mode: mode.unwrap_or(0o600),
                    uid: uid.unwrap_or(0),
                    gid: gid.unwrap_or(0),
                }
            }
        };
        Ok(RunMount { target, kind })
    }

    /// The stage or image that it shows.
    pub(super) fn origin(&self) -> Option<&Origin> {
        match &self.kind {
            RunMountKind::Bind { from, .. } | RunMountKind::Cache { from, .. } => from.as_ref(),
            _ => None,
        }
    }

    /// Whether it shows files of the context, and which.
    pub(super) fn of_context(&self) -> Option<&str> {
        match &self.kind {
            RunMountKind::Bind { from: None, source, .. } => Some(source),
            _ => None,
        }
    }

    /// Add what it says to a step's key; `files` names what it shows of a stage, an image or
    /// the context. No secret's value is asked for, so none can get into a key.
    pub(super) fn add_to(&self, key: Key, files: Option<&Digest>) -> Key {
        let number = |key: Key, n: Option<u32>| key.option(n.map(|n| n.to_string()).as_deref());
        let key = key.option(self.target.as_deref());
        let key = match &self.kind {
            RunMountKind::Bind { source, rw, .. } => key.text("bind").text(source).flag(*rw),
            RunMountKind::Cache { id, sharing, source, mode, uid, gid, ro, .. } => {
                let key = key.text("cache").text(id).text(&format!("{sharing:?}")).text(source).flag(*ro);
                [*mode, *uid, *gid].into_iter().fold(key, number)
            }
            RunMountKind::Tmpfs { size } => key.text("tmpfs").option(size.map(|n| n.to_string()).as_deref()),
            RunMountKind::Secret { id, required, env, mode, uid, gid } => {
                let key = key.text("secret").text(id).flag(*required).option(env.as_deref());
                [*mode, *uid, *gid].into_iter().map(Some).fold(key, number)
            }
            RunMountKind::Ssh { id, required, mode, uid, gid } => {
                let key = key.text("ssh").text(id).flag(*required);
                [*mode, *uid, *gid].into_iter().map(Some).fold(key, number)
            }
        };
        match files {
            Some(files) => key.flag(true).digest(files),
            None => key.flag(false),
        }
    }

    /// What tells a cache from all others.
    fn cache_key(&self, tenant: &str, from: Option<&Digest>) -> Option<Digest> {
        let RunMountKind::Cache { id, source, mode, uid, gid, .. } = &self.kind else { return None };
        let number = |key: Key, n: Option<u32>| key.option(n.map(|n| n.to_string()).as_deref());
        let key = Key::new("cache mount").text(tenant).text(id);
        let key = [*mode, *uid, *gid].into_iter().fold(key, number);
        let key = match from {
            Some(from) => key.flag(true).digest(from).text(source),
            None => key.flag(false),
        };
        Some(key.finish())
    }
}

/// A step's mounts with what they wait for: states of other stages, and folders of caches.
#[derive(Default)]
pub(super) struct Ready {
    /// For each mount, the state that it shows.
    states: Vec<Option<State>>,
    /// For each mount, its cache. Two mounts of one cache have it together.
    caches: Vec<Option<Arc<Hold>>>,
}

impl Ready {
    /// Add what the mounts show to a key.
    pub(super) fn add_to(&self, key: Key) -> Key {
        self.states.iter().fold(key, |key, state| key.option(state.as_ref().map(|s| s.id.to_string()).as_deref()))
    }
}

/// A step's mounts, in place. Dropped when the step has ended.
#[derive(Default)]
pub(super) struct Mounted {
    pub(super) mounts: Vec<StepMount>,
    pub(super) secret_env: Vec<(String, Secret<String>)>,
    /// Variables that say where something is.
    pub(super) env: Vec<(String, String)>,
    /// Folders of the host's that the step can write to besides its root, each with the bytes
    /// that are in it.
    pub(super) written: Vec<(PathBuf, u64)>,
    // These are held for as long as the step runs; the agents end before their folders go.
    _agents: Vec<Agent>,
    _folders: Vec<Folder>,
    _actives: Vec<Active>,
    _caches: Vec<Arc<Hold>>,
}

impl Mounted {
    /// Why agents did not answer, each reason once.
    pub(super) fn troubles(&self) -> Vec<String> {
        let mut all: Vec<String> = self._agents.iter().flat_map(Agent::troubles).collect();
        all.dedup();
        all
    }
}

impl Crew<'_> {
    /// Wait for the stages and images that a step's mounts show. Holds no permit.
    pub(super) fn wait_for_states(&self, mounts: &[RunMount], plan: &StagePlan) -> Result<Ready, Stop> {
        let state = |mount: &RunMount| mount.origin().map(|origin| self.state_of(origin, plan)).transpose();
        Ok(Ready { states: mounts.iter().map(state).collect::<Result<_, Stop>>()?, caches: Vec::new() })
    }

    /// Wait for the caches of a step's mounts. Holds no permit.
    pub(super) fn take_caches(&self, step: &Step, mounts: &[RunMount], ready: &mut Ready) -> Result<(), Stop> {
        // One order for all steps.
        let tenant = &self.site.request.tenant;
        let mut wanted: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
        for (index, (mount, state)) in mounts.iter().zip(&ready.states).enumerate() {
            if let Some(key) = mount.cache_key(tenant, state.as_ref().map(|state| &state.id)) {
                wanted.entry(key).or_default().push(index);
            }
        }
        ready.caches = mounts.iter().map(|_| None).collect();
        for (key, indices) in wanted {
            let mut hold = None;
            for index in indices {
                if hold.is_none() {
                    let from = ready.states[index].as_ref().map(|state| &state.chain);
                    hold = Some(Arc::new(self.take_cache(step, &key, &mounts[index], from)?));
                }
                ready.caches[index].clone_from(&hold);
            }
        }
        Ok(())
    }

    fn take_cache(&self, step: &Step, key: &Digest, mount: &RunMount, from: Option<&Chain>) -> Result<Hold, Stop> {
        let RunMountKind::Cache { sharing, source, mode, uid, gid, .. } = &mount.kind else {
            return Err(self.refuse(step, "a cache was asked for where there is none"));
        };
        let owner = Owner { mode: mode.unwrap_or(0o755), uid: uid.unwrap_or(0), gid: gid.unwrap_or(0) };
        let engine = self.site.engine;
        let refused = parking_lot::Mutex::new(None);
        let fill = |path: &Path| -> std::io::Result<()> {
            let Some(chain) = from else { return Ok(()) };
            let active = engine.snapshots.begin(chain)?;
            let opts = CopyOpts { keep_owner: true, ..CopyOpts::default() };
            let sources = [format!("{}/", source.trim_end_matches('/'))];
            let copied = Plan::resolve(
                active.root(),
                &sources,
                &SelectOpts { cancel: Some(&self.stop), ..SelectOpts::default() },
            )
            .and_then(|plan| plan.apply(path, "/", "/", &opts, &self.stop));
            copied.map_err(|error| {
                *refused.lock() = Some(copy_error(self.site.source, step.span, error));
                std::io::Error::other("the cache cannot be filled")
            })
        };
        let taken = engine.caches.take(key, *sharing, owner, &self.stop, &fill);
        taken.map_err(|error| match refused.into_inner() {
            Some(error) if error.kind == ErrorKind::Cancelled => Stop::Elsewhere,
            Some(error) => Stop::Failed(error),
            None => self.machine("take a cache", &error),
        })
    }

    /// Bring everything to where it can be mounted. `plans` are what the mounts of the
    /// context show.
    pub(super) fn mount(
        &self,
        step: &Step,
        mounts: &[RunMount],
        plans: &[Option<(Digest, Plan)>],
        ready: Ready,
    ) -> Result<Mounted, Stop> {
        let mut out = Mounted::default();
        let request = self.site.request;
        let Ready { states, caches } = ready;
        for (index, mount) in mounts.iter().enumerate() {
            let target = mount.target.clone();
            match &mount.kind {
                RunMountKind::Bind { source, rw, from } => {
                    let state = states.get(index).and_then(Option::as_ref);
                    let plan = plans.get(index).and_then(Option::as_ref);
                    let (chain, source) = match (from, state, plan) {
                        (Some(_), Some(state), _) => (state.chain.clone(), source.clone()),
                        (None, _, Some((digest, plan))) => self.context_state(step, digest, plan)?,
                        _ => return Err(self.refuse(step, format!("there is nothing to mount from {source}"))),
                    };
                    let snapshots = &self.site.engine.snapshots;
                    let active = match &step.op {
                        super::eval::Op::Run(run) if run.insecure => snapshots.begin(&chain),
                        _ => snapshots.begin_for_step(&chain),
                    };
                    let active = active.map_err(|e| self.machine("mount the files to bind", &e))?;
                    let path = self.inside(step, &active, &source)?;
                    out.mounts.push(StepMount::Bind { source: path, target: named(target), writable: *rw });
                    if *rw {
                        out.written.push((active.upper(), 0));
                    }
                    out._actives.push(active);
                }
                RunMountKind::Cache { ro, .. } => {
                    let hold = caches.get(index).cloned().flatten();
                    let Some(hold) = hold else { return Err(self.refuse(step, "a cache was not taken")) };
                    out.mounts.push(StepMount::Bind { source: hold.path(), target: named(target), writable: !ro });
                    if !ro && !out._caches.iter().any(|held| held.path() == hold.path()) {
                        out.written.push((hold.path(), hold.bytes()));
                    }
                    out._caches.push(hold);
                }
                RunMountKind::Tmpfs { size } => {
                    let bytes_max = Some(size.unwrap_or(TMPFS_BYTES_MAX));
                    out.mounts.push(StepMount::Tmpfs { target: named(target), bytes_max });
                }
                RunMountKind::Secret { id, required, env, mode, uid, gid } => {
                    let Some(secret) = request.secrets.iter().rev().find(|secret| secret.id == *id) else {
                        if *required {
                            let hint =
                                format!("pass it with --secret id={id},src=<file> or --secret id={id},env=<name>");
                            return Err(self.refuse_hint(step, format!("the secret {id} was not given"), hint));
                        }
                        continue;
                    };
                    if let Some(env) = env {
                        let text = std::str::from_utf8(secret.value.expose()).ok().filter(|text| !text.contains('\0'));
                        let Some(text) = text else {
                            return Err(
                                self.refuse(step, format!("the secret {id} is no text, so it cannot be a variable"))
                            );
                        };
                        out.secret_env.push((env.clone(), Secret::new(text.to_owned())));
                    }
                    if let Some(target) = target {
                        let value = secret.value.clone();
                        out.mounts.push(StepMount::Secret { target, value, mode: *mode, uid: *uid, gid: *gid });
                    }
                }
                RunMountKind::Ssh { id, required, mode, uid, gid } => {
                    let Some(ssh) = request.ssh.iter().rev().find(|ssh| ssh.id == *id) else {
                        if *required {
                            let hint = format!("pass it with --ssh {id}");
                            return Err(self.refuse_hint(step, format!("the ssh agent {id} was not given"), hint));
                        }
                        continue;
                    };
                    let folder = self.folder()?;
                    let agent = Agent::start(folder.path(), ssh.agent.clone(), *mode, (*uid, *gid));
                    let agent = agent.map_err(|e| self.machine("open an agent's socket", &e))?;
                    let target = named(target);
                    if out.env.is_empty() {
                        out.env.push((AGENT_VARIABLE.to_owned(), target.clone()));
                    }
                    out.mounts.push(StepMount::Bind { source: agent.socket(), target, writable: true });
                    out._agents.push(agent);
                    out._folders.push(folder);
                }
            }
        }
        // What is inside another mount is mounted after it.
        out.mounts.sort_by_key(|mount| mount.target().split('/').filter(|part| !part.is_empty()).count());
        Ok(out)
    }

    /// The host's path of something in a state.
    fn inside(&self, step: &Step, active: &Active, source: &str) -> Result<std::path::PathBuf, Stop> {
        let root = active.fd().map_err(|e| self.machine("open the files to bind", &e))?;
        let found = fsys::resolve(root.as_fd(), Path::new(source)).and_then(|path| {
            // Links were followed; what is there now is what it is.
            fsys::open_in(root.as_fd(), &path, rustix::fs::OFlags::PATH).map(|_| path)
        });
        match found {
            Ok(path) if path.as_os_str().is_empty() => Ok(active.root().to_owned()),
            Ok(path) => Ok(active.root().join(path)),
            Err(error) if fsys::is_missing(&error) => Err(self.refuse(step, format!("{source} is not there to mount"))),
            Err(error) => Err(self.machine("look for the files to bind", &error)),
        }
    }

    /// A state that holds what a mount shows of the context, and where in it. Kept like any
    /// snapshot, so that the next step and the next build find it.
    fn context_state(&self, step: &Step, digest: &Digest, plan: &Plan) -> Result<(Chain, String), Stop> {
        let snapshots = &self.site.engine.snapshots;
        let source = plan.file_name().map_or_else(|| "/".to_owned(), |name| format!("/{}", name.to_string_lossy()));
        let name = Key::new("context").digest(digest).text(&source).finish();
        if let Some(chain) = snapshots.find(&name) {
            return Ok((chain, source));
        }
        let active = snapshots.begin(&Chain::empty()).map_err(|e| self.machine("mount the context's files", &e))?;
        let applied = plan.apply(active.root(), "/", "/", &CopyOpts::default(), &self.stop);
        applied.map_err(|error| match copy_error(self.site.source, step.span, error) {
            error if error.kind == ErrorKind::Cancelled => Stop::Elsewhere,
            error => Stop::Failed(error),
        })?;
        let chain = active.commit(&name).map_err(|e| self.machine("keep the context's files", &e))?;
        Ok((chain, source))
    }
}

/// Every mount but a variable has a target.
fn named(target: Option<String>) -> String {
    target.unwrap_or_default()
}
