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

#[cfg(test)]
mod tests {
    use portolan_store::meta::Meta;
    use portolan_store::meta::repo_token::{PasswordRow, TokenRow};
    use portolan_store::meta::scope_map::ScopeMapRow;

    use super::*;

    fn put(tx: &mut dyn Tx, registry: i64, name: &str) -> portolan_store::Result<()> {
        let name: TokenName = name.parse().unwrap();
        let now = Timestamp(0);
        let token = TokenRow { name: name.clone(), scope_map: Some("reader".into()), enabled: true, created: now };
        repo_token::put(tx, registry, &token)?;
        for which in [1, 2] {
            let row = PasswordRow { which, id: 0, hash: vec![which], created: now, expires: None };
            repo_token::put_password(tx, registry, &name, &row)?;
        }
        Ok(())
    }

    /// What is read anew is the registry that changed; more than a page of it comes whole.
    #[tokio::test]
    async fn a_registry_is_read_anew_when_it_changed_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open_sqlite(&dir.path().join("meta.db")).unwrap();
        let many = PAGE_ITEMS + 3;
        let fill = move |tx: &mut dyn Tx| {
            for registry in [1, 2] {
                let actions = vec!["repositories/a/content/read".to_owned()];
                let name: ScopeMapName = "reader".parse().unwrap();
                let map = ScopeMapRow { name, description: String::new(), actions, created: Timestamp(0) };
                scope_map::put(tx, registry, &map)?;
            }
            put(tx, 1, "only-one")?;
            (0..many).try_for_each(|n| put(tx, 2, &format!("token{n:05}")))
        };
        meta.write(fill).await.map_err(|e: portolan_store::Error| e).unwrap();
        let first = meta.read(|tx| read(tx, &Tokens::new())).await.unwrap();
        assert_eq!((first[&1].tokens.len(), first[&2].tokens.len()), (1, many));
        for n in [0, PAGE_ITEMS - 1, PAGE_ITEMS, many - 1] {
            let token = first[&2].get(&format!("Token{n:05}")).unwrap();
            assert_eq!(token.passwords.iter().map(|p| p.hash[0]).collect::<Vec<_>>(), [1, 2], "{n}");
            assert!(token.scope_map.is_some(), "{n}");
        }
        meta.write(|tx| put(tx, 1, "another")).await.map_err(|e: portolan_store::Error| e).unwrap();
        let before = first.clone();
        let second = meta.read(move |tx| read(tx, &before)).await.unwrap();
        assert!(Arc::ptr_eq(&first[&2], &second[&2]) && !Arc::ptr_eq(&first[&1], &second[&1]));
        assert_eq!(second[&1].tokens.len(), 2);
        meta.write(|tx| repo_token::delete_registry(tx, 1)).await.map_err(|e: portolan_store::Error| e).unwrap();
        let third = meta.read(move |tx| read(tx, &second)).await.unwrap();
        assert!(!third.contains_key(&1));
        meta.close().await;
    }
}
