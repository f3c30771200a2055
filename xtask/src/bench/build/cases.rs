//! What is built.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::{Options, USAGE};

/// One Dockerfile with its context, made on disk.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) dir: PathBuf,
    /// The file that a *touched* round changes.
    pub(super) touch: PathBuf,
}

pub(super) fn cases(work: &Path, root: &Path, options: &Options) -> Result<Vec<Case>> {
    let dir = |name: &str| -> Result<PathBuf> {
        let dir = work.join("ctx").join(name);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    };
    let mut cases = Vec::new();

    let run30 = dir("run30")?;
    let mut text = String::from("FROM busybox\nCOPY source /source\n");
    for i in 0..30 {
        text.push_str(&format!("RUN echo {i} >/step{i}\n"));
    }
    fs::write(run30.join("Dockerfile"), text)?;
    let touch = run30.join("source");
    cases.push(Case { name: "run30", what: "30 RUN steps on busybox, after one COPY", dir: run30, touch });

    let copy = dir("copy20k")?;
    fs::write(copy.join("Dockerfile"), "FROM busybox\nCOPY . /src/\n")?;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for i in 0..options.files {
        let sub = copy.join(format!("d{:03}", i % 200));
        fs::create_dir_all(&sub)?;
        let mut body = Vec::with_capacity(10_000);
        while body.len() < 10_000 {
            // Source-like content: words from a small set, so that it compresses as code does.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            body.extend_from_slice(format!("let value_{:x} = call({:x});\n", seed % 4096, seed >> 40).as_bytes());
        }
        fs::write(sub.join(format!("f{i}.rs")), body)?;
    }
    let touch = copy.join("d000/f0.rs");
    cases.push(Case { name: "copy20k", what: "COPY of 20,000 files of 10 kB", dir: copy, touch });

    for (name, example, file, what) in [
        ("flask", "flask-echo", "app.py", "examples/flask-echo: pip install and a COPY"),
        ("fastapi", "fastapi-echo", "main.py", "examples/fastapi-echo: two stages with a venv"),
    ] {
        let to = dir(name)?;
        let from = root.join("examples").join(example);
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        cases.push(Case { name, what, touch: to.join(file), dir: to });
    }

    let stages = dir("stages8")?;
    let mut text = String::new();
    for i in 0..8 {
        text.push_str(&format!("FROM busybox AS s{i}\nCOPY source /source\nRUN sleep 1 && echo {i} >/out{i}\n"));
    }
    text.push_str("FROM busybox\n");
    for i in 0..8 {
        text.push_str(&format!("COPY --from=s{i} /out{i} /\n"));
    }
    fs::write(stages.join("Dockerfile"), text)?;
    let touch = stages.join("source");
    cases.push(Case {
        name: "stages8",
        what: "eight stages of one second that do not need each other",
        dir: stages,
        touch,
    });

    cases.retain(|c| options.wants(c.name));
    if cases.is_empty() && !options.wants("layer") {
        bail!("--only names no case\n{USAGE}");
    }
    Ok(cases)
}
