//! Addresses that a context or an `ADD` source may have: a git repository or a file.
//!
//! As in BuildKit: an `http` or `https` address is a repository when its path ends in `.git`;
//! `git@host:path`, `git://`, `ssh://`, `file://` and `github.com/owner/name` are too. What is to be checked
//! out is in the fragment, `#branch-or-tag-or-commit:folder`, or in the query,
//! `?branch=…&tag=…&ref=…&commit=…&subdir=…&submodules=false`.

use std::fmt;

/// A longer address is none.
const ADDRESS_BYTES_MAX: usize = 8 * 1024;
/// Hosts where owner and name are enough to know a repository.
const FORGES: [&str; 3] = ["github.com", "gitlab.com", "bitbucket.org"];

/// Something to fetch.
#[derive(Clone, PartialEq, Eq)]
pub enum Remote {
    /// A git repository.
    Git(GitSource),
    /// A file, by its `http` or `https` address.
    File(String),
}

/// What to check out of which repository. The address may hold a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct GitSource {
    /// The repository, without fragment and query.
    pub url: String,
    /// A branch, a tag, a full reference or a commit; the repository's usual branch when
    /// absent.
    pub reference: Option<String>,
    /// The folder of the repository that counts.
    pub subdir: Option<String>,
    /// The commit it must be, or how that begins.
    pub commit: Option<String>,
    /// Leave submodules out.
    pub no_submodules: bool,
}

/// The address cannot be used; why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRemote(String);

impl Remote {
    /// Read the source of an `ADD`. `None` when it is no address.
    pub fn of_add(text: &str) -> Result<Option<Remote>, InvalidRemote> {
        read(text, false)
    }

    /// Read a context, which may also be a repository's page at a well-known place.
    pub fn of_context(text: &str) -> Result<Option<Remote>, InvalidRemote> {
        read(text, true)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remote::Git(git) => git.fmt(f),
            Remote::File(url) => f.write_str(&without_password(url)),
        }
    }
}

impl fmt::Debug for GitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl GitSource {
    /// The address as it may be shown: without a user and a password in it.
    pub fn shown(&self) -> String {
        let mut text = without_password(&self.url);
        if self.reference.is_some() || self.subdir.is_some() {
            text.push('#');
            text.push_str(self.reference.as_deref().unwrap_or_default());
        }
        if let Some(subdir) = &self.subdir {
            text.push(':');
            text.push_str(subdir);
        }
        text
    }
}

/// An address without the user and password before its host, and without its query, in which
/// signatures travel.
pub fn without_password(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = plain.split_once("://") else { return plain.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    format!("{scheme}://{}{path}", host.rsplit_once('@').map_or(host, |(_, host)| host))
}

fn invalid<T>(why: impl Into<String>) -> Result<T, InvalidRemote> {
    Err(InvalidRemote(why.into()))
}

fn read(text: &str, context: bool) -> Result<Option<Remote>, InvalidRemote> {
    let lower = text.to_ascii_lowercase();
    let web = lower.starts_with("http://") || lower.starts_with("https://");
    let transport = ["git://", "ssh://", "file://"].iter().any(|scheme| lower.starts_with(scheme));
    let scp = text.starts_with("git@");
    let forge = lower.starts_with("github.com/");
    if !(web || transport || scp || forge) {
        return Ok(None);
    }
    if text.len() > ADDRESS_BYTES_MAX || text.bytes().any(|c| c <= b' ' || c == 0x7f) {
        return invalid("the address is too long, or has characters that no address has");
    }
    let (rest, fragment) = text.split_once('#').map_or((text, None), |(rest, fragment)| (rest, Some(fragment)));
    let (url, query) = rest.split_once('?').map_or((rest, None), |(url, query)| (url, Some(query)));
    if web && !(is_repository(url) || (context && is_forge_page(url))) {
        // Servers never see the fragment.
        return Ok(Some(Remote::File(rest.to_owned())));
    }
    let mut git =
        GitSource { url: if forge { format!("https://{url}") } else { url.to_owned() }, ..GitSource::default() };
    if let Some(query) = query {
        git.read_query(query)?;
    }
    if let Some(fragment) = fragment.filter(|f| !f.is_empty()) {
        if query.is_some() {
            return invalid(
                "what to check out is either in the fragment (#branch:folder) or in the query, not in both",
            );
        }
        let (reference, subdir) = fragment.split_once(':').map_or((fragment, None), |(r, s)| (r, Some(s)));
        git.reference = Some(reference.to_owned()).filter(|r| !r.is_empty());
        git.subdir = subdir.filter(|s| !s.is_empty()).map(str::to_owned);
    }
    git.check()?;
    Ok(Some(Remote::Git(git)))
}

/// Whether the path of an address says that it is a repository.
fn is_repository(url: &str) -> bool {
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    // Azure DevOps: https://dev.azure.com/owner/project/_git/name
    path.trim_end_matches('/').ends_with(".git") || format!("/{path}").contains("/_git/")
}

fn is_forge_page(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let mut parts = rest.trim_end_matches('/').split('/');
    let host = parts.next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host).to_ascii_lowercase();
    FORGES.contains(&host.trim_start_matches("www.")) && parts.count() == 2
}

impl GitSource {
    fn read_query(&mut self, query: &str) -> Result<(), InvalidRemote> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value);
            match name {
                "ref" | "branch" | "tag" => {
                    let full = match name {
                        "branch" => format!("refs/heads/{value}"),
                        "tag" => format!("refs/tags/{value}"),
                        _ => value,
                    };
                    if self.reference.replace(full).is_some() {
                        return invalid("the query names more than one of ref, branch and tag");
                    }
                }
                "commit" | "checksum" => self.commit = Some(value).filter(|v| !v.is_empty()),
                "subdir" => self.subdir = Some(value).filter(|v| !v.is_empty()),
                "submodules" => self.no_submodules = matches!(value.as_str(), "0" | "false"),
                // Whether .git is kept is for the instruction, or the build, to say.
                "keep-git-dir" => {}
                other => {
                    return invalid(format!(
                        "the query of a repository's address has no {other:?}; it has branch, tag, ref, commit, subdir \
                         and submodules"
                    ));
                }
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), InvalidRemote> {
        if let Some(reference) = &self.reference {
            // git's own rules, and nothing that a command line takes for a flag.
            let bad = reference.starts_with(['-', '/', '.'])
                || reference.ends_with(['/', '.'])
                || reference.contains("..")
                || reference.contains("@{")
                || reference
                    .bytes()
                    .any(|c| c <= b' ' || matches!(c, 0x7f | b'~' | b'^' | b':' | b'?' | b'*' | b'[' | b'\\'));
            if bad {
                return invalid(format!("{:?} is no branch, tag or commit", reference.escape_debug().to_string()));
            }
        }
        if let Some(commit) = &self.commit
            && !((7..=64).contains(&commit.len()) && commit.bytes().all(|c| c.is_ascii_hexdigit()))
        {
            return invalid("the commit must be 7 to 64 hexadecimal digits");
        }
        if self.subdir.as_deref().is_some_and(|s| s.split('/').any(|part| part == "..") || s.contains('\0')) {
            return invalid("the folder leads out of the repository");
        }
        if self.url.starts_with('-') || self.url.contains("::") && !self.url.contains('[') {
            return invalid("the address is none that can be fetched from");
        }
        Ok(())
    }

    /// Whether the reference is a whole commit id.
    pub fn names_commit(&self) -> Option<&str> {
        let whole = |r: &&str| matches!(r.len(), 40 | 64) && r.bytes().all(|c| c.is_ascii_hexdigit());
        self.reference.as_deref().filter(whole).or(self.commit.as_deref().filter(whole))
    }
}

/// Percent-decoding; what is damaged stays as it is.
fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(text: &str) -> (String, Option<String>, Option<String>) {
        match Remote::of_context(text) {
            Ok(Some(Remote::Git(git))) => (git.url, git.reference, git.subdir),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn repositories() {
        let repo = "https://github.com/a/b.git";
        assert_eq!(git(repo), (repo.into(), None, None));
        assert_eq!(git(&format!("{repo}#main:src/app")), (repo.into(), some("main"), some("src/app")));
        assert_eq!(git(&format!("{repo}#:src")), (repo.into(), None, some("src")));
        assert_eq!(git(&format!("{repo}#refs/pull/7/head")), (repo.into(), some("refs/pull/7/head"), None));
        let query = format!("{repo}?branch=feature%2Fx&subdir=src");
        assert_eq!(git(&query), (repo.into(), some("refs/heads/feature/x"), some("src")));
        assert_eq!(git("github.com/a/b#v1"), ("https://github.com/a/b".into(), some("v1"), None));
        assert_eq!(git("https://github.com/a/b#v1").1, some("v1"));
        assert_eq!(git("git@github.com:a/b.git#main"), ("git@github.com:a/b.git".into(), some("main"), None));
        assert_eq!(git("file:///srv/repo#main").0, "file:///srv/repo");
        assert_eq!(git("https://dev.azure.com/o/p/_git/name#main:src").2, some("src"));
    }

    #[test]
    fn files_and_folders() {
        let file = |text: &str| matches!(Remote::of_context(text), Ok(Some(Remote::File(_))));
        assert!(file("https://example.com/context.tar.gz") && file("http://example.com/Dockerfile?x=1#y"));
        assert!(matches!(Remote::of_add("https://github.com/a/b"), Ok(Some(Remote::File(_)))));
        for folder in [".", "./src", "/abs", "src/main.git", "ftp://h/x"] {
            assert_eq!(Remote::of_add(folder), Ok(None), "{folder}");
        }
    }

    #[test]
    fn what_is_refused() {
        for bad in [
            "https://h/r.git#--upload-pack=x",
            "https://h/r.git#a..b",
            "https://h/r.git#main:../../etc",
            "https://h/r.git#a b",
            "https://h/r.git?branch=a&tag=b",
            "https://h/r.git?nonsense=1",
            "https://h/r.git?branch=a#b",
            "https://h/r.git?branch=-x\u{1}",
            "https://h/r.git?commit=xyz",
            "git@host::ext",
        ] {
            assert!(Remote::of_add(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        let Ok(Some(remote)) = Remote::of_context("https://user:hush@h.example/r.git#main:src") else { panic!() };
        assert_eq!(format!("{remote:?}"), "https://h.example/r.git#main:src");
        assert_eq!(without_password("https://u:p@h:1/x?sig=hush#y"), "https://h:1/x");
    }
}
