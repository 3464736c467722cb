//! The requests: GitHub push webhooks, mostly prepared in advance.
//!
//! The generator shares the cores with the server, so a request costs one copy and two or three blocks of
//! SHA-256: the signature continues from the state after the constant part of the body. The rest differs
//! every time, because a repeated body is a suspected replay.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use hmac::{Hmac, Mac as _};
use serde_json::json;
use sha2::Sha256;

use crate::contender::{ORGANIZATIONS, SECRET};

/// Bytes of a SHA-1 in hexadecimal, as git names commits.
const COMMIT: usize = 40;
const DELIVERY: usize = 36;
const SIGNATURE: usize = 64;

#[derive(Clone)]
pub struct Template {
    bytes: Vec<u8>,
    delivery: usize,
    signature: usize,
    commit: usize,
    /// The signature's state just before the commit.
    mac: Hmac<Sha256>,
}

impl Template {
    /// One per organization.
    pub fn all(address: SocketAddr) -> Result<Vec<Self>> {
        (0..ORGANIZATIONS).map(|number| Self::new(address, number)).collect()
    }

    fn new(address: SocketAddr, number: usize) -> Result<Self> {
        let body = body(number);
        let length = body.len() + COMMIT + ENDING.len();
        let head = format!(
            "POST /webhooks/bench-{number}/github HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\n\
             User-Agent: GitHub-Hookshot/0a1b2c3\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             X-GitHub-Event: push\r\nX-GitHub-Hook-ID: 292430182\r\nX-GitHub-Delivery: "
        );
        let mut bytes = head.into_bytes();
        let delivery = bytes.len();
        bytes.resize(delivery + DELIVERY, b'0');
        bytes.extend_from_slice(b"\r\nX-Hub-Signature-256: sha256=");
        let signature = bytes.len();
        bytes.resize(signature + SIGNATURE, b'0');
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes.extend_from_slice(body.as_bytes());
        let commit = bytes.len();
        bytes.resize(commit + COMMIT, b'0');
        bytes.extend_from_slice(ENDING);
        let mac = Hmac::new_from_slice(SECRET.as_bytes()).context("HMAC")?.chain_update(body);
        Ok(Self { bytes, delivery, signature, commit, mac })
    }

    /// Replaces the buffer's content with a new webhook.
    pub fn write(&self, buffer: &mut Vec<u8>) -> Result<()> {
        buffer.clear();
        buffer.extend_from_slice(&self.bytes);
        hex::encode_to_slice(rand::random::<[u8; COMMIT / 2]>(), &mut buffer[self.commit..self.commit + COMMIT])?;
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        id.hyphenated().encode_lower(&mut buffer[self.delivery..self.delivery + DELIVERY]);
        let mac = self.mac.clone().chain_update(&buffer[self.commit..]).finalize().into_bytes();
        hex::encode_to_slice(mac, &mut buffer[self.signature..self.signature + SIGNATURE])?;
        Ok(())
    }
}

const ENDING: &[u8] = b"\"}";

/// A push of one to three commits, one to three kilobytes, up to the opening quote of its last member, `after`.
fn body(number: usize) -> String {
    let repository = format!("bench-{number}/service-{number}");
    let commit = |n: usize| {
        json!({
            "id": format!("{n}d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9"), "distinct": true,
            "message": format!("billing: round half to even in line {n}\n\nThe invoice total drifted by a cent."),
            "timestamp": "2025-11-03T09:41:07+01:00",
            "url": format!("https://github.com/{repository}/commit/{n}d1e2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9"),
            "author": { "name": "Ada Example", "email": "ada@example.com", "username": "ada-example" },
            "committer": { "name": "GitHub", "email": "noreply@github.com", "username": "web-flow" },
            "added": [], "removed": [], "modified": ["src/billing/round.rs", "tests/billing.rs"],
        })
    };
    let commits: Vec<_> = (0..=number % 3).map(commit).collect();
    let mut push = json!({
        "ref": "refs/heads/main", "before": "6113728f27ae82c7b1a177c8d03f9e96e0adf246",
        "created": false, "deleted": false, "forced": false, "base_ref": null,
        "compare": format!("https://github.com/{repository}/compare/6113728f27ae...0d1e2f3a4b5c"),
        "head_commit": commits.last(), "commits": commits,
        "repository": {
            "id": 186_853_002 + number, "node_id": "MDEwOlJlcG9zaXRvcnkxODY4NTMwMDI=", "full_name": repository,
            "private": true, "html_url": format!("https://github.com/{repository}"), "fork": false,
            "default_branch": "main", "language": "Rust", "stargazers_count": 0, "open_issues_count": 2,
        },
        "pusher": { "name": "ada-example", "email": "ada@example.com" },
        "sender": { "login": "ada-example", "id": 21_031_067, "type": "User", "site_admin": false },
    })
    .to_string();
    push.pop();
    push.push_str(",\"after\":\"");
    push
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(number: usize) -> (String, String) {
        let templates = Template::all(([127, 0, 0, 1], 80).into()).unwrap();
        let mut buffer = Vec::new();
        templates[number].write(&mut buffer).unwrap();
        let text = String::from_utf8(buffer).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn the_signature_is_that_of_the_whole_body() {
        let (head, body) = sent(3);
        let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(&body).finalize();
        assert!(head.ends_with(&format!("sha256={}", hex::encode(mac.into_bytes()))));
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
    }

    #[test]
    fn bodies_are_json_of_one_to_three_kilobytes() {
        for number in 0..ORGANIZATIONS {
            let (_, body) = sent(number);
            let push: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(push["after"].as_str().map(str::len), Some(COMMIT));
            assert!((1000..3200).contains(&body.len()), "{}", body.len());
        }
    }

    #[test]
    fn no_two_deliveries_are_alike() {
        assert_ne!(sent(0), sent(0));
    }
}
