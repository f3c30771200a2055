//! Who may be reached from a build step.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Addresses at which machines of clouds tell about themselves, or hand out identities, besides
/// the link-local ones. Sources: the clouds' own documentation of their metadata services.
const METADATA: [IpAddr; 4] = [
    // Azure's host.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // Alibaba.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Oracle.
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    // Amazon.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// What steps may reach: what is on `allow`, and else what is not on `deny`. Whatever they
/// say, nothing reaches the host's loopback addresses or more than one machine at a time.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Reachable, whatever `deny` says.
    pub allow: Vec<Rule>,
    /// Not reachable.
    pub deny: Vec<Rule>,
    /// The server's own doors, by the names that clients call it.
    pub gates: Vec<Gate>,
    /// Who is asked for names; nobody here: the name servers of the host.
    pub name_servers: Vec<SocketAddr>,
}

/// A name of the server's, reachable from steps wherever it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The name, and every name below it.
    pub name: String,
    /// The port that clients use.
    pub port: u16,
    /// Where the server listens.
    pub to: SocketAddr,
}

/// Some addresses or names, and some ports.
///
/// As text: `*`, `10.0.0.0/8`, `[fd00::]/8:443`, `pypi.org:443`, `*.example.com:8000-8100`; or
/// one of the words `host` (the machine that builds), `metadata` (link-local addresses and
/// what clouds have beside them) and `private` (addresses of private networks).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    to: To,
    ports: Option<(u16, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum To {
    Any,
    Host,
    Metadata,
    Private,
    Net(IpAddr, u8),
    Name(String),
    Below(String),
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Rule, String> {
        let bad = |why: &str| {
            format!(
                "{text:?} is not an address, a network, a name or one of *, host, metadata, private, with or without a port: {why}"
            )
        };
        let (to, ports) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((ip, rest)) => {
                let (length, ports) = match rest.split_once(':') {
                    Some((length, ports)) => (length, Some(ports)),
                    None => (rest, None),
                };
                (format!("{ip}{length}"), ports)
            }
            // More than one colon is an address of IPv6 without a port.
            None if text.matches(':').count() == 1 => {
                let (to, ports) = text.split_once(':').unwrap_or((text, ""));
                (to.to_owned(), Some(ports))
            }
            None => (text.to_owned(), None),
        };
        let ports = match ports {
            None => None,
            Some(ports) => {
                let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                let first: u16 = first.parse().map_err(|_| bad("the port is not one"))?;
                let last: u16 = last.parse().map_err(|_| bad("the port is not one"))?;
                if first == 0 || first > last {
                    return Err(bad("the ports are not a range"));
                }
                Some((first, last))
            }
        };
        let to = match to.to_ascii_lowercase().as_str() {
            "*" => To::Any,
            "host" => To::Host,
            "metadata" => To::Metadata,
            "private" => To::Private,
            other => match other.split_once('/') {
                Some((ip, length)) => {
                    let ip: IpAddr = ip.parse().map_err(|_| bad("the address is not one"))?;
                    let length: u8 = length.parse().map_err(|_| bad("the length of the network is not one"))?;
                    if length > if ip.is_ipv4() { 32 } else { 128 } {
                        return Err(bad("the length of the network is not one"));
                    }
                    To::Net(ip, length)
                }
                None => match other.parse::<IpAddr>() {
                    Ok(ip) => To::Net(ip, if ip.is_ipv4() { 32 } else { 128 }),
                    Err(_) => {
                        let name = other.strip_prefix("*.").unwrap_or(other);
                        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                        let dots = name.starts_with('.') || name.ends_with('.') || name.contains("..");
                        if name.is_empty() || name.len() > 253 || dots || !name.chars().all(good) {
                            return Err(bad("the name is not one"));
                        }
                        let name = name.to_owned();
                        if other.starts_with("*.") { To::Below(name) } else { To::Name(name) }
                    }
                },
            },
        };
        Ok(Rule { to, ports })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            To::Any => f.write_str("*")?,
            To::Host => f.write_str("host")?,
            To::Metadata => f.write_str("metadata")?,
            To::Private => f.write_str("private")?,
            To::Net(ip @ IpAddr::V4(_), 32) => write!(f, "{ip}")?,
            To::Net(ip @ IpAddr::V4(_), length) => write!(f, "{ip}/{length}")?,
            To::Net(ip, length) => write!(f, "[{ip}]/{length}")?,
            To::Name(name) => f.write_str(name)?,
            To::Below(name) => write!(f, "*.{name}")?,
        }
        match self.ports {
            None => Ok(()),
            Some((first, last)) if first == last => write!(f, ":{first}"),
            Some((first, last)) => write!(f, ":{first}-{last}"),
        }
    }
}

impl Rule {
    /// Whether it speaks of this port of this address. `names` are those that the step asked
    /// for and got the address as an answer; `away` says whether the address is that of
    /// another machine.
    fn holds(&self, ip: IpAddr, port: u16, names: &[String], away: bool) -> bool {
        if self.ports.is_some_and(|(first, last)| port < first || port > last) {
            return false;
        }
        match &self.to {
            To::Any => true,
            To::Host => !away,
            To::Metadata => is_metadata(ip),
            To::Private => is_private(ip),
            To::Net(net, length) => within(ip, *net, *length),
            To::Name(_) | To::Below(_) => names.iter().any(|name| self.names(name)),
        }
    }

    /// Whether it speaks of this name.
    fn names(&self, name: &str) -> bool {
        match &self.to {
            To::Name(own) => own == name,
            To::Below(above) => name.strip_suffix(above.as_str()).is_some_and(|rest| rest.ends_with('.')),
            To::Any => true,
            _ => false,
        }
    }
}

impl Policy {
    /// Whether a step may connect; if not, why.
    pub(super) fn decide(&self, ip: IpAddr, port: u16, names: &[String], away: bool) -> Result<(), String> {
        let all = disguises(ip);
        let never = |ip: &IpAddr| {
            let zero = matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.octets()[0] >= 240);
            ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || zero
        };
        if all.iter().any(never) {
            return Err("it is not the address of another machine".to_owned());
        }
        // Whoever owns a name says what its addresses are, so a name opens neither the host nor
        // what its cloud tells it.
        let guarded = |rule: &&Rule| matches!(rule.to, To::Host | To::Metadata);
        let guarded = |ip: &IpAddr| self.deny.iter().filter(guarded).any(|rule| rule.holds(*ip, port, names, away));
        let opens = |rule: &Rule, ip: &IpAddr| {
            rule.holds(*ip, port, names, away)
                && !(matches!(rule.to, To::Name(_) | To::Below(_) | To::Any) && guarded(ip))
        };
        if all.iter().all(|ip| self.allow.iter().any(|rule| opens(rule, ip))) {
            return Ok(());
        }
        let rule = self.deny.iter().find(|rule| all.iter().any(|ip| rule.holds(*ip, port, names, away)));
        match rule {
            Some(rule) => Err(format!("builds may not reach it here ({rule})")),
            None => Ok(()),
        }
    }

    /// Whether a step may ask for a name. Where everything is denied that is not allowed, a
    /// question is a message, too.
    pub(super) fn may_ask(&self, name: &str) -> bool {
        let closed = self.deny.iter().any(|rule| rule.to == To::Any && rule.ports.is_none());
        !closed || self.allow.iter().any(|rule| rule.names(name))
    }

    /// The gate that a name leads to, by its number.
    pub(super) fn gate_of(&self, name: &str) -> Option<usize> {
        self.gates.iter().position(|gate| {
            name.strip_suffix(gate.name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }
}

/// An address and those that it only wraps: gateways unwrap them again.
fn disguises(ip: IpAddr) -> Vec<IpAddr> {
    let mut all = vec![ip.to_canonical()];
    if let IpAddr::V6(v6) = ip.to_canonical() {
        let o = v6.octets();
        let v4 = |at: usize| IpAddr::V4(Ipv4Addr::new(o[at], o[at + 1], o[at + 2], o[at + 3]));
        match v6.segments() {
            // NAT64 (RFC 6052) and addresses of IPv4 written as IPv6 (RFC 4291).
            [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0, 0, 0, 0, 0, 0, _, _] if !v6.is_loopback() => all.push(v4(12)),
            // 6to4 (RFC 3056).
            [0x2002, ..] => all.push(v4(2)),
            _ => {}
        }
    }
    all
}

fn is_metadata(ip: IpAddr) -> bool {
    METADATA.contains(&ip)
        || match ip {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
        }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        IpAddr::V6(v6) => v6.segments()[0] & 0xfe00 == 0xfc00,
    }
}

fn within(ip: IpAddr, net: IpAddr, length: u8) -> bool {
    fn same(a: &[u8], b: &[u8], length: u8) -> bool {
        let (bytes, bits) = (usize::from(length / 8), length % 8);
        a[..bytes] == b[..bytes] && (bits == 0 || (a[bytes] ^ b[bytes]) >> (8 - bits) == 0)
    }
    match (ip, net) {
        (IpAddr::V4(ip), IpAddr::V4(net)) => same(&ip.octets(), &net.octets(), length),
        (IpAddr::V6(ip), IpAddr::V6(net)) => same(&ip.octets(), &net.octets(), length),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &str, deny: &str) -> Policy {
        let rules = |text: &str| text.split_whitespace().map(|rule| rule.parse().unwrap()).collect();
        Policy { allow: rules(allow), deny: rules(deny), ..Policy::default() }
    }

    fn reaches(policy: &Policy, address: &str) -> bool {
        let address: SocketAddr = address.parse().unwrap();
        policy.decide(address.ip(), address.port(), &[], true).is_ok()
    }

    #[test]
    fn rules_are_read_and_written() {
        for text in [
            "*",
            "*:443",
            "host",
            "host:8080",
            "metadata",
            "private",
            "10.0.0.0/8",
            "10.1.2.3:80",
            "[fd00::]/8",
            "[fd00::]/8:443",
            "pypi.org:443",
            "*.example.com:8000-8100",
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
        assert_eq!("fd00::1".parse::<Rule>().unwrap().to_string(), "[fd00::1]/128");
        for text in ["", ":", "a b", "10.0.0.0/33", "x:0", "x:9-8", "x:70000", "a..b", ".a", "[::1", "fd00::/129", "*."]
        {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_lists_decide_and_allow_comes_first() {
        let usual = policy("", "host metadata");
        assert!(reaches(&usual, "1.1.1.1:443") && reaches(&usual, "10.0.0.1:80"));
        for address in ["169.254.169.254:80", "168.63.129.16:80", "[fe80::1]:80", "[fd00:ec2::254]:80"] {
            assert!(!reaches(&usual, address), "{address}");
        }
        assert!(usual.decide([192, 0, 2, 2].into(), 22, &[], false).is_err());
        let strict = policy("10.1.0.0/16:443 *.pypi.org", "private *:25");
        assert!(
            reaches(&strict, "10.1.2.3:443") && !reaches(&strict, "10.1.2.3:80") && !reaches(&strict, "10.2.0.1:443")
        );
        assert!(!reaches(&strict, "1.1.1.1:25"));
        let closed = policy("pypi.org:443", "*");
        assert!(!reaches(&closed, "1.1.1.1:443"));
        assert!(closed.decide([1, 1, 1, 1].into(), 443, &["pypi.org".to_owned()], true).is_ok());
        let rebound = policy("pypi.org:443", "host metadata *");
        let names = ["pypi.org".to_owned()];
        assert!(rebound.decide([169, 254, 169, 254].into(), 443, &names, true).is_err());
        assert!(rebound.decide([192, 0, 2, 2].into(), 443, &names, false).is_err());
        assert!(closed.may_ask("pypi.org") && !closed.may_ask("evil.example") && usual.may_ask("evil.example"));
    }

    #[test]
    fn no_rule_opens_the_hosts_loopback_and_no_disguise_helps() {
        let open = policy("*", "");
        for address in [
            "127.0.0.1:80",
            "0.0.0.0:80",
            "0.1.2.3:80",
            "[::1]:80",
            "[::]:80",
            "[::ffff:127.0.0.1]:80",
            "[64:ff9b::7f00:1]:80",
            "[2002:7f00:1::]:80",
            "[::7f00:1]:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "[ff02::1]:80",
        ] {
            assert!(!reaches(&open, address), "{address}");
        }
        let usual = policy("", "host metadata");
        for address in ["[::ffff:169.254.169.254]:80", "[64:ff9b::a9fe:a9fe]:80", "[2002:a9fe:a9fe::]:80"] {
            assert!(!reaches(&usual, address), "{address}");
        }
    }

    #[test]
    fn gates_are_found_by_their_names_and_those_below() {
        let gate = Gate { name: "reg.test".to_owned(), port: 443, to: "127.0.0.1:443".parse().unwrap() };
        let policy = Policy { gates: vec![gate], ..Policy::default() };
        assert_eq!(policy.gate_of("reg.test"), Some(0));
        assert_eq!(policy.gate_of("my.reg.test"), Some(0));
        assert_eq!(policy.gate_of("myreg.test"), None);
    }
}
