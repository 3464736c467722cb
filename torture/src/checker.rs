//! Compares the product's statements with the harness's own record.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use anyhow::Result;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::kind::Kind;
use crate::log::{Attempt, Log, Status, Story};
use crate::organizations::Behaviour;
use crate::product::Product;
use crate::record::{Arrival, Record, Request, Sent};

/// Examples kept of each kind of finding.
const EXAMPLES: usize = 3;

/// How long the queue may take to process the last end.
const QUEUE_LIMIT: Duration = Duration::from_secs(15);

/// Violations, by the rule that was violated.
#[derive(Clone, Debug, Default)]
pub struct Findings(BTreeMap<&'static str, Vec<String>>);

impl Findings {
    pub fn add(&mut self, rule: &'static str, example: String) {
        self.0.entry(rule).or_default().push(example);
    }

    #[must_use]
    pub fn count(&self, rule: &str) -> usize {
        self.0.get(rule).map_or(0, Vec::len)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every example with its rule.
    pub fn into_examples(self) -> impl Iterator<Item = (&'static str, String)> {
        self.0.into_iter().flat_map(|(rule, examples)| examples.into_iter().map(move |example| (rule, example)))
    }

    /// One line per rule, with the first examples.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |(rule, examples): (&&'static str, &Vec<String>)| {
            let shown: Vec<_> = examples.iter().take(EXAMPLES).map(String::as_str).collect();
            let more = if examples.len() > EXAMPLES { "; …" } else { "" };
            format!("{rule}: {} ({}{more})", examples.len(), shown.join("; "))
        };
        self.0.iter().map(line).collect()
    }
}

pub const LOST: &str = "an accepted webhook is in the log";
pub const DOUBLED: &str = "an event of a sender is one webhook";
pub const TWICE_NEW: &str = "an event is answered `duplicate: false` once";
pub const STUCK: &str = "every webhook ends";
pub const CONTENT: &str = "the log has what was sent";
pub const POSITIONS: &str = "positions have no gaps";
pub const SEQUENCES: &str = "sequences of a stream have no gaps";
pub const BODIES: &str = "the body of every webhook is kept";
pub const ENDS: &str = "a webhook ends as its destination answered";
pub const INVENTED: &str = "a success was answered by its destination";
pub const FORGOTTEN: &str = "an attempt that was answered 200 is recorded as a success";
pub const UNRECORDED: &str = "an attempt that was sent is in the log";
pub const REPEATED: &str = "an attempt is sent once";
pub const LISTS: &str = "lists are what the log says";
pub const MODELS: &str = "read models are what the log says";
pub const QUEUE: &str = "the queue is empty when everything has ended";

/// Everything that the checks examine.
pub struct Evidence {
    pub log: Log,
    pub webhooks: Vec<Sent>,
    pub requests: Vec<Request>,
    pub arrivals: Vec<Arrival>,
    /// The log of the primary that was lost with its tail.
    pub former: Option<Log>,
    pub kinds: Vec<Kind>,
}

impl Evidence {
    pub fn new(record: &Record, log: Log, former: Option<Log>, kinds: Vec<Kind>) -> Self {
        let (webhooks, requests, arrivals) = (record.webhooks(), record.requests(), record.arrivals());
        Self { log, webhooks, requests, arrivals, former, kinds }
    }

    /// Whether it was lost with the tail that the promoted replica lacks.
    #[must_use]
    pub fn went_with_the_tail(&self, webhook: Uuid) -> bool {
        self.former.as_ref().is_some_and(|former| former.stories.contains_key(&webhook))
    }

    /// Number of accepted webhooks that were lost with the tail.
    #[must_use]
    pub fn lost_with_the_tail(&self) -> usize {
        let accepted: HashSet<_> = self.requests.iter().filter_map(|request| Some(request.accepted()?.0)).collect();
        let is_missing = |webhook: &&Uuid| self.log.stories.get(webhook).is_none_or(|story| story.receipts == 0);
        accepted.iter().filter(is_missing).filter(|webhook| self.went_with_the_tail(**webhook)).count()
    }

    /// All checks that need no running product.
    #[must_use]
    pub fn check(&self) -> Findings {
        let mut findings = Findings::default();
        self.check_order(&mut findings);
        self.check_answers(&mut findings);
        self.check_identity(&mut findings);
        self.check_ends(&mut findings);
        self.check_attempts(&mut findings);
        findings
    }

    fn check_order(&self, findings: &mut Findings) {
        let (mut positions, mut sequences) = (HashMap::new(), HashMap::<_, Vec<i64>>::new());
        for event in &self.log.events {
            let last = positions.insert(event.partition, event.position).unwrap_or(0);
            if event.position != last + 1 {
                findings.add(POSITIONS, format!("partition {}: {} after {last}", event.partition, event.position));
            }
            sequences.entry((&event.aggregate_type, &event.aggregate_id)).or_default().push(event.sequence);
        }
        for ((kind, id), mut all) in sequences {
            all.sort_unstable();
            if !all.iter().copied().eq(1..=i64::try_from(all.len()).unwrap_or(0)) {
                findings.add(SEQUENCES, format!("{kind} {id}: {all:?}"));
            }
        }
    }

    fn check_answers(&self, findings: &mut Findings) {
        let mut answered: HashMap<usize, (HashSet<Uuid>, usize)> = HashMap::new();
        for request in &self.requests {
            let Some((webhook, duplicate)) = request.accepted() else { continue };
            let sent = &self.webhooks[request.webhook];
            let (ids, new) = answered.entry(request.webhook).or_default();
            ids.insert(webhook);
            *new += usize::from(!duplicate);
            match self.log.stories.get(&webhook).filter(|story| story.receipts > 0) {
                None if self.went_with_the_tail(webhook) => {}
                None => findings.add(LOST, format!("{webhook}, {}, node {}", sent.event, request.node)),
                Some(story) if story.receipts > 1 => findings.add(DOUBLED, format!("{webhook} is received twice")),
                Some(story) if !is_of(story, sent) => {
                    findings.add(CONTENT, format!("{webhook}: {:?}, sent as {}", story.event, sent.event));
                }
                Some(_) if sent.forged => findings.add(CONTENT, format!("{webhook} was forged and is accepted")),
                Some(_) => {}
            }
        }
        for (number, (ids, new)) in answered {
            let event = &self.webhooks[number].event;
            if ids.len() > 1 {
                findings.add(DOUBLED, format!("{event} is {ids:?}"));
            }
            let Some(webhook) = ids.iter().next() else { continue };
            if new > 1 && !self.went_with_the_tail(*webhook) {
                findings.add(TWICE_NEW, format!("{event}: {new} times"));
            }
        }
    }

    fn check_identity(&self, findings: &mut Findings) {
        let mut known: HashMap<(&str, &str), Uuid> = HashMap::new();
        for (webhook, story) in self.log.stories.iter().filter(|(_, story)| story.receipts > 0) {
            let Some(event) = &story.event else { continue };
            if let Some(other) = known.insert((&story.provider, event), *webhook) {
                findings.add(DOUBLED, format!("{event} is {webhook} and {other}"));
            }
        }
    }

    fn check_ends(&self, findings: &mut Findings) {
        for (webhook, story) in self.log.stories.iter().filter(|(_, story)| story.receipts > 0) {
            let Some(organization) = story.organization else { continue };
            let told = || format!("{webhook} of {}: {:?}", organization.slug(), story.attempts);
            match story.status {
                Status::Open => findings.add(STUCK, told()),
                Status::Succeeded if organization == Behaviour::Hanging => findings.add(INVENTED, told()),
                Status::Succeeded => {}
                Status::DeadLettered if !organization.is_delivered() => findings.add(ENDS, told()),
                Status::DeadLettered if organization.succeeds() && !self.may_be_dead(*webhook, story) => {
                    findings.add(ENDS, told());
                }
                Status::DeadLettered => {}
                Status::Rejected => findings.add(ENDS, format!("{} (received and rejected)", told())),
            }
        }
    }

    /// Whether each of its attempts failed for a reason caused by the run: the destination failed once, or a
    /// node was lost or suspended.
    fn may_be_dead(&self, webhook: Uuid, story: &Story) -> bool {
        let failures = story.attempts.iter().filter(|(number, attempt)| {
            let answered = self.arrivals.iter().any(|arrival| {
                arrival.webhook == webhook && arrival.attempt == **number && arrival.answered == Some(200)
            });
            let excused = **attempt == Attempt::Abandoned || (answered && self.pauses_a_node());
            !excused
        });
        // These destinations fail the first request themselves.
        failures.count() <= usize::from(matches!(story.organization, Some(Behaviour::Flaky | Behaviour::Closing)))
    }

    fn loses_a_node(&self) -> bool {
        self.kinds.iter().any(|kind| kind.loses_a_node())
    }

    fn pauses_a_node(&self) -> bool {
        self.kinds.iter().any(|kind| kind.pauses_a_node())
    }

    fn check_attempts(&self, findings: &mut Findings) {
        let mut came: BTreeMap<(Uuid, u32), Vec<&Arrival>> = BTreeMap::new();
        for arrival in &self.arrivals {
            came.entry((arrival.webhook, arrival.attempt)).or_default().push(arrival);
        }
        for ((webhook, number), arrivals) in &came {
            // The lost tail may have contained an attempt.
            if self.went_with_the_tail(*webhook) {
                continue;
            }
            let told = || format!("attempt {number} of {webhook} at {}", arrivals[0].organization.slug());
            let Some(story) = self.log.stories.get(webhook) else {
                findings.add(UNRECORDED, told());
                continue;
            };
            let answered = arrivals.iter().any(|arrival| arrival.answered == Some(200));
            match story.attempts.get(number) {
                None => findings.add(UNRECORDED, told()),
                Some(Attempt::Failed(error)) if answered && !self.pauses_a_node() => {
                    findings.add(FORGOTTEN, format!("{}: {error}", told()));
                }
                Some(Attempt::Abandoned) if answered && !self.loses_a_node() && !self.pauses_a_node() => {
                    findings.add(FORGOTTEN, format!("{}: abandoned", told()));
                }
                Some(_) => {}
            }
            // A connection that closed without an answer may have been an old one, which is retried once.
            let unanswered = arrivals.iter().filter(|arrival| arrival.answered.is_none()).count();
            if arrivals.len() > 1 + unanswered.min(1) {
                findings.add(REPEATED, format!("{}: {} times", told(), arrivals.len()));
            }
            if arrivals.iter().any(|arrival| arrival.body_sha256 != story.body_sha256) {
                findings.add(CONTENT, format!("{}: another body", told()));
            }
        }
        for (webhook, story) in &self.log.stories {
            let delivered = story.organization.is_some_and(Behaviour::is_delivered);
            for (number, attempt) in &story.attempts {
                let arrivals = came.get(&(*webhook, *number));
                let answered = arrivals.is_some_and(|all| all.iter().any(|one| one.answered == Some(200)));
                if delivered && *attempt == Attempt::Succeeded && !answered {
                    findings.add(INVENTED, format!("attempt {number} of {webhook}"));
                }
            }
            for twice in &story.twice {
                findings.add(REPEATED, format!("{webhook}: {twice} twice in the log"));
            }
        }
    }
}

fn is_of(story: &Story, sent: &Sent) -> bool {
    story.event.as_deref().is_some_and(|event| event.starts_with(&sent.event))
        && story.body_sha256 == sent.body_sha256
        && story.organization == Some(sent.organization)
}

/// Checks the lists that people see.
pub async fn check_lists(product: &Product, log: &Log, findings: &mut Findings) -> Result<()> {
    for organization in Behaviour::ALL {
        let listed: BTreeSet<_> = product
            .webhooks(organization)
            .await?
            .into_iter()
            .map(|row| (row.webhook, row.status, row.dead_lettered))
            .collect();
        let of_it = log.stories.iter().filter(|(_, story)| story.organization == Some(organization));
        let expected: BTreeSet<_> = of_it
            .filter(|(_, story)| story.is_webhook())
            .map(|(id, story)| (id.to_string(), story.listed.to_owned(), story.status == Status::DeadLettered))
            .collect();
        for missing in expected.difference(&listed) {
            findings.add(LISTS, format!("{} does not show {missing:?}", organization.slug()));
        }
        for extra in listed.difference(&expected) {
            findings.add(LISTS, format!("{} shows {extra:?}", organization.slug()));
        }
    }
    Ok(())
}

/// Checks what only the tables show: bodies, read models, counts, the queue.
pub async fn check_tables(connection: &mut PgConnection, log: &Log, findings: &mut Findings) -> Result<()> {
    let bodies: Vec<(Uuid, String)> =
        sqlx::query_as("select webhook_id, encode(sha256(body), 'hex') from webhook_bodies")
            .fetch_all(&mut *connection)
            .await?;
    let bodies: HashSet<(Uuid, String)> = bodies.into_iter().collect();
    for (webhook, story) in log.stories.iter().filter(|(_, story)| story.receipts > 0) {
        if !bodies.contains(&(*webhook, story.body_sha256.clone())) {
            findings.add(BODIES, webhook.to_string());
        }
    }
    let rows: Vec<(Uuid, String, bool, i32)> = sqlx::query_as(
        "select webhook_id, upper(status), dead_lettered_at is not null, duplicate_count from webhook_logs",
    )
    .fetch_all(&mut *connection)
    .await?;
    let rows: BTreeMap<Uuid, (String, bool, i32)> =
        rows.into_iter().map(|(webhook, status, dead, duplicates)| (webhook, (status, dead, duplicates))).collect();
    for (webhook, story) in log.stories.iter().filter(|(_, story)| story.is_webhook()) {
        let duplicates = i32::try_from(story.duplicates).unwrap_or(i32::MAX);
        let expected = (story.listed.to_owned(), story.status == Status::DeadLettered, duplicates);
        let found = rows.get(webhook);
        let same = match found {
            Some((status, dead, _)) if story.counts_duplicates => (status, *dead) == (&expected.0, expected.1),
            found => found == Some(&expected),
        };
        if !same {
            findings.add(MODELS, format!("{webhook} is {expected:?} and not {found:?}"));
        }
    }
    for webhook in rows.keys().filter(|webhook| !log.stories.contains_key(webhook)) {
        findings.add(MODELS, format!("{webhook} is in webhook_logs and not in the log"));
    }
    let deadline = std::time::Instant::now() + QUEUE_LIMIT;
    loop {
        let waiting: i64 = sqlx::query_scalar("select count(*) from delivery_due").fetch_one(&mut *connection).await?;
        if waiting == 0 {
            return Ok(());
        }
        if std::time::Instant::now() > deadline {
            findings.add(QUEUE, format!("{waiting} rows"));
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Checks that the product's own comparison of log and read models reports no difference, in time.
pub async fn check_conservation(connection: &mut PgConnection, limit: Duration, findings: &mut Findings) -> Result<()> {
    let deadline = std::time::Instant::now() + limit;
    loop {
        let wrong: Vec<(Uuid, Vec<String>)> =
            sqlx::query_as("select organization_id, differences from conservation where difference <> 0")
                .fetch_all(&mut *connection)
                .await?;
        if wrong.is_empty() {
            return Ok(());
        }
        if std::time::Instant::now() > deadline {
            for (organization, differences) in wrong {
                findings.add(MODELS, format!("conservation of {organization}: {differences:?}"));
            }
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
