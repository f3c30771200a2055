//! A server of the test's own, and the command line pointed at it.

use std::path::Path;
use std::process::Output;

use portolan_testkit::Child;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A server with one group and one registry, `testreg`, and somebody signed in.
pub(crate) struct Cli {
    pub(crate) dir: TempDir,
    pub(crate) server: Child,
    pub(crate) login_server: String,
}

/// What a command did.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Cli {
    pub(crate) async fn start() -> Cli {
        let dir = tempfile::tempdir().unwrap();
        let server = Child::start(&dir.path().join("data"), &[]).await.unwrap();
        let mut cli = Cli { dir, server, login_server: String::new() };
        cli.ok("login --bootstrap data/bootstrap.json -o none").await;
        cli.ok("group create -n rg -l local -o none").await;
        cli.ok("acr create -g rg -n testreg --sku Basic -o none").await;
        cli.login_server = cli.ok("acr show -n testreg --query loginServer -o tsv").await.trim().to_owned();
        cli
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Run `portolan <line>`; words are split at spaces.
    pub(crate) async fn run(&self, line: &str) -> Done {
        self.run_with(line, b"").await
    }

    /// The same with something on stdin.
    pub(crate) async fn run_with(&self, line: &str, stdin: &[u8]) -> Done {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args(line.split_whitespace())
            .current_dir(self.path())
            .env("PORTOLAN_CONFIG_DIR", self.path().join("profile"))
            .env_remove("AZURE_DEFAULTS_ACR")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        // A command that does not read is no fault of the test's.
        let _ = input.write_all(stdin).await;
        drop(input);
        let Output { status, stdout, stderr } = child.wait_with_output().await.unwrap();
        Done {
            code: status.code().unwrap_or(-1),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Run, and mind that it succeeds; its stdout.
    pub(crate) async fn ok(&self, line: &str) -> String {
        let done = self.run(line).await;
        assert_eq!(done.code, 0, "portolan {line}\n{}{}", done.out, done.err);
        done.out
    }

    /// Run, and read its stdout as JSON.
    pub(crate) async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(line).await).unwrap()
    }

    /// Stop the server, which must end well.
    pub(crate) async fn stop(self) {
        let (code, _, log) = self.server.terminate().await.unwrap();
        assert_eq!(code, Some(0), "{log}");
    }
}
