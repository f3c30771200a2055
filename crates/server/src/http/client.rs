//! Whose request it is when it comes through proxies.
//!
//! The other end of the connection is the client, unless it is one of the operator's
//! `trusted_proxies`: then the header they write (`proxy_header`) is read from its end,
//! where the nearest proxy wrote, and the first address that is not a trusted proxy's is
//! the client's. What stands before it is whatever the client sent, and is never looked at;
//! nor is the other header, which the proxies let pass. So nobody but a proxy can give
//! another address than their own.
//!
//! An entry that a trusted proxy wrote and that is no address (`unknown`, a name) is refused:
//! whose request it is cannot be known.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use portolan_types::IpNet;

use super::Conn;
use crate::settings::{ProxyHeader, Settings};

/// Proxies in a row that are followed; a header with more hops that are all trusted is refused.
const HOPS_MAX: usize = 16;

/// The connection as the client made it to the first proxy; as it is, when there is none.
///
/// Errors: what is wrong with what a trusted proxy wrote.
pub(super) fn behind_proxies(settings: &Settings, conn: Conn, headers: &HeaderMap) -> Result<Conn, &'static str> {
    let trusted = &settings.trusted_proxies;
    if trusted.is_empty() || !is_in(trusted, conn.peer.ip()) {
        return Ok(conn);
    }
    let hops = match settings.proxy_header {
        ProxyHeader::XForwardedFor => x_forwarded(headers)?,
        ProxyHeader::Forwarded => forwarded(headers)?,
    };
    let mut found = conn;
    for (n, hop) in hops.enumerate() {
        if n == HOPS_MAX {
            return Err("the request came through too many proxies");
        }
        let hop = hop?;
        found.peer = SocketAddr::new(hop.ip, 0);
        if let Some(scheme) = hop.scheme {
            found.scheme = scheme;
        }
        if !is_in(trusted, hop.ip) {
            break;
        }
    }
    Ok(found)
}

fn is_in(nets: &[IpNet], ip: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(ip))
}

/// What one proxy says of the request it got.
#[derive(Debug, PartialEq)]
struct Hop {
    /// From where it came.
    ip: IpAddr,
    /// How it came.
    scheme: Option<&'static str>,
}

const UNREADABLE: &str = "the header in which proxies write the client's address cannot be read";

type Hops<'a> = Box<dyn Iterator<Item = Result<Hop, &'static str>> + 'a>;

/// The elements of a list header, the last first. Bytes that are not ASCII stay before what is
/// read, or are refused where it is reached.
fn from_the_end<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(|c| *c == b',')).map(<[u8]>::trim_ascii)
}

/// `X-Forwarded-For: client, proxy1, proxy2`. `X-Forwarded-Proto` is the nearest proxy's
/// word on how the client came.
fn x_forwarded(headers: &HeaderMap) -> Result<Hops<'_>, &'static str> {
    let scheme = match from_the_end(headers, "x-forwarded-proto").next() {
        None => None,
        Some(word) => Some(scheme_of(word).ok_or(UNREADABLE)?),
    };
    let hops = from_the_end(headers, "x-forwarded-for");
    Ok(Box::new(hops.map(move |entry| address(entry).map(|ip| Hop { ip, scheme }).ok_or(UNREADABLE))))
}

/// `Forwarded: for=192.0.2.1;proto=https, for="[2001:db8::1]:4711"` (RFC 7239). A comma within
/// quotes would divide an element; it stands in none that means anything here, and what such
/// parts are is no hop.
fn forwarded(headers: &HeaderMap) -> Result<Hops<'_>, &'static str> {
    Ok(Box::new(from_the_end(headers, "forwarded").map(|element| {
        let (mut ip, mut scheme) = (None, None);
        for pair in element.split(|c| *c == b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()) {
            let at = pair.iter().position(|c| *c == b'=').ok_or(UNREADABLE)?;
            let (name, value) = (&pair[..at], unquoted(&pair[at + 1..]).ok_or(UNREADABLE)?);
            if name.eq_ignore_ascii_case(b"for") && ip.replace(address(value).ok_or(UNREADABLE)?).is_some() {
                return Err(UNREADABLE);
            }
            if name.eq_ignore_ascii_case(b"proto") {
                scheme = Some(scheme_of(value).ok_or(UNREADABLE)?);
            }
        }
        ip.map(|ip| Hop { ip, scheme }).ok_or(UNREADABLE)
    })))
}

fn unquoted(value: &[u8]) -> Option<&[u8]> {
    match value.strip_prefix(b"\"") {
        Some(rest) => rest.strip_suffix(b"\"").filter(|inner| !inner.contains(&b'"') && !inner.contains(&b'\\')),
        None => Some(value),
    }
}

fn scheme_of(word: &[u8]) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|scheme| scheme.as_bytes().eq_ignore_ascii_case(word))
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let ip = match text.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) => match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            Some(ip) => IpAddr::V6(ip.parse().ok()?),
            None => text.parse::<SocketAddr>().ok()?.ip(),
        },
    };
    Some(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn ask(header: ProxyHeader, peer: &str, lines: &[(&str, &str)]) -> Result<(String, &'static str), &'static str> {
        let mut settings = Settings::defaults().unwrap();
        settings.trusted_proxies = ["10.0.0.0/8", "fd00::/8"].map(|n| n.parse().unwrap()).to_vec();
        settings.proxy_header = header;
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let conn = Conn { scheme: "http", peer: SocketAddr::new(peer.parse().unwrap(), 5_000) };
        behind_proxies(&settings, conn, &headers).map(|conn| (conn.peer.ip().to_string(), conn.scheme))
    }

    fn xff(peer: &str, lines: &[&str]) -> Result<String, &'static str> {
        let lines: Vec<(&str, &str)> = lines.iter().map(|line| ("X-Forwarded-For", *line)).collect();
        ask(ProxyHeader::XForwardedFor, peer, &lines).map(|(ip, _)| ip)
    }

    #[test]
    fn the_address_before_the_trusted_proxies_counts() {
        for (peer, lines, client) in [
            // Nobody else is believed.
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            // What the client wrote itself is before that.
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["<script>, ,,\"10.0.0.1\", 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["\u{fc}, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.0.0.2,10.9.9.9"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1", "10.0.0.2"], "198.51.100.1"),
            // All of them are proxies: the outermost is as near as is known.
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("fd00::1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
        ] {
            assert_eq!(xff(peer, lines).as_deref(), Ok(client), "{peer} {lines:?}");
        }
        for bad in ["unknown", "", "198.51.100.1, ", "198.51.100.256", "198.51.100.1 1.1.1.1", "a.example", "\u{fc}"] {
            assert!(xff("10.0.0.1", &[bad]).is_err(), "{bad:?}");
            assert!(xff("203.0.113.9", &[bad]).is_ok(), "{bad:?} of somebody else is not read");
        }
        let long = vec!["10.0.0.2"; HOPS_MAX + 1].join(",");
        assert!(xff("10.0.0.1", &[&long]).is_err());
        assert_eq!(
            xff("10.0.0.1", &[&format!("{}198.51.100.1", "1.1.1.1,".repeat(4_000))]).as_deref(),
            Ok("198.51.100.1")
        );
    }

    #[test]
    fn the_other_header_is_not_looked_at() {
        let both =
            [("X-Forwarded-For", "198.51.100.1"), ("Forwarded", "for=192.0.2.7;proto=https"), ("X-Real-IP", "1.1.1.1")];
        assert_eq!(ask(ProxyHeader::XForwardedFor, "10.0.0.1", &both), Ok(("198.51.100.1".into(), "http")));
        assert_eq!(ask(ProxyHeader::Forwarded, "10.0.0.1", &both), Ok(("192.0.2.7".into(), "https")));
    }

    #[test]
    fn the_standard_header_is_read() {
        let of = |line: &str| ask(ProxyHeader::Forwarded, "10.0.0.1", &[("forwarded", line)]);
        let is = |line: &str, client: &str, scheme| assert_eq!(of(line), Ok((client.into(), scheme)), "{line}");
        is("for=192.0.2.7", "192.0.2.7", "http");
        is("For=\"[2001:db8::7]:80\"; Proto=HTTPS;by=10.0.0.1;host=h", "2001:db8::7", "https");
        is("for=1.1.1.1, for=\"192.0.2.7:1\";proto=https, for=10.0.0.2", "192.0.2.7", "https");
        is("for=\"a,b\", for=192.0.2.7", "192.0.2.7", "http");
        for bad in [
            "for=unknown",
            "for=_hidden",
            "for=",
            "proto=https",
            "for",
            "for=\"192.0.2.7",
            "for=1.1.1.1;for=2.2.2.2",
            "for=1.1.1.1;proto=ftp",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_scheme_is_the_proxys_word() {
        let of = |peer: &str, proto: &str| {
            ask(ProxyHeader::XForwardedFor, peer, &[("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-Proto", proto)])
        };
        assert_eq!(of("10.0.0.1", "https").unwrap().1, "https");
        assert_eq!(of("203.0.113.9", "https").unwrap().1, "http");
        assert!(of("10.0.0.1", "javascript").is_err());
    }
}
