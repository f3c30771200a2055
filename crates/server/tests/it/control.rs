//! What a registry's properties do: tiers, usage figures, network rules, endpoints and hosts.

use std::net::SocketAddr;
use std::path::Path;

use portolan_server::settings::{ByteSize, ProxyHeader, TierChanges, Value as _};
use portolan_testkit::Site;
use portolan_types::Digest;
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::TestServer;

async fn arm(t: &TestServer, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let res = t.site.arm(method, path, body).await.unwrap();
    let status = res.status().as_u16();
    let text = res.text().await.unwrap();
    (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
}

async fn set(t: &TestServer, registry: &str, properties: Value) -> Value {
    let body = Some(json!({"properties": properties}));
    let (status, answer) = arm(t, Method::PATCH, &Site::registry_path(registry), body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

fn header<'a>(res: &'a Response, name: &str) -> &'a str {
    res.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

const FIREWALL: &str =
    "client with IP '127.0.0.1' is not allowed access. Refer https://aka.ms/acr/firewall to grant access.";

#[tokio::test]
async fn network_rules_keep_clients_off_the_data_plane_and_off_nothing_else() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("fenced").await.unwrap();
    t.site.push_image(&login, "app", "v1", &[b"layer"]).await.unwrap();
    let token = t.site.token(&login, "repository:app:pull").await.unwrap();
    let get = async |path: &str| t.site.registry(&login, &token, Method::GET, path).send().await.unwrap();
    assert_eq!(get("/v2/app/manifests/v1").await.status(), 200);

    set(&t, "fenced", json!({"networkRuleSet": {"defaultAction": "Deny"}})).await;
    for path in
        ["/v2/", "/v2/app/manifests/v1", "/v2/_catalog", "/acr/v1/app", "/acr/v1/_catalog", "/v2/app/blobs/uploads/"]
    {
        let res = get(path).await;
        assert_eq!((res.status().as_u16(), header(&res, "www-authenticate")), (403, ""), "{path}");
        let body: Value = res.json().await.unwrap();
        assert_eq!(body["errors"][0]["code"], "DENIED", "{path}");
        assert_eq!(body["errors"][0]["message"], FIREWALL, "{path}");
    }
    // Not before who it is is known: neither is a token given.
    let nobody = t.get(format!("https://{login}/v2/")).await;
    assert_eq!(nobody.status(), 403);
    for what in ["/oauth2/token?service=fenced.localhost", "/oauth2/token"] {
        assert_eq!(t.get(format!("https://{login}{what}")).await.status(), 403, "{what}");
    }
    let why = t.site.refresh_token(&login).await.unwrap_err().to_string();
    assert!(why.contains("403") && why.contains("not allowed access"), "{why}");

    let rule = |net: &str| json!({"networkRuleSet": {"ipRules": [{"action": "Allow", "value": net}]}});
    let shown = set(&t, "fenced", rule("127.0.0.0/8")).await;
    assert_eq!(shown["properties"]["networkRuleSet"]["defaultAction"], "Deny");
    assert_eq!(get("/v2/app/manifests/v1").await.status(), 200, "the rule is effective at once");
    set(&t, "fenced", rule("198.51.100.7")).await;
    assert_eq!(get("/v2/app/manifests/v1").await.status(), 403);
    set(&t, "fenced", rule("127.0.0.1")).await;
    set(&t, "fenced", json!({"publicNetworkAccess": "Disabled"})).await;
    assert_eq!(get("/v2/").await.status(), 403, "no rule opens what is closed");
    set(&t, "fenced", json!({"publicNetworkAccess": "Enabled", "networkRuleSet": {"defaultAction": "Allow"}})).await;
    assert_eq!(get("/v2/app/manifests/v1").await.status(), 200);
    t.server.shutdown().await.unwrap();

    let t = TestServer::start_with(|s| s.private_networks = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let login = t.site.make_registry("private").await.unwrap();
    set(&t, "private", json!({"publicNetworkAccess": "Disabled"})).await;
    assert_eq!(t.get(format!("https://{login}/v2/")).await.status(), 401);
    t.server.shutdown().await.unwrap();
}

/// One request over a connection of its own, byte for byte; the status line and all that follows.
async fn raw(to: SocketAddr, host: &str, lines: &str) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let request = format!("GET /v2/ HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_clients_address_cannot_be_smuggled_past_the_rules() {
    let started = async |header: Option<ProxyHeader>| {
        let t = TestServer::start_with(|s| {
            if let Some(header) = header {
                s.trusted_proxies = vec!["127.0.0.1".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
                s.proxy_header = header;
            }
        })
        .await;
        let login = t.site.make_registry("fenced").await.unwrap();
        let rules = json!([{"value": "203.0.113.0/24"}, {"value": "2001:db8::/32"}]);
        set(&t, "fenced", json!({"networkRuleSet": {"defaultAction": "Deny", "ipRules": rules}})).await;
        (t, login)
    };
    // 401: it was let in, and is asked who it is. 403: it was not.
    let ask = async |t: &TestServer, login: &str, lines: &str| {
        let answer = raw(t.server.http.unwrap(), login, lines).await;
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    let good = "X-Forwarded-For: 203.0.113.9\r\n";

    // Without a trusted proxy nobody's header counts.
    let (t, login) = started(None).await;
    for lines in [good, "Forwarded: for=203.0.113.9\r\n", "X-Real-IP: 203.0.113.9\r\n", "X-Forwarded-For: rubbish\r\n"]
    {
        assert_eq!(ask(&t, &login, lines).await, 403, "{lines}");
    }
    t.server.shutdown().await.unwrap();

    let (t, login) = started(Some(ProxyHeader::XForwardedFor)).await;
    for (lines, status) in [
        (good, 401),
        ("x-forwarded-for: 2001:db8::1\r\n", 401),
        ("X-Forwarded-For: [2001:db8::1]:443\r\n", 401),
        ("X-Forwarded-For: 203.0.113.9, 10.0.0.3\r\n", 401),
        // What the client wrote stands before what the proxy added.
        ("X-Forwarded-For: 203.0.113.9, 198.51.100.1\r\n", 403),
        ("X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 198.51.100.1\r\n", 403),
        ("X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 203.0.113.9\r\n", 401),
        ("X-Forwarded-For: 203.0.113.9,198.51.100.1,10.0.0.3\r\n", 403),
        // Other headers, and other ways to write this one, are not the proxy's.
        ("X-Forwarded-For: 198.51.100.1\r\nForwarded: for=203.0.113.9\r\n", 403),
        ("X-Forwarded-For: 198.51.100.1\r\nX_Forwarded_For: 203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\n", 403),
        ("Forwarded: for=203.0.113.9\r\n", 403),
        ("X-Forwarded-Host: fenced.localhost\r\n", 403),
        ("", 403),
        // Whose request this is, nobody knows.
        ("X-Forwarded-For: unknown\r\n", 400),
        ("X-Forwarded-For: 203.0.113.9,\r\n", 400),
        ("X-Forwarded-For: 203.0.113.9 198.51.100.1\r\n", 400),
        ("X-Forwarded-For:\r\n", 400),
        ("X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: gopher\r\n", 400),
    ] {
        assert_eq!(ask(&t, &login, lines).await, status, "{lines}");
    }
    // Over TLS (HTTP/2) alike.
    for (line, status) in [("203.0.113.9", 401), ("203.0.113.9, 198.51.100.1", 403)] {
        let req = t.site.client.get(format!("https://{login}/v2/")).header("x-forwarded-for", line);
        assert_eq!(req.send().await.unwrap().status().as_u16(), status, "{line}");
    }
    // The proxy's word on how the client came stands in what the client is told to ask next.
    let proto = format!("{good}X-Forwarded-Proto: https\r\n");
    let answer = raw(t.server.http.unwrap(), &login, &proto).await;
    assert!(answer.contains(&format!("realm=\"https://{login}/oauth2/token\"")), "{answer}");
    t.server.shutdown().await.unwrap();

    let (t, login) = started(Some(ProxyHeader::Forwarded)).await;
    for (lines, status) in [
        ("Forwarded: for=203.0.113.9;proto=https\r\n", 401),
        ("Forwarded: for=\"[2001:db8::1]:80\"\r\n", 401),
        ("Forwarded: for=203.0.113.9, for=198.51.100.1\r\n", 403),
        ("Forwarded: for=\"203.0.113.9\r\nForwarded: for=198.51.100.1\r\n", 403),
        ("Forwarded: for=203.0.113.9;for=198.51.100.1\r\n", 400),
        ("Forwarded: for=_hidden\r\n", 400),
        (good, 403),
    ] {
        assert_eq!(ask(&t, &login, lines).await, status, "{lines}");
    }
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_data_endpoint_gives_blobs_to_whoever_was_sent_there() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("dataful").await.unwrap();
    let layer: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let image = t.site.push_image(&login, "app", "v1", &[&layer]).await.unwrap();
    let other = t.site.push_image(&login, "else", "v1", &[b"another layer"]).await.unwrap();
    let token = t.site.token(&login, "repository:app:pull").await.unwrap();
    let path = format!("/v2/app/blobs/{}", image.layers[0]);
    let get = async || t.site.registry(&login, &token, Method::GET, &path).send().await.unwrap();
    assert_eq!(get().await.status(), 200);
    let shown = set(&t, "dataful", json!({"dataEndpointEnabled": true})).await;
    let port = t.server.https.port();
    let host = format!("dataful.local.data.localhost:{port}");
    assert_eq!(shown["properties"]["dataEndpointHostNames"], json!([host]));

    let res = get().await;
    let location = header(&res, "location").to_owned();
    assert_eq!((res.status().as_u16(), header(&res, "cache-control")), (307, "no-store"));
    assert!(location.starts_with(&format!("https://{host}/blob/r")), "{location}");
    let at = async |url: &str, range: Option<&str>| {
        let mut req = t.site.client.get(url);
        if let Some(range) = range {
            req = req.header("range", range);
        }
        req.send().await.unwrap()
    };
    let whole = at(&location, None).await;
    assert_eq!(
        (whole.status().as_u16(), header(&whole, "docker-content-digest")),
        (200, image.layers[0].to_string().as_str())
    );
    assert_eq!(whole.bytes().await.unwrap(), layer);
    let part = at(&location, Some("bytes=1000-1999")).await;
    assert_eq!((part.status().as_u16(), header(&part, "content-range")), (206, "bytes 1000-1999/100000"));
    assert_eq!(part.bytes().await.unwrap(), layer[1000..2000]);
    assert_eq!(t.site.client.head(&location).send().await.unwrap().status(), 200);

    // It is for this blob, here, and for reading.
    let digest = |d: &Digest| d.to_string().replace(':', "-");
    for (url, status) in [
        (location.replace(&digest(&image.layers[0]), &digest(&other.layers[0])), 403),
        (location.replace("sp=r", "sp=w"), 403),
        (location.replace("se=", "se=9"), 403),
        (location[..location.len() - 4].to_owned(), 403),
        (location.split('?').next().unwrap().to_owned(), 403),
        (location.replace(&host, &login), 404),
        (format!("https://{host}/v2/"), 404),
        (format!("https://{host}/v2/app/manifests/v1"), 404),
        (format!("https://{host}/oauth2/token"), 404),
    ] {
        assert_eq!(at(&url, None).await.status().as_u16(), status, "{url}");
    }
    assert_eq!(t.site.client.put(&location).body("x").send().await.unwrap().status(), 403);
    // Who may read it is asked before, as ever.
    let stranger = t.site.token(&login, "repository:else:pull").await.unwrap();
    let res = t.site.registry(&login, &stranger, Method::GET, &path).send().await.unwrap();
    assert_eq!((res.status().as_u16(), header(&res, "location")), (401, ""));

    // The rules of the registry are the endpoint's.
    set(&t, "dataful", json!({"networkRuleSet": {"defaultAction": "Deny"}})).await;
    assert_eq!(at(&location, None).await.status(), 403);
    set(&t, "dataful", json!({"networkRuleSet": {"defaultAction": "Allow"}})).await;
    assert_eq!(at(&location, None).await.status(), 200);
    // By plain HTTP the client is sent on as it came.
    let plain = t.site.client.get(format!("{}{path}", t.http())).bearer_auth(&token).send().await.unwrap();
    let plain_port = t.server.http.unwrap().port();
    assert!(
        header(&plain, "location").starts_with(&format!("http://127.0.0.1:{plain_port}/"))
            || header(&plain, "location").starts_with(&format!("http://dataful.local.data.localhost:{plain_port}/")),
        "{plain:?}"
    );
    assert_eq!(at(header(&plain, "location"), None).await.bytes().await.unwrap(), layer);
    set(&t, "dataful", json!({"dataEndpointEnabled": false, "regionalEndpoints": "Enabled"})).await;
    assert_eq!(at(&location, None).await.status(), 404);
    assert_eq!(get().await.status(), 200);
    let regional = format!("dataful.local.geo.localhost:{port}");
    assert_eq!(t.site.registry(&regional, &token, Method::GET, &path).send().await.unwrap().status(), 200);
    t.server.shutdown().await.unwrap();
}

fn certificate(host: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A client that trusts one certificate and finds a host here.
fn client(pem: &[u8], host: &str, at: SocketAddr) -> reqwest::Client {
    let ca = reqwest::Certificate::from_pem(pem).unwrap();
    reqwest::Client::builder().tls_certs_only([ca]).resolve(host, at).build().unwrap()
}

fn holds(folder: &Path, text: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => holds(&path, text),
            false => std::fs::read(&path).unwrap_or_default().windows(text.len()).any(|window| window == text),
        }
    })
}

#[tokio::test]
async fn a_registry_has_hosts_of_its_own_with_their_certificates() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("hosted").await.unwrap();
    t.site.make_registry("second").await.unwrap();
    t.site.push_image(&login, "app", "v1", &[b"layer"]).await.unwrap();
    let (name, port) = ("images.example.com", t.server.https.port());
    let path = |host: &str| format!("{}/customDomains/{host}", Site::registry_path("hosted"));
    let put = async |host: &str, properties: Value| {
        arm(&t, Method::PUT, &path(host), Some(json!({"properties": properties}))).await
    };
    let pair = |(cert, key): &(String, String)| json!({"certificate": cert, "privateKey": key});
    let one = certificate(name);
    let (status, shown) = put("Images.Example.com", pair(&one)).await;
    assert_eq!((status, &shown["properties"]["hostName"]), (201, &json!(name)), "{shown}");
    let thumbprint = shown["properties"]["certificate"]["thumbprint"].clone();
    assert!(thumbprint.is_string() && !shown.to_string().contains("PRIVATE"));
    let (status, list) = arm(&t, Method::GET, path("").trim_end_matches('/'), None).await;
    assert_eq!((status, &list["value"][0]), (200, &shown));

    // The host answers with its certificate, and is the registry.
    let url = format!("https://{name}:{port}");
    let asked = async |pem: &str| client(pem.as_bytes(), name, t.server.https).get(format!("{url}/v2/")).send().await;
    let res = asked(&one.0).await.unwrap();
    let challenge = format!("Bearer realm=\"{url}/oauth2/token\",service=\"{name}:{port}\"");
    assert_eq!((res.status().as_u16(), header(&res, "www-authenticate")), (401, challenge.as_str()));
    let here = client(one.0.as_bytes(), name, t.server.https);
    let credentials =
        arm(&t, Method::POST, &format!("{}/listCredentials", Site::registry_path("hosted")), None).await.1;
    let password = credentials["passwords"][0]["value"].as_str().unwrap();
    let form = format!("{url}/oauth2/token?service={name}:{port}&scope=repository:app:pull");
    let token: Value = here.get(form).basic_auth("hosted", Some(password)).send().await.unwrap().json().await.unwrap();
    let manifest = here.get(format!("{url}/v2/app/manifests/v1")).bearer_auth(token["token"].as_str().unwrap());
    assert_eq!(manifest.send().await.unwrap().status(), 200);
    // Everybody else is shown the server's.
    assert_eq!(t.get(format!("https://{login}/v2/")).await.status(), 401);

    // Another certificate serves the next connection; the key is nowhere in the clear.
    let two = certificate(name);
    assert_eq!(put(name, pair(&two)).await.0, 200);
    assert!(asked(&two.0).await.is_ok() && asked(&one.0).await.is_err());
    let line = two.1.lines().nth(1).unwrap();
    assert!(!holds(t.data.path(), line.as_bytes()) && holds(t.data.path(), two.0.lines().nth(1).unwrap().as_bytes()));
    let (status, kept) = put(name, json!({})).await;
    assert_eq!((status, kept["properties"]["certificate"]["thumbprint"] != thumbprint), (200, true));
    assert!(asked(&two.0).await.is_ok(), "what is not given stays");
    // Without one of its own, our CA makes one for the name.
    assert_eq!(put(name, json!({"certificate": ""})).await.1["properties"]["certificate"], Value::Null);
    let ca = String::from_utf8(t.site.ca_pem.clone()).unwrap();
    assert!(asked(&ca).await.is_ok() && asked(&two.0).await.is_err());

    // A certificate that cannot serve is refused, and what there was stays.
    let (other, old) = (certificate("other.example.com"), put(name, pair(&one)).await.0);
    assert_eq!(old, 200);
    for bad in [
        pair(&other),
        json!({"certificate": one.0, "privateKey": two.1}),
        json!({"certificate": one.0}),
        json!({"privateKey": one.1}),
        json!({"certificate": "x", "privateKey": "y"}),
    ] {
        let (status, e) = put(name, bad).await;
        assert_eq!((status, &e["error"]["code"]), (400, &json!("InvalidCertificate")), "{e}");
        assert!(!e.to_string().contains("BEGIN"), "{e}");
    }
    assert!(asked(&one.0).await.is_ok());

    // Nobody takes a name that leads somewhere.
    for taken in [
        "localhost",
        "x.localhost",
        "second.localhost",
        "127.0.0.1",
        "hosted.local.data.localhost",
        "example",
        "-a.example",
        "a..example",
        "*.example.com",
        "a_b.example.com",
        "1.2.3.4",
        "a.example:443",
    ] {
        let (status, e) = put(taken, json!({})).await;
        assert_eq!((status, &e["error"]["code"]), (400, &json!("InvalidHostName")), "{taken}");
    }
    let theirs = path(name).replace("hosted", "second");
    let (status, e) = arm(&t, Method::PUT, &theirs, Some(json!({"properties": pair(&two)}))).await;
    assert_eq!((status, &e["error"]["code"]), (409, &json!("HostNameInUse")));
    for method in [Method::GET, Method::DELETE] {
        let status = arm(&t, method.clone(), &theirs, None).await.0;
        assert_eq!(status, if method == Method::GET { 404 } else { 204 });
    }
    assert!(asked(&one.0).await.is_ok(), "it is still the first's");

    assert_eq!(arm(&t, Method::DELETE, &path(name), None).await.0, 200);
    assert!(asked(&one.0).await.is_err(), "the server's own certificate is shown, which is not for it");
    let plain = raw(t.server.http.unwrap(), name, "").await;
    assert!(plain.starts_with("HTTP/1.1 404") && plain.contains("NAME_UNKNOWN"), "{plain}");
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_tier_is_what_the_operator_says() {
    let t = TestServer::start_with(|s| {
        s.tier_basic = TierChanges::parse("storage_bytes_max=1000, tokens_max=1, anonymous_pull=true").unwrap();
    })
    .await;
    assert!(TierChanges::parse("colour=3").is_err() && TierChanges::parse("tokens_max=many").is_err());
    assert_eq!(ByteSize::parse("1KiB").unwrap().0, 1024);
    let made = async |name: &str, sku: &str, properties: Value| {
        let body = json!({"location": "local", "sku": {"name": sku}, "properties": properties});
        arm(&t, Method::PUT, &Site::registry_path(name), Some(body)).await
    };
    arm(&t, Method::PUT, "/resourcegroups/testgroup", Some(json!({"location": "local"}))).await;
    let code = |(status, e): (u16, Value)| (status, e["error"]["code"].as_str().unwrap_or_default().to_owned());
    let no_public = json!({"publicNetworkAccess": "Disabled"});
    assert_eq!(
        code(made("basic1", "Basic", no_public.clone()).await),
        (400, "DisablingPublicNetworkAccessNotSupported".to_owned())
    );
    assert_eq!(made("basic1", "Basic", json!({"anonymousPullEnabled": true})).await.0, 201, "the operator allows it");
    assert_eq!(made("premium1", "Premium", no_public).await.0, 201);
    assert_eq!(
        code(made("premium1", "Standard", json!({})).await),
        (400, "DisablingPublicNetworkAccessNotSupported".to_owned()),
        "it has to be turned off first"
    );
    assert_eq!(made("premium1", "Standard", json!({"publicNetworkAccess": "Enabled"})).await.0, 200);

    let login = t.site.make_registry("scratch").await.unwrap();
    let basic = arm(&t, Method::GET, &Site::registry_path("basic1"), None).await.1;
    let basic = basic["properties"]["loginServer"].as_str().unwrap().to_owned();
    let image = t.site.push_image(&basic, "app", "v1", &[&[1; 500]]).await.unwrap();
    let why = t.site.push_image(&basic, "app", "v2", &[&[2; 500]]).await.unwrap_err().to_string();
    assert!(why.contains("403") && why.contains("DENIED") && why.contains("1000 bytes"), "{why}");
    // What is there already may be named as often as anybody likes, and other registries have their own room.
    t.site.push_image(&basic, "app", "v3", &[&[1; 500]]).await.unwrap();
    t.site.push_image(&login, "app", "v1", &[&[2; 5000]]).await.unwrap();
    let usages = arm(&t, Method::GET, &format!("{}/listUsages", Site::registry_path("basic1")), None).await.1;
    let used = usages["value"][0]["currentValue"].as_u64().unwrap();
    assert!((500..=1000).contains(&used), "what was refused is not counted: {usages}");
    let token = t.site.token(&basic, "repository:app:pull,push").await.unwrap();
    let path = format!("/v2/app/blobs/{}", Digest::of(&[2; 500]));
    assert_eq!(t.site.registry(&basic, &token, Method::HEAD, &path).send().await.unwrap().status(), 404);
    let there = format!("/v2/app/blobs/{}", image.layers[0]);
    assert_eq!(t.site.registry(&basic, &token, Method::HEAD, &there).send().await.unwrap().status(), 200);
    t.server.shutdown().await.unwrap();
}

#[tokio::test]
async fn usage_figures_are_true() {
    let t = TestServer::start().await;
    let login = t.site.make_registry("counted").await.unwrap();
    let second = t.site.make_registry("second").await.unwrap();
    let usages = async |registry: &str| {
        let path = format!("{}/listUsages", Site::registry_path(registry));
        let (status, answer) = arm(&t, Method::GET, &path, None).await;
        assert_eq!(status, 200);
        answer["value"].as_array().unwrap().clone()
    };
    let expected = [
        ("Size", 536_870_912_000_i64, "Bytes"),
        ("Webhooks", 500, "Count"),
        ("Geo-replications", -1, "Count"),
        ("IPRules", 200, "Count"),
        ("VNetRules", 0, "Count"),
        ("PrivateEndpointConnections", 200, "Count"),
        ("ScopeMaps", 50_000, "Count"),
        ("Tokens", 50_000, "Count"),
    ];
    let shape =
        |(name, limit, unit): (&str, i64, &str)| json!({"name": name, "limit": limit, "currentValue": 0, "unit": unit});
    assert_eq!(usages("counted").await, expected.map(shape));

    let (shared, own) = ([7u8; 3_000], [8u8; 200]);
    t.site.push_image(&login, "one", "v1", &[&shared, &own]).await.unwrap();
    t.site.push_image(&login, "two", "v1", &[&shared]).await.unwrap();
    t.site.push_image(&second, "one", "v1", &[&shared]).await.unwrap();
    set(&t, "counted", json!({"networkRuleSet": {"ipRules": [{"value": "10.0.0.0/8"}]}})).await;
    let after = usages("counted").await;
    assert_eq!(after[3]["currentValue"], 1);
    let repos = async |query: &str| {
        let path = format!("{}/listRepositoryUsages{query}", Site::registry_path("counted"));
        arm(&t, Method::GET, &path, None).await
    };
    let (status, list) = repos("").await;
    assert_eq!((status, &list["value"][0]["name"], &list["value"][1]["name"]), (200, &json!("one"), &json!("two")));
    let of = |n: usize, what: &str| list["value"][n][what].as_u64().unwrap();
    // The configurations differ: one names two layers. Each belongs to its repository alone.
    let (config_one, config_two) = (of(0, "bytes") - 3_200, of(1, "bytes") - 3_000);
    assert_eq!((of(0, "uniqueBytes"), of(0, "sharedBytes")), (200 + config_one, 3_000));
    assert_eq!((of(1, "uniqueBytes"), of(1, "sharedBytes")), (config_two, 3_000));
    let size = after[0]["currentValue"].as_u64().unwrap();
    assert_eq!(size, 3_200 + config_one + config_two, "what is shared is counted once");

    let (_, page) = repos("?$top=1").await;
    assert_eq!(page["value"].as_array().unwrap().len(), 1);
    let next = page["nextLink"].as_str().unwrap().split_once("listRepositoryUsages").unwrap().1.to_owned();
    let (_, page) = repos(&next).await;
    assert_eq!((&page["value"][0]["name"], page.get("nextLink")), (&json!("two"), None));
    assert_eq!(repos("?$top=x").await.0, 400);
    t.server.shutdown().await.unwrap();
}
