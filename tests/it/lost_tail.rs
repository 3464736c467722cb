//! A database that comes back without the end of its log, such as a promoted replica or a restored backup.

use hookledger::log::{AppendError, Heads, Log, NewEvent, Sequence, Unit, Writer};
use hookledger::platform::secrets::master::generate;
use hookledger::platform::store::Use;
use hookledger::platform::vitals::Vitals;
use hookledger_aggregates::delivery::DeliveryEvent;
use hookledger_aggregates::{Metadata, OrganizationId};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{Database, GITHUB_SECRET, hmac_hex};
use crate::cluster::Cluster;
use crate::kill::{ask, with_acme};
use crate::patience::{found, until};
use crate::process::Process;
use crate::proxy::Proxy;
use crate::sink::Sink;

fn unit(organization: OrganizationId, stream: Uuid, sequences: std::ops::RangeInclusive<i64>) -> Unit {
    let event = DeliveryEvent::AttemptStarted { attempt: 1 };
    let event =
        |sequence| NewEvent::of(organization, stream, Sequence::At(sequence), &event, &Metadata::default()).unwrap();
    Unit::new(sequences.map(event).collect())
}

async fn appender(database: &Database, heads: &Heads) -> (Log, CancellationToken) {
    let pool = database.store().pool(Use::Append).await.unwrap();
    let (log, writer) = Writer::new(pool, heads.clone());
    let stop = CancellationToken::new();
    tokio::spawn(writer.run(Vitals::default(), stop.clone()));
    (log, stop)
}

/// Removes the end of a partition, as if a replica without it had been promoted.
async fn lose(superuser: &PgPool, partition: i32, after: i64) {
    let mut transaction = superuser.begin().await.unwrap();
    for sql in [
        "set local session_replication_role = replica".to_owned(),
        format!("delete from commits where partition = {partition} and position + events - 1 > {after}"),
    ] {
        sqlx::query(&sql).execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_end_begins_another_epoch_in_which_old_decisions_are_void() {
    let database = Database::fresh().await;
    let (superuser, pool) = (database.superuser().await, database.store().pool(Use::Work).await.unwrap());
    let organization = OrganizationId::from_slug("acme");
    let (partition, stream) = (organization.partition(), Uuid::new_v4());
    let heads = Heads::default();
    let (log, stop) = appender(&database, &heads).await;
    heads.refresh(&pool).await.unwrap();
    // Tails are lost by whole commits.
    for sequences in [1..=2, 3..=3, 4..=5] {
        log.append(unit(organization, stream, sequences)).await.unwrap();
    }
    heads.refresh(&pool).await.unwrap();
    let first = heads.epoch();
    let mut remembered = heads.remember::<Vec<i64>>();
    remembered.get().push(5);
    assert_eq!(heads.now()[partition.index()], 5);

    // Shorter than it was known to be.
    lose(&superuser, partition.number(), 3).await;
    heads.refresh(&pool).await.unwrap();
    assert_ne!(heads.epoch(), first);
    assert_eq!(heads.now()[partition.index()], 3);
    assert!(remembered.get().is_empty());
    let noted: Vec<(i32, i64, i64)> =
        sqlx::query_as("select partition, known, found from log_tails_lost").fetch_all(&superuser).await.unwrap();
    assert_eq!(noted, [(partition.number(), 5, 3)]);

    // A decision on lost events is refused, so that it is made again, and not appended behind the gap.
    let decided = unit(organization, stream, 6..=6).decided_in(first);
    let fresh = unit(organization, Uuid::new_v4(), 1..=1);
    let verdicts = log.append_all(vec![decided.clone(), fresh]).await.unwrap();
    assert!(matches!(verdicts[..], [Err(AppendError::Conflict), Ok(_)]), "{verdicts:?}");
    assert!(matches!(log.append(decided).await, Err(AppendError::Conflict)));
    log.append(unit(organization, stream, 4..=4).decided_in(log.epoch())).await.unwrap();

    // As long as before or longer, with another event at a position that was known.
    heads.refresh(&pool).await.unwrap();
    let second = heads.epoch();
    lose(&superuser, partition.number(), 2).await;
    let (other, stop_other) = appender(&database, &Heads::default()).await;
    other.append(unit(organization, Uuid::new_v4(), 1..=9)).await.unwrap();
    let (polling, stop_polling) = (heads.clone(), CancellationToken::new());
    tokio::spawn(polling.poll(pool.clone(), stop_polling.clone()));
    for _ in 0..600 {
        if heads.epoch() != second {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_ne!(heads.epoch(), second, "the third event is another one now");
    assert_eq!(heads.now()[partition.index()], 11);
    // A mere repetition of a read begins no new epoch.
    let third = heads.epoch();
    for _ in 0..5 {
        heads.refresh(&pool).await.unwrap();
    }
    assert_eq!(heads.epoch(), third);
    for stop in [stop, stop_other, stop_polling] {
        stop.cancel();
    }
}

/// A node as a separate process, with its surroundings.
struct Deployment {
    node: Process,
    client: reqwest::Client,
    sink: Sink,
    session: String,
}

impl Deployment {
    /// With an organization whose GitHub webhooks are delivered.
    async fn start(database_url: &str) -> Self {
        let (sink, mut node) = (Sink::start().await, Process::new());
        let checkpoints = node.directory.path().join("checkpoints").to_str().unwrap().to_owned();
        node.environment = vec![
            ("DATABASE_URL", database_url.to_owned()),
            ("HOOKLEDGER_MASTER_KEYS", generate("k1").unwrap()),
            ("HOOKLEDGER_JWT_KEYS", generate("j1").unwrap()),
            ("HOOKLEDGER_EGRESS_ALLOW_CIDRS", "127.0.0.0/8".to_owned()),
            ("HOOKLEDGER_CHECKPOINT_FILE", checkpoints),
            ("HOOKLEDGER_CHECKPOINT_INTERVAL", "1s".to_owned()),
        ];
        node.serve().await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let session = with_acme(&node, &client, GITHUB_SECRET).await;
        let deployment = Self { node, client, sink, session };
        let url = deployment.sink.url("/ok");
        deployment
            .change("setProviderDestination", "SetProviderDestinationInput", "providerId", json!({ "url": url }))
            .await;
        deployment
    }

    async fn change(&self, mutation: &str, input: &str, id: &str, mut values: Value) {
        let providers = "{ organization(slug: \"acme\") { providers { id } } }";
        let data = ask(&self.node, &self.client, &self.session, providers, json!({})).await;
        let provider = data["organization"]["providers"][0]["id"].clone();
        values[id] = provider;
        let query = format!("mutation($input: {input}!) {{ {mutation}(input: $input) {{ provider {{ id }} }} }}");
        ask(&self.node, &self.client, &self.session, &query, json!({ "input": values })).await;
    }

    async fn post(&self, delivery: &str) -> Option<(u16, Value)> {
        let body = format!("{{\"n\":\"{delivery}\"}}");
        let post = self
            .client
            .post(format!("{}/webhooks/acme/github", self.node.url()))
            .header("x-github-delivery", delivery)
            .header("x-github-event", "push")
            .header("x-hub-signature-256", format!("sha256={}", hmac_hex(GITHUB_SECRET, body.as_bytes())))
            .body(body);
        let response = post.send().await.ok()?;
        let status = response.status().as_u16();
        Some((status, response.json().await.ok()?))
    }

    /// Sends a webhook until it is answered with that status.
    async fn answered(&self, delivery: &str, wanted: u16) -> Value {
        let sent = async || self.post(delivery).await.filter(|(status, _)| *status == wanted);
        found("the webhook is answered", sent).await.1
    }

    async fn listed(&self, delivery: &str, status: &str) {
        let query = "{ organization(slug: \"acme\") { webhooks(first: 100) { nodes { providerEventId status } } } }";
        until("the webhook is listed", async || {
            let request = self.client.post(format!("{}/graphql", self.node.url())).bearer_auth(&self.session);
            let Ok(response) = request.json(&json!({ "query": query })).send().await else { return false };
            let Ok(answer) = response.json::<Value>().await else { return false };
            let nodes = answer["data"]["organization"]["webhooks"]["nodes"].as_array().cloned().unwrap_or_default();
            nodes.iter().any(|node| node["providerEventId"] == delivery && node["status"] == status)
        })
        .await;
    }

    async fn delivered(&self, delivery: &str) {
        let came = || self.sink.at("/ok").iter().any(|came| String::from_utf8_lossy(&came.body).contains(delivery));
        until("the webhook is delivered", async || came()).await;
    }

    async fn warnings(&self) -> Option<String> {
        let response = self.client.get(format!("{}/readyz", self.node.url())).send().await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        Some(response.json::<Value>().await.ok()?["warnings"].to_string())
    }

    fn audit(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.node.command(arguments).output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&told).into_owned())
    }
}

/// How many events are signed.
async fn signed(url: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let sizes = "select coalesce(sum(size), 0)::bigint from
                 (select max(size) as size from ledger_checkpoints group by ledger_id) s";
    sqlx::query_scalar(sizes).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_outlives_the_promotion_of_a_replica_without_the_end_of_the_log() {
    let primary = Cluster::start();
    let proxy = Proxy::before(&primary.url).await;
    let deployment = Deployment::start(&proxy.url).await;
    deployment.answered("kept", 200).await;
    deployment.delivered("kept").await;
    deployment.listed("kept", "SUCCESS").await;

    // A replica has everything so far. Then it is cut off, and more is appended.
    let replica = primary.replica();
    let mut standby = PgConnection::connect(&replica.url).await.unwrap();
    standby.execute("alter system set primary_conninfo = ''").await.unwrap();
    standby.execute("select pg_reload_conf()").await.unwrap();
    until("the replica is cut off", async || {
        let mut standby = PgConnection::connect(&replica.url).await.unwrap();
        let receiving = sqlx::query_scalar("select count(*) from pg_stat_wal_receiver");
        receiving.fetch_one(&mut standby).await.is_ok_and(|receiving: i64| receiving == 0)
    })
    .await;
    let before = signed(&primary.url).await;
    for n in 0..20 {
        deployment.answered(&format!("lost-{n}"), 200).await;
    }
    deployment.delivered("lost-19").await;
    until("what is going to be lost is signed", async || signed(&primary.url).await > before + 60).await;

    primary.crash();
    replica.promote();
    proxy.point_to(&replica.url);

    // New events take effect, although their positions were used before: changes, webhooks, deliveries.
    let told = async || deployment.warnings().await.is_some_and(|warnings| warnings.contains("the log lost its end"));
    until("the node reports that the log lost its end", told).await;
    deployment.change("setProviderActive", "SetActiveInput", "id", json!({ "isActive": false })).await;
    deployment.answered("refused", 403).await;
    deployment.change("setProviderActive", "SetActiveInput", "id", json!({ "isActive": true })).await;
    deployment.answered("new", 200).await;
    deployment.listed("new", "SUCCESS").await;
    deployment.delivered("new").await;
    // A lost webhook that is sent again is new; a kept one is a duplicate.
    assert_eq!(deployment.answered("lost-19", 200).await["duplicate"], false);
    assert_eq!(deployment.answered("kept", 200).await["duplicate"], true);
    deployment.listed("lost-19", "SUCCESS").await;

    let (holds, told) = deployment.audit(&["audit", "verify"]);
    assert!(!holds, "{told}");
    let declare = ["audit", "declare-loss", "--reason", "the replica lacked the last minute", "--yes"];
    let (declared, told) = deployment.audit(&declare);
    assert!(declared, "{told}");
    let (holds, told) = deployment.audit(&["audit", "verify"]);
    assert!(holds, "{told}");
    assert!(told.contains("declared loss: organization acme"), "{told}");
    until("nothing is left to be declared", async || {
        deployment.warnings().await.is_some_and(|left| !left.contains("declare-loss"))
    })
    .await;
    // Also with checkpoints that are signed later.
    let before = signed(&replica.url).await;
    deployment.answered("later", 200).await;
    until("more is signed", async || signed(&replica.url).await > before).await;
    let (holds, told) = deployment.audit(&["audit", "verify"]);
    assert!(holds, "{told}");
}
