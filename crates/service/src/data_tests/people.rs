//! Sign-in of people at two servers on one database, and over longer times than a test has.

use std::time::Duration;

use portolan_store::meta;
use portolan_store::meta::principal::PrincipalRow;
use portolan_types::{Secret, Timestamp};
use uuid::Uuid;

use super::pair::{BOTH, Pair};
use crate::sign_in::code::CodeRequest;
use crate::sign_in::{Client, Method, Proof, Scopes, SignedIn};
use crate::{Result, Service};

const BASE: &str = "https://localhost:8443";
const AZ: &str = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";
const PASSWORD: &str = "Correct-Horse-7";
const SCOPE: &str = "https://containerregistry.azure.net/.default offline_access";
const DAY: Duration = Duration::from_secs(86_400);

async fn user(service: &Service) -> Uuid {
    let row = PrincipalRow {
        object_id: Uuid::new_v4(),
        app_id: None,
        kind: "User".into(),
        display_name: "Alice".into(),
        enabled: true,
        valid_from: Timestamp(0),
        created: Timestamp::now(),
        user_name: Some("alice@example.com".into()),
        properties: "{}".into(),
    };
    let id = row.object_id;
    service.meta.write(move |tx| meta::principal::insert(tx, &row)).await.unwrap();
    service.set_password(id, &Secret::new(PASSWORD.to_owned()), Timestamp(1)).await.unwrap();
    id
}

fn az(service: &Service) -> Client {
    service.sign_in_client(AZ).unwrap()
}

async fn sign_in(service: &Service, now: Timestamp) -> SignedIn {
    let (secret, scopes) = (Secret::new(PASSWORD.to_owned()), Scopes::parse(Some(SCOPE), None, BASE).unwrap());
    let signed_in = service.password_sign_in(BASE, &az(service), "alice@example.com", &secret, &scopes, now).await;
    signed_in.unwrap().unwrap()
}

fn refresh(service: &Service, token: &Secret<String>, now: Timestamp) -> Result<SignedIn> {
    service.refresh_sign_in(BASE, &az(service), token.expose(), None, now)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begun_at_one_server_it_goes_on_at_another_and_ends_once() {
    for engine in BOTH {
        let Pair { a, b } = Pair::new(engine).await;
        let id = user(&a.service).await;
        b.service.refresh().await.unwrap();
        let now = Timestamp::now();
        let begun = a.service.begin_device(&az(&a.service), SCOPE, "10.0.0.1", now).await.unwrap();
        let waiting = b.service.waiting_device(&begun.user_code, now).await.unwrap();
        let secret = Secret::new(PASSWORD.to_owned());
        let proof = b.service.check_password("alice@example.com", &secret, now).await.unwrap().unwrap();
        b.service.answer_device(&waiting.id, Some(proof), now).await.unwrap();
        // Both are asked at once: one of them has it.
        let code = begun.device_code.expose();
        let (az_a, az_b) = (az(&a.service), az(&b.service));
        let (one, two) = tokio::join!(
            a.service.redeem_device(BASE, &az_a, code, now),
            b.service.redeem_device(BASE, &az_b, code, now)
        );
        assert_eq!([&one, &two].iter().filter(|r| r.is_ok()).count(), 1, "{engine:?}");

        let request = CodeRequest {
            client: AZ.parse().unwrap(),
            redirect: "http://localhost:8400".into(),
            challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".into(),
            scopes: Scopes::parse(Some(SCOPE), None, BASE).unwrap(),
            nonce: None,
        };
        request.check().unwrap();
        let code = a.service.authorization_code(&request, proof, now).unwrap();
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let late = now.plus(Duration::from_secs(301));
        let expired = b.service.redeem_code(BASE, &az_b, code.expose(), &request.redirect, verifier, late).await;
        assert!(expired.unwrap_err().message.starts_with("AADSTS70008"));
        let (one, two) = tokio::join!(
            a.service.redeem_code(BASE, &az_a, code.expose(), &request.redirect, verifier, now),
            b.service.redeem_code(BASE, &az_b, code.expose(), &request.redirect, verifier, now)
        );
        assert_eq!([&one, &two].iter().filter(|r| r.is_ok()).count(), 1, "{engine:?}");

        // What one server gave the other takes, until it is told not to.
        let token = one.or(two).unwrap().refresh.unwrap();
        refresh(&a.service, &token, now).unwrap();
        refresh(&b.service, &token, now).unwrap();
        let keeping_up = tokio::spawn({
            let b = b.clone();
            async move { b.service.keep_up(|_| {}).await }
        });
        a.service.end_sessions(id, Timestamp::now()).await.unwrap();
        assert!(refresh(&a.service, &token, now).is_err());
        while refresh(&b.service, &token, now).is_ok() {
            tokio::task::yield_now().await;
        }
        keeping_up.abort();
    }
}

#[tokio::test]
async fn a_session_ends_when_it_lies_idle_and_when_it_is_old() {
    let Pair { a, .. } = Pair::new(BOTH[0]).await;
    let service = &a.service;
    user(service).await;
    let now = Timestamp::now();
    let config = &service.config.sign_in;
    let first = sign_in(service, now).await.refresh.unwrap();
    assert!(refresh(service, &first, now.plus(config.refresh_idle - Duration::from_secs(1))).is_ok());
    let idle = refresh(service, &first, now.plus(config.refresh_idle)).unwrap_err();
    assert!(idle.message.starts_with("AADSTS700082"), "{idle}");
    // Used every day, it lasts until the session is over, and not a day longer.
    let (mut token, mut days) = (first, 0u32);
    while let Ok(next) = refresh(service, &token, now.plus(DAY * (days + 1))) {
        token = next.refresh.unwrap();
        days += 1;
        assert!(days < 1_000);
    }
    assert_eq!(DAY * (days + 1), config.session);
}

#[tokio::test]
async fn a_proof_that_is_older_than_a_renewed_password_is_none() {
    let Pair { a, .. } = Pair::new(BOTH[0]).await;
    let service = &a.service;
    let id = user(service).await;
    let now = Timestamp::now();
    let proof = Proof { object_id: id, method: Method::Password, at: now };
    let begun = service.begin_device(&az(service), SCOPE, "10.0.0.1", now).await.unwrap();
    let waiting = service.waiting_device(&begun.user_code, now).await.unwrap();
    service.answer_device(&waiting.id, Some(proof), now).await.unwrap();
    // Renewed between the person's sign-in and the client's next question.
    service.set_password(id, &Secret::new("Another-Horse-8".to_owned()), now.plus(DAY)).await.unwrap();
    let refused = service.redeem_device(BASE, &az(service), begun.device_code.expose(), now).await.unwrap_err();
    assert!(refused.message.starts_with("AADSTS50173"), "{refused}");
}
