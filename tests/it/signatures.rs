//! Every provider, with every way in which a signature can be right or wrong.

use chrono::{DateTime, Duration, Utc};
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::senders::{Authority, Headers, PAYPAL_LEAF, Sender};

/// A node that trusts a test authority for PayPal, with one good certificate.
pub async fn app_with_certificates(authority: &Authority, directory: &std::path::Path) -> TestApp {
    let good = authority.leaf(PAYPAL_LEAF, "messageverificationcerts.paypal.com", -1..30);
    std::fs::write(directory.join("CERT-1.pem"), good).unwrap();
    let roots = directory.join("roots");
    std::fs::write(&roots, &authority.root_pem).unwrap();
    TestApp::with(|settings| {
        settings.paypal_cert_dir = Some(directory.to_owned());
        settings.paypal_trust_roots = Some(roots);
    })
    .await
}

#[derive(Clone, Copy, Debug)]
enum Case {
    Genuine,
    BodyChanged,
    NoSignature,
    BadSignature,
    OtherScheme,
    SeveralSignatures,
    Capitals,
    SurroundingSpace,
    HeaderTwice,
    Stale,
    Future,
    EmptySecret,
}

const CASES: [Case; 12] = [
    Case::Genuine,
    Case::BodyChanged,
    Case::NoSignature,
    Case::BadSignature,
    Case::OtherScheme,
    Case::SeveralSignatures,
    Case::Capitals,
    Case::SurroundingSpace,
    Case::HeaderTwice,
    Case::Stale,
    Case::Future,
    Case::EmptySecret,
];

const INVALID: &str = "signature_invalid";
const MISSING: &str = "signature_missing";
const OUT_OF_TOLERANCE: &str = "timestamp_out_of_tolerance";

/// The code of the answer; `None` if it was accepted.
fn expected(sender: Sender, case: Case) -> Option<&'static str> {
    match (case, sender) {
        (Case::Genuine | Case::SurroundingSpace, _) => None,
        (Case::BodyChanged | Case::BadSignature | Case::HeaderTwice | Case::EmptySecret, _) => Some(INVALID),
        (Case::NoSignature, _) => Some(MISSING),
        // GitHub's other scheme has a header of its own, which is ignored.
        (Case::OtherScheme, Sender::Github) => Some(MISSING),
        (Case::OtherScheme, _) => Some(INVALID),
        // If a scheme has a list of signatures, one that verifies is enough.
        (Case::SeveralSignatures, Sender::Stripe | Sender::Standard) => None,
        (Case::SeveralSignatures, _) => Some(INVALID),
        // Hex may be in upper case. In base64, case has a meaning.
        (Case::Capitals, Sender::Stripe | Sender::Github) => None,
        (Case::Capitals, _) => Some(INVALID),
        (Case::Stale | Case::Future, sender) => sender.signs_time().then_some(OUT_OF_TOLERANCE),
    }
}

fn set(headers: &mut Headers, name: &str, value: impl FnOnce(&str) -> String) {
    let (_, old) = headers.iter_mut().find(|(known, _)| *known == name).unwrap();
    *old = value(old);
}

/// The headers and the body of the request.
fn delivery(sender: Sender, case: Case, id: &str, now: DateTime<Utc>) -> (Headers, Vec<u8>) {
    let body = format!("{{\"id\":\"{id}\",\"type\":\"a.b\",\"event_type\":\"A.B\",\"note\":\"café\"}}").into_bytes();
    let name = sender.signature_header();
    let at = match case {
        Case::Stale if sender == Sender::Paypal => now - Duration::days(4),
        Case::Stale => now - Duration::seconds(400),
        Case::Future => now + Duration::seconds(400),
        _ => now,
    };
    let signature = sender.signature(sender.secret(), id, at, &body);
    let mut headers = sender.headers(&signature, id, at);
    match case {
        Case::Genuine | Case::Stale | Case::Future => {}
        Case::BodyChanged => {
            let changed = String::from_utf8(body).unwrap().replace("café", "caf\\u00e9").into_bytes();
            return (headers, changed);
        }
        Case::NoSignature => headers.retain(|(header, _)| *header != name),
        Case::BadSignature => {
            let bad = sender.signature(sender.secret(), id, at, b"something else");
            headers = sender.headers(&bad, id, at);
        }
        Case::OtherScheme => match sender {
            Sender::Stripe => set(&mut headers, name, |value| value.replace("v1=", "v0=")),
            Sender::Github => headers[0] = ("x-hub-signature", format!("sha1={}", &signature[..40])),
            Sender::Paypal => set(&mut headers, "paypal-auth-algo", |_| "SHA1withRSA".to_owned()),
            Sender::Shopify => {
                let hex = crate::app::hmac_hex(sender.secret(), &body);
                set(&mut headers, name, |_| hex);
            }
            Sender::Standard => set(&mut headers, name, |value| value.replace("v1,", "v1a,")),
        },
        Case::SeveralSignatures => {
            let bad = sender.signature(sender.secret(), id, at, b"something else");
            set(&mut headers, name, |value| match sender {
                Sender::Stripe => format!("t={},v1={bad},v1={signature},v0={bad}", at.timestamp()),
                Sender::Standard => format!("v1,{bad} {value} v2,{bad}"),
                Sender::Github => format!("sha256={bad},{value}"),
                Sender::Paypal | Sender::Shopify => format!("{bad},{value}"),
            });
        }
        Case::Capitals => headers = sender.headers(&signature.to_ascii_uppercase(), id, at),
        Case::SurroundingSpace => set(&mut headers, name, |value| format!("  {value}\t ")),
        Case::HeaderTwice => headers.push((name, headers[0].1.clone())),
        Case::EmptySecret => {
            let forged = match sender {
                // Signed with an empty key.
                Sender::Standard => sender.signature("whsec_", id, at, &body),
                _ => sender.signature("", id, at, &body),
            };
            headers = sender.headers(&forged, id, at);
        }
    }
    (headers, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_provider_accepts_and_refuses_what_it_should() {
    let directory = tempfile::tempdir().unwrap();
    let app = app_with_certificates(&Authority::new("test"), directory.path()).await;
    let admin = app.super_admin().await;
    let connected: Vec<(String, &str)> =
        Sender::ALL.iter().map(|sender| (sender.name().to_uppercase(), sender.secret())).collect();
    let connected: Vec<(&str, &str)> = connected.iter().map(|(name, secret)| (name.as_str(), *secret)).collect();
    let organization = app.organization(&admin, "acme", &connected).await;

    let (mut wrong, mut accepted) = (Vec::new(), 0);
    for sender in Sender::ALL {
        for case in CASES {
            let (headers, body) = delivery(sender, case, &format!("{}-{case:?}", sender.name()), Utc::now());
            let mut post = app.client.post(app.webhooks("acme", sender.name())).body(body);
            for (name, value) in headers {
                post = post.header(name, value);
            }
            let response = post.send().await.unwrap();
            let status = response.status().as_u16();
            let answer: Value = response.json().await.unwrap();
            let good = match expected(sender, case) {
                None => status == 200 && answer["duplicate"] == false,
                Some(code) => status == 401 && answer["code"] == code,
            };
            accepted += usize::from(status == 200);
            if !good {
                wrong.push(format!("{sender:?} {case:?}: {status} {answer}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // The list has all of them, each rejection with its reason. Only the genuine ones are processed.
    let fields = "status signatureValid rejection errorMessage flagged";
    let nodes = admin.webhooks_until("acme", fields, |nodes| {
        nodes.len() == CASES.len() * Sender::ALL.len()
            && nodes.iter().filter(|node| node["status"] == "SUCCESS").count() == accepted
    });
    for node in nodes.await {
        let refused = node["signatureValid"] == false;
        assert_eq!(node["rejection"].is_string(), refused, "{node}");
        assert!(!refused || node["errorMessage"].as_str().unwrap().len() > 30, "{node}");
    }

    // An empty secret cannot be set in the first place.
    let connect = "mutation($input: ConnectProviderInput!) { connectProvider(input: $input) { provider { id } } }";
    for (name, _) in connected {
        let input = json!({ "input": { "organizationId": organization, "providerName": name, "secret": "" } });
        assert_eq!(admin.code(connect, input).await, "BAD_USER_INPUT");
    }
    app.stop().await;
}
