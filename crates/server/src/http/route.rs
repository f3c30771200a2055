//! What a request is about, as metrics, logs and traces name it: one of a fixed list of
//! routes. Never a name from the path, of which there is no end.
//!
//! The doors take their paths apart themselves, and more strictly; here is only the shape.

use http::Method;

use super::Door;

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
        ArmRegistries = "…/registries",
        ArmRegistry = "…/registries/{registry}",
        ArmListCredentials = "…/registries/{registry}/listCredentials",
        ArmRegenerateCredential = "…/registries/{registry}/regenerateCredential",
        ArmListUsages = "…/registries/{registry}/listUsages",
        ArmUploadUrl = "…/registries/{registry}/listBuildSourceUploadUrl",
        ArmScheduleRun = "…/registries/{registry}/scheduleRun",
        ArmRuns = "…/registries/{registry}/runs",
        ArmRun = "…/registries/{registry}/runs/{run}",
        ArmRunLog = "…/registries/{registry}/runs/{run}/listLogSasUrl",
        ArmRunCancel = "…/registries/{registry}/runs/{run}/cancel",
        ArmCacheRules = "…/registries/{registry}/cacheRules",
        ArmCacheRule = "…/registries/{registry}/cacheRules/{rule}",
        ArmScopeMaps = "…/registries/{registry}/scopeMaps",
        ArmScopeMap = "…/registries/{registry}/scopeMaps/{map}",
        ArmTokens = "…/registries/{registry}/tokens",
        ArmToken = "…/registries/{registry}/tokens/{token}",
        ArmGenerateCredentials = "…/registries/{registry}/generateCredentials",
        ArmRegistryOther = "…/registries/{registry}/…",
        ArmOther = "/subscriptions/…",
    }
    Identity {
        IdentityToken = "/{tenant}/oauth2/v2.0/token",
        IdentityDiscovery = "/{tenant}/v2.0/.well-known/openid-configuration",
        IdentityKeys = "/{tenant}/discovery/v2.0/keys",
        IdentityEndpoints = "/metadata/endpoints",
        IdentityOther = "/{tenant}/…",
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
            Door::Arm => arm(path),
            Door::Identity => identity(path),
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
const ARM_PARTS_MAX: usize = 12;

fn arm(path: &str) -> Route {
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
        _ => {}
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
        3 if is(inside, "listCredentials") => Route::ArmListCredentials,
        3 if is(inside, "regenerateCredential") => Route::ArmRegenerateCredential,
        3 if is(inside, "listUsages") => Route::ArmListUsages,
        3 if is(inside, "listBuildSourceUploadUrl") => Route::ArmUploadUrl,
        3 if is(inside, "scheduleRun") => Route::ArmScheduleRun,
        3 if is(inside, "cacheRules") => Route::ArmCacheRules,
        4 if is(inside, "cacheRules") => Route::ArmCacheRule,
        3 if is(inside, "scopeMaps") => Route::ArmScopeMaps,
        4 if is(inside, "scopeMaps") => Route::ArmScopeMap,
        3 if is(inside, "tokens") => Route::ArmTokens,
        4 if is(inside, "tokens") => Route::ArmToken,
        3 if is(inside, "generateCredentials") => Route::ArmGenerateCredentials,
        _ => Route::ArmRegistryOther,
    }
}

fn identity(path: &str) -> Route {
    let path = path.trim_end_matches('/');
    if path.eq_ignore_ascii_case("/metadata/endpoints") {
        Route::IdentityEndpoints
    } else if path.ends_with("/token") {
        Route::IdentityToken
    } else if path.ends_with("/openid-configuration") {
        Route::IdentityDiscovery
    } else if path.ends_with("/keys") {
        Route::IdentityKeys
    } else {
        Route::IdentityOther
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
            ("/common/oauth2/v2.0/token", Route::IdentityToken),
            ("/metadata/endpoints", Route::IdentityEndpoints),
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
