//! Signed addresses: uploads in one piece and in blocks, logs that grow.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use portolan_api::HttpClient;
use portolan_api::blobs::{BLOCK_BYTES, LogTail, Upload};
use portolan_api::transport::{self, TransportOptions};

use super::site::{Say, Site};

fn http() -> HttpClient {
    transport::http_client(&TransportOptions::default()).unwrap()
}

#[tokio::test]
async fn small_content_goes_in_one_piece() {
    let site = Site::start(|_| Say::status(201)).await;
    let mut upload = Upload::new(http(), &format!("{}/blob/a/b/c?se=1&sig=x", site.base)).unwrap();
    upload.write(b"hello ").await.unwrap();
    upload.write(b"world").await.unwrap();
    upload.finish().await.unwrap();
    let [put] = &site.asked()[..] else { panic!("{:?}", site.lines()) };
    assert_eq!(put.line(), "PUT /blob/a/b/c?se=1&sig=x");
    assert_eq!((put.text().as_str(), put.header("x-ms-blob-type")), ("hello world", Some("BlockBlob")));
}

#[tokio::test]
async fn large_content_goes_in_blocks_each_tried_again() {
    let failed = AtomicUsize::new(0);
    let site = Site::start(move |asked| {
        if asked.target.contains("comp=block&") && failed.fetch_add(1, Ordering::Relaxed) == 1 {
            Say::status(503)
        } else {
            Say::status(201)
        }
    })
    .await;
    let mut upload = Upload::new(http(), &format!("{}/blob/a/b/c?sig=x", site.base)).unwrap();
    let content: Vec<u8> = (0..BLOCK_BYTES * 2 + 10).map(|n| (n / 1000) as u8).collect();
    for piece in content.chunks(1_000_003) {
        upload.write(piece).await.unwrap();
    }
    upload.finish().await.unwrap();
    let asked = site.asked();
    let list = asked.last().unwrap();
    assert_eq!(list.line(), "PUT /blob/a/b/c?sig=x&comp=blocklist");
    let ids: Vec<String> =
        list.text().split("<Latest>").skip(1).map(|p| p.split('<').next().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 3);
    let mut whole = Vec::new();
    for id in &ids {
        let query = format!("comp=block&blockid={}", id.replace('=', "%3D"));
        whole.extend_from_slice(&asked.iter().rfind(|a| a.target.ends_with(&query)).unwrap().body);
    }
    assert!(whole == content, "the blocks in the order of the list are the content");
}

#[tokio::test]
async fn a_refused_upload_says_why() {
    let site = Site::start(|_| Say::status(403).body("<?xml?><Error><Code>AuthenticationFailed</Code></Error>")).await;
    let upload = Upload::new(http(), &format!("{}/blob/a/b/c", site.base)).unwrap();
    assert_eq!(upload.finish().await.unwrap_err().status(), Some(403));
}

#[tokio::test]
async fn a_log_is_followed_to_its_end() {
    let not_yet = || Say::status(404).header("x-ms-error-code", "BlobNotFound");
    let part = |from: usize, text: &str, total: usize| {
        Say::status(206).header("content-range", format!("bytes {from}-{}/{total}", from + text.len() - 1)).body(text)
    };
    let steps = Mutex::new(
        vec![
            not_yet(),
            part(0, "one\r\n", 5),
            Say::status(416).header("content-range", "bytes */5"),
            Say::status(503),
            // Complete is said while there is more to read: the end comes only after that.
            part(5, "two\r\n", 12).header("x-ms-meta-Complete", "Successful"),
            part(10, "x\n", 12).header("x-ms-meta-Complete", "Successful"),
        ]
        .into_iter(),
    );
    let site = Site::start(move |_| steps.lock().unwrap().next().unwrap_or_else(|| Say::status(500))).await;
    let mut tail = LogTail::new(http(), &format!("{}/blob/a/logs/l?sig=x", site.base)).unwrap();
    let mut log = Vec::new();
    let outcome = loop {
        let chunk = tail.next().await.unwrap();
        log.extend_from_slice(&chunk.bytes);
        if let Some(outcome) = chunk.outcome {
            break outcome;
        }
    };
    assert_eq!((log.as_slice(), outcome.as_str()), (&b"one\r\ntwo\r\nx\n"[..], "successful"));
    let asked = site.asked();
    assert_eq!(asked[0].target, "/blob/a/logs/l?sig=x&wait=20");
    assert_eq!(asked[2].header("x-ms-range"), Some("bytes=5-1048580"));
}

#[tokio::test]
async fn an_empty_finished_log_ends_at_once() {
    let site =
        Site::start(|_| Say::status(416).header("content-range", "bytes */0").header("x-ms-meta-complete", "canceled"))
            .await;
    let mut tail = LogTail::new(http(), &format!("{}/l", site.base)).unwrap();
    let chunk = tail.next().await.unwrap();
    assert_eq!((chunk.bytes.len(), chunk.outcome.as_deref()), (0, Some("canceled")));
}
