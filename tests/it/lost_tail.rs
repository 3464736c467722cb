//! A database that comes back without the end of its log, as a promoted replica or a restored backup is.

use hookledger::log::{AppendError, Heads, Log, NewEvent, Sequence, Unit, Writer};
use hookledger::store::Use;
use hookledger::vitals::Vitals;
use hookledger_aggregates::webhook::WebhookEvent;
use hookledger_aggregates::{Metadata, OrganizationId};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::app::Database;

fn unit(organization: OrganizationId, stream: Uuid, sequences: std::ops::RangeInclusive<i64>) -> Unit {
    let event = WebhookEvent::AttemptStarted { attempt: 1 };
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

/// What a replica that was promoted lacks.
async fn lose(superuser: &PgPool, partition: i32, after: i64) {
    let mut transaction = superuser.begin().await.unwrap();
    for sql in [
        "set local session_replication_role = replica".to_owned(),
        format!("delete from events where partition = {partition} and position > {after}"),
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
    log.append(unit(organization, stream, 1..=5)).await.unwrap();
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

    // What was decided on the events that are gone is decided again, and not appended behind the gap.
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
    // Nothing that is only read again begins another one.
    let third = heads.epoch();
    for _ in 0..5 {
        heads.refresh(&pool).await.unwrap();
    }
    assert_eq!(heads.epoch(), third);
    for stop in [stop, stop_other, stop_polling] {
        stop.cancel();
    }
}
