//! Scope maps: what a repository token may do, repository by repository.
//!
//! A scope map is a list of actions, each on the repositories of one pattern:
//!
//! ```text
//! repositories/<pattern>/content/read
//! repositories/<pattern>/content/write
//! repositories/<pattern>/content/delete
//! repositories/<pattern>/metadata/read
//! repositories/<pattern>/metadata/write
//! gateway/<name>/config/read | config/write | message/read | message/write
//! ```
//!
//! A pattern is a repository's name; a name followed by `/*`, for every repository below that
//! name (not the one of that name itself); or `*` alone, for every repository. There is no
//! other wildcard. Actions only add, whatever the order, and a pattern is about repositories
//! that do not exist yet as well. No scope map opens the catalog. What is about gateways
//! (connected registries) is kept and opens nothing here.
//!
//! Grammar and effects: Microsoft Learn, "Create a token with repository-scoped permissions".

use std::collections::HashMap;

use portolan_types::RepoName;

use super::{Action, ActionSet};

/// Actions in one scope map (ACR's figure).
pub const SCOPE_MAP_ACTIONS_MAX: usize = 500;

/// What follows a repository's pattern, and what it allows.
const REPOSITORY: [(&str, Action); 5] = [
    ("content/read", Action::Pull),
    ("content/write", Action::Push),
    ("content/delete", Action::Delete),
    ("metadata/read", Action::MetadataRead),
    ("metadata/write", Action::MetadataWrite),
];

/// What follows a gateway's name.
const GATEWAY: [&str; 4] = ["config/read", "config/write", "message/read", "message/write"];

/// Why a scope map was refused. The text names the action and the rule it broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeMapError {
    /// Too many actions.
    #[error("a scope map can have {SCOPE_MAP_ACTIONS_MAX} actions, not {0}")]
    TooMany(usize),
    /// Neither an action on repositories nor one on a gateway.
    #[error(
        "'{0}' is not an action: use repositories/<name>/content/read, content/write, content/delete, metadata/read \
         or metadata/write, or gateway/<name>/config/read, config/write, message/read or message/write"
    )]
    Action(String),
    /// No repository can have that name, and it is no pattern.
    #[error("the repository of '{0}' is neither a repository's name, nor one followed by '/*', nor '*': {1}")]
    Repository(String, &'static str),
}

/// A scope map, ready to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeMap {
    /// By name.
    exact: HashMap<Box<str>, ActionSet>,
    /// By the name that must stand before a `/`.
    below: HashMap<Box<str>, ActionSet>,
    /// For every repository.
    every: ActionSet,
}

impl ScopeMap {
    /// Read a list of actions, in any case, in any order. An action may come twice.
    ///
    /// Errors: the first action that is not one.
    pub fn parse<S: AsRef<str>>(actions: &[S]) -> Result<ScopeMap, ScopeMapError> {
        if actions.len() > SCOPE_MAP_ACTIONS_MAX {
            return Err(ScopeMapError::TooMany(actions.len()));
        }
        let mut map = ScopeMap::default();
        for action in actions {
            map.add(action.as_ref())?;
        }
        Ok(map)
    }

    fn add(&mut self, text: &str) -> Result<(), ScopeMapError> {
        let unknown = || ScopeMapError::Action(shown(text));
        let lower = text.to_ascii_lowercase();
        let (kind, rest) = lower.split_once('/').ok_or_else(unknown)?;
        match kind {
            "repositories" => {
                let ends = |(word, _): &&(&str, Action)| before(rest, word).is_some();
                let (word, action) = REPOSITORY.iter().find(ends).ok_or_else(unknown)?;
                let pattern = before(rest, word).ok_or_else(unknown)?;
                let slot = match pattern {
                    "*" => &mut self.every,
                    _ => match pattern.strip_suffix("/*") {
                        Some(name) => self.below.entry(repository(text, name)?).or_default(),
                        None => self.exact.entry(repository(text, pattern)?).or_default(),
                    },
                };
                *slot = slot.with(ActionSet::of(&[*action]));
                Ok(())
            }
            "gateway" => {
                let name = GATEWAY.iter().find_map(|word| before(rest, word)).ok_or_else(unknown)?;
                let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
                if name.is_empty() || name.len() > 50 || !name.bytes().all(plain) {
                    return Err(unknown());
                }
                Ok(())
            }
            _ => Err(unknown()),
        }
    }

    /// What it allows on a repository. Costs one look for each part of the name.
    pub fn allowed(&self, repository: &RepoName) -> ActionSet {
        let name = repository.as_str();
        let mut sum = self.every;
        if let Some(set) = self.exact.get(name) {
            sum = sum.with(*set);
        }
        if !self.below.is_empty() {
            for (at, _) in name.match_indices('/') {
                if let Some(set) = self.below.get(&name[..at]) {
                    sum = sum.with(*set);
                }
            }
        }
        sum
    }

    /// What it allows on every repository alike.
    pub fn everywhere(&self) -> ActionSet {
        self.every
    }
}

/// `rest` without `/word` at its end.
fn before<'a>(rest: &'a str, word: &str) -> Option<&'a str> {
    rest.strip_suffix(word)?.strip_suffix('/')
}

fn repository(action: &str, name: &str) -> Result<Box<str>, ScopeMapError> {
    match name.parse::<RepoName>() {
        Ok(_) => Ok(name.into()),
        Err(why) => Err(ScopeMapError::Repository(shown(action), why.why)),
    }
}

/// An action in an error: no longer than it helps, and printable.
fn shown(action: &str) -> String {
    action.chars().take(120).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(actions: &[&str]) -> ScopeMap {
        ScopeMap::parse(actions).unwrap()
    }

    fn letters(map: &ScopeMap, repository: &str) -> String {
        let set = map.allowed(&repository.parse().unwrap());
        REPOSITORY.iter().zip("pPdmM".chars()).filter(|((_, a), _)| set.contains(*a)).map(|(_, c)| c).collect()
    }

    #[test]
    fn patterns_reach_what_they_say() {
        let map = map(&[
            "repositories/a/content/read",
            "repositories/A/content/write",
            "repositories/team/*/content/read",
            "repositories/team/x/*/metadata/read",
            "repositories/team/x/content/delete",
            "gateway/myconnected/config/read",
        ]);
        for (repository, expected) in [
            ("a", "pP"),
            ("a/b", ""),
            ("ab", ""),
            ("team", ""),
            ("team/x", "pd"),
            ("team/y", "p"),
            ("team/x/y", "pm"),
            ("team/x/y/z", "pm"),
            ("teams/x", ""),
            ("my/team/x", ""),
        ] {
            assert_eq!(letters(&map, repository), expected, "{repository}");
        }
    }

    #[test]
    fn a_star_alone_is_every_repository() {
        let map = map(&["repositories/*/metadata/read", "repositories/a/b/content/read"]);
        assert_eq!(letters(&map, "a"), "m");
        assert_eq!(letters(&map, "a/b"), "pm");
        assert_eq!(map.everywhere(), ActionSet::of(&[Action::MetadataRead]));
    }

    #[test]
    fn every_word_has_its_action_and_none_opens_anything_else() {
        let all: Vec<String> = REPOSITORY.iter().map(|(word, _)| format!("repositories/r/{word}")).collect();
        let set = ScopeMap::parse(&all).unwrap().allowed(&"r".parse().unwrap());
        let five =
            ActionSet::of(&[Action::Pull, Action::Push, Action::Delete, Action::MetadataRead, Action::MetadataWrite]);
        assert_eq!(set, five);
        for (word, action) in REPOSITORY {
            let set = map(&[&format!("repositories/r/{word}")]).allowed(&"r".parse().unwrap());
            assert_eq!(set, ActionSet::of(&[action]));
        }
    }

    #[test]
    fn a_repository_may_be_called_as_an_action() {
        let map = map(&["repositories/content/read/content/read", "repositories/content/write/metadata/read"]);
        assert_eq!(letters(&map, "content/read"), "p");
        assert_eq!(letters(&map, "content/write"), "m");
        assert_eq!(letters(&map, "content"), "");
    }

    #[test]
    fn what_is_no_action_is_refused() {
        for bad in [
            "",
            "repositories",
            "repositories/content/read",
            "repositories//content/read",
            "repositories/a/content",
            "repositories/a/content/list",
            "repositories/a/contentread",
            "repositories/a*/content/read",
            "repositories/a/*/b/content/read",
            "repositories/*/*/content/read",
            "repositories/**/content/read",
            "repositories/a/**/content/read",
            "repositories//*/content/read",
            "repositories/a//*/content/read",
            "repositories/../content/read",
            "repositories/a/../b/content/read",
            "repositories/a b/content/read",
            "repositories/a\n/content/read",
            "repositories/é/content/read",
            "repositories/a:v1/content/read",
            "registry/catalog/*",
            "catalog/read",
            "gateway//config/read",
            "gateway/a/b/config/read",
            "gateway/a/content/read",
            " repositories/a/content/read",
        ] {
            assert!(ScopeMap::parse(&[bad]).is_err(), "{bad}");
        }
        assert!(ScopeMap::parse(&vec!["repositories/a/content/read"; 500]).is_ok());
        assert!(matches!(ScopeMap::parse(&vec!["repositories/a/content/read"; 501]), Err(ScopeMapError::TooMany(501))));
    }

    /// The plain reading of the rules, without tables.
    fn plainly(actions: &[(String, usize)], repository: &str) -> ActionSet {
        actions.iter().fold(ActionSet::NONE, |sum, (pattern, which)| {
            let takes = match pattern.as_str() {
                "*" => true,
                p if p.ends_with("/*") => repository.starts_with(&p[..p.len() - 1]),
                p => p == repository,
            };
            if takes { sum.with(ActionSet::of(&[REPOSITORY[*which].1])) } else { sum }
        })
    }

    proptest! {
        #[test]
        fn the_tables_say_what_the_rules_say(
            actions in proptest::collection::vec(("\\*|[ab](/[ab]){0,2}(/\\*)?", 0usize..5), 0..12),
            repository in "[ab](/[ab]){0,4}",
        ) {
            let texts: Vec<String> =
                actions.iter().map(|(p, w)| format!("repositories/{p}/{}", REPOSITORY[*w].0)).collect();
            let got = ScopeMap::parse(&texts).unwrap().allowed(&repository.parse().unwrap());
            prop_assert_eq!(got, plainly(&actions, &repository));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}", inside in "(repositories|gateway)/[a-z*/.]{0,40}/(content|config)/(read|write)") {
            let _ = ScopeMap::parse(&[&text]);
            let _ = ScopeMap::parse(&[&inside]);
        }
    }
}
