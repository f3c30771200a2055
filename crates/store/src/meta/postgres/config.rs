//! Where the database is and how to get in: the URL, the password, TLS.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use portolan_types::Secret;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{Error, Result};

/// How long one attempt to connect may take.
const CONNECT_SECS_MAX: u64 = 10;
/// After this long without an answer of the other machine's kernel the connection is gone.
const SILENCE_SECS_MAX: u64 = 20;
/// Bytes of a password file.
const PASSWORD_BYTES_MAX: u64 = 16 * 1024;

/// Which PostgreSQL database holds the metadata.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// `postgres://user[:password]@host:5432/database[?name=value&…]`, as libpq has it.
    /// Names: `sslmode` (`disable`, `prefer`, `require`, `verify-full`), `sslrootcert` (a PEM
    /// file of the authorities to trust; without it the system's), `connect_timeout`,
    /// `options`, `target_session_attrs`, `application_name`. A host may be a folder
    /// (percent-encoded) with a unix socket; several hosts are tried in turn.
    pub url: Secret<String>,
    /// A file whose first line is the password. It is read at every new connection, so a
    /// password may be changed while the server runs. Wins over one in the URL.
    pub password_file: Option<PathBuf>,
    /// Connections for reading; besides these there is one for writing and one for notices.
    pub readers: usize,
    /// How long [`super::super::Meta::open_postgres`] waits for a database that is not there
    /// yet, as when both start together.
    pub wait: Duration,
}

impl PostgresConfig {
    /// The database at `url`, with eight reading connections and half a minute to appear.
    pub fn new(url: impl Into<String>) -> PostgresConfig {
        PostgresConfig { url: Secret::new(url.into()), password_file: None, readers: 8, wait: Duration::from_secs(30) }
    }
}

/// The database, ready to be connected to.
pub(super) struct Server {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    password_file: Option<PathBuf>,
    /// `host:port/database`, for people.
    pub(super) place: String,
}

fn unusable(why: impl fmt::Display) -> Error {
    Error::Database(format!("the URL of the database cannot be used: {why}"))
}

impl Server {
    pub(super) fn new(config: &PostgresConfig) -> Result<Server> {
        let url = config.url.expose();
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(unusable("it does not begin with postgres://"));
        }
        let (rest, sslmode, roots) = take_tls(url)?;
        // Its errors name the part that is wrong and not what stands there.
        let mut parsed = tokio_postgres::Config::from_str(&rest).map_err(|e| unusable(super::error::text(&e)))?;
        if parsed.get_dbname().is_none() {
            return Err(unusable("it names no database"));
        }
        if parsed.get_user().is_none() {
            return Err(unusable("it names no user"));
        }
        let mode = match sslmode.as_deref() {
            Some("disable") => SslMode::Disable,
            None | Some("prefer") => SslMode::Prefer,
            Some("require" | "verify-full") => SslMode::Require,
            Some(_) => return Err(unusable("sslmode is one of disable, prefer, require and verify-full")),
        };
        parsed.ssl_mode(mode);
        if parsed.get_connect_timeout().is_none() {
            parsed.connect_timeout(Duration::from_secs(CONNECT_SECS_MAX));
        }
        if parsed.get_application_name().is_none() {
            parsed.application_name("portolan");
        }
        parsed.keepalives_idle(Duration::from_secs(SILENCE_SECS_MAX / 2));
        parsed.keepalives_interval(Duration::from_secs(SILENCE_SECS_MAX / 4));
        parsed.keepalives_retries(2);
        parsed.tcp_user_timeout(Duration::from_secs(SILENCE_SECS_MAX));
        let tls = tls(sslmode.as_deref() == Some("verify-full"), roots.as_deref())?;
        let server = Server { place: place(&parsed), config: parsed, tls, password_file: config.password_file.clone() };
        server.password()?;
        Ok(server)
    }

    /// What to connect with now.
    pub(super) fn with_password(&self) -> Result<(tokio_postgres::Config, MakeRustlsConnect)> {
        let mut config = self.config.clone();
        if let Some(password) = self.password()? {
            config.password(password.expose());
        }
        Ok((config, self.tls.clone()))
    }

    fn password(&self) -> Result<Option<Secret<String>>> {
        let Some(path) = &self.password_file else { return Ok(None) };
        let what = || format!("read the password of the database in {}", path.display());
        let file = std::fs::File::open(path).map_err(|e| Error::io(what(), e))?;
        let mut text = String::new();
        let mut limited = std::io::Read::take(file, PASSWORD_BYTES_MAX);
        std::io::Read::read_to_string(&mut limited, &mut text).map_err(|e| Error::io(what(), e))?;
        match text.lines().next() {
            Some(line) if !line.is_empty() => Ok(Some(Secret::new(line.to_owned()))),
            _ => Err(Error::Database(format!("{} has no password in its first line", path.display()))),
        }
    }
}

/// `host:port/database`, without user and password.
fn place(config: &tokio_postgres::Config) -> String {
    let mut ports = config.get_ports().iter();
    let hosts = config.get_hosts().iter().map(|host| {
        let port = ports.next().or(config.get_ports().last()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(folder) => format!("{}:{port}", folder.display()),
        }
    });
    format!("{}/{}", hosts.collect::<Vec<_>>().join(","), config.get_dbname().unwrap_or_default())
}

/// Take out of the URL what the client library does not know.
fn take_tls(url: &str) -> Result<(String, Option<String>, Option<PathBuf>)> {
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), None, None)) };
    let (mut sslmode, mut roots, mut kept) = (None, None, Vec::new());
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", value)) => sslmode = Some(value.to_owned()),
            Some(("sslrootcert", value)) => roots = Some(decoded(value)?.into()),
            _ => kept.push(pair),
        }
    }
    let rest = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    Ok((rest, sslmode, roots))
}

/// `%2Fa` → `/a`.
fn decoded(text: &str) -> Result<String> {
    let wrong = || unusable("sslrootcert is not percent-encoded as it should be");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).ok_or_else(wrong);
        out.push(match b {
            // Two digits of base 16: below 256.
            b'%' => (digit(bytes.next())? * 16 + digit(bytes.next())?) as u8,
            b => b,
        });
    }
    String::from_utf8(out).map_err(|_| wrong())
}

fn tls(verify: bool, roots: Option<&Path>) -> Result<MakeRustlsConnect> {
    let failed = |e: rustls::Error| Error::Database(format!("set up TLS for the database: {e}"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(failed)?;
    let config = match (verify, roots) {
        (true, Some(path)) => builder.with_root_certificates(read_roots(path)?).with_no_client_auth(),
        (true, None) => {
            let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(failed)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        // As libpq has it: `prefer` and `require` hide what is said, from those who only listen.
        (false, _) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth()
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

fn read_roots(path: &Path) -> Result<RootCertStore> {
    let unreadable = |e: &dyn fmt::Display| {
        Error::Database(format!("read the authorities (sslrootcert) in {}: {e}", path.display()))
    };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))? {
        let certificate = certificate.map_err(|e| unreadable(&e))?;
        store.add(certificate).map_err(|e| unreadable(&e))?;
    }
    if store.is_empty() { Err(unreadable(&"there is no certificate in it")) } else { Ok(store) }
}

/// Takes every certificate; the handshake must still be signed by its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Result<Server, String> {
        Server::new(&PostgresConfig::new(url)).map_err(|e| e.to_string())
    }

    #[test]
    fn urls() {
        let server_ =
            server("postgres://me:hush@db.example:5433/reg?sslmode=require&options=-csearch_path%3Da").unwrap();
        assert_eq!(server_.place, "db.example:5433/reg");
        assert_eq!(server_.config.get_ssl_mode(), SslMode::Require);
        assert_eq!(server_.config.get_options(), Some("-csearch_path=a"));
        assert_eq!(server("postgresql://me@%2Frun%2Fpg/reg").unwrap().place, "/run/pg:5432/reg");
        assert_eq!(server("postgres://me@a,b:6000/reg").unwrap().place, "a:5432,b:6000/reg");
        for (url, why) in [
            ("mysql://a@b/c", "does not begin with postgres://"),
            ("postgres://me:hush@db", "no database"),
            ("postgres://db/reg", "no user"),
            ("postgres://me:hush@db/reg?sslmode=maybe", "sslmode is one of"),
            ("postgres://me:hush@db:port/reg", "port"),
            ("postgres://me:hush@db/reg?sslmode=verify-full&sslrootcert=%2Fnot%2Fhere", "/not/here"),
            ("postgres://me:hush@db/reg?sslrootcert=%2", "percent-encoded"),
        ] {
            let said = server(url).map(|_| ()).unwrap_err();
            assert!(said.contains(why) && !said.contains("hush"), "{url}: {said}");
        }
    }

    #[test]
    fn passwords_come_from_a_file_and_do_not_print() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let mut config = PostgresConfig::new("postgres://me:other@db/reg");
        config.password_file = Some(file.clone());
        let missing = Server::new(&config).map(|_| ()).unwrap_err();
        assert!(missing.to_string().contains(file.to_str().unwrap()), "{missing}");
        std::fs::write(&file, "\n").unwrap();
        assert!(Server::new(&config).map(|_| ()).unwrap_err().to_string().contains("no password"));
        std::fs::write(&file, "pass word\nmore\n").unwrap();
        let server = Server::new(&config).unwrap();
        let (with, _) = server.with_password().unwrap();
        assert_eq!(with.get_password(), Some(&b"pass word"[..]));
        let printed = format!("{config:?} {with:?} {}", server.place);
        assert!(!printed.contains("pass word") && !printed.contains("other"), "{printed}");
    }
}
