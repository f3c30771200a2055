//! The two range headers: `Range` of a blob pull (RFC 9110, section 14) and
//! `Content-Range` of a chunk (OCI distribution-spec, "Pushing a blob in chunks").

use std::ops::Range;

/// What a `Range` header asks of content of `size` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it: no header, one that is not understood, or several ranges, which a server
    /// may answer with everything.
    All,
    /// These bytes, not none.
    Part(Range<u64>),
    /// Nothing that is there: 416.
    Outside,
}

/// Read a `Range` header.
pub(crate) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some((unit, spec)) = header.and_then(|h| h.split_once('=')) else { return Wanted::All };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Wanted::All;
    }
    let Some((first, last)) = spec.split_once('-') else { return Wanted::All };
    match (number(first), number(last)) {
        (Ok(Some(first)), Ok(last)) => match last {
            // Backwards: a server may ignore it or refuse it, and the client that wrote it
            // did not want everything.
            Some(last) if last < first => Wanted::Outside,
            _ if first >= size => Wanted::Outside,
            last => Wanted::Part(first..last.map_or(size, |l| l.saturating_add(1).min(size))),
        },
        (Ok(None), Ok(Some(0))) => Wanted::Outside,
        (Ok(None), Ok(Some(_))) if size == 0 => Wanted::Outside,
        (Ok(None), Ok(Some(suffix))) => Wanted::Part(size.saturating_sub(suffix)..size),
        _ => Wanted::All,
    }
}

/// Empty is absent; more digits than a number holds are the largest number.
fn number(text: &str) -> Result<Option<u64>, ()> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if !text.bytes().all(|c| c.is_ascii_digit()) {
        return Err(());
    }
    Ok(Some(text.parse().unwrap_or(u64::MAX)))
}

/// Read the `Content-Range` of a chunk, `<first>-<last>`, both inclusive; also with the
/// `bytes ` and `/<total>` of RFC 9110, which some clients write. `None` when it is not one.
pub(crate) fn chunk(header: &str) -> Option<Range<u64>> {
    let text = header.trim();
    let text = text.strip_prefix("bytes").map_or(text, |t| t.trim_start_matches([' ', '=']));
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = text.split_once('-')?;
    let (Ok(Some(first)), Ok(Some(last))) = (number(first), number(last)) else { return None };
    (first <= last).then(|| Some(first..last.checked_add(1)?)).flatten()
}

/// The `Range` header of an upload that holds so many bytes. An empty one is `0-0`, as
/// docker's registry has it.
pub(crate) fn held(length: u64) -> String {
    format!("0-{}", length.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_pull() {
        let size = 10;
        for (header, expect) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-5", Wanted::Part(2..6)),
            ("bytes=2-", Wanted::Part(2..10)),
            ("bytes=2-999", Wanted::Part(2..10)),
            ("bytes=2-99999999999999999999999", Wanted::Part(2..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-999", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Outside),
            ("bytes=-0", Wanted::Outside),
            ("bytes=5-2", Wanted::Outside),
            ("Bytes=0-0", Wanted::Part(0..1)),
            ("bytes = 0-0", Wanted::Part(0..1)),
            ("bytes=0-1,3-4", Wanted::All),
            ("bytes=", Wanted::All),
            ("bytes=-", Wanted::All),
            ("bytes=a-b", Wanted::All),
            ("items=0-1", Wanted::All),
            ("0-1", Wanted::All),
        ] {
            assert_eq!(wanted(Some(header), size), expect, "{header}");
        }
        assert_eq!(wanted(None, size), Wanted::All);
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Outside);
        assert_eq!(wanted(Some("bytes=-5"), 0), Wanted::Outside);
    }

    #[test]
    fn ranges_of_a_chunk() {
        for (header, expect) in [
            ("0-9", Some(0..10)),
            ("10-10", Some(10..11)),
            ("bytes 0-9/20", Some(0..10)),
            ("bytes=0-9/*", Some(0..10)),
            ("9-0", None),
            ("0-18446744073709551615", None),
            ("0-", None),
            ("-9", None),
            ("", None),
            ("a-b", None),
        ] {
            assert_eq!(chunk(header), expect, "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_part_lies_inside(header in ".{0,30}", first in 0u64..200, last in 0u64..200, size in 0u64..150) {
            for header in [header, format!("bytes={first}-{last}"), format!("bytes={first}-"), format!("bytes=-{last}")] {
                if let Wanted::Part(range) = wanted(Some(&header), size) {
                    proptest::prop_assert!(range.start < range.end && range.end <= size);
                }
            }
        }

        #[test]
        fn a_chunk_is_what_was_written(first in 0u64..1 << 40, length in 1u64..1 << 40, junk in ".{0,30}") {
            proptest::prop_assert_eq!(chunk(&format!("{first}-{}", first + length - 1)), Some(first..first + length));
            if let Some(range) = chunk(&junk) { proptest::prop_assert!(range.start < range.end); }
        }
    }
}
