//! A server without root: builds for an unprivileged user.
//!
//! Such a server moves into a user namespace of its own before it does anything else: its
//! user is root there, and the user's *subordinate ids* (`/etc/subuid`, `/etc/subgid`) are the
//! other ids. Everything then works as for root, within the namespace: overlays (which keep
//! their marks in other attributes there), chowning, steps. Only root may hand out subordinate
//! ids, so `newuidmap` and `newgidmap` do it, run by a helper that stays outside. Without such
//! ids there is one: images work whose files are all root's, others are refused with the
//! reason.
//!
//! Steps get a user namespace below the server's, with the same ids ([`crate::UserNs`]).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::thread::UnshareFlags;

use crate::exec::{Order, Report, become_root, receive, send, unshare};

/// Subordinate ids of one user that are looked at: ranges.
const RANGES_MAX: usize = 10;

/// Where an unprivileged process went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rootless {
    /// Into a namespace with this many ids.
    Ids(u64),
    /// Into one with its own id alone; the reason is said by [`enter`]'s caller.
    OneId,
}

/// Move this process, which is not root and has one thread, into a user namespace in which it
/// is. `None`: it is root. The error is a sentence: the process is where it was, and cannot
/// build.
pub fn enter(step_command: &[OsString]) -> Result<Option<Rootless>, String> {
    if rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    enter_as_user(step_command).map(Some).map_err(|error| {
        format!(
            "an unprivileged user cannot build here: {error}; hint: the kernel must allow user namespaces to everybody \
             (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns)"
        )
    })
}

fn enter_as_user(step_command: &[OsString]) -> io::Result<Rootless> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (mine, helpers) = UnixStream::pair()?;
    let (program, args) = step_command.split_first().ok_or_else(|| io::Error::other("there is no step command"))?;
    // Before the namespace is made: the tools that it starts must be outside.
    let mut helper = Command::new(program)
        .args(args)
        .stdin(OwnedFd::from(helpers))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let entered = unshare(UnshareFlags::NEWNS).and_then(|()| {
        send(&mine, &Order::Map { pid: std::process::id(), uid, gid }, &[])?;
        match receive::<Report>(&mine)? {
            Some((Report::Mapped(count), _)) => Ok(Rootless::Ids(count)),
            _ => {
                // One's own id is everybody's to map, when no groups can be dropped by it.
                fs::write("/proc/self/setgroups", "deny")?;
                fs::write("/proc/self/uid_map", format!("0 {uid} 1\n"))?;
                fs::write("/proc/self/gid_map", format!("0 {gid} 1\n"))?;
                Ok(Rootless::OneId)
            }
        }
    });
    drop(mine);
    let _ = helper.wait();
    let entered = entered?;
    become_root()?;
    Ok(entered)
}

/// In the helper: give a process its user's subordinate ids; how many there are then.
pub(crate) fn map(pid: u32, uid: u32, gid: u32) -> Result<u64, String> {
    let users = user_names(uid);
    let mut least = u64::MAX;
    for (tool, file, own) in [("newuidmap", "/etc/subuid", uid), ("newgidmap", "/etc/subgid", gid)] {
        let text = fs::read_to_string(file).map_err(|error| format!("read {file}: {error}"))?;
        let ranges = ranges(&text, &users);
        if ranges.is_empty() {
            return Err(format!("{file} has no ids for this user"));
        }
        let mut words = vec![pid.to_string(), "0".to_owned(), own.to_string(), "1".to_owned()];
        let mut next = 1u64;
        for (first, count) in ranges {
            words.extend([next.to_string(), first.to_string(), count.to_string()]);
            next += count;
        }
        let done = Command::new(tool).args(&words).stdin(Stdio::null()).status();
        match done {
            Ok(status) if status.success() => least = least.min(next),
            Ok(status) => return Err(format!("{tool}: {status}")),
            Err(error) => return Err(format!("start {tool}: {error} (Debian and Ubuntu: apt-get install uidmap)")),
        }
    }
    Ok(least)
}

/// What a user may be called in a file of subordinate ids.
fn user_names(uid: u32) -> Vec<String> {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let id = uid.to_string();
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    name.into_iter().chain([id]).collect()
}

/// The ranges of a user: first id, how many. Source: subuid(5).
fn ranges(text: &str, users: &[String]) -> Vec<(u64, u64)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let user = fields.next()?;
            let (first, count) = (fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
            (users.iter().any(|name| name == user) && count > 0).then_some((u64::from(first), u64::from(count)))
        })
        .take(RANGES_MAX)
        .collect()
}

/// Whether this process is in a user namespace other than the machine's first.
pub(crate) fn in_user_namespace() -> bool {
    static IN: OnceLock<bool> = OnceLock::new();
    *IN.get_or_init(|| fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !crate::exec::is_whole(&map)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_found_by_name_and_number() {
        let text = "other:1:2\nbuilder:100000:65536\n1000:300000:10\nbuilder:bad:1\nbuilder:7:0\n";
        let users = ["builder".to_owned(), "1000".to_owned()];
        assert_eq!(ranges(text, &users), [(100_000, 65_536), (300_000, 10)]);
        assert!(ranges("", &users).is_empty());
        assert_eq!(user_names(0).first().map(String::as_str), Some("root"));
    }
}
