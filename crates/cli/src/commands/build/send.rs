//! The source of a build: packed and sent, or named for the server to fetch.

use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::sync::Arc;

use portolan_api::arm::{BuildSource, DockerBuildRequest, RegistryRef};
use portolan_api::blobs::BuildSketch;
use portolan_types::limits;

use super::BuildArgs;
use crate::commands::Context;
use crate::context::progress::{Progress, human_bytes};
use crate::context::{Pack, Source, send, upload};
use crate::error::{Failure, Result};
use crate::session::Session;

/// Writes the packed context; answers how many entries it has.
type PackWork = Box<dyn FnOnce(&mut dyn Write, &Progress) -> Result<u64> + Send>;

/// Pack and send the source, or note its address. Answers the registry that took it.
pub(super) async fn source(
    ctx: &Context,
    session: &Session,
    args: &BuildArgs,
    request: &mut DockerBuildRequest,
) -> Result<RegistryRef> {
    let group = args.registry.resource_group.as_deref();
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let source = Source::of(&args.source);
    let work: PackWork = match source {
        Source::Remote(address) => {
            request.source_location = Some(address);
            request.docker_file_path = args.file.clone().unwrap_or_else(|| "Dockerfile".into());
            // Nothing is sent: only make sure that the registry is where we think it is.
            let at = session.with_registry(&args.registry.name, group, async |r| {
                session.arm.registry(r).await?;
                Ok(r.clone())
            });
            return at.await;
        }
        Source::Folder(folder) => {
            // Before anything is asked of the server: mistakes here are the most common.
            let pack = Pack::new(Path::new(&folder), args.file.as_deref(), &unique)?;
            request.docker_file_path = pack.dockerfile_path().to_owned();
            return self::folder(ctx, session, args, request, pack).await;
        }
        Source::Stdin => {
            let mut head = vec![0; 512];
            let length = read_full(&mut std::io::stdin(), &mut head)?;
            head.truncate(length);
            let rest = Cursor::new(head.clone()).chain(std::io::stdin());
            match StdinKind::of(&head) {
                StdinKind::Gzip => {
                    request.docker_file_path = args.file.clone().unwrap_or_else(|| "Dockerfile".into());
                    Box::new(move |out, progress| copy(rest, out, progress))
                }
                StdinKind::Tar => {
                    request.docker_file_path = args.file.clone().unwrap_or_else(|| "Dockerfile".into());
                    Box::new(move |out, progress| {
                        let mut gzip = flate2::write::GzEncoder::new(out, flate2::Compression::new(1));
                        copy(rest, &mut gzip, progress)?;
                        gzip.finish().map(|_| 0).map_err(Failure::from)
                    })
                }
                StdinKind::Dockerfile => {
                    let mut text = Vec::new();
                    rest.take(limits::DOCKERFILE_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
                    if text.len() > limits::DOCKERFILE_BYTES_MAX {
                        return Err(Failure::new("what came on stdin is neither a tar archive nor a Dockerfile"));
                    }
                    let pack = Pack::dockerfile_only(text, &unique);
                    request.docker_file_path = pack.dockerfile_path().to_owned();
                    Box::new(move |out, progress| Ok(pack.write(out, progress)?.entries))
                }
            }
        }
    };
    let place = session
        .with_registry(&args.registry.name, group, async |r| Ok((r.clone(), session.arm.source_upload(r).await?)));
    let (registry, place) = place.await?;
    let progress = Arc::new(Progress::files(&ctx.talk, "Sending the build context"));
    let sent = upload(session.http(), &place.upload_url, &progress, work).await;
    let (files, bytes) = progress.finish();
    let (_, sent) = sent?;
    let files = if files > 0 { format!("{files} files, ") } else { String::new() };
    if !args.quiet {
        let (bytes, sent) = (human_bytes(bytes), human_bytes(sent));
        ctx.talk.say(format_args!("Sent the build context: {files}{bytes}, packed {sent}"));
    }
    request.source_location = Some(place.relative_path);
    Ok(registry)
}

/// Send a folder, without what the server has.
async fn folder(
    ctx: &Context,
    session: &Session,
    args: &BuildArgs,
    request: &mut DockerBuildRequest,
    pack: Pack,
) -> Result<RegistryRef> {
    let group = args.registry.resource_group.as_deref();
    let place = session
        .with_registry(&args.registry.name, group, async |r| Ok((r.clone(), session.arm.source_upload(r).await?)));
    let (registry, place) = place.await?;
    let plain = request.arguments.iter().filter(|a| !a.is_secret);
    let sketch = BuildSketch {
        dockerfile: pack.dockerfile().to_vec(),
        target: request.target.clone(),
        build_args: plain.map(|a| (a.name.clone(), a.value.clone())).collect(),
        platform: None,
    };
    let progress = Arc::new(Progress::files(&ctx.talk, "Sending the build context"));
    let config = session.config().path();
    let sent = send::folder(session.http(), config, &place, pack, Some(sketch), &progress).await;
    progress.finish();
    let sent = sent?;
    if !args.quiet {
        ctx.talk.say(format_args!("Sent the build context: {}", sent.sentence()));
    }
    request.source_location = Some(place.relative_path);
    Ok(registry)
}

/// Send the folders among `--build-context NAME=SOURCE`; what the server fetches by itself stays
/// an address.
pub(super) async fn contexts(
    ctx: &Context,
    session: &Session,
    registry: &RegistryRef,
    named: &[(String, String)],
    quiet: bool,
) -> Result<Vec<BuildSource>> {
    let mut sources = Vec::new();
    for (name, text) in named {
        let source = match Source::of(text) {
            _ if text.starts_with("docker-image://") => text.clone(),
            _ if text.starts_with("oci-layout://") => {
                return Err(Failure::usage(format!("--build-context {name}: a layout cannot be sent"))
                    .hint("push it to the registry, and name it as docker-image://IMAGE"));
            }
            Source::Stdin => {
                return Err(Failure::usage(format!("--build-context {name}: only the build's own context can be -")));
            }
            Source::Remote(address) => address,
            Source::Folder(folder) => {
                let pack = Pack::folder(&folder)?;
                let place = session.arm.source_upload(registry).await?;
                let progress = Arc::new(Progress::files(&ctx.talk, "Sending a build context"));
                let sent = send::folder(session.http(), session.config().path(), &place, pack, None, &progress).await;
                progress.finish();
                let sent = sent?;
                if !quiet {
                    ctx.talk.say(format_args!("Sent the context {name}: {}", sent.sentence()));
                }
                place.relative_path
            }
        };
        sources.push(BuildSource { name: name.clone(), source });
    }
    Ok(sources)
}

/// What came on stdin.
enum StdinKind {
    Gzip,
    Tar,
    Dockerfile,
}

impl StdinKind {
    fn of(head: &[u8]) -> StdinKind {
        if head.starts_with(&[0x1f, 0x8b]) {
            StdinKind::Gzip
        } else if head.get(257..262) == Some(b"ustar") {
            StdinKind::Tar
        } else {
            StdinKind::Dockerfile
        }
    }
}

fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..])? {
            0 => break,
            n => length += n,
        }
    }
    Ok(length)
}

fn copy(mut from: impl Read, mut to: impl Write, progress: &Progress) -> Result<u64> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(0);
        }
        to.write_all(&buffer[..n])?;
        progress.add(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdin_is_told_by_its_head() {
        assert!(matches!(StdinKind::of(&[0x1f, 0x8b, 8]), StdinKind::Gzip));
        assert!(matches!(StdinKind::of(b"FROM scratch"), StdinKind::Dockerfile));
        let header = tar::Header::new_gnu();
        assert!(matches!(StdinKind::of(header.as_bytes()), StdinKind::Tar));
    }
}
