//! Which host a request names.

use http::request::Parts;

/// The host and port the client asked for: `:authority` in HTTP/2, `Host` in HTTP/1.1,
/// as written. Absent when there is neither (HTTP/1.0) or it is not text.
pub fn of(parts: &Parts) -> Option<&str> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => parts.headers.get(http::header::HOST)?.to_str().ok(),
    }
    .map(|host| host.rsplit_once('@').map_or(host, |(_, host)| host))
    .filter(|host| !host.is_empty())
}

/// Whether a request says once, and in a way that can be, for which host it is (RFC 9112,
/// section 3.2; RFC 9113, section 8.3.1): of two, a proxy before us may have believed the
/// other one. What is wrong with it, else.
pub fn check(req: &super::Request) -> Result<(), &'static str> {
    let mut hosts = req.headers().get_all(http::header::HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err("the request has more than one Host header");
    }
    match (first, req.uri().authority()) {
        (None, None) if req.version() >= http::Version::HTTP_11 => Err("the request has no Host header"),
        (Some(host), _) if !host.as_bytes().iter().all(may_stand_in_host) => Err("the Host header is no host"),
        // HTTP/1.1 has both in absolute form, and the target counts; in HTTP/2 they agree.
        (Some(host), Some(authority)) if req.version() >= http::Version::HTTP_2 => {
            match host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) {
                true => Ok(()),
                false => Err("the Host header and :authority differ"),
            }
        }
        _ => Ok(()),
    }
}

/// The characters of a host and port (RFC 3986, section 3.2.2), by and large.
fn may_stand_in_host(c: &u8) -> bool {
    c.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(c)
}

/// A host without its port: `localhost:8443` → `localhost`, `[::1]:8443` → `[::1]`.
pub fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|c| c.is_ascii_digit()) && balanced(name) => name,
        _ => host,
    }
}

fn balanced(name: &str) -> bool {
    !name.starts_with('[') || name.ends_with(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, host: Option<&str>) -> Parts {
        let mut req = http::Request::builder().uri(uri);
        if let Some(host) = host {
            req = req.header("host", host);
        }
        req.body(()).unwrap().into_parts().0
    }

    #[test]
    fn authority_wins_over_the_host_header() {
        assert_eq!(of(&parts("/v2/", Some("a:1"))), Some("a:1"));
        assert_eq!(of(&parts("https://b:2/v2/", Some("a:1"))), Some("b:2"));
        assert_eq!(of(&parts("/v2/", None)), None);
        assert_eq!(of(&parts("/v2/", Some("user@a:1"))), Some("a:1"));
    }

    #[test]
    fn ports_come_off() {
        assert_eq!(without_port("localhost:8443"), "localhost");
        assert_eq!(without_port("localhost"), "localhost");
        assert_eq!(without_port("[::1]:8443"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }
}
