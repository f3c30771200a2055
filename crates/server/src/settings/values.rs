//! The kinds of value that settings have, each with its grammar and the words that say so.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use portolan_api::egress::Allowed;
use portolan_builder::UserNamespace;
use portolan_builder::exec::network::Rule;
use portolan_service::tiers::{LimitKind, Tier};
use portolan_store::blob::BlobConfig;
use portolan_types::{IpNet, Secret};
use uuid::Uuid;

/// A kind of value that a setting may have.
pub trait Value: Sized {
    /// The kind, for people.
    const KIND: &'static str;
    /// Read it from text (flag, environment, default). The error completes the sentence
    /// "`x` is not …".
    fn parse(text: &str) -> Result<Self, String>;
    /// Read it from the file.
    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::String(text) => Self::parse(text),
            toml::Value::Integer(n) => Self::parse(&n.to_string()),
            toml::Value::Float(n) => Self::parse(&n.to_string()),
            toml::Value::Boolean(b) => Self::parse(&b.to_string()),
            other => Err(format!("a value of type {} is not {}", other.type_str(), Self::KIND)),
        }
    }
}

fn not<T>(text: &str, kind: &str) -> Result<T, String> {
    Err(format!("{text:?} is not {kind}"))
}

impl Value for String {
    const KIND: &'static str = "text";
    fn parse(text: &str) -> Result<String, String> {
        if text.is_empty() { Err("it must not be empty".to_owned()) } else { Ok(text.to_owned()) }
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "a path";
    fn parse(text: &str) -> Result<PathBuf, String> {
        String::parse(text).map(PathBuf::from)
    }
}

impl Value for u32 {
    const KIND: &'static str = "a whole number";
    fn parse(text: &str) -> Result<u32, String> {
        text.parse().or_else(|_| not(text, "a whole number from 0 to 4294967295"))
    }
}

impl Value for u64 {
    const KIND: &'static str = "a whole number";
    fn parse(text: &str) -> Result<u64, String> {
        text.parse().or_else(|_| not(text, Self::KIND))
    }
}

/// A number that must not be zero: limits and times that would stop everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positive(pub u32);

impl Value for Positive {
    const KIND: &'static str = "a whole number above 0";
    fn parse(text: &str) -> Result<Positive, String> {
        match text.parse() {
            Ok(n) if n > 0 => Ok(Positive(n)),
            _ => not(text, Self::KIND),
        }
    }
}

impl Positive {
    /// As a time in seconds.
    pub fn secs(self) -> std::time::Duration {
        std::time::Duration::from_secs(u64::from(self.0))
    }
}

/// How long a token lasts, in seconds. Not longer than a day: it cannot be taken back one by
/// one, and the key that signed it is kept as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifetimeSecs(pub u32);

impl Value for LifetimeSecs {
    const KIND: &'static str = "a whole number from 60 to 86400";
    fn parse(text: &str) -> Result<LifetimeSecs, String> {
        match text.parse() {
            Ok(n) if (60..=86_400).contains(&n) => Ok(LifetimeSecs(n)),
            _ => not(text, Self::KIND),
        }
    }
}

impl LifetimeSecs {
    /// As a time.
    pub fn secs(self) -> std::time::Duration {
        std::time::Duration::from_secs(u64::from(self.0))
    }
}

impl Value for bool {
    const KIND: &'static str = "true or false";
    fn parse(text: &str) -> Result<bool, String> {
        text.parse().or_else(|_| not(text, Self::KIND))
    }
}

/// A number of bytes: `1048576`, `512KiB`, `4GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl Value for ByteSize {
    const KIND: &'static str = "a size (bytes, or with KiB, MiB, GiB, TiB)";
    fn parse(text: &str) -> Result<ByteSize, String> {
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let shift = match unit.trim() {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return not(text, Self::KIND),
        };
        match digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)) {
            Some(n) if n > 0 => Ok(ByteSize(n)),
            _ => not(text, Self::KIND),
        }
    }
}

/// An address to listen on: `127.0.0.1:8443`, `[::1]:8443`, `localhost:8443`, or `:8443`
/// for every address of the machine. Port 0 takes a free port.
impl Value for SocketAddr {
    const KIND: &'static str = "an address to listen on (IP:PORT, localhost:PORT or :PORT)";
    fn parse(text: &str) -> Result<SocketAddr, String> {
        if let Some((host @ ("" | "localhost"), port)) = text.rsplit_once(':')
            && let Ok(port) = port.parse::<u16>()
        {
            let ip = if host.is_empty() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
            return Ok(SocketAddr::new(IpAddr::V4(ip), port));
        }
        text.parse().or_else(|_| not(text, Self::KIND))
    }
}

/// The URL of a database. It may hold a password, so it does not print, and errors do not
/// repeat it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseUrl(pub Secret<String>);

impl Value for DatabaseUrl {
    const KIND: &'static str = "the URL of a PostgreSQL database (postgres://USER@HOST:PORT/DATABASE)";
    fn parse(text: &str) -> Result<DatabaseUrl, String> {
        if ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            Ok(DatabaseUrl(Secret::new(text.to_owned())))
        } else {
            Err(format!("this is not {}", Self::KIND))
        }
    }
}

/// A bucket for blobs: `s3://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `gs://BUCKET/PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobPlace(pub String);

impl Value for BlobPlace {
    const KIND: &'static str = "a bucket (s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or gs://BUCKET/PREFIX)";
    fn parse(text: &str) -> Result<BlobPlace, String> {
        let config = BlobConfig { url: text.to_owned(), ..BlobConfig::default() };
        config.check().map(|()| BlobPlace(text.to_owned()))
    }
}

/// A password or key. It does not print, and errors do not repeat it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretText(pub Secret<String>);

impl Value for SecretText {
    const KIND: &'static str = "a secret";
    fn parse(text: &str) -> Result<SecretText, String> {
        if text.is_empty() { Err("it must not be empty".to_owned()) } else { Ok(SecretText(text.to_owned().into())) }
    }
}

/// A DNS name, lower-case, without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainName(pub String);

impl DomainName {
    /// Whether a text is a DNS name: labels of letters, digits and hyphens.
    pub fn is_valid(text: &str) -> bool {
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
        };
        text.len() <= 253 && text.split('.').all(label)
    }
}

impl Value for DomainName {
    const KIND: &'static str = "a DNS name";
    fn parse(text: &str) -> Result<DomainName, String> {
        if Self::is_valid(text) { Ok(DomainName(text.to_ascii_lowercase())) } else { not(text, Self::KIND) }
    }
}

/// A name for a certificate: a DNS name, `*.` and a DNS name, or an IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertName(pub String);

impl Value for CertName {
    const KIND: &'static str = "a DNS name (with *. in front, if you like) or an IP address";
    fn parse(text: &str) -> Result<CertName, String> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(CertName(ip.to_string()));
        }
        if DomainName::is_valid(text.strip_prefix("*.").unwrap_or(text)) {
            Ok(CertName(text.to_ascii_lowercase()))
        } else {
            not(text, Self::KIND)
        }
    }
}

/// A host with or without a port, as clients write it: `registry.example.com`, `localhost:5443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort(String);

impl HostPort {
    /// Host and port as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host, without brackets and port.
    pub fn host(&self) -> &str {
        crate::http::host::without_port(&self.0).trim_start_matches('[').trim_end_matches(']')
    }
}

impl Value for HostPort {
    const KIND: &'static str = "a host or HOST:PORT";
    fn parse(text: &str) -> Result<HostPort, String> {
        let host = crate::http::host::without_port(text);
        let port = text.strip_prefix(host).unwrap_or_default();
        let good = DomainName::is_valid(host)
            || host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).is_some_and(|h| h.parse::<IpAddr>().is_ok());
        if good && (port.is_empty() || port[1..].parse::<u16>().is_ok()) {
            Ok(HostPort(text.to_ascii_lowercase()))
        } else {
            not(text, Self::KIND)
        }
    }
}

/// A list of networks: an array in the file, separated by commas in text.
impl Value for Vec<IpNet> {
    const KIND: &'static str = "a list of IP addresses and networks (`10.0.0.0/8`)";
    fn parse(text: &str) -> Result<Vec<IpNet>, String> {
        let one = |text: &str| text.parse().or_else(|_| not(text, "an IP address or a network (10.0.0.0/8)"));
        text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(one).collect()
    }
    fn from_toml(value: &toml::Value) -> Result<Vec<IpNet>, String> {
        list(value, Self::KIND, Self::parse)
    }
}

/// Which addresses have which managed identities: `ADDRESS=CLIENT-ID`, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityAddresses(Vec<(IpNet, Uuid)>);

impl IdentityAddresses {
    /// The client ids of the identities that an address has.
    pub fn of(&self, address: IpAddr) -> Vec<Uuid> {
        self.0.iter().filter(|(net, _)| net.contains(address)).map(|(_, id)| *id).collect()
    }
}

impl Value for IdentityAddresses {
    const KIND: &'static str = "a list of ADDRESS=CLIENT-ID (`10.0.0.5=11111111-2222-3333-4444-555555555555`)";
    fn parse(text: &str) -> Result<IdentityAddresses, String> {
        let one = |text: &str| {
            let (net, id) = text.split_once('=').ok_or(())?;
            Ok((net.trim().parse().map_err(|_| ())?, Uuid::try_parse(id.trim()).map_err(|_| ())?))
        };
        let all = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        all.map(|text| one(text).or_else(|()| not(text, "ADDRESS=CLIENT-ID"))).collect::<Result<_, _>>().map(Self)
    }
    fn from_toml(value: &toml::Value) -> Result<IdentityAddresses, String> {
        match value {
            toml::Value::Array(all) => {
                let texts: Option<Vec<&str>> = all.iter().map(toml::Value::as_str).collect();
                texts.map_or_else(|| not("the array", Self::KIND), |texts| Self::parse(&texts.join(",")))
            }
            toml::Value::String(text) => Self::parse(text),
            other => not(&other.to_string(), Self::KIND),
        }
    }
}

/// Whether build steps run in user namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildUserNamespace(pub UserNamespace);

impl Value for BuildUserNamespace {
    const KIND: &'static str = "auto, required or off";
    fn parse(text: &str) -> Result<BuildUserNamespace, String> {
        match text {
            "auto" => Ok(BuildUserNamespace(UserNamespace::Auto)),
            "required" => Ok(BuildUserNamespace(UserNamespace::Required)),
            "off" => Ok(BuildUserNamespace(UserNamespace::Off)),
            _ => not(text, Self::KIND),
        }
    }
}

/// What builds may fetch from whatever else is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchAllow(pub Vec<Allowed>);

impl Value for FetchAllow {
    const KIND: &'static str = "a list of networks and host names (`10.0.0.0/8, git.example.com, .lab.example.com`)";
    fn parse(text: &str) -> Result<FetchAllow, String> {
        let all = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        all.map(|text| text.parse().or_else(|_| not(text, "a network or a host name")))
            .collect::<Result<_, _>>()
            .map(Self)
    }
    fn from_toml(value: &toml::Value) -> Result<FetchAllow, String> {
        match value {
            toml::Value::Array(all) => {
                let texts: Option<Vec<&str>> = all.iter().map(toml::Value::as_str).collect();
                texts.map_or_else(|| not("the array", Self::KIND), |texts| Self::parse(&texts.join(",")))
            }
            toml::Value::String(text) => Self::parse(text),
            other => not(&other.to_string(), Self::KIND),
        }
    }
}

/// What build steps can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildNetwork {
    /// As `own` where the kernel can, else as `host`.
    Auto,
    /// A network of their own, out of which they reach what they may.
    Own,
    /// What this machine reaches.
    Host,
    /// Nothing.
    None,
}

impl Value for BuildNetwork {
    const KIND: &'static str = "auto, own, host or none";
    fn parse(text: &str) -> Result<BuildNetwork, String> {
        match text {
            "auto" => Ok(BuildNetwork::Auto),
            "own" => Ok(BuildNetwork::Own),
            "host" => Ok(BuildNetwork::Host),
            "none" => Ok(BuildNetwork::None),
            _ => not(text, Self::KIND),
        }
    }
}

/// What on the network is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach(pub Vec<Rule>);

impl Value for Reach {
    const KIND: &'static str = "a list of networks, addresses and names, with or without ports (`10.0.0.0/8, *.example.com:443, host, metadata, private, *`)";
    fn parse(text: &str) -> Result<Reach, String> {
        let all = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        all.map(str::parse).collect::<Result<_, _>>().map(Reach)
    }
    fn from_toml(value: &toml::Value) -> Result<Reach, String> {
        match value {
            toml::Value::Array(all) => {
                let texts: Option<Vec<&str>> = all.iter().map(toml::Value::as_str).collect();
                texts.map_or_else(|| not("the array", Self::KIND), |texts| Self::parse(&texts.join(",")))
            }
            toml::Value::String(text) => Self::parse(text),
            other => not(&other.to_string(), Self::KIND),
        }
    }
}

/// The header in which trusted proxies write down who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`, and `X-Forwarded-Proto`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl Value for ProxyHeader {
    const KIND: &'static str = "x-forwarded-for or forwarded";
    fn parse(text: &str) -> Result<ProxyHeader, String> {
        match text.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => Ok(ProxyHeader::XForwardedFor),
            "forwarded" => Ok(ProxyHeader::Forwarded),
            _ => not(text, Self::KIND),
        }
    }
}

/// Limits of a tier that are not Azure's: names and values, `storage_bytes_max=1TiB,
/// anonymous_pull=true`; in the file also a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierChanges(Vec<(&'static str, u64)>);

impl TierChanges {
    /// A tier with these changes.
    pub fn apply(&self, mut tier: Tier) -> Tier {
        for (name, value) in &self.0 {
            tier.set(name, *value);
        }
        tier
    }

    fn change(name: &str, value: &str) -> Result<(&'static str, u64), String> {
        let Some((name, kind)) = Tier::names().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = Tier::names().map(|(name, _)| name).collect();
            return Err(format!("{name:?} is no limit of a tier; the limits are {}", names.join(", ")));
        };
        let value = match kind {
            LimitKind::Bytes => ByteSize::parse(value).map(|size| size.0),
            LimitKind::Count => u64::parse(value),
            LimitKind::Switch => bool::parse(value).map(u64::from),
        };
        value.map(|value| (name, value)).map_err(|why| format!("{name}: {why}"))
    }
}

impl Value for TierChanges {
    const KIND: &'static str = "limits that differ from Azure's (`NAME=VALUE,…`; in the file also a table)";
    fn parse(text: &str) -> Result<TierChanges, String> {
        let one = |text: &str| match text.split_once('=') {
            Some((name, value)) => TierChanges::change(name.trim(), value.trim()),
            None => not(text, "NAME=VALUE"),
        };
        let all = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        all.map(one).collect::<Result<_, _>>().map(TierChanges)
    }
    fn from_toml(value: &toml::Value) -> Result<TierChanges, String> {
        match value {
            toml::Value::String(text) => Self::parse(text),
            toml::Value::Table(table) => {
                let text = |value: &toml::Value| match value {
                    toml::Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                let all = table.iter().map(|(name, value)| TierChanges::change(name, &text(value)));
                all.collect::<Result<_, _>>().map(TierChanges)
            }
            other => Err(format!("a value of type {} is not {}", other.type_str(), Self::KIND)),
        }
    }
}

/// A list as the file has it, or as text.
fn list<T>(value: &toml::Value, kind: &str, parse: fn(&str) -> Result<Vec<T>, String>) -> Result<Vec<T>, String> {
    let wrong = |value: &toml::Value| format!("a value of type {} is not {kind}", value.type_str());
    match value {
        toml::Value::Array(all) => {
            let texts: Result<Vec<&str>, String> = all.iter().map(|v| v.as_str().ok_or_else(|| wrong(v))).collect();
            parse(&texts?.join(","))
        }
        toml::Value::String(text) => parse(text),
        other => Err(wrong(other)),
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// One line of text each.
    Text,
    /// One JSON object each.
    Json,
}

impl Value for LogFormat {
    const KIND: &'static str = "auto, text or json";
    fn parse(text: &str) -> Result<LogFormat, String> {
        match text {
            "auto" => Ok(LogFormat::Auto),
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => not(text, Self::KIND),
        }
    }
}

impl<T: Value> Value for Option<T> {
    const KIND: &'static str = T::KIND;
    fn parse(text: &str) -> Result<Option<T>, String> {
        if matches!(text, "" | "none") { Ok(None) } else { T::parse(text).map(Some) }
    }
}

/// A list: an array in the file, separated by commas in text.
impl Value for Vec<CertName> {
    const KIND: &'static str = "a list of DNS names and IP addresses";
    fn parse(text: &str) -> Result<Vec<CertName>, String> {
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(CertName::parse).collect()
    }
    fn from_toml(value: &toml::Value) -> Result<Vec<CertName>, String> {
        match value {
            toml::Value::Array(all) => all.iter().map(CertName::from_toml).collect(),
            toml::Value::String(text) => Self::parse(text),
            other => Err(format!("a value of type {} is not {}", other.type_str(), Self::KIND)),
        }
    }
}
