//! What a request that changes something is called: Azure's name of its operation, and the
//! id of the resource that it is about. For the activity log; nothing is decided by it.

use http::Method;
use portolan_types::ResourceId;

use super::path;

/// Providers whose operations are told of.
const PROVIDERS: [&str; 6] = [
    "Microsoft.Authorization",
    "Microsoft.ContainerRegistry",
    "Microsoft.Insights",
    "Microsoft.ManagedIdentity",
    "Microsoft.Resources",
    "Microsoft.Security",
];
/// How the words of operations are spelled.
const WORDS: &[&str] = &[
    "assessments",
    "cacheRules",
    "cancel",
    "connectedRegistries",
    "credentialSets",
    "customDomains",
    "federatedIdentityCredentials",
    "generateCredentials",
    "generateEndpointSecret",
    "importImage",
    "listBuildSourceUploadUrl",
    "listCredentials",
    "listLogSasUrl",
    "locks",
    "pricings",
    "privateEndpointConnections",
    "regenerateCredential",
    "registries",
    "replications",
    "roleAssignments",
    "roleDefinitions",
    "runs",
    "scheduleRun",
    "scopeMaps",
    "tasks",
    "tokens",
    "userAssignedIdentities",
    "webhooks",
];
/// What is asked with POST and changes nothing, and is no secret.
const QUESTIONS: [&str; 2] = ["checknameavailability", "register"];
/// Characters of a word that is not ours.
const WORD_CHARS_MAX: usize = 64;

/// The operation's name and the resource's id; `None` for what changes nothing or is no
/// resource.
pub(super) fn of(method: &Method, path: &str) -> Option<(String, ResourceId)> {
    let verb = match *method {
        Method::PUT | Method::PATCH => "write",
        Method::DELETE => "delete",
        Method::POST => "action",
        _ => return None,
    };
    let parts = path::split(path)?;
    let is = |at: usize, word: &str| parts.get(at).is_some_and(|p| p.eq_ignore_ascii_case(word));
    if !is(0, "subscriptions") || parts.len() < 4 {
        return None;
    }
    let mut id = format!("/subscriptions/{}", parts[1]);
    let mut at = 2;
    let mut operation = String::new();
    if is(2, "resourceGroups") {
        id = format!("{id}/resourceGroups/{}", parts[3]);
        operation.push_str("Microsoft.Resources/subscriptions/resourceGroups");
        at = 4;
    }
    // One provider after the other: the last one's operation it is.
    while is(at, "providers") {
        let provider = PROVIDERS.into_iter().find(|p| is(at + 1, p))?;
        id = format!("{id}/providers/{provider}");
        provider.clone_into(&mut operation);
        at += 2;
        while let Some(kind) = parts.get(at).filter(|p| !p.eq_ignore_ascii_case("providers")) {
            let kind = spelled(kind)?;
            operation.push('/');
            operation.push_str(kind);
            match parts.get(at + 1) {
                Some(name) => id = format!("{id}/{kind}/{name}"),
                // A word without a name is what a POST asks of the resource before it.
                None if verb == "action" => {}
                None => return None,
            }
            at += 2;
        }
    }
    let question = QUESTIONS.iter().any(|q| is(parts.len() - 1, q));
    if question || operation.is_empty() || at < parts.len() || !operation.contains('/') {
        return None;
    }
    operation.push('/');
    operation.push_str(verb);
    Some((operation, ResourceId(id)))
}

fn spelled(word: &str) -> Option<&str> {
    let known = WORDS.iter().find(|w| w.eq_ignore_ascii_case(word)).copied();
    known.or_else(|| (word.len() <= WORD_CHARS_MAX && word.bytes().all(|c| c.is_ascii_alphanumeric())).then_some(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_azures_names() {
        let of = |method: Method, path: &str| of(&method, path).map(|(op, id)| (op, id.0));
        let some = |op: &str, id: &str| Some((op.to_owned(), id.to_owned()));
        let registry = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/r";
        assert_eq!(
            of(Method::PUT, "/Subscriptions/s/resourcegroups/g"),
            some("Microsoft.Resources/subscriptions/resourceGroups/write", "/subscriptions/s/resourceGroups/g")
        );
        assert_eq!(
            of(Method::PATCH, &registry.to_lowercase()),
            some("Microsoft.ContainerRegistry/registries/write", registry)
        );
        assert_eq!(
            of(Method::POST, &format!("{registry}/LISTCREDENTIALS")),
            some("Microsoft.ContainerRegistry/registries/listCredentials/action", registry)
        );
        assert_eq!(
            of(Method::POST, &format!("{registry}/runs/cb1/cancel")),
            some("Microsoft.ContainerRegistry/registries/runs/cancel/action", &format!("{registry}/runs/cb1"))
        );
        assert_eq!(
            of(Method::DELETE, &format!("{registry}/providers/Microsoft.Authorization/locks/l")),
            some(
                "Microsoft.Authorization/locks/delete",
                &format!("{registry}/providers/Microsoft.Authorization/locks/l")
            )
        );
        assert_eq!(
            of(Method::PUT, "/subscriptions/s/providers/Microsoft.Security/pricings/Containers"),
            some(
                "Microsoft.Security/pricings/write",
                "/subscriptions/s/providers/Microsoft.Security/pricings/Containers"
            )
        );
    }

    #[test]
    fn what_is_no_change_of_ours_has_no_name() {
        for (method, path) in [
            (Method::GET, "/subscriptions/s/resourceGroups/g"),
            (Method::POST, "/subscriptions/s/providers/Microsoft.ContainerRegistry/checkNameAvailability"),
            (Method::POST, "/subscriptions/s/providers/Microsoft.ContainerRegistry/register"),
            (Method::PUT, "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/vms/v"),
            (Method::PUT, "/subscriptions/s"),
            (Method::PUT, "/tenants"),
            (Method::PUT, "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries"),
            (Method::PUT, "/subscriptions/s/resourceGroups/g/x"),
            (Method::PUT, "/subscriptions/s/resourceGroups/../x/y"),
        ] {
            assert_eq!(of(&method, path), None, "{method} {path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_has_a_name_or_none(path in "/subscriptions/.{0,60}", like in "(/(subscriptions|providers|Microsoft.Security|registries|a)){0,12}") {
            let _ = (of(&Method::POST, &path), of(&Method::PUT, &like));
        }
    }
}
