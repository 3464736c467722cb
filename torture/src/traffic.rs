//! Senders: they sign as providers do, repeat a webhook until it is answered with 200, and sometimes once
//! more.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::draw::Draw;
use crate::organizations::Behaviour;
use crate::record::{Answer, Record, Request, Sample, Sent};
use crate::sign::Sender;

/// Concurrent requests.
const SENDERS: u32 = 32;
/// How long a sender waits for an answer.
const PATIENCE: Duration = Duration::from_secs(6);
/// How many times a webhook is repeated, and how soon.
const TRIES: u32 = 12;
const AGAIN_AFTER: Duration = Duration::from_millis(400);
/// Webhooks for the destination that never answers: each takes attempts and time.
const HANGING: u64 = 3;
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// Concurrent samples per node.
const SAMPLES: usize = 100;

/// A webhook to send.
#[derive(Clone, Debug)]
struct Webhook {
    number: usize,
    organization: Behaviour,
    sender: Sender,
    event: String,
    body: Vec<u8>,
    forged: bool,
}

pub struct Traffic {
    nodes: Vec<String>,
    record: Arc<Record>,
    draw: Mutex<(Draw, u64)>,
    seed: u64,
    http: reqwest::Client,
}

impl Traffic {
    pub fn new(nodes: Vec<String>, record: Arc<Record>, seed: u64) -> Result<Arc<Self>> {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let draw = Mutex::new((Draw::new(seed, "traffic"), 0));
        Ok(Arc::new(Self { nodes, record, draw, seed, http }))
    }

    /// Sends `rate` webhooks per second until stopped.
    pub fn start(self: &Arc<Self>, rate: u32, tasks: &TaskTracker, stop: &CancellationToken) {
        for sender in 0..SENDERS {
            let (traffic, stop) = (Arc::clone(self), stop.clone());
            let pace = Duration::from_secs(1) * SENDERS / rate.max(1);
            tasks.spawn(async move {
                let begin = tokio::time::Instant::now() + pace * sender / SENDERS;
                let mut interval = tokio::time::interval_at(begin, pace);
                interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                while stop.run_until_cancelled(interval.tick()).await.is_some() {
                    let (webhook, node, again) = traffic.next();
                    traffic.send_until_accepted(&webhook, node, again, &stop).await;
                }
            });
        }
    }

    /// The next webhook, the node that it is sent to first, and whether it is sent once more after it was
    /// accepted.
    fn next(&self) -> (Webhook, usize, bool) {
        let mut locked = self.draw.lock().unwrap_or_else(PoisonError::into_inner);
        let (draw, count) = &mut *locked;
        *count += 1;
        // The first ones, because they take long.
        let organization = match *count % 5 {
            0 if *count / 5 <= HANGING => Behaviour::Hanging,
            _ => Behaviour::draw(draw),
        };
        let senders = organization.senders();
        let sender = senders[draw.index(senders.len())];
        let event = format!("evt-{}-{count}", self.seed);
        let padding = "x".repeat(draw.index(2_500));
        let (node, again, forged) = (draw.index(self.nodes.len()), draw.chance(4), draw.chance(2));
        drop(locked);
        let body = json!({ "id": event, "type": "charge.succeeded", "padding": padding });
        (self.webhook(organization, sender, event, &body, forged), node, again && !forged)
    }

    fn webhook(&self, organization: Behaviour, sender: Sender, event: String, body: &Value, forged: bool) -> Webhook {
        let body = body.to_string().into_bytes();
        let body_sha256 = hex::encode(Sha256::digest(&body));
        let number = self.record.webhook(Sent { organization, sender, event: event.clone(), body_sha256, forged });
        Webhook { number, organization, sender, event, body, forged }
    }

    async fn send_until_accepted(&self, webhook: &Webhook, mut node: usize, again: bool, stop: &CancellationToken) {
        for _ in 0..TRIES {
            match self.send(webhook, node).await {
                Answer::Accepted { .. } => {
                    if again {
                        self.send(webhook, (node + 1) % self.nodes.len()).await;
                    }
                    return;
                }
                Answer::Refused(401) if webhook.forged => return,
                _ => {}
            }
            // A sender does not choose its node; a load balancer does.
            node = (node + 1) % self.nodes.len();
            if stop.run_until_cancelled(tokio::time::sleep(AGAIN_AFTER)).await.is_none() {
                return;
            }
        }
    }

    async fn send(&self, webhook: &Webhook, node: usize) -> Answer {
        let sent = Instant::now();
        let answer = self.post(webhook, node).await;
        let request = Request { webhook: webhook.number, node, sent, ended: Instant::now(), answer: answer.clone() };
        self.record.request(request);
        answer
    }

    async fn post(&self, webhook: &Webhook, node: usize) -> Answer {
        let Webhook { organization, sender, event, body, forged, .. } = webhook;
        let secret = if *forged { "whsec_Zm9yZ2VkIGFuZCBub3QgZ2VudWluZQ==" } else { sender.secret() };
        let url = format!("{}/webhooks/{}/{}", self.nodes[node], organization.slug(), sender.path());
        let mut post = self.http.post(url).header("content-type", "application/json").body(body.clone());
        for (name, value) in sender.headers(secret, event, body) {
            post = post.header(name, value);
        }
        let response = match post.send().await {
            Ok(response) => response,
            Err(error) => return Answer::Nothing(format!("{error:#}")),
        };
        let status = response.status().as_u16();
        if status != 200 {
            return Answer::Refused(status);
        }
        let body: Value = match response.json().await {
            Ok(body) => body,
            Err(error) => return Answer::Nothing(format!("{error:#}")),
        };
        match (body["webhook_id"].as_str().and_then(|id| id.parse().ok()), body["duplicate"].as_bool()) {
            (Some(webhook), Some(duplicate)) => Answer::Accepted { webhook, duplicate },
            _ => Answer::Nothing(format!("200 with {body}")),
        }
    }

    /// Sends a probe to a node; returns whether it was accepted.
    pub async fn probe(&self, node: usize) -> bool {
        let number = {
            let mut locked = self.draw.lock().unwrap_or_else(PoisonError::into_inner);
            locked.1 += 1;
            locked.1
        };
        let event = format!("probe-{}-{number}", self.seed);
        let webhook = self.webhook(Behaviour::Probe, Sender::Github, event.clone(), &json!({ "id": event }), false);
        matches!(self.send(&webhook, node).await, Answer::Accepted { .. })
    }

    /// Asks a node ten times per second whether it is ready and whether it accepts, until stopped.
    pub fn sample(self: &Arc<Self>, node: usize, tasks: &TaskTracker, stop: &CancellationToken) {
        let (traffic, stop, under_way) = (Arc::clone(self), stop.clone(), TaskTracker::new());
        let samples = tasks.clone();
        tasks.spawn(async move {
            let mut interval = tokio::time::interval(SAMPLE_EVERY);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            while stop.run_until_cancelled(interval.tick()).await.is_some() {
                if under_way.len() >= SAMPLES {
                    continue;
                }
                let traffic = Arc::clone(&traffic);
                samples.spawn(under_way.track_future(async move {
                    let ready = async { (traffic.ready(node).await, Instant::now()) };
                    let ((ready, at), accepts) = tokio::join!(ready, traffic.probe(node));
                    traffic.record.sample(Sample { node, at, ready, accepts });
                }));
            }
        });
    }

    async fn ready(&self, node: usize) -> Option<bool> {
        let answer = self.http.get(format!("{}/readyz", self.nodes[node])).send().await.ok()?;
        Some(answer.status().is_success())
    }
}
