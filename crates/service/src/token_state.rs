//! The repository tokens of the registries, as decisions need them: kept in memory whole, and
//! read anew a registry at a time, when that registry's count of changes is another.

use std::collections::HashMap;
use std::sync::Arc;

use portolan_auth::access::ScopeMap;
use portolan_store::meta::{Tx, repo_token, scope_map};
use portolan_types::{ScopeMapName, Timestamp, TokenName};

use crate::scope_maps::SYSTEM;
use crate::{Error, Result};

/// Rows read at a time.
const PAGE_ITEMS: usize = 2_000;

/// The tokens of one registry.
pub(crate) struct RegistryTokens {
    /// The count of changes it is as of.
    version: i64,
    /// By [`TokenName::key`].
    tokens: HashMap<Box<str>, TokenState>,
}

/// A repository token.
pub(crate) struct TokenState {
    pub name: TokenName,
    pub enabled: bool,
    /// What it may do: nothing without one.
    pub scope_map: Option<Arc<ScopeMap>>,
    pub passwords: Vec<PasswordState>,
}

/// A password of a token, as sign-in needs it.
pub(crate) struct PasswordState {
    pub id: i64,
    pub hash: Vec<u8>,
    pub expires: Option<Timestamp>,
}

impl PasswordState {
    /// Whether it has not expired.
    pub(crate) fn is_good(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|end| now < end)
    }
}

/// The tokens of all registries, by the registry's row.
pub(crate) type Tokens = HashMap<i64, Arc<RegistryTokens>>;

/// Read them; what did not change since `before` is taken from there.
pub(crate) fn read(tx: &mut dyn Tx, before: &Tokens) -> Result<Tokens> {
    let mut tokens = Tokens::new();
    for (registry, version) in repo_token::versions(tx)? {
        let kept = before.get(&registry).filter(|kept| kept.version == version);
        let state = match kept {
            Some(kept) => kept.clone(),
            None => Arc::new(RegistryTokens::read(tx, registry, version)?),
        };
        tokens.insert(registry, state);
    }
    Ok(tokens)
}

impl RegistryTokens {
    /// The token of this name, in any case.
    pub(crate) fn get(&self, name: &str) -> Option<&TokenState> {
        match self.tokens.get(name) {
            Some(token) => Some(token),
            None if name.bytes().any(|c| c.is_ascii_uppercase()) => self.tokens.get(&*name.to_ascii_lowercase()),
            None => None,
        }
    }

    fn read(tx: &mut dyn Tx, registry: i64, version: i64) -> Result<RegistryTokens> {
        let maps = scope_maps(tx, registry)?;
        let mut tokens = HashMap::new();
        let mut after = String::new();
        loop {
            let page = repo_token::list(tx, registry, &after, PAGE_ITEMS)?;
            let Some(last) = page.last().map(|row| row.name.key()) else { break };
            let more = page.len() == PAGE_ITEMS;
            for row in page {
                let state = TokenState {
                    scope_map: row.scope_map.and_then(|key| maps.get(&key).cloned()),
                    enabled: row.enabled,
                    passwords: Vec::new(),
                    name: row.name,
                };
                tokens.insert(state.name.key().into_boxed_str(), state);
            }
            for (token, row) in repo_token::passwords_between(tx, registry, &after, &last)? {
                if let Some(state) = tokens.get_mut(&*token) {
                    let password = PasswordState { id: row.id, hash: row.hash, expires: row.expires };
                    state.passwords.push(password);
                }
            }
            if !more {
                break;
            }
            after = last;
        }
        Ok(RegistryTokens { version, tokens })
    }
}

/// The scope maps of a registry, its own and those that every registry has, by key.
fn scope_maps(tx: &mut dyn Tx, registry: i64) -> Result<HashMap<String, Arc<ScopeMap>>> {
    let mut maps = HashMap::new();
    for system in SYSTEM {
        let map = ScopeMap::parse(system.actions).map_err(|why| damaged(system.name, &why.to_string()))?;
        maps.insert(system.name.to_owned(), Arc::new(map));
    }
    let mut after = String::new();
    loop {
        let page = scope_map::list(tx, registry, &after, PAGE_ITEMS)?;
        let Some(last) = page.last().map(|row| row.name.key()) else { break };
        let more = page.len() == PAGE_ITEMS;
        for row in page {
            maps.insert(row.name.key(), Arc::new(parsed(registry, &row.name, &row.actions)));
        }
        if !more {
            break;
        }
        after = last;
    }
    Ok(maps)
}

/// What a stored scope map says. One that cannot be read allows nothing, and the rest of the
/// server goes on.
fn parsed(registry: i64, name: &ScopeMapName, actions: &[String]) -> ScopeMap {
    ScopeMap::parse(actions).unwrap_or_else(|why| {
        tracing::error!(registry, scope_map = %name, %why, "a stored scope map cannot be read and allows nothing");
        ScopeMap::default()
    })
}

fn damaged(name: &str, why: &str) -> Error {
    portolan_store::Error::Corrupt(format!("scope map {name}: {why}")).into()
}
