//! Repository tokens: users of one registry that its owners make, without a directory.
//!
//! A token has a scope map, which says what it may do; a status; and at most two passwords,
//! each made by the server, shown once, replaced or removed by itself, and good until it
//! expires. Signing in with them is [`crate::registry_auth`]'s.
//!
//! What ends what: replacing or removing a password, its expiry, disabling the token and
//! deleting it each end, at once, the access tokens that were got with it. Another scope map,
//! or a change of the one it has, is effective with the next request.

use std::collections::HashMap;

use portolan_auth::access::{Action, Target};
use portolan_auth::password;
use portolan_store::meta::repo_token::{self, PasswordRow, TokenRow};
use portolan_store::meta::{Tx, scope_map};
use portolan_types::{ResourceId, Secret, Timestamp, TokenName};
use uuid::Uuid;

use crate::keys::key_error;
use crate::registries::Registry;
use crate::scope_maps::system;
use crate::service::Service;
use crate::{Ctx, Error, Kind, Result};

/// Which of a token's two passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPassword {
    /// `password1`
    First,
    /// `password2`
    Second,
}

impl TokenPassword {
    /// Both, in order.
    pub const BOTH: [TokenPassword; 2] = [TokenPassword::First, TokenPassword::Second];

    /// The name in ARM.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenPassword::First => "password1",
            TokenPassword::Second => "password2",
        }
    }

    /// The one of this name, in any case.
    pub fn named(name: &str) -> Option<TokenPassword> {
        TokenPassword::BOTH.into_iter().find(|p| p.as_str().eq_ignore_ascii_case(name))
    }

    fn number(self) -> u8 {
        match self {
            TokenPassword::First => 1,
            TokenPassword::Second => 2,
        }
    }
}

/// A password, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordInfo {
    /// Which.
    pub which: TokenPassword,
    /// When it was made.
    pub created: Timestamp,
    /// When it stops working.
    pub expires: Option<Timestamp>,
}

/// A token, as the control plane shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its name, in the case it was given.
    pub name: TokenName,
    /// The name of its scope map; none when that was deleted.
    pub scope_map: Option<String>,
    /// Whether it may sign in.
    pub enabled: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Its passwords.
    pub passwords: Vec<PasswordInfo>,
}

/// What a PUT or PATCH gives; what is absent stays as it is.
#[derive(Clone, Debug, Default)]
pub struct TokenInput {
    /// ARM id of a scope map of the same registry; needed to make one.
    pub scope_map_id: Option<String>,
    /// Whether it may sign in; a new token may.
    pub enabled: Option<bool>,
    /// The passwords it is to keep, each with its new expiry if it is to have another. Others
    /// are removed.
    pub passwords: Option<Vec<(TokenPassword, Option<Timestamp>)>>,
}

/// New passwords, shown this once.
#[derive(Debug)]
pub struct NewPasswords {
    /// The token's name.
    pub username: TokenName,
    /// What was made, and its value.
    pub passwords: Vec<(PasswordInfo, Secret<String>)>,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "InvalidParameter", message)
}

fn not_found(registry: &Registry, name: &str) -> Error {
    Error::new(
        Kind::NotFound,
        "ResourceNotFound",
        format!(
            "The Resource 'Microsoft.ContainerRegistry/registries/{}/tokens/{}' was not found.",
            registry.name,
            name.escape_debug()
        ),
    )
}

/// A name for a new token. Names that sign-in takes for somebody else's are refused: the
/// registry's (its admin user) and whatever reads as an application's id.
fn new_name(registry: &Registry, name: &str) -> Result<TokenName> {
    let bad = |why: String| Error::new(Kind::Invalid, "InvalidResourceName", why);
    let parsed: TokenName = name.parse().map_err(|e: portolan_types::InvalidName| bad(e.to_string()))?;
    if name.eq_ignore_ascii_case(registry.name.as_str()) {
        return Err(bad(format!("the token cannot be called {name}: that is the registry's admin user")));
    }
    if Uuid::try_parse(name).is_ok() {
        return Err(bad("a token's name cannot be a GUID: that is how applications sign in".to_owned()));
    }
    Ok(parsed)
}

/// The name of what an ARM id of this registry is about: `{registry}/{kind}/{name}`.
fn child_of<'a>(registry: &Registry, kind: &str, id: &'a str) -> Option<&'a str> {
    let (parent, name) = id.trim_end_matches('/').rsplit_once('/')?;
    let own = registry.resource_id.child(kind, "x").key();
    let own = own.strip_suffix("/x")?;
    (ResourceId(parent.to_owned()).key() == own && !name.is_empty()).then_some(name)
}

/// The key of the scope map that an ARM id names, which must be there.
fn scope_map_key(tx: &mut dyn Tx, registry: &Registry, id: &str) -> Result<String> {
    let wrong = || {
        Error::new(
            Kind::Invalid,
            "InvalidScopeMapId",
            format!(
                "`scopeMapId` must be the id of a scope map of the registry {}: '{}' is not.",
                registry.name,
                id.chars().take(300).collect::<String>().escape_debug()
            ),
        )
    };
    let name = child_of(registry, "scopeMaps", id).ok_or_else(wrong)?;
    if let Some(map) = system(name) {
        return Ok(map.name.to_owned());
    }
    let name = name.parse().map_err(|_| wrong())?;
    scope_map::get(tx, registry.id, &name)?.map(|map| map.name.key()).ok_or_else(wrong)
}

fn password_info(row: &PasswordRow) -> Option<PasswordInfo> {
    let which = TokenPassword::BOTH.into_iter().find(|p| p.number() == row.which)?;
    Some(PasswordInfo { which, created: row.created, expires: row.expires })
}

/// The name of the scope map with this key.
fn scope_map_name(tx: &mut dyn Tx, registry: i64, key: &str) -> Result<Option<String>> {
    Ok(match (system(key), key.parse()) {
        (None, Ok(name)) => scope_map::get(tx, registry, &name)?.map(|map| map.name.to_string()),
        _ => Some(key.to_owned()),
    })
}

fn shown(tx: &mut dyn Tx, registry: i64, row: TokenRow) -> Result<TokenInfo> {
    let passwords = repo_token::passwords(tx, registry, &row.name)?;
    let scope_map = row.scope_map.as_deref().map(|key| scope_map_name(tx, registry, key)).transpose()?;
    Ok(TokenInfo {
        scope_map: scope_map.flatten(),
        enabled: row.enabled,
        created: row.created,
        passwords: passwords.iter().filter_map(password_info).collect(),
        name: row.name,
    })
}

/// Refuse an expiry that is over.
fn to_come(expires: Option<Timestamp>, now: Timestamp) -> Result<()> {
    match expires {
        Some(end) if end <= now => Err(invalid("the expiry of a password must be in the future")),
        _ => Ok(()),
    }
}

/// Keep these passwords of a token and no others.
fn keep_passwords(
    tx: &mut dyn Tx,
    registry: i64,
    name: &TokenName,
    keep: &[(TokenPassword, Option<Timestamp>)],
) -> Result<()> {
    for which in TokenPassword::BOTH {
        match keep.iter().find(|(kept, _)| *kept == which) {
            None => {
                repo_token::delete_password(tx, registry, name, which.number())?;
            }
            Some((_, expires)) => {
                let there = repo_token::passwords(tx, registry, name)?.into_iter().find(|p| p.which == which.number());
                let Some(there) = there else {
                    return Err(invalid(format!("the token {name} has no {}: generate it first", which.as_str())));
                };
                if expires.is_some() && *expires != there.expires {
                    repo_token::set_expiry(tx, registry, name, which.number(), *expires)?;
                }
            }
        }
    }
    Ok(())
}

impl Service {
    /// The tokens of a registry by name, those after the one called `after`, at most `limit`.
    /// Whether there are more.
    pub async fn list_tokens(
        &self,
        ctx: &Ctx,
        registry: &Registry,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<TokenInfo>, bool)> {
        self.check(ctx, registry, &Target::Registry, Action::TokenRead)?;
        let (id, after) = (registry.id, after.to_ascii_lowercase());
        self.meta
            .read(move |tx| {
                let mut rows = repo_token::list(tx, id, &after, limit + 1)?;
                let more = rows.len() > limit;
                rows.truncate(limit);
                let last = rows.last().map(|row| row.name.key()).unwrap_or_default();
                let mut passwords: HashMap<String, Vec<PasswordInfo>> = HashMap::new();
                for (token, row) in repo_token::passwords_between(tx, id, &after, &last)? {
                    passwords.entry(token).or_default().extend(password_info(&row));
                }
                let mut maps: HashMap<String, Option<String>> = HashMap::new();
                let mut tokens = Vec::with_capacity(rows.len());
                for row in rows {
                    if let Some(key) = &row.scope_map
                        && !maps.contains_key(key)
                    {
                        maps.insert(key.clone(), scope_map_name(tx, id, key)?);
                    }
                    tokens.push(TokenInfo {
                        scope_map: row.scope_map.and_then(|key| maps.get(&key).cloned().flatten()),
                        enabled: row.enabled,
                        created: row.created,
                        passwords: passwords.remove(&row.name.key()).unwrap_or_default(),
                        name: row.name,
                    });
                }
                Ok((tokens, more))
            })
            .await
    }

    /// One token.
    pub async fn token(&self, ctx: &Ctx, registry: &Registry, name: &str) -> Result<TokenInfo> {
        self.check(ctx, registry, &Target::Registry, Action::TokenRead)?;
        let missing = not_found(registry, name);
        let Ok(name) = name.parse::<TokenName>() else { return Err(missing) };
        let id = registry.id;
        self.meta
            .read(move |tx| match repo_token::get(tx, id, &name)? {
                Some(row) => shown(tx, id, row),
                None => Err(missing),
            })
            .await
    }

    /// Make a token, or change the one of that name; passwords come from
    /// [`Service::generate_credentials`]. The second answer is true when it is new.
    ///
    /// Errors: `InvalidResourceName`, `InvalidScopeMapId`, `InvalidParameter`;
    /// `TokensQuotaExceeded` when the registry's tier has no room.
    pub async fn put_token(
        &self,
        ctx: &Ctx,
        registry: &Registry,
        name: &str,
        input: TokenInput,
    ) -> Result<(TokenInfo, bool)> {
        self.write_token(ctx, registry, name, input, true).await
    }

    /// Change a token.
    ///
    /// Errors: as [`Service::put_token`], and `ResourceNotFound`.
    pub async fn patch_token(
        &self,
        ctx: &Ctx,
        registry: &Registry,
        name: &str,
        input: TokenInput,
    ) -> Result<TokenInfo> {
        self.write_token(ctx, registry, name, input, false).await.map(|(token, _)| token)
    }

    async fn write_token(
        &self,
        ctx: &Ctx,
        registry: &Registry,
        name: &str,
        input: TokenInput,
        may_create: bool,
    ) -> Result<(TokenInfo, bool)> {
        self.check(ctx, registry, &Target::Registry, Action::TokenWrite)?;
        let name = new_name(registry, name)?;
        for (_, expires) in input.passwords.iter().flatten() {
            to_come(*expires, ctx.now)?;
        }
        let (registry, now, max) = (registry.clone(), ctx.now, self.tier(registry).tokens_max);
        self.alter(move |tx| {
            let id = registry.id;
            let scope_map = input.scope_map_id.map(|map| scope_map_key(tx, &registry, &map)).transpose()?;
            let row = match repo_token::get(tx, id, &name)? {
                Some(row) => TokenRow {
                    scope_map: scope_map.or(row.scope_map),
                    enabled: input.enabled.unwrap_or(row.enabled),
                    ..row
                },
                None if !may_create => return Err(not_found(&registry, name.as_str())),
                None => {
                    if repo_token::count(tx, id)? >= max {
                        return Err(Error::new(
                            Kind::Conflict,
                            "TokensQuotaExceeded",
                            format!("A registry of this SKU can have {max} tokens."),
                        ));
                    }
                    let scope_map = scope_map.ok_or_else(|| invalid("`properties.scopeMapId` is missing"))?;
                    let enabled = input.enabled.unwrap_or(true);
                    TokenRow { name, scope_map: Some(scope_map), enabled, created: now }
                }
            };
            let new = repo_token::put(tx, id, &row)?;
            if let Some(keep) = &input.passwords {
                keep_passwords(tx, id, &row.name, keep)?;
            }
            Ok((shown(tx, id, row)?, new))
        })
        .await
    }

    /// Delete a token and its passwords; false when there was none.
    pub async fn delete_token(&self, ctx: &Ctx, registry: &Registry, name: &str) -> Result<bool> {
        self.check(ctx, registry, &Target::Registry, Action::TokenDelete)?;
        let Ok(name) = name.parse::<TokenName>() else { return Ok(false) };
        let id = registry.id;
        self.alter(move |tx| repo_token::delete(tx, id, &name).map_err(Error::from)).await
    }

    /// Make a token's password anew, or both when none is named. What was got with the ones
    /// before ends.
    ///
    /// Errors: `InvalidTokenId` for an id that is not of this registry, `ResourceNotFound`,
    /// `InvalidParameter` for an expiry that is over.
    pub async fn generate_credentials(
        &self,
        ctx: &Ctx,
        registry: &Registry,
        token_id: &str,
        which: Option<TokenPassword>,
        expires: Option<Timestamp>,
    ) -> Result<NewPasswords> {
        self.check(ctx, registry, &Target::Registry, Action::GenerateCredentials)?;
        to_come(expires, ctx.now)?;
        let name = child_of(registry, "tokens", token_id).ok_or_else(|| {
            Error::new(
                Kind::Invalid,
                "InvalidTokenId",
                format!("`tokenId` must be the id of a token of the registry {}.", registry.name),
            )
        })?;
        let missing = not_found(registry, name);
        let Ok(name) = name.parse::<TokenName>() else { return Err(missing) };
        let mut made = Vec::new();
        for which in TokenPassword::BOTH.into_iter().filter(|p| which.is_none_or(|w| w == *p)) {
            let secret = password::generate().map_err(key_error)?;
            let hash = password::hash(&secret).map_err(key_error)?;
            let row = PasswordRow { which: which.number(), id: 0, hash, created: ctx.now, expires };
            made.push((which, row, secret));
        }
        let (id, rows) = (registry.id, made.iter().map(|(_, row, _)| row.clone()).collect::<Vec<_>>());
        let username = self
            .alter(move |tx| {
                let Some(token) = repo_token::get(tx, id, &name)? else { return Err(missing) };
                for row in &rows {
                    repo_token::put_password(tx, id, &token.name, row)?;
                }
                Ok(token.name)
            })
            .await?;
        let passwords = made
            .into_iter()
            .map(|(which, row, secret)| (PasswordInfo { which, created: row.created, expires: row.expires }, secret))
            .collect();
        Ok(NewPasswords { username, passwords })
    }
}
