//! What is known of a build that succeeded: `--quiet`, `--iidfile`, `--metadata-file`.

use std::path::Path;

use serde_json::{Value, json};

use super::BuildArgs;
use crate::error::{Failure, Result};
use crate::log::Seen;

/// Whether anything about the result is to be written.
pub(super) fn is_wanted(args: &BuildArgs) -> bool {
    args.quiet || args.iidfile.is_some() || args.metadata_file.is_some()
}

/// Write the files that were asked for. Answers the digest to print: the pushed image's, or the
/// built one's. `run` is the run as the server has it, `seen` what its log said.
pub(super) fn write(args: &BuildArgs, run: &Value, seen: &Seen) -> Result<Option<String>> {
    let stored = run.pointer("/properties/outputImages").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |image: &Value, name: &str| image.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let digest = stored.first().map(|i| text(i, "digest")).or_else(|| seen.manifest.clone());
    // As docker: the configuration's digest, where one image has one.
    let id = seen.config.clone().or_else(|| digest.clone());
    if let (Some(file), Some(id)) = (&args.iidfile, &id) {
        save(file, id)?;
    }
    if let Some(file) = &args.metadata_file {
        let names: Vec<String> = stored
            .iter()
            .map(|i| format!("{}/{}:{}", text(i, "registry"), text(i, "repository"), text(i, "tag")))
            .collect();
        let mut metadata = json!({
            "containerimage.digest": digest,
            "image.name": names.join(","),
            "portolan.run.id": run.pointer("/properties/runId"),
        });
        if let Some(config) = &seen.config {
            metadata["containerimage.config.digest"] = json!(config);
        }
        let text = serde_json::to_string_pretty(&metadata)
            .map_err(|e| Failure::new(format!("cannot write what was built: {e}")))?;
        save(file, &text)?;
    }
    Ok(digest)
}

fn save(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).map_err(|e| Failure::new(format!("cannot write {}: {e}", file.display())))
}
