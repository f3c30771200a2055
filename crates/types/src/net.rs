//! Networks of IP addresses, as rules name them: `203.0.113.7`, `10.0.0.0/8`, `2001:db8::/32`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: an address and how many of its leading bits count. An IPv4 address written as
/// IPv6 (`::ffff:192.0.2.1`) is the IPv4 address, in a network as in what is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpNet {
    first: IpAddr,
    prefix: u8,
}

/// The text is not a network; what it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an IP address, or a network in CIDR notation, is expected")]
pub struct InvalidNet;

impl IpNet {
    /// The network of the first `prefix` bits of an address.
    pub fn new(ip: IpAddr, prefix: u8) -> Result<IpNet, InvalidNet> {
        match ip {
            IpAddr::V4(ip) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Ok(IpNet { first: IpAddr::V4(Ipv4Addr::from(u32::from(ip) & mask)), prefix })
            }
            IpAddr::V6(v6) if (96..=128).contains(&prefix) && v6.to_ipv4_mapped().is_some() => {
                IpNet::new(ip.to_canonical(), prefix - 96)
            }
            IpAddr::V6(ip) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Ok(IpNet { first: IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask)), prefix })
            }
            _ => Err(InvalidNet),
        }
    }

    /// Whether the address is in the network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        IpNet::new(ip.to_canonical(), self.prefix).is_ok_and(|net| net == *self)
    }
}

impl FromStr for IpNet {
    type Err = InvalidNet;

    fn from_str(text: &str) -> Result<IpNet, InvalidNet> {
        match text.split_once('/') {
            Some((ip, prefix)) => {
                // `+8` and `08` are numbers to Rust.
                let plain = !prefix.is_empty() && prefix.len() <= 3 && prefix.bytes().all(|c| c.is_ascii_digit());
                let plain = plain && (prefix == "0" || !prefix.starts_with('0'));
                let prefix = prefix.parse().ok().filter(|_| plain).ok_or(InvalidNet)?;
                IpNet::new(ip.parse().map_err(|_| InvalidNet)?, prefix)
            }
            None => {
                let ip: IpAddr = text.parse().map_err(|_| InvalidNet)?;
                let ip = ip.to_canonical();
                IpNet::new(ip, if ip.is_ipv4() { 32 } else { 128 })
            }
        }
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_in_a_network() {
        for (network, inside, outside) in [
            ("203.0.113.7", "203.0.113.7", "203.0.113.8"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3/8", "10.0.0.0", "9.255.255.255"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "1.2.3.4"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("192.0.2.0/31", "192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            // One address, however it is written.
            ("192.0.2.0/24", "::ffff:192.0.2.9", "::ffff:192.0.3.9"),
            ("::ffff:192.0.2.0/120", "192.0.2.9", "192.0.3.9"),
        ] {
            assert!(net(network).contains(ip(inside)), "{inside} in {network}");
            assert!(!net(network).contains(ip(outside)), "{outside} in {network}");
        }
    }

    #[test]
    fn what_is_no_network() {
        for bad in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0/8",
            "x",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
            "[::1]",
            "::1%eth0",
            "010.0.0.1",
            "10.0.0.0/-1",
            "10.0.0.0/256",
        ] {
            assert!(bad.parse::<IpNet>().is_err(), "{bad:?}");
        }
        assert_eq!(net("10.1.2.3/8").to_string(), "10.0.0.0/8");
    }

    proptest! {
        #[test]
        fn a_network_holds_its_addresses_and_reads_back(bits: u32, prefix in 0u8..=32, other: u32) {
            let network = IpNet::new(Ipv4Addr::from(bits).into(), prefix).unwrap();
            prop_assert!(network.contains(Ipv4Addr::from(bits).into()));
            prop_assert_eq!(net(&network.to_string()), network);
            let same = prefix == 0 || (bits ^ other) >> (32 - prefix) == 0;
            prop_assert_eq!(network.contains(Ipv4Addr::from(other).into()), same);
        }
    }
}
