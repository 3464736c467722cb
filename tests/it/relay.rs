//! The relay: the log is mirrored exactly once and in order, whatever fails, and nothing waits for it.
//! The server is a double (`eventstore`).

use std::time::{Duration, Instant};

use hookledger::log::Heads;
use hookledger::log::follow::Leases;
use hookledger::log::relay::{Relay, RelayError, Target, event_id, stream_name};
use hookledger::platform::store::{Store, Use};
use hookledger::platform::vitals::Vitals;
use hookledger_aggregates::Partition;
use reqwest::StatusCode;
use secrecy::SecretString;
use serde_json::Value;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::{Database, GITHUB_SECRET, TestApp};
use crate::eventstore::{Double, Fault, Kept};
use crate::patience::until;

/// A node that runs only the relay.
struct Running {
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Running {
    async fn start(store: &Store, url: &str) -> Self {
        let (pool, heads) = (store.pool(Use::Follow).await.unwrap(), Heads::default());
        let (stop, target) = (CancellationToken::new(), target(url).await.unwrap());
        let leases = Leases::new(pool.clone(), Uuid::new_v4());
        let relay = Relay { target, pool: pool.clone(), heads: heads.clone(), leases: leases.clone() };
        let tasks = vec![
            tokio::spawn(leases.run(Vitals::default(), stop.clone())),
            tokio::spawn(heads.poll(pool, stop.clone())),
            tokio::spawn(relay.run(stop.clone())),
        ];
        Self { stop, tasks }
    }

    async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }

    /// Ends it like a crash of its machine: the lease is not released.
    fn kill(self) {
        for task in self.tasks {
            task.abort();
        }
    }
}

async fn target(url: &str) -> Result<Target, RelayError> {
    Target::new(&SecretString::from(url)).await
}

/// Appends events to every partition, as writers would.
async fn fill(pool: &PgPool, each: i64) {
    sqlx::query(
        "insert into commits (partition, position, events, aggregate_type, stream_id, first_sequence, organization_id,
                              recorded_at, metadata, data)
             select h.partition, h.position + n, 1, 'webhook', gen_random_uuid(), 1,
                    ('00000000-0000-0000-0000-' || lpad(h.partition::text, 12, '0'))::uuid,
                    now() + n * interval '1 microsecond', '{\"actor\":\"sender\"}',
                    concat_ws(E'\\t', 'webhook.test', '1',
                              json_build_object('n', n, 'text', repeat('x', 200), 'odd', 'é\"')::text)
             from log_heads h cross join generate_series(1, $1) n",
    )
    .bind(each)
    .execute(pool)
    .await
    .unwrap();
}

/// Every stream has the partition's events, each once, in the order of the log.
async fn is_mirrored(pool: &PgPool, double: &Double) {
    for partition in Partition::all() {
        let log: Vec<(i64, String, String, String)> = sqlx::query_as(
            "select position, event_type, payload::text, aggregate_id from events where partition = $1 order by position",
        )
        .bind(partition.number())
        .fetch_all(pool)
        .await
        .unwrap();
        let mirror = double.stream(&stream_name(partition));
        assert_eq!(mirror.len(), log.len(), "partition {partition}");
        for (kept, (position, event_type, payload, aggregate)) in mirror.iter().zip(&log) {
            let envelope: Value = serde_json::from_slice(&kept.metadata).unwrap();
            assert_eq!(kept.id, event_id(partition, *position));
            assert_eq!((&kept.event_type, kept.data.as_slice()), (event_type, payload.as_bytes()));
            assert_eq!(envelope["position"], *position);
            assert_eq!(envelope["partition"], partition.number());
            assert_eq!(envelope["aggregateId"], aggregate.as_str());
            assert!(envelope["recordedAt"].is_string() && envelope["metadata"].is_object(), "{envelope}");
        }
    }
}

async fn stopped_by(pool: &PgPool, partition: Partition) -> Option<String> {
    sqlx::query_scalar("select stopped_by from follower_checkpoints where name = 'relay' and partition = $1")
        .bind(partition.number())
        .fetch_optional(pool)
        .await
        .unwrap()
        .flatten()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_mirrored_once_and_in_order_through_restarts_of_either_side() {
    let (database, double) = (Database::fresh().await, Double::start().await);
    let (store, pool) = (database.store(), database.superuser().await);
    // 100,000 events in all.
    let (rounds, each) = (10, 625);
    let mut relay = Running::start(&store, &double.url()).await;
    // A second node, which waits for the lease, or takes it over.
    let other = Running::start(&store, &double.url()).await;
    let started = Instant::now();
    let mut total = 0;
    for round in 0..rounds {
        fill(&pool, each).await;
        let before = total;
        total += usize::try_from(each).unwrap() * 16;
        match round {
            // In the middle of the round each time: some of its events are mirrored, not all.
            1 => {
                until("some events come", async || double.count() > before).await;
                relay.stop().await;
                relay = Running::start(&store, &double.url()).await;
            }
            2 | 5 => {
                until("some events come", async || double.count() > before).await;
                double.kill();
                tokio::time::sleep(Duration::from_millis(300)).await;
                double.restart().await;
            }
            3 => {
                until("some events come", async || double.count() > before).await;
                relay.kill();
                relay = Running::start(&store, &double.url()).await;
            }
            4 | 7 => {
                let (fault, before) =
                    (if round == 4 { Fault::BreakAfterCommit } else { Fault::AnswerNothing }, double.appends());
                double.misbehave(fault);
                until("an append meets the fault", async || double.appends() > before).await;
                double.misbehave(Fault::None);
            }
            6 => {
                double.misbehave(Fault::Hang);
                tokio::time::sleep(Duration::from_millis(200)).await;
                double.kill();
                double.misbehave(Fault::None);
                double.restart().await;
            }
            _ => until("a round is mirrored", async || double.count() == total).await,
        }
    }
    until("everything is mirrored", async || double.count() >= total).await;
    eprintln!("{total} events mirrored in {:.1?}, by {} appends", started.elapsed(), double.appends());
    is_mirrored(&pool, &double).await;
    relay.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_the_mirror_is_never_written_to_and_stops_no_other() {
    let (database, double) = (Database::fresh().await, Double::start().await);
    let (store, pool) = (database.store(), database.superuser().await);
    let [foreign, ahead, refused] = [3, 5, 15].map(|number| Partition::new(number).unwrap());
    fill(&pool, 5).await;
    let kept = |id| Kept { id, event_type: "x".to_owned(), data: b"{}".to_vec(), metadata: b"{}".to_vec() };
    // A foreign event; and, under our own IDs, events of a log that was longer than this one.
    double.put("hookledger-3", kept(Uuid::new_v4()));
    for position in 1..=6 {
        double.put("hookledger-5", kept(event_id(ahead, position)));
    }
    // Under our ID, but an event from before the log was restored.
    double.put("hookledger-15", kept(event_id(refused, 1)));
    let relay = Running::start(&store, &double.url()).await;
    for partition in [foreign, ahead, refused] {
        until("it stops", async || stopped_by(&pool, partition).await.is_some()).await;
    }
    until("the others are mirrored", async || double.count() == 13 * 5 + 8).await;
    assert!(stopped_by(&pool, foreign).await.unwrap().contains("is not the event at position 1"));
    assert!(stopped_by(&pool, ahead).await.unwrap().contains("no event at position 6"));
    assert!(stopped_by(&pool, Partition::new(0).unwrap()).await.is_none());
    assert_eq!([3, 5, 15].map(|n| double.stream(&format!("hookledger-{n}")).len()), [1, 6, 1]);
    relay.stop().await;

    // After the repair, it continues.
    for number in [3, 5, 15] {
        double.remove(&format!("hookledger-{number}"));
    }
    let relay = Running::start(&store, &double.url()).await;
    until("everything is mirrored", async || double.count() == 16 * 5).await;
    is_mirrored(&pool, &double).await;
    until("nothing is stopped", async || stopped_by(&pool, foreign).await.is_none()).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_was_set_back_is_filled_again_whatever_the_checkpoint_says() {
    let (database, double) = (Database::fresh().await, Double::start().await);
    let (store, pool) = (database.store(), database.superuser().await);
    fill(&pool, 20).await;
    let relay = Running::start(&store, &double.url()).await;
    until("everything is mirrored", async || double.count() == 16 * 20).await;
    relay.stop().await;
    let all = double.stream("hookledger-2");
    double.remove("hookledger-2");
    for event in &all[..7] {
        double.put("hookledger-2", event.clone());
    }
    let relay = Running::start(&store, &double.url()).await;
    until("everything is mirrored again", async || double.count() == 16 * 20).await;
    is_mirrored(&pool, &double).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_stops_a_partition_without_a_word_written() {
    let (database, double) = (Database::fresh().await, Double::start().await);
    let (store, pool) = (database.store(), database.superuser().await);
    fill(&pool, 1).await;
    double.misbehave(Fault::RefuseAppends);
    let relay = Running::start(&store, &double.url()).await;
    let first = Partition::new(0).unwrap();
    until("it stops", async || stopped_by(&pool, first).await.is_some()).await;
    assert!(stopped_by(&pool, first).await.unwrap().contains("refuses the next event, at position 1"));
    assert_eq!(double.count(), 0);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eventstore_that_is_down_or_hangs_holds_up_nothing() {
    let double = Double::start().await;
    double.kill();
    let app = TestApp::with(|settings| settings.eventstore_url = Some(SecretString::from(double.url()))).await;
    let admin = app.super_admin().await;
    app.organization(&admin, "acme", &[("GITHUB", GITHUB_SECRET)]).await;
    for (state, wave) in [("down", 0), ("hanging", 1), ("well", 2)] {
        match state {
            "hanging" => {
                double.misbehave(Fault::Hang);
                double.restart().await;
            }
            "well" => {
                double.misbehave(Fault::None);
                double.restart().await;
            }
            _ => {}
        }
        for n in 0..20 {
            let answer = app.github("acme", &format!("{wave}-{n}"), "{}").send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
        }
        let total = (wave + 1) * 20;
        admin.webhooks_until("acme", "status", |nodes| nodes.len() == total).await;
        let ready = app.client.get(format!("{}/readyz", app.url)).send().await.unwrap();
        assert_eq!(ready.status(), StatusCode::OK, "{}", ready.text().await.unwrap());
    }
    let pool = app.database.superuser().await;
    let events = async || sqlx::query_scalar::<_, i64>("select count(*) from events").fetch_one(&pool).await.unwrap();
    until("everything is mirrored", async || i64::try_from(double.count()).unwrap() == events().await).await;
    is_mirrored(&pool, &double).await;
    // It also stops while the server hangs.
    double.misbehave(Fault::Hang);
    app.github("acme", "last", "{}").send().await.unwrap();
    app.stop().await;
}

#[tokio::test]
async fn what_cannot_work_is_said_at_the_start_and_without_the_password() {
    for (url, told) in [
        ("esdb://admin:s3cret@", "HOOKLEDGER_EVENTSTORE_URL is not"),
        ("https://admin:s3cret@localhost:2113", "Unknown URL scheme"),
        ("esdb://admin:s3cret@a:99999,b:1", "HOOKLEDGER_EVENTSTORE_URL is not"),
        ("esdb://localhost?tlsCaFile=/nowhere/ca.pem", "/nowhere/ca.pem"),
        ("esdb://localhost?userCertFile=/nowhere/c&userKeyFile=/nowhere/k", "/nowhere/c"),
    ] {
        let error = target(url).await.unwrap_err().to_string();
        assert!(error.contains(told) && !error.contains("s3cret"), "{url}: {error}");
    }
    let debug = format!("{:?}", target("esdb://admin:s3cret@localhost?tls=false").await.unwrap());
    assert!(debug.contains("localhost") && !debug.contains("s3cret"), "{debug}");
}

/// The client panics at every connection.
#[tokio::test]
async fn a_tls_implementation_that_was_chosen_before_is_found_at_the_start() {
    // For the whole process: with nextest, that is this test.
    if std::env::var_os("NEXTEST").is_none() {
        return;
    }
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let error = target("esdb://localhost?tls=false").await.unwrap_err();
    assert!(matches!(error, RelayError::TlsIsTaken), "{error}");
}
