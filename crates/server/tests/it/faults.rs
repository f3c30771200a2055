//! A full disk: pushes are refused in words, nothing is half written, the server goes on.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use portolan_types::Digest;
use reqwest::{Method, StatusCode};

use crate::support::TestServer;

/// A small file system of its own, unmounted when dropped.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    /// `None` where this user may not mount.
    fn mount(at: &'a Path, size: &str) -> Option<Small<'a>> {
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|o| o.status.success()).then_some(Small(at))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).output();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_pushes_and_nothing_else() {
    let data = Arc::new(tempfile::tempdir().unwrap());
    let Some(_mounted) = Small::mount(data.path(), "24m") else {
        eprintln!("skipped: mounting needs root");
        return;
    };
    let t = TestServer::start_on(data.clone(), |_| {}).await;
    let login = t.site.make_registry("fulldisk").await.unwrap();
    let pushed = t.site.push_image(&login, "a", "v1", &[b"small"]).await.unwrap();
    let token = t.site.token(&login, "repository:a:pull,push").await.unwrap();

    let big = vec![1u8; 32 * 1024 * 1024];
    let upload = t.site.start_upload(&login, &token, "a").await.unwrap();
    let url = portolan_testkit::Site::finish_url(&upload, &Digest::of(&big));
    let res = t.site.client.put(url).bearer_auth(&token).body(big.clone()).send().await.unwrap();
    let (status, body) = (res.status(), res.text().await.unwrap());
    assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE, "{body}");
    assert!(body.contains("no space left"), "{body}");

    // What was there is still served, and nobody sees a part of what was refused.
    let get = async |path: String| t.site.registry(&login, &token, Method::GET, &path).send().await.unwrap();
    let manifest = get("/v2/a/manifests/v1".to_owned()).await;
    assert_eq!(manifest.bytes().await.unwrap(), pushed.manifest);
    assert_eq!(get(format!("/v2/a/blobs/{}", Digest::of(&big))).await.status(), StatusCode::NOT_FOUND);

    // Give up the upload: there is room again.
    let gone = t.site.client.delete(&upload).bearer_auth(&token).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    t.site.push_image(&login, "a", "v2", &[&vec![2u8; 1024 * 1024]]).await.unwrap();
    t.server.shutdown().await.unwrap();
}
