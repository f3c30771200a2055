//! Where a server may connect to on somebody else's word.
//!
//! A build names addresses: base images, archives, git repositories. They are fetched from
//! where the server stands, which reaches what a stranger must not: the machine itself, the
//! cloud's metadata service, the operator's network. [`Egress`] decides by the address that a
//! connection would go to, at the moment it is made: after redirects, and whatever a name
//! means now.
//!
//! Where the environment names a proxy (`HTTPS_PROXY` and its kin), the proxy looks names up
//! and makes the connections; then only addresses written as numbers are judged here, and the
//! rest is the proxy's to refuse.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use portolan_types::IpNet;
use reqwest::Url;

use crate::error::{Error, Result};
use crate::transport::{self, TransportOptions};

/// The rules.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    /// Allowed whatever else is said.
    pub allow: Vec<Allowed>,
    /// Whether private networks (RFC 1918 and their like) may be reached.
    pub private: bool,
}

/// What an operator allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Addresses.
    Net(IpNet),
    /// A host, whatever address its name has; with a `.` in front, all below it.
    Host(String),
}

/// The text is neither a network nor a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network such as 10.0.0.0/8, or a host name, is expected")]
pub struct InvalidAllowed;

impl FromStr for Allowed {
    type Err = InvalidAllowed;

    fn from_str(text: &str) -> std::result::Result<Allowed, InvalidAllowed> {
        if let Ok(net) = text.parse() {
            return Ok(Allowed::Net(net));
        }
        let fine = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
        let host = !text.is_empty() && text.len() <= 253 && text.bytes().all(fine) && text != ".";
        host.then(|| Allowed::Host(text.to_ascii_lowercase())).ok_or(InvalidAllowed)
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Allowed::Net(net) => write!(f, "{net}"),
            Allowed::Host(host) => f.write_str(host),
        }
    }
}

impl Egress {
    /// No rules: what a person's own command line may do.
    pub fn open() -> Egress {
        let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let allow = all.into_iter().filter_map(|ip| IpNet::new(ip, 0).ok()).map(Allowed::Net).collect();
        Egress { allow, private: true }
    }

    /// Whether a connection to `host`, which is at `ip`, may be made.
    pub fn permits(&self, host: &str, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let named = |allowed: &Allowed| match allowed {
            Allowed::Net(net) => net.contains(ip),
            Allowed::Host(name) => match name.strip_prefix('.') {
                Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
                None => *name == host,
            },
        };
        self.allow.iter().any(named)
            || match reach(ip) {
                Reach::World => true,
                Reach::Private => self.private,
                Reach::Never => false,
            }
    }

    /// The addresses of a host that may be connected to; an error that says so when there are
    /// none.
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found: Vec<SocketAddr> = match bare.parse::<IpAddr>() {
            Ok(ip) => vec![(ip, port).into()],
            Err(_) => transport::lookup(bare, port).await?,
        };
        let any = !found.is_empty();
        let permitted: Vec<SocketAddr> = found.into_iter().filter(|a| self.permits(bare, a.ip())).collect();
        if any && permitted.is_empty() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal(bare)));
        }
        Ok(permitted)
    }

    /// Refuse an address that is written as a number and not permitted. Names are judged when
    /// they are looked up.
    pub fn check(&self, url: &Url) -> Result<()> {
        let Some(host) = url.host_str() else { return Ok(()) };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(ip) if !self.permits(bare, ip) => Err(Error::Local(refusal(bare))),
            _ => Ok(()),
        }
    }
}

fn refusal(host: &str) -> String {
    format!(
        "this server does not connect to {host} for a build: the address is the server's own or in a network that \
         is closed to builds; hint: its operator can open it with the setting build_fetch_allow"
    )
}

/// A client that connects only where `egress` permits; otherwise as
/// [`transport::http_client`]. Redirects are followed by whoever asks, or not at all: each
/// address is to be [checked](Egress::check) before it is asked for.
pub fn guarded_client(options: &TransportOptions, egress: Arc<Egress>) -> Result<reqwest::Client> {
    transport::client_guarded(options, egress)
}

/// How far away an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    World,
    Private,
    Never,
}

fn reach(ip: IpAddr) -> Reach {
    match ip {
        IpAddr::V4(ip) => reach_v4(ip),
        IpAddr::V6(ip) => reach_v6(ip),
    }
}

/// By IANA's registry of special-purpose addresses, and the metadata services that clouds
/// have outside link-local ones.
fn reach_v4(ip: Ipv4Addr) -> Reach {
    match ip.octets() {
        // This host, loopback, link-local, protocol assignments, multicast and reserved.
        [0 | 127, ..] | [169, 254, ..] | [192, 0, 0, _] | [224..=255, ..] => Reach::Never,
        // Azure's and Alibaba's.
        [168, 63, 129, 16] | [100, 100, 100, 200] => Reach::Never,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18 | 19, ..] => Reach::Private,
        _ => Reach::World,
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    let s = ip.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        reach_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        // Unspecified, loopback and IPv4-compatible ones; link-local, site-local, multicast.
        [0, 0, 0, 0, 0, 0, ..] | [0xfe80..=0xfeff, ..] | [0xff00..=0xffff, ..] => Reach::Never,
        // Amazon's metadata service.
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254] => Reach::Never,
        [0xfc00..=0xfdff, ..] => Reach::Private,
        // NAT64 and 6to4 carry an IPv4 address, Teredo one that is disguised.
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x0064, 0xff9b, ..] | [0x2001, 0, ..] => Reach::Never,
        [0x2002, high, low, ..] => embedded(high, low),
        _ => Reach::World,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(egress: &Egress, ip: &str) -> bool {
        egress.permits("example.com", ip.parse().unwrap())
    }

    #[test]
    fn what_a_stranger_must_not_reach() {
        let never = [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.0.192",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "fd00:ec2::254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:7f00:1::",
            "2001:0:1::1",
        ];
        let private = [
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "fc00::1",
            "fd12::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
        ];
        let world = ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::101:101", "8.8.8.8"];
        let (strict, usual) = (Egress::default(), Egress { private: true, ..Egress::default() });
        for ip in never {
            assert!(!permits(&strict, ip) && !permits(&usual, ip), "{ip}");
            assert!(permits(&Egress::open(), ip), "{ip}");
        }
        for ip in private {
            assert!(!permits(&strict, ip) && permits(&usual, ip), "{ip}");
        }
        for ip in world {
            assert!(permits(&strict, ip), "{ip}");
        }
    }

    #[test]
    fn what_an_operator_allows() {
        let allow = ["127.0.0.0/8", "git.corp", ".lab.example.com"].map(|a| a.parse().unwrap()).to_vec();
        let egress = Egress { allow, private: false };
        let may = |host: &str, ip: &str| egress.permits(host, ip.parse().unwrap());
        assert!(may("x", "127.0.0.1") && may("x", "::ffff:127.1.1.1") && !may("x", "::1"));
        assert!(may("git.corp", "10.0.0.1") && may("GIT.corp.", "169.254.1.1") && !may("xgit.corp", "10.0.0.1"));
        assert!(may("a.lab.example.com", "10.0.0.1") && !may("lab.example.com", "10.0.0.1"));
        assert!(!may("evil-lab.example.com", "10.0.0.1"));
        for bad in ["", ".", "a b", "10.0.0.0/33", "a/b", "http://x"] {
            assert!(bad.parse::<Allowed>().is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_in_addresses() {
        let egress = Egress::default();
        // The URL standard makes one of all of these.
        for url in ["http://2130706433/", "http://[::ffff:7f00:1]/", "http://127.1:80/x", "http://0/"] {
            assert!(egress.check(&Url::parse(url).unwrap()).is_err(), "{url}");
        }
        for url in ["https://example.com/", "http://1.1.1.1/"] {
            assert!(egress.check(&Url::parse(url).unwrap()).is_ok(), "{url}");
        }
    }
}
