//! Tiers: what a registry of each SKU may hold and do.
//!
//! A tier is a set of limits. They begin as Azure Container Registry's (its page "Service
//! tiers and features", as of February 2026), and the operator may change any of them
//! ([`Tier::set`]). A change of a property is refused where the tier does not allow what it
//! turns on; what is on already stays, so that a tier made smaller locks nobody out of a
//! registry that was made before.

use serde_json::{Map, Value};

use crate::properties;
use crate::registries::{Registry, Sku};
use crate::service::Service;
use crate::{Error, Kind, Result};

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// The limits of one SKU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Storage that the usage figures give as included, in bytes. Passing it is no error.
    pub included_bytes: u64,
    /// Bytes of the distinct blobs of a registry; a push that would pass it is refused.
    pub storage_bytes_max: u64,
    /// Webhooks.
    pub webhooks_max: u64,
    /// IP rules; 0 for no network rules at all.
    pub ip_rules_max: u64,
    /// Private endpoints.
    pub private_endpoints_max: u64,
    /// Repository tokens.
    pub tokens_max: u64,
    /// Scope maps.
    pub scope_maps_max: u64,
    /// Whether there may be replicas.
    pub replication: bool,
    /// Whether anybody may be let pull.
    pub anonymous_pull: bool,
    /// Whether access from public networks may be turned off.
    pub private_access: bool,
    /// Whether blobs may have host names of their own.
    pub data_endpoints: bool,
    /// Whether each region may have a host name of its own.
    pub regional_endpoints: bool,
    /// Whether untagged manifests may be deleted after some days.
    pub retention: bool,
    /// Whether leaving the registry by export may be forbidden.
    pub export_policy: bool,
    /// Whether the registry may name a key of its owner's.
    pub customer_keys: bool,
}

/// The members of [`Tier`] that are switches, by the names of settings.
const SWITCHES: &[&str] = &[
    "replication",
    "anonymous_pull",
    "private_access",
    "data_endpoints",
    "regional_endpoints",
    "retention",
    "export_policy",
    "customer_keys",
];
const SIZES: &[&str] = &["included_bytes", "storage_bytes_max"];
const COUNTS: &[&str] = &["webhooks_max", "ip_rules_max", "private_endpoints_max", "tokens_max", "scope_maps_max"];

/// What kind of value a limit takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// A number of bytes.
    Bytes,
    /// A number of things.
    Count,
    /// 0 or 1.
    Switch,
}

impl Tier {
    /// Azure's limits for a SKU.
    pub fn of(sku: Sku) -> Tier {
        let premium = sku == Sku::Premium;
        let by = |basic, standard, premium| match sku {
            Sku::Basic => basic,
            Sku::Standard => standard,
            Sku::Premium => premium,
        };
        Tier {
            included_bytes: by(10, 100, 500) * GIB,
            storage_bytes_max: by(40, 40, 100) * TIB,
            webhooks_max: by(2, 10, 500),
            ip_rules_max: by(0, 0, 200),
            private_endpoints_max: by(0, 0, 200),
            tokens_max: by(100, 500, 50_000),
            scope_maps_max: by(100, 500, 50_000),
            replication: premium,
            anonymous_pull: sku != Sku::Basic,
            private_access: premium,
            data_endpoints: premium,
            regional_endpoints: premium,
            retention: premium,
            export_policy: premium,
            customer_keys: premium,
        }
    }

    /// The names of all limits, with their kinds.
    pub fn names() -> impl Iterator<Item = (&'static str, LimitKind)> {
        let kind = |names: &'static [&'static str], kind| names.iter().map(move |name| (*name, kind));
        kind(SIZES, LimitKind::Bytes).chain(kind(COUNTS, LimitKind::Count)).chain(kind(SWITCHES, LimitKind::Switch))
    }

    /// Change the limit of this name; false when there is none. A switch is on above 0.
    pub fn set(&mut self, name: &str, value: u64) -> bool {
        let on = value > 0;
        match name {
            "included_bytes" => self.included_bytes = value,
            "storage_bytes_max" => self.storage_bytes_max = value,
            "webhooks_max" => self.webhooks_max = value,
            "ip_rules_max" => self.ip_rules_max = value,
            "private_endpoints_max" => self.private_endpoints_max = value,
            "tokens_max" => self.tokens_max = value,
            "scope_maps_max" => self.scope_maps_max = value,
            "replication" => self.replication = on,
            "anonymous_pull" => self.anonymous_pull = on,
            "private_access" => self.private_access = on,
            "data_endpoints" => self.data_endpoints = on,
            "regional_endpoints" => self.regional_endpoints = on,
            "retention" => self.retention = on,
            "export_policy" => self.export_policy = on,
            "customer_keys" => self.customer_keys = on,
            _ => return false,
        }
        true
    }
}

/// The tiers of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiers {
    /// Of SKU Basic.
    pub basic: Tier,
    /// Of SKU Standard.
    pub standard: Tier,
    /// Of SKU Premium.
    pub premium: Tier,
}

impl Default for Tiers {
    fn default() -> Tiers {
        Tiers { basic: Tier::of(Sku::Basic), standard: Tier::of(Sku::Standard), premium: Tier::of(Sku::Premium) }
    }
}

impl Tiers {
    /// The limits of a SKU.
    pub fn of(&self, sku: Sku) -> &Tier {
        match sku {
            Sku::Basic => &self.basic,
            Sku::Standard => &self.standard,
            Sku::Premium => &self.premium,
        }
    }
}

impl Service {
    /// The limits of a registry.
    pub fn tier(&self, registry: &Registry) -> &Tier {
        self.config.tiers.of(registry.sku)
    }
}

/// What a registry may have on only in some tiers.
struct Feature {
    /// Whether it is on, by the properties (complete with their defaults).
    on: fn(&Map<String, Value>) -> bool,
    allowed: fn(&Tier) -> bool,
    code: &'static str,
    /// Completes "… is not supported for the SKU Basic."
    what: &'static str,
    /// Where Azure tells more.
    page: &'static str,
}

/// The texts of the first two are Azure's own; the others are made after their pattern.
const FEATURES: &[Feature] = &[
    Feature {
        on: |p| p.get("publicNetworkAccess").and_then(Value::as_str) == Some("Disabled"),
        allowed: |t| t.private_access,
        code: "DisablingPublicNetworkAccessNotSupported",
        what: "Disabling public network access",
        page: "https://aka.ms/acr/private-link",
    },
    Feature {
        on: |p| p.get(properties::ANONYMOUS_PULL) == Some(&Value::Bool(true)),
        allowed: |t| t.anonymous_pull,
        code: "BadRequest",
        what: "Anonymous pull",
        page: "https://aka.ms/acr/tiers",
    },
    Feature {
        on: |p| properties::network_rules(p).is_some_and(|rules| rules.deny || rules.count > 0),
        allowed: |t| t.ip_rules_max > 0,
        code: "NetworkRuleSetNotSupported",
        what: "A network rule set",
        page: "https://aka.ms/acr/vnet",
    },
    Feature {
        on: |p| p.get("dataEndpointEnabled") == Some(&Value::Bool(true)),
        allowed: |t| t.data_endpoints,
        code: "DataEndpointNotSupported",
        what: "A dedicated data endpoint",
        page: "https://aka.ms/acr/tiers",
    },
    Feature {
        on: |p| p.get("regionalEndpoints").and_then(Value::as_str) == Some("Enabled"),
        allowed: |t| t.regional_endpoints,
        code: "RegionalEndpointsNotSupported",
        what: "Regional endpoints",
        page: "https://aka.ms/acr/tiers",
    },
    Feature {
        on: |p| properties::policy(p, "retentionPolicy") == Some("enabled"),
        allowed: |t| t.retention,
        code: "RetentionPolicyNotSupported",
        what: "The retention policy",
        page: "https://aka.ms/acr/retentionpolicy",
    },
    Feature {
        on: |p| properties::policy(p, "exportPolicy") == Some("disabled"),
        allowed: |t| t.export_policy,
        code: "DisablingExportPolicyNotSupported",
        what: "Disabling the export policy",
        page: "https://aka.ms/acr/tiers",
    },
    Feature {
        on: |p| p.get("encryption").and_then(|e| e.get("status")).and_then(Value::as_str) == Some("enabled"),
        allowed: |t| t.customer_keys,
        code: "EncryptionNotSupported",
        what: "Encryption with a customer-managed key",
        page: "https://aka.ms/acr/cmk",
    },
];

/// Refuse what `after` turns on and the tier of its SKU does not allow. `before` is the SKU
/// and the properties that the registry had: what was on already under this SKU stays.
pub(crate) fn check(
    tiers: &Tiers,
    before: Option<(Sku, &Map<String, Value>)>,
    (sku, after): (Sku, &Map<String, Value>),
) -> Result<()> {
    let tier = tiers.of(sku);
    let had = |feature: &Feature| before.is_some_and(|(old, p)| old == sku && (feature.on)(p));
    for feature in FEATURES {
        if (feature.on)(after) && !(feature.allowed)(tier) && !had(feature) {
            let sku = sku.as_str();
            let (message, hint) = match before {
                Some((old, p)) if old.as_str() != sku && (feature.on)(p) => (
                    format!(
                        "{} is not supported for the SKU {sku}. For more information, please visit {}.",
                        feature.what, feature.page
                    ),
                    "turn it off first, then change the SKU",
                ),
                _ if feature.code == "BadRequest" => (
                    format!(
                        "{} is not supported for SKU Managed_{sku}. For more information on SKU tiers, please visit {}.",
                        feature.what, feature.page
                    ),
                    "use a higher SKU",
                ),
                _ => (
                    format!(
                        "{} is not supported for the SKU {sku}. For more information, please visit {}.",
                        feature.what, feature.page
                    ),
                    "use a higher SKU",
                ),
            };
            return Err(Error::new(Kind::Invalid, feature.code, message).with_hint(hint));
        }
    }
    let count = |p| properties::network_rules(p).map_or(0, |rules| rules.count as u64);
    let (max, now) = (tier.ip_rules_max, count(after));
    if now > max && !before.is_some_and(|(old, p)| old == sku && count(p) >= now) {
        let message = format!("The registry has {now} IP rules; the SKU {} allows {max}.", sku.as_str());
        return Err(Error::new(Kind::Invalid, "TooManyIPRules", message));
    }
    Ok(())
}

/// Refuse a push that made a registry hold more than its tier allows, in ACR's words.
pub(crate) fn check_storage(tier: &Tier, bytes: u64) -> Result<()> {
    if bytes <= tier.storage_bytes_max {
        return Ok(());
    }
    let message =
        format!("The operation is disallowed: the registry would hold more than its {} bytes", tier.storage_bytes_max);
    Err(Error::new(Kind::Forbidden, "REGISTRY_DISALLOWED_OPERATION", message)
        .with_hint("delete images that are no longer needed, or use a higher SKU"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn code(before: Option<(Sku, Value)>, after: (Sku, Value)) -> Option<&'static str> {
        let full = |v: &Value| properties::with_defaults(v.as_object().cloned().unwrap());
        let before = before.map(|(sku, v)| (sku, full(&v)));
        let before = before.as_ref().map(|(sku, p)| (*sku, p));
        check(&Tiers::default(), before, (after.0, &full(&after.1))).err().map(|e| e.code)
    }

    #[test]
    fn every_limit_can_be_set_by_its_name() {
        for (name, kind) in Tier::names() {
            let was = Tier::of(Sku::Basic);
            let mut tier = was;
            assert!(tier.set(name, 1) && tier.set(name, if kind == LimitKind::Switch { 1 } else { 12_345 }), "{name}");
            assert_ne!(tier, was, "{name} sets something");
        }
        assert!(!Tier::of(Sku::Basic).set("size", 1));
    }

    #[test]
    fn a_tier_says_what_may_be_turned_on() {
        let all = [
            (json!({"publicNetworkAccess": "Disabled"}), "DisablingPublicNetworkAccessNotSupported"),
            (json!({"anonymousPullEnabled": true}), "BadRequest"),
            (json!({"networkRuleSet": {"defaultAction": "Deny"}}), "NetworkRuleSetNotSupported"),
            (json!({"dataEndpointEnabled": true}), "DataEndpointNotSupported"),
            (json!({"regionalEndpoints": "Enabled"}), "RegionalEndpointsNotSupported"),
            (json!({"policies": {"retentionPolicy": {"status": "enabled"}}}), "RetentionPolicyNotSupported"),
            (json!({"policies": {"exportPolicy": {"status": "disabled"}}}), "DisablingExportPolicyNotSupported"),
            (json!({"encryption": {"status": "enabled"}}), "EncryptionNotSupported"),
        ];
        assert_eq!(all.len(), FEATURES.len());
        for (on, refused) in all {
            assert_eq!(code(None, (Sku::Basic, on.clone())), Some(refused));
            assert_eq!(code(None, (Sku::Premium, on.clone())), None, "{on}");
            // It must be turned off before the SKU goes down; what was on before stays.
            assert_eq!(code(Some((Sku::Premium, on.clone())), (Sku::Basic, on.clone())), Some(refused));
            assert_eq!(code(Some((Sku::Basic, on.clone())), (Sku::Basic, on.clone())), None, "{on}");
            assert_eq!(code(Some((Sku::Basic, json!({}))), (Sku::Basic, on)), Some(refused));
        }
        assert_eq!(code(None, (Sku::Standard, json!({"anonymousPullEnabled": true}))), None);
        assert_eq!(
            code(None, (Sku::Basic, json!({"networkRuleSet": {"defaultAction": "Allow", "ipRules": []}}))),
            None
        );
    }

    #[test]
    fn rules_are_counted() {
        let rules = |n: u8| {
            let rules: Vec<Value> =
                (0..n).map(|i| json!({"action": "Allow", "value": format!("10.0.0.{i}")})).collect();
            json!({"networkRuleSet": {"defaultAction": "Deny", "ipRules": rules}})
        };
        assert_eq!(code(None, (Sku::Premium, rules(200))), None);
        assert_eq!(code(None, (Sku::Premium, rules(201))), Some("TooManyIPRules"));
        assert_eq!(code(Some((Sku::Premium, rules(210))), (Sku::Premium, rules(205))), None);
    }
}
