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
    }
}
