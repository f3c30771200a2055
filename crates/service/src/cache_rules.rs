//! Cache rules: under which name of a registry an upstream repository is found.
//!
//! A build's `FROM python:3.11-slim` means `docker.io/library/python:3.11-slim`; the rule
//! `docker.io/library/*` → `*` says that this registry knows it as `python:3.11-slim`.
//! Sources and targets may end in a star, which stands for whatever is left of the name;
//! the rule with the longest matching source wins.

use portolan_auth::access::Action;
use portolan_auth::access::Target;
use portolan_store::meta::cache_rule;
pub use portolan_store::meta::cache_rule::CacheRule;
use portolan_types::{ImageRef, RepoName};

use crate::registries::Registry;
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// Rules of one registry (ACR's figure).
pub const RULES_MAX: usize = 1_000;

/// A rule as somebody asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRuleInput {
    /// `docker.io/library/ubuntu`, `docker.io/library/*`
    pub source: String,
    /// `ubuntu`, `hub/*`, `*`
    pub target: String,
    /// ARM id of a credential set.
    pub credential: Option<String>,
}

/// The repository that an image has under this rule, if the rule is about it.
pub fn target_of(rule: &CacheRule, image: &ImageRef) -> Option<RepoName> {
    let name = format!("{}/{}", image.host, image.repo);
    let target = match rule.source.strip_suffix('*') {
        Some(prefix) => {
            let rest = name.strip_prefix(prefix).filter(|rest| !rest.is_empty())?;
            format!("{}{rest}", rule.target.strip_suffix('*')?)
        }
        None if rule.source == name => rule.target.clone(),
        None => return None,
    };
    target.parse().ok()
}

/// The rule for an image, and the repository it has under it.
pub fn choose<'r>(rules: &'r [CacheRule], image: &ImageRef) -> Option<(&'r CacheRule, RepoName)> {
    rules
        .iter()
        .filter_map(|rule| Some((rule, target_of(rule, image)?)))
        .max_by_key(|(rule, _)| (rule.source.trim_end_matches('*').len(), !rule.source.ends_with('*')))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "InvalidParameter", message)
}

fn check(name: &str, input: &CacheRuleInput) -> Result<()> {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if !(5..=50).contains(&name.len()) || !name.bytes().all(word) {
        return Err(invalid("a cache rule's name must be 5 to 50 letters, digits, dashes and underscores"));
    }
    let (source, target) = (&input.source, &input.target);
    if source.ends_with('*') != target.ends_with('*') {
        return Err(invalid("source and target repository must both end in `*`, or neither"));
    }
    let plain = |text: &str| -> String {
        match text.strip_suffix('*') {
            // What a star may stand for.
            Some(prefix) if prefix.is_empty() || prefix.ends_with('/') => format!("{prefix}x"),
            _ => text.to_owned(),
        }
    };
    if !source.split_once('/').is_some_and(|(host, _)| host.contains(['.', ':']) || host == "localhost") {
        return Err(invalid(format!(
            "the source repository `{source}` must begin with its registry, as in docker.io/library/ubuntu"
        )));
    }
    let read: Result<ImageRef, _> = plain(source).parse();
    let image = read.map_err(|e| invalid(format!("source repository `{source}`: {e}")))?;
    if image.tag.is_some() || image.digest.is_some() {
        return Err(invalid("a cache rule is about repositories: leave the tag out"));
    }
    let read: Result<RepoName, _> = plain(target).parse();
    read.map_err(|e| invalid(format!("target repository `{target}`: {e}")))?;
    Ok(())
}

fn no_rule(name: &str) -> Error {
    Error::new(Kind::NotFound, "ResourceNotFound", format!("there is no cache rule '{name}' in this registry"))
}

impl Service {
    /// Every cache rule of a registry, by name.
    pub async fn list_cache_rules(&self, ctx: &Ctx, registry: &Registry) -> Result<Vec<CacheRule>> {
        self.check(ctx, registry, &Target::Registry, Action::CacheRuleRead)?;
        let id = registry.id;
        self.meta.read(move |tx| cache_rule::list(tx, id, RULES_MAX).map_err(Error::from)).await
    }

    /// One cache rule.
    pub async fn cache_rule(&self, ctx: &Ctx, registry: &Registry, name: &str) -> Result<CacheRule> {
        self.check(ctx, registry, &Target::Registry, Action::CacheRuleRead)?;
        let (id, key) = (registry.id, name.to_owned());
        let found = self.meta.read(move |tx| cache_rule::get(tx, id, &key).map_err(Error::from)).await?;
        found.ok_or_else(|| no_rule(name))
    }

    /// Make a cache rule, or replace the one of that name. The second answer is true when
    /// it is new.
    ///
    /// Errors: `InvalidParameter`; `Conflict` when another rule has the same source;
    /// `QuotaExceeded`.
    pub async fn put_cache_rule(
        &self,
        ctx: &Ctx,
        registry: &Registry,
        name: &str,
        input: CacheRuleInput,
    ) -> Result<(CacheRule, bool)> {
        self.check(ctx, registry, &Target::Registry, Action::CacheRuleWrite)?;
        check(name, &input)?;
        let id = registry.id;
        let CacheRuleInput { source, target, credential } = input;
        let rule = CacheRule { name: name.to_owned(), source, target, credential, created: ctx.now };
        self.meta
            .write(move |tx| {
                let others = cache_rule::list(tx, id, RULES_MAX + 1)?;
                let same = |a: &CacheRule| a.name.eq_ignore_ascii_case(&rule.name);
                if let Some(other) = others.iter().find(|o| o.source == rule.source && !same(o)) {
                    return Err(Error::new(
                        Kind::Conflict,
                        "Conflict",
                        format!("the cache rule '{}' has the source repository {} already", other.name, other.source),
                    ));
                }
                if others.len() >= RULES_MAX && !others.iter().any(same) {
                    let message = format!("a registry can have {RULES_MAX} cache rules");
                    return Err(Error::new(Kind::Conflict, "QuotaExceeded", message));
                }
                let new = cache_rule::put(tx, id, &rule)?;
                let stored = cache_rule::get(tx, id, &rule.name)?;
                Ok((stored.unwrap_or(rule), new))
            })
            .await
    }

    /// Delete a cache rule; false when there was none. What it brought in stays.
    pub async fn delete_cache_rule(&self, ctx: &Ctx, registry: &Registry, name: &str) -> Result<bool> {
        self.check(ctx, registry, &Target::Registry, Action::CacheRuleDelete)?;
        let (id, name) = (registry.id, name.to_owned());
        self.meta.write(move |tx| cache_rule::delete(tx, id, &name).map_err(Error::from)).await
    }
}

#[cfg(test)]
mod tests {
    use portolan_types::Timestamp;

    use super::*;

    fn rule(source: &str, target: &str) -> CacheRule {
        CacheRule {
            name: source.into(),
            source: source.into(),
            target: target.into(),
            credential: None,
            created: Timestamp(0),
        }
    }

    #[test]
    fn the_longest_source_wins() {
        let rules = [
            rule("docker.io/*", "*"),
            rule("docker.io/library/*", "*"),
            rule("docker.io/library/ubuntu", "base/ubuntu"),
            rule("mcr.microsoft.com/*", "mcr/*"),
            rule("ghcr.io/a/b", "b"),
        ];
        let target = |image: &str| choose(&rules, &image.parse().unwrap()).map(|(_, repo)| repo.to_string());
        assert_eq!(target("python:3.11-slim").as_deref(), Some("python"));
        assert_eq!(target("ubuntu").as_deref(), Some("base/ubuntu"));
        assert_eq!(target("grafana/grafana:1").as_deref(), Some("grafana/grafana"));
        assert_eq!(target("mcr.microsoft.com/dotnet/sdk:9").as_deref(), Some("mcr/dotnet/sdk"));
        assert_eq!(target("ghcr.io/a/b").as_deref(), Some("b"));
        assert_eq!(target("ghcr.io/a/bc"), None);
        assert_eq!(target("quay.io/x/y"), None);
    }

    #[test]
    fn what_a_rule_may_say() {
        let check = |source: &str, target: &str| {
            let input = CacheRuleInput { source: source.into(), target: target.into(), credential: None };
            check("rule1", &input)
        };
        for (source, target) in
            [("docker.io/library/ubuntu", "ubuntu"), ("mcr.microsoft.com/*", "mcr/*"), ("docker.io/*", "*")]
        {
            assert!(check(source, target).is_ok(), "{source}");
        }
        for (source, target) in [
            ("ubuntu", "ubuntu"),
            ("docker.io/library/ubuntu:1", "ubuntu"),
            ("docker.io/library/*", "ubuntu"),
            ("docker.io/lib*", "u*"),
            ("docker.io/library/ubuntu", "Ubuntu"),
            ("docker.io/a@sha256:00", "a"),
            ("*", "*"),
        ] {
            assert!(check(source, target).is_err(), "{source} {target}");
        }
    }
}
