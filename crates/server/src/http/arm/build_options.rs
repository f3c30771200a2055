//! `buildOptions`, the member of our own in an order for a build. What is unknown, malformed
//! or too much is refused by its name: an option that is quietly left out makes another image
//! than was asked for. Nothing of a value is ever repeated in a refusal; it may be a secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portolan_service::Error;
use portolan_tasks::{BuildOptions, NamedSecret, NamedSource, SshAgent};
use portolan_types::{Platform, Secret};
use serde_json::{Map, Value};

use super::run::invalid;

/// Things in one list, unless it has a number of its own below.
const ITEMS_MAX: usize = 64;
/// Platforms of one build.
const PLATFORMS_MAX: usize = 16;
/// Labels or annotations of one build.
const LABELS_MAX: usize = 1000;
/// A name, a reference, an address.
const TEXT_BYTES_MAX: usize = 8 * 1024;
/// A secret's value; docker's figure.
const SECRET_BYTES_MAX: usize = 500 * 1024;
/// The last second of the year 9999.
const EPOCH_SECS_MAX: u64 = 253_402_300_799;

/// Options that are written down and read, but that no build heeds yet.
const NOT_YET: &[&str] = &[];

/// Read the options of an order. One platform alone is given back beside them: it is the run's
/// own.
pub(super) fn read(value: Option<Value>) -> Result<(BuildOptions, Option<Platform>), Error> {
    let mut options = BuildOptions::default();
    let members = match value {
        None | Some(Value::Null) => return Ok((options, None)),
        Some(Value::Object(members)) => members,
        Some(_) => return Err(invalid("buildOptions: it must be an object")),
    };
    for (name, value) in members {
        if value.is_null() {
            continue;
        }
        let at = At(name.clone());
        if NOT_YET.contains(&name.as_str()) {
            return Err(at.wrong("builds of this server cannot do this"));
        }
        match name.as_str() {
            "platforms" => options.platforms = platforms(&at, value)?,
            "secrets" => options.secrets = secrets(&at, value)?,
            "ssh" => options.ssh = at.list(value, ITEMS_MAX, ssh)?,
            "contexts" => options.contexts = contexts(&at, value)?,
            "cacheFrom" => options.cache_from = at.list(value, ITEMS_MAX, |at, v| at.text(v))?,
            "cacheTo" => options.cache_to = at.list(value, ITEMS_MAX, |at, v| at.text(v))?,
            "provenance" => options.provenance = Some(at.text(value)?),
            "sbom" => options.sbom = Some(at.text(value)?),
            "labels" => options.labels = at.list(value, LABELS_MAX, label)?,
            "annotations" => options.annotations = at.list(value, LABELS_MAX, annotation)?,
            "sourceDateEpoch" => {
                let secs = value.as_u64().filter(|secs| *secs <= EPOCH_SECS_MAX);
                options.source_date_epoch =
                    Some(secs.ok_or_else(|| at.wrong("it must be seconds since 1970, as a whole number"))?);
            }
            "check" => options.check = at.flag(value)?,
            _ => return Err(unknown("buildOptions", &name)),
        }
    }
    crate::build::check_options(&options).map_err(|why| invalid(format!("buildOptions: {why}")))?;
    let single = match options.platforms.len() {
        1 => options.platforms.pop(),
        _ => None,
    };
    Ok((options, single))
}

/// A member that there is not. Words that could be anything are not repeated.
fn unknown(place: &str, name: &str) -> Error {
    let word = !name.is_empty() && name.len() <= 40 && name.bytes().all(|b| b.is_ascii_alphanumeric());
    invalid(format!("{place}: there is no option {}", if word { name } else { "of such a name" }))
}

/// Where in the options we are: `secrets[2].value`.
struct At(String);

impl At {
    fn wrong(&self, why: &str) -> Error {
        invalid(format!("buildOptions.{}: {why}", self.0))
    }

    fn member(&self, name: &str) -> At {
        At(format!("{}.{name}", self.0))
    }

    /// A text that is not empty, has no control characters and is not too long.
    fn text(&self, value: Value) -> Result<String, Error> {
        let text = self.any_text(value)?;
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(self.wrong("it must be text of one line, and not empty"));
        }
        Ok(text)
    }

    fn any_text(&self, value: Value) -> Result<String, Error> {
        let Value::String(text) = value else { return Err(self.wrong("it must be text")) };
        if text.len() > TEXT_BYTES_MAX {
            return Err(self.wrong(&format!("it is longer than {TEXT_BYTES_MAX} bytes")));
        }
        Ok(text)
    }

    fn flag(&self, value: Value) -> Result<bool, Error> {
        value.as_bool().ok_or_else(|| self.wrong("it must be true or false"))
    }

    /// Bytes from base64.
    fn bytes(&self, value: Value) -> Result<Secret<Vec<u8>>, Error> {
        let Value::String(text) = value else { return Err(self.wrong("it must be base64")) };
        let bytes = STANDARD.decode(text).map_err(|_| self.wrong("it is not base64"))?;
        if bytes.len() > SECRET_BYTES_MAX {
            return Err(self.wrong(&format!("it is longer than {SECRET_BYTES_MAX} bytes")));
        }
        Ok(Secret::new(bytes))
    }

    fn list<T>(
        &self,
        value: Value,
        max: usize,
        item: impl Fn(&At, Value) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let Value::Array(values) = value else { return Err(self.wrong("it must be a list")) };
        if values.len() > max {
            return Err(self.wrong(&format!("it has more than {max} items")));
        }
        values.into_iter().enumerate().map(|(n, v)| item(&At(format!("{}[{n}]", self.0)), v)).collect()
    }

    /// An object with these members and no others, in their order; absent ones are null.
    fn object<const N: usize>(&self, value: Value, names: [&str; N]) -> Result<[Value; N], Error> {
        let Value::Object(mut members): Value = value else { return Err(self.wrong("it must be an object")) };
        let members: &mut Map<String, Value> = &mut members;
        let found = names.map(|name| members.remove(name).unwrap_or(Value::Null));
        match members.keys().next() {
            Some(other) => Err(unknown(&format!("buildOptions.{}", self.0), other)),
            None => Ok(found),
        }
    }
}

fn platforms(at: &At, value: Value) -> Result<Vec<Platform>, Error> {
    let list = at.list(value, PLATFORMS_MAX, |at, v| {
        let platform: Platform = at.text(v)?.parse().map_err(|e: portolan_types::InvalidName| at.wrong(e.why))?;
        if platform.os != "linux" {
            return Err(at.wrong("only images for linux can be built here"));
        }
        Ok(platform)
    })?;
    distinct(at, &list)?;
    Ok(list)
}

/// Docker's file names of secrets and names of agents: what can be one in a mount's `id=`.
fn id(at: &At, value: Value) -> Result<String, Error> {
    let at = at.member("id");
    let id = at.text(value)?;
    if id.len() > 255 || id.contains([',', '/', '=', '"']) {
        return Err(at.wrong("it must be at most 255 bytes without comma, slash, equals sign and quote"));
    }
    Ok(id)
}

fn secrets(at: &At, value: Value) -> Result<Vec<NamedSecret>, Error> {
    let list = at.list(value, ITEMS_MAX, |at, v| {
        let [name, value] = at.object(v, ["id", "value"])?;
        Ok(NamedSecret { id: id(at, name)?, value: at.member("value").bytes(value)? })
    })?;
    distinct(at, &list.iter().map(|s| s.id.as_str()).collect::<Vec<_>>())?;
    Ok(list)
}

fn ssh(at: &At, value: Value) -> Result<SshAgent, Error> {
    let [name, keys, forward] = at.object(value, ["id", "keys", "forward"])?;
    let keys = match keys {
        Value::Null => Vec::new(),
        keys => at.member("keys").list(keys, ITEMS_MAX, At::bytes)?,
    };
    let forward = match forward {
        Value::Null => false,
        forward => at.member("forward").flag(forward)?,
    };
    if keys.is_empty() != forward {
        return Err(at.wrong("it must have keys, or forward: true, and not both"));
    }
    Ok(SshAgent { id: id(at, name)?, keys, forward })
}

fn contexts(at: &At, value: Value) -> Result<Vec<NamedSource>, Error> {
    let list = at.list(value, ITEMS_MAX, |at, v| {
        let [name, source] = at.object(v, ["name", "source"])?;
        let source = at.member("source").text(source)?;
        crate::build::check_named(&source).map_err(|why| at.member("source").wrong(&why))?;
        Ok(NamedSource { name: at.member("name").text(name)?, source })
    })?;
    distinct(at, &list.iter().map(|c| c.name.to_ascii_lowercase()).collect::<Vec<_>>())?;
    Ok(list)
}

fn label(at: &At, value: Value) -> Result<(String, String), Error> {
    let [name, value] = at.object(value, ["name", "value"])?;
    Ok((at.member("name").text(name)?, at.member("value").any_text(value)?))
}

/// `[type[,type]…:]key=value`; the types are the engine's to know.
fn annotation(at: &At, value: Value) -> Result<String, Error> {
    let text = at.any_text(value)?;
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() && !key.chars().any(char::is_control) => Ok(text),
        _ => Err(at.wrong("it must be key=value, with the type of manifest before a colon if it has one")),
    }
}

fn distinct<T: PartialEq>(at: &At, list: &[T]) -> Result<(), Error> {
    let twice = list.iter().enumerate().any(|(n, item)| list[..n].contains(item));
    if twice { Err(at.wrong("it names one thing twice")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(value: Value) -> String {
        read(Some(value)).unwrap_err().message
    }

    #[test]
    fn options_are_read() {
        let (options, platform) = read(Some(json!({
            "labels": [{"name": "a", "value": "b\nc"}], "sbom": null,
        })))
        .unwrap();
        assert_eq!(options.labels, [("a".to_owned(), "b\nc".to_owned())]);
        assert!(platform.is_none() && options.sbom.is_none());
        assert!(read(None).unwrap().0.is_empty() && read(Some(Value::Null)).unwrap().0.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_and_not_repeated() {
        assert_eq!(refused(json!({"colour": 1})), "buildOptions: there is no option colour");
        assert_eq!(refused(json!({"my pass word!": 1})), "buildOptions: there is no option of such a name");
        assert_eq!(refused(json!([])), "buildOptions: it must be an object");
        let label = "buildOptions.labels[1].name: it must be text of one line, and not empty";
        assert_eq!(refused(json!({"labels": [{"name": "a", "value": ""}, {"name": "", "value": "x"}]})), label);
        assert_eq!(
            refused(json!({"labels": [{"name": "a", "value": "", "hush": "x"}]})),
            "buildOptions.labels[0]: there is no option hush"
        );
        assert_eq!(refused(json!({"labels": {}})), "buildOptions.labels: it must be a list");
        let many = vec![json!({"name": "a", "value": "b"}); LABELS_MAX + 1];
        assert_eq!(refused(json!({"labels": many})), "buildOptions.labels: it has more than 1000 items");
    }

    #[test]
    fn secrets_keys_and_sources() {
        let at = |name: &str| At(name.to_owned());
        let read = secrets(&at("secrets"), json!([{"id": "token", "value": "aHVzaA=="}])).unwrap();
        assert_eq!((read[0].id.as_str(), read[0].value.expose().as_slice()), ("token", b"hush".as_slice()));
        let wrong = |value: Value| secrets(&at("secrets"), value).unwrap_err().message;
        assert_eq!(wrong(json!([{"id": "a", "value": "hush!"}])), "buildOptions.secrets[0].value: it is not base64");
        assert_eq!(wrong(json!([{"value": "aGk="}])), "buildOptions.secrets[0].id: it must be text");
        let twice = json!([{"id": "a", "value": ""}, {"id": "a", "value": "aGk="}]);
        assert_eq!(wrong(twice), "buildOptions.secrets: it names one thing twice");

        let agent = |value: Value| ssh(&at("ssh[0]"), value).map_err(|e| e.message);
        assert!(agent(json!({"id": "default", "forward": true})).unwrap().forward);
        assert_eq!(agent(json!({"id": "default", "keys": ["aGk="]})).unwrap().keys.len(), 1);
        let both = "buildOptions.ssh[0]: it must have keys, or forward: true, and not both";
        assert_eq!(agent(json!({"id": "a", "keys": ["aGk="], "forward": true})).unwrap_err(), both);
        assert_eq!(agent(json!({"id": "a"})).unwrap_err(), both);

        assert_eq!(platforms(&at("p"), json!(["linux/amd64", "linux/arm64/v8"])).unwrap().len(), 2);
        assert!(platforms(&at("p"), json!(["linux/amd64", "linux/amd64"])).is_err());
        assert!(platforms(&at("p"), json!(["windows/amd64"])).is_err());
        assert!(contexts(&at("c"), json!([{"name": "Lib", "source": "a"}, {"name": "lib", "source": "b"}])).is_err());
        assert!(annotation(&at("a"), json!("index,manifest:a=b")).is_ok());
        assert!(annotation(&at("a"), json!("=b")).is_err() && annotation(&at("a"), json!("ab")).is_err());
    }
}
