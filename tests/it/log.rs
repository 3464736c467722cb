//! The invariants of the log, against a real PostgreSQL.

use std::collections::HashMap;

use hookledger::log::{
    AppendError, Body, Commands, Heads, Log, LogPosition, LogSpan, NewEvent, Reader, Scope, Sequence, Unit, Writer,
    events_of,
};
use hookledger::platform::store::Use;
use hookledger::platform::vitals::Vitals;
use hookledger_aggregates::organization::{Organization, OrganizationCommand, Plan};
use hookledger_aggregates::provider::ProviderEvent;
use hookledger_aggregates::webhook::WebhookEvent;
use hookledger_aggregates::{Metadata, OrganizationId, Partition, RecordedEvent, Routing, WebhookId};
use sqlx::Executor as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::Database;

struct TestLog {
    database: Database,
    log: Log,
    heads: Heads,
    reader: Reader,
    stop: CancellationToken,
}

impl TestLog {
    async fn fresh() -> Self {
        Self::on(Database::fresh().await).await
    }

    async fn on(database: Database) -> Self {
        let pool = database.store().pool(Use::Append).await.unwrap();
        let heads = Heads::default();
        let (log, writer) = Writer::new(pool.clone(), heads.clone());
        let stop = CancellationToken::new();
        tokio::spawn(writer.run(Vitals::default(), stop.clone()));
        Self { database, log, heads, reader: Reader::new(pool), stop }
    }

    async fn everything(&self) -> Vec<RecordedEvent> {
        let cursors: Vec<_> = Partition::all().map(|partition| LogPosition { partition, position: 0 }).collect();
        let batch = self.reader.after(&cursors, Scope::All, 1_000_000).await.unwrap();
        assert!(batch.broken.is_empty(), "{:?}", batch.broken);
        batch.events
    }
}

fn event(organization: OrganizationId, id: Uuid, sequence: Sequence) -> NewEvent {
    let event = WebhookEvent::Merged { into: WebhookId::default() };
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
    // A concurrent reader never sees a position before the lower ones.
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

/// Follows until stopped, a few events at a time. Returns every event, decoded and as stored.
async fn follow(reader: Reader, stop: CancellationToken) -> (Vec<String>, Vec<String>) {
    let mut cursors: Vec<_> = Partition::all().map(|partition| LogPosition { partition, position: 0 }).collect();
    let (mut events, mut stored) = (Vec::new(), Vec::new());
    loop {
        let is_last = stop.is_cancelled();
        let columns = reader.stored_after(&cursors, 5, |_, event| event.to_owned()).await.unwrap().events;
        let batch = reader.after(&cursors, Scope::All, 5).await.unwrap().events;
        let seen = |partition: i32, position| {
            batch.iter().any(|e| (e.partition.number(), e.position) == (partition, position))
        };
        // The second look may see more.
        stored.extend(columns.iter().filter(|event| seen(event.partition, event.position)).map(|e| format!("{e:?}")));
        let known = columns.iter().map(|event| (event.partition, event.position)).collect::<Vec<_>>();
        for event in batch.iter().filter(|event| known.contains(&(event.partition.number(), event.position))) {
            cursors[event.partition.index()].position = event.position;
            events.push(format!("{event:?}"));
        }
        if is_last && batch.is_empty() {
            events.sort();
            stored.sort();
            return (events, stored);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_from_memory_are_those_of_the_log() {
    let first = TestLog::fresh().await;
    let second = TestLog::on(Database { url: first.database.url.clone() }).await;
    let pool = first.database.store().pool(Use::Work).await.unwrap();
    let stop = CancellationToken::new();
    let polling = tokio::spawn(first.heads.clone().poll(pool.clone(), stop.clone()));
    let following = tokio::spawn(follow(Reader::with_recent(pool.clone(), first.heads.clone()), stop.clone()));
    let mut tasks = Vec::new();
    for (number, organization) in (0..).zip(organizations()) {
        let (ours, others) = (first.log.clone(), second.log.clone());
        tasks.push(tokio::spawn(async move {
            let duplicates = Uuid::new_v4();
            for n in 0..60 {
                // Some come from another node, and for some the database chooses the sequence.
                let log = if (n + number) % 20 == 0 { &others } else { &ours };
                let mut unit = unit(organization, Uuid::new_v4(), 1 + n % 3);
                if n % 15 == 0 {
                    unit.events.push(event(organization, duplicates, Sequence::End));
                }
                log.append(unit).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    stop.cancel();
    polling.await.unwrap();
    let (events, stored) = following.await.unwrap();
    let after = follow(Reader::new(pool.clone()), stop).await;
    assert_eq!(events.len(), after.0.len());
    assert_eq!((events, stored), after);

    // They come from memory: the database is not queried.
    let organization = OrganizationId::from_slug("o1");
    first.heads.refresh(&pool).await.unwrap();
    let last = first.log.append(unit(organization, Uuid::new_v4(), 2)).await.unwrap().last;
    let gone = first.database.store().pool(Use::Work).await.unwrap();
    gone.close().await;
    let cursor = LogPosition { position: last.position - 2, ..last };
    let reader = Reader::with_recent(gone, first.heads.clone());
    assert_eq!(reader.after(&[cursor], Scope::All, 10).await.unwrap().events.len(), 2);
    assert_eq!(reader.after(&[cursor], Scope::Pending, 10).await.unwrap().events.len(), 0);
    first.stop.cancel();
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
    // If one of a unit's two streams is in conflict, the unit is not appended at all.
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
        "update commits set data = ''",
        "delete from commits",
        "truncate commits",
        "update commits set position = 9 where false",
    ] {
        let refused = worker.execute(statement).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "42501", "{statement}: {refused}");
        let refused = owner.execute(statement).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "23001", "{statement}: {refused}");
    }
    for statement in [
        "alter table commits disable trigger commits_are_immutable",
        "drop table commits",
        "update events set payload = '{}'",
        "delete from events",
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
    // Each of many concurrent changes is decided on the result of the others.
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

#[tokio::test]
async fn a_read_that_reaches_its_limit_says_that_there_may_be_more() {
    let test = TestLog::fresh().await;
    let organization = OrganizationId::from_slug("a");
    for _ in 0..4 {
        let id = Uuid::new_v4();
        let merged = || WebhookEvent::Merged { into: WebhookId::default() };
        let events = [merged(), WebhookEvent::Routed(Routing::default()), merged()];
        let new = (1..).zip(&events).map(|(sequence, event)| {
            NewEvent::of(organization, id, Sequence::At(sequence), event, &Metadata::default()).unwrap()
        });
        test.log.append(Unit::new(new.collect())).await.unwrap();
    }
    let after = |position| LogPosition { partition: organization.partition(), position };
    let memory = Reader::with_recent(test.database.store().pool(Use::Follow).await.unwrap(), test.heads.clone());
    for reader in [&test.reader, &memory] {
        let read = async |position, limit| {
            let batch = reader.after(&[after(position)], Scope::Pending, limit).await.unwrap();
            (batch.events.iter().map(|event| event.position).collect::<Vec<_>>(), batch.full)
        };
        let full = vec![organization.partition()];
        assert_eq!(read(0, 2).await, (vec![2, 5], full.clone()));
        assert_eq!(read(0, 10).await, (vec![2, 5, 8, 11], vec![]));
        // The first commit was read in part: what is left of it counts, though it has nothing more to say.
        let (positions, is_full) = read(2, 2).await;
        assert!(positions == [5] || positions == [5, 8], "{positions:?}");
        assert_eq!(is_full, full);
        assert_eq!(read(8, 10).await, (vec![11], vec![]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_spans_partitions_is_placed_where_its_last_event_is() {
    let test = TestLog::fresh().await;
    let all = organizations();
    let crowded = all[0];
    let quiet = *all.iter().find(|other| other.partition() != crowded.partition()).unwrap();
    test.log.append(unit(crowded, Uuid::from_u128(1), 50)).await.unwrap();
    // Appended by the simple function, and by the checked one where the database chooses the sequence.
    for (number, last) in [(2, Sequence::At(1)), (3, Sequence::End)] {
        let id = Uuid::from_u128(number);
        let spanning = Unit::new(vec![event(crowded, id, Sequence::At(1)), event(quiet, Uuid::now_v7(), last)]);
        let placed = test.log.append(spanning).await.unwrap().last;
        assert_eq!(placed.partition, quiet.partition());
        assert_eq!(placed.position, i64::try_from(number).unwrap() - 1);
    }
    test.stop.cancel();
}

/// Events of one stream from a sequence on.
fn run(organization: OrganizationId, id: Uuid, first: i64, count: i64) -> Unit {
    Unit::new((first..first + count).map(|sequence| event(organization, id, Sequence::At(sequence))).collect())
}

#[tokio::test]
async fn a_commit_begins_where_its_stream_ends_and_nowhere_else() {
    let test = TestLog::fresh().await;
    let (organization, id) = (OrganizationId::from_slug("a"), Uuid::new_v4());
    test.log.append(run(organization, id, 1, 3)).await.unwrap();
    // Over it, within it, across its end, and after a gap: the first try does not look for conflicts.
    for (first, count) in [(1, 1), (1, 5), (2, 1), (3, 1), (3, 2), (5, 1), (100, 1)] {
        for _ in 0..5 {
            test.log.append(unit(organization, Uuid::new_v4(), 1)).await.unwrap();
        }
        let appended = test.log.append(run(organization, id, first, count)).await;
        assert!(matches!(appended, Err(AppendError::Conflict)), "{first} {count}: {appended:?}");
        // The next few flushes check every unit.
        let appended = test.log.append(run(organization, id, first, count)).await;
        assert!(matches!(appended, Err(AppendError::Conflict)), "{first} {count}: {appended:?}");
    }
    test.log.append(run(organization, id, 4, 2)).await.unwrap();
    let end = Unit::new(vec![event(organization, id, Sequence::End), event(organization, id, Sequence::End)]);
    test.log.append(end).await.unwrap();
    let sequences: Vec<i64> = test
        .reader
        .stream(organization, "webhook", id, 100)
        .await
        .unwrap()
        .iter()
        .map(|event| event.sequence)
        .collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn units_of_one_flush_go_on_from_each_other_and_not_from_one_that_is_left_out() {
    let test = TestLog::fresh().await;
    let (organization, id, other) = (OrganizationId::from_slug("a"), Uuid::new_v4(), Uuid::new_v4());
    test.log.append(run(organization, other, 1, 1)).await.unwrap();
    let mut refused = run(organization, id, 4, 1);
    refused.events.extend(run(organization, other, 1, 1).events);
    let units = vec![
        run(organization, id, 1, 2),
        run(organization, id, 3, 1),
        run(organization, id, 3, 2),
        refused,
        run(organization, id, 5, 1),
        Unit::new(vec![event(organization, id, Sequence::End)]),
    ];
    let answers: Vec<bool> = test.log.append_all(units).await.unwrap().iter().map(Result::is_ok).collect();
    assert_eq!(answers, [true, true, false, false, false, true]);
    let events = test.reader.stream(organization, "webhook", id, 100).await.unwrap();
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(test.everything().await.len(), 5);
}

#[tokio::test]
async fn a_cursor_within_a_commit_reads_on_with_its_next_event() {
    let test = TestLog::fresh().await;
    let organization = OrganizationId::from_slug("a");
    let place = test.log.append(run(organization, Uuid::new_v4(), 1, 250)).await.unwrap().last;
    let last = test.log.append(run(organization, Uuid::new_v4(), 1, 3)).await.unwrap().last;
    assert_eq!((place.position, last.position), (250, 253));
    let pool = test.database.superuser().await;
    for after in 0..=253 {
        let cursor = LogPosition { position: after, ..last };
        for limit in [1, 7, 1_000] {
            let batch = test.reader.after(&[cursor], Scope::All, limit).await.unwrap();
            let positions: Vec<i64> = batch.events.iter().map(|event| event.position).collect();
            let count = i64::try_from(positions.len()).unwrap();
            assert_eq!(positions, (after + 1..=after + count).collect::<Vec<_>>());
            assert!(after == 253 || count >= limit.min(253 - after), "{after} {limit}: {count}");
        }
        let span = LogSpan { after: Some(after), ..Default::default() };
        let events = events_of(&pool, organization, &span, 5).await.unwrap();
        let positions: Vec<i64> = events.iter().map(|event| event.position).collect();
        assert_eq!(positions, (after + 1..=253.min(after + 5)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_organizations_log_is_read_by_time() {
    let test = TestLog::fresh().await;
    let (quiet, busy) = (OrganizationId::from_slug("a"), OrganizationId::from_slug("b"));
    for n in 0..30 {
        test.log.append(unit(if n % 3 == 0 { quiet } else { busy }, Uuid::new_v4(), 1 + n % 2)).await.unwrap();
    }
    let pool = test.database.superuser().await;
    let read = async |span: LogSpan| events_of(&pool, quiet, &span, 1_000).await.unwrap();
    let places = |events: &[RecordedEvent]| events.iter().map(|event| event.position).collect::<Vec<_>>();
    let all = read(LogSpan::default()).await;
    assert_eq!(all.len(), 15);
    let moment = chrono::TimeDelta::microseconds(1);
    for event in &all {
        for at in [event.recorded_at - moment, event.recorded_at, event.recorded_at + moment] {
            let since = read(LogSpan { from: Some(at), ..Default::default() }).await;
            let expected: Vec<_> = all.iter().filter(|event| event.recorded_at >= at).cloned().collect();
            assert_eq!(places(&since), places(&expected));
            let before = read(LogSpan { to: Some(at), ..Default::default() }).await;
            let expected: Vec<_> = all.iter().filter(|event| event.recorded_at < at).cloned().collect();
            assert_eq!(places(&before), places(&expected));
        }
    }
}
