//! `Accept`: which media types a client takes (RFC 9110, section 12.5.1).

use http::header;
use http::request::Parts;

/// Whether the request takes an answer of this media type. Without the header it takes any.
/// Of several ranges that name the type the most exact one counts; `q=0` refuses. Other
/// parameters are not looked at: manifests have none.
pub(crate) fn takes(parts: &Parts, media_type: &str) -> bool {
    let mut values = parts.headers.get_all(header::ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    // How exact the best range so far is, and what it says.
    let mut best = (0, false);
    let mut any = false;
    for value in values {
        // What is not text names no type.
        for range in value.to_str().unwrap_or("").split(',') {
            let mut pieces = range.split(';').map(str::trim);
            let name = pieces.next().unwrap_or("");
            if name.is_empty() {
                continue;
            }
            any = true;
            let exactness = exactness(name, media_type);
            if exactness >= best.0 && exactness > 0 {
                let refused = pieces.any(is_zero_quality);
                best = (exactness, !refused || (exactness == best.0 && best.1));
            }
        }
    }
    best.1 || !any
}

/// 3 for the type itself, 2 for `type/*`, 1 for `*/*`, 0 for another.
fn exactness(range: &str, media_type: &str) -> u8 {
    if range.eq_ignore_ascii_case(media_type) {
        return 3;
    }
    match (range.strip_suffix("/*"), media_type.split_once('/')) {
        (Some("*"), _) => 1,
        (Some(kind), Some((ours, _))) if kind.eq_ignore_ascii_case(ours) => 2,
        _ => 0,
    }
}

/// Whether a parameter is `q=0`, `q=0.0`, …
fn is_zero_quality(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    name.trim().eq_ignore_ascii_case("q") && value.trim().parse::<f32>().is_ok_and(|q| q <= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(headers: &[&str], media_type: &str) -> bool {
        let mut req = http::Request::builder().uri("/");
        for value in headers {
            req = req.header("accept", *value);
        }
        takes(&req.body(()).unwrap().into_parts().0, media_type)
    }

    #[test]
    fn ranges_and_qualities() {
        for (headers, expect) in [
            (&[][..], true),
            (&[""], true),
            (&["a/b"], true),
            (&["A/B"], true),
            (&["a/b; charset=utf-8"], true),
            (&["x/y", "a/b"], true),
            (&["x/y, a/b;q=0.1"], true),
            (&["a/*"], true),
            (&["*/*"], true),
            (&["x/y"], false),
            (&["x/*, x/y"], false),
            (&["a/b;q=0"], false),
            (&["a/b;q=0.000, */*"], false),
            (&["*/*;q=0, a/b"], true),
            (&["a/*;q=0, */*"], false),
            (&["a/bc"], false),
        ] {
            assert_eq!(asks(headers, "a/b"), expect, "{headers:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_the_type_itself_is_taken(junk in "[ -~]{0,60}") {
            let plain = junk.replace([',', ';'], " ");
            let header = format!("{plain}, a/b");
            let _ = asks(&[&junk], "a/b");
            proptest::prop_assert!(asks(&[&header], "a/b"));
        }
    }
}
