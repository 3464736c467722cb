//! The product's log as read by a superuser, and each webhook's story according to it, its delivery included.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::organizations::Behaviour;

/// One row of the log.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Event {
    pub partition: i32,
    pub position: i64,
    pub aggregate_type: String,
    pub aggregate_id: String,
    pub sequence: i64,
    pub event_type: String,
    pub payload: String,
    pub organization_id: Uuid,
}

/// Outcome of an attempt, according to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    Runs,
    Succeeded,
    Failed(String),
    /// The node that made it was lost.
    Abandoned,
}

/// A webhook's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Open,
    Succeeded,
    DeadLettered,
    Rejected,
}

/// The log's events about one webhook.
#[derive(Clone, Debug)]
pub struct Story {
    pub organization: Option<Behaviour>,
    pub status: Status,
    /// The status in lists.
    pub listed: &'static str,
    pub receipts: usize,
    pub duplicates: usize,
    pub provider: String,
    pub event: Option<String>,
    pub body_sha256: String,
    /// By number: each provider has one route, so a webhook has one delivery.
    pub attempts: BTreeMap<u32, Attempt>,
    pub deliveries: Vec<Uuid>,
    /// Whether its duplicates came so fast that they were counted and not logged individually.
    pub counts_duplicates: bool,
    /// Repeated events of an attempt, which can begin and end only once.
    pub twice: Vec<String>,
}

pub struct Log {
    pub events: Vec<Event>,
    pub stories: HashMap<Uuid, Story>,
}

impl Log {
    pub async fn read(connection: &mut PgConnection) -> Result<Self> {
        let query = "select partition::int, position, aggregate_type::text, aggregate_id::text, sequence::bigint, \
                     event_type::text, payload::text, organization_id from events order by partition, position";
        let events: Vec<Event> = sqlx::query_as(query).fetch_all(&mut *connection).await?;
        let organizations: HashMap<Uuid, Behaviour> = events
            .iter()
            .filter(|event| event.event_type == "organization.created")
            .filter_map(|event| {
                let payload: Value = serde_json::from_str(&event.payload).ok()?;
                Some((event.organization_id, Behaviour::of_slug(payload["slug"].as_str()?)?))
            })
            .collect();
        let mut stories: HashMap<Uuid, Story> = HashMap::new();
        // An organization's events are in order, so that a delivery's webhook is known before its first event.
        let mut deliveries: HashMap<Uuid, Uuid> = HashMap::new();
        for event in events.iter().filter(|event| matches!(event.aggregate_type.as_str(), "webhook" | "delivery")) {
            let Ok(id) = event.aggregate_id.parse() else { continue };
            let webhook = if event.aggregate_type == "webhook" { Some(id) } else { deliveries.get(&id).copied() };
            let Some(webhook) = webhook else { continue };
            let organization = organizations.get(&event.organization_id).copied();
            let story = stories.entry(webhook).or_insert_with(|| Story::new(organization));
            story.add(event);
            if event.event_type == "webhook.routed" {
                deliveries.extend(story.deliveries.iter().map(|delivery| (*delivery, webhook)));
            }
        }
        Ok(Self { events, stories })
    }
}

impl Story {
    fn new(organization: Option<Behaviour>) -> Self {
        Self {
            organization,
            status: Status::Open,
            listed: "PENDING",
            receipts: 0,
            duplicates: 0,
            provider: String::new(),
            event: None,
            body_sha256: String::new(),
            attempts: BTreeMap::new(),
            deliveries: Vec::new(),
            counts_duplicates: false,
            twice: Vec::new(),
        }
    }

    /// Whether it is a webhook, and not a stream that only has its ID.
    #[must_use]
    pub fn is_webhook(&self) -> bool {
        self.receipts > 0 || self.status == Status::Rejected
    }

    fn add(&mut self, event: &Event) {
        let payload: Value = serde_json::from_str(&event.payload).unwrap_or_default();
        let attempt = payload["attempt"].as_u64().and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or(0);
        let text = |name: &str| payload[name].as_str().unwrap_or_default().to_owned();
        match event.event_type.as_str() {
            "webhook.received" => {
                self.receipts += 1;
                self.receipt(&payload);
            }
            "webhook.rejected" => {
                self.receipt(&payload);
                (self.status, self.listed) = (Status::Rejected, "FAILED");
            }
            "webhook.duplicate_received" => self.duplicates += 1,
            "webhook.duplicates_counted" => self.counts_duplicates = true,
            "delivery.attempt_started" => {
                if self.attempts.insert(attempt, Attempt::Runs).is_some() {
                    self.twice.push(format!("attempt {attempt} begins"));
                }
                (self.status, self.listed) = (Status::Open, "PROCESSING");
            }
            "webhook.routed" => {
                let matched = payload["matched"].as_array().map(Vec::as_slice).unwrap_or_default();
                let ids = matched.iter().filter_map(|to| to["deliveryId"].as_str()?.parse::<Uuid>().ok());
                self.deliveries.extend(ids);
                if self.deliveries.is_empty() {
                    (self.status, self.listed) = (Status::Succeeded, "SUCCESS");
                }
            }
            "delivery.attempt_succeeded" => {
                self.end(attempt, Attempt::Succeeded);
                (self.status, self.listed) = (Status::Succeeded, "SUCCESS");
            }
            "delivery.attempt_failed" => {
                self.end(attempt, Attempt::Failed(text("error")));
                self.listed = "FAILED";
            }
            "delivery.attempt_abandoned" => {
                self.end(attempt, Attempt::Abandoned);
                self.listed = "FAILED";
            }
            "delivery.dead_lettered" => (self.status, self.listed) = (Status::DeadLettered, "FAILED"),
            _ => {}
        }
    }

    fn end(&mut self, attempt: u32, how: Attempt) {
        if self.attempts.insert(attempt, how) != Some(Attempt::Runs) {
            self.twice.push(format!("attempt {attempt} ends"));
        }
    }

    fn receipt(&mut self, payload: &Value) {
        let text = |name: &str| payload[name].as_str().unwrap_or_default().to_owned();
        self.provider = text("providerId");
        self.event = payload["providerEventId"].as_str().map(ToOwned::to_owned);
        self.body_sha256 = text("bodySha256");
    }
}
