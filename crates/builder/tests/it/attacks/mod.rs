//! Steps that try to get out. Each test plays the attacker twice: against the protection,
//! and without it, so that a test which could not fail would show. And each plays against
//! both executors.
//!
//! Attackers are written in Perl, which every Debian has: the host's `/usr` is mounted into
//! their steps.

mod calls;
mod ids;
mod reach;

use portolan_builder::exec::{StepMount, StepSpec};
use portolan_builder::{Cancel, user::User};

use crate::support::{Lab, step};

/// The other executor.
const RUNC: &str = "/usr/sbin/runc";

/// One lab for each executor, set up by `with`.
fn labs(userns: bool, with: impl Fn(&mut Lab)) -> Vec<(&'static str, Lab)> {
    let mut labs = vec![("built in", Lab::with(userns)), ("runc", Lab::with(userns))];
    assert!(std::path::Path::new(RUNC).exists(), "tests need runc: apt-get install runc");
    labs[1].1.config.runtime = Some(RUNC.into());
    labs.iter_mut().for_each(|(_, lab)| with(lab));
    labs
}

/// Run Perl as `user` in a throw-away state; what it printed.
fn perl(lab: &Lab, user: User, script: &str, with: impl FnOnce(&mut StepSpec<'_>)) -> String {
    let active = lab.store.begin_for_step(&lab.base).unwrap();
    let mut spec = step(active.root(), "");
    spec.argv = ["/usr/bin/perl", "-e", script].map(str::to_owned).to_vec();
    spec.user = user;
    spec.mounts = host_programs();
    with(&mut spec);
    let (exit, output) = lab.run(&spec, &Cancel::new());
    assert_eq!(exit.unwrap().code, 0, "{output}");
    output
}

/// The host's programs and what they need.
fn host_programs() -> Vec<StepMount> {
    ["/usr", "/lib", "/lib64"]
        .into_iter()
        .filter_map(|target| {
            let source = std::fs::canonicalize(target).ok()?;
            Some(StepMount::Bind { source, target: target.to_owned(), writable: false })
        })
        .collect()
}

fn nobody() -> User {
    User { uid: 1000, gid: 1001, groups: Vec::new(), home: "/".to_owned() }
}
