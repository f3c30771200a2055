//! Where a build's source is: here, or somewhere the server can fetch it from.

use std::path::PathBuf;

/// What stands at the end of `acr build`'s command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A folder here.
    Folder(PathBuf),
    /// A tar archive, gzip-packed or not, or a lone Dockerfile, on stdin.
    Stdin,
    /// A git repository, an archive's address or an OCI artifact: the server fetches it.
    Remote(String),
}

impl Source {
    /// Tell which. As in docker and az: what looks like an address is one, unless a folder
    /// of that very name is there.
    pub(crate) fn of(text: &str) -> Source {
        if text == "-" {
            return Source::Stdin;
        }
        let remote = ["https://", "http://", "git://", "git@", "ssh://", "oci://"];
        // `github.com/owner/repository`, docker's older form.
        if remote.iter().any(|scheme| text.starts_with(scheme))
            || (text.starts_with("github.com/") && !std::path::Path::new(text).exists())
        {
            return Source::Remote(text.to_owned());
        }
        Source::Folder(PathBuf::from(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        assert_eq!(Source::of("-"), Source::Stdin);
        for remote in [
            "https://github.com/yourusername/yourrepo.git#main:containers/flask-echo",
            "git@github.com:a/b.git",
            "oci://reg/art:v1",
            "github.com/a/b",
        ] {
            assert_eq!(Source::of(remote), Source::Remote(remote.into()));
        }
        for folder in [".", "./src", "/dev/null", "https"] {
            assert_eq!(Source::of(folder), Source::Folder(folder.into()));
        }
    }
}
