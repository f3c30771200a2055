//! From where a registry's data plane may be reached.
//!
//! With `publicNetworkAccess` off, only clients in the operator's private networks
//! ([`ServiceConfig::private_networks`]) get in: they are what a private endpoint is in
//! Azure. With it on, `networkRuleSet` decides: `defaultAction` Deny lets in the addresses
//! that a rule names and no others. Private networks are always let in. The server's own
//! builds do not come over the network.
//!
//! What stands here is asked before anything else about a request, so that a client from
//! elsewhere learns nothing but that.
//!
//! [`ServiceConfig::private_networks`]: crate::ServiceConfig

use std::net::IpAddr;

use portolan_types::IpNet;
use serde_json::{Map, Value};

use crate::properties;
use crate::registries::Registry;
use crate::service::Service;
use crate::{Error, Kind, Result};

/// The rules of one registry, ready to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkRules {
    public: bool,
    deny: bool,
    allowed: Vec<IpNet>,
}

impl NetworkRules {
    /// Of properties that are complete with their defaults. A rule that cannot be read lets
    /// nobody in.
    pub(crate) fn read(properties: &Map<String, Value>) -> NetworkRules {
        let set = properties.get("networkRuleSet");
        let rules = set.and_then(|s| s.get("ipRules")).and_then(Value::as_array);
        NetworkRules {
            public: properties.get("publicNetworkAccess").and_then(Value::as_str) != Some("Disabled"),
            deny: properties::network_rules(properties).is_some_and(|rules| rules.deny),
            allowed: rules.into_iter().flatten().filter_map(|rule| rule.get("value")?.as_str()?.parse().ok()).collect(),
        }
    }

    /// How many addresses and networks are named.
    pub(crate) fn rules(&self) -> usize {
        self.allowed.len()
    }

    fn admit(&self, client: IpAddr, private: &[IpNet]) -> bool {
        match (self.public, self.deny) {
            (true, false) => true,
            (true, true) => private.iter().chain(&self.allowed).any(|net| net.contains(client)),
            (false, _) => private.iter().any(|net| net.contains(client)),
        }
    }
}

impl Service {
    /// Whether a client at this address may speak to the registry's data plane.
    ///
    /// Errors: `DENIED`, in ACR's words.
    pub fn check_network(&self, registry: &Registry, client: IpAddr) -> Result<()> {
        if registry.network.admit(client, &self.config.private_networks) {
            return Ok(());
        }
        let message = format!(
            "client with IP '{}' is not allowed access. Refer https://aka.ms/acr/firewall to grant access.",
            client.to_canonical()
        );
        Err(Error::new(Kind::Forbidden, "DENIED", message))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_let_in() {
        let private: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let ask = |properties: Value, client: &str| {
            let properties = properties::with_defaults(properties.as_object().cloned().unwrap());
            NetworkRules::read(&properties).admit(client.parse().unwrap(), &private)
        };
        let deny = json!({"networkRuleSet": {"defaultAction": "Deny", "ipRules": [
            {"action": "Allow", "value": "203.0.113.0/24"}, {"action": "Allow", "value": "2001:db8::/32"}]}});
        let off = json!({"publicNetworkAccess": "Disabled", "networkRuleSet": deny["networkRuleSet"]});
        for (client, open, ruled, closed) in [
            ("198.51.100.1", true, false, false),
            ("203.0.113.9", true, true, false),
            ("::ffff:203.0.113.9", true, true, false),
            ("2001:db8::1", true, true, false),
            ("10.1.2.3", true, true, true),
            ("::1", true, false, false),
        ] {
            assert_eq!(ask(json!({}), client), open, "{client}");
            assert_eq!(ask(deny.clone(), client), ruled, "{client}");
            assert_eq!(ask(off.clone(), client), closed, "{client}");
        }
        let odd = json!({"networkRuleSet": {"defaultAction": "Deny", "ipRules": [{"value": "everybody"}, {}, 3]}});
        assert!(!ask(odd, "198.51.100.1"));
    }
}
