//! Referrers: what is about a manifest.

use super::list::next_page;
use super::*;

/// An artifact of that type about `subject`, with these annotations.
fn artifact(subject: &Digest, kind: &str, annotations: Value) -> Value {
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": kind,
        "subject": {"mediaType": media_type::OCI_MANIFEST, "digest": subject, "size": 7},
        "config": {"mediaType": media_type::OCI_EMPTY, "digest": Digest::of(b"{}"), "size": 2},
        "layers": [], "annotations": annotations})
}

/// Push a document under its digest; the digest.
async fn push(h: &Hub, kind: &str, document: &Value) -> Digest {
    let bytes = serde_json::to_vec(document).unwrap();
    let digest = Digest::of(&bytes);
    let res = h.put_as("app", &digest.to_string(), kind, bytes).await;
    assert_eq!(res.status(), StatusCode::CREATED);
    assert_eq!(head(&res, "oci-subject"), document["subject"]["digest"].as_str().unwrap_or(""));
    digest
}

async fn listed(h: &Hub, path: &str) -> Vec<Value> {
    h.json(path).await["manifests"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_list_is_an_index_of_descriptors() {
    let h = Hub::start().await;
    let image = h.image("app", "v1", "x").await;
    h.blob("app", b"{}").await;
    let path = format!("/v2/app/referrers/{}", image.digest);
    assert!(listed(&h, &path).await.is_empty(), "an empty index, not a 404");
    let sbom = artifact(&image.digest, "application/sbom", json!({"k": "sbom", "org.example": "é\"\n"}));
    let signature = artifact(&image.digest, "application/signature", json!({}));
    // An image with a subject and no type of its own has its configuration's.
    let mut typed = artifact(&image.digest, "", json!({"k": "image"}));
    typed["config"]["mediaType"] = json!("application/vnd.example.config");
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [],
        "subject": sbom["subject"], "annotations": {"k": "index"}});
    let mut typed_index = index.clone();
    typed_index["artifactType"] = json!("application/list");
    let mut expect = Vec::new();
    for (kind, document, artifact_type) in [
        (media_type::OCI_MANIFEST, &sbom, Some("application/sbom")),
        (media_type::OCI_MANIFEST, &signature, Some("application/signature")),
        (media_type::OCI_MANIFEST, &typed, Some("application/vnd.example.config")),
        (media_type::OCI_INDEX, &index, None),
        (media_type::OCI_INDEX, &typed_index, Some("application/list")),
    ] {
        let digest = push(&h, kind, document).await;
        let mut descriptor =
            json!({"mediaType": kind, "digest": digest, "size": serde_json::to_vec(document).unwrap().len()});
        if let Some(artifact_type) = artifact_type {
            descriptor["artifactType"] = json!(artifact_type);
        }
        if document["annotations"].as_object().is_some_and(|a| !a.is_empty()) {
            descriptor["annotations"] = document["annotations"].clone();
        }
        expect.push(descriptor);
    }
    expect.sort_by_key(|d| d["digest"].as_str().unwrap().to_owned());
    let res = h.send(Method::GET, &path).await;
    assert_eq!(res.status(), StatusCode::OK);
    assert_eq!((head(&res, "content-type"), head(&res, "oci-filters-applied")), (media_type::OCI_INDEX, ""));
    let body: Value = res.json().await.unwrap();
    assert_eq!(
        body,
        json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": expect}),
        "every descriptor with its type and annotations"
    );
    h.stop().await;
}

#[tokio::test]
async fn filtered_by_type() {
    let h = Hub::start().await;
    let image = h.image("app", "v1", "x").await;
    h.blob("app", b"{}").await;
    for kind in ["application/sbom", "application/vnd.example+sig"] {
        push(&h, media_type::OCI_MANIFEST, &artifact(&image.digest, kind, json!({}))).await;
    }
    let path = format!("/v2/app/referrers/{}", image.digest);
    for (filter, expect) in [
        ("artifactType=application%2Fsbom", vec!["application/sbom"]),
        ("artifactType=application/sbom", vec!["application/sbom"]),
        ("artifactType=application%2Fvnd.example%2Bsig", vec!["application/vnd.example+sig"]),
        ("artifactType=application/none", vec![]),
    ] {
        let res = h.send(Method::GET, format!("{path}?{filter}")).await;
        assert_eq!((res.status().as_u16(), head(&res, "oci-filters-applied")), (200, "artifactType"), "{filter}");
        let body: Value = res.json().await.unwrap();
        let types: Vec<&str> =
            body["manifests"].as_array().unwrap().iter().map(|d| d["artifactType"].as_str().unwrap()).collect();
        assert_eq!(types, expect, "{filter}");
    }
    h.stop().await;
}

#[tokio::test]
async fn in_pages_that_are_bounded() {
    let h = Hub::start().await;
    let image = h.image("app", "v1", "x").await;
    h.blob("app", b"{}").await;
    let mut all = Vec::new();
    for i in 0..5 {
        // Two of these fit into four mebibytes.
        let note = format!("{i}{}", "x".repeat(1_600_000));
        let kind = if i < 4 { "application/sbom" } else { "application/signature" };
        all.push(
            push(&h, media_type::OCI_MANIFEST, &artifact(&image.digest, kind, json!({"note": note}))).await.to_string(),
        );
    }
    all.sort();
    let path = format!("/v2/app/referrers/{}", image.digest);
    for (query, sizes) in
        [("", vec![2, 2, 1]), ("?n=1", vec![1, 1, 1, 1, 1]), ("?artifactType=application/sbom", vec![2, 2])]
    {
        let (mut next, mut found, mut pages) = (Some(format!("{path}{query}")), Vec::new(), Vec::new());
        while let Some(here) = next.take() {
            let res = h.send(Method::GET, &here).await;
            next = next_page(&res);
            if query.contains("artifactType") {
                assert_eq!(head(&res, "oci-filters-applied"), "artifactType", "on every page");
            }
            let body: Value = res.json().await.unwrap();
            let digests =
                body["manifests"].as_array().unwrap().iter().map(|d| d["digest"].as_str().unwrap().to_owned());
            let before = found.len();
            found.extend(digests);
            pages.push(found.len() - before);
        }
        assert_eq!(pages, sizes, "{query}");
        if query.is_empty() {
            assert_eq!(found, all);
        }
    }
    h.stop().await;
}

#[tokio::test]
async fn never_a_404() {
    let h = Hub::start().await;
    let unknown = Digest::of(b"nothing");
    // "the registry MUST NOT return a `404 Not Found` to a referrers API requests"
    for repo in ["app", "team/sub/app"] {
        let res = h.send(Method::GET, format!("/v2/{repo}/referrers/{unknown}")).await;
        assert_eq!((res.status().as_u16(), head(&res, "content-type")), (200, media_type::OCI_INDEX));
        let expect = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []});
        assert_eq!(res.json::<Value>().await.unwrap(), expect);
        h.image("app", "v1", "x").await;
    }
    for bad in ["sha256:12", "v1", "sha256:XYZ"] {
        let res = h.send(Method::GET, format!("/v2/app/referrers/{bad}")).await;
        assert_eq!(refusal(res).await, code(400, "DIGEST_INVALID"), "{bad}");
    }
    h.stop().await;
}

#[tokio::test]
async fn a_subject_may_come_later_or_never() {
    let h = Hub::start().await;
    h.blob("app", b"{}").await;
    let bytes = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": []})).unwrap();
    let subject = Digest::of(&bytes);
    let about = push(&h, media_type::OCI_MANIFEST, &artifact(&subject, "application/sbom", json!({}))).await;
    let path = format!("/v2/app/referrers/{subject}");
    assert_eq!(listed(&h, &path).await[0]["digest"], json!(about));
    assert_eq!(h.put_as("app", "later", media_type::OCI_INDEX, bytes).await.status(), StatusCode::CREATED);
    assert_eq!(listed(&h, &path).await.len(), 1);
    // A referrer that is deleted is not listed; one of a referrer is listed under that.
    let second = push(&h, media_type::OCI_MANIFEST, &artifact(&about, "application/signature", json!({}))).await;
    assert_eq!(listed(&h, &format!("/v2/app/referrers/{about}")).await[0]["digest"], json!(second));
    assert_eq!(h.send(Method::DELETE, format!("/v2/app/manifests/{about}")).await.status(), StatusCode::ACCEPTED);
    assert!(listed(&h, &path).await.is_empty());
    h.stop().await;
}

#[tokio::test]
async fn the_tag_schema_of_older_clients_is_honoured() {
    let h = Hub::start().await;
    let image = h.image("app", "v1", "x").await;
    h.blob("app", b"{}").await;
    // A client that takes the registry for one without the API: it pushes the artifact, and
    // an index of it under the tag made from the subject's digest.
    let document = artifact(&image.digest, "application/sbom", json!({"k": "v"}));
    let about = push(&h, media_type::OCI_MANIFEST, &document).await;
    let descriptor = json!({"mediaType": media_type::OCI_MANIFEST, "digest": about,
        "size": serde_json::to_vec(&document).unwrap().len(), "artifactType": "application/sbom", "annotations": {"k": "v"}});
    let fallback = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [descriptor]});
    let tag = image.digest.to_string().replace(':', "-");
    let bytes = serde_json::to_vec(&fallback).unwrap();
    assert_eq!(h.put_as("app", &tag, media_type::OCI_INDEX, bytes.clone()).await.status(), StatusCode::CREATED);
    // Both ways to ask say the same, and nothing is listed twice.
    assert_eq!(h.json(format!("/v2/app/referrers/{}", image.digest)).await, fallback);
    let by_tag = h.send(Method::GET, format!("/v2/app/manifests/{tag}")).await;
    assert_eq!(by_tag.bytes().await.unwrap(), bytes, "the tag is the client's own");
    // What other tools keep under such tags is a manifest like any other.
    let signature = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "layers": [],
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": Digest::of(b"{}"), "size": 2}});
    for end in ["sig", "att", "sbom"] {
        let tag = format!("{tag}.{end}");
        assert_eq!(h.put("app", &tag, &signature).await.status(), StatusCode::CREATED);
        assert_eq!(h.send(Method::HEAD, format!("/v2/app/manifests/{tag}")).await.status(), StatusCode::OK);
    }
    assert_eq!(listed(&h, &format!("/v2/app/referrers/{}", image.digest)).await.len(), 1, "they have no subject");
    h.stop().await;
}
