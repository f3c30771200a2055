//! docker's flags as the server reads them ([`BuildOptions`]).
//!
//! Values keep docker's grammar: `key=value` pairs between commas, quoted as in CSV. Files of
//! secrets and keys are read here; only what they hold travels.

use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use portolan_api::arm::{BuildLabel, BuildOptions, BuildSecret, BuildSsh};
use portolan_types::Platform;

use super::BuildArgs;
use crate::error::{Failure, Result};

/// A secret's value; docker's figure.
const SECRET_BYTES_MAX: u64 = 500 * 1024;
/// A private key.
const KEY_BYTES_MAX: u64 = 64 * 1024;

/// What the flags come to.
#[derive(Debug)]
pub(super) struct Chosen {
    /// For the server.
    pub(super) options: BuildOptions,
    /// Agents here that answer for the build, by the name it has for them.
    pub(super) agents: Vec<(String, PathBuf)>,
    /// `--build-context`, as `NAME` and `SOURCE`.
    pub(super) contexts: Vec<(String, String)>,
}

/// Read all flags that become options.
pub(super) fn choose(args: &BuildArgs) -> Result<Chosen> {
    let mut options = BuildOptions { check: args.check, ..BuildOptions::default() };
    if args.platform.len() > 1 {
        options.platforms = platforms(&args.platform)?;
    }
    for text in &args.secret {
        let secret = secret(text)?;
        if options.secrets.iter().any(|s| s.id == secret.id) {
            return Err(Failure::usage(format!("--secret: there are two with the id {}", secret.id)));
        }
        options.secrets.push(secret);
    }
    let mut agents = Vec::new();
    for text in &args.ssh {
        let (entry, socket) = ssh(text)?;
        if options.ssh.iter().any(|s| s.id == entry.id) {
            return Err(Failure::usage(format!("--ssh: there are two with the name {}", entry.id)));
        }
        agents.extend(socket.map(|socket| (entry.id.clone(), socket)));
        options.ssh.push(entry);
    }
    let mut contexts = Vec::new();
    for text in &args.build_context {
        contexts.push(named("--build-context", text)?);
    }
    options.cache_from = args.cache_from.iter().map(|t| cache("--cache-from", t)).collect::<Result<_>>()?;
    options.cache_to = args.cache_to.iter().map(|t| cache("--cache-to", t)).collect::<Result<_>>()?;
    options.provenance = args.provenance.clone();
    options.sbom = args.sbom.clone();
    for text in &args.attest {
        attest(text, &mut options)?;
    }
    for text in &args.label {
        // As docker: a name alone is a label without a value.
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if name.is_empty() {
            return Err(Failure::usage(format!("--label {text}: write NAME=VALUE")));
        }
        options.labels.push(BuildLabel { name: name.into(), value: value.into() });
    }
    for text in &args.annotation {
        named("--annotation", text)?;
        options.annotations.push(text.clone());
    }
    options.source_date_epoch = epoch(args)?;
    Ok(Chosen { options, agents, contexts })
}

/// The value of `SOURCE_DATE_EPOCH` here, unless a build argument has it, as docker takes it.
fn epoch(args: &BuildArgs) -> Result<Option<u64>> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let given = args.build_arg.iter().any(|a| a.split('=').next() == Some(NAME));
    match std::env::var(NAME) {
        Ok(text) if !given && !text.is_empty() => match text.parse() {
            Ok(secs) => Ok(Some(secs)),
            Err(_) => Err(Failure::usage(format!("{NAME}={text}: it must be seconds since 1970"))),
        },
        _ => Ok(None),
    }
}

fn platforms(list: &[String]) -> Result<Vec<String>> {
    let mut read: Vec<Platform> = Vec::new();
    for text in list {
        let platform: Platform =
            text.parse().map_err(|e: portolan_types::InvalidName| Failure::usage(e.to_string()))?;
        // docker takes one that is named twice as one.
        if !read.contains(&platform) {
            read.push(platform);
        }
    }
    Ok(read.iter().map(Platform::to_string).collect())
}

/// `NAME=SOURCE`
fn named(flag: &str, text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("{flag} {text}: write NAME=VALUE"))),
    }
}

/// A cache: `type=…,…`, or an image's name alone, which is a registry's.
fn cache(flag: &str, text: &str) -> Result<String> {
    let fields = fields(flag, text)?;
    match fields.as_slice() {
        [(reference, None)] => Ok(format!("type=registry,ref={reference}")),
        _ if fields.iter().any(|(key, value)| key == "type" && value.is_some()) => Ok(text.to_owned()),
        _ => Err(Failure::usage(format!("{flag} {text}: write an image's name, or type=registry,ref=IMAGE"))),
    }
}

/// `type=provenance,…` and `type=sbom,…` are long forms of flags of their own.
fn attest(text: &str, options: &mut BuildOptions) -> Result<()> {
    let fields = fields("--attest", text)?;
    let get = |key: &str| fields.iter().find(|(k, _)| k == key).and_then(|(_, v)| v.as_deref());
    let rest: Vec<String> = fields
        .iter()
        .filter(|(key, _)| key != "type" && key != "disabled")
        .map(|(key, value)| value.as_ref().map_or(key.clone(), |v| format!("{key}={v}")))
        .collect();
    let value = match (get("disabled"), rest.is_empty()) {
        (Some("true"), _) => "false".to_owned(),
        (_, true) => "true".to_owned(),
        (_, false) => rest.join(","),
    };
    match get("type") {
        Some("provenance") => options.provenance = Some(value),
        Some("sbom") => options.sbom = Some(value),
        _ => return Err(Failure::usage(format!("--attest {text}: write type=provenance or type=sbom"))),
    }
    Ok(())
}

/// `id=NAME[,src=FILE|,env=VARIABLE]`, as docker reads it: without either it is the variable
/// of that name if there is one, else the file.
fn secret(text: &str) -> Result<BuildSecret> {
    let wrong = |why: &str| Failure::usage(format!("--secret: {why}; write id=NAME,src=FILE or id=NAME,env=VARIABLE"));
    let (mut id, mut kind, mut file, mut env) = (None, None, None, None);
    for (key, value) in fields("--secret", text)? {
        let value = value.ok_or_else(|| wrong("every part needs a value"))?;
        match key.to_ascii_lowercase().as_str() {
            "type" if value == "file" || value == "env" => kind = Some(value),
            "type" => return Err(wrong("the type is file or env")),
            "id" => id = Some(value),
            "source" | "src" => file = Some(value),
            "env" => env = Some(value),
            // Not repeated: it may be the secret itself.
            _ => return Err(wrong("there is a part that is none of id, src and env")),
        }
    }
    if kind.as_deref() == Some("env") && env.is_none() {
        env = file.take();
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| wrong("the id is missing"))?;
    if file.is_none() && env.is_none() {
        match std::env::var_os(&id) {
            Some(_) => env = Some(id.clone()),
            None => file = Some(id.clone()),
        }
    }
    let value = match (env, file) {
        (Some(name), _) => std::env::var_os(&name)
            .map(std::os::unix::ffi::OsStringExt::into_vec)
            .ok_or_else(|| Failure::new(format!("--secret id={id}: the variable {name} is not set")))?,
        (None, Some(path)) => read_limited(&format!("--secret id={id}"), Path::new(&path), SECRET_BYTES_MAX)?,
        (None, None) => Vec::new(),
    };
    if value.len() as u64 > SECRET_BYTES_MAX {
        return Err(Failure::new(format!("--secret id={id}: it is longer than {SECRET_BYTES_MAX} bytes")));
    }
    Ok(BuildSecret::new(id, &value))
}

/// `default`, `NAME`, `NAME=SOCKET`, `NAME=KEY[,KEY]`. The second answer is the socket of the
/// agent here that is to be asked.
fn ssh(text: &str) -> Result<(BuildSsh, Option<PathBuf>)> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { "default" } else { id };
    let paths: Vec<PathBuf> = paths.split(',').filter(|p| !p.is_empty()).map(home).collect();
    if paths.is_empty() {
        let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|s| !s.is_empty()).ok_or_else(|| {
            Failure::new(format!("--ssh {id}: no SSH agent runs here (SSH_AUTH_SOCK is not set)"))
                .hint(format!("start one (`eval $(ssh-agent)`, `ssh-add`), or give a key: --ssh {id}=FILE"))
        })?;
        return Ok((BuildSsh::forwarded(id), Some(socket.into())));
    }
    let mut keys = Vec::new();
    for path in &paths {
        let at = std::fs::metadata(path)
            .map_err(|e| Failure::new(format!("--ssh {id}: cannot read {}: {e}", path.display())))?;
        if at.file_type().is_socket() {
            if paths.len() > 1 {
                return Err(Failure::usage(format!("--ssh {id}: an agent's socket stands alone")));
            }
            return Ok((BuildSsh::forwarded(id), Some(path.clone())));
        }
        keys.push(read_limited(&format!("--ssh {id}"), path, KEY_BYTES_MAX)?);
    }
    Ok((BuildSsh::with_keys(id, keys.iter().map(Vec::as_slice)), None))
}

/// `~/…` as the shell has it, which does not look behind an equals sign.
fn home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.into(),
    }
}

fn read_limited(what: &str, path: &Path, max: u64) -> Result<Vec<u8>> {
    let cannot = |e: std::io::Error| Failure::new(format!("{what}: cannot read {}: {e}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(cannot)?.take(max + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > max {
        return Err(Failure::new(format!("{what}: {} is longer than {max} bytes", path.display())));
    }
    Ok(bytes)
}

/// One line of CSV whose fields are `key=value` or `key`.
fn fields(flag: &str, text: &str) -> Result<Vec<(String, Option<String>)>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().ok_or_else(|| Failure::usage(format!("{flag}: it is empty")))?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    if quoted {
        return Err(Failure::usage(format!("{flag}: a quote is not closed")));
    }
    let pair = |field: String| match field.split_once('=') {
        Some((key, value)) => (key.trim().to_owned(), Some(value.to_owned())),
        None => (field, None),
    };
    Ok(fields.into_iter().map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_csv() {
        let read = fields("--x", r#"type=registry,"ref=a,""b""",flag"#).unwrap();
        assert_eq!(read[1], ("ref".to_owned(), Some("a,\"b\"".to_owned())));
        assert_eq!(read[2], ("flag".to_owned(), None));
        assert!(fields("--x", "\"a").is_err());
    }

    #[test]
    fn caches_and_attestations() {
        assert_eq!(cache("--cache-from", "reg/app:cache").unwrap(), "type=registry,ref=reg/app:cache");
        assert_eq!(cache("--cache-to", "type=inline").unwrap(), "type=inline");
        assert!(cache("--cache-to", "mode=max,ref=a").is_err());
        let mut options = BuildOptions::default();
        attest("type=provenance,mode=max", &mut options).unwrap();
        attest("type=sbom", &mut options).unwrap();
        assert_eq!((options.provenance.as_deref(), options.sbom.as_deref()), (Some("mode=max"), Some("true")));
        attest("type=sbom,disabled=true", &mut options).unwrap();
        assert_eq!(options.sbom.as_deref(), Some("false"));
        assert!(attest("mode=max", &mut options).is_err());
    }

    #[test]
    fn secrets_come_from_files_and_variables() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, b"hu\0sh").unwrap();
        let read = secret(&format!("id=npm,src={}", file.display())).unwrap();
        assert_eq!(read, BuildSecret::new("npm", b"hu\0sh"));
        assert_eq!(secret("id=p,env=PATH").unwrap().id, "p");
        assert_eq!(secret("type=env,id=p,src=PATH").unwrap(), secret("id=p,env=PATH").unwrap());
        assert_eq!(secret("id=PATH").unwrap().id, "PATH");
        for bad in ["src=x", "id=a,hush=1", "id=a,type=x", "id", "id=a,env=PORTOLAN_TEST_NOT_SET"] {
            let failure = secret(bad).unwrap_err();
            assert!(!failure.message.contains("hush"), "{failure}");
        }
        let long = dir.path().join("long");
        std::fs::write(&long, vec![b'x'; SECRET_BYTES_MAX as usize + 1]).unwrap();
        assert!(secret(&format!("id=a,src={}", long.display())).is_err());
    }

    #[test]
    fn keys_and_agents() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, b"a key").unwrap();
        let (entry, socket) = ssh(&format!("git={}", key.display())).unwrap();
        assert_eq!((entry.keys.len(), entry.forward, socket), (1, false, None));
        let path = dir.path().join("agent");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let (entry, socket) = ssh(&format!("default={}", path.display())).unwrap();
        assert!(entry.forward && entry.keys.is_empty());
        assert_eq!(socket, Some(path.clone()));
        assert!(ssh(&format!("default={},{}", path.display(), key.display())).is_err());
        assert!(ssh("default=/does/not/exist").is_err());
    }

    #[test]
    fn platforms_are_each_named_once() {
        let list = |texts: &[&str]| platforms(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        assert_eq!(list(&["linux/amd64", "linux/arm64", "linux/amd64"]).unwrap(), ["linux/amd64", "linux/arm64"]);
        assert!(list(&["linux/amd64", "x y"]).is_err());
    }
}
