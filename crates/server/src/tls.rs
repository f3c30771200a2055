//! TLS: the server's own CA, or the operator's certificate.
//!
//! Own: the first start makes a CA under `data/tls` (`ca.pem` for clients to trust,
//! `ca.key` mode 0600), and from it a certificate for the server's names (`server.pem`,
//! `server.key`). The certificate is made anew when it nears its end or its names change,
//! at start and while running; the CA stays, so that clients trust it once. Servers on one
//! database share it ([`share`]).
//!
//! `NAME.localhost` needs more: OpenSSL and webpki accept no wildcard right below a name
//! without a dot. A client that asks for such a name gets a certificate made for it on the
//! spot ([`Minter`]), kept in memory.
//!
//! Operator's: `tls_cert` and `tls_key`, read again when either file changes and on SIGHUP.
//! A pair that cannot be used is refused at start; while running the old one stays in use.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use portolan_auth::MasterKey;
use portolan_service::Service;
use portolan_store::meta::{Meta, setting};
use portolan_types::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use crate::files;
use crate::settings::Settings;

pub(crate) mod host;

/// How long the CA lives.
const CA_DAYS: i64 = 3_650;
/// How long the server's own certificate lives.
const LEAF_DAYS: i64 = 90;
/// How long before its end it is made anew.
const LEAF_RENEW_DAYS: i64 = 30;
/// Certificates for sub-domains of names without a dot, kept at one time.
const MINTED_MAX: usize = 1_024;
/// The largest certificate or key file read.
const PEM_BYTES_MAX: u64 = 1024 * 1024;
const DAY_SECS: i64 = 86_400;

/// The certificate in use, and how to come by the next.
pub(crate) struct Tls {
    /// For the acceptor.
    pub(crate) config: Arc<rustls::ServerConfig>,
    in_use: Arc<InUse>,
    source: Source,
    /// What is in use came from files in this state.
    seen: Mutex<Option<[FileState; 2]>>,
}

enum Source {
    Own { dir: PathBuf, names: Vec<String> },
    Operator { cert: PathBuf, key: PathBuf },
}

type FileState = Option<(SystemTime, u64)>;

/// What one handshake gets.
struct InUse {
    certificate: ArcSwap<CertifiedKey>,
    /// Registries' hosts besides, once the rules are open.
    hosts: OnceLock<host::Hosts>,
    /// With our own CA.
    minter: Option<Minter>,
}

impl std::fmt::Debug for InUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InUse")
    }
}

impl ResolvesServerCert for InUse {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let special = hello.server_name().and_then(|name| self.special(name));
        Some(special.unwrap_or_else(|| self.certificate.load_full()))
    }
}

impl InUse {
    /// The certificate for a name that the one for everything else does not say.
    fn special(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let minter = self.minter.as_ref();
        match self.hosts.get().and_then(|hosts| hosts.find(name)) {
            Some(host::Found::Own(key)) => Some(key),
            Some(host::Found::None) => minter.and_then(|minter| minter.minted(name)),
            None => minter.and_then(|minter| minter.mint(name)),
        }
    }
}

/// Makes certificates for `NAME.<parent>` where the parent has no dot.
struct Minter {
    issuer: Issuer<'static, KeyPair>,
    ca: CertificateDer<'static>,
    key: KeyPair,
    parents: Vec<String>,
    made: quick_cache::sync::Cache<String, Arc<CertifiedKey>>,
}

impl Minter {
    /// For the CA in `dir`, which is there already.
    fn open(dir: &Path, settings: &Settings) -> anyhow::Result<Minter> {
        let (issuer, ca) = issuer(dir)?;
        let domain = settings.domain.as_ref().map(|d| d.0.clone()).filter(|d| !d.contains('.'));
        Ok(Minter {
            issuer,
            ca: CertificateDer::from_pem_slice(ca.as_bytes()).context("read the CA")?,
            key: KeyPair::generate().context("make a key")?,
            parents: std::iter::once("localhost".to_owned()).chain(domain).collect(),
            made: quick_cache::sync::Cache::new(MINTED_MAX),
        })
    }

    /// A certificate for this name, when it is one of ours to make.
    fn mint(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let (label, parent) = name.split_once('.')?;
        if !self.parents.iter().any(|p| p == parent) || !crate::settings::DomainName::is_valid(label) {
            return None;
        }
        self.minted(name)
    }

    /// A certificate for any name.
    fn minted(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        if let Some(made) = self.made.get(name) {
            return Some(made);
        }
        match self.make(name) {
            Ok(made) => {
                let made = Arc::new(made);
                self.made.insert(name.to_owned(), made.clone());
                Some(made)
            }
            Err(why) => {
                tracing::error!(why = format!("{why:#}"), name, "make a certificate");
                None
            }
        }
    }

    fn make(&self, name: &str) -> anyhow::Result<CertifiedKey> {
        let cert = leaf(&[name.to_owned()], Timestamp::now())?.signed_by(&self.key, &self.issuer)?;
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).map_err(|why| anyhow!("use the key: {why}"))?;
        let chain = vec![cert.der().clone(), self.ca.clone()];
        Ok(CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())?)
    }
}

impl Tls {
    /// Load the operator's certificate, or load or make our own.
    pub(crate) fn open(settings: &Settings, listen: SocketAddr, now: Timestamp) -> anyhow::Result<Tls> {
        let source = match (&settings.tls_cert, &settings.tls_key) {
            (Some(cert), Some(key)) => Source::Operator { cert: cert.clone(), key: key.clone() },
            _ => Source::Own { dir: settings.data.join("tls"), names: names(settings, listen) },
        };
        let seen = source.state();
        let certificate = ArcSwap::from_pointee(source.load(now)?);
        let minter = match &source {
            Source::Own { dir, .. } => Some(Minter::open(dir, settings)?),
            Source::Operator { .. } => None,
        };
        let in_use = Arc::new(InUse { certificate, hosts: OnceLock::new(), minter });
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("choose TLS versions")?
            .with_no_client_auth()
            .with_cert_resolver(in_use.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().context("make TLS ticket keys")?;
        Ok(Tls { config: Arc::new(config), in_use, source, seen: Mutex::new(seen) })
    }

    /// From now on registries' hosts have certificates: their own, or made for them.
    pub(crate) fn serve_hosts(&self, service: &Arc<Service>) {
        let _ = self.in_use.hosts.set(host::Hosts::new(service.clone()));
    }

    /// The CA that clients are to trust: a file of ours, none with the operator's certificate.
    pub(crate) fn ca_file(&self) -> Option<PathBuf> {
        match &self.source {
            Source::Own { dir, .. } => Some(dir.join("ca.pem")),
            Source::Operator { .. } => None,
        }
    }

    /// Renew our own certificate when it nears its end; read the operator's again when its
    /// files changed, or in any case when `force`. True when another one is in use now.
    pub(crate) fn refresh(&self, now: Timestamp, force: bool) -> anyhow::Result<bool> {
        if let Source::Own { dir, names } = &self.source {
            let current = read_pem(&dir.join("server.pem")).ok();
            if !force && current.is_some_and(|pem| is_good(&pem, names, now)) {
                return Ok(false);
            }
        } else {
            let state = self.source.state();
            if !force && *self.seen.lock() == state {
                return Ok(false);
            }
            // Remembered before it is used: a pair that cannot be used is complained of once.
            *self.seen.lock() = state;
        }
        let key = self.source.load(now)?;
        let changed = key.cert != self.in_use.certificate.load().cert;
        self.in_use.certificate.store(Arc::new(key));
        if let (true, Some(minter)) = (changed, &self.in_use.minter) {
            // They are as old as what was replaced, or younger.
            minter.made.clear();
        }
        Ok(changed)
    }
}

impl Source {
    /// Time and size of the operator's files.
    fn state(&self) -> Option<[FileState; 2]> {
        let Source::Operator { cert, key } = self else { return None };
        let state = |path: &Path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        };
        Some([state(cert), state(key)])
    }

    fn load(&self, now: Timestamp) -> anyhow::Result<CertifiedKey> {
        match self {
            Source::Operator { cert, key } => pair(&read_pem(cert)?, &read_pem(key)?)
                .with_context(|| format!("use the certificate {} with the key {}", cert.display(), key.display())),
            Source::Own { dir, names } => {
                let (cert, key) = own(dir, names, now)?;
                pair(&cert, &key).with_context(|| format!("use the certificate in {}", dir.display()))
            }
        }
    }
}

fn read_pem(path: &Path) -> anyhow::Result<String> {
    let bytes = files::read(path, PEM_BYTES_MAX)
        .and_then(|bytes| bytes.ok_or_else(|| std::io::ErrorKind::NotFound.into()))
        .with_context(|| format!("read {}", path.display()))?;
    String::from_utf8(bytes).map_err(|_| anyhow!("{} is not PEM text", path.display()))
}

fn pair(cert_pem: &str, key_pem: &str) -> anyhow::Result<CertifiedKey> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert_pem.as_bytes())
        .collect::<Result<_, _>>()
        .context("read the certificate")?;
    if chain.is_empty() {
        bail!("the certificate file holds no certificate");
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).context("read the private key")?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())
        .context("the private key does not belong to the certificate")
}

/// The settings in a shared database that hold its servers' CA.
const SHARED_CA: &str = "tls_ca";
const SHARED_CA_KEY: &str = "tls_ca_key";
const SEAL_PURPOSE: &str = "tls-ca";

/// Servers on one database have one CA, so that clients trust all of them: the first leaves
/// its own in the database, the key sealed under the master key, and one that has none yet
/// takes it from there. Nothing is done with the operator's certificate. A server that had
/// a CA of its own before keeps it.
pub(crate) async fn share(settings: &Settings, meta: &Meta, master: &MasterKey, now: Timestamp) -> anyhow::Result<()> {
    if settings.tls_cert.is_some() && settings.tls_key.is_some() {
        return Ok(());
    }
    let dir = settings.data.join("tls");
    files::private_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
    let (ca_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
    let is_new = !ca_path.exists() && !key_path.exists() && !dir.join("server.pem").exists();
    let known = meta.read(|tx| setting::get(tx, SHARED_CA)).await?;
    if known.is_none() || !is_new {
        ca_files(&dir, now)?;
    }
    let ca = match known {
        Some(ca) => ca,
        None => {
            let (own, key) = (read_pem(&ca_path)?, read_pem(&key_path)?);
            let sealed = STANDARD.encode(master.seal(SEAL_PURPOSE, SHARED_CA, key.as_bytes())?);
            let put = meta.write(move |tx| match setting::get(tx, SHARED_CA)? {
                // Another was first.
                Some(theirs) => Ok(theirs),
                None => {
                    setting::put(tx, SHARED_CA, &own)?;
                    setting::put(tx, SHARED_CA_KEY, &sealed)?;
                    Ok::<_, portolan_store::Error>(own)
                }
            });
            put.await?
        }
    };
    if read_pem(&ca_path).is_ok_and(|own| own == ca) {
        return Ok(());
    }
    if !is_new {
        tracing::warn!(
            ca = %ca_path.display(),
            "this server has another CA than the others on its database: clients must trust both, or remove the folder"
        );
        return Ok(());
    }
    let sealed = meta.read(|tx| setting::get(tx, SHARED_CA_KEY)).await?.context("the shared CA has no key")?;
    let sealed = STANDARD.decode(sealed).context("the shared CA's key is damaged")?;
    let key = master.open(SEAL_PURPOSE, SHARED_CA, &sealed).context("the shared CA's key does not open")?;
    files::replace(&key_path, &key, 0o600).with_context(|| format!("write {}", key_path.display()))?;
    files::replace(&ca_path, ca.as_bytes(), 0o644).with_context(|| format!("write {}", ca_path.display()))
}

/// Make sure that the CA's files are in `dir`.
fn ca_files(dir: &Path, now: Timestamp) -> anyhow::Result<()> {
    files::private_dir(dir).with_context(|| format!("make {}", dir.display()))?;
    let (ca_path, ca_key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
    if !ca_path.exists() || !ca_key_path.exists() {
        if ca_path.exists() || dir.join("server.pem").exists() {
            bail!(
                "{} or ca.key is missing; put it back, or remove the folder for a new CA (clients must then trust the new one)",
                ca_path.display()
            );
        }
        let (ca, key) = make_ca(now).context("make the CA")?;
        // The certificate last: it is what says that the CA is complete.
        files::replace(&ca_key_path, key.as_bytes(), 0o600)
            .with_context(|| format!("write {}", ca_key_path.display()))?;
        files::replace(&ca_path, ca.as_bytes(), 0o644).with_context(|| format!("write {}", ca_path.display()))?;
    }
    Ok(())
}

/// Our own certificate and key as PEM, made when they are missing, near their end or for
/// other names.
fn own(dir: &Path, names: &[String], now: Timestamp) -> anyhow::Result<(String, String)> {
    ca_files(dir, now)?;
    let ca = read_pem(&dir.join("ca.pem"))?;
    let (cert_path, key_path) = (dir.join("server.pem"), dir.join("server.key"));
    if let (Ok(cert), Ok(key)) = (read_pem(&cert_path), read_pem(&key_path))
        && is_good(&cert, names, now)
        && cert.ends_with(&ca)
        && pair(&cert, &key).is_ok()
    {
        return Ok((cert, key));
    }
    let (issuer, ca) = issuer(dir)?;
    let key = KeyPair::generate().context("make a key")?;
    let params = leaf(names, now)?;
    let mut cert = params.signed_by(&key, &issuer).context("sign the server's certificate")?.pem();
    cert.push_str(&ca);
    let key = key.serialize_pem();
    files::replace(&key_path, key.as_bytes(), 0o600).with_context(|| format!("write {}", key_path.display()))?;
    files::replace(&cert_path, cert.as_bytes(), 0o644).with_context(|| format!("write {}", cert_path.display()))?;
    Ok((cert, key))
}

/// Our CA as an issuer, and its certificate as PEM.
fn issuer(dir: &Path) -> anyhow::Result<(Issuer<'static, KeyPair>, String)> {
    let (ca_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
    let ca = read_pem(&ca_path)?;
    let key = KeyPair::from_pem(&read_pem(&key_path)?).with_context(|| format!("use {}", key_path.display()))?;
    let issuer = Issuer::from_ca_cert_pem(&ca, key).with_context(|| format!("use {}", ca_path.display()))?;
    Ok((issuer, ca))
}

/// What a certificate of ours says.
fn leaf(names: &[String], now: Timestamp) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(names).context("use the server's names in a certificate")?;
    (params.not_before, params.not_after) = lifetime(now, LEAF_DAYS)?;
    params.distinguished_name = Default::default();
    params.distinguished_name.push(DnType::CommonName, "portolan");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn make_ca(now: Timestamp) -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = lifetime(now, CA_DAYS)?;
    params.distinguished_name = Default::default();
    // A name of its own, so that a machine may trust several.
    let id = portolan_types::Digest::of(key.public_key_raw()).short();
    params.distinguished_name.push(DnType::CommonName, format!("Portolan CA {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// From yesterday (clocks differ) for so many days.
fn lifetime(now: Timestamp, days: i64) -> anyhow::Result<(OffsetDateTime, OffsetDateTime)> {
    let at = |secs: i64| OffsetDateTime::from_unix_timestamp(secs).context("the system's clock is out of range");
    Ok((at(now.unix_secs() - DAY_SECS)?, at(now.unix_secs() + days * DAY_SECS)?))
}

/// Whether a certificate has exactly these names and is far from its end.
fn is_good(pem: &str, names: &[String], now: Timestamp) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
    let Ok((_, cert)) = x509_parser::parse_x509_certificate(&der) else { return false };
    let Ok(Some(san)) = cert.subject_alternative_name() else { return false };
    let mut have: Vec<String> = san
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
            x509_parser::extensions::GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
                16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
                _ => None,
            },
            _ => None,
        })
        .collect();
    have.sort();
    let mut want = names.to_vec();
    want.sort();
    let (from, until) = (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
    have == want && from <= now.unix_secs() && until - now.unix_secs() > LEAF_RENEW_DAYS * DAY_SECS
}

/// The names our own certificate is for, each once.
fn names(settings: &Settings, listen: SocketAddr) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "*.localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let mut add = |name: String| {
        if !names.contains(&name) {
            names.push(name);
        }
    };
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    if crate::settings::DomainName::is_valid(&host) {
        add(host);
    }
    if !listen.ip().is_unspecified() {
        add(listen.ip().to_string());
    }
    if let Some(domain) = &settings.domain {
        add(domain.0.clone());
        add(format!("*.{}", domain.0));
    }
    if let Some(address) = &settings.public_address {
        add(address.host().to_owned());
    }
    for name in &settings.tls_names {
        add(name.0.clone());
    }
    names
}

/// How often [`Tls::refresh`] is to be called.
pub(crate) const REFRESH_EVERY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn settings(data: &Path) -> Settings {
        Settings { data: data.to_owned(), ..Settings::defaults().unwrap() }
    }

    fn open(settings: &Settings, now: Timestamp) -> anyhow::Result<Tls> {
        Tls::open(settings, settings.listen, now)
    }

    fn days(n: i64) -> Timestamp {
        Timestamp::from_unix_secs(1_800_000_000 + n * DAY_SECS)
    }

    #[test]
    fn the_ca_stays_and_the_certificate_is_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let tls = open(&settings, days(0)).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join("tls").join(name)).unwrap();
        let (ca, cert) = (read("ca.pem"), read("server.pem"));
        for key in ["ca.key", "server.key"] {
            let mode = std::fs::metadata(dir.path().join("tls").join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }

        open(&settings, days(1)).unwrap();
        assert_eq!(read("server.pem"), cert, "a good certificate stays over a restart");
        assert!(!tls.refresh(days(59), false).unwrap());
        assert!(tls.refresh(days(61), false).unwrap(), "renewed while running");
        assert!(read("server.pem") != cert && read("ca.pem") == ca);

        let more = Settings { domain: Some(crate::settings::DomainName("reg.example".into())), ..settings };
        open(&more, days(61)).unwrap();
        let der = CertificateDer::from_pem_slice(read("server.pem").as_bytes()).unwrap();
        let (_, cert) = x509_parser::parse_x509_certificate(&der).unwrap();
        let names = format!("{:?}", cert.subject_alternative_name().unwrap().unwrap().value);
        assert!(names.contains("*.reg.example") && names.contains("*.localhost"), "{names}");
    }

    #[test]
    fn a_lost_ca_key_is_not_papered_over() {
        let dir = tempfile::tempdir().unwrap();
        open(&settings(dir.path()), days(0)).unwrap();
        std::fs::remove_file(dir.path().join("tls/ca.key")).unwrap();
        let e = format!("{:#}", open(&settings(dir.path()), days(0)).err().unwrap());
        assert!(e.contains("ca.key is missing"), "{e}");
    }

    #[test]
    fn the_operators_certificate_is_read_again_when_it_changes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&one, &two] {
            open(&settings(dir.path()), days(0)).unwrap();
        }
        let of = |dir: &tempfile::TempDir, name: &str| dir.path().join("tls").join(name);
        let data = tempfile::tempdir().unwrap();
        let (cert, key) = (data.path().join("c.pem"), data.path().join("k.pem"));
        std::fs::copy(of(&one, "server.pem"), &cert).unwrap();
        std::fs::copy(of(&one, "server.key"), &key).unwrap();
        let mut settings = settings(data.path());
        (settings.tls_cert, settings.tls_key) = (Some(cert.clone()), Some(key.clone()));
        let tls = open(&settings, days(0)).unwrap();
        assert_eq!(tls.ca_file(), None);
        assert!(!tls.refresh(days(0), false).unwrap());
        assert!(!tls.refresh(days(0), true).unwrap(), "the same one again");

        std::fs::copy(of(&two, "server.key"), &key).unwrap();
        assert!(tls.refresh(days(0), true).is_err(), "half a change: the old pair stays in use");
        std::fs::copy(of(&two, "server.pem"), &cert).unwrap();
        assert!(tls.refresh(days(0), true).unwrap());
        std::fs::write(&cert, "rubbish").unwrap();
        assert!(open(&settings, days(0)).is_err());
    }
}
