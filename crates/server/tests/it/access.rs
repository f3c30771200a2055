//! Every route of every API, asked in every method by every kind of principal, over real HTTP.
//!
//! The answers are in `access.txt`, for people to read: a route that lets somebody in who was
//! kept out before is a change of that file, and a route without an example here fails the
//! test. `UPDATE_EXPECT=1 cargo test -p portolan-server --test it access::` writes the file.
//!
//! What is asked for is not there, or not whole, so that the walk changes nothing: whoever is
//! let in is told so.

use std::fmt::Write as _;

use expect_test::expect_file;
use portolan_auth::access::{
    ACR_DELETE, ACR_PULL, ACR_PUSH, CATALOG_LISTER, CONTRIBUTOR, OWNER, READER, REPOSITORY_WRITER,
};
use portolan_server::http::Door;
use portolan_server::http::route::Route;
use portolan_service::Ctx;
use portolan_service::directory::{ApplicationInput, Holder, PasswordInput, ServicePrincipalInput, UserInput};
use portolan_service::roles::AssignmentInput;
use portolan_testkit::Site;
use portolan_types::{ResourceId, Secret, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::TestServer;

/// A path for each route. `{sub}` and `{tenant}` are filled in; `{reg}` is the path of the
/// registry.
const EXAMPLES: &[(Route, &str)] = &[
    (Route::V2Base, "/v2/"),
    (Route::V2Catalog, "/v2/_catalog"),
    (Route::V2Tags, "/v2/team/app/tags/list"),
    (Route::V2Manifest, "/v2/team/app/manifests/v1"),
    (Route::V2Blob, "/v2/team/app/blobs/{digest}"),
    (Route::V2Uploads, "/v2/team/app/blobs/uploads/"),
    (Route::V2Upload, "/v2/team/app/blobs/uploads/0"),
    (Route::V2Referrers, "/v2/team/app/referrers/{digest}"),
    (Route::V2Other, "/v2/team"),
    (Route::AcrCatalog, "/acr/v1/_catalog"),
    (Route::AcrRepository, "/acr/v1/team/app"),
    (Route::AcrTags, "/acr/v1/team/app/_tags"),
    (Route::AcrTag, "/acr/v1/team/app/_tags/v1"),
    (Route::AcrManifests, "/acr/v1/team/app/_manifests"),
    (Route::AcrManifest, "/acr/v1/team/app/_manifests/{digest}"),
    (Route::AcrOther, "/acr/v2"),
    (Route::Oauth2Token, "/oauth2/token"),
    (Route::Oauth2Exchange, "/oauth2/exchange"),
    (Route::Oauth2Other, "/oauth2/other"),
    (Route::SignedBlob, "/blob/r1/source/x.tar.gz"),
    (Route::ArmTenants, "/tenants"),
    (Route::ArmSubscriptions, "/subscriptions"),
    (Route::ArmSubscription, "/subscriptions/{sub}"),
    (Route::ArmGroups, "/subscriptions/{sub}/resourceGroups"),
    (Route::ArmGroup, "/subscriptions/{sub}/resourceGroups/{group}"),
    (Route::ArmResources, "/subscriptions/{sub}/resources"),
    (Route::ArmGroupResources, "/subscriptions/{sub}/resourceGroups/testgroup/resources"),
    (Route::ArmLocations, "/subscriptions/{sub}/locations"),
    (Route::ArmOperationResult, "/subscriptions/{sub}/operationresults/none"),
    (
        Route::ArmOperationStatus,
        "/subscriptions/{sub}/providers/Microsoft.ContainerRegistry/locations/local/operationStatuses/none",
    ),
    (Route::ArmLocks, "{reg}/providers/Microsoft.Authorization/locks"),
    (Route::ArmLock, "{reg}/providers/Microsoft.Authorization/locks/none"),
    (Route::ArmRoleAssignments, "{reg}/providers/Microsoft.Authorization/roleAssignments"),
    (Route::ArmRoleAssignment, "{reg}/providers/Microsoft.Authorization/roleAssignments/{none}"),
    (Route::ArmRoleDefinitions, "{reg}/providers/Microsoft.Authorization/roleDefinitions"),
    (Route::ArmRoleDefinition, "{reg}/providers/Microsoft.Authorization/roleDefinitions/{none}"),
    (Route::ArmDenyAssignments, "{reg}/providers/Microsoft.Authorization/denyAssignments"),
    (Route::ArmActivity, "/subscriptions/{sub}/providers/Microsoft.Insights/eventtypes/management/values"),
    (Route::ArmPricings, "/subscriptions/{sub}/providers/Microsoft.Security/pricings"),
    (Route::ArmPricing, "/subscriptions/{sub}/providers/Microsoft.Security/pricings/Containers"),
    (Route::ArmAssessments, "/subscriptions/{sub}/providers/Microsoft.Security/assessments"),
    (Route::ArmAssessment, "/subscriptions/{sub}/providers/Microsoft.Security/assessments/none"),
    (Route::ArmRegistries, "/subscriptions/{sub}/providers/Microsoft.ContainerRegistry/registries"),
    (Route::ArmRegistry, "{reg-or-none}"),
    (Route::ArmListCredentials, "{reg}/listCredentials"),
    (Route::ArmRegenerateCredential, "{reg}/regenerateCredential"),
    (Route::ArmListUsages, "{reg}/listUsages"),
    (Route::ArmListRepositoryUsages, "{reg}/listRepositoryUsages"),
    (Route::ArmCustomDomains, "{reg}/customDomains"),
    (Route::ArmCustomDomain, "{reg}/customDomains/localhost"),
    (Route::ArmUploadUrl, "{reg}/listBuildSourceUploadUrl"),
    (Route::ArmScheduleRun, "{reg}/scheduleRun"),
    (Route::ArmRuns, "{reg}/runs"),
    (Route::ArmRun, "{reg}/runs/none"),
    (Route::ArmRunLog, "{reg}/runs/none/listLogSasUrl"),
    (Route::ArmRunCancel, "{reg}/runs/none/cancel"),
    (Route::ArmRunRelayAgent, "{reg}/runs/none/relayAgent"),
    (Route::ArmCacheRules, "{reg}/cacheRules"),
    (Route::ArmCacheRule, "{reg}/cacheRules/none1"),
    (Route::ArmScopeMaps, "{reg}/scopeMaps"),
    (Route::ArmScopeMap, "{reg}/scopeMaps/none1"),
    (Route::ArmTokens, "{reg}/tokens"),
    (Route::ArmToken, "{reg}/tokens/none1"),
    (Route::ArmGenerateCredentials, "{reg}/generateCredentials"),
    (Route::ArmRegistryParts, "{reg}/webhooks"),
    (Route::ArmRegistryPart, "{reg}/webhooks/none1"),
    (Route::ArmIdentities, "/subscriptions/{sub}/providers/Microsoft.ManagedIdentity/userAssignedIdentities"),
    (Route::ArmIdentity, "{group-path}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/none1"),
    (
        Route::ArmIdentitySecret,
        "{group-path}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/none2/generateEndpointSecret",
    ),
    (
        Route::ArmIdentityFederated,
        "{group-path}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/none2/federatedIdentityCredentials",
    ),
    (
        Route::ArmIdentityFederatedOne,
        "{group-path}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/none2/federatedIdentityCredentials/f",
    ),
    (Route::ArmRegistryOther, "{reg}/no/such/thing"),
    (Route::ArmOther, "/subscriptions/{sub}/no/such"),
    (Route::IdentityToken, "/{tenant}/oauth2/v2.0/token"),
    (Route::IdentityDiscovery, "/{tenant}/v2.0/.well-known/openid-configuration"),
    (Route::IdentityKeys, "/{tenant}/discovery/v2.0/keys"),
    (Route::IdentityEndpoints, "/metadata/endpoints"),
    (Route::IdentityDeviceCode, "/{tenant}/oauth2/v2.0/devicecode"),
    (Route::IdentityDevicePage, "/devicelogin"),
    (Route::IdentityUserRealm, "/common/userrealm/nobody@example.com"),
    (Route::IdentityAuthorize, "/{tenant}/oauth2/v2.0/authorize"),
    (Route::IdentitySignIn, "/{tenant}/oauth2/v2.0/sign-in"),
    (Route::IdentityPassword, "/{tenant}/oauth2/v2.0/password"),
    (Route::IdentityLogout, "/{tenant}/oauth2/v2.0/logout"),
    (Route::IdentityProvider, "/{tenant}/oauth2/v2.0/provider"),
    (Route::IdentityCallback, "/{tenant}/oauth2/v2.0/callback"),
    (Route::IdentityManaged, "/msi/token"),
    (Route::IdentityMachine, "/metadata/identity/oauth2/token"),
    (Route::IdentityOther, "/{tenant}/oauth2/no"),
    (Route::GraphUsers, "/v1.0/users"),
    (Route::GraphUser, "/v1.0/users/{none}"),
    (Route::GraphUserOther, "/v1.0/users/{none}/revokeSignInSessions"),
    (Route::GraphMe, "/v1.0/me"),
    (Route::GraphApplications, "/v1.0/applications"),
    (Route::GraphApplication, "/v1.0/applications/{none}"),
    (Route::GraphApplicationAddPassword, "/v1.0/applications/{none}/addPassword"),
    (Route::GraphApplicationRemovePassword, "/v1.0/applications/{none}/removePassword"),
    (Route::GraphFederated, "/v1.0/applications/{none}/federatedIdentityCredentials"),
    (Route::GraphFederatedOne, "/v1.0/applications/{none}/federatedIdentityCredentials/f"),
    (Route::GraphApplicationOther, "/v1.0/applications/{none}/owners"),
    (Route::GraphPrincipals, "/v1.0/servicePrincipals"),
    (Route::GraphPrincipal, "/v1.0/servicePrincipals/{none}"),
    (Route::GraphPrincipalAddPassword, "/v1.0/servicePrincipals/{none}/addPassword"),
    (Route::GraphPrincipalRemovePassword, "/v1.0/servicePrincipals/{none}/removePassword"),
    (Route::GraphPrincipalOther, "/v1.0/servicePrincipals/{none}/owners"),
    (Route::GraphObjectsByIds, "/v1.0/directoryObjects/getByIds"),
    (Route::GraphObject, "/v1.0/directoryObjects/{none}"),
    (Route::GraphOther, "/v1.0/no"),
    (Route::Healthz, "/healthz"),
    (Route::Readyz, "/readyz"),
    (Route::MetricsPage, "/metrics"),
    (Route::Other, "/no/such"),
];

/// What is sent, where an empty object would be refused before anybody is asked who they are.
fn body(route: Route, method: &Method) -> Value {
    match (route, method.as_str()) {
        (Route::AcrRepository | Route::AcrTag | Route::AcrManifest, _) => json!({"deleteEnabled": true}),
        (Route::ArmRoleAssignment, _) => json!({"properties": {"roleDefinitionId": NONE, "principalId": NONE}}),
        (Route::ArmRoleDefinition, _) => json!({"properties": {
            "roleName": "walker", "permissions": [{"actions": ["*/read"]}], "assignableScopes": ["{reg}"],
        }}),
        // The other password of the admin user than the one that is walked with.
        (Route::ArmRegenerateCredential, _) => json!({"name": "password2"}),
        (Route::ArmGenerateCredentials, _) => json!({"tokenId": "{reg}/tokens/none1"}),
        (Route::ArmCacheRule, _) => json!({"properties": {
            "sourceRepository": "docker.io/library/none", "targetRepository": "none1",
        }}),
        (Route::GraphApplicationRemovePassword | Route::GraphPrincipalRemovePassword, _) => json!({"keyId": NONE}),
        (Route::GraphPrincipals, _) => json!({"appId": NONE}),
        (Route::GraphFederated, _) => json!({
            "name": "walk", "issuer": "https://issuer.example", "subject": "walker", "audiences": ["api://walk"],
        }),
        (Route::GraphObjectsByIds, _) => json!({"ids": [NONE]}),
        _ => json!({}),
    }
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const NONE: &str = "00000000-0000-4000-8000-00000000dead";
/// A directory token as somebody would forge it: no signature, everybody's rights.
const FORGED: &str =
    "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJvaWQiOiIwMDAwMDAwMC0wMDAwLTQwMDAtODAwMC0wMDAwMDAwMGRlYWQifQ.";

/// Who asks.
struct Asker {
    what: &'static str,
    /// For ARM and Graph.
    bearer: Option<[String; 2]>,
    /// For a registry: user and password, for each of the two.
    basic: [Option<(String, String)>; 2],
}

/// The server that is walked, and what is on it.
struct World {
    t: TestServer,
    /// Login servers: in the legacy mode, in the ABAC mode.
    logins: [String; 2],
    registries: [ResourceId; 2],
}

impl World {
    async fn new() -> World {
        let t = TestServer::start_with(|_| {}).await;
        let logins = [t.site.make_registry("walked1").await.unwrap(), t.site.make_registry("walked2").await.unwrap()];
        t.site.make_registry("other1").await.unwrap();
        let mode = json!({"properties": {"roleAssignmentMode": "AbacRepositoryPermissions"}});
        let abac = t.site.arm(Method::PATCH, &Site::registry_path("walked2"), Some(mode)).await.unwrap();
        assert!(abac.status().is_success(), "{}", abac.text().await.unwrap());
        let sub = &t.site.bootstrap.subscription_id;
        let id = |name: &str| ResourceId(format!("/subscriptions/{sub}{}", Site::registry_path(name)));
        let registries = [id("walked1"), id("walked2")];
        World { t, logins, registries }
    }

    fn system() -> Ctx {
        Ctx::system("walk", Timestamp::now())
    }

    fn subscription(&self) -> ResourceId {
        ResourceId(format!("/subscriptions/{}", self.t.site.bootstrap.subscription_id))
    }

    async fn give(&self, principal: Uuid, role: Uuid, scope: &ResourceId, condition: Option<&str>) {
        let input = AssignmentInput {
            role,
            principal,
            principal_type: None,
            description: None,
            condition: condition.map(str::to_owned),
            condition_version: None,
        };
        let service = &self.t.server.app.service;
        service.put_role_assignment(&World::system(), scope, Uuid::new_v4(), input).await.unwrap();
    }

    /// A service principal with a secret: object id, application id, secret.
    async fn service_principal(&self, name: &str) -> (Uuid, String, String) {
        let (service, ctx) = (&self.t.server.app.service, World::system());
        let input = ApplicationInput { display_name: Some(name.to_owned()), ..ApplicationInput::default() };
        let application = service.create_application(&ctx, input).await.unwrap();
        let made = service.create_service_principal(&ctx, application.app_id, ServicePrincipalInput::default()).await;
        let (_, secret) = service
            .add_password(&ctx, Holder::Application, application.object_id, &PasswordInput::default())
            .await
            .unwrap();
        (made.unwrap().object_id, application.app_id.to_string(), secret.into_exposed())
    }

    /// The access token in an answer of the identity provider.
    async fn token(&self, form: &[(&str, &str)]) -> String {
        let url = format!("{}/{}/oauth2/v2.0/token", self.t.site.url, self.t.site.bootstrap.tenant_id);
        let res = self.t.site.client.post(url).form(form).send().await.unwrap();
        let answer: Value = res.json().await.unwrap();
        answer["access_token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    }

    /// Who can get tokens of the directory in this way, for an audience.
    async fn directory<F: Future<Output = String>>(&self, what: &'static str, token: impl Fn(String) -> F) -> Asker {
        let arm = token(self.t.site.url.clone()).await;
        let graph = token("https://graph.microsoft.com".into()).await;
        let registry = token("https://containerregistry.azure.net".into()).await;
        let mut basic = [None, None];
        for (at, login) in self.logins.iter().enumerate() {
            let form = [("grant_type", "access_token"), ("service", login.as_str()), ("access_token", &registry)];
            let url = format!("https://{login}/oauth2/exchange");
            let answer: Value = self.t.site.client.post(url).form(&form).send().await.unwrap().json().await.unwrap();
            // Who has no right to anything in a registry is given no token of it.
            let refresh = answer["refresh_token"].as_str();
            basic[at] = refresh.map(|token| ("00000000-0000-0000-0000-000000000000".to_owned(), token.to_owned()));
        }
        Asker { what, bearer: Some([arm, graph]), basic }
    }

    async fn application(&self, what: &'static str, (_, app_id, secret): &(Uuid, String, String)) -> Asker {
        self.directory(what, |audience| async move {
            let scope = format!("{audience}/.default");
            let form = [
                ("grant_type", "client_credentials"),
                ("client_id", app_id.as_str()),
                ("client_secret", secret.as_str()),
                ("scope", &scope),
            ];
            self.token(&form).await
        })
        .await
    }

    /// A service principal that holds a role.
    async fn holder(&self, what: &'static str, role: Uuid, scopes: &[&ResourceId], condition: Option<&str>) -> Asker {
        let made = self.service_principal(what).await;
        for scope in scopes {
            self.give(made.0, role, scope, condition).await;
        }
        self.application(what, &made).await
    }

    async fn user(&self, what: &'static str) -> Asker {
        let password = "a long walk in the rain, 7 miles";
        let input = UserInput {
            user_name: Some("walker@example.com".into()),
            display_name: Some("Walker".into()),
            password: Some(Secret::new(password.to_owned())),
            ..UserInput::default()
        };
        let user = self.t.server.app.service.create_user(&World::system(), input).await.unwrap();
        self.give(user.object_id, READER, &self.subscription(), None).await;
        self.directory(what, |audience| async move {
            let scope = format!("{audience}/.default");
            let form = [
                ("grant_type", "password"),
                ("client_id", "04b07795-8ddb-461a-bbee-02f9e1bf7b46"),
                ("username", "walker@example.com"),
                ("password", password),
                ("scope", &scope),
            ];
            self.token(&form).await
        })
        .await
    }

    async fn managed_identity(&self, what: &'static str) -> Asker {
        let path = "/resourceGroups/testgroup/providers/Microsoft.ManagedIdentity/userAssignedIdentities/walker";
        let made = self.t.site.arm(Method::PUT, path, Some(json!({"location": "local"}))).await.unwrap();
        let made: Value = made.json().await.unwrap();
        let object_id: Uuid = made["properties"]["principalId"].as_str().unwrap().parse().unwrap();
        for registry in &self.registries {
            self.give(object_id, ACR_PULL, registry, None).await;
        }
        let secret = self.t.site.arm(Method::POST, &format!("{path}/generateEndpointSecret"), None).await.unwrap();
        let secret: Value = secret.json().await.unwrap();
        let header = secret["identityHeader"].as_str().unwrap_or_else(|| panic!("{secret}")).to_owned();
        self.directory(what, |audience| {
            let url = format!("{}/msi/token?api-version=2019-08-01&resource={audience}", self.t.site.url);
            let request = self.t.site.client.get(url).header("X-IDENTITY-HEADER", &header);
            async move {
                let answer: Value = request.send().await.unwrap().json().await.unwrap();
                answer["access_token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
            }
        })
        .await
    }

    async fn admin_user(&self) -> Asker {
        let mut basic = [None, None];
        for (at, name) in ["walked1", "walked2"].iter().enumerate() {
            let path = format!("{}/listCredentials", Site::registry_path(name));
            let answer: Value = self.t.site.arm(Method::POST, &path, None).await.unwrap().json().await.unwrap();
            basic[at] = Some(((*name).to_owned(), answer["passwords"][0]["value"].as_str().unwrap().to_owned()));
        }
        Asker { what: "admin user", bearer: None, basic }
    }

    async fn repository_token(&self) -> Asker {
        let mut basic = [None, None];
        for (at, name) in ["walked1", "walked2"].iter().enumerate() {
            let path = Site::registry_path(name);
            let sub = &self.t.site.bootstrap.subscription_id;
            let map = json!({"properties": {"actions": ["repositories/team/*/content/read"]}});
            let map = self.t.site.arm(Method::PUT, &format!("{path}/scopeMaps/readers"), Some(map)).await.unwrap();
            assert!(map.status().is_success(), "{}", map.text().await.unwrap());
            let token = json!({"properties": {
                "scopeMapId": format!("/subscriptions/{sub}{path}/scopeMaps/readers"), "status": "enabled",
            }});
            let token = self.t.site.arm(Method::PUT, &format!("{path}/tokens/reader"), Some(token)).await.unwrap();
            assert!(token.status().is_success(), "{}", token.text().await.unwrap());
            let body = json!({"tokenId": format!("/subscriptions/{sub}{path}/tokens/reader")});
            let made = self.t.site.arm(Method::POST, &format!("{path}/generateCredentials"), Some(body)).await.unwrap();
            let made: Value = made.json().await.unwrap();
            let password = made["passwords"][0]["value"].as_str().unwrap_or_else(|| panic!("{made}"));
            basic[at] = Some(("reader".to_owned(), password.to_owned()));
        }
        Asker { what: "repository token: read team/*", bearer: None, basic }
    }

    /// Everybody, from the weakest to the strongest.
    async fn askers(&self) -> Vec<Asker> {
        let [legacy, abac] = &self.registries;
        let both = [legacy, abac];
        let sub = self.subscription();
        let other = ResourceId(legacy.0.replace("walked1", "other1"));
        let team = "@Request[Microsoft.ContainerRegistry/registries/repositories:name] StringStartsWith 'team/'";
        let forged = FORGED.to_owned();
        let null = || "00000000-0000-0000-0000-000000000000".to_owned();

        // An owner who got tokens, and was disabled then.
        let disabled = self.service_principal("disabled").await;
        self.give(disabled.0, OWNER, &sub, None).await;
        let was_owner = self.application("owner that was disabled", &disabled).await;
        let off = ServicePrincipalInput { enabled: Some(false), ..ServicePrincipalInput::default() };
        self.t.server.app.service.update_service_principal(&World::system(), disabled.0, off).await.unwrap();

        vec![
            Asker { what: "nobody", bearer: None, basic: [None, None] },
            Asker {
                what: "forged token",
                bearer: Some([forged.clone(), forged.clone()]),
                basic: [Some((null(), forged.clone())), Some((null(), forged))],
            },
            was_owner,
            self.holder("application without a role", READER, &[], None).await,
            self.holder("Owner of another registry", OWNER, &[&other], None).await,
            self.repository_token().await,
            self.managed_identity("managed identity with AcrPull").await,
            self.holder("AcrPush", ACR_PUSH, &both, None).await,
            self.holder("AcrDelete", ACR_DELETE, &both, None).await,
            self.holder("Repository Writer of team/*", REPOSITORY_WRITER, &both, Some(team)).await,
            self.holder("Catalog Lister", CATALOG_LISTER, &both, None).await,
            self.admin_user().await,
            self.user("user, Reader of the subscription").await,
            self.holder("Contributor of the registries", CONTRIBUTOR, &both, None).await,
            self.holder("Contributor of the subscription", CONTRIBUTOR, &[&sub], None).await,
            self.holder("Owner of the subscription", OWNER, &[&sub], None).await,
        ]
    }

    fn path(&self, template: &str, method: &Method, mode: usize) -> String {
        let bootstrap = &self.t.site.bootstrap;
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
        let reg = &self.registries[mode].0;
        template
            .replace("{reg-or-none}", &if reads { reg.clone() } else { reg.replace("walked", "absent") })
            .replace("{reg}", reg)
            .replace("{group-path}", "/subscriptions/{sub}/resourceGroups/testgroup")
            .replace("{group}", if reads { "testgroup" } else { "absent" })
            .replace("{sub}", &bootstrap.subscription_id)
            .replace("{tenant}", &bootstrap.tenant_id)
            .replace("{digest}", DIGEST)
            .replace("{none}", NONE)
    }

    async fn ask(&self, route: Route, method: &Method, path: &str, asker: &Asker, mode: usize) -> char {
        let door = route.door();
        let (base, of_registry) = match door {
            Door::V2 | Door::Acr | Door::Oauth2 => (format!("https://{}", self.logins[mode]), true),
            _ => (self.t.site.url.clone(), false),
        };
        let version = if door == Door::Arm { "?api-version=2022-04-01" } else { "" };
        let mut request = self.t.site.client.request(method.clone(), format!("{base}{path}{version}"));
        if let (true, Some((user, password))) = (of_registry, &asker.basic[mode]) {
            request = request.basic_auth(user, Some(password));
        } else if let Some([arm, graph]) = &asker.bearer {
            request = request.bearer_auth(if door == Door::Graph { graph } else { arm });
        }
        let has_body = match door {
            Door::Acr => *method == Method::PATCH,
            Door::Arm | Door::Graph => [Method::PUT, Method::POST, Method::PATCH].contains(method),
            _ => false,
        };
        if has_body {
            let text = body(route, method).to_string().replace("{reg}", &self.registries[mode].0);
            request = request.header("content-type", "application/json").body(text);
        }
        let answer = request.send().await.unwrap();
        match answer.status().as_u16() {
            401 | 403 => '.',
            404 => 'n',
            405 => '-',
            200..=399 => 'x',
            400 | 411 | 413 | 415 => 'i',
            409 | 412 => 'c',
            501 => '-',
            status => {
                // Told at once, and the table is not right with it.
                eprintln!("{method} {path} by {}: {status} {}", asker.what, answer.text().await.unwrap());
                '!'
            }
        }
    }
}

const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS];

#[test]
fn every_route_has_an_example() {
    for route in Route::ALL {
        assert!(
            EXAMPLES.iter().any(|(r, _)| r == route),
            "{} has no row: give it an example in EXAMPLES, write access.txt anew and read what it says",
            route.as_str()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_answers_every_principal_as_the_table_says() {
    let world = World::new().await;
    let askers = world.askers().await;
    let mut table = String::from(
        "What each route answers to each kind of principal, in each method.\n\
         Written by a test (access.rs), which fails when the answers are others.\n\n\
         \x20  .  refused: 401 or 403            -  there is no such method\n\
         \x20  x  let in: 2xx or 3xx             n  let in, there is no such thing: 404\n\
         \x20  i  let in, the request is not whole: 400   c  let in, the state forbids it: 409, 412\n\n",
    );
    for (at, asker) in askers.iter().enumerate() {
        writeln!(table, "  {:>2} {}", at + 1, asker.what).unwrap();
    }
    let head: String = (1..=askers.len()).map(|n| format!("{n:>3}")).collect();
    for (mode, title) in ["The registry has the legacy mode", "The registry has the ABAC mode"].iter().enumerate() {
        writeln!(table, "\n{title}\n\n{:<46}{head}", "").unwrap();
        for (route, template) in EXAMPLES {
            // The mode makes no difference to the other doors.
            if mode == 1 && !matches!(route.door(), Door::V2 | Door::Acr) {
                continue;
            }
            let mut rows: Vec<(String, String)> = Vec::new();
            for method in &METHODS {
                let path = world.path(template, method, mode);
                assert_eq!(Route::of(Door::of(&path), &path), *route, "the example of {}: {path}", route.as_str());
                let all = askers.iter().map(|asker| world.ask(*route, method, &path, asker, mode));
                let cells: String = if [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
                    let answers = futures_util::future::join_all(all).await;
                    answers.iter().flat_map(|cell| [' ', ' ', *cell]).collect()
                } else {
                    // One after the other: what the first changes the next one finds.
                    let mut cells = String::new();
                    for answer in all {
                        cells.extend([' ', ' ', answer.await]);
                    }
                    cells
                };
                match rows.iter_mut().find(|(_, same)| *same == cells) {
                    Some((methods, _)) => write!(methods, " {method}").unwrap(),
                    None => rows.push((method.to_string(), cells)),
                }
            }
            writeln!(table, "{}", route.as_str()).unwrap();
            for (methods, cells) in rows {
                writeln!(table, "    {methods:<42}{cells}").unwrap();
            }
        }
    }
    assert!(!table.contains("  !"), "the server failed or gave up; what it said is above:\n{table}");
    expect_file!["access.txt"].assert_eq(&table);
}
