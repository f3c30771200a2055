//! The control plane over HTTP, as `az` asks it.

use portolan_testkit::Site;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::governance::delete_group;
use crate::support::TestServer;

async fn arm(t: &TestServer, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let res = t.site.arm(method, path, body).await.unwrap();
    let status = res.status().as_u16();
    let text = res.text().await.unwrap();
    (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
}

#[tokio::test]
async fn groups_are_made_shown_and_deleted() {
    let t = TestServer::start().await;
    let sub = t.site.bootstrap.subscription_id.clone();
    let place = || Some(json!({"location": "eastus"}));
    let (status, group) = arm(&t, Method::PUT, "/resourcegroups/rg1", place()).await;
    assert_eq!(status, 201);
    let expected = json!({
        "id": format!("/subscriptions/{sub}/resourceGroups/rg1"),
        "name": "rg1",
        "type": "Microsoft.Resources/resourceGroups",
        "location": "eastus",
        "properties": {"provisioningState": "Succeeded"},
    });
    assert_eq!(group, expected);
    assert_eq!(arm(&t, Method::PUT, "/resourceGroups/RG1", place()).await, (200, expected.clone()));
    assert_eq!(arm(&t, Method::GET, "/RESOURCEGROUPS/Rg1", None).await, (200, expected.clone()));
    assert_eq!(arm(&t, Method::HEAD, "/resourcegroups/rg1", None).await.0, 204);
    assert_eq!(arm(&t, Method::HEAD, "/resourcegroups/rg2", None).await.0, 404);
    let (status, list) = arm(&t, Method::GET, "/resourcegroups", None).await;
    assert_eq!((status, list), (200, json!({"value": [expected]})));
    let (status, error) = arm(&t, Method::GET, "/resourcegroups/rg2", None).await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!("ResourceGroupNotFound")));
    let (status, error) = arm(&t, Method::PUT, "/resourcegroups/rg1", Some(json!({"location": "westus"}))).await;
    assert_eq!((status, &error["error"]["code"]), (409, &json!("InvalidResourceGroupLocation")));
    assert_eq!(arm(&t, Method::PUT, "/resourcegroups/rg.", place()).await.0, 400);
    assert_eq!(arm(&t, Method::PUT, "/resourcegroups/rg3", None).await.0, 400);
    assert_eq!(delete_group(&t, "rg1").await.0, 200);
    assert_eq!(arm(&t, Method::DELETE, "/resourcegroups/rg1", None).await.0, 404);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_registry_has_the_shape_that_az_reads() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("myreg").await.unwrap();
    let path = Site::registry_path("myreg");
    let (status, reg) = arm(&t, Method::GET, &path, None).await;
    assert_eq!(status, 200);
    let id = format!("/subscriptions/{}{path}", t.site.bootstrap.subscription_id);
    assert_eq!(reg["id"], json!(id));
    assert_eq!((&reg["name"], &reg["location"]), (&json!("myreg"), &json!("local")));
    assert_eq!(reg["type"], "Microsoft.ContainerRegistry/registries");
    assert_eq!(reg["sku"], json!({"name": "Premium", "tier": "Premium"}));
    let p = &reg["properties"];
    assert_eq!((&p["loginServer"], &p["provisioningState"]), (&json!(login), &json!("Succeeded")));
    assert_eq!((&p["adminUserEnabled"], &p["anonymousPullEnabled"]), (&json!(true), &json!(false)));
    assert_eq!(p["policies"]["retentionPolicy"], json!({"days": 7, "status": "disabled"}));
    assert!(p["creationDate"].as_str().unwrap().ends_with("+00:00"));

    for find in [
        "/resources?$filter=resourceType%20eq%20'Microsoft.ContainerRegistry%2Fregistries'",
        "/resources?$filter=name%20eq%20'MYREG'%20and%20resourceType%20eq%20'microsoft.containerregistry%2Fregistries'",
        "/resourceGroups/testgroup/resources",
    ] {
        let (status, found) = arm(&t, Method::GET, find, None).await;
        assert_eq!((status, &found["value"][0]["id"]), (200, &json!(id)), "{find}");
    }
    let (_, found) = arm(&t, Method::GET, "/resources?$filter=name%20eq%20'x'", None).await;
    assert_eq!(found, json!({"value": []}));
    assert_eq!(arm(&t, Method::GET, "/resources?$filter=name%20ge%20'x'", None).await.0, 400);
    for list in [
        "/providers/Microsoft.ContainerRegistry/registries",
        "/resourceGroups/TESTGROUP/providers/microsoft.containerregistry/registries",
    ] {
        assert_eq!(arm(&t, Method::GET, list, None).await, (200, json!({"value": [reg]})), "{list}");
    }
    let (status, usage) = arm(&t, Method::GET, &format!("{path}/listUsages"), None).await;
    let size = json!({"name": "Size", "limit": 536_870_912_000_u64, "currentValue": 0, "unit": "Bytes"});
    assert_eq!((status, &usage["value"][0]), (200, &size));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_registry_lives_as_az_makes_it() {
    let t = TestServer::start().await;
    arm(&t, Method::PUT, "/resourcegroups/testgroup", Some(json!({"location": "eastus"}))).await;
    let path = Site::registry_path("myreg");
    let body = |sku: &str, admin: bool| {
        Some(json!({"location": "eastus", "sku": {"name": sku}, "properties": {"adminUserEnabled": admin}}))
    };
    let check = async |name: &str| {
        let at = "/providers/Microsoft.ContainerRegistry/checkNameAvailability";
        let body = json!({"name": name, "type": "Microsoft.ContainerRegistry/registries"});
        let (status, answer) = arm(&t, Method::POST, at, Some(body)).await;
        assert_eq!(status, 200);
        (answer["nameAvailable"].as_bool().unwrap(), answer["reason"].as_str().map(str::to_owned))
    };
    assert_eq!(check("myreg").await, (true, None));
    assert_eq!(arm(&t, Method::PUT, &path, body("Basic", false)).await.0, 201);
    assert_eq!(check("MyReg").await, (false, Some("AlreadyExists".into())));
    assert_eq!(check("a").await, (false, Some("Invalid".into())));
    let (status, again) = arm(&t, Method::PUT, &path, body("Standard", true)).await;
    assert_eq!((status, &again["sku"]["name"]), (200, &json!("Standard")));
    let (status, patched) = arm(&t, Method::PATCH, &path, Some(json!({"sku": {"name": "Premium"}}))).await;
    assert_eq!((status, &patched["sku"]["name"]), (200, &json!("Premium")));
    assert_eq!(patched["properties"]["adminUserEnabled"], json!(true));

    // `az acr config retention update` sends back the policies that it read.
    let mut policies = patched["properties"]["policies"].clone();
    policies["retentionPolicy"] = json!({"days": 30, "status": "enabled"});
    let (_, kept) = arm(&t, Method::PATCH, &path, Some(json!({"properties": {"policies": policies}}))).await;
    assert_eq!(kept["properties"]["policies"]["retentionPolicy"]["days"], json!(30));

    let off = Some(json!({"properties": {"adminUserEnabled": false}}));
    assert_eq!(arm(&t, Method::PATCH, &path, off).await.0, 200);
    let (status, error) = arm(&t, Method::POST, &format!("{path}/listCredentials"), None).await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!("UnAuthorizedForCredentialOperations")));

    for (path, body, status, code) in [
        (path.as_str(), Some(json!({"location": "eastus", "sku": {"name": "Gold"}})), 400, "InvalidSku"),
        (&Site::registry_path("newreg"), Some(json!({"location": "eastus"})), 400, "InvalidSku"),
        (&Site::registry_path("newreg"), Some(json!({"sku": {"name": "Basic"}})), 400, "LocationRequired"),
        (&Site::registry_path("newreg"), Some(json!([])), 400, "InvalidRequestContent"),
        (&Site::registry_path("a-b"), body("Basic", false), 400, "InvalidResourceName"),
        (&path.replace("testgroup", "nogroup"), body("Basic", false), 404, "ResourceGroupNotFound"),
    ] {
        let (got, error) = arm(&t, Method::PUT, path, body).await;
        assert_eq!((got, &error["error"]["code"]), (status, &json!(code)), "{path} {error}");
        assert!(error["error"]["message"].is_string());
    }
    arm(&t, Method::PUT, "/resourcegroups/group2", Some(json!({"location": "eastus"}))).await;
    let (status, error) = arm(&t, Method::PUT, &path.replace("testgroup", "group2"), body("Basic", false)).await;
    assert_eq!((status, &error["error"]["code"]), (409, &json!("AlreadyInUse")));

    assert_eq!(arm(&t, Method::DELETE, &path, None).await.0, 200);
    assert_eq!(arm(&t, Method::DELETE, &path, None).await.0, 204);
    let (status, error) = arm(&t, Method::GET, &path, None).await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!("ResourceNotFound")));
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_group_takes_its_registries_and_their_content_with_it() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("myreg").await.unwrap();
    t.site.push_image(&login, "a", "v1", &[b"layer"]).await.unwrap();
    let token = t.site.token(&login, "repository:a:pull").await.unwrap();
    assert_eq!(delete_group(&t, "testgroup").await.0, 200);
    assert_eq!(
        arm(&t, Method::GET, "/providers/Microsoft.ContainerRegistry/registries", None).await.1,
        json!({"value": []})
    );
    let res = t.site.registry(&login, &token, Method::GET, "/v2/a/manifests/v1").send().await.unwrap();
    assert!(res.status().is_client_error());

    let login = t.site.make_registry("myreg").await.unwrap();
    let token = t.site.token(&login, "repository:a:pull registry:catalog:*").await.unwrap();
    let res = t.site.registry(&login, &token, Method::GET, "/v2/_catalog").send().await.unwrap();
    assert_eq!(res.json::<Value>().await.unwrap(), json!({"repositories": []}), "it starts empty");
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn subscriptions_tenants_and_providers() {
    let t = TestServer::start().await;
    let b = &t.site.bootstrap;
    let token = t.site.arm_token().await.unwrap();
    let get = async |path: &str| {
        let res = t.site.client.get(format!("{}{path}", t.site.url)).bearer_auth(&token).send().await.unwrap();
        (res.status().as_u16(), res.json::<Value>().await.unwrap())
    };
    let (status, subs) = get("/subscriptions?api-version=2022-12-01").await;
    assert_eq!(status, 200);
    let sub = &subs["value"][0];
    assert_eq!((&sub["subscriptionId"], &sub["tenantId"]), (&json!(b.subscription_id), &json!(b.tenant_id)));
    assert_eq!(sub["state"], "Enabled");
    assert_eq!(get(&format!("/subscriptions/{}", b.subscription_id)).await, (200, sub.clone()));
    assert_eq!(get("/tenants").await.1["value"][0]["tenantId"], json!(b.tenant_id));
    let ours = format!("/subscriptions/{}/providers/microsoft.containerregistry", b.subscription_id);
    assert_eq!(get(&ours).await.1["registrationState"], "Registered");

    for (path, status, code) in [
        ("/subscriptions/22222222-2222-2222-2222-222222222222/resourcegroups", 404, "SubscriptionNotFound"),
        ("/subscriptions/x/resourcegroups", 400, "InvalidSubscriptionId"),
        (&format!("/subscriptions/{}/providers/Microsoft.Compute", b.subscription_id), 404, "InvalidResourceNamespace"),
        (&format!("/subscriptions/{}/resourcegroups/a%2Fb", b.subscription_id), 404, "NotFound"),
        (&format!("/subscriptions/{}/resourcegroups/g/providers/x/y/z", b.subscription_id), 404, "InvalidResourceType"),
    ] {
        let (got, error) = get(path).await;
        assert_eq!((got, &error["error"]["code"]), (status, &json!(code)), "{path}");
    }
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn strangers_are_told_where_to_sign_in() {
    let t = TestServer::start().await;
    t.site.make_registry("myreg").await.unwrap();
    let sub = format!("{}/subscriptions/{}", t.site.url, t.site.bootstrap.subscription_id);
    for path in ["", "/resourcegroups/testgroup", &Site::registry_path("myreg"), "/resources", "/nonsense"] {
        for header in [None, Some("Bearer nonsense"), Some("Basic dTpw"), Some("Bearer a.b.c")] {
            let mut req = t.site.client.get(format!("{sub}{path}"));
            if let Some(header) = header {
                req = req.header("authorization", header);
            }
            let res = req.send().await.unwrap();
            assert_eq!(res.status(), StatusCode::UNAUTHORIZED, "{path} {header:?}");
            let challenge = res.headers()["www-authenticate"].to_str().unwrap();
            let at = format!(r#"Bearer authorization_uri="{}/{}""#, t.site.url, t.site.bootstrap.tenant_id);
            assert!(challenge.starts_with(&at), "{challenge}");
            let error: Value = res.json().await.unwrap();
            assert!(error["error"]["code"].is_string());
        }
    }
    t.server.shutdown().await.unwrap();
}
