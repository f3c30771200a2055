//! What one of two servers gives, takes and disables, the other goes by: roles, secrets,
//! principals, scope maps and tokens are in each server's memory, and follow.

use portolan_testkit::Site;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::two_servers::{Node, Setup};

const ACR_PULL: &str = "7f951dda-4ed3-4680-a7ca-43fe172d538d";

/// Ask the control plane or the directory as the owner; the answer of what succeeded.
async fn ask(node: &Node, method: Method, path: &str, body: Value) -> Value {
    let url = format!("{}{path}?api-version=2022-04-01", node.site.url);
    let token = node.site.arm_token().await.unwrap();
    let answer = node.site.client.request(method, url).bearer_auth(token).json(&body).send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert!(status.is_success(), "{path}: {status} {text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_changed_at_one_server_hold_at_the_other() {
    let setup = Setup::new("");
    let (mut a, mut b) = setup.both().await;
    a.make_registry("shared").await;
    a.push("app", "v1", b"layer").await;
    b.know(&a);
    b.until("/v2/app/tags/list", StatusCode::OK).await;

    let subscription = format!("/subscriptions/{}", a.site.bootstrap.subscription_id);
    let here = format!("{subscription}{}", Site::registry_path("shared"));

    // Somebody new, made at A, without a role: B knows who it is and lets it do nothing.
    let app = ask(&a, Method::POST, "/v1.0/applications", json!({"displayName": "puller"})).await;
    let (app, app_id) = (app["id"].as_str().unwrap().to_owned(), app["appId"].as_str().unwrap().to_owned());
    let body = json!({"appId": app_id, "accountEnabled": true});
    let principal = ask(&a, Method::POST, "/v1.0/servicePrincipals", body).await["id"].as_str().unwrap().to_owned();
    let body = json!({"passwordCredential": {"displayName": "one"}});
    let secret = ask(&a, Method::POST, &format!("/v1.0/applications/{app}/addPassword"), body).await;
    b.sign_in_as(&app_id, secret["secretText"].as_str().unwrap());
    let mut slowest = b.until("/v2/app/tags/list", StatusCode::FORBIDDEN).await;

    // Ten times a role is given and taken at A.
    for n in 0..10 {
        let id = format!("00000000-0000-4000-8000-{n:012}");
        let path = format!("{here}/providers/Microsoft.Authorization/roleAssignments/{id}");
        let role = format!("{subscription}/providers/Microsoft.Authorization/roleDefinitions/{ACR_PULL}");
        let holder = json!({"principalId": principal, "principalType": "ServicePrincipal"});
        let mut body = json!({"properties": holder});
        body["properties"]["roleDefinitionId"] = role.into();
        ask(&a, Method::PUT, &path, body).await;
        slowest = slowest.max(b.until("/v2/app/tags/list", StatusCode::OK).await);
        ask(&a, Method::DELETE, &path, Value::Null).await;
        slowest = slowest.max(b.until("/v2/app/tags/list", StatusCode::FORBIDDEN).await);
    }

    // Disabled at A, it is nobody at B; with its secret removed it stays so.
    let path = format!("/v1.0/servicePrincipals/{principal}");
    ask(&a, Method::PATCH, &path, json!({"accountEnabled": false})).await;
    slowest = slowest.max(b.until("/v2/app/tags/list", StatusCode::UNAUTHORIZED).await);
    ask(&a, Method::PATCH, &path, json!({"accountEnabled": true})).await;
    slowest = slowest.max(b.until("/v2/app/tags/list", StatusCode::FORBIDDEN).await);
    let body = json!({"keyId": secret["keyId"]});
    ask(&a, Method::POST, &format!("/v1.0/applications/{app}/removePassword"), body).await;
    slowest = slowest.max(b.until("/v2/app/tags/list", StatusCode::UNAUTHORIZED).await);

    // A repository token whose scope map shrinks.
    let map = format!("{here}/scopeMaps/readers");
    let actions = |list: &[&str]| json!({"properties": {"actions": list}});
    ask(&a, Method::PUT, &map, actions(&["repositories/app/content/read", "repositories/app/metadata/read"])).await;
    let body = json!({"properties": {"scopeMapId": map, "status": "enabled"}});
    ask(&a, Method::PUT, &format!("{here}/tokens/reader"), body).await;
    let body = json!({"tokenId": format!("{here}/tokens/reader"), "name": "password1"});
    let credentials = ask(&a, Method::POST, &format!("{here}/generateCredentials"), body).await;
    b.sign_in_as("reader", credentials["passwords"][0]["value"].as_str().unwrap());
    slowest = slowest.max(b.until("/v2/app/manifests/v1", StatusCode::OK).await);
    ask(&a, Method::PATCH, &map, actions(&["repositories/other/content/read"])).await;
    slowest = slowest.max(b.until("/v2/app/manifests/v1", StatusCode::FORBIDDEN).await);
    let off = json!({"properties": {"status": "disabled"}});
    ask(&a, Method::PATCH, &format!("{here}/tokens/reader"), off).await;
    slowest = slowest.max(b.until("/v2/app/manifests/v1", StatusCode::UNAUTHORIZED).await);

    // What a change took to be seen, for who reads the output; the bound is `until`'s.
    println!("the slowest change took {slowest:?} to hold at the other server");
}
