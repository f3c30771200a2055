//! Pages that are written by the code they describe.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A page, and the arguments with which our binary prints it.
const PAGES: &[(&str, &[&str])] = &[("docs/reference/settings.md", &["serve", "--print-settings-reference"])];

/// Write every page, or with `check` only fail when one is stale.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    for (page, args) in PAGES {
        let output = Command::new(env!("CARGO"))
            .args(["run", "--quiet", "--package", "portolan", "--"])
            .args(*args)
            .current_dir(root)
            .output()
            .context("run cargo")?;
        if !output.status.success() {
            bail!("portolan {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        let path = root.join(page);
        let fresh = fs::read(&path).is_ok_and(|committed| committed == output.stdout);
        match (fresh, check) {
            (true, _) => {}
            (false, true) => bail!("{page} is stale: run `cargo xtask docs`"),
            (false, false) => {
                fs::create_dir_all(path.parent().unwrap_or(root))?;
                fs::write(&path, &output.stdout).with_context(|| format!("write {page}"))?;
                println!("wrote {page}");
            }
        }
    }
    Ok(())
}
