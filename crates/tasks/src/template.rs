//! `{{.Run.ID}}` and its kin in image names, and what a finished name must look like.
//!
//! ACR renders names as Go templates in which only run variables are set. We take exactly
//! those: `{{.Run.NAME}}` (blanks allowed inside the braces) and the older `{{.Build.ID}}`.

use portolan_types::reference::DOCKER_HUB;
use portolan_types::{Platform, RunId, Timestamp, limits};

use crate::model::{ImageName, RunRegistry};

/// What the variables stand for in one run.
#[derive(Clone, Copy, Debug)]
pub struct RunVars<'a> {
    /// `ID`
    pub id: &'a RunId,
    /// `Registry` (the login server) and `RegistryName`
    pub registry: &'a RunRegistry,
    /// `OS`, `Architecture`
    pub platform: &'a Platform,
    /// `Date`: `yyyyMMdd-HHmmssz`, UTC
    pub created: Timestamp,
}

const KNOWN: &str = "ID, Registry, RegistryName, Date, OS, Architecture";

impl RunVars<'_> {
    fn value(&self, name: &str) -> Option<String> {
        Some(match name {
            "ID" => self.id.to_string(),
            "Registry" => self.registry.login_server.clone(),
            "RegistryName" => self.registry.name.to_string(),
            "Date" => {
                let text = self.created.rfc3339();
                let digits: String = text.chars().take(19).filter(char::is_ascii_digit).collect();
                format!("{}-{}z", digits.get(..8)?, digits.get(8..)?)
            }
            "OS" => self.platform.os.clone(),
            "Architecture" => self.platform.architecture.clone(),
            _ => return None,
        })
    }
}

/// Put the values into `text`. The error is a sentence for the caller.
pub fn expand(text: &str, vars: &RunVars<'_>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let Some((inside, after)) = after.split_once("}}") else {
            return Err(format!("`{text}` has `{{{{` without `}}}}`"));
        };
        let name = inside.trim();
        let value = match name.strip_prefix(".Run.") {
            Some(variable) => vars.value(variable),
            None if name == ".Build.ID" => vars.value("ID"),
            None => None,
        };
        out.push_str(&value.ok_or_else(|| {
            format!("`{{{{{inside}}}}}` in `{text}` has no value in this run: use {{{{.Run.X}}}} with X one of {KNOWN}")
        })?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Read an image name as it stands after expansion: `repository[:tag]`, with or without
/// this registry's login server before it. The error is a sentence for the caller.
pub fn image_name(text: &str, login_server: &str) -> Result<ImageName, String> {
    let own = text.split_once('/').filter(|(host, _)| host.eq_ignore_ascii_case(login_server));
    let name = own.map_or(text, |(_, rest)| rest);
    if own.is_none()
        && let Some((first, _)) = name.split_once('/')
        && (first.contains(['.', ':']) || first == "localhost")
    {
        let other = if first == DOCKER_HUB { "Docker Hub".to_owned() } else { format!("`{first}`") };
        return Err(format!("`{text}` names {other}: a build stores its image in its own registry, write `name:tag`"));
    }
    if name.contains('@') {
        return Err(format!("`{text}` names a digest: an image is given tags, write `name:tag`"));
    }
    let (repo, tag) = match name.rsplit_once(':') {
        Some((repo, tag)) => (repo, tag),
        None => (name, "latest"),
    };
    Ok(ImageName {
        repo: repo.parse().map_err(|e| format!("`{text}`: {e}"))?,
        tag: tag.parse().map_err(|e| format!("`{text}`: {e}"))?,
    })
}

/// Expand and read every name; the same name twice counts once. The error is a sentence.
pub fn image_names(names: &[String], vars: &RunVars<'_>) -> Result<Vec<ImageName>, String> {
    if names.len() > limits::BUILD_TAGS_MAX {
        return Err(format!("an image can be given at most {} names at once", limits::BUILD_TAGS_MAX));
    }
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let name = image_name(&expand(name, vars)?, &vars.registry.login_server)?;
        if !found.contains(&name) {
            found.push(name);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T>(use_vars: impl FnOnce(&RunVars<'_>) -> T) -> T {
        let registry = RunRegistry { id: 1, name: "myreg".parse().unwrap(), login_server: "localhost:8443".into() };
        use_vars(&RunVars {
            id: &RunId::nth(4),
            registry: &registry,
            platform: &"linux/arm64".parse().unwrap(),
            created: Timestamp::parse("2026-11-20T10:02:03.5Z").unwrap(),
        })
    }

    #[test]
    fn every_variable() {
        let text = "{{.Run.Registry}}/{{ .Run.RegistryName }}:{{.Run.ID}}-{{.Build.ID}}-{{.Run.Date}}-{{.Run.OS}}-{{.Run.Architecture}}";
        check(|v| {
            assert_eq!(expand(text, v).unwrap(), "localhost:8443/myreg:cb4-cb4-20261120-100203z-linux-arm64");
            for bad in ["{{.Run.Commit}}", "{{.Values.x}}", "{{.Run.ID", "{{}}", "{{{{.Run.ID}}}}"] {
                assert!(expand(bad, v).is_err(), "{bad}");
            }
            assert!(expand("a:{{.Run.Nope}}", v).unwrap_err().contains("{{.Run.Nope}}"));
        });
    }

    #[test]
    fn names() {
        let ok = |text: &str| image_name(text, "localhost:8443").unwrap().to_string();
        assert_eq!(ok("flask-echo:v1"), "flask-echo:v1");
        assert_eq!(ok("team/app"), "team/app:latest");
        assert_eq!(ok("LOCALHOST:8443/app:v1"), "app:v1");
        for bad in ["", "App:v1", "app:", "docker.io/library/x:1", "other.io/x", "a@sha256:00", "a:b:c", "localhost/x"]
        {
            assert!(image_name(bad, "localhost:8443").is_err(), "{bad}");
        }
        check(|v| {
            let twice = ["a:1".to_owned(), "a:1".to_owned(), "a:{{.Run.ID}}".to_owned()];
            assert_eq!(image_names(&twice, v).unwrap().len(), 2);
            assert!(image_names(&vec!["a:1".to_owned(); 65], v).is_err());
        });
    }
}
