//! A property test for each grammar: texts that are of it are taken and come back, texts
//! that are nearly of it are judged as the published expression judges them.

use portolan_api::fuzzing::{Url, challenges};
use portolan_auth::access::{Action, ActionSet, Target, grants_allow, scope_text};
use portolan_fuzz::targets::grammar;
use portolan_server::http::fuzzing as edge;
use portolan_types::{
    Digest, GroupName, ImageRef, Platform, Reference, RegistryName, RepoName, ResourceId, RunId, Tag, UploadId,
    media_type,
};
use proptest::prelude::*;

/// What is slipped into a good text to make it nearly one.
const SLIPS: &[&str] = &[
    "", "", ".", "..", "_", "__", "___", "-", "/", "//", ":", "@", " ", "\n", "\0", "A", "é", "%2F", "\\", "\"", ",",
    "ſ", "٣", "²",
];

/// A text of `good`, most times with something slipped in, taken out or cut off.
fn near(good: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (good, any::<prop::sample::Index>(), prop::sample::select(SLIPS), 0..8u8).prop_map(|(text, at, slip, how)| {
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let at = places[at.index(places.len())];
        let (head, tail) = text.split_at(at);
        match how {
            0 => text,
            1 => head.to_owned(),
            2 => tail.to_owned(),
            3 => format!("{head}{}", tail.chars().skip(1).collect::<String>()),
            4 => format!("{text}{text}"),
            _ => format!("{head}{slip}{tail}"),
        }
    })
}

const COMPONENT: &str = "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}";
const LABEL: &str = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?";

fn repo() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::collection::vec(COMPONENT, 1..5).prop_map(|parts| parts.join("/")),
        1 => "[a-z]{250,260}",
        1 => prop::collection::vec("(manifests|tags|blobs|uploads|list|_catalog|v2)", 1..4).prop_map(|p| p.join("/")),
    ]
}

fn tag() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}", 1 => "[a-zA-Z0-9_][a-zA-Z0-9._-]{120,130}"]
}

fn digest() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "sha256:[a-f0-9]{64}",
        4 => "sha512:[a-f0-9]{128}",
        // The one's name and the other's length.
        1 => "sha512:[a-f0-9]{64}",
        1 => "sha256:[a-f0-9]{128}",
        1 => "sha256:[a-fA-F0-9]{63,65}",
        1 => "[a-z0-9]{1,8}([+._-][a-z0-9]{1,4})?:[a-zA-Z0-9=_-]{1,70}",
    ]
}

fn host() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("localhost".to_owned()),
        prop::collection::vec(LABEL, 2..4).prop_map(|labels| labels.join(".")),
        Just("[::1]".to_owned()),
        "[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}",
    ];
    (name, prop::option::of(1u16..)).prop_map(|(name, port)| match port {
        Some(port) => format!("{name}:{port}"),
        None if name.starts_with('[') => format!("{name}:5000"),
        None => name,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn repository_names(text in near(repo())) {
        let parsed = text.parse::<RepoName>();
        prop_assert_eq!(parsed.is_ok(), text.len() <= 255 && grammar::REPO_NAME.takes(&text));
        if let Ok(name) = parsed {
            prop_assert_eq!(name.as_str(), &text);
            let json = serde_json::to_string(&name).unwrap();
            prop_assert_eq!(serde_json::from_str::<RepoName>(&json).unwrap(), name);
        }
    }

    #[test]
    fn tags(text in near(tag())) {
        prop_assert_eq!(text.parse::<Tag>().is_ok(), grammar::TAG.takes(&text));
    }

    /// Lists are in the order of their bytes, in memory as in every database.
    #[test]
    fn names_are_ordered_by_their_bytes(mut tags in prop::collection::vec(tag(), 0..20), mut repos in prop::collection::vec(repo(), 0..20)) {
        let mut parsed: Vec<Tag> = tags.iter().filter_map(|t| t.parse().ok()).collect();
        tags.retain(|t| grammar::TAG.takes(t));
        parsed.sort();
        tags.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        prop_assert_eq!(parsed.iter().map(|t| t.as_str()).collect::<Vec<_>>(), tags);
        let mut parsed: Vec<RepoName> = repos.iter().filter_map(|t| t.parse().ok()).collect();
        repos.retain(|r| r.len() <= 255);
        parsed.sort();
        repos.retain(|r| grammar::REPO_NAME.takes(r));
        repos.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        prop_assert_eq!(parsed.iter().map(|t| t.as_str()).collect::<Vec<_>>(), repos);
    }

    #[test]
    fn digests(text in near(digest())) {
        let parsed = text.parse::<Digest>();
        prop_assert_eq!(parsed.is_ok(), grammar::DIGEST.takes(&text));
        if let Ok(digest) = parsed {
            prop_assert_eq!(digest.to_string(), text.clone());
            prop_assert!(text.ends_with(&digest.hex()) && digest.hex().starts_with(&digest.short()));
        }
    }

    #[test]
    fn references(text in near(prop_oneof![tag(), digest()])) {
        let taken = text.parse::<Reference>();
        prop_assert_eq!(taken.is_ok(), grammar::TAG.takes(&text) || grammar::DIGEST.takes(&text));
        if let Ok(reference) = taken {
            prop_assert_eq!(matches!(reference, Reference::Digest(_)), text.contains(':'));
            prop_assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn image_references(host in prop::option::of(host()), repo in repo(), tag in prop::option::of(tag()), digest in prop::option::of("sha256:[a-f0-9]{64}")) {
        let mut text = host.iter().map(|h| format!("{h}/")).collect::<String>() + &repo;
        text.extend(tag.iter().map(|t| format!(":{t}")));
        text.extend(digest.iter().map(|d| format!("@{d}")));
        let image = text.parse::<ImageRef>();
        let first = repo.split('/').next().unwrap();
        let bare = host.is_none() && (first.contains('.') || first == "localhost") && repo.contains('/');
        let parts_are_good = repo.len() <= 240 && grammar::REPO_NAME.takes(&repo) && tag.as_ref().is_none_or(|t| grammar::TAG.takes(t));
        if parts_are_good && !bare {
            let image = image.as_ref().unwrap_or_else(|e| panic!("{text}: {e}"));
            let library = format!("library/{repo}");
            prop_assert!(image.repo.as_str() == repo || image.repo.as_str() == library);
            prop_assert_eq!(image.tag.as_ref().map(|t| t.to_string()), tag);
            prop_assert_eq!(image.digest.map(|d| d.to_string()), digest);
        }
        if let Ok(image) = image {
            prop_assert_eq!(image.to_string().parse::<ImageRef>().unwrap(), image);
        }
    }

    #[test]
    fn hosts_of_image_references(text in near(host())) {
        let text = format!("{text}/a/b");
        if let Ok(image) = text.parse::<ImageRef>() {
            prop_assert!(grammar::HOST.takes(&image.host), "{}", image.host);
        }
    }

    #[test]
    fn registry_names(text in near("[a-zA-Z0-9]{4,52}")) {
        let parsed = text.parse::<RegistryName>();
        prop_assert_eq!(parsed.is_ok(), grammar::REGISTRY_NAME.takes(&text));
        if let Ok(name) = parsed {
            prop_assert_eq!(name.key(), text.to_ascii_lowercase());
        }
    }

    #[test]
    fn group_names(text in near("[-\\p{L}\\p{Nd}_.()]{1,92}")) {
        prop_assert_eq!(text.parse::<GroupName>().is_ok(), grammar::GROUP_NAME.takes(&text), "{:?}", text);
    }

    #[test]
    fn platforms(text in near("(linux|windows)/(amd64|arm64|arm|386|x86_64|x86-64|aarch64|riscv64)(/v[5-9])?")) {
        if let Ok(platform) = text.parse::<Platform>() {
            prop_assert!(grammar::PLATFORM.takes(&platform.to_string()));
            prop_assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform.clone());
            prop_assert!(platform.accepts(&platform));
        } else {
            prop_assert!(!grammar::PLATFORM.takes(&text), "{}", text);
        }
    }

    #[test]
    fn media_types(text in near("[a-z]{1,12}/(vnd\\.)?[a-z0-9.]{1,30}(\\.v1)?\\+?(json|gzip)?")) {
        prop_assert_eq!(media_type::is_media_type(&text), grammar::MEDIA_TYPE.takes(&text), "{}", text);
    }

    #[test]
    fn ids(upload in any::<u128>(), run in 0u64.., near in near("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")) {
        let upload = UploadId(uuid::Uuid::from_u128(upload));
        prop_assert_eq!(upload.to_string().parse::<UploadId>().unwrap(), upload);
        prop_assert_eq!(serde_json::from_str::<UploadId>(&serde_json::to_string(&upload).unwrap()).unwrap(), upload);
        prop_assert_eq!(near.parse::<UploadId>().is_ok(), grammar::UUID.takes(&near));
        let id = RunId::nth(run);
        prop_assert_eq!(id.as_str().parse::<RunId>().unwrap(), id.clone());
        prop_assert_eq!(u64::from_str_radix(id.as_str().strip_prefix("cb").unwrap(), 36).unwrap(), run);
        // Hyphens are no part of a run's id.
        let json = serde_json::to_string(&near).unwrap();
        prop_assert_eq!(serde_json::from_str::<RunId>(&json).is_ok(), near.parse::<RunId>().is_ok());
    }

    #[test]
    fn resource_ids_nest_by_whole_parts(scope in "(/[a-zA-Z0-9]{1,4}){1,4}", below in "(/[a-zA-Z0-9]{1,4}){0,3}", beside in "[a-zA-Z0-9]") {
        let outer = ResourceId(scope.clone());
        let within = |text: String| ResourceId(text).is_within(&outer);
        let shouted = format!("{}{below}", scope.to_uppercase());
        prop_assert!(within(shouted));
        let (below, beside) = (format!("{scope}{below}/"), format!("{scope}{beside}{below}"));
        prop_assert!(within(below));
        prop_assert!(!within(beside));
    }

    #[test]
    fn ranges(first in any::<u64>(), last in any::<u64>(), size in prop_oneof![0..20u64, any::<u64>()], small in 0..25u64, small_last in 0..25u64) {
        for (first, last) in [(first, last), (small, small_last)] {
            // As RFC 9110 has it, in arithmetic that cannot overflow.
            let want = if last < first || first >= size {
                Some(0..0)
            } else {
                Some(first..u64::try_from((u128::from(last) + 1).min(u128::from(size))).unwrap())
            };
            prop_assert_eq!(edge::range(&format!("bytes={first}-{last}"), size), want);
            let suffix = if last == 0 || size == 0 { 0..0 } else { size.saturating_sub(last)..size };
            prop_assert_eq!(edge::range(&format!("bytes=-{last}"), size), Some(suffix));
            let rest = if first >= size { 0..0 } else { first..size };
            prop_assert_eq!(edge::range(&format!("bytes={first}-"), size), Some(rest));
        }
    }

    #[test]
    fn ranges_nearly(header in near("bytes=[0-9]{0,21}-[0-9]{0,21}"), size in any::<u64>()) {
        if let Some(part) = edge::range(&header, size) {
            prop_assert!(part.start <= part.end && part.end <= size);
            prop_assert!(grammar::RANGE.takes(&header), "{}", header);
        }
    }

    #[test]
    fn content_ranges(first in any::<u64>(), length in 1..u64::MAX, total in any::<u64>()) {
        let last = u128::from(first) + u128::from(length) - 1;
        let want = u64::try_from(last + 1).ok().map(|end| first..end);
        for header in [format!("{first}-{last}"), format!("bytes {first}-{last}/{total}"), format!("bytes={first}-{last}/*")] {
            prop_assert_eq!(edge::content_range(&header), want.clone(), "{}", header);
        }
        if last > u128::from(first) {
            prop_assert_eq!(edge::content_range(&format!("{last}-{first}")), None);
        }
    }

    #[test]
    fn links(last in ".{0,30}", n in 1..1_000usize, other in "[a-z]{1,5}") {
        let page: Url = "https://h.example:1/v2/a/tags/list?n=2".parse().unwrap();
        let mut target: Url = page.clone();
        target.query_pairs_mut().clear().append_pair("last", &last).append_pair("n", &n.to_string());
        let link = |target: &str, rel: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("link", format!("</x>; rel=\"{other}x\", <{target}>; rel={rel}").parse().unwrap());
            portolan_api::acr::next_page(&page, &headers).unwrap()
        };
        // Commas and angles are encoded in a query: they cannot end the target.
        let query = target.query().unwrap().replace(',', "%2C").replace('>', "%3E");
        for (text, rel) in [(format!("/v2/a/tags/list?{query}"), "\"next\""), (format!("https://evil.example/?{query}"), "next")] {
            let next = link(&text, rel).unwrap();
            prop_assert_eq!((next.origin(), next.path()), (page.origin(), page.path()));
            let pairs: Vec<(String, String)> = next.query_pairs().into_owned().collect();
            prop_assert_eq!(pairs, [("last".to_owned(), last.clone()), ("n".to_owned(), n.to_string())]);
        }
        prop_assert_eq!(link(&format!("/v2/a/tags/list?{query}"), "\"prev\""), None);
    }

    #[test]
    fn challenge_headers(realm in "[ -~]{1,30}", service in "[ -~]{0,20}", scope in "[ -~]{0,20}", junk in near("(Bearer|Basic|Negotiate) [a-z=\", ]{0,20}")) {
        let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let one = format!("Bearer realm={},service={},scope={}", quoted(&realm), quoted(&service), quoted(&scope));
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let want = Some((realm.clone(), some(&service), some(&scope)));
        prop_assert_eq!(challenges(&one), [want.clone()]);
        prop_assert_eq!(challenges(&format!("Basic realm=\"x\", {one}")), [None, want]);
        let _ = challenges(&junk);
    }

    #[test]
    fn scopes(name in repo(), asked in prop::collection::vec("(pull|push|delete|metadata_read|metadata_write|\\*|PULL|)", 1..6), near in near("repository:[a-z]{1,4}:(pull|push|\\*)")) {
        let scope = format!("repository:{name}:{}", asked.join(","));
        let grants = portolan_service::fuzzing::granted(&[&scope], ActionSet::of(&[Action::Pull]));
        let wants = asked.iter().any(|a| a == "pull" || a == "*");
        let good = name.len() <= 255 && grammar::REPO_NAME.takes(&name);
        prop_assert_eq!(grants.len(), usize::from(wants && good));
        for grant in &grants {
            prop_assert_eq!((&grant.name, grant.actions.as_slice()), (&name, &["pull".to_owned()][..]));
            let target = Target::Repo(name.parse().unwrap());
            prop_assert!(grants_allow(&grants, &target, Action::Pull));
            for more in [Action::Push, Action::Delete, Action::MetadataWrite, Action::CatalogList] {
                prop_assert!(!grants_allow(&grants, &target, more));
            }
            let beside = Target::Repo(format!("x{name}").get(..255.min(name.len() + 1)).unwrap().parse().unwrap());
            prop_assert!(beside == target || !grants_allow(&grants, &beside, Action::Pull));
            prop_assert_eq!(scope_text(&target, Action::Pull), format!("repository:{name}:pull"));
        }
        for grant in portolan_service::fuzzing::granted(&[&near], ActionSet::ALL) {
            prop_assert!(grant.name == "*" || grammar::REPO_NAME.takes(&grant.name), "{}", near);
        }
    }

    #[test]
    fn paths(name in repo(), tag in tag(), digest in digest()) {
        let good = name.len() <= 255 && grammar::REPO_NAME.takes(&name);
        for (path, what, last) in [
            (format!("/v2/{name}/manifests/{tag}"), "manifest", tag.as_str()),
            (format!("/v2/{name}/tags/list"), "tags", ""),
            (format!("/v2/{name}/blobs/uploads/"), "uploads", ""),
            (format!("/v2/{name}/blobs/{digest}"), "blob", digest.as_str()),
            (format!("/v2/{name}/referrers/{digest}"), "referrers", digest.as_str()),
        ] {
            let want = good && (last != digest || grammar::DIGEST.takes(&digest));
            for path in [path.clone(), path.replacen(&name, &name.replace('/', "%2F"), 1)] {
                let found = edge::v2_path(&path);
                let named = found.as_ref().map(|f| (f.what, f.repo.as_str(), f.last.as_str()));
                prop_assert_eq!(named, want.then_some((what, name.as_str(), last)), "{}", path);
            }
        }
    }
}
