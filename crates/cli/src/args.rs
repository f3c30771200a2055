//! What all commands' arguments have in common, and how az reads values.

use clap::{Args, ValueEnum};

use crate::output::query::Query;

/// A command's own arguments, and the ones every command takes.
///
/// They are flattened beside each group rather than put on the root, so that `serve` and
/// `worker`, which print no results, do not offer `--query`.
#[derive(Debug, Args)]
pub struct With<T: Args> {
    /// The command's own.
    #[command(flatten)]
    pub args: T,
    /// Every command's.
    #[command(flatten)]
    pub global: Global,
}

/// Arguments every command takes, as in az.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global Arguments")]
pub struct Global {
    /// Output format.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        ignore_case = true,
        default_value_t,
        hide_default_value = true,
        env = "PORTOLAN_OUTPUT",
        hide_env = true
    )]
    pub output: Format,
    /// JMESPath query string. See https://jmespath.org/ for the language.
    #[arg(long, global = true, value_name = "JMESPATH")]
    pub query: Option<Query>,
    /// Name or ID of the subscription; by default the one signed in to.
    #[arg(long, global = true, value_name = "NAME|ID")]
    pub subscription: Option<String>,
    /// Say more about what is going on.
    #[arg(long, global = true)]
    pub verbose: bool,
    /// Say everything about what is going on, requests included.
    #[arg(long, global = true)]
    pub debug: bool,
    /// Show only errors, no warnings.
    #[arg(long, global = true)]
    pub only_show_errors: bool,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON, indented.
    #[default]
    Json,
    /// JSON in colour on a terminal.
    Jsonc,
    /// Columns for people.
    Table,
    /// Values between tabs, for scripts.
    Tsv,
    /// YAML.
    Yaml,
    /// YAML (az's coloured form; printed plain).
    Yamlc,
    /// Nothing.
    None,
}

/// `--flag`, `--flag true`, `--flag no`: az's three-state flag. Use with
/// `num_args = 0..=1, default_missing_value = "true"`.
pub(crate) fn three_state(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" | "on" => Ok(true),
        "false" | "f" | "no" | "n" | "0" | "off" => Ok(false),
        _ => Err("write true or false".into()),
    }
}

/// `East US` and `eastus` are one location.
pub(crate) fn location(text: &str) -> Result<String, String> {
    let location: String = text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase();
    if location.is_empty() { Err("it is empty".into()) } else { Ok(location) }
}

/// Space-separated tags: `key[=value] [key[=value] …]`; a lone `""` clears them.
pub(crate) fn tags(words: &[String]) -> serde_json::Value {
    let pairs = words.iter().filter(|w| !w.is_empty()).map(|word| {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        (key.to_owned(), serde_json::Value::from(value))
    });
    serde_json::Value::Object(pairs.collect())
}

/// A value, or `@FILE` for what a file holds: secrets stay off the process list so.
pub(crate) fn text_or_file(text: &str) -> Result<String, String> {
    let Some(file) = text.strip_prefix('@').filter(|f| !f.is_empty()) else {
        return Ok(text.to_owned());
    };
    let read = if file == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    // The newline that an editor leaves at the end is no part of a secret.
    read.map(|text| text.trim_end_matches(['\n', '\r']).to_owned()).map_err(|e| format!("cannot read {file}: {e}"))
}

/// JSON, or a file with JSON in it (`FILE` or `@FILE`).
pub(crate) fn json_or_file(text: &str) -> Result<serde_json::Value, String> {
    let text = if !text.starts_with('@') && std::path::Path::new(text).is_file() {
        std::fs::read_to_string(text).map_err(|e| format!("cannot read {text}: {e}"))?
    } else {
        text_or_file(text)?
    };
    serde_json::from_str(&text).map_err(|e| format!("it is neither JSON nor a file with JSON in it: {e}"))
}

/// A text that must not be empty: as a filter it would mean everything.
pub(crate) fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("it can't be an empty string: leave it out or write something".into())
    } else {
        Ok(text.into())
    }
}

/// Calendar years from now, as credentials count them: the same day and time.
pub(crate) fn years_from(now: portolan_types::Timestamp, years: u32) -> Option<portolan_types::Timestamp> {
    let text = now.rfc3339();
    let (year, rest) = text.split_once('-')?;
    let year = year.parse::<u32>().ok()?.checked_add(years)?;
    let parse = |rest: &str| portolan_types::Timestamp::parse(&format!("{year:04}-{rest}"));
    // The 29th of February has no like in most years.
    parse(rest).or_else(|| parse(&rest.replacen("02-29", "02-28", 1)))
}

/// A time (RFC 3339) or a day (its first moment, UTC).
pub(crate) fn time_or_day(text: &str) -> Result<portolan_types::Timestamp, String> {
    use portolan_types::Timestamp;
    let zoned = || Timestamp::parse(&format!("{text}Z"));
    let day = || Timestamp::parse(&format!("{text}T00:00:00Z"));
    Timestamp::parse(text)
        .or_else(zoned)
        .or_else(day)
        .ok_or_else(|| "it is neither a time, such as 2027-12-31T11:59:59Z, nor a day, such as 2027-12-31".into())
}

/// az's generic update: members of the object by path.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Generic Update Arguments")]
pub(crate) struct Change {
    /// Set a member: PATH=VALUE, such as tags.owner=me. VALUE is JSON, or text.
    #[arg(long, value_name = "PATH=VALUE", num_args = 1.., action = clap::ArgAction::Append)]
    set: Vec<String>,
    /// Remove a member: PATH, such as tags.owner.
    #[arg(long, value_name = "PATH", action = clap::ArgAction::Append)]
    remove: Vec<String>,
}

impl Change {
    /// Nothing was asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// Change an object.
    pub(crate) fn apply(&self, object: &mut serde_json::Value) -> crate::error::Result<()> {
        use serde_json::{Value, json};
        let bad = |text: &str| crate::error::Failure::new(format!("Couldn't find '{text}' in the object."));
        for text in &self.set {
            let (path, value) = text.split_once('=').ok_or_else(|| {
                crate::error::Failure::usage(format!("'{text}' does not say what to set: write PATH=VALUE"))
            })?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            let mut at = &mut *object;
            for step in path.split('.') {
                if at.is_null() {
                    *at = json!({});
                }
                at = match (at, step.parse::<usize>()) {
                    (Value::Array(items), Ok(n)) => items.get_mut(n).ok_or_else(|| bad(path))?,
                    (Value::Object(members), _) => members.entry(step).or_insert(Value::Null),
                    _ => return Err(bad(path)),
                };
            }
            *at = value;
        }
        for path in &self.remove {
            let (parent, last) = path.rsplit_once('.').map_or(("", path.as_str()), |(p, l)| (p, l));
            let mut at = &mut *object;
            for step in parent.split('.').filter(|s| !s.is_empty()) {
                at = at.get_mut(step).ok_or_else(|| bad(path))?;
            }
            at.as_object_mut().and_then(|members| members.remove(last)).ok_or_else(|| bad(path))?;
        }
        Ok(())
    }
}

/// A registry by name, for the groups where az writes `-n`.
#[derive(Clone, Debug, Args)]
pub(crate) struct NamedRegistry {
    /// The name of the container registry.
    #[arg(short = 'n', long = "name", value_name = "REGISTRY", env = "AZURE_DEFAULTS_ACR", hide_env = true)]
    pub name: String,
    /// Name of the resource group; found by the registry's name when not given.
    #[arg(short = 'g', long, value_name = "GROUP")]
    pub resource_group: Option<String>,
}

/// A registry by name, for the groups where az writes `-r`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Registry {
    /// The name of the container registry.
    #[arg(
        id = "registry",
        short = 'r',
        long = "registry",
        value_name = "REGISTRY",
        env = "AZURE_DEFAULTS_ACR",
        hide_env = true
    )]
    pub name: String,
    /// Name of the resource group; found by the registry's name when not given.
    #[arg(short = 'g', long, value_name = "GROUP")]
    pub resource_group: Option<String>,
}

/// Another way in than the sign-in: a name and password of the registry itself.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RegistryLogin {
    /// The username used to log into the registry.
    #[arg(short = 'u', long, requires = "password")]
    pub username: Option<String>,
    /// The password used to log into the registry.
    #[arg(short = 'p', long, requires = "username")]
    pub password: Option<String>,
    /// The tenant suffix in the registry's login server. Taken for az's sake: login servers
    /// are never guessed here.
    #[arg(long, hide = true)]
    pub suffix: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(three_state("True"), Ok(true));
        assert_eq!(three_state("n"), Ok(false));
        assert!(three_state("maybe").is_err());
        assert_eq!(location("West Europe").as_deref(), Ok("westeurope"));
        assert_eq!(tags(&["a=b=c".into(), "d".into()]), serde_json::json!({"a": "b=c", "d": ""}));
        assert_eq!(tags(&[String::new()]), serde_json::json!({}));
        assert!(not_empty("").is_err());
    }

    #[test]
    fn files_stand_for_values() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "hush\n").unwrap();
        assert_eq!(text_or_file(&format!("@{}", file.display())).as_deref(), Ok("hush"));
        assert_eq!(text_or_file("p@ss").as_deref(), Ok("p@ss"));
        assert_eq!(text_or_file("@").as_deref(), Ok("@"));
        assert!(text_or_file("@/no/such/file").is_err());
        std::fs::write(&file, r#"{"a": 1}"#).unwrap();
        for text in [format!("@{}", file.display()), file.display().to_string(), r#"{"a": 1}"#.to_owned()] {
            assert_eq!(json_or_file(&text), Ok(serde_json::json!({"a": 1})), "{text}");
        }
        assert!(json_or_file("{").is_err());
    }

    #[test]
    fn times() {
        let day = time_or_day("2028-02-29").unwrap();
        assert_eq!(day.unix_secs(), time_or_day("2028-02-29T00:00:00Z").unwrap().unix_secs());
        assert_eq!(years_from(day, 1).unwrap().unix_secs(), time_or_day("2029-02-28").unwrap().unix_secs());
        assert_eq!(years_from(day, 4).unwrap().unix_secs(), time_or_day("2032-02-29").unwrap().unix_secs());
        assert!(time_or_day("soon").is_err());
    }

    #[test]
    fn changes_by_path() {
        use serde_json::json;
        let change = |set: &[&str], remove: &[&str]| Change {
            set: set.iter().map(|s| (*s).to_owned()).collect(),
            remove: remove.iter().map(|s| (*s).to_owned()).collect(),
        };
        let mut object = json!({"tags": {"a": "b"}, "list": [{"x": 1}]});
        change(&["tags.c=d", "flag=true", "new.deep=1", "list.0.x=2"], &["tags.a"]).apply(&mut object).unwrap();
        assert_eq!(object, json!({"tags": {"c": "d"}, "list": [{"x": 2}], "flag": true, "new": {"deep": 1}}));
        for bad in
            [change(&["a"], &[]), change(&["flag.x=1"], &[]), change(&[], &["tags.zz"]), change(&["list.7=1"], &[])]
        {
            assert!(bad.apply(&mut object).is_err(), "{bad:?}");
        }
    }
}
