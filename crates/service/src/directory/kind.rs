//! The kinds of principal.

/// What a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// A person.
    User,
    /// An application that signs in for itself.
    ServicePrincipal,
    /// An identity that a resource has, and whose credentials nobody handles.
    ManagedIdentity,
}

impl PrincipalKind {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            PrincipalKind::User => "User",
            PrincipalKind::ServicePrincipal => "ServicePrincipal",
            PrincipalKind::ManagedIdentity => "ManagedIdentity",
        }
    }

    /// The word read back.
    pub fn parse(text: &str) -> Option<PrincipalKind> {
        [PrincipalKind::User, PrincipalKind::ServicePrincipal, PrincipalKind::ManagedIdentity]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }

    /// The word in ARM's `principalType`, which has no word for managed identities.
    pub fn arm_word(self) -> &'static str {
        match self {
            PrincipalKind::User => "User",
            PrincipalKind::ServicePrincipal | PrincipalKind::ManagedIdentity => "ServicePrincipal",
        }
    }
}
