//! How a server is set up: every setting, declared once.
//!
//! The table at the end of this file is the only place where a setting is named. From it
//! come the [`Settings`] struct, the reader of the TOML file, of `PORTOLAN_*` and of the
//! flags, the error that names the nearest known setting, and the reference page
//! (`docs/reference/settings.md`, written by `cargo xtask docs`, held up to date by a test).
//!
//! A flag wins over the environment, the environment over the file, the file over the
//! default.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use portolan_store::blob::BlobConfig;
use portolan_types::Secret;

use crate::otel::{OtlpEndpoint, Ratio};
use crate::sink::LogTarget;

/// The flags of `portolan serve`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeArgs {
    /// Settings file (TOML); also PORTOLAN_CONFIG
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder that holds everything the server keeps [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Address for TLS [default: 127.0.0.1:8443]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Address for plain HTTP, without TLS [default: none]
    #[arg(long, value_name = "ADDR")]
    pub listen_http: Option<String>,
    /// Domain whose sub-domains are the registries: NAME answers at NAME.<domain>
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,
    /// Print the reference page of all settings and exit
    #[arg(long, hide = true)]
    pub print_settings_reference: bool,
}

/// Why the settings cannot be used; says where the bad one stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

/// One setting, as the reference page and the readers see it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The heading it stands under.
    pub section: &'static str,
    /// Its name in the file; `PORTOLAN_` and the upper-case name in the environment.
    pub name: &'static str,
    /// What kind of value it takes, for people.
    pub kind: &'static str,
    /// The default as text; empty for none.
    pub default: &'static str,
    /// The flag of `portolan serve`, when there is one.
    pub flag: Option<&'static str>,
    /// What it does, one line of text for each line of its doc comment.
    pub doc: &'static [&'static str],
}

impl Setting {
    /// The environment variable.
    pub fn env(&self) -> String {
        format!("PORTOLAN_{}", self.name.to_ascii_uppercase())
    }
}

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

/// Where settings come from, besides the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file's path (for messages) and content.
    pub file: Option<(PathBuf, String)>,
    /// The environment; only `PORTOLAN_*` is looked at.
    pub env: Vec<(String, String)>,
    /// Flags: the setting's name and the value.
    pub flags: Vec<(&'static str, String)>,
}

impl Sources {
    /// The process's environment, the given flags, and the file that `--config` or
    /// `PORTOLAN_CONFIG` names.
    pub fn of_process(args: &ServeArgs) -> Result<Sources, SettingsError> {
        let env: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .filter(|(k, _)| k.starts_with("PORTOLAN_"))
            .collect();
        let named = env.iter().find(|(k, v)| k == "PORTOLAN_CONFIG" && !v.is_empty()).map(|(_, v)| PathBuf::from(v));
        let file = match args.config.clone().or(named) {
            Some(path) => Some((path.clone(), read_file(&path)?)),
            None => None,
        };
        let flags = [
            ("data", &args.data),
            ("listen", &args.listen),
            ("listen_http", &args.listen_http),
            ("domain", &args.domain),
        ];
        let flags = flags.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect();
        Ok(Sources { file, env, flags })
    }
}

fn read_file(path: &Path) -> Result<String, SettingsError> {
    std::fs::read_to_string(path)
        .map_err(|cause| SettingsError(format!("cannot read the settings file {}: {cause}", path.display())))
}

impl Settings {
    /// Put the sources over the defaults. The second part of the answer are warnings: a
    /// variable that looks like a misspelt setting.
    pub fn load(sources: &Sources) -> Result<(Settings, Vec<String>), SettingsError> {
        let mut settings = Settings::defaults()?;
        if let Some((path, text)) = &sources.file {
            let at = path.display();
            let table: toml::Table =
                text.parse().map_err(|cause: toml::de::Error| SettingsError(format!("settings file {at}: {cause}")))?;
            for (key, value) in &table {
                if setting(key).is_none() {
                    let hint = nearest(key).map_or(String::new(), |near| format!("; did you mean {near:?}?"));
                    return Err(SettingsError(format!("settings file {at}: unknown setting {key:?}{hint}")));
                }
                settings
                    .put(key, Raw::Toml(value))
                    .map_err(|why| SettingsError(format!("settings file {at}: {key}: {why}")))?;
            }
        }
        let mut warnings = Vec::new();
        for (variable, value) in &sources.env {
            let Some(name) = variable.strip_prefix("PORTOLAN_").map(str::to_ascii_lowercase) else { continue };
            if setting(&name).is_some() {
                settings
                    .put(&name, Raw::Text(value))
                    .map_err(|why| SettingsError(format!("environment variable {variable}: {why}")))?;
            } else if let Some(near) = nearest(&name).and_then(setting)
                && !["config", "config_dir"].contains(&name.as_str())
            {
                warnings.push(format!("environment variable {variable} is no setting; did you mean {}?", near.env()));
            }
        }
        for (name, value) in &sources.flags {
            let flag = setting(name).and_then(|s| s.flag).unwrap_or(name);
            settings.put(name, Raw::Text(value)).map_err(|why| SettingsError(format!("flag {flag}: {why}")))?;
        }
        settings.check()?;
        Ok((settings, warnings))
    }

    /// What no single setting can say.
    fn check(&self) -> Result<(), SettingsError> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => Err(SettingsError("tls_cert is set but tls_key is not; set both or neither".to_owned())),
            (None, Some(_)) => Err(SettingsError("tls_key is set but tls_cert is not; set both or neither".to_owned())),
            _ => Ok(()),
        }?;
        let max = portolan_types::limits::MANIFEST_BYTES_MAX as u64;
        if self.manifest_bytes_max.0 > max {
            return Err(SettingsError(format!("manifest_bytes_max is more than {max} bytes")));
        }
        let max = portolan_types::limits::BLOB_BYTES_MAX;
        if self.layer_bytes_max.0 > max {
            return Err(SettingsError(format!("layer_bytes_max is more than {max} bytes")));
        }
        if self.body_memory_bytes_max.0 < 16 << 20 {
            return Err(SettingsError("body_memory_bytes_max is less than 16 MiB".to_owned()));
        }
        Ok(())
    }
}

/// The setting of that name.
pub fn setting(name: &str) -> Option<&'static Setting> {
    ALL.iter().find(|s| s.name == name)
}

/// The known name nearest to a misspelt one, when one is near.
fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    ALL.iter()
        .map(|s| (distance(&name, s.name), s.name))
        .min()
        .filter(|(distance, near)| *distance <= (near.len() / 3).max(1))
        .map(|(_, near)| near)
}

/// Edit distance (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.bytes().enumerate() {
            let keep = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = keep.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The reference page, in Markdown.
pub fn reference() -> String {
    use fmt::Write;
    let mut page = String::from(
        "# Settings of `portolan serve`\n\n\
         <!-- Written by `cargo xtask docs` from crates/server/src/settings.rs; change it there. -->\n\n\
         Every setting can stand in the settings file (`--config FILE` or `PORTOLAN_CONFIG`, TOML, `name = value`)\n\
         and in the environment. A flag wins over the environment, the environment over the file, the file over the\n\
         default. A name that is not in this list is an error.\n",
    );
    let mut section = "";
    for s in ALL {
        if s.section != section {
            section = s.section;
            let _ = write!(page, "\n## {section}\n");
        }
        let _ = write!(page, "\n### `{}`\n\n", s.name);
        for line in s.doc {
            let _ = writeln!(page, "{}", line.trim());
        }
        let default = if s.default.is_empty() { "none".to_owned() } else { format!("`{}`", s.default) };
        let _ = write!(page, "\n- Value: {}\n- Default: {default}\n- Environment: `{}`\n", s.kind, s.env());
        if let Some(flag) = s.flag {
            let _ = writeln!(page, "- Flag: `{flag}`");
        }
    }
    page
}

enum Raw<'a> {
    Text(&'a str),
    Toml(&'a toml::Value),
}

impl Raw<'_> {
    fn read<T: Value>(&self) -> Result<T, String> {
        match self {
            Raw::Text(text) => T::parse(text),
            Raw::Toml(value) => T::from_toml(value),
        }
    }
}

macro_rules! settings {
    ($( $section:literal { $( $(#[doc = $doc:literal])+ $name:ident: $ty:ty = $default:literal $(, flag $flag:literal)?; )+ } )+) => {
        /// How one server is set up.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $($( $(#[doc = $doc])+ pub $name: $ty, )+)+
        }

        /// Every setting, in the order of the reference page.
        pub const ALL: &[Setting] = &[
            $($( Setting {
                section: $section,
                name: stringify!($name),
                kind: <$ty as Value>::KIND,
                default: $default,
                flag: [$(Some($flag),)? None][0],
                doc: &[$($doc),+],
            }, )+)+
        ];

        impl Settings {
            /// Every setting at its default.
            pub fn defaults() -> Result<Settings, SettingsError> {
                Ok(Settings {
                    $($( $name: <$ty as Value>::parse($default)
                        .map_err(|why| SettingsError(format!("default of {}: {why}", stringify!($name))))?, )+)+
                })
            }

            fn put(&mut self, name: &str, raw: Raw<'_>) -> Result<(), String> {
                match name {
                    $($( stringify!($name) => self.$name = raw.read()?, )+)+
                    _ => return Err("no such setting".to_owned()),
                }
                Ok(())
            }
        }
    };
}

settings! {
    "Places and addresses" {
        /// The folder that holds everything the server keeps: database, blobs, keys, its CA. Made with mode 0700
        /// when it is not there. One server at a time may use it.
        data: PathBuf = "./data", flag "--data";
        /// The address for TLS: `IP:PORT`, `localhost:PORT`, or `:PORT` for every address of the machine. Port 0
        /// takes a free one. The default can be reached from this machine only.
        listen: SocketAddr = "127.0.0.1:8443", flag "--listen";
        /// A second address without TLS, for clients on the same machine or behind a proxy that ends TLS.
        /// Passwords and tokens cross it in the clear.
        listen_http: Option<SocketAddr> = "", flag "--listen-http";
        /// The domain whose sub-domains are the registries: registry `NAME` answers at `NAME.<domain>`. Without it
        /// the first registry answers at the server's own address and the others at `NAME.localhost`.
        domain: Option<DomainName> = "", flag "--domain";
        /// Host and port by which clients reach this server when it is not the address it listens on (a port mapped
        /// by a container runtime, a load balancer): `registry.example.com`, `localhost:5443`. Without it: the domain,
        /// or else `localhost`, with the port listened on. It stands in every URL that the server hands out.
        public_address: Option<HostPort> = "";
        /// The name of this server's region, as the control plane shows it.
        region: String = "local";
    }
    "Database" {
        /// The PostgreSQL database that holds the metadata, as
        /// `postgres://USER@HOST:5432/DATABASE?sslmode=verify-full`. Any number of servers may share it. Without it
        /// metadata is kept in SQLite in the data folder, for one server. `sslmode` is `disable`, `prefer` (the
        /// default: TLS when the database offers it), `require` (TLS, whoever answers) or `verify-full` (TLS with a
        /// certificate for HOST from an authority in the file `sslrootcert=…`, or else one that this machine trusts).
        /// For a unix socket HOST is its folder, percent-encoded. Connect to the database itself: a pooler that
        /// hands connections out by transaction does not do.
        database: Option<DatabaseUrl> = "";
        /// A file whose first line is the password for `database`. It is read at every new connection, so the
        /// password may change while the server runs.
        database_password_file: Option<PathBuf> = "";
        /// Connections to `database` for reading, from 1 to 64. Besides them the server has one for writing and one
        /// on which it hears from other servers.
        database_readers: Positive = "8";
        /// How long to wait at the start for a database that cannot be reached yet, in seconds.
        database_wait_secs: Positive = "30";
    }
    "Blobs" {
        /// The bucket that holds blobs, uploads, build contexts and logs: `s3://BUCKET/PREFIX` (S3 and what speaks like
        /// it), `az://CONTAINER/PREFIX` (Azure Blob Storage) or `gs://BUCKET/PREFIX` (Google Cloud Storage). Any number
        /// of servers may share it. It must be there already. Without it blobs are kept in the data folder. What of the
        /// following is not set is looked for where the clouds' own tools look: `AWS_*`, `AZURE_STORAGE_*` and
        /// `GOOGLE_*` in the environment, then the identity of the machine. See docs/storage.md.
        blobs: Option<BlobPlace> = "";
        /// The address of the storage service when it is not the cloud's own: `https://s3.example.com`.
        blob_endpoint: Option<String> = "";
        /// The region of an S3 bucket.
        blob_region: Option<String> = "";
        /// S3: the access key id. Azure: the name of the storage account.
        blob_account: Option<String> = "";
        /// S3: the secret access key. Azure: the account's key.
        blob_secret: Option<SecretText> = "";
        /// A file with the credentials instead. S3: as `~/.aws/credentials`. Azure: the account's key. Google: a service
        /// account's key (JSON).
        blob_credentials_file: Option<PathBuf> = "";
        /// The size of the parts in which content longer than that goes to the bucket, from 5MiB to 256MiB. Up to 24
        /// parts of all uploads are in memory at the same time; more wait in files under the data folder.
        blob_part_bytes: ByteSize = "8MiB";
        /// Copies of blobs that builds read, kept in the data folder beside a bucket. The ones not used for longest go
        /// first.
        blob_cache_bytes_max: ByteSize = "10GiB";
        /// Answer the GET of a blob with 307 and a URL at which the bucket itself gives it, signed and good for
        /// `blob_redirect_secs`. Clients must reach the bucket by the address that the server has for it. Who may read
        /// is decided before. HEAD is answered by the server, which also reads what it needs itself.
        blob_redirect: bool = "false";
        /// How long such a URL is good, in seconds; at most 604800.
        blob_redirect_secs: Positive = "1200";
    }
    "Secrets" {
        /// The file with the master key (64 hex digits, `openssl rand -hex 32`) that everything sealed or derived
        /// hangs on. Without it the first start makes `master.key` in the data folder. Servers that share a database
        /// share the key: one with another is refused.
        master_key_file: Option<PathBuf> = "";
    }
    "TLS" {
        /// The operator's certificate (PEM, with its chain). Without it the server makes a CA under `data/tls` and
        /// its own certificate from it. Read again when the file changes or on SIGHUP.
        tls_cert: Option<PathBuf> = "";
        /// The private key (PEM) of `tls_cert`.
        tls_key: Option<PathBuf> = "";
        /// More names for the server's own certificate, besides localhost, this machine's name, the address
        /// listened on and the domain.
        tls_names: Vec<CertName> = "";
    }
    "Logs" {
        /// `text`, `json`, or `auto`: text on a terminal, else JSON. Logs go to standard error.
        log_format: LogFormat = "auto";
        /// What to log: `error`, `warn`, `info`, `debug`, `trace`, and finer by module, as in `warn,portolan_tasks=debug`.
        log_filter: String = "info";
        /// Where the access log goes, one JSON object for each request: `none`, `stderr`, or a file, which is opened
        /// anew on SIGHUP. Lines that the disk or pipe does not take in time are dropped and counted.
        access_log: LogTarget = "stderr";
        /// Where the audit log goes, one JSON object for each change, sign-in and refusal: `none`, `stderr`, or a
        /// file, which is opened anew on SIGHUP. A line is written before its request is answered.
        audit_log: LogTarget = "stderr";
    }
    "Metrics and traces" {
        /// An address of its own for `/metrics`, `/healthz` and `/readyz`, without TLS. With it, the other addresses
        /// do not serve `/metrics`.
        metrics_listen: Option<SocketAddr> = "";
        /// A file with a token that `/metrics` then asks for, as `Authorization: Bearer`. Read once, at the start.
        metrics_token_file: Option<PathBuf> = "";
        /// Where traces go: the base address of an OpenTelemetry collector (OTLP over HTTP, protobuf), as in
        /// `http://localhost:4318`; `/v1/traces` is added. Without it nothing is traced.
        otlp_endpoint: Option<OtlpEndpoint> = "";
        /// A file with headers for the collector, one `name: value` on a line: what it asks for to let us in.
        otlp_headers_file: Option<PathBuf> = "";
        /// The name under which traces are sent (`service.name`).
        otlp_service_name: String = "portolan";
        /// The part of requests that is traced, from 0 to 1, where the client does not say (`traceparent`).
        otlp_sample_ratio: Ratio = "1";
    }
    "Limits and times" {
        /// Connections open at the same time; more wait to be accepted.
        connections_max: Positive = "8192";
        /// Connections open at the same time from one address (IPv6: from one network of 64 bits); more are closed
        /// at once. 0 for no limit: behind a proxy every client has the proxy's address.
        connections_per_address_max: u32 = "4096";
        /// Requests in flight at the same time; more are answered 503 with `Retry-After`.
        requests_max: Positive = "16384";
        /// Requests in flight at the same time on one HTTP/2 connection.
        http2_streams_max: Positive = "256";
        /// The request line and headers of one request; more is answered 431.
        header_bytes_max: ByteSize = "64KiB";
        /// Headers of one request; more are answered 431.
        headers_max: Positive = "64";
        /// The path and query of one request; more is answered 414.
        uri_bytes_max: ByteSize = "16KiB";
        /// The size of a manifest, at most 4 MiB; more is answered 413.
        manifest_bytes_max: ByteSize = "4MiB";
        /// The size of a layer or other blob; more is answered 413.
        layer_bytes_max: ByteSize = "200GiB";
        /// Memory for request bodies that are read whole before they are handled (manifests, forms, JSON), all
        /// requests together. A request that finds none waits a few seconds and is then answered 503 with
        /// `Retry-After`.
        body_memory_bytes_max: ByteSize = "256MiB";
        /// How long a client may take to send the headers of a request, and how long an HTTP/1.1 connection may
        /// stay open between two, in seconds.
        header_read_timeout_secs: Positive = "60";
        /// How long a client may take for the TLS handshake, in seconds.
        tls_handshake_timeout_secs: Positive = "10";
        /// How long a client that is sending a body, or taking one, may do nothing, or next to nothing
        /// (`body_window_bytes_min`), and how long an HTTP/2 connection may stay open without a request, in seconds.
        body_idle_timeout_secs: Positive = "120";
        /// How much a client that is sending a body, or taking one, must get done within `body_idle_timeout_secs` of
        /// being waited for.
        body_window_bytes_min: ByteSize = "16KiB";
        /// How long requests in flight and running builds are given to finish when the server is told to stop, in
        /// seconds.
        drain_timeout_secs: Positive = "30";
    }
    "Storage" {
        /// How often unreferenced content is looked for, in seconds.
        gc_interval_secs: Positive = "60";
        /// How long an uploaded or mounted blob waits for a manifest that needs it, in seconds: the longest that a
        /// push may take between its first layer and its manifest.
        gc_link_grace_secs: Positive = "86400";
        /// How long a blob stays after the last manifest that needed it was deleted, in seconds.
        gc_unlink_grace_secs: Positive = "600";
        /// How long a blob stays after a push asked whether it is here, in seconds: such a push does not send it
        /// again.
        gc_touch_grace_secs: Positive = "3600";
        /// How long an upload may go without a byte before it is forgotten, in seconds.
        gc_upload_idle_secs: Positive = "86400";
        /// Look for garbage, and say in the log and in `/metrics` what would go, but remove nothing.
        gc_dry_run: bool = "false";
        /// Uploads open at the same time in one registry; more are answered 429.
        uploads_max: Positive = "10000";
        /// Uploads that one identity may have open at the same time in one registry; more are answered 429.
        uploads_per_identity_max: Positive = "10000";
    }
    "Rates" {
        /// Requests that read (GET, HEAD) of one identity in a minute; anonymous ones count by client address. More
        /// are answered 429 with `Retry-After`. 0 for no limit. (ACR Premium: 10,000 for each registry.)
        rate_reads_per_min: u32 = "0";
        /// Requests that write of one identity in a minute. 0 for no limit. (ACR Premium: 2,000 for each registry.)
        rate_writes_per_min: u32 = "0";
        /// Tokens asked for from one client address in a minute. 0 for no limit.
        rate_tokens_per_min: u32 = "0";
        /// Sign-ins with a wrong password, secret or refresh token from one client address in a minute. After that,
        /// sign-ins from there are answered 429 unread. 0 for no limit.
        rate_failed_sign_ins_per_min: u32 = "600";
        /// How many seconds' worth of a rate may come at once.
        rate_burst_secs: Positive = "60";
        /// Identities and addresses whose rates are remembered; the least recently seen are forgotten.
        rate_identities_max: Positive = "100000";
    }
    "Builds" {
        /// Builds that run at the same time.
        build_parallel_max: Positive = "2";
        /// Steps of one build that run at the same time, where stages do not need each other; 0 for two for each
        /// processor, at least 8.
        build_steps_parallel_max: u32 = "0";
        /// Content that the build cache may keep in the store.
        build_cache_bytes_max: ByteSize = "20GiB";
        /// Unpacked base images and step results kept ready on this machine for later builds. What is removed is
        /// unpacked again, or its step done again.
        build_snapshots_bytes_max: ByteSize = "40GiB";
        /// Memory of one build step.
        build_memory_bytes_max: ByteSize = "4GiB";
        /// Processors of one build step; 0 for all.
        build_cpus_max: u32 = "0";
        /// Processes of one build step.
        build_pids_max: Positive = "4096";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Settings, String> {
        let sources = Sources {
            file: Some(("p.toml".into(), file.to_owned())),
            env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            flags: flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect(),
        };
        Settings::load(&sources).map(|(s, _)| s).map_err(|e| e.0)
    }

    #[test]
    fn flag_over_environment_over_file_over_default() {
        let of = |file: &str, env: &[(&str, &str)], flags: &[(&'static str, &str)]| {
            load(file, env, flags).unwrap().listen.to_string()
        };
        let file = "listen = '0.0.0.0:1'";
        let env = [("PORTOLAN_LISTEN", "0.0.0.0:2")];
        assert_eq!(of("", &[], &[]), "127.0.0.1:8443");
        assert_eq!(of(file, &[], &[]), "0.0.0.0:1");
        assert_eq!(of(file, &env, &[]), "0.0.0.0:2");
        assert_eq!(of(file, &env, &[("listen", ":3")]), "0.0.0.0:3");
    }

    #[test]
    fn errors_name_the_place_and_the_nearest_setting() {
        let e = |file: &str, env: &[(&str, &str)], flags: &[(&'static str, &str)]| load(file, env, flags).unwrap_err();
        assert_eq!(
            e("lissten = 'x'", &[], &[]),
            r#"settings file p.toml: unknown setting "lissten"; did you mean "listen"?"#
        );
        assert_eq!(
            e("listen-http = 'x'", &[], &[]),
            r#"settings file p.toml: unknown setting "listen-http"; did you mean "listen_http"?"#
        );
        assert_eq!(e("xyzzy = 1", &[], &[]), r#"settings file p.toml: unknown setting "xyzzy""#);
        assert_eq!(
            e("uploads_max = 0", &[], &[]),
            r#"settings file p.toml: uploads_max: "0" is not a whole number above 0"#
        );
        assert_eq!(
            e("tls_names = 3", &[], &[]),
            "settings file p.toml: tls_names: a value of type integer is not a list of DNS names and IP addresses"
        );
        assert!(e("listen = ", &[], &[]).starts_with("settings file p.toml: TOML parse error at line 1"));
        assert_eq!(
            e("", &[("PORTOLAN_LOG_FORMAT", "xml")], &[]),
            r#"environment variable PORTOLAN_LOG_FORMAT: "xml" is not auto, text or json"#
        );
        assert_eq!(
            e("", &[], &[("listen_http", "here")]),
            r#"flag --listen-http: "here" is not an address to listen on (IP:PORT, localhost:PORT or :PORT)"#
        );
        assert!(e("tls_cert = 'a'", &[], &[]).contains("tls_key"));
    }

    #[test]
    fn a_misspelt_variable_is_warned_of() {
        let env = ["PORTOLAN_LISTN", "PORTOLAN_CONFIG_DIR", "PORTOLAN_SOMETHING_ELSE"];
        let sources = Sources { env: env.map(|k| (k.to_owned(), "x".to_owned())).to_vec(), ..Sources::default() };
        let (_, warnings) = Settings::load(&sources).unwrap();
        assert_eq!(warnings, ["environment variable PORTOLAN_LISTN is no setting; did you mean PORTOLAN_LISTEN?"]);
    }

    #[test]
    fn values() {
        let s = load(
            "build_memory_bytes_max = '512MiB'\ntls_names = ['A.example', '*.b', '::1']\ndomain = 'Example.com'\nlisten_http = ''",
            &[],
            &[],
        )
        .unwrap();
        assert_eq!(s.build_memory_bytes_max, ByteSize(512 << 20));
        assert_eq!(s.tls_names, ["a.example", "*.b", "::1"].map(|n| CertName(n.into())));
        assert_eq!(s.domain, Some(DomainName("example.com".into())));
        assert_eq!(s.listen_http, None);
        assert_eq!(s.database, None);
        let s = load("database = 'postgres://me:hush@db/reg'", &[], &[]).unwrap();
        assert!(s.database.is_some() && !format!("{s:?}").contains("hush"));
        let why = load("", &[("PORTOLAN_DATABASE", "mysql://me:hush@db/reg")], &[]).unwrap_err();
        assert!(why.contains("PORTOLAN_DATABASE") && why.contains("PostgreSQL") && !why.contains("hush"), "{why}");
        assert!(ByteSize::parse("18446744073709551615TiB").is_err());
        assert!(DomainName::parse("a..b").is_err() && DomainName::parse("a:1").is_err());
        for (text, host) in [("Localhost:5443", "localhost"), ("r.example", "r.example"), ("[::1]:1", "::1")] {
            assert_eq!(HostPort::parse(text).unwrap().host(), host);
        }
        for bad in ["a:b", "https://a", "a:99999", "a/b", ""] {
            assert!(HostPort::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_setting_is_on_the_page_with_its_environment() {
        let page = reference();
        for s in ALL {
            assert!(page.contains(&format!("### `{}`", s.name)) && page.contains(&s.env()), "{}", s.name);
            assert!(!s.doc.is_empty());
        }
    }
}
