//! What a request is about, as metrics, logs and traces name it: one of a fixed list of
//! routes. Never a name from the path, of which there is no end.
//!
//! The doors take their paths apart themselves, and more strictly; here is only the shape.

use http::Method;

use super::{Door, arm};

macro_rules! routes {
    ($( $(#[doc = $doc:literal])* $door:ident { $( $route:ident = $text:literal ),+ $(,)? } )+) => {
        /// A route. Its text is a template: `/v2/{name}/manifests/{reference}`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the template says it")]
        pub enum Route { $($($route),+),+ }

        impl Route {
            /// Every route, in the order of the counters.
            pub const ALL: &[Route] = &[$($(Route::$route),+),+];

            /// The template.
            pub fn as_str(self) -> &'static str {
                match self { $($(Route::$route => $text),+),+ }
            }

            /// The door it belongs to.
            pub fn door(self) -> Door {
                match self { $($(Route::$route)|+ => Door::$door),+ }
            }
        }
    };
}

routes! {
    V2 {
        V2Base = "/v2/",
        V2Catalog = "/v2/_catalog",
        V2Tags = "/v2/{name}/tags/list",
        V2Manifest = "/v2/{name}/manifests/{reference}",
        V2Blob = "/v2/{name}/blobs/{digest}",
        V2Uploads = "/v2/{name}/blobs/uploads/",
        V2Upload = "/v2/{name}/blobs/uploads/{id}",
        V2Referrers = "/v2/{name}/referrers/{digest}",
        V2Other = "/v2/…",
    }
    Acr {
        AcrCatalog = "/acr/v1/_catalog",
        AcrRepository = "/acr/v1/{name}",
        AcrTags = "/acr/v1/{name}/_tags",
        AcrTag = "/acr/v1/{name}/_tags/{tag}",
        AcrManifests = "/acr/v1/{name}/_manifests",
        AcrManifest = "/acr/v1/{name}/_manifests/{digest}",
        AcrOther = "/acr/…",
    }
    Oauth2 {
        Oauth2Token = "/oauth2/token",
        Oauth2Exchange = "/oauth2/exchange",
        Oauth2Other = "/oauth2/…",
    }
    Blob {
        SignedBlob = "/blob/{account}/{container}/{blob}",
    }
    Arm {
        ArmTenants = "/tenants",
        ArmSubscriptions = "/subscriptions",
        ArmSubscription = "/subscriptions/{subscription}",
        ArmGroups = "/subscriptions/{subscription}/resourceGroups",
        ArmGroup = "/subscriptions/{subscription}/resourceGroups/{group}",
        ArmResources = "/subscriptions/{subscription}/resources",
        ArmGroupResources = "/subscriptions/{subscription}/resourceGroups/{group}/resources",
        ArmLocations = "/subscriptions/{subscription}/locations",
        ArmOperationResult = "/subscriptions/{subscription}/operationresults/{operation}",
        ArmOperationStatus = "…/locations/{location}/operationStatuses/{operation}",
        ArmLocks = "{scope}/providers/Microsoft.Authorization/locks",
        ArmLock = "{scope}/providers/Microsoft.Authorization/locks/{lock}",
        ArmRoleAssignments = "{scope}/providers/Microsoft.Authorization/roleAssignments",
        ArmRoleAssignment = "{scope}/providers/Microsoft.Authorization/roleAssignments/{assignment}",
        ArmRoleDefinitions = "{scope}/providers/Microsoft.Authorization/roleDefinitions",
        ArmRoleDefinition = "{scope}/providers/Microsoft.Authorization/roleDefinitions/{definition}",
        ArmDenyAssignments = "{scope}/providers/Microsoft.Authorization/denyAssignments",
        ArmActivity = "/subscriptions/{subscription}/providers/Microsoft.Insights/eventtypes/management/values",
        ArmPricings = "/subscriptions/{subscription}/providers/Microsoft.Security/pricings",
        ArmPricing = "/subscriptions/{subscription}/providers/Microsoft.Security/pricings/{plan}",
        ArmAssessments = "{scope}/providers/Microsoft.Security/assessments",
        ArmAssessment = "{scope}/providers/Microsoft.Security/assessments/{assessment}",
        ArmRegistries = "…/registries",
        ArmRegistry = "…/registries/{registry}",
        ArmListCredentials = "…/registries/{registry}/listCredentials",
        ArmRegenerateCredential = "…/registries/{registry}/regenerateCredential",
        ArmListUsages = "…/registries/{registry}/listUsages",
        ArmListRepositoryUsages = "…/registries/{registry}/listRepositoryUsages",
        ArmCustomDomains = "…/registries/{registry}/customDomains",
        ArmCustomDomain = "…/registries/{registry}/customDomains/{host}",
        ArmUploadUrl = "…/registries/{registry}/listBuildSourceUploadUrl",
        ArmScheduleRun = "…/registries/{registry}/scheduleRun",
        ArmRuns = "…/registries/{registry}/runs",
        ArmRun = "…/registries/{registry}/runs/{run}",
        ArmRunLog = "…/registries/{registry}/runs/{run}/listLogSasUrl",
        ArmRunCancel = "…/registries/{registry}/runs/{run}/cancel",
        ArmRunRelayAgent = "…/registries/{registry}/runs/{run}/relayAgent",
        ArmCacheRules = "…/registries/{registry}/cacheRules",
        ArmCacheRule = "…/registries/{registry}/cacheRules/{rule}",
        ArmScopeMaps = "…/registries/{registry}/scopeMaps",
        ArmScopeMap = "…/registries/{registry}/scopeMaps/{map}",
        ArmTokens = "…/registries/{registry}/tokens",
        ArmToken = "…/registries/{registry}/tokens/{token}",
        ArmGenerateCredentials = "…/registries/{registry}/generateCredentials",
        ArmRegistryParts = "…/registries/{registry}/{kind}",
        ArmRegistryPart = "…/registries/{registry}/{kind}/{name}",
        ArmIdentities = "…/userAssignedIdentities",
        ArmIdentity = "…/userAssignedIdentities/{identity}",
        ArmIdentitySecret = "…/userAssignedIdentities/{identity}/generateEndpointSecret",
        ArmIdentityFederated = "…/userAssignedIdentities/{identity}/federatedIdentityCredentials",
        ArmIdentityFederatedOne = "…/userAssignedIdentities/{identity}/federatedIdentityCredentials/{name}",
        ArmRegistryOther = "…/registries/{registry}/…",
        ArmOther = "/subscriptions/…",
    }
    Identity {
        IdentityToken = "/{tenant}/oauth2/v2.0/token",
        IdentityDiscovery = "/{tenant}/v2.0/.well-known/openid-configuration",
        IdentityKeys = "/{tenant}/discovery/v2.0/keys",
        IdentityEndpoints = "/metadata/endpoints",
        IdentityDeviceCode = "/{tenant}/oauth2/v2.0/devicecode",
        IdentityDevicePage = "/devicelogin",
        IdentityUserRealm = "/common/userrealm/{user}",
        IdentityAuthorize = "/{tenant}/oauth2/v2.0/authorize",
        IdentitySignIn = "/{tenant}/oauth2/v2.0/sign-in",
        IdentityPassword = "/{tenant}/oauth2/v2.0/password",
        IdentityLogout = "/{tenant}/oauth2/v2.0/logout",
        IdentityProvider = "/{tenant}/oauth2/v2.0/provider",
        IdentityCallback = "/{tenant}/oauth2/v2.0/callback",
        IdentityManaged = "/msi/token",
        IdentityMachine = "/metadata/identity/oauth2/token",
        IdentityOther = "/{tenant}/…",
    }
    Graph {
        GraphUsers = "/v1.0/users",
        GraphUser = "/v1.0/users/{user}",
        GraphUserOther = "/v1.0/users/{user}/…",
        GraphMe = "/v1.0/me",
        GraphApplications = "/v1.0/applications",
        GraphApplication = "/v1.0/applications/{application}",
        GraphApplicationAddPassword = "/v1.0/applications/{application}/addPassword",
        GraphApplicationRemovePassword = "/v1.0/applications/{application}/removePassword",
        GraphFederated = "/v1.0/applications/{application}/federatedIdentityCredentials",
        GraphFederatedOne = "/v1.0/applications/{application}/federatedIdentityCredentials/{name}",
        GraphApplicationOther = "/v1.0/applications/{application}/…",
        GraphPrincipals = "/v1.0/servicePrincipals",
        GraphPrincipal = "/v1.0/servicePrincipals/{principal}",
        GraphPrincipalAddPassword = "/v1.0/servicePrincipals/{principal}/addPassword",
        GraphPrincipalRemovePassword = "/v1.0/servicePrincipals/{principal}/removePassword",
        GraphPrincipalOther = "/v1.0/servicePrincipals/{principal}/…",
        GraphObjectsByIds = "/v1.0/directoryObjects/getByIds",
        GraphObject = "/v1.0/directoryObjects/{object}",
        GraphOther = "/v1.0/…",
    }
    Ops {
        Healthz = "/healthz",
        Readyz = "/readyz",
        MetricsPage = "/metrics",
    }
    Unknown {
        Other = "other",
    }
}

impl Route {
    /// The route of a path, as it stands in the request. No allocation: this is on every
    /// request's way.
    pub fn of(door: Door, path: &str) -> Route {
        match door {
            Door::V2 => v2(path),
            Door::Acr => acr(path),
            Door::Oauth2 => match path.trim_end_matches('/') {
                "/oauth2/token" => Route::Oauth2Token,
                "/oauth2/exchange" => Route::Oauth2Exchange,
                _ => Route::Oauth2Other,
            },
            Door::Blob => Route::SignedBlob,
            Door::Arm => control_plane(path),
            Door::Identity => identity(path),
            Door::Graph => graph(path),
            Door::Ops => match path {
                "/healthz" => Route::Healthz,
                "/readyz" => Route::Readyz,
                _ => Route::MetricsPage,
            },
            Door::Unknown => Route::Other,
        }
    }

    /// The repository and what of it a data-plane path names (tag, digest, upload), for
    /// the logs. As they stand in the path, without a check.
    pub fn subject(self, path: &str) -> (Option<&str>, Option<&str>) {
        let cut = |rest: Option<&'static str>, middle: &str| {
            let inside = rest.and_then(|prefix| path.strip_prefix(prefix))?;
            let at = inside.rfind(middle)?;
            Some((&inside[..at], &inside[at + middle.len()..]))
        };
        let both = |parts: Option<(_, _)>| parts.map_or((None, None), |(name, last)| (Some(name), Some(last)));
        let (v2, acr) = (Some("/v2/"), Some("/acr/v1/"));
        match self {
            Route::V2Manifest => both(cut(v2, "/manifests/")),
            Route::V2Upload => both(cut(v2, "/blobs/uploads/")),
            Route::V2Blob => both(cut(v2, "/blobs/")),
            Route::V2Referrers => both(cut(v2, "/referrers/")),
            Route::V2Uploads => (cut(v2, "/blobs/uploads").map(|(name, _)| name), None),
            Route::V2Tags => (cut(v2, "/tags/list").map(|(name, _)| name), None),
            Route::AcrTag => both(cut(acr, "/_tags/")),
            Route::AcrManifest => both(cut(acr, "/_manifests/")),
            Route::AcrTags => (cut(acr, "/_tags").map(|(name, _)| name), None),
            Route::AcrManifests => (cut(acr, "/_manifests").map(|(name, _)| name), None),
            Route::AcrRepository => (path.strip_prefix("/acr/v1/"), None),
            _ => (None, None),
        }
    }
}

/// Read from the end, as the door does: a repository may be called `manifests`.
fn v2(path: &str) -> Route {
    let Some(rest) = path.strip_prefix("/v2") else { return Route::V2Other };
    match rest {
        "" | "/" => return Route::V2Base,
        "/_catalog" => return Route::V2Catalog,
        _ => {}
    }
    let Some(rest) = rest.strip_prefix('/') else { return Route::V2Other };
    if rest.ends_with("/blobs/uploads/") || rest.ends_with("/blobs/uploads") {
        return Route::V2Uploads;
    }
    let Some((head, last)) = rest.rsplit_once('/') else { return Route::V2Other };
    if head.ends_with("/blobs/uploads") {
        return Route::V2Upload;
    }
    match head.rsplit_once('/') {
        Some((_, "manifests")) => Route::V2Manifest,
        Some((_, "blobs")) => Route::V2Blob,
        Some((_, "referrers")) => Route::V2Referrers,
        Some((_, "tags")) if last == "list" => Route::V2Tags,
        _ => Route::V2Other,
    }
}

fn acr(path: &str) -> Route {
    let Some(rest) = path.strip_prefix("/acr/v1/") else { return Route::AcrOther };
    match rest {
        "" => return Route::AcrOther,
        "_catalog" => return Route::AcrCatalog,
        _ => {}
    }
    match rest.rsplit_once('/') {
        Some((_, "_tags")) => Route::AcrTags,
        Some((_, "_manifests")) => Route::AcrManifests,
        Some((head, _)) if head.ends_with("/_tags") => Route::AcrTag,
        Some((head, _)) if head.ends_with("/_manifests") => Route::AcrManifest,
        _ => Route::AcrRepository,
    }
}

/// Parts of a control-plane path that are looked at.
const ARM_PARTS_MAX: usize = 16;

fn control_plane(path: &str) -> Route {
    let mut parts = [""; ARM_PARTS_MAX];
    let mut len = 0;
    for part in path.split('/').filter(|part| !part.is_empty()).take(ARM_PARTS_MAX) {
        parts[len] = part;
        len += 1;
    }
    let parts = &parts[..len];
    let is = |at: usize, word: &str| parts.get(at).is_some_and(|part| part.eq_ignore_ascii_case(word));
    let registries = if is(2, "resourceGroups") { 6 } else { 4 };
    if is(0, "tenants") {
        return Route::ArmTenants;
    }
    if !is(0, "subscriptions") {
        return Route::ArmOther;
    }
    match parts.len() {
        1 => return Route::ArmSubscriptions,
        2 => return Route::ArmSubscription,
        3 if is(2, "resourceGroups") => return Route::ArmGroups,
        4 if is(2, "resourceGroups") => return Route::ArmGroup,
        3 if is(2, "resources") => return Route::ArmResources,
        3 if is(2, "locations") => return Route::ArmLocations,
        4 if is(2, "operationresults") => return Route::ArmOperationResult,
        5 if is(2, "resourceGroups") && is(4, "resources") => return Route::ArmGroupResources,
        8 if is(4, "locations") && is(6, "operationStatuses") => return Route::ArmOperationStatus,
        8 if is(4, "locations") && is(6, "operationResults") => return Route::ArmOperationResult,
        _ => {}
    }
    if let Some(route) = arm_extension(parts) {
        return route;
    }
    if is(registries, "userAssignedIdentities") {
        let federated = is(registries + 2, "federatedIdentityCredentials");
        return match parts.len() - registries {
            1 => Route::ArmIdentities,
            2 => Route::ArmIdentity,
            3 if federated => Route::ArmIdentityFederated,
            4 if federated => Route::ArmIdentityFederatedOne,
            3 if is(registries + 2, "generateEndpointSecret") => Route::ArmIdentitySecret,
            _ => Route::ArmOther,
        };
    }
    if !is(registries, "registries") {
        return Route::ArmOther;
    }
    let inside = registries + 2;
    let runs = is(inside, "runs");
    match parts.len() - registries {
        1 => Route::ArmRegistries,
        2 => Route::ArmRegistry,
        3 if runs => Route::ArmRuns,
        4 if runs => Route::ArmRun,
        5 if runs && is(inside + 2, "listLogSasUrl") => Route::ArmRunLog,
        5 if runs && is(inside + 2, "cancel") => Route::ArmRunCancel,
        5 if runs && is(inside + 2, "relayAgent") => Route::ArmRunRelayAgent,
        3 if is(inside, "listCredentials") => Route::ArmListCredentials,
        3 if is(inside, "regenerateCredential") => Route::ArmRegenerateCredential,
        3 if is(inside, "listUsages") => Route::ArmListUsages,
        3 if is(inside, "listRepositoryUsages") => Route::ArmListRepositoryUsages,
        3 if is(inside, "customDomains") => Route::ArmCustomDomains,
        4 if is(inside, "customDomains") => Route::ArmCustomDomain,
        3 if is(inside, "listBuildSourceUploadUrl") => Route::ArmUploadUrl,
        3 if is(inside, "scheduleRun") => Route::ArmScheduleRun,
        3 if is(inside, "cacheRules") => Route::ArmCacheRules,
        4 if is(inside, "cacheRules") => Route::ArmCacheRule,
        3 if is(inside, "scopeMaps") => Route::ArmScopeMaps,
        4 if is(inside, "scopeMaps") => Route::ArmScopeMap,
        3 if is(inside, "tokens") => Route::ArmTokens,
        4 if is(inside, "tokens") => Route::ArmToken,
        3 if is(inside, "generateCredentials") => Route::ArmGenerateCredentials,
        3 if arm::is_absent(parts[inside]) => Route::ArmRegistryParts,
        4 if arm::is_absent(parts[inside]) => Route::ArmRegistryPart,
        _ => Route::ArmRegistryOther,
    }
}

/// What is on any resource, behind the last `providers`.
fn arm_extension(parts: &[&str]) -> Option<Route> {
    let at = parts.iter().rposition(|part| part.eq_ignore_ascii_case("providers"))?;
    let kinds = [
        ("Microsoft.Authorization", "locks", Route::ArmLocks, Some(Route::ArmLock)),
        ("Microsoft.Authorization", "roleAssignments", Route::ArmRoleAssignments, Some(Route::ArmRoleAssignment)),
        ("Microsoft.Authorization", "roleDefinitions", Route::ArmRoleDefinitions, Some(Route::ArmRoleDefinition)),
        ("Microsoft.Authorization", "denyAssignments", Route::ArmDenyAssignments, Some(Route::ArmDenyAssignments)),
        ("Microsoft.Insights", "eventtypes", Route::ArmActivity, None),
        ("Microsoft.Security", "pricings", Route::ArmPricings, Some(Route::ArmPricing)),
        ("Microsoft.Security", "assessments", Route::ArmAssessments, Some(Route::ArmAssessment)),
    ];
    let [_, namespace, kind, rest @ ..] = &parts[at..] else { return None };
    let is = |(ns, word, ..): &&(&str, &str, Route, Option<Route>)| {
        ns.eq_ignore_ascii_case(namespace) && word.eq_ignore_ascii_case(kind)
    };
    let (_, _, all, one) = kinds.iter().find(is)?;
    match (rest.len(), one) {
        (0, Some(_)) | (2, None) => Some(*all),
        (1, Some(one)) => Some(*one),
        _ => None,
    }
}

fn identity(path: &str) -> Route {
    let path = path.trim_end_matches('/');
    if path.eq_ignore_ascii_case("/metadata/endpoints") {
        Route::IdentityEndpoints
    } else if path.eq_ignore_ascii_case("/msi/token") {
        Route::IdentityManaged
    } else if path.eq_ignore_ascii_case("/metadata/identity/oauth2/token") {
        Route::IdentityMachine
    } else if path.ends_with("/token") {
        Route::IdentityToken
    } else if path.ends_with("/openid-configuration") {
        Route::IdentityDiscovery
    } else if path.ends_with("/keys") {
        Route::IdentityKeys
    } else if path.eq_ignore_ascii_case("/devicelogin") {
        Route::IdentityDevicePage
    } else if path.get(..18).is_some_and(|head| head.eq_ignore_ascii_case("/common/userrealm/")) {
        Route::IdentityUserRealm
    } else {
        identity_page(path.rsplit_once('/').map_or("", |(_, last)| last))
    }
}

/// What is under `/{tenant}/oauth2/`, by its last word.
fn identity_page(last: &str) -> Route {
    let pages = [
        ("devicecode", Route::IdentityDeviceCode),
        ("authorize", Route::IdentityAuthorize),
        ("sign-in", Route::IdentitySignIn),
        ("password", Route::IdentityPassword),
        ("logout", Route::IdentityLogout),
        ("provider", Route::IdentityProvider),
        ("callback", Route::IdentityCallback),
    ];
    pages.iter().find(|(word, _)| last.eq_ignore_ascii_case(word)).map_or(Route::IdentityOther, |(_, route)| *route)
}

/// A key may be a part of its own or stand in brackets: `users('a@b.c')`.
fn graph(path: &str) -> Route {
    let mut parts = path.trim_matches('/').split('/').skip(1);
    let first = parts.next().unwrap_or_default();
    let (kind, bracket) = match first.split_once('(') {
        Some((kind, _)) => (kind, true),
        None => (first, false),
    };
    let key = if bracket { Some("") } else { parts.next() };
    let (inside, more, end) = (parts.next(), parts.next(), parts.next().is_none());
    let is = |word: &str| kind.eq_ignore_ascii_case(word);
    let inside_is = |word: &str| inside.is_some_and(|part| part.eq_ignore_ascii_case(word)) && more.is_none();
    let of = |all: Route, one: Route, other: Route| match (key, inside) {
        (None, _) => all,
        (Some(_), None) => one,
        _ => other,
    };
    if is("users") {
        of(Route::GraphUsers, Route::GraphUser, Route::GraphUserOther)
    } else if is("me") && key.is_none() {
        Route::GraphMe
    } else if is("applications") {
        match () {
            () if inside_is("addPassword") => Route::GraphApplicationAddPassword,
            () if inside_is("removePassword") => Route::GraphApplicationRemovePassword,
            () if inside_is("federatedIdentityCredentials") => Route::GraphFederated,
            () if inside.is_some_and(|part| part.eq_ignore_ascii_case("federatedIdentityCredentials")) && end => {
                Route::GraphFederatedOne
            }
            () => of(Route::GraphApplications, Route::GraphApplication, Route::GraphApplicationOther),
        }
    } else if is("servicePrincipals") {
        match () {
            () if inside_is("addPassword") => Route::GraphPrincipalAddPassword,
            () if inside_is("removePassword") => Route::GraphPrincipalRemovePassword,
            () => of(Route::GraphPrincipals, Route::GraphPrincipal, Route::GraphPrincipalOther),
        }
    } else if is("directoryObjects") && inside.is_none() {
        match key {
            Some(word) if word.eq_ignore_ascii_case("getByIds") => Route::GraphObjectsByIds,
            Some(_) => Route::GraphObject,
            None => Route::GraphOther,
        }
    } else {
        Route::GraphOther
    }
}

/// Methods as metrics name them: a client may send any word.
pub const METHODS: [&str; 8] = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "other"];

/// The place of a method in [`METHODS`].
pub fn method_index(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::PUT => 2,
        Method::POST => 3,
        Method::PATCH => 4,
        Method::DELETE => 5,
        Method::OPTIONS => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> Route {
        Route::of(Door::of(path), path)
    }

    #[test]
    fn paths_have_their_routes() {
        for (path, expected) in [
            ("/v2", Route::V2Base),
            ("/v2/", Route::V2Base),
            ("/v2/_catalog", Route::V2Catalog),
            ("/v2/a/b/tags/list", Route::V2Tags),
            ("/v2/tags/manifests/list", Route::V2Manifest),
            ("/v2/a/manifests/sha256:12", Route::V2Manifest),
            ("/v2/a/blobs/sha256:12", Route::V2Blob),
            ("/v2/a/blobs/uploads/", Route::V2Uploads),
            ("/v2/a/blobs/uploads/7", Route::V2Upload),
            ("/v2/a/referrers/sha256:12", Route::V2Referrers),
            ("/v2/a", Route::V2Other),
            ("/acr/v1/_catalog", Route::AcrCatalog),
            ("/acr/v1/a/b", Route::AcrRepository),
            ("/acr/v1/a/b/_tags", Route::AcrTags),
            ("/acr/v1/a/b/_tags/v1", Route::AcrTag),
            ("/acr/v1/a/_manifests/sha256:12", Route::AcrManifest),
            ("/oauth2/token", Route::Oauth2Token),
            ("/blob/r1/source/x.tar.gz", Route::SignedBlob),
            ("/tenants", Route::ArmTenants),
            ("/SUBSCRIPTIONS/s/resourcegroups/g", Route::ArmGroup),
            ("/subscriptions/s/resourceGroups/g/providers/P/registries", Route::ArmRegistries),
            ("/subscriptions/s/providers/P/registries", Route::ArmRegistries),
            ("/subscriptions/s/resourceGroups/g/providers/P/Registries/r", Route::ArmRegistry),
            ("/subscriptions/s/resourceGroups/g/providers/P/registries/r/listcredentials", Route::ArmListCredentials),
            ("/subscriptions/s/resourceGroups/g/providers/P/registries/r/runs/cb1/cancel", Route::ArmRunCancel),
            ("/subscriptions/s/resourceGroups/g/providers/P/registries/r/x/y/z/u/v/w", Route::ArmRegistryOther),
            ("/subscriptions/s/resourceGroups/g/providers/P/registries/r/Webhooks", Route::ArmRegistryParts),
            ("/subscriptions/s/resourceGroups/g/providers/P/registries/r/webhooks/w", Route::ArmRegistryPart),
            ("/subscriptions/s/resources", Route::ArmResources),
            ("/subscriptions/s/resourceGroups/g/resources", Route::ArmGroupResources),
            ("/subscriptions/s/locations", Route::ArmLocations),
            ("/subscriptions/s/operationresults/1", Route::ArmOperationResult),
            ("/subscriptions/s/providers/P/locations/l/operationStatuses/1", Route::ArmOperationStatus),
            ("/subscriptions/s/providers/microsoft.authorization/LOCKS", Route::ArmLocks),
            ("/subscriptions/s/providers/Microsoft.Authorization/roleAssignments", Route::ArmRoleAssignments),
            ("/subscriptions/s/providers/Microsoft.Authorization/roleAssignments/x", Route::ArmRoleAssignment),
            (
                "/subscriptions/s/resourceGroups/g/providers/P/registries/r/providers/Microsoft.Authorization/\
                 roleDefinitions/x",
                Route::ArmRoleDefinition,
            ),
            ("/subscriptions/s/resourceGroups/g/providers/Microsoft.Authorization/locks/l", Route::ArmLock),
            (
                "/subscriptions/s/resourceGroups/g/providers/P//registries/r/providers/Microsoft.Authorization/locks/l",
                Route::ArmLock,
            ),
            ("/subscriptions/s/providers/Microsoft.Insights/eventtypes/management/values", Route::ArmActivity),
            ("/subscriptions/s/providers/Microsoft.Security/pricings/Containers", Route::ArmPricing),
            ("/subscriptions/s/providers/Microsoft.Security/assessments", Route::ArmAssessments),
            ("/common/oauth2/v2.0/token", Route::IdentityToken),
            ("/metadata/endpoints", Route::IdentityEndpoints),
            ("/metadata/identity/oauth2/token", Route::IdentityMachine),
            ("/msi/token", Route::IdentityManaged),
            ("/v1.0/users", Route::GraphUsers),
            ("/v1.0/users/a@b.c", Route::GraphUser),
            ("/v1.0/users('$a')", Route::GraphUser),
            ("/v1.0/users/a/revokeSignInSessions", Route::GraphUserOther),
            ("/v1.0/applications(appId='x')/addPassword", Route::GraphApplicationAddPassword),
            ("/v1.0/applications/x/federatedIdentityCredentials/y", Route::GraphFederatedOne),
            ("/v1.0/servicePrincipals/x/y/z", Route::GraphPrincipalOther),
            ("/v1.0/directoryObjects/getByIds", Route::GraphObjectsByIds),
            ("/v1.0/me", Route::GraphMe),
            ("/v1.0/me/ownedObjects", Route::GraphOther),
            ("/v1.0", Route::GraphOther),
            ("/subscriptions/s/resourceGroups/g/providers/P/userassignedidentities/i", Route::ArmIdentity),
            ("/devicelogin", Route::IdentityDevicePage),
            ("/common/UserRealm/alice@example.com", Route::IdentityUserRealm),
            ("/common/oauth2/v2.0/devicecode", Route::IdentityDeviceCode),
            ("/common/oauth2/v2.0/Sign-In", Route::IdentitySignIn),
            ("/common/oauth2/v2.0/sign-in/x", Route::IdentityOther),
            ("/healthz", Route::Healthz),
            ("/metrics", Route::MetricsPage),
            ("/no/such", Route::Other),
            ("", Route::Other),
        ] {
            assert_eq!(route(path), expected, "{path}");
        }
    }

    #[test]
    fn every_route_is_at_its_place_and_has_a_name_of_its_own() {
        for (i, one) in Route::ALL.iter().enumerate() {
            assert_eq!(*one as usize, i);
            assert!(Route::ALL[..i].iter().all(|other| other.as_str() != one.as_str()), "{}", one.as_str());
        }
    }

    #[test]
    fn logs_name_the_repository_and_what_of_it() {
        let of = |path: &'static str| route(path).subject(path);
        assert_eq!(of("/v2/a/b/manifests/v1"), (Some("a/b"), Some("v1")));
        assert_eq!(of("/v2/manifests/manifests/manifests"), (Some("manifests"), Some("manifests")));
        assert_eq!(of("/v2/a/blobs/uploads/"), (Some("a"), None));
        assert_eq!(of("/acr/v1/a/_tags/v1"), (Some("a"), Some("v1")));
        assert_eq!(of("/acr/v1/a/b"), (Some("a/b"), None));
        assert_eq!(of("/v2/"), (None, None));
    }

    proptest::proptest! {
        #[test]
        fn any_path_has_a_route_and_a_subject(path in ".{0,80}", inside in "(v2|acr/v1|subscriptions)/[a-z0-9/:%_.-]{0,60}") {
            for text in [path, format!("/{inside}")] {
                let _ = route(&text).subject(&text);
            }
        }
    }
}
