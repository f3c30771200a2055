//! What can be wanted: the operations that roles tell apart.
//!
//! Azure names its operations (`Microsoft.ContainerRegistry/registries/read`), and role
//! definitions choose from the names with wildcards. The list is fixed here, so that a role is
//! compiled once into a set of bits, and a decision compares bits.

use portolan_types::RepoName;

/// How a registry takes roles for its content (`roleAssignmentMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RoleMode {
    /// `LegacyRegistryPermissions`: operations of the control plane on the registry open its
    /// content, all of it.
    #[default]
    Legacy,
    /// `AbacRepositoryPermissions`: only data actions open content, repository by repository
    /// where a condition says so.
    Abac,
}

impl RoleMode {
    /// Azure's word.
    pub fn as_str(self) -> &'static str {
        match self {
            RoleMode::Legacy => "LegacyRegistryPermissions",
            RoleMode::Abac => "AbacRepositoryPermissions",
        }
    }

    /// The mode of that word, in any case.
    pub fn parse(text: &str) -> Option<RoleMode> {
        [RoleMode::Legacy, RoleMode::Abac].into_iter().find(|mode| mode.as_str().eq_ignore_ascii_case(text))
    }
}

macro_rules! actions {
    ($( $kind:ident { $( $(#[doc = $doc:literal])+ $action:ident = $operation:literal, )+ } )+) => {
        /// What is wanted: one operation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Action {
            $($( $(#[doc = $doc])+ $action, )+)+
        }

        impl Action {
            /// Every action, in the order of the bits.
            pub const ALL: &[Action] = &[$($(Action::$action),+),+];

            /// Azure's name of the operation.
            pub const fn operation(self) -> &'static str {
                match self { $($(Action::$action => $operation),+),+ }
            }

            /// Whether role definitions grant it by `dataActions`, not by `actions`.
            pub const fn is_data(self) -> bool {
                match self { $($(Action::$action)|+ => actions!(@ $kind)),+ }
            }
        }
    };
    (@ Data) => { true };
    (@ Control) => { false };
}

actions! {
    Data {
        /// Read blobs and manifests, list tags and referrers.
        Pull = "Microsoft.ContainerRegistry/registries/repositories/content/read",
        /// Write blobs, manifests and tags.
        Push = "Microsoft.ContainerRegistry/registries/repositories/content/write",
        /// Delete manifests and repositories; untag.
        Delete = "Microsoft.ContainerRegistry/registries/repositories/content/delete",
        /// Read attributes of repositories, tags and manifests.
        MetadataRead = "Microsoft.ContainerRegistry/registries/repositories/metadata/read",
        /// Change them.
        MetadataWrite = "Microsoft.ContainerRegistry/registries/repositories/metadata/write",
        /// List repositories.
        CatalogList = "Microsoft.ContainerRegistry/registries/catalog/read",
    }
    Control {
        /// In the legacy mode, pull and list.
        RegistryPull = "Microsoft.ContainerRegistry/registries/pull/read",
        /// In the legacy mode, push.
        RegistryPush = "Microsoft.ContainerRegistry/registries/push/write",
        /// In the legacy mode, delete content.
        RegistryArtifactDelete = "Microsoft.ContainerRegistry/registries/artifacts/delete",
        /// In the legacy mode, read attributes.
        RegistryMetadataRead = "Microsoft.ContainerRegistry/registries/metadata/read",
        /// In the legacy mode, change attributes.
        RegistryMetadataWrite = "Microsoft.ContainerRegistry/registries/metadata/write",
        /// Pull what is in quarantine.
        QuarantineRead = "Microsoft.ContainerRegistry/registries/quarantine/read",
        /// Say how the check of something in quarantine ended.
        QuarantineWrite = "Microsoft.ContainerRegistry/registries/quarantine/write",
        /// Sign for content trust.
        SignWrite = "Microsoft.ContainerRegistry/registries/sign/write",

        /// See a subscription.
        SubscriptionRead = "Microsoft.Resources/subscriptions/read",
        /// See a resource group.
        GroupRead = "Microsoft.Resources/subscriptions/resourceGroups/read",
        /// Create or change one.
        GroupWrite = "Microsoft.Resources/subscriptions/resourceGroups/write",
        /// Delete one, with all that is in it.
        GroupDelete = "Microsoft.Resources/subscriptions/resourceGroups/delete",

        /// See a registry.
        RegistryRead = "Microsoft.ContainerRegistry/registries/read",
        /// Create or change one.
        RegistryWrite = "Microsoft.ContainerRegistry/registries/write",
        /// Delete one, with all that is in it.
        RegistryDelete = "Microsoft.ContainerRegistry/registries/delete",
        /// Ask whether a name is free.
        CheckName = "Microsoft.ContainerRegistry/checkNameAvailability/read",
        /// See the figures of use and their limits.
        UsageRead = "Microsoft.ContainerRegistry/registries/listUsages/read",
        /// See the admin user's passwords.
        ListCredentials = "Microsoft.ContainerRegistry/registries/listCredentials/action",
        /// Renew one of them.
        RegenerateCredential = "Microsoft.ContainerRegistry/registries/regenerateCredential/action",
        /// Copy images from elsewhere into the registry.
        ImportImage = "Microsoft.ContainerRegistry/registries/importImage/action",

        /// See scope maps.
        ScopeMapRead = "Microsoft.ContainerRegistry/registries/scopeMaps/read",
        /// Create or change one.
        ScopeMapWrite = "Microsoft.ContainerRegistry/registries/scopeMaps/write",
        /// Delete one.
        ScopeMapDelete = "Microsoft.ContainerRegistry/registries/scopeMaps/delete",
        /// See repository tokens.
        TokenRead = "Microsoft.ContainerRegistry/registries/tokens/read",
        /// Create or change one.
        TokenWrite = "Microsoft.ContainerRegistry/registries/tokens/write",
        /// Delete one.
        TokenDelete = "Microsoft.ContainerRegistry/registries/tokens/delete",
        /// Make passwords of a repository token.
        GenerateCredentials = "Microsoft.ContainerRegistry/registries/generateCredentials/action",

        /// See cache rules.
        CacheRuleRead = "Microsoft.ContainerRegistry/registries/cacheRules/read",
        /// Create or change one.
        CacheRuleWrite = "Microsoft.ContainerRegistry/registries/cacheRules/write",
        /// Delete one.
        CacheRuleDelete = "Microsoft.ContainerRegistry/registries/cacheRules/delete",
        /// See credential sets.
        CredentialSetRead = "Microsoft.ContainerRegistry/registries/credentialSets/read",
        /// Create or change one.
        CredentialSetWrite = "Microsoft.ContainerRegistry/registries/credentialSets/write",
        /// Delete one.
        CredentialSetDelete = "Microsoft.ContainerRegistry/registries/credentialSets/delete",
        /// See replications.
        ReplicationRead = "Microsoft.ContainerRegistry/registries/replications/read",
        /// Create or change one.
        ReplicationWrite = "Microsoft.ContainerRegistry/registries/replications/write",
        /// Delete one.
        ReplicationDelete = "Microsoft.ContainerRegistry/registries/replications/delete",
        /// See webhooks.
        WebhookRead = "Microsoft.ContainerRegistry/registries/webhooks/read",
        /// Create or change one.
        WebhookWrite = "Microsoft.ContainerRegistry/registries/webhooks/write",
        /// Delete one.
        WebhookDelete = "Microsoft.ContainerRegistry/registries/webhooks/delete",
        /// See connected registries.
        ConnectedRegistryRead = "Microsoft.ContainerRegistry/registries/connectedRegistries/read",
        /// Create or change one.
        ConnectedRegistryWrite = "Microsoft.ContainerRegistry/registries/connectedRegistries/write",
        /// Delete one.
        ConnectedRegistryDelete = "Microsoft.ContainerRegistry/registries/connectedRegistries/delete",
        /// See connections of private endpoints.
        PrivateEndpointRead = "Microsoft.ContainerRegistry/registries/privateEndpointConnections/read",
        /// Approve or reject one.
        PrivateEndpointWrite = "Microsoft.ContainerRegistry/registries/privateEndpointConnections/write",
        /// Delete one.
        PrivateEndpointDelete = "Microsoft.ContainerRegistry/registries/privateEndpointConnections/delete",

        /// Get an address to upload a build's context to.
        UploadContext = "Microsoft.ContainerRegistry/registries/listBuildSourceUploadUrl/action",
        /// Schedule a run.
        ScheduleRun = "Microsoft.ContainerRegistry/registries/scheduleRun/action",
        /// See runs.
        RunRead = "Microsoft.ContainerRegistry/registries/runs/read",
        /// Change a run.
        RunWrite = "Microsoft.ContainerRegistry/registries/runs/write",
        /// Cancel one.
        RunCancel = "Microsoft.ContainerRegistry/registries/runs/cancel/action",
        /// Get an address to read a run's log at.
        RunLog = "Microsoft.ContainerRegistry/registries/runs/listLogSasUrl/action",
        /// See tasks.
        TaskRead = "Microsoft.ContainerRegistry/registries/tasks/read",
        /// Create or change one.
        TaskWrite = "Microsoft.ContainerRegistry/registries/tasks/write",
        /// Delete one.
        TaskDelete = "Microsoft.ContainerRegistry/registries/tasks/delete",

        /// See role assignments.
        RoleAssignmentRead = "Microsoft.Authorization/roleAssignments/read",
        /// Give a role.
        RoleAssignmentWrite = "Microsoft.Authorization/roleAssignments/write",
        /// Take one away.
        RoleAssignmentDelete = "Microsoft.Authorization/roleAssignments/delete",
        /// See role definitions.
        RoleDefinitionRead = "Microsoft.Authorization/roleDefinitions/read",
        /// Create or change a custom role.
        RoleDefinitionWrite = "Microsoft.Authorization/roleDefinitions/write",
        /// Delete one.
        RoleDefinitionDelete = "Microsoft.Authorization/roleDefinitions/delete",
        /// See locks.
        LockRead = "Microsoft.Authorization/locks/read",
        /// Create or change one.
        LockWrite = "Microsoft.Authorization/locks/write",
        /// Take one away.
        LockDelete = "Microsoft.Authorization/locks/delete",
        /// See the users and applications of the directory. The name is ours: where Azure asks
        /// directory roles, we ask for this at the subscription.
        PrincipalRead = "Microsoft.Authorization/principals/read",
        /// Create, change, disable or delete them, and renew their credentials. Whoever may do
        /// this may act as anybody: so it is under `Microsoft.Authorization`, which
        /// `Contributor` cannot write to.
        PrincipalWrite = "Microsoft.Authorization/principals/write",

        /// See managed identities.
        IdentityRead = "Microsoft.ManagedIdentity/userAssignedIdentities/read",
        /// Create or change one.
        IdentityWrite = "Microsoft.ManagedIdentity/userAssignedIdentities/write",
        /// Delete one.
        IdentityDelete = "Microsoft.ManagedIdentity/userAssignedIdentities/delete",
        /// Let a resource use one.
        IdentityAssign = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",

        /// Read the activity log.
        ActivityRead = "Microsoft.Insights/eventtypes/values/read",
        /// See which plans of security are on.
        PricingRead = "Microsoft.Security/pricings/read",
        /// Turn them on or off.
        PricingWrite = "Microsoft.Security/pricings/write",
        /// See the assessments of security.
        AssessmentRead = "Microsoft.Security/assessments/read",
    }
}

impl Action {
    /// Any one of which, held, allows this action in a registry of that mode. What is not
    /// about content is itself.
    pub(super) const fn rights(self, mode: RoleMode) -> ActionSet {
        use Action as A;
        match (mode, self) {
            (RoleMode::Legacy, A::Pull | A::CatalogList) => ActionSet::of(&[A::RegistryPull]),
            (RoleMode::Legacy, A::MetadataRead) => ActionSet::of(&[A::RegistryPull, A::RegistryMetadataRead]),
            (RoleMode::Legacy, A::Push) => ActionSet::of(&[A::RegistryPush]),
            (RoleMode::Legacy, A::MetadataWrite) => ActionSet::of(&[A::RegistryPush, A::RegistryMetadataWrite]),
            (RoleMode::Legacy, A::Delete) => ActionSet::of(&[A::RegistryArtifactDelete]),
            _ => ActionSet::of(&[self]),
        }
    }
}

/// A set of actions: a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActionSet(u128);

// One bit for each action.
const _: () = assert!(Action::ALL.len() <= 128);

impl ActionSet {
    /// No action.
    pub const NONE: ActionSet = ActionSet(0);
    /// What can be done to a registry's content.
    pub const DATA: ActionSet = ActionSet::of(&[
        Action::Pull,
        Action::Push,
        Action::Delete,
        Action::MetadataRead,
        Action::MetadataWrite,
        Action::CatalogList,
    ]);
    /// Every action.
    pub const ALL: ActionSet = ActionSet::of(Action::ALL);

    /// The set of these actions.
    pub const fn of(actions: &[Action]) -> ActionSet {
        let (mut bits, mut i) = (0, 0);
        while i < actions.len() {
            bits |= 1 << actions[i] as u32;
            i += 1;
        }
        ActionSet(bits)
    }

    /// Both sets together.
    pub const fn with(self, other: ActionSet) -> ActionSet {
        ActionSet(self.0 | other.0)
    }

    /// What is in both sets.
    pub const fn and(self, other: ActionSet) -> ActionSet {
        ActionSet(self.0 & other.0)
    }

    /// This set less the other.
    pub const fn without(self, other: ActionSet) -> ActionSet {
        ActionSet(self.0 & !other.0)
    }

    /// Whether `action` is in the set.
    pub const fn contains(self, action: Action) -> bool {
        self.0 & (1 << action as u32) != 0
    }

    /// Whether there is none in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether every action of `other` is in this set too.
    pub const fn includes(self, other: ActionSet) -> bool {
        other.without(self).is_empty()
    }

    /// The actions of the set, in the order of [`Action::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Action> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let at = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Action::ALL.get(at).copied()
        })
    }

    /// The data actions of this set, in the words of a refresh token's `permissions` claim.
    pub fn scope_map_words(self) -> Vec<String> {
        const WORDS: [(Action, &str); 5] = [
            (Action::Pull, "read"),
            (Action::Push, "write"),
            (Action::Delete, "delete"),
            (Action::MetadataRead, "metadata/read"),
            (Action::MetadataWrite, "metadata/write"),
        ];
        WORDS.iter().filter(|(action, _)| self.contains(*action)).map(|(_, word)| (*word).to_owned()).collect()
    }
}

/// What an action on a registry's data is done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The registry as a whole (the catalog).
    Registry,
    /// One repository.
    Repo(RepoName),
}

impl Target {
    /// The repository, if it is one.
    pub fn repository(&self) -> Option<&RepoName> {
        match self {
            Target::Registry => None,
            Target::Repo(name) => Some(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_has_a_bit_and_a_name_of_its_own() {
        for (at, action) in Action::ALL.iter().enumerate() {
            assert_eq!(*action as usize, at);
            let same = |other: &&Action| other.operation().eq_ignore_ascii_case(action.operation());
            assert_eq!(Action::ALL.iter().filter(same).count(), 1, "{action:?}");
        }
        assert_eq!(ActionSet::ALL.iter().collect::<Vec<_>>(), Action::ALL);
        assert_eq!(ActionSet::DATA.iter().filter(|a| !a.is_data()).count(), 0);
    }

    #[test]
    fn modes_have_azures_words() {
        assert_eq!(RoleMode::parse("abacrepositorypermissions"), Some(RoleMode::Abac));
        assert_eq!(RoleMode::parse("LegacyRegistryPermissions"), Some(RoleMode::Legacy));
        assert_eq!(RoleMode::parse("rbac"), None);
    }
}
