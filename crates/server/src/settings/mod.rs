//! How a server is set up: every setting, declared once.
//!
//! The table (`settings/table.rs`) is the only place where a setting is named. From it
//! come the [`Settings`] struct, the reader of the TOML file, of `PORTOLAN_*` and of the
//! flags, the error that names the nearest known setting, and the reference page
//! (`docs/reference/settings.md`, written by `cargo xtask docs`, held up to date by a test).
//!
//! A flag wins over the environment, the environment over the file, the file over the
//! default.

mod table;
mod values;

use std::path::{Path, PathBuf};

pub use table::{ALL, Settings};
pub use values::{
    BlobPlace, BuildNetwork, BuildUserNamespace, ByteSize, CertName, DatabaseUrl, DomainName, FetchAllow, HostPort,
    IdentityAddresses, LifetimeSecs, LogFormat, Positive, ProxyHeader, Reach, SecretText, TierChanges, Value,
};

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
    use std::fmt::Write;
    let mut page = String::from(
        "# Settings of `portolan serve`\n\n\
         <!-- Written by `cargo xtask docs` from crates/server/src/settings/table.rs; change it there. -->\n\n\
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
