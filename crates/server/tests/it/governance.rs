//! Locks, the activity log, long-running operations and the security commands over HTTP, as
//! `az` asks for them; and the games that can be played with ARM ids.

use std::time::{Duration, Instant};

use portolan_testkit::Site;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::TestServer;

/// For what must happen by itself.
const WAIT: Duration = Duration::from_secs(30);

pub(crate) async fn ask(t: &TestServer, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    read(t.site.arm(method, path, body).await.unwrap()).await
}

async fn read(res: Response) -> (u16, Value) {
    let status = res.status().as_u16();
    let text = res.text().await.unwrap();
    (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
}

async fn get(t: &TestServer, url: &str) -> Response {
    t.site.client.get(url).bearer_auth(t.site.arm_token().await.unwrap()).send().await.unwrap()
}

/// Wait for the end of what a 202 has promised.
pub(crate) async fn ended(t: &TestServer, accepted: Response) -> (u16, Value) {
    assert_eq!(accepted.status().as_u16(), 202);
    let at = accepted.headers()["location"].to_str().unwrap().to_owned();
    let begun = Instant::now();
    loop {
        let res = get(t, &at).await;
        if res.status().as_u16() != 202 {
            return read(res).await;
        }
        assert_eq!(res.headers()["retry-after"], "1");
        assert!(begun.elapsed() < WAIT, "it does not end");
    }
}

/// Delete a group and wait until it is gone.
pub(crate) async fn delete_group(t: &TestServer, group: &str) -> (u16, Value) {
    let res = t.site.arm(Method::DELETE, &format!("/resourcegroups/{group}"), None).await.unwrap();
    match res.status().as_u16() {
        202 => ended(t, res).await,
        _ => read(res).await,
    }
}

fn lock_at(scope: &str, name: &str) -> String {
    format!("{scope}/providers/Microsoft.Authorization/locks{}{name}", if name.is_empty() { "" } else { "/" })
}

#[tokio::test]
async fn locks_as_az_makes_them() {
    let t = TestServer::start().await;
    t.site.make_registry("myreg").await.unwrap();
    let sub = format!("/subscriptions/{}", t.site.bootstrap.subscription_id);
    let registry = Site::registry_path("myreg");
    // As `az lock create -g … --resource-type … --resource …` writes it: without a parent.
    let written = "/resourcegroups/testgroup/providers/Microsoft.ContainerRegistry//registries/MyReg";
    let body = |level: &str| Some(json!({"properties": {"level": level, "notes": "n"}}));
    let (status, lock) = ask(&t, Method::PUT, &lock_at(written, "keep"), body("CanNotDelete")).await;
    assert_eq!(status, 201);
    let id = format!("{sub}{}", lock_at(&registry, "keep"));
    assert_eq!((&lock["id"], &lock["name"]), (&json!(id), &json!("keep")));
    assert_eq!(lock["type"], "Microsoft.Authorization/locks");
    assert_eq!(lock["properties"], json!({"level": "CanNotDelete", "notes": "n"}));
    assert_eq!(ask(&t, Method::PUT, &lock_at(&registry, "KEEP"), body("CanNotDelete")).await.0, 200);
    for list in ["", "/resourceGroups/testgroup", &registry, written] {
        let (status, found) = ask(&t, Method::GET, &lock_at(list, ""), None).await;
        assert_eq!((status, &found["value"][0]["id"]), (200, &json!(id)), "{list}");
    }
    let over = format!("{}?$filter=atScope()", lock_at("/resourceGroups/testgroup", ""));
    assert_eq!(ask(&t, Method::GET, &over, None).await, (200, json!({"value": []})));
    assert_eq!(ask(&t, Method::GET, &lock_at(written, "keep"), None).await.0, 200);

    for path in [registry.as_str(), "/resourcegroups/testgroup"] {
        let (status, error) = ask(&t, Method::DELETE, path, None).await;
        assert_eq!((status, &error["error"]["code"]), (409, &json!("ScopeLocked")), "{path}");
        let text = error["error"]["message"].as_str().unwrap();
        assert!(text.contains("cannot perform delete operation because following scope(s) are locked"), "{text}");
    }
    let tags = || Some(json!({"tags": {"a": "b"}}));
    assert_eq!(ask(&t, Method::PATCH, &registry, tags()).await.0, 200);
    let (status, _) = ask(&t, Method::PUT, &lock_at("/resourcegroups/testgroup", "ro"), body("ReadOnly")).await;
    assert_eq!(status, 201);
    for (method, path, body) in [
        (Method::PATCH, registry.clone(), tags()),
        (Method::PUT, Site::registry_path("newreg"), Some(json!({"location": "local", "sku": {"name": "Basic"}}))),
        (Method::POST, format!("{registry}/listCredentials"), None),
        (Method::PUT, format!("{registry}/scopeMaps/m"), Some(json!({"properties": {"actions": []}}))),
        (Method::PATCH, "/resourcegroups/testgroup".into(), tags()),
    ] {
        let (status, error) = ask(&t, method.clone(), &path, body).await;
        assert_eq!((status, &error["error"]["code"]), (409, &json!("ScopeLocked")), "{method} {path}");
    }
    assert_eq!(ask(&t, Method::GET, &registry, None).await.0, 200);
    assert_eq!(ask(&t, Method::DELETE, &lock_at("/resourcegroups/testgroup", "ro"), None).await.0, 200);
    assert_eq!(ask(&t, Method::DELETE, &lock_at("/resourcegroups/testgroup", "ro"), None).await.0, 204);
    assert_eq!(ask(&t, Method::DELETE, &lock_at(&registry, "keep"), None).await.0, 200);
    assert_eq!(ask(&t, Method::DELETE, &registry, None).await.0, 200);
    let (status, error) = ask(&t, Method::GET, &lock_at("", "keep"), None).await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!("LockNotFound")));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn every_change_is_in_the_log_with_who_what_and_how_it_ended() {
    let t = TestServer::start().await;
    t.site.make_registry("myreg").await.unwrap();
    let registry = Site::registry_path("myreg");
    let token = t.site.arm_token().await.unwrap();
    let url = format!("{}/subscriptions/{}", t.site.url, t.site.bootstrap.subscription_id);
    let correlation = "3b3b3b3b-1111-2222-3333-444444444444";
    let res = t
        .site
        .client
        .patch(format!("{url}{registry}?api-version=2025-11-01"))
        .bearer_auth(&token)
        .header("x-ms-correlation-request-id", correlation)
        .json(&json!({"tags": {"a": "b"}}))
        .send()
        .await
        .unwrap();
    assert_eq!(res.status().as_u16(), 200);
    let (status, _) = ask(&t, Method::PATCH, &registry, Some(json!({"sku": {"name": "Gold"}}))).await;
    assert_eq!(status, 400);
    let list = async |filter: &str, more: &str| -> Vec<Value> {
        let at = "/providers/Microsoft.Insights/eventtypes/management/values";
        let query = serde_urlencoded::to_string([("$filter", filter)]).unwrap();
        let (status, found) = ask(&t, Method::GET, &format!("{at}?{query}{more}"), None).await;
        assert_eq!(status, 200, "{found}");
        found["value"].as_array().unwrap().clone()
    };
    let span = "eventTimestamp ge 2020-01-01T00:00:00 and eventTimestamp le 2999-01-01T00:00:00.123456";
    let one = list(&format!("{span} and correlationId eq '{correlation}'"), "").await;
    let statuses: Vec<&str> = one.iter().map(|e| e["status"]["value"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["Succeeded", "Started"], "newest first");
    let event = &one[0];
    assert_eq!(event["operationName"]["value"], "Microsoft.ContainerRegistry/registries/write");
    assert_eq!(event["resourceId"], json!(format!("/subscriptions/{}{registry}", t.site.bootstrap.subscription_id)));
    assert_eq!(event["resourceGroupName"], "testgroup");
    assert_eq!(event["resourceProviderName"]["value"], "Microsoft.ContainerRegistry");
    assert_eq!(event["claims"]["appid"], json!(t.site.bootstrap.client_id));
    assert_eq!(event["httpRequest"]["method"], "PATCH");
    assert_eq!(event["httpRequest"]["clientIpAddress"], "127.0.0.1");
    assert_eq!(event["subStatus"]["value"], "200");
    assert!(uuid::Uuid::try_parse(event["caller"].as_str().unwrap()).is_ok());

    let failed = list(&format!("{span} and status eq 'Failed'"), "").await;
    assert_eq!(failed.len(), 1);
    assert!(failed[0]["properties"]["statusMessage"].as_str().unwrap().contains("InvalidSku"));
    let caller = list(&format!("{span} and caller eq '{}'", t.site.bootstrap.client_id), "").await;
    assert!(caller.len() >= 7, "a group, a registry and two changes, two events each but for those of POST");
    assert_eq!(list(&format!("{span} and resourceGroupName eq 'other'"), "").await, [] as [Value; 0]);
    let chosen = list(span, "&$select=caller,eventTimestamp").await;
    assert_eq!(chosen[0].as_object().unwrap().len(), 2);
    // Passwords that were shown are a line, not shown again.
    ask(&t, Method::POST, &format!("{registry}/listCredentials"), None).await;
    let shown = list(
        &format!("{span} and operationName eq 'Microsoft.ContainerRegistry/registries/listCredentials/action'"),
        "",
    )
    .await;
    assert_eq!(shown.len(), 1);
    let bad = "/providers/Microsoft.Insights/eventtypes/management/values?$filter=colour%20eq%20'x'";
    assert_eq!(ask(&t, Method::GET, bad, None).await.0, 400);
    t.server.shutdown().await.unwrap();
}

/// Nobody without a role can push out of the log what others did.
#[tokio::test]
async fn a_stranger_does_not_fill_the_log() {
    let t = TestServer::start().await;
    t.site.make_registry("myreg").await.unwrap();
    crate::people::user(&t, "alice").await;
    let form = [
        ("grant_type", "password"),
        ("client_id", crate::people::AZ),
        ("username", "alice@example.com"),
        ("password", crate::people::PASSWORD),
        ("scope", &format!("{}/.default openid", t.site.url)),
    ];
    let (status, token) = crate::people::token(&t, &form).await;
    assert_eq!(status, 200, "{token}");
    let registry = Site::registry_path("myreg");
    let url = format!("{}/subscriptions/{}{registry}", t.site.url, t.site.bootstrap.subscription_id);
    for n in 0..5 {
        let tags = json!({"tags": {"n": n.to_string()}});
        let req = t.site.client.patch(&url).bearer_auth(token["access_token"].as_str().unwrap()).json(&tags);
        assert_eq!(req.send().await.unwrap().status().as_u16(), 403);
    }
    let at = "/providers/Microsoft.Insights/eventtypes/management/values";
    let (_, log) = ask(&t, Method::GET, at, None).await;
    let callers: Vec<&str> = log["value"].as_array().unwrap().iter().map(|e| e["caller"].as_str().unwrap()).collect();
    assert!(!callers.is_empty() && !callers.contains(&"alice@example.com"), "{callers:?}");
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_group_goes_in_the_arm_way() {
    let t = TestServer::start().await;
    t.site.make_registry("myreg").await.unwrap();
    let res = t.site.arm(Method::DELETE, "/resourcegroups/TESTGROUP", None).await.unwrap();
    assert_eq!(res.headers()["retry-after"], "1");
    assert!(res.headers()["location"].to_str().unwrap().starts_with(&t.site.url));
    let at = res.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(ended(&t, res).await, (200, Value::Null));
    assert_eq!(ask(&t, Method::HEAD, "/resourcegroups/testgroup", None).await.0, 404);
    // Its status in words, and not for others.
    let id = at.split("/operationresults/").nth(1).unwrap().split('?').next().unwrap();
    let status = format!("/providers/Microsoft.ContainerRegistry/locations/local/operationStatuses/{id}");
    let (code, body) = ask(&t, Method::GET, &status, None).await;
    assert_eq!((code, &body["status"], &body["name"]), (200, &json!("Succeeded"), &json!(id)));
    assert_eq!(t.site.client.get(&at).send().await.unwrap().status().as_u16(), 401);
    for unknown in ["x", "3b3b3b3b-1111-2222-3333-444444444444"] {
        let (code, error) = ask(&t, Method::GET, &format!("/operationresults/{unknown}"), None).await;
        assert_eq!((code, &error["error"]["code"]), (404, &json!("OperationNotFound")));
    }
    let (code, error) = delete_group(&t, "testgroup").await;
    assert_eq!((code, &error["error"]["code"]), (404, &json!("ResourceGroupNotFound")));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_removal_that_was_accepted_survives_the_server() {
    let t = TestServer::start().await;
    t.site.make_registry("myreg").await.unwrap();
    // Promised by a server that ends before it begins.
    let (service, now) = (&t.server.app.service, portolan_types::Timestamp::now());
    let system = portolan_service::Ctx::system("test", now);
    service.begin_group_deletion(&system, &"testgroup".parse().unwrap(), None).await.unwrap();
    let (_, group) = ask(&t, Method::GET, "/resourcegroups/testgroup", None).await;
    assert_eq!(group["properties"]["provisioningState"], "Deleting");
    let body = Some(json!({"location": "local", "sku": {"name": "Basic"}}));
    let (status, error) = ask(&t, Method::PUT, &Site::registry_path("newreg"), body).await;
    assert_eq!((status, &error["error"]["code"]), (409, &json!("ResourceGroupBeingDeleted")));
    let TestServer { server, data, .. } = t;
    server.shutdown().await.unwrap();

    let t = TestServer::start_on(data, |_| {}).await;
    let begun = Instant::now();
    while ask(&t, Method::HEAD, "/resourcegroups/testgroup", None).await.0 != 404 {
        assert!(begun.elapsed() < WAIT, "nobody goes on with it");
    }
    assert_eq!(ask(&t, Method::GET, "/resources", None).await.1, json!({"value": []}));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn lists_of_what_is_not_here_are_empty() {
    let t = TestServer::start().await;
    t.site.make_registry("myreg").await.unwrap();
    let registry = Site::registry_path("myreg");
    for kind in [
        "replications",
        "webhooks",
        "privateEndpointConnections",
        "connectedRegistries",
        "credentialSets",
        "tasks",
        "taskRuns",
        "agentPools",
        "exportPipelines",
        "importPipelines",
        "pipelineRuns",
    ] {
        assert_eq!(ask(&t, Method::GET, &format!("{registry}/{kind}"), None).await, (200, json!({"value": []})));
        let (status, error) = ask(&t, Method::GET, &format!("{registry}/{}/x", kind.to_uppercase()), None).await;
        assert_eq!((status, &error["error"]["code"]), (404, &json!("ResourceNotFound")), "{kind}");
        let (status, error) = ask(&t, Method::PUT, &format!("{registry}/{kind}/x"), Some(json!({}))).await;
        assert_eq!((status, &error["error"]["code"]), (400, &json!("OperationNotSupported")), "{kind}");
        assert_eq!(ask(&t, Method::DELETE, &format!("{registry}/{kind}/x"), None).await.0, 204);
    }
    let (status, links) = ask(&t, Method::GET, &format!("{registry}/privateLinkResources"), None).await;
    assert_eq!((status, &links["value"][0]["properties"]["groupId"]), (200, &json!("registry")));
    let one = ask(&t, Method::GET, &format!("{registry}/privateLinkResources/REGISTRY"), None).await;
    assert_eq!(one, (200, links["value"][0].clone()));
    assert_eq!(ask(&t, Method::GET, &format!("{registry}/privateLinkResources/x"), None).await.0, 404);
    let (status, error) = ask(&t, Method::GET, &format!("{registry}/nonsense"), None).await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!("InvalidResourceType")));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn security_commands_tell_what_is() {
    let t = TestServer::start().await;
    t.site.make_registry("myreg").await.unwrap();
    let pricing = "/providers/Microsoft.Security/pricings/ContainerRegistry";
    let body = Some(json!({"properties": {"pricingTier": "Standard"}}));
    let (status, plan) = ask(&t, Method::PUT, pricing, body).await;
    assert_eq!((status, &plan["name"]), (200, &json!("ContainerRegistry")));
    assert_eq!(plan["properties"]["pricingTier"], "Standard");
    assert_eq!(plan["properties"]["replacedBy"], json!(["Containers"]));
    assert_eq!(ask(&t, Method::GET, pricing, None).await, (200, plan));
    let (_, plans) = ask(&t, Method::GET, "/providers/Microsoft.Security/pricings", None).await;
    let standard = |p: &&Value| p["properties"]["pricingTier"] == "Standard";
    assert_eq!(plans["value"].as_array().unwrap().iter().filter(standard).count(), 1);

    let at = "/providers/Microsoft.Security/assessments";
    let (status, all) = ask(&t, Method::GET, at, None).await;
    let all = all["value"].as_array().unwrap();
    assert_eq!((status, all.len()), (200, 4));
    let admin = all.iter().find(|a| a["properties"]["displayName"].as_str().unwrap().contains("admin user")).unwrap();
    assert_eq!(admin["properties"]["status"]["code"], "Unhealthy");
    let scanned = all.iter().find(|a| a["properties"]["displayName"].as_str().unwrap().contains("vulnerab")).unwrap();
    assert_eq!(scanned["properties"]["status"]["code"], "NotApplicable", "nothing scans, and it says so");
    let one = format!("{}{at}/{}", Site::registry_path("myreg"), admin["name"].as_str().unwrap());
    assert_eq!(ask(&t, Method::GET, &one, None).await, (200, admin.clone()));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_registry_shows_its_identities_as_az_reads_them() {
    let t = TestServer::start().await;
    t.site.make_registry("myreg").await.unwrap();
    let at = "/resourcegroups/testgroup/providers/Microsoft.ManagedIdentity/userAssignedIdentities/robot";
    let (status, robot) = ask(&t, Method::PUT, at, Some(json!({"location": "local"}))).await;
    assert!([200, 201].contains(&status), "{robot}");
    let (id, registry) = (robot["id"].as_str().unwrap(), Site::registry_path("myreg"));
    let patch = |kind: &str, ids: Value| Some(json!({"identity": {"type": kind, "userAssignedIdentities": ids}}));
    let (status, reg) = ask(&t, Method::PATCH, &registry, patch("SystemAssigned, UserAssigned", json!({id: {}}))).await;
    assert_eq!(status, 200, "{reg}");
    let identity = &reg["identity"];
    assert_eq!(identity["type"], "SystemAssigned, UserAssigned");
    assert!(uuid::Uuid::try_parse(identity["principalId"].as_str().unwrap()).is_ok());
    assert_eq!(identity["tenantId"], json!(t.site.bootstrap.tenant_id));
    let assigned = &identity["userAssignedIdentities"][id];
    assert_eq!(assigned["principalId"], robot["properties"]["principalId"]);
    assert_eq!(assigned["clientId"], robot["properties"]["clientId"]);
    // As `az acr identity remove` writes it.
    let (_, reg) = ask(&t, Method::PATCH, &registry, patch("SystemAssigned", Value::Null)).await;
    assert_eq!(reg["identity"]["type"], "SystemAssigned");
    assert_eq!(ask(&t, Method::PATCH, &registry, Some(json!({"tags": {}}))).await.1["identity"], reg["identity"]);
    let (_, reg) = ask(&t, Method::PATCH, &registry, patch("None", Value::Null)).await;
    assert_eq!(reg["identity"], Value::Null);
    let (status, error) = ask(&t, Method::PATCH, &registry, patch("Mine", Value::Null)).await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!("InvalidRequestContent")));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn resources_and_groups_are_found_by_their_tags() {
    let t = TestServer::start().await;
    t.site.make_registry("myreg").await.unwrap();
    let body = Some(json!({"location": "East US", "tags": {"env": "prod"}}));
    assert_eq!(ask(&t, Method::PUT, "/resourcegroups/rg2", body).await.0, 201);
    let names = async |path: &str| -> Vec<String> {
        let (status, found) = ask(&t, Method::GET, path, None).await;
        assert_eq!(status, 200, "{path} {found}");
        found["value"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("/resourcegroups").await, ["rg2", "testgroup"]);
    assert_eq!(names("/resourcegroups?$top=1").await, ["rg2"]);
    assert_eq!(names("/resourcegroups?$filter=tagname%20eq%20'ENV'%20and%20tagvalue%20eq%20'prod'").await, ["rg2"]);
    assert_eq!(names("/resourcegroups?$filter=tagname%20eq%20'other'").await, [] as [&str; 0]);
    assert_eq!(ask(&t, Method::GET, "/resourcegroups?$filter=name%20eq%20'x'", None).await.0, 400);
    let (status, group) = ask(&t, Method::PATCH, "/resourcegroups/RG2", Some(json!({"tags": {"team": "a"}}))).await;
    assert_eq!((status, &group["tags"], &group["location"]), (200, &json!({"team": "a"}), &json!("eastus")));
    assert_eq!(ask(&t, Method::PATCH, "/resourcegroups/rg2", Some(json!({}))).await.1["tags"], json!({"team": "a"}));

    let patch = Some(json!({"tags": {"Env": "test"}}));
    assert_eq!(ask(&t, Method::PATCH, &Site::registry_path("myreg"), patch).await.0, 200);
    assert_eq!(names("/resources?$filter=tagname%20eq%20'env'%20and%20tagvalue%20eq%20'test'").await, ["myreg"]);
    assert_eq!(names("/resources?$filter=startswith(tagname,%20'x')").await, [] as [&str; 0]);
    let (_, found) = ask(&t, Method::GET, "/resources?$expand=createdTime,changedTime,provisioningState", None).await;
    assert_eq!(found["value"][0]["provisioningState"], "Succeeded");
    assert!(found["value"][0]["createdTime"].is_string());
    assert_eq!(ask(&t, Method::GET, "/resourceGroups/nogroup/resources", None).await.0, 404);
    t.server.shutdown().await.unwrap();
}

/// DELETE of a path that no client library has tidied up.
async fn as_it_is(t: &TestServer, path: &str) -> String {
    let token = t.site.arm_token().await.unwrap();
    let mut stream = TcpStream::connect(t.server.http.unwrap()).await.unwrap();
    let head = format!(
        "DELETE {path}?api-version=1 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// An id says one thing to everybody: to the rules, to the locks, to the log.
#[tokio::test]
async fn games_with_ids_lead_nowhere() {
    let t = TestServer::start().await;
    t.site.make_registry("myreg").await.unwrap();
    let registry = Site::registry_path("myreg");
    let body = Some(json!({"properties": {"level": "CanNotDelete"}}));
    assert_eq!(ask(&t, Method::PUT, &lock_at(&registry, "keep"), body).await.0, 201);
    // The same registry in other spellings: locked all the same.
    for path in [
        registry.to_uppercase(),
        registry.to_lowercase(),
        registry.replace("myreg", "%6Dyreg"),
        registry.replace("testgroup", "%54estgroup"),
        registry.replace("registries", "Registrie%73"),
        registry.replace("/registries", "//registries"),
        format!("{registry}/"),
    ] {
        let (status, error) = ask(&t, Method::DELETE, &path, None).await;
        assert_eq!((status, &error["error"]["code"]), (409, &json!("ScopeLocked")), "{path}");
    }
    // What is none of it is nothing. The client must not tidy the path up: it is sent as it is.
    let sub = format!("/subscriptions/{}", t.site.bootstrap.subscription_id);
    for path in [
        format!("{sub}{registry}/%2e%2e/myreg"),
        format!("{sub}/resourceGroups/x/%2E%2E/testgroup"),
        format!("{sub}{}", registry.replace("/myreg", "%2Fmyreg")),
        format!("{sub}{}", registry.replace("myreg", "myreg%00")),
        format!("{sub}{}", registry.replace("myreg", "myreg%5C")),
        format!("{sub}{}", registry.replace("/providers", "//providers")),
        format!("{sub}{}", registry.replace("/registries", "///registries")),
        format!("{sub}{}", registry.replace("myreg", "%FFmyreg")),
        format!("{sub}{}", registry.replace("myreg", "myreg%20")),
        format!("{sub}{}", registry.replace("myreg", "my\u{212a}eg")),
        format!("//{}", &sub[1..]),
        format!("{sub}/resourceGroups/testgroup/providers/Microsoft.ContainerRegistry/registries/myreg/registries/x"),
    ] {
        let answer = as_it_is(&t, &path).await;
        let status: u16 = answer.get(9..12).and_then(|s| s.parse().ok()).unwrap();
        assert!([400, 404, 405].contains(&status), "{path}: {answer}");
    }
    assert_eq!(ask(&t, Method::GET, &registry, None).await.0, 200, "it is still there");
    // Another subscription is another's, however it is written.
    let other = "22222222-2222-2222-2222-222222222222";
    for path in
        [format!("/subscriptions/{other}{registry}"), format!("/SUBSCRIPTIONS/{other}/resourcegroups/testgroup")]
    {
        let res = get(&t, &format!("{}{path}", t.site.url)).await;
        assert_eq!(res.status().as_u16(), 404, "{path}");
    }
    let braces = format!("{}/subscriptions/%7B{}%7D/resourcegroups", t.site.url, t.site.bootstrap.subscription_id);
    assert!([200, 400].contains(&get(&t, &braces).await.status().as_u16()));
    t.server.shutdown().await.unwrap();
}
