//! What a power cut needs and `kill -9` cannot show: before a push is answered its bytes are
//! on the disk under their name, and only then its row is, in this order. The server runs
//! under strace, which writes down what it asks of the kernel.

use std::path::Path;
use std::process::Stdio;

use portolan_testkit::{Digest, Site};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

const CALLS: &str =
    "openat,open,rename,renameat,renameat2,link,linkat,fsync,fdatasync,pwrite64,write,writev,sendto,sendmsg,close";

/// The first line at or after `from` for which `is` holds.
fn find(lines: &[&str], from: usize, what: &str, is: impl Fn(&str) -> bool) -> usize {
    let found = lines[from..].iter().position(|line| is(line));
    from + found.unwrap_or_else(|| panic!("{what} does not come after line {from}:\n{}", lines[from..].join("\n")))
}

#[tokio::test]
async fn a_push_is_on_disk_before_its_row_and_its_row_before_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let trace = folder.path().join("trace");
    let mut server = Command::new("strace")
        .args(["-f", "-y", "-s", "200", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_portolan"))
        .args(["serve", "--listen", "127.0.0.1:0", "--listen-http", "127.0.0.1:0", "--data"])
        .arg(&data)
        .env("PORTOLAN_LOG_FILTER", "warn")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("strace must be installed: apt-get install strace");
    let mut ready = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut ready).await.unwrap();
    let http = ready.split_once('(').unwrap().1.split_once(')').unwrap().0.to_owned();
    let site = Site::open(&data.join("bootstrap.json")).unwrap();
    let login_server = site.make_registry("order").await.unwrap();
    let token = site.token(&login_server, "repository:app:pull,push").await.unwrap();

    let content = b"what must outlive a power cut".repeat(100);
    let digest = Digest::of(&content);
    let url = format!("{http}/v2/app/blobs/uploads/?digest={digest}");
    let octets = ("content-type", "application/octet-stream");
    let pushed =
        site.client.post(url).bearer_auth(&token).header(octets.0, octets.1).body(content).send().await.unwrap();
    assert_eq!(pushed.status().as_u16(), 201);
    // Told to stop, it writes its trace to the end.
    let strace = server.id().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{strace}/task/{strace}/children")).unwrap();
    let stop = std::process::Command::new("kill").args(["-TERM", children.trim()]).status().unwrap();
    assert!(stop.success());
    server.wait().await.unwrap();
    in_order(&std::fs::read_to_string(&trace).unwrap(), &data, &digest);
}

fn in_order(trace: &str, data: &Path, digest: &Digest) {
    let lines: Vec<&str> = trace.lines().collect();
    let hex = digest.hex();
    let name = format!("blobs/sha256/{}/{hex}", &hex[..2]);
    let parent = format!("{}/blobs/sha256/{}>", data.canonicalize().unwrap().display(), &hex[..2]);
    let placed = find(&lines, 0, "the name", |l| (l.contains("rename") || l.contains("link")) && l.contains(&name));
    let synced = lines[..placed].iter().rposition(|l| {
        (l.contains("fsync(") || l.contains("fdatasync(")) && (l.contains("/uploads/") || l.contains("/tmp/"))
    });
    assert!(synced.is_some(), "the bytes were not synced before they got their name:\n{}", lines[..placed].join("\n"));
    let folder = find(&lines, placed, "the folder's sync", |l| l.contains("fsync(") && l.contains(&parent));
    let row = find(&lines, folder, "the sync of the row", |l| {
        (l.contains("fsync(") || l.contains("fdatasync(")) && l.contains("portolan.db-wal")
    });
    let answer = lines.iter().position(|l| l.contains("201 Created") && l.contains("HTTP/1.1"));
    let answer = answer.unwrap_or_else(|| panic!("no answer in the trace"));
    assert!(answer > row, "line {answer} answers before line {row}, which makes the row durable");
    println!(
        "file synced at {synced:?}, named at {placed}, folder synced at {folder}, row at {row}, answered at {answer}"
    );
}
