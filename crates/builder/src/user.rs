//! Who a step runs as and whom copied files belong to: names and numbers, looked up in the
//! image's own `/etc/passwd` and `/etc/group`, never in the host's.

use std::os::fd::AsFd;
use std::path::Path;

use crate::fsys;

/// The largest account file that is read; a larger one is as good as none.
const ACCOUNTS_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The largest id that docker takes.
const ID_MAX: u32 = i32::MAX as u32;

/// An account inside an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The primary group id.
    pub gid: u32,
    /// Supplementary group ids, without `gid`.
    pub groups: Vec<u32>,
    /// The home directory, `/` when the account is not in `/etc/passwd`.
    pub home: String,
}

impl User {
    /// User 0 of group 0, as when an image has no `USER`.
    pub fn root() -> User {
        User { uid: 0, gid: 0, groups: Vec::new(), home: "/root".to_owned() }
    }
}

/// What `USER spec` means in the image under `root`: `name`, `uid`, `name:group`,
/// `uid:gid` and their mixtures; an empty text is root. The error is a sentence.
///
/// A number need not be in the image's files; its group is then 0. Supplementary groups
/// count only when `spec` names no group; the primary group is always one of them, as in
/// docker since CVE-2022-36109: else a process could drop what its group forbids it.
pub fn lookup(root: &Path, spec: &str) -> Result<User, String> {
    let accounts = Accounts::read(root)?;
    let (user, group) = split(spec);
    let user = if user.is_empty() { "0" } else { user };
    let found = accounts.user(user);
    let mut result = match &found {
        Some(found) => User { uid: found.uid, gid: found.gid, groups: Vec::new(), home: found.home.to_owned() },
        None => {
            let uid = number(user)?
                .ok_or_else(|| format!("unable to find user {user}: no matching entries in passwd file"))?;
            User { uid, gid: 0, groups: Vec::new(), home: "/".to_owned() }
        }
    };
    match (group, found) {
        (Some(group), _) => result.gid = accounts.gid(group)?,
        (None, Some(found)) => {
            result.groups = accounts
                .groups()
                .filter(|group| group.members.split(',').any(|name| name == found.name))
                .map(|group| group.gid)
                .collect();
        }
        (None, None) => {}
    }
    result.groups.push(result.gid);
    result.groups.sort_unstable();
    result.groups.dedup();
    if result.home.is_empty() {
        result.home = "/".to_owned();
    }
    Ok(result)
}

/// What `COPY --chown=spec` means in the image under `root`: `(uid, gid)`. Unlike
/// [`lookup`], a lone number stands for the group as well. The error is a sentence.
pub fn lookup_owner(root: &Path, spec: &str) -> Result<(u32, u32), String> {
    let accounts = Accounts::read(root)?;
    let (user, group) = split(spec);
    let (uid, gid) = match number(user)? {
        Some(uid) => (uid, uid),
        None if user.is_empty() => (0, 0),
        None => match accounts.user(user) {
            Some(found) => (found.uid, found.gid),
            None => return Err(format!("unable to find user {user}: no matching entries in passwd file")),
        },
    };
    Ok((uid, group.map_or(Ok(gid), |group| accounts.gid(group))?))
}

/// The user and, where there is one, the group of a `user:group` text.
fn split(spec: &str) -> (&str, Option<&str>) {
    match spec.split_once(':') {
        Some((user, "")) => (user, None),
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    }
}

/// The number a text is, if it is one.
fn number(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(id) if id <= ID_MAX => Ok(Some(id)),
        _ => Err(format!("{text} is no user or group: ids go from 0 to {ID_MAX}")),
    }
}

struct Accounts {
    passwd: String,
    group: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl Accounts {
    fn read(root: &Path) -> Result<Accounts, String> {
        let failed = |error: std::io::Error| format!("read the image's accounts: {error}");
        let root = fsys::open_root(root).map_err(failed)?;
        let text = |path: &str| -> Result<String, String> {
            let bytes = fsys::read_in(root.as_fd(), Path::new(path), ACCOUNTS_BYTES_MAX).map_err(failed)?;
            Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
        };
        Ok(Accounts { passwd: text("etc/passwd")?, group: text("etc/group")? })
    }

    /// The first account with this name or number.
    fn user(&self, text: &str) -> Option<Account<'_>> {
        self.passwd
            .lines()
            .filter_map(|line| {
                let mut fields = line.trim().split(':');
                let (name, _) = (fields.next()?, fields.next()?);
                let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
                Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
            })
            .find(|account| account.name == text || account.uid.to_string() == text)
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let (name, _) = (fields.next()?, fields.next()?);
            Some(Group { name, gid: fields.next()?.parse().ok()?, members: fields.next().unwrap_or_default() })
        })
    }

    fn gid(&self, text: &str) -> Result<u32, String> {
        match self.groups().find(|group| group.name == text || group.gid.to_string() == text) {
            Some(group) => Ok(group.gid),
            None => {
                number(text)?.ok_or_else(|| format!("unable to find group {text}: no matching entries in group file"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let user = |uid, gid, groups: &[u32], home: &str| {
            Ok(User { uid, gid, groups: groups.to_vec(), home: home.to_owned() })
        };
        assert_eq!(lookup(root.path(), ""), user(0, 0, &[0], "/"));
        std::fs::write(
            root.path().join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\n# x\nbroken\napp:x:1000:1001:::\n7:x:8:9::/seven:\n",
        )
        .unwrap();
        std::fs::write(
            root.path().join("etc/group"),
            "root:x:0:app\napp:x:1001:\nwheel:x:10:root,app\nvideo:x:44:app,x\n",
        )
        .unwrap();
        assert_eq!(lookup(root.path(), ""), user(0, 0, &[0, 10], "/root"));
        assert_eq!(lookup(root.path(), "app"), user(1000, 1001, &[0, 10, 44, 1001], "/"));
        assert_eq!(lookup(root.path(), "1000"), lookup(root.path(), "app"));
        assert_eq!(lookup(root.path(), "app:wheel"), user(1000, 10, &[10], "/"));
        assert_eq!(lookup(root.path(), "app:"), lookup(root.path(), "app"));
        assert_eq!(lookup(root.path(), "5000:6000"), user(5000, 6000, &[6000], "/"));
        assert_eq!(lookup(root.path(), "5000"), user(5000, 0, &[0], "/"));
        assert_eq!(lookup(root.path(), "7"), user(8, 9, &[9], "/seven"));
        assert!(lookup(root.path(), "nobody").unwrap_err().contains("unable to find user nobody"));
        assert!(lookup(root.path(), "app:nothing").unwrap_err().contains("unable to find group nothing"));
        assert!(lookup(root.path(), "4000000000").is_err());
        assert_eq!(lookup_owner(root.path(), "app"), Ok((1000, 1001)));
        assert_eq!(lookup_owner(root.path(), "55"), Ok((55, 55)));
        assert_eq!(lookup_owner(root.path(), "55:video"), Ok((55, 44)));
        assert_eq!(lookup_owner(root.path(), ":wheel"), Ok((0, 10)));
        assert!(lookup_owner(root.path(), "who").is_err());
    }
}
