//! PayPal: trusted certificates, replayed transmissions, and webhooks that wait for a certificate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use hookledger::receive::paypal::{Fetch, FetchError};
use hookledger_aggregates::signature::CertificateUrl;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::senders::{
    Authority, Headers, OTHER_LEAF, PAYPAL_LEAF, PAYPAL_WEBHOOK_ID, Sender, paypal_certificate, rsa_sign,
};
use crate::signatures::app_with_certificates;

const NAME: &str = "messageverificationcerts.paypal.com";

pub async fn post(app: &TestApp, headers: Headers, body: impl Into<Vec<u8>>) -> (u16, Value) {
    let mut post = app.client.post(app.webhooks("acme", "paypal")).body(body.into());
    for (name, value) in headers {
        post = post.header(name, value);
    }
    let response = post.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn with(mut headers: Headers, name: &'static str, value: &str) -> Headers {
    value.clone_into(&mut headers.iter_mut().find(|(known, _)| *known == name).unwrap().1);
    headers
}

fn event(id: &str) -> String {
    format!("{{\"id\":\"{id}\",\"event_type\":\"PAYMENT.SALE.COMPLETED\",\"resource\":{{\"amount\":\"1.00\"}}}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_certificates_of_paypal_that_lead_to_a_root_are_believed() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new("test"), Authority::new("other"));
    let app = app_with_certificates(&authority, directory.path()).await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("PAYPAL", PAYPAL_WEBHOOK_ID)]).await;
    let good = authority.leaf(PAYPAL_LEAF, NAME, -1..30);
    let leaf_alone = format!("{}-----END CERTIFICATE-----\n", good.split_once("-----END CERTIFICATE-----").unwrap().0);
    let cases: [(&str, String, bool); 12] = [
        ("good", good.clone(), true),
        ("sandbox", authority.leaf(PAYPAL_LEAF, "messageverificationcerts.sandbox.paypal.com", -1..30), true),
        ("subject-alone", authority.leaf_without_alternative_names(PAYPAL_LEAF, NAME), false),
        ("other-purpose", authority.leaf(PAYPAL_LEAF, "www.paypal.com", -1..30), false),
        ("wildcard", authority.leaf(PAYPAL_LEAF, "*.paypal.com", -1..30), false),
        ("wrong-name", authority.leaf(PAYPAL_LEAF, "paypal.com.evil.example", -1..30), false),
        ("wrong-subject", authority.leaf_without_alternative_names(PAYPAL_LEAF, "evil.example"), false),
        ("expired", authority.leaf(PAYPAL_LEAF, NAME, -30..-1), false),
        ("not-yet", authority.leaf(PAYPAL_LEAF, NAME, 1..30), false),
        ("other-root", other.leaf(PAYPAL_LEAF, NAME, -1..30), false),
        ("no-intermediate", leaf_alone, false),
        ("nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), false),
    ];
    for (name, pem, _) in &cases {
        std::fs::write(directory.path().join(format!("{name}.pem")), pem).unwrap();
    }
    // A certificate with a foreign key, whatever name it has.
    std::fs::write(directory.path().join("other-key.pem"), authority.leaf(OTHER_LEAF, NAME, -1..30)).unwrap();
    let (mut n, now) = (0, Utc::now());
    let mut send = async |url: String| {
        n += 1;
        let (id, body) = (format!("t-{n}"), event(&format!("WH-{n}")));
        let headers = Sender::Paypal.genuine(&id, now, body.as_bytes());
        post(&app, with(headers, "paypal-cert-url", &url), body).await
    };
    for (name, _, believed) in &cases {
        let (status, answer) = send(paypal_certificate(name)).await;
        assert_eq!((status == 200, status == 401), (*believed, !believed), "{name}: {answer}");
    }
    for url in [
        paypal_certificate("other-key"),
        paypal_certificate("../roots"),
        paypal_certificate("good").replace("api.", "evil."),
        paypal_certificate("good").replace("https", "http"),
        paypal_certificate("good").replace("com/", "com:443/"),
        paypal_certificate("good").replace("api.", "user@api."),
        paypal_certificate("good?x"),
    ] {
        let (status, answer) = send(url.clone()).await;
        assert_eq!((status, &answer["code"]), (401, &json!("signature_invalid")), "{url}: {answer}");
    }
    assert_eq!(send(paypal_certificate("good").replace("api.", "api.sandbox.")).await.0, 200);
    app.stop().await;
}

/// A text of `@` and `A` that gives the whole that CRC32 if it is put between the two parts.
fn forge(before: &str, after: &str, crc: u32) -> String {
    const CHOICES: usize = 64;
    let whole = |bits: u64| {
        let text: String = (0..CHOICES).map(|n| if bits >> n & 1 == 1 { 'A' } else { '@' }).collect();
        format!("{before}{text}{after}")
    };
    let of = |bits: u64| crc32fast::hash(whole(bits).as_bytes());
    // CRC32 is linear, so a linear system tells which letters have to differ.
    let mut rows: Vec<(u32, u64)> = Vec::new();
    for n in 0..CHOICES {
        let (mut change, mut choices) = (of(1 << n) ^ of(0), 1_u64 << n);
        for (known, with) in &rows {
            if change ^ known < change {
                change ^= known;
                choices ^= with;
            }
        }
        if change != 0 {
            rows.push((change, choices));
            rows.sort_unstable_by(|a, b| b.cmp(a));
        }
    }
    let (mut change, mut choices) = (of(0) ^ crc, 0);
    for (known, with) in &rows {
        if change ^ known < change {
            change ^= known;
            choices ^= with;
        }
    }
    assert_eq!(change, 0, "32 of 64 choices are independent");
    whole(choices)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transmission_is_good_for_one_body_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let app = app_with_certificates(&Authority::new("test"), directory.path()).await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("PAYPAL", PAYPAL_WEBHOOK_ID)]).await;
    let (now, body) = (Utc::now(), event("WH-1"));
    let headers = Sender::Paypal.genuine("t-1", now, body.as_bytes());
    let (status, first) = post(&app, headers.clone(), body.clone()).await;
    assert_eq!((status, &first["duplicate"]), (200, &json!(false)), "{first}");

    // Forged bodies with a valid signature of PayPal's: of the same event, and of another one.
    for id in ["WH-1", "WH-2"] {
        let (before, after) = (format!("{{\"id\":\"{id}\",\"amount\":\"1000000.00\",\"x\":\""), "\"}");
        let forged = forge(&before, after, crc32fast::hash(body.as_bytes()));
        assert_eq!(crc32fast::hash(forged.as_bytes()), crc32fast::hash(body.as_bytes()));
        let posts = (0..4).map(|_| post(&app, headers.clone(), forged.clone()));
        for (status, answer) in futures::future::join_all(posts).await {
            assert_eq!((status, &answer["code"]), (401, &json!("transmission_replayed")), "{answer}");
        }
    }
    // A repetition, and the same event in another transmission, are duplicates.
    let again = Sender::Paypal.genuine("t-1", now, body.as_bytes());
    let other = Sender::Paypal.genuine("t-other", now, body.as_bytes());
    for headers in [again, other.clone(), other.clone()] {
        let (status, answer) = post(&app, headers, body.clone()).await;
        assert_eq!((status, &answer["duplicate"], &answer["webhook_id"]), (200, &json!(true), &first["webhook_id"]));
    }
    // The transmission of a duplicate is bound to its body, too.
    let forged = forge("{\"id\":\"WH-3\",\"x\":\"", "\"}", crc32fast::hash(body.as_bytes()));
    assert_eq!(post(&app, other, forged).await.1["code"], "transmission_replayed");

    let fields = "status signatureValid rejection flagged duplicateCount eventType providerEventId";
    let nodes = admin
        .webhooks_until("acme", fields, |nodes| {
            nodes.len() == 10 && nodes.iter().any(|node| node["status"] == "SUCCESS")
        })
        .await;
    let genuine: Vec<_> = nodes.iter().filter(|node| node["signatureValid"] == true).collect();
    assert_eq!(genuine.len(), 1);
    assert_eq!(genuine[0]["duplicateCount"], 3);
    assert_eq!(genuine[0]["eventType"], "PAYMENT.SALE.COMPLETED");
    let query =
        "{ organization(slug: \"acme\") { webhooks(filter: {flagged: true}) { nodes { rejection flagged } } } }";
    let flagged = admin.data(query, json!({})).await;
    let flagged = flagged["organization"]["webhooks"]["nodes"].as_array().unwrap().clone();
    assert_eq!(flagged.len(), 9);
    assert!(flagged.iter().all(|node| node["rejection"] == "transmission_replayed" && node["flagged"] == true));
    app.stop().await;
}

/// A server of certificates that the test switches on.
#[derive(Default)]
struct Shelf {
    certificates: Mutex<HashMap<String, Vec<u8>>>,
    asked: Mutex<Vec<String>>,
    missing: &'static str,
}

impl Fetch for Shelf {
    fn fetch<'a>(&'a self, url: &'a CertificateUrl) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        self.asked.lock().unwrap().push(url.name().to_owned());
        let found = self.certificates.lock().unwrap().get(url.name()).cloned();
        let result = match found {
            Some(pem) => Ok(pem),
            None if url.name() == self.missing => Err(FetchError::NotThere(http::StatusCode::NOT_FOUND)),
            None => Err(FetchError::Failed("not now".to_owned())),
        };
        Box::pin(async move { result })
    }
}

fn signed_by(key: &str, id: &str, at: DateTime<Utc>, body: &str) -> Headers {
    use base64::Engine as _;
    let headers = Sender::Paypal.genuine(id, at, body.as_bytes());
    let time = at.format("%Y-%m-%dT%H:%M:%SZ");
    let message = format!("{id}|{time}|{PAYPAL_WEBHOOK_ID}|{}", crc32fast::hash(body.as_bytes()));
    let signature = base64::engine::general_purpose::STANDARD.encode(rsa_sign(key, message.as_bytes()));
    with(headers, "paypal-transmission-sig", &signature)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_verified_yet_waits_and_is_not_processed_before() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("test");
    let roots = directory.path().join("roots");
    std::fs::write(&roots, &authority.root_pem).unwrap();
    let shelf = Arc::new(Shelf { missing: "CERT-missing", ..Shelf::default() });
    let app = TestApp::fetching(Arc::clone(&shelf) as Arc<dyn Fetch>, |settings| {
        settings.paypal_trust_roots = Some(roots);
    })
    .await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("PAYPAL", PAYPAL_WEBHOOK_ID)]).await;
    let (now, body) = (Utc::now(), event("WH-1"));
    // The forged request comes first, with the event ID and transmission ID of the genuine one.
    let fake = event("WH-1").replace("1.00", "9.00");
    let (status, forger) = post(&app, signed_by(OTHER_LEAF, "t-1", now, &fake), fake.clone()).await;
    assert_eq!((status, &forger["status"], &forger["duplicate"]), (200, &json!("pending"), &json!(false)), "{forger}");
    let mut answers = Vec::new();
    for transmission in ["t-1", "t-1", "t-2"] {
        let (status, answer) =
            post(&app, Sender::Paypal.genuine(transmission, now, body.as_bytes()), body.clone()).await;
        assert_eq!((status, &answer["status"]), (200, &json!("pending")), "{answer}");
        answers.push(answer["webhook_id"].clone());
    }
    let lost = with(Sender::Paypal.genuine("t-3", now, b"{}"), "paypal-cert-url", &paypal_certificate("CERT-missing"));
    let (status, lost) = post(&app, lost, "{}").await;
    assert_eq!(status, 200);
    let fields = "webhookId status signatureValid rejection duplicateCount";
    let of = |nodes: &[Value], id: &Value| nodes.iter().find(|node| node["webhookId"] == *id).cloned();
    let nodes = admin
        .webhooks_until("acme", fields, |nodes| {
            nodes.len() == 5 && of(nodes, &lost["webhook_id"]).is_some_and(|node| node["status"] == "FAILED")
        })
        .await;
    for id in answers.iter().chain([&forger["webhook_id"]]) {
        let node = of(&nodes, id).unwrap();
        assert_eq!((&node["status"], &node["signatureValid"]), (&json!("PENDING"), &json!(false)), "{node}");
    }
    // A large unverified body is not stored, because anybody could send it.
    let large = event(&format!("WH-{}", "x".repeat(64 << 10)));
    let mut outside = app.client.post(app.webhooks("acme", "paypal")).body(large.clone());
    for (name, value) in Sender::Paypal.genuine("t-9", now, large.as_bytes()) {
        outside = outside.header(name, value);
    }
    assert_eq!(outside.send().await.unwrap().status().as_u16(), 503);
    // Stale transmissions are refused without a certificate.
    let stale = now - chrono::Duration::days(4);
    assert_eq!(
        post(&app, Sender::Paypal.genuine("t-4", stale, b"{}"), "{}").await.1["code"],
        "timestamp_out_of_tolerance"
    );

    let pem = authority.leaf(PAYPAL_LEAF, NAME, -1..30).into_bytes();
    shelf.certificates.lock().unwrap().insert("CERT-1".to_owned(), pem);
    let nodes = admin
        .webhooks_until("acme", fields, |nodes| {
            // Three deliveries of one event are one webhook; the forger's, the lost and the stale one are refused.
            nodes.len() == 4
                && nodes.iter().any(|node| node["status"] == "SUCCESS" && node["duplicateCount"] == 2)
                && nodes.iter().filter(|node| node["status"] == "FAILED").count() == 3
        })
        .await;
    let genuine = nodes.iter().find(|node| node["status"] == "SUCCESS").unwrap();
    assert!(answers.contains(&genuine["webhookId"]));
    assert_eq!(genuine["signatureValid"], true);
    let refused = of(&nodes, &forger["webhook_id"]).unwrap();
    assert_eq!((&refused["signatureValid"], &refused["rejection"]), (&json!(false), &json!("signature_invalid")));
    let count = admin.data("{ organization(slug: \"acme\") { webhookCount } }", json!({})).await;
    assert_eq!(count["organization"]["webhookCount"], 1);
    // No body is kept of the two that turned out to be duplicates, which could not be found, nor of the two that were
    // accepted and turned out to be forged.
    crate::retention::until(&app.database.superuser().await, crate::retention::KEPT, 2).await;

    assert_eq!(post(&app, Sender::Paypal.genuine("t-9", now, large.as_bytes()), large).await.0, 200);

    // From now on the certificate is known: webhooks are verified immediately, and a duplicate finds the first one.
    let (status, answer) = post(&app, Sender::Paypal.genuine("t-5", now, body.as_bytes()), body.clone()).await;
    assert_eq!((status, &answer["webhook_id"], &answer["duplicate"]), (200, &genuine["webhookId"], &json!(true)));
    assert_eq!(answer["status"], "success");
    assert_eq!(post(&app, signed_by(OTHER_LEAF, "t-6", now, &body), body.clone()).await.0, 401);
    let asked = shelf.asked.lock().unwrap().iter().filter(|name| *name == "CERT-missing").count();
    assert_eq!(asked, 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_file_is_verified_when_it_is_there_and_refused_after_three_days() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("test");
    let (roots, certificates) = (directory.path().join("roots"), directory.path().to_owned());
    std::fs::write(&roots, &authority.root_pem).unwrap();
    let app = TestApp::with(|settings| {
        settings.paypal_trust_roots = Some(roots);
        settings.paypal_cert_dir = Some(certificates);
        settings.paypal_max_age.0 = chrono::Duration::days(30);
    })
    .await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("PAYPAL", PAYPAL_WEBHOOK_ID)]).await;
    // Sent some days ago, so that it can have been received some days ago, below.
    let (sent_at, body) = (Utc::now() - chrono::Duration::days(10), event("WH-1"));
    let send = async |transmission: &str, file: &str, body: &str| {
        let headers = Sender::Paypal.genuine(transmission, sent_at, body.as_bytes());
        let (status, answer) = post(&app, with(headers, "paypal-cert-url", &paypal_certificate(file)), body).await;
        assert_eq!((status, &answer["status"]), (200, &json!("pending")), "{answer}");
        answer["webhook_id"].clone()
    };
    let (first, never) = (send("t-1", "later", &body).await, send("t-2", "never", &event("WH-2")).await);
    let fields = "webhookId status signatureValid rejection";
    let of = |nodes: &[Value], id: &Value| nodes.iter().find(|node| node["webhookId"] == *id).cloned();
    let is = |nodes: &[Value], id: &Value, status: &str| of(nodes, id).is_some_and(|node| node["status"] == status);
    admin.webhooks_until("acme", fields, |nodes| is(nodes, &first, "PENDING") && is(nodes, &never, "PENDING")).await;

    std::fs::write(directory.path().join("later.pem"), authority.leaf(PAYPAL_LEAF, NAME, -1..30)).unwrap();
    // The next webhook wakes the verifier, which otherwise looks every few seconds.
    send("t-3", "never", &event("WH-3")).await;
    let nodes = admin.webhooks_until("acme", fields, |nodes| is(nodes, &first, "SUCCESS")).await;
    assert_eq!(of(&nodes, &first).unwrap()["signatureValid"], true);
    assert!(is(&nodes, &never, "PENDING"));

    // As if three days had passed.
    let superuser = app.database.superuser().await;
    let mut connection = superuser.acquire().await.unwrap();
    for sql in [
        "set session_replication_role = replica",
        "update commits set recorded_at = recorded_at - interval '73 hours' where starts_with(data, 'webhook.received_unverified')",
    ] {
        sqlx::query(sql).execute(&mut *connection).await.unwrap();
    }
    send("t-4", "never", &event("WH-4")).await;
    let nodes = admin.webhooks_until("acme", fields, |nodes| is(nodes, &never, "FAILED")).await;
    let refused = of(&nodes, &never).unwrap();
    assert_eq!((&refused["signatureValid"], &refused["rejection"]), (&json!(false), &json!("signature_invalid")));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_not_refused_while_its_secret_cannot_be_opened() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("test");
    let app = app_with_certificates(&authority, directory.path()).await;
    let admin = app.super_admin().await;
    let acme = app.organization(&admin, "acme", &[]).await;
    let provider = admin.connect(&acme, "PAYPAL", PAYPAL_WEBHOOK_ID).await;
    let body = event("WH-1");
    let headers = Sender::Paypal.genuine("t-1", Utc::now(), body.as_bytes());
    let (status, answer) = post(&app, with(headers, "paypal-cert-url", &paypal_certificate("later")), body).await;
    assert_eq!((status, &answer["status"]), (200, &json!("pending")), "{answer}");

    let superuser = app.database.superuser().await;
    let mut tampering = superuser.acquire().await.unwrap();
    let mut flip = async || {
        for sql in [
            "set session_replication_role = replica",
            "update provider_secrets set ciphertext = set_byte(ciphertext, 0, 255 - get_byte(ciphertext, 0))",
        ] {
            sqlx::query(sql).execute(&mut *tampering).await.unwrap();
        }
    };
    flip().await;
    // It is read again when the provider changes.
    let switch =
        "mutation($id: ID!, $on: Boolean!) { setProviderActive(input: {id: $id, isActive: $on}) { provider { id } } }";
    for on in [false, true] {
        admin.data(switch, json!({ "id": provider, "on": on })).await;
    }
    let readyz = async || app.client.get(format!("{}/readyz", app.url)).send().await.unwrap().text().await.unwrap();
    crate::patience::until("/readyz names the secret", async || readyz().await.contains("cannot be opened")).await;
    std::fs::write(directory.path().join("later.pem"), authority.leaf(PAYPAL_LEAF, NAME, -1..30)).unwrap();
    // The verifier looks every 5 s. With the certificate but without a secret, it decides nothing.
    tokio::time::sleep(std::time::Duration::from_secs(7)).await;
    flip().await;
    admin.webhooks_until("acme", "status", |nodes| nodes.len() == 1 && nodes[0]["status"] == "SUCCESS").await;
    assert!(!readyz().await.contains("cannot be opened"));
    app.stop().await;
}
