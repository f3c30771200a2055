//! Lists: tags and the catalog, in pages.

use super::*;

/// The address of the next page, from the `Link` of an answer; it must be as RFC 8288 has it.
pub(super) fn next_page(res: &Response) -> Option<String> {
    let link = res.headers().get("link")?.to_str().unwrap();
    let target = link.strip_prefix('<').and_then(|l| l.strip_suffix(">; rel=\"next\""));
    Some(target.unwrap_or_else(|| panic!("{link}")).to_owned())
}

/// Every page from `path` on.
async fn pages(h: &Hub, path: &str, member: &str) -> Vec<Vec<String>> {
    let mut path = Some(path.to_owned());
    let mut pages = Vec::new();
    while let Some(here) = path.take() {
        let res = h.send(Method::GET, &here).await;
        assert_eq!(res.status(), StatusCode::OK, "{here}");
        path = next_page(&res);
        let body: Value = res.json().await.unwrap();
        pages.push(serde_json::from_value(body[member].clone()).unwrap());
    }
    pages
}

async fn tagged(h: &Hub, tags: &[&str]) {
    let pushed = h.image("app", tags[0], "x").await;
    let manifest: Value = serde_json::from_slice(&pushed.manifest).unwrap();
    for tag in &tags[1..] {
        assert_eq!(h.put("app", tag, &manifest).await.status(), StatusCode::CREATED);
    }
}

#[tokio::test]
async fn tags_in_order_and_in_pages() {
    let h = Hub::start().await;
    tagged(&h, &["b", "C", "a", "_x", "1.0", "A", "c"]).await;
    // "in lexical order (i.e. case-insensitive alphanumeric order)"
    let all = ["1.0", "_x", "A", "a", "b", "C", "c"];
    let res = h.send(Method::GET, "/v2/app/tags/list").await;
    assert!(next_page(&res).is_none());
    assert_eq!(res.json::<Value>().await.unwrap(), json!({"name": "app", "tags": all}));
    for n in 1..=8 {
        let pages = pages(&h, &format!("/v2/app/tags/list?n={n}"), "tags").await;
        assert_eq!(pages.concat(), all, "n={n}");
        let (last, full) = pages.split_last().unwrap();
        assert!(full.iter().all(|page| page.len() == n) && (1..=n).contains(&last.len()), "n={n}: {pages:?}");
    }
    let list = async |query: &str| h.json(format!("/v2/app/tags/list?{query}")).await["tags"].clone();
    assert_eq!(list("last=A").await, json!(["a", "b", "C", "c"]));
    assert_eq!(list("n=2&last=b").await, json!(["C", "c"]));
    assert_eq!(list("last=bb").await, json!(["C", "c"]), "it need not be there");
    assert_eq!(list("last=c").await, json!([]));
    assert_eq!(list("n=").await, json!(all));
    h.stop().await;
}

#[tokio::test]
async fn n_of_nothing_too_much_and_nonsense() {
    let h = Hub::start().await;
    tagged(&h, &["a", "b"]).await;
    for path in ["/v2/app/tags/list", "/v2/_catalog"] {
        let none = h.send(Method::GET, format!("{path}?n=0")).await;
        assert!(none.status() == StatusCode::OK && next_page(&none).is_none(), "{path}");
        let member = if path.ends_with("list") { "tags" } else { "repositories" };
        assert_eq!(none.json::<Value>().await.unwrap()[member], json!([]));
        let much = h.json(format!("{path}?n=99999999999999999999")).await;
        assert!(!much[member].as_array().unwrap().is_empty(), "as many as a page may have");
        for bad in ["n=-1", "n=x", "n=1.5", "n=0x1"] {
            let res = h.send(Method::GET, format!("{path}?{bad}")).await;
            assert_eq!(refusal(res).await, code(400, "UNSUPPORTED"), "{path}?{bad}");
        }
    }
    h.stop().await;
}

#[tokio::test]
async fn a_page_has_a_thousand_tags_at_most() {
    let h = Hub::start().await;
    let image = h.image("app", "t", "x").await;
    let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    for chunk in 0..11 {
        let tags: String = (0..100).map(|i| format!("&tag=t{:04}", chunk * 100 + i)).collect();
        let res = h.put("app", &format!("{}?{tags}", image.digest), &manifest).await;
        assert_eq!(res.status(), StatusCode::CREATED);
    }
    for query in ["", "?n=5000"] {
        let pages = pages(&h, &format!("/v2/app/tags/list{query}"), "tags").await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 101], "fewer than asked for, with a Link");
    }
    h.stop().await;
}

#[tokio::test]
async fn repositories_that_are_not_there_and_that_are_empty() {
    let h = Hub::start().await;
    assert_eq!(refusal(h.send(Method::GET, "/v2/other/tags/list").await).await, code(404, "NAME_UNKNOWN"));
    // Pushed by digest alone: a repository with no tags.
    let config = h.blob("other", b"{}").await;
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "layers": [],
        "config": {"mediaType": media_type::OCI_EMPTY, "digest": config, "size": 2}});
    let digest = Digest::of(&serde_json::to_vec(&manifest).unwrap());
    assert_eq!(h.put("other", &digest.to_string(), &manifest).await.status(), StatusCode::CREATED);
    assert_eq!(h.json("/v2/other/tags/list").await, json!({"name": "other", "tags": []}));
    let only_head = h.send(Method::HEAD, "/v2/other/tags/list").await;
    assert!(only_head.status() == StatusCode::OK && only_head.bytes().await.unwrap().is_empty());
    h.stop().await;
}

#[tokio::test]
async fn the_catalog_in_pages() {
    let h = Hub::start().await;
    for repo in ["app", "team/sub/app", "other"] {
        h.image(repo, "v1", repo).await;
    }
    let all = ["app", "other", "team/sub/app"];
    assert_eq!(h.json("/v2/_catalog").await, json!({"repositories": all}));
    for n in 1..=3 {
        let pages = pages(&h, &format!("/v2/_catalog?n={n}"), "repositories").await;
        assert_eq!(pages.concat(), all);
    }
    let first = h.send(Method::GET, "/v2/_catalog?n=1").await;
    assert_eq!(next_page(&first).unwrap(), "/v2/_catalog?last=app&n=1");
    assert_eq!(h.json("/v2/_catalog?last=app").await["repositories"], json!(["other", "team/sub/app"]));
    h.stop().await;
}
