//! Grants: what a registry access token opens of what its holder may do.

use super::{Action, Target};

/// One entry of a registry access token's `access` claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Grant {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Repository name, or `catalog`.
    pub name: String,
    /// `pull`, `push`, `delete`, `metadata_read`, `metadata_write`, `*`.
    pub actions: Vec<String>,
}

/// The action's word in token scopes; none for control actions, which no registry token opens.
pub fn scope_word(action: Action) -> Option<&'static str> {
    match action {
        Action::Pull => Some("pull"),
        Action::Push => Some("push"),
        Action::Delete => Some("delete"),
        Action::MetadataRead => Some("metadata_read"),
        Action::MetadataWrite => Some("metadata_write"),
        Action::CatalogList => Some("*"),
        _ => None,
    }
}

/// The scope to ask a token for, when `action` on `target` was refused for want of one.
pub fn scope_text(target: &Target, action: Action) -> String {
    let word = scope_word(action).unwrap_or("pull");
    match target {
        Target::Registry => "registry:catalog:*".to_owned(),
        // A push reads what is there before it writes, and clients ask for what they are told.
        Target::Repo(name) if action == Action::Push => format!("repository:{name}:pull,push"),
        Target::Repo(name) => format!("repository:{name}:{word}"),
    }
}

/// Whether a token with these grants opens `action` on `target`.
pub fn grants_allow(grants: &[Grant], target: &Target, action: Action) -> bool {
    let Some(word) = scope_word(action) else {
        return false;
    };
    let (kind, name) = match target {
        Target::Registry => ("registry", "catalog"),
        Target::Repo(name) => ("repository", name.as_str()),
    };
    grants.iter().any(|g| {
        g.kind == kind
            && (g.name == name || (kind == "repository" && g.name == "*"))
            && g.actions.iter().any(|a| a == word || a == "*")
    })
}
