//! Certificates of registries' hosts ([`portolan_service::hosts`]): their own, as somebody
//! gave them, looked up by the name that a client asks for in its handshake.
//!
//! A changed certificate serves the next handshake after the change is in memory, here and on
//! other servers. The parsed form is remembered; a certificate that cannot be used is
//! complained of once, and the server's own serves instead.

use std::sync::Arc;

use portolan_service::Service;
use portolan_service::hosts::HostCertificate;
use portolan_types::{Digest, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

/// Certificates remembered in their parsed form.
const PARSED_MAX: usize = 1_024;

/// The hosts of registries besides their login servers.
pub(super) struct Hosts {
    service: Arc<Service>,
    /// By host: what it was parsed from, and the result.
    parsed: quick_cache::sync::Cache<String, (Arc<HostCertificate>, Option<Arc<CertifiedKey>>)>,
}

/// What a host has.
pub(super) enum Found {
    /// A certificate of its own.
    Own(Arc<CertifiedKey>),
    /// None that can be used.
    None,
}

impl Hosts {
    pub(super) fn new(service: Arc<Service>) -> Hosts {
        Hosts { service, parsed: quick_cache::sync::Cache::new(PARSED_MAX) }
    }

    /// What the host of this name has; `None` when it is none of these hosts.
    pub(super) fn find(&self, name: &str) -> Option<Found> {
        let Some(certificate) = self.service.certificate_of(name)? else { return Some(Found::None) };
        if let Some((of, key)) = self.parsed.get(name)
            && Arc::ptr_eq(&of, &certificate)
        {
            return Some(key.map_or(Found::None, Found::Own));
        }
        let key = match self.parse(&certificate) {
            Ok(key) => Some(Arc::new(key)),
            Err(why) => {
                tracing::error!(why = format!("{why:#}"), host = name, "use a host's certificate");
                None
            }
        };
        self.parsed.insert(name.to_owned(), (certificate, key.clone()));
        Some(key.map_or(Found::None, Found::Own))
    }

    fn parse(&self, certificate: &HostCertificate) -> anyhow::Result<CertifiedKey> {
        let key = self.service.host_key(certificate)?;
        super::pair(certificate.chain(), key.expose())
    }
}

/// Whether a certificate (PEM, with what it was issued by) and a key (PEM) serve for a host.
/// The error completes "The certificate …".
pub(crate) fn check(chain: &str, key: &str, host: &str, now: Timestamp) -> Result<(), String> {
    if (chain.len() + key.len()) as u64 > super::PEM_BYTES_MAX {
        return Err("is too large".to_owned());
    }
    // What is wrong with a key is not told: the message may be logged.
    super::pair(chain, key).map_err(|why| format!("cannot be used: {why}"))?;
    let facts = facts(chain).ok_or("cannot be read")?;
    if !facts.names.iter().any(|name| names(name, host)) {
        return Err(format!("is not for {host}"));
    }
    match now {
        now if now >= facts.not_after => Err(format!("ended at {}", facts.not_after.rfc3339())),
        now if now < facts.not_before => Err(format!("begins at {}", facts.not_before.rfc3339())),
        _ => Ok(()),
    }
}

/// What a certificate says of itself.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Who it is for, as X.509 writes it.
    pub(crate) subject: String,
    /// SHA-256 of it, in hex.
    pub(crate) thumbprint: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    names: Vec<String>,
}

/// The facts of the first certificate of a chain (PEM).
pub(crate) fn facts(chain: &str) -> Option<Facts> {
    let der = CertificateDer::from_pem_slice(chain.as_bytes()).ok()?;
    let (_, cert) = x509_parser::parse_x509_certificate(&der).ok()?;
    let names = cert.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|san| &san.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    let validity = cert.validity();
    Some(Facts {
        subject: cert.subject().to_string(),
        thumbprint: Digest::of(&der).hex(),
        not_before: Timestamp::from_unix_secs(validity.not_before.timestamp()),
        not_after: Timestamp::from_unix_secs(validity.not_after.timestamp()),
        names: names.collect(),
    })
}

/// Whether a name in a certificate is for a host (RFC 9525, section 6.3): the same, or `*.`
/// and all of it but its first label.
fn names(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => name == host,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_is_for_its_host_and_its_key_and_its_time() {
        let (chain, key) = certificate(&["images.example.com", "*.wild.example.com"]);
        let now = Timestamp::now();
        for good in ["images.example.com", "a.wild.example.com"] {
            assert_eq!(check(&chain, &key, good, now), Ok(()));
        }
        for bad in ["example.com", "x.images.example.com", "a.b.wild.example.com", "wild.example.com"] {
            assert_eq!(check(&chain, &key, bad, now), Err(format!("is not for {bad}")));
        }
        let (_, other) = certificate(&["images.example.com"]);
        let why = check(&chain, &other, "images.example.com", now).unwrap_err();
        assert!(why.starts_with("cannot be used"), "{why}");
        for (chain, key) in [("", ""), (key.as_str(), chain.as_str()), (chain.as_str(), "x"), ("x", key.as_str())] {
            assert!(check(chain, key, "images.example.com", now).is_err());
        }
        let facts = facts(&chain).unwrap();
        assert_eq!(facts.thumbprint.len(), 64);
        assert!(check(&chain, &key, "images.example.com", facts.not_after).unwrap_err().starts_with("ended"));
        let before = Timestamp::from_unix_secs(facts.not_before.unix_secs() - 1);
        assert!(check(&chain, &key, "images.example.com", before).unwrap_err().starts_with("begins"));
    }
}
