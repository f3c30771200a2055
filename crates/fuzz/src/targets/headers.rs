//! What stands in headers, queries and forms.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portolan_auth::access::ActionSet;
use portolan_server::http::caller::{Credentials, credentials};
use portolan_server::http::{fuzzing as edge, host};
use portolan_types::limits;

use super::{grammar, request, text, two};
use crate::Target;

/// A number of a header, as wide as need be; more than a u64 is the largest u64.
fn number(digits: &str) -> Option<u64> {
    let digits = digits.trim();
    if digits.is_empty() { None } else { Some(digits.parse().unwrap_or(u64::MAX)) }
}

/// What RFC 9110, 14.1.2 says of one range, by a reading of our own.
fn reference(header: &str, size: u64) -> Option<Range<u64>> {
    let parts = grammar::RANGE.parts(header)?;
    let nothing = Some(0..0);
    match (number(parts[0].unwrap_or("")), number(parts[1].unwrap_or(""))) {
        (None, None) => None,
        (Some(first), Some(last)) if last < first => nothing,
        (Some(first), _) if first >= size => nothing,
        (Some(first), last) => Some(first..last.map_or(size, |last| last.min(size - 1) + 1)),
        (None, Some(0)) => nothing,
        (None, Some(_)) if size == 0 => nothing,
        (None, Some(suffix)) => Some(size - suffix.min(size)..size),
    }
}

/// The first line is the size, the second the header.
pub(super) const RANGE: Target = Target {
    name: "range",
    run: |input| {
        let Some(text) = text(input) else { return };
        let (size, header) = two(text);
        let size = number(&size.chars().filter(char::is_ascii_digit).collect::<String>()).unwrap_or(0);
        let got = edge::range(header, size);
        if let Some(part) = &got {
            assert!(part.start <= part.end && part.end <= size, "{part:?} of {size}");
        }
        if header.is_ascii() {
            assert_eq!(got, reference(header, size), "{header:?} of {size}");
        }
    },
    words: &["bytes=", "bytes=0-", "bytes=-5", "0-0", ",", "18446744073709551615"],
    bytes_max: 120,
};

pub(super) const CONTENT_RANGE: Target = Target {
    name: "content_range",
    run: |input| {
        let Some(text) = text(input) else { return };
        let Some(range) = edge::content_range(text) else { return };
        assert!(range.start < range.end);
        let printed = format!("{}-{}", range.start, range.end - 1);
        assert_eq!(edge::content_range(&printed), Some(range.clone()));
        assert_eq!(edge::content_range(&format!("bytes {printed}/*")), Some(range));
        // Nothing but digits and what may stand around them.
        let known = |c: char| c.is_ascii_digit() || c.is_whitespace() || "bytes=-".contains(c);
        assert!(text.split('/').next().unwrap_or("").chars().all(known), "{text:?}");
    },
    words: &["bytes ", "bytes=", "/*", "0-9", "18446744073709551615"],
    bytes_max: 120,
};

pub(super) const IF_NONE_MATCH: Target = Target {
    name: "if_none_match",
    run: |input| {
        let etag = b"\"sha256:0123\"";
        let Some(parts) = request("/", "if-none-match", input) else { return };
        let got = edge::none_match(&parts, etag);
        // A list by another reading.
        let want = input.split(|c| *c == b',').any(|one| {
            let one = one.trim_ascii();
            let one = one.strip_prefix(b"W/").unwrap_or(one);
            one == b"*" || one == etag || one == &etag[1..etag.len() - 1]
        });
        assert_eq!(got, want);
        assert!(!got || input.contains(&b'*') || input.windows(11).any(|w| w == &etag[1..12]));
    },
    words: &["\"sha256:0123\"", "W/", "*", ", "],
    bytes_max: 200,
};

pub(super) const LOG_WINDOW: Target = Target {
    name: "log_window",
    run: |input| {
        for name in ["range", "x-ms-range"] {
            let Some(parts) = request("/", name, input) else { return };
            if let Some(window) = edge::log_window(&parts) {
                assert!(window.start < window.end, "{window:?}");
            }
        }
    },
    words: &["bytes=", "0-4095", "18446744073709551615"],
    bytes_max: 120,
};

pub(super) const AUTHORIZATION: Target = Target {
    name: "authorization",
    run: |input| {
        let Some(mut parts) = request("/", "authorization", input) else { return };
        let read = credentials(&parts);
        let sent = text(input).unwrap_or("");
        match &read {
            Some(Credentials::Bearer(token)) => assert!(sent.trim_end().ends_with(token.expose().as_str())),
            Some(Credentials::Basic { user, password }) => {
                assert!(!user.contains(':'));
                let again = STANDARD.encode(format!("{user}:{}", password.expose()));
                assert!(sent.trim_end().ends_with(&again), "one pair, one header");
            }
            Some(Credentials::None) => panic!("there was a header"),
            None => {}
        }
        // Nothing of it is printed.
        if let Some(Credentials::Bearer(_)) = &read {
            assert_eq!(format!("{read:?}"), "Some(Bearer(***))");
        }
        // Two headers are never believed.
        let value = parts.headers["authorization"].clone();
        parts.headers.append("authorization", value);
        assert!(credentials(&parts).is_none());
    },
    words: &["Bearer ", "Basic ", "dTpwOnE=", "basic\t"],
    bytes_max: 2_000,
};

/// A parameter's value as a quoted string.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

pub(super) const CHALLENGE: Target = Target {
    name: "challenge",
    run: |input| {
        let Some(text) = text(input) else { return };
        let found = portolan_api::fuzzing::challenges(text);
        assert!(found.len() <= text.len());
        for (realm, service, scope) in found.into_iter().flatten() {
            assert!(!realm.is_empty() && realm.len() <= text.len());
            let mut printed = format!("Bearer realm={}", quoted(&realm));
            for (name, value) in [("service", &service), ("scope", &scope)] {
                if let Some(value) = value {
                    printed += &format!(",{name}={}", quoted(value));
                }
            }
            assert_eq!(portolan_api::fuzzing::challenges(&printed), [Some((realm, service, scope))], "{printed}");
        }
    },
    words: &[
        "Bearer realm=\"",
        "Basic realm=x",
        "service=\"h\"",
        "scope=\"repository:a:pull\"",
        "\\\"",
        "Negotiate abc==",
        ", ",
    ],
    bytes_max: 2_000,
};

/// `Link` of a page that was fetched: the next is at the same place, with another query.
pub(super) const LINK: Target = Target {
    name: "link",
    run: |input| {
        let Ok(value) = http::HeaderValue::from_bytes(input) else { return };
        let mut headers = http::HeaderMap::new();
        headers.insert("link", value);
        let page = address("https://h.example:1/v2/_catalog?n=2");
        let Ok(Some(next)) = portolan_api::acr::next_page(&page, &headers) else { return };
        assert_eq!(next.origin(), page.origin());
        assert_eq!((next.path(), next.username(), next.password()), (page.path(), "", None));
        assert_ne!(next, page, "the next page is another");
        assert_eq!(next.fragment(), None);
    },
    words: &[
        "</v2/_catalog?last=b&n=2>; rel=\"next\"",
        "rel=next",
        "<",
        ">",
        "; ",
        "https:\u{2f}/evil.example/",
        "rel=\"prev\"",
    ],
    bytes_max: 1_000,
};

fn address(text: &str) -> portolan_api::fuzzing::Url {
    text.parse().expect("an address")
}

pub(super) const HOST: Target = Target {
    name: "host",
    run: |input| {
        let Some(parts) = request("/v2/", "host", input) else { return };
        let Some(host) = host::of(&parts) else { return };
        assert!(!host.is_empty() && !host.contains('@'));
        let bare = host::without_port(host);
        assert!(host.starts_with(bare) && !bare.is_empty());
        let port = &host[bare.len()..];
        assert!(port.is_empty() || port.starts_with(':') && port[1..].bytes().all(|c| c.is_ascii_digit()), "{host:?}");
    },
    words: &["localhost:8443", "[::1]", "@", "reg.localhost"],
    bytes_max: 300,
};

/// What a client writes into the header that a trusted proxy then adds to.
pub(super) const PROXIES: Target = Target {
    name: "proxies",
    run: |input| {
        let peer = "10.0.0.1".parse().expect("an address");
        let trusted = "10.0.0.0/8".parse().expect("a network");
        let real: std::net::IpAddr = "198.51.100.1".parse().expect("an address");
        if http::HeaderValue::from_bytes(input).is_err() {
            return;
        }
        for (forwarded, added) in [(false, "198.51.100.1"), (true, "for=198.51.100.1;proto=https")] {
            let ask = |lines: &[&[u8]]| edge::client_address(lines, forwarded, peer, trusted);
            // Alone it is the proxy's word: an address, or refused.
            let _ = ask(&[input]);
            // Whatever stands before it, what the proxy added counts.
            let one = [input, b", ", added.as_bytes()].concat();
            assert_eq!(ask(&[&one]), Some(real), "{forwarded}");
            assert_eq!(ask(&[input, added.as_bytes()]), Some(real), "{forwarded}");
            let stranger = edge::client_address(&[input], forwarded, real, trusted);
            assert_eq!(stranger, Some(real), "nobody else is believed");
        }
    },
    words: &["203.0.113.9", "10.0.0.2", "for=", "\"", ";", "proto=https", "[2001:db8::1]:443", ", ", "unknown"],
    bytes_max: 300,
};

/// Scopes, as they come from a query or form: one a line.
pub(super) const SCOPE: Target = Target {
    name: "scope",
    run: |input| {
        let Some(text) = text(input) else { return };
        let scopes: Vec<&str> = text.split('\n').collect();
        let grants = portolan_service::fuzzing::granted(&scopes, ActionSet::ALL);
        assert!(grants.len() <= 256);
        for (at, grant) in grants.iter().enumerate() {
            match grant.kind.as_str() {
                "registry" => {
                    assert_eq!((grant.name.as_str(), grant.actions.as_slice()), ("catalog", &["*".to_owned()][..]))
                }
                "repository" => {
                    assert!(grant.name == "*" || grammar::REPO_NAME.takes(&grant.name), "{grant:?}");
                    assert!(!grant.actions.is_empty() && grant.actions.len() <= 6);
                }
                other => panic!("{other}"),
            }
            let known = ["pull", "push", "delete", "metadata_read", "metadata_write", "*"];
            assert!(grant.actions.iter().all(|a| known.contains(&a.as_str())), "{grant:?}");
            assert!(
                grants[..at].iter().all(|g| (&g.kind, &g.name) != (&grant.kind, &grant.name)),
                "one grant for each"
            );
        }
        // Asking for what was granted grants it again; who may do nothing gets nothing.
        let printed: Vec<String> =
            grants.iter().map(|g| format!("{}:{}:{}", g.kind, g.name, g.actions.join(","))).collect();
        let printed: Vec<&str> = printed.iter().map(String::as_str).collect();
        assert_eq!(portolan_service::fuzzing::granted(&printed, ActionSet::ALL), grants);
        assert!(portolan_service::fuzzing::granted(&scopes, ActionSet::NONE).is_empty());
    },
    words: &["repository:", ":pull,push", "registry:catalog:*", "metadata_read", "repository:*:*", "(plugin)", " "],
    bytes_max: 4_000,
};

/// The query of a list.
pub(super) const PAGE: Target = Target {
    name: "page",
    run: |input| {
        let Some(text) = text(input) else { return };
        let Some(parts) = request(&format!("/v2/_catalog?{text}"), "accept", b"*/*") else { return };
        if let Some((limit, last)) = edge::page(&parts, 100) {
            assert!(limit <= limits::PAGE_ITEMS_MAX);
            assert!(last.is_none_or(|last| last.len() <= text.len() * 3));
        }
    },
    words: &["n=", "last=", "orderby=timedesc", "&", "n=1000", "%2F"],
    bytes_max: 400,
};

pub(super) const FILTER: Target = Target {
    name: "filter",
    run: |input| {
        let Some(text) = text(input) else { return };
        let run = portolan_tasks::filter::parse(text);
        assert!(run.is_err() || text.len() <= portolan_tasks::filter::FILTER_BYTES_MAX);
        let _ = edge::arm_filter(text);
    },
    words: &[
        "TaskName eq '",
        "Status eq 'Failed'",
        " and ",
        "contains(OutputImageManifests, '",
        "''",
        "resourceType eq '",
        "IsArchiveEnabled eq true",
    ],
    bytes_max: 5_000,
};
