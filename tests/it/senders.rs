//! Senders of every provider. They sign as the provider does, or with a defect.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac as _};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use sha2::Sha256;

use crate::app::{GITHUB_SECRET, hmac_hex};

pub const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub const PAYPAL_WEBHOOK_ID: &str = "8PT597110X687430LKGECATA";

/// Header names and values, in order.
pub type Headers = Vec<(&'static str, String)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Stripe,
    Github,
    Paypal,
    Shopify,
    Standard,
}

impl Sender {
    pub const ALL: [Self; 5] = [Self::Stripe, Self::Github, Self::Paypal, Self::Shopify, Self::Standard];

    /// The provider's name in URLs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::Github => "github",
            Self::Paypal => "paypal",
            Self::Shopify => "shopify",
            Self::Standard => "standard",
        }
    }

    /// The secret of the connection.
    pub fn secret(self) -> &'static str {
        match self {
            Self::Stripe => "whsec_test_secret",
            Self::Github => GITHUB_SECRET,
            Self::Paypal => PAYPAL_WEBHOOK_ID,
            Self::Shopify => "hush",
            Self::Standard => STANDARD_SECRET,
        }
    }

    /// The header that holds the signature.
    pub fn signature_header(self) -> &'static str {
        match self {
            Self::Stripe => "stripe-signature",
            Self::Github => "x-hub-signature-256",
            Self::Paypal => "paypal-transmission-sig",
            Self::Shopify => "x-shopify-hmac-sha256",
            Self::Standard => "webhook-signature",
        }
    }

    /// Whether it signs a time.
    pub fn signs_time(self) -> bool {
        matches!(self, Self::Stripe | Self::Paypal | Self::Standard)
    }

    /// The signature alone, in the encoding that the provider uses.
    pub fn signature(self, secret: &str, id: &str, at: DateTime<Utc>, body: &[u8]) -> String {
        let seconds = at.timestamp();
        match self {
            Self::Stripe => hmac_hex(secret, &[format!("{seconds}.").as_bytes(), body].concat()),
            Self::Github => hmac_hex(secret, body),
            Self::Shopify => hmac_base64(secret.as_bytes(), body),
            Self::Standard => {
                let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).unwrap();
                hmac_base64(&key, &[format!("{id}.{seconds}.").as_bytes(), body].concat())
            }
            Self::Paypal => {
                let message = format!("{id}|{}|{secret}|{}", paypal_time(at), crc32fast::hash(body));
                STANDARD.encode(rsa_sign(PAYPAL_LEAF, message.as_bytes()))
            }
        }
    }

    /// Every header of a delivery, with that signature.
    pub fn headers(self, signature: &str, id: &str, at: DateTime<Utc>) -> Headers {
        let value = match self {
            Self::Stripe => format!("t={},v1={signature}", at.timestamp()),
            Self::Github => format!("sha256={signature}"),
            Self::Paypal | Self::Shopify => signature.to_owned(),
            Self::Standard => format!("v1,{signature}"),
        };
        let mut headers = vec![(self.signature_header(), value)];
        match self {
            Self::Stripe => {}
            Self::Github => {
                headers.push(("x-github-delivery", id.to_owned()));
                headers.push(("x-github-event", "push".to_owned()));
            }
            Self::Shopify => {
                headers.push(("x-shopify-webhook-id", id.to_owned()));
                headers.push(("x-shopify-topic", "orders/create".to_owned()));
            }
            Self::Standard => {
                headers.push(("webhook-id", id.to_owned()));
                headers.push(("webhook-timestamp", at.timestamp().to_string()));
            }
            Self::Paypal => {
                headers.push(("paypal-transmission-id", id.to_owned()));
                headers.push(("paypal-transmission-time", paypal_time(at)));
                headers.push(("paypal-cert-url", paypal_certificate("CERT-1")));
                headers.push(("paypal-auth-algo", "SHA256withRSA".to_owned()));
            }
        }
        headers
    }

    /// A genuine delivery's headers.
    pub fn genuine(self, id: &str, at: DateTime<Utc>, body: &[u8]) -> Headers {
        self.headers(&self.signature(self.secret(), id, at, body), id, at)
    }
}

pub fn paypal_certificate(name: &str) -> String {
    format!("https://api.paypal.com/v1/notifications/certs/{name}")
}

fn paypal_time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn hmac_base64(key: &[u8], message: &[u8]) -> String {
    STANDARD.encode(Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(message).finalize().into_bytes())
}

/// Keys for these tests only. They are stored because generating RSA keys takes long.
pub const PAYPAL_LEAF: &str = include_str!("keys/paypal-leaf.pem");
pub const OTHER_LEAF: &str = include_str!("keys/other-leaf.pem");

pub fn rsa_sign(key: &str, message: &[u8]) -> Vec<u8> {
    let base64: String = key.lines().filter(|line| !line.starts_with("-----")).collect();
    let key = RsaKeyPair::from_pkcs8(&STANDARD.decode(base64).unwrap()).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &ring::rand::SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

/// A root, an intermediate, and its leaves, for one test.
pub struct Authority {
    pub root_pem: String,
    intermediate_pem: String,
    intermediate: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let ca = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params
        };
        let (root_key, root_params) = (KeyPair::generate().unwrap(), ca(&format!("{name} root")));
        let root_pem = root_params.self_signed(&root_key).unwrap().pem();
        let root = Issuer::new(root_params, root_key);
        let (key, params) = (KeyPair::generate().unwrap(), ca(&format!("{name} intermediate")));
        let intermediate_pem = params.signed_by(&key, &root).unwrap().pem();
        Self { root_pem, intermediate_pem, intermediate: Issuer::new(params, key) }
    }

    /// A leaf with its intermediate, in PEM: for that name, valid for those days from now.
    pub fn leaf(&self, key: &str, name: &str, days: std::ops::Range<i64>) -> String {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        self.sign(params, key, days)
    }

    /// Like [`Authority::leaf`], with the name in the subject only.
    pub fn leaf_without_alternative_names(&self, key: &str, name: &str) -> String {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        self.sign(params, key, -1..30)
    }

    fn sign(&self, mut params: CertificateParams, key: &str, days: std::ops::Range<i64>) -> String {
        let at = |days: i64| time::OffsetDateTime::now_utc() + time::Duration::days(days);
        (params.not_before, params.not_after) = (at(days.start), at(days.end));
        let leaf = params.signed_by(&KeyPair::from_pem(key).unwrap(), &self.intermediate).unwrap();
        format!("{}{}", leaf.pem(), self.intermediate_pem)
    }
}
