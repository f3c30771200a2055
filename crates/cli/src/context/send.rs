//! Sending a folder: what the server lacks to ours, all of it to others.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use portolan_api::HttpClient;
use portolan_api::arm::SourceUpload;
use portolan_api::blobs::{BuildSketch, FileQuestions};

use super::parcel::{Parcel, hashes_path};
use super::progress::{Progress, human_bytes};
use super::{Pack, upload};
use crate::error::{Failure, Result};

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    /// Files of the context.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Files whose contents travelled.
    pub(crate) new_files: u64,
    /// Bytes on the wire.
    pub(crate) packed: u64,
    /// Whether something was left out because no instruction asks for it.
    pub(crate) partial: bool,
}

impl Sent {
    /// `12 files, 3.1 MiB; 2 new files, 14.0 KiB sent`
    pub(crate) fn sentence(&self) -> String {
        let (bytes, packed) = (human_bytes(self.bytes), human_bytes(self.packed));
        let which = if self.partial { "files that are needed" } else { "files" };
        format!("{} {which}, {bytes}; {} new, {packed} sent", self.files, self.new_files)
    }
}

/// Send a folder to a place for contexts. `sketch` is what the Dockerfile and the flags say,
/// by which the server tells what is needed; `None` sends all that is not ignored. `config` is
/// the folder of the profile.
pub(crate) async fn folder(
    http: &HttpClient,
    config: &Path,
    place: &SourceUpload,
    pack: Pack,
    sketch: Option<BuildSketch>,
    progress: &Arc<Progress>,
) -> Result<Sent> {
    let Some(url) = &place.files_url else { return whole(http, place, pack, progress).await };
    let questions = FileQuestions::new(http.clone(), url)?;
    let paths = match &sketch {
        Some(sketch) => questions.needs(sketch).await?,
        None => None,
    };
    let hashes = hashes_path(config, pack.root());
    let parcel = blocking({
        let progress = progress.clone();
        move || Parcel::new(pack, paths.as_deref(), &hashes, &progress)
    })
    .await?;
    let missing = match questions.missing(parcel.listing()).await {
        Ok(missing) => missing,
        // A listing as long as this would be is not taken: the archive is.
        Err(error) if error.status().is_some_and(|s| s == 413) => {
            return whole(http, place, parcel.into_pack(), progress).await;
        }
        Err(error) => return Err(error.into()),
    };
    let (files, bytes) = parcel.size();
    let partial = parcel.is_partial();
    let write = move |out: &mut dyn Write, progress: &Progress| parcel.write(&missing, out, progress);
    let (new_files, packed) = upload(http, &place.upload_url, progress, write).await?;
    Ok(Sent { files, bytes, new_files, packed, partial })
}

/// Send all of a folder as an archive.
async fn whole(http: &HttpClient, place: &SourceUpload, pack: Pack, progress: &Arc<Progress>) -> Result<Sent> {
    let write = move |out: &mut dyn Write, progress: &Progress| {
        if progress.is_shown() {
            // A second look at every file, so that the bar knows its end.
            progress.expect(pack.measure()?.bytes);
        }
        pack.write(out, progress)
    };
    let (done, packed) = upload(http, &place.upload_url, progress, write).await?;
    Ok(Sent { files: done.entries, bytes: done.bytes, new_files: done.entries, packed, partial: false })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Failure::new(format!("reading the build context broke off: {e}")))?
}
