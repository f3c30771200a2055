//! `/metrics`: well-formed, complete, documented, of bounded size, and for whom it is meant.

use std::collections::{BTreeMap, BTreeSet};

use portolan_server::http::metrics::{FAMILIES, Family, Type, reference};
use reqwest::Method;

use crate::support::TestServer;

/// A family as it was read.
struct Read {
    kind: String,
    help: String,
    /// Name (with its suffix) and labels, to value.
    samples: BTreeMap<(String, Vec<(String, String)>), f64>,
}

/// The text format 0.0.4, as strictly as its description has it: HELP and TYPE once before
/// the samples of a family, all samples of a family together, no series twice, a line feed
/// at the end.
fn parse(text: &str) -> BTreeMap<String, Read> {
    assert!(text.ends_with('\n'));
    let mut families: BTreeMap<String, Read> = BTreeMap::new();
    let mut current = String::new();
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b':')
    };
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect(line);
            assert!(is_name(name), "{line}");
            let read = Read { kind: String::new(), help: help.to_owned(), samples: BTreeMap::new() };
            assert!(families.insert(name.to_owned(), read).is_none(), "{name} comes twice");
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert_eq!(name, current, "TYPE follows HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            let family = families.get_mut(name).unwrap();
            assert!(family.kind.is_empty() && family.samples.is_empty(), "{line}");
            family.kind = kind.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').expect(line);
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            let (name, labels) = match series.split_once('{') {
                None => (series, Vec::new()),
                Some((name, rest)) => (name, labels(rest.strip_suffix('}').expect(line))),
            };
            let family = families.get_mut(&current).expect(line);
            let suffix = name.strip_prefix(current.as_str()).unwrap_or_else(|| panic!("{line} stands in {current}"));
            let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            assert!(family.samples.insert((name.to_owned(), labels), value).is_none(), "{line} comes twice");
        }
    }
    families
}

/// `a="x",b="y"`, with the three escapes.
fn labels(text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").expect(text);
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect(text) {
                (at, '"') => break at + 1,
                (_, '\\') => value.push(match chars.next().expect(text).1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    c => panic!("\\{c} in {text}"),
                }),
                (_, c) => value.push(c),
            }
        };
        all.push((name.to_owned(), value));
        rest = &after[end..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    all
}

/// The labels of a sample, in their order.
type Labels = Vec<(String, String)>;

/// Buckets that grow with their bounds, up to the count; a sum for each.
fn check_histogram(name: &str, read: &Read) {
    let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for ((sample, labels), value) in &read.samples {
        if *sample == format!("{name}_bucket") {
            let (le, others): (Vec<_>, Vec<_>) = labels.iter().cloned().partition(|(label, _)| label == "le");
            let bound = if le[0].1 == "+Inf" { f64::INFINITY } else { le[0].1.parse().unwrap() };
            series.entry(others).or_default().push((bound, *value));
        }
    }
    for (labels, mut buckets) in series {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.windows(2).all(|w| w[0].1 <= w[1].1), "{name} {labels:?}: {buckets:?}");
        let last = buckets.last().unwrap();
        assert_eq!(last.0, f64::INFINITY, "{name} {labels:?}");
        assert_eq!(read.samples[&(format!("{name}_count"), labels.clone())], last.1);
        assert!(read.samples.contains_key(&(format!("{name}_sum"), labels)));
    }
}

fn known(name: &str) -> &'static Family {
    FAMILIES.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("{name} is not in the table"))
}

#[tokio::test]
async fn every_family_is_well_formed_known_and_free_of_names() {
    let t = TestServer::start_with(|s| s.rate_reads_per_min = 100_000).await;
    let login = t.site.make_registry("figures").await.unwrap();
    let pushed = t.site.push_image(&login, "secretproject/app", "v1", &[b"one", b"two"]).await.unwrap();
    let token = t.site.token(&login, "repository:secretproject/app:pull,push,delete").await.unwrap();
    let ask = async |method: Method, path: &str| {
        t.site.registry(&login, &token, method, path).send().await.unwrap().bytes().await.unwrap();
    };
    for _ in 0..2 {
        ask(Method::GET, "/v2/secretproject/app/manifests/v1").await;
    }
    ask(Method::GET, &format!("/v2/secretproject/app/blobs/{}", pushed.layers[0])).await;
    ask(Method::GET, "/v2/secretproject/app/tags/list").await;
    ask(Method::GET, "/no/such/secretproject").await;
    ask(Method::from_bytes(b"SECRETPROJECT").unwrap(), "/v2/").await;
    ask(Method::DELETE, "/v2/secretproject/app/manifests/v1").await;

    let text = t.get(format!("{}/metrics", t.http())).await.text().await.unwrap();
    assert!(!text.to_ascii_lowercase().contains("secretproject"), "a name from outside is a label: {text}");
    let families = parse(&text);
    for (name, read) in &families {
        let family = known(name);
        assert_eq!((read.kind.as_str(), read.help.as_str()), (family.kind.as_str(), family.help));
        for (_, labels) in read.samples.keys() {
            let names: Vec<&str> = labels.iter().map(|(l, _)| l.as_str()).filter(|l| *l != "le").collect();
            assert_eq!(names, family.labels, "{name}");
        }
        if family.kind == Type::Histogram {
            check_histogram(name, read);
        }
    }
    let missing: Vec<_> = FAMILIES.iter().map(|f| f.name).filter(|n| !families.contains_key(*n)).collect();
    assert!(missing.is_empty(), "in the table, and never shown: {missing:?}");

    let value = |name: &str, labels: &[(&str, &str)]| {
        let labels: Vec<_> = labels.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let family = families.iter().rev().find(|(family, _)| name.starts_with(family.as_str())).unwrap().1;
        *family.samples.get(&(name.to_owned(), labels.clone())).unwrap_or_else(|| panic!("{name} {labels:?}\n{text}"))
    };
    let manifest = ("route", "/v2/{name}/manifests/{reference}");
    let requests = "portolan_http_requests_total";
    assert_eq!(value(requests, &[manifest, ("method", "GET"), ("status", "2xx")]), 2.0);
    assert_eq!(value(requests, &[manifest, ("method", "PUT"), ("status", "2xx")]), 1.0);
    assert_eq!(value(requests, &[manifest, ("method", "DELETE"), ("status", "2xx")]), 1.0);
    assert_eq!(value(requests, &[("route", "other"), ("method", "GET"), ("status", "4xx")]), 1.0);
    assert_eq!(value(requests, &[("route", "/v2/"), ("method", "other"), ("status", "4xx")]), 1.0);
    assert_eq!(value("portolan_http_request_body_bytes_total", &[manifest]), pushed.manifest.len() as f64);
    let sent = value("portolan_http_response_body_bytes_total", &[manifest]);
    assert!(sent >= 2.0 * pushed.manifest.len() as f64, "{sent}");
    // The second look found the manifest that the first one left.
    assert!(value("portolan_cache_hits_total", &[("cache", "manifests")]) >= 1.0);
    assert!(
        value("portolan_db_operation_duration_seconds_count", &[("engine", "sqlite"), ("operation", "write")]) >= 5.0
    );
    assert!(value("portolan_db_transactions_total", &[("engine", "sqlite")]) >= 1.0);
    let blob_bytes: f64 = families["portolan_blob_operation_bytes_total"].samples.values().sum();
    assert!(blob_bytes >= 6.0, "{blob_bytes}");
    assert!(value("process_resident_memory_bytes", &[]) > 1e6 && value("process_open_fds", &[]) > 3.0);
    let started = value("process_start_time_seconds", &[]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 86_400.0..=now + 2.0).contains(&started), "{started} {now}");
    t.server.shutdown().await.unwrap();
}

#[test]
fn the_documentation_has_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
    let page = std::fs::read_to_string(path).unwrap();
    let documented: BTreeSet<&str> =
        page.lines().filter(|l| l.starts_with("| `portolan_") || l.starts_with("| `process_")).collect();
    let reference = reference();
    let expected: BTreeSet<&str> = reference.lines().filter(|l| l.starts_with("| `")).collect();
    let missing: Vec<_> = expected.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&expected).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "docs/operations.md lacks {missing:#?} and has {stale:#?} too many"
    );
}

#[tokio::test]
async fn a_token_keeps_the_figures_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "a-token-for-the-figures\n").unwrap();
    let t = TestServer::start_with(|s| s.metrics_token_file = Some(file)).await;
    let url = format!("{}/metrics", t.http());
    let with = |token: &'static str| t.site.client.get(&url).bearer_auth(token).send();
    let without = t.get(&url).await;
    assert_eq!(without.status(), 401);
    assert!(without.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    assert_eq!(with("a-token-for-the-figurez").await.unwrap().status(), 401);
    assert_eq!(with("a-token-for-the-figures").await.unwrap().status(), 200);
    assert_eq!(t.get(format!("{}/readyz", t.http())).await.status(), 200);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_address_of_their_own_takes_the_figures_off_the_others() {
    let t = TestServer::start_with(|s| s.metrics_listen = Some(([127, 0, 0, 1], 0).into())).await;
    let own = format!("http://{}", t.server.metrics_http.unwrap());
    assert_eq!(t.get(format!("{own}/metrics")).await.status(), 200);
    assert_eq!(t.get(format!("{own}/healthz")).await.status(), 200);
    // Nothing else is served there, and the figures nowhere else.
    for path in ["/v2/", "/oauth2/token", "/tenants"] {
        assert_eq!(t.get(format!("{own}{path}")).await.status(), 404, "{path}");
    }
    for base in [&t.site.url, t.http()] {
        assert_eq!(t.get(format!("{base}/metrics")).await.status(), 404);
        assert_eq!(t.get(format!("{base}/healthz")).await.status(), 200);
    }
    t.server.shutdown().await.unwrap();
}
