//! What a run builds from: the packed context, read once as the hostile archive it may be,
//! and the Dockerfile in it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use portolan_builder::Cancel;
use portolan_builder::context::{Context, ContextError, ContextLimits};
use portolan_types::limits;

use super::run::Trouble;

/// A context ready to build.
pub(super) struct Source {
    pub(super) context: Context,
    pub(super) dockerfile: Vec<u8>,
    pub(super) dockerfile_name: String,
    pub(super) ignore: Option<String>,
}

/// Read the packed context. What is in its files goes to a file at `path`, which has no name
/// any more when this returns: it goes with the last who has it open.
pub(super) fn read_context(
    archive: Box<dyn Read + Send>,
    path: &Path,
    name: &str,
    stop: &Cancel,
) -> Result<Source, Trouble> {
    let server = |what: &str, e: std::io::Error| Trouble::Server(format!("{what}: {e}"));
    let contents = File::options().read(true).write(true).create(true).truncate(true).open(path);
    let contents = contents.map_err(|e| server("make a file for the build context", e))?;
    std::fs::remove_file(path).map_err(|e| server("make a file for the build context", e))?;
    let mut context = Context::read(archive, contents, &ContextLimits::default(), stop).map_err(|e| match e {
        ContextError::Refused(why) => Trouble::Order(why),
        ContextError::Cancelled => Trouble::Stopped,
        ContextError::Io(e) => server("read the build context", e),
    })?;
    let text = dockerfile(&context, name)?;
    let (mut shown, mut ignore) = (name, None);
    if let Some(original) = client_copy(name) {
        // The client's extra copy is not part of what was to be built: left in place, it
        // would be in every `COPY . .`, under another name each time.
        context.remove(name);
        shown = original;
        // Our own client sends the ignore file it went by beside its copy: the copy lies at
        // the root, wherever the Dockerfile and its own ignore file came from.
        let beside = format!("{name}.dockerignore");
        let limit = limits::DOCKERFILE_BYTES_MAX as u64;
        let patterns = context.file(Path::new(&beside), limit).map_err(|e| server("read the ignore file", e))?;
        if let Some(patterns) = patterns {
            context.remove(&beside);
            ignore = Some(String::from_utf8_lossy(&patterns).into_owned());
        }
    }
    Ok(Source { context, dockerfile: text, dockerfile_name: shown.to_owned(), ignore })
}

/// `Dockerfile` from `0123456789abcdef0123456789abcdef_Dockerfile`, the name under which
/// clients put a second copy of the Dockerfile at the root of the context.
fn client_copy(name: &str) -> Option<&str> {
    let (hex, original) = name.split_once('_')?;
    let is_hex = hex.len() == 32 && hex.bytes().all(|c| c.is_ascii_hexdigit());
    (is_hex && !original.is_empty() && !original.contains('/')).then_some(original)
}

/// The Dockerfile, which must be in the context.
fn dockerfile(context: &Context, name: &str) -> Result<Vec<u8>, Trouble> {
    let shown = client_copy(name).unwrap_or(name);
    let relative = Path::new(name.trim_start_matches("./"));
    let inside = relative.components().all(|c| matches!(c, std::path::Component::Normal(_)));
    if !inside {
        return Err(Trouble::Order(format!("the Dockerfile's path {shown} leads out of the build context")));
    }
    // A link in the context may point to another place in it, and nowhere else.
    let read = |limit| {
        let text = context.file(relative, limit);
        text.map_err(|e| Trouble::Server(format!("read {shown}: {e}")))
    };
    let limit = limits::DOCKERFILE_BYTES_MAX as u64;
    if let Some(text) = read(limit)? {
        return Ok(text);
    }
    Err(Trouble::Order(match context.holds_file(relative) {
        true => format!("{shown} is larger than {limit} bytes"),
        false => {
            format!("{shown} was not found in the build context; hint: name it with -f, relative to the context's root")
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_copy_of_the_dockerfile() {
        assert_eq!(client_copy("0123456789abcdef0123456789abcdef_Dockerfile"), Some("Dockerfile"));
        assert_eq!(client_copy("0123456789abcdef0123456789abcdef_my_file"), Some("my_file"));
        for name in ["Dockerfile", "_x", "0123_Dockerfile", "0123456789abcdef0123456789abcdef_", "a/b_c"] {
            assert_eq!(client_copy(name), None, "{name}");
        }
    }

    fn context(pack: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Context {
        let mut archive = tar::Builder::new(Vec::new());
        pack(&mut archive);
        let archive = archive.into_inner().unwrap();
        let file = tempfile::tempfile().unwrap();
        Context::read(&archive[..], file, &ContextLimits::default(), &Cancel::new()).unwrap()
    }

    fn file(archive: &mut tar::Builder<Vec<u8>>, path: &str, text: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, text).unwrap();
    }

    #[test]
    fn a_dockerfile_is_read_from_the_context_only() {
        let context = context(|archive| {
            file(archive, "sub/Dockerfile", b"FROM scratch\n");
            file(archive, "big", &vec![b' '; limits::DOCKERFILE_BYTES_MAX + 1]);
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            archive.append_link(&mut header, "link", "sub/Dockerfile").unwrap();
        });
        for good in ["sub/Dockerfile", "./sub/Dockerfile", "link"] {
            assert_eq!(dockerfile(&context, good).ok().unwrap(), b"FROM scratch\n", "{good}");
        }
        for bad in ["Dockerfile", "../outside", "/etc/passwd", "sub", "sub/../../outside"] {
            assert!(matches!(dockerfile(&context, bad), Err(Trouble::Order(_))), "{bad} was read");
        }
        assert!(matches!(dockerfile(&context, "big"), Err(Trouble::Order(why)) if why.contains("larger")));
    }
}
