//! The invariants of the log, against a real PostgreSQL.

use std::collections::HashMap;

use hookledger::log::{
    AppendError, Body, Commands, Heads, Log, LogPosition, NewEvent, Reader, Scope, Sequence, Unit, Writer,
};
use hookledger::platform::store::Use;
use hookledger::platform::vitals::Vitals;
use hookledger_aggregates::organization::{Organization, OrganizationCommand, Plan};
use hookledger_aggregates::provider::ProviderEvent;
use hookledger_aggregates::webhook::WebhookEvent;
use hookledger_aggregates::{Metadata, OrganizationId, Partition, WebhookId};
use sqlx::Executor as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::Database;

struct TestLog {
    database: Database,
    log: Log,
    reader: Reader,
    stop: CancellationToken,
}

impl TestLog {
    async fn fresh() -> Self {
        Self::on(Database::fresh().await).await
    }

    async fn on(database: Database) -> Self {
        let pool = database.store().pool(Use::Append).await.unwrap();
        let (log, writer) = Writer::new(pool.clone(), Heads::default());
        let stop = CancellationToken::new();
        tokio::spawn(writer.run(Vitals::default(), stop.clone()));
        Self { database, log, reader: Reader::new(pool), stop }
    }

    async fn everything(&self) -> Vec<hookledger_aggregates::RecordedEvent> {
        let cursors: Vec<_> = Partition::all().map(|partition| LogPosition { partition, position: 0 }).collect();
        let batch = self.reader.after(&cursors, Scope::All, 1_000_000).await.unwrap();
        assert!(batch.broken.is_empty(), "{:?}", batch.broken);
        batch.events
    }
}

fn event(organization: OrganizationId, id: Uuid, sequence: Sequence) -> NewEvent {
    let event = WebhookEvent::AttemptStarted { attempt: 1 };
    NewEvent::of(organization, id, sequence, &event, &Metadata::default()).unwrap()
}

fn unit(organization: OrganizationId, id: Uuid, count: i64) -> Unit {
    Unit::new((1..=count).map(|sequence| event(organization, id, Sequence::At(sequence))).collect())
}

fn organizations() -> Vec<OrganizationId> {
    (0..40).map(|n| OrganizationId::from_slug(&format!("o{n}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_have_no_gaps_when_writers_race() {
    let first = TestLog::fresh().await;
    let second = TestLog::on(Database { url: first.database.url.clone() }).await;
    // A reader that follows while they race never sees a position before the ones below it.
    let follower = {
        let (reader, stop) = (first.reader.clone(), first.stop.clone());
        tokio::spawn(async move {
            let mut cursors: Vec<_> =
                Partition::all().map(|partition| LogPosition { partition, position: 0 }).collect();
            let mut seen = 0;
            loop {
                let last_round = stop.is_cancelled();
                // `after` itself fails on a gap.
                let batch = reader.after(&cursors, Scope::All, 50).await.unwrap();
                for event in &batch.events {
                    cursors[event.partition.index()].position = event.position;
                }
                seen += batch.events.len();
                if last_round && batch.events.is_empty() {
                    return seen;
                }
            }
        })
    };
    let mut tasks = Vec::new();
    for log in [&first.log, &second.log] {
        for organization in organizations() {
            let log = log.clone();
            tasks.push(tokio::spawn(async move {
                for n in 0..25 {
                    log.append(unit(organization, Uuid::new_v4(), 1 + n % 3)).await.unwrap();
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    first.stop.cancel();
    let events = first.everything().await;
    let expected: i64 = (0..25).map(|n| 1 + n % 3).sum::<i64>() * 80;
    assert_eq!(events.len(), usize::try_from(expected).unwrap());
    assert_eq!(follower.await.unwrap(), events.len());
    let mut last: HashMap<Partition, (i64, chrono::DateTime<chrono::Utc>)> = HashMap::new();
    for event in events {
        let before = last.insert(event.partition, (event.position, event.recorded_at));
        assert_eq!(before.map_or(0, |(position, _)| position) + 1, event.position);
        assert!(before.is_none_or(|(_, at)| at <= event.recorded_at), "time went backwards");
        assert_eq!(event.partition, event.organization.partition());
    }
    second.stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_racers_gets_a_sequence() {
    let racers = TestLog::fresh().await;
    let second = TestLog::on(Database { url: racers.database.url.clone() }).await;
    let (organization, id) = (OrganizationId::from_slug("a"), Uuid::new_v4());
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let log = if n % 2 == 0 { racers.log.clone() } else { second.log.clone() };
            tokio::spawn(async move { log.append(unit(organization, id, 2)).await })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert!(matches!(error, AppendError::Conflict), "{error}"),
        }
    }
    assert_eq!((won, racers.everything().await.len()), (1, 2));
}

#[tokio::test]
async fn a_conflict_of_one_unit_leaves_the_rest() {
    let test = TestLog::fresh().await;
    let organization = OrganizationId::from_slug("a");
    let taken = Uuid::new_v4();
    test.log.append(unit(organization, taken, 1)).await.unwrap();
    let (repeated, fresh) = (Uuid::new_v4(), Uuid::new_v4());
    let elsewhere = OrganizationId::from_slug("b");
    // A unit over two streams of which one is taken goes in with neither.
    let spanning =
        Unit::new(vec![event(elsewhere, Uuid::new_v4(), Sequence::At(1)), event(organization, taken, Sequence::At(1))]);
    let verdicts = test
        .log
        .append_all(vec![
            unit(organization, taken, 2),
            unit(organization, fresh, 2),
            unit(organization, repeated, 1),
            unit(organization, repeated, 1),
            spanning,
            Unit::new(vec![event(organization, taken, Sequence::End)]),
            Unit::new(vec![event(organization, fresh, Sequence::End)]),
            Unit::new(vec![event(organization, taken, Sequence::End)]),
        ])
        .await
        .unwrap();
    let good: Vec<_> = verdicts.iter().map(Result::is_ok).collect();
    assert_eq!(good, [false, true, true, false, false, true, true, true]);
    let stream = |id| {
        let reader = test.reader.clone();
        async move {
            let events = reader.stream(organization, "webhook", id, 100).await.unwrap();
            events.iter().map(|event| event.sequence).collect::<Vec<_>>()
        }
    };
    assert_eq!(stream(taken).await, [1, 2, 3]);
    assert_eq!(stream(fresh).await, [1, 2, 3]);
    assert_eq!(stream(repeated).await, [1]);
    assert_eq!(test.everything().await.len(), 7);
}

#[tokio::test]
async fn a_body_is_stored_with_its_unit_or_not_at_all() {
    let test = TestLog::fresh().await;
    let organization = OrganizationId::from_slug("a");
    let webhook = WebhookId::new(Uuid::new_v4());
    let with_body = |bytes: &'static [u8]| Unit {
        body: Some(Body { organization, webhook, headers: b"a:b\n".as_slice().into(), body: bytes.into() }),
        ..unit(organization, webhook.uuid(), 1)
    };
    test.log.append(with_body(b"\0\xff first")).await.unwrap();
    assert!(matches!(test.log.append(with_body(b"second")).await, Err(AppendError::Conflict)));
    let raw = test.reader.body(organization, webhook).await.unwrap().unwrap();
    assert_eq!((raw.body, raw.headers), (b"\0\xff first".to_vec(), b"a:b\n".to_vec()));
    let other = OrganizationId::from_slug("b");
    assert!(test.reader.body(other, webhook).await.unwrap().is_none());
}

#[tokio::test]
async fn history_cannot_be_rewritten() {
    let test = TestLog::fresh().await;
    let organization = OrganizationId::from_slug("a");
    test.log.append(unit(organization, Uuid::new_v4(), 1)).await.unwrap();
    let worker = test.database.store().pool(Use::Work).await.unwrap();
    let owner = test.database.superuser().await;
    for statement in [
        "update events set payload = '{}'",
        "delete from events",
        "truncate events",
        "update events set position = 9 where false",
    ] {
        let refused = worker.execute(statement).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "42501", "{statement}: {refused}");
        let refused = owner.execute(statement).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "23001", "{statement}: {refused}");
    }
    for statement in [
        "alter table events disable trigger events_are_immutable",
        "drop table events",
        "delete from log_heads",
        "update webhook_bodies set body = ''",
        "create table mine (id int)",
    ] {
        assert!(worker.execute(statement).await.is_err(), "{statement}");
    }
    assert_eq!(test.everything().await.len(), 1);
}

#[tokio::test]
async fn commands_run_through_cqrs_es_and_decide_again_after_a_conflict() {
    let test = TestLog::fresh().await;
    let pool = test.database.store().pool(Use::Work).await.unwrap();
    let commands = Commands::new(pool, test.log.clone());
    let id = OrganizationId::from_slug("acme");
    let create = OrganizationCommand::Create {
        name: "Acme".parse().unwrap(),
        slug: "acme".parse().unwrap(),
        plan: Plan::Free,
        webhook_limit: Some(1),
    };
    let place = commands.execute::<Organization>(id, id.uuid(), create, &Metadata::default()).await.unwrap();
    assert_eq!(place.unwrap().position, 1);
    // Each of many changes at once is decided on what the others left behind.
    let tasks: Vec<_> = (0..4)
        .map(|n| {
            let commands = commands.clone();
            let rename = OrganizationCommand::Update {
                name: Some(format!("Acme {n}").parse().unwrap()),
                plan: None,
                webhook_limit: None,
            };
            tokio::spawn(async move {
                commands.execute::<Organization>(id, id.uuid(), rename, &Metadata::default()).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stream = test.reader.stream(id, "organization", id.uuid(), 100).await.unwrap();
    assert_eq!(stream.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let (metadata, unchanged) = (Metadata::default(), OrganizationCommand::SetActive(true));
    let nothing = commands.execute::<Organization>(id, id.uuid(), unchanged, &metadata).await;
    assert_eq!(nothing.unwrap(), None);
}

#[tokio::test]
async fn those_who_follow_people_do_not_read_the_traffic() {
    let test = TestLog::fresh().await;
    let organization = OrganizationId::from_slug("a");
    test.log.append(unit(organization, Uuid::new_v4(), 3)).await.unwrap();
    let activated = ProviderEvent::Activated {};
    let new = NewEvent::of(organization, Uuid::new_v4(), Sequence::At(1), &activated, &Metadata::default()).unwrap();
    test.log.append(Unit::new(vec![new])).await.unwrap();
    let cursors = [LogPosition { partition: organization.partition(), position: 0 }];
    let batch = test.reader.after(&cursors, Scope::Administrative, 100).await.unwrap();
    assert_eq!(batch.events.iter().map(|event| event.position).collect::<Vec<_>>(), [4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_spans_partitions_is_placed_where_its_last_event_is() {
    let test = TestLog::fresh().await;
    let all = organizations();
    let crowded = all[0];
    let quiet = *all.iter().find(|other| other.partition() != crowded.partition()).unwrap();
    test.log.append(unit(crowded, Uuid::from_u128(1), 50)).await.unwrap();
    // Appended with a look at nothing, and, where something has to be placed, with care.
    for (number, last) in [(2, Sequence::At(1)), (3, Sequence::End)] {
        let id = Uuid::from_u128(number);
        let spanning = Unit::new(vec![event(crowded, id, Sequence::At(1)), event(quiet, Uuid::now_v7(), last)]);
        let placed = test.log.append(spanning).await.unwrap().last;
        assert_eq!(placed.partition, quiet.partition());
        assert_eq!(placed.position, i64::try_from(number).unwrap() - 1);
    }
    test.stop.cancel();
}
