//! Whether everything that follows the log has caught up with it.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::PgConnection;

use crate::organizations::Behaviour;
use crate::postgres::Database;

const POLL: Duration = Duration::from_millis(150);
/// A longer look counts as hanging.
const LOOK_LIMIT: Duration = Duration::from_secs(15);

/// Positions of the log, by partition.
#[derive(Clone, Debug, Default)]
pub struct Heads(Vec<(i32, i64)>);

/// The work that is missing until everything is level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Events that a follower has not applied.
    pub followers: Vec<(String, i64)>,
    /// Webhooks whose delivery has not ended.
    pub open: i64,
}

impl Behind {
    #[must_use]
    pub fn is_level(&self) -> bool {
        self.followers.is_empty() && self.open == 0
    }
}

impl Heads {
    pub async fn read(database: &Database) -> Result<Self> {
        let mut connection = database.connect_patiently().await?;
        let query = "select partition, max(position + events - 1)::bigint from commits group by 1 order by 1";
        Ok(Self(sqlx::query_as(query).fetch_all(&mut connection).await?))
    }

    /// Waits until everything has caught up with these heads; returns how long that took, or what was missing
    /// at the end. With `hanging`, also waits for deliveries to the destination that never answers.
    pub async fn until_level(&self, database: &Database, hanging: bool, limit: Duration) -> Result<Duration, Behind> {
        let started = Instant::now();
        let mut behind = Behind { followers: vec![("everything".to_owned(), 0)], open: 0 };
        let mut connection = None;
        while started.elapsed() < limit {
            if connection.is_none() {
                connection = database.connect().await.ok();
            }
            let Some(mut open) = connection.take() else {
                tokio::time::sleep(POLL).await;
                continue;
            };
            if let Ok(Ok(now)) = tokio::time::timeout(LOOK_LIMIT, self.look(&mut open, hanging)).await {
                behind = now;
                connection = Some(open);
                if behind.is_level() {
                    return Ok(started.elapsed());
                }
            }
            tokio::time::sleep(POLL).await;
        }
        Err(behind)
    }

    async fn look(&self, connection: &mut PgConnection, hanging: bool) -> Result<Behind, sqlx::Error> {
        let (partitions, positions): (Vec<i32>, Vec<i64>) = self.0.iter().copied().unzip();
        let followers = "select name, sum(h.position - coalesce(c.position, 0))::bigint
             from unnest(array['webhook_logs', 'ledger']) as name
             cross join unnest($1::int[], $2::bigint[]) as h (partition, position)
             left join follower_checkpoints c using (name, partition)
             where h.position > coalesce(c.position, 0) group by name";
        let followers =
            sqlx::query_as(followers).bind(&partitions).bind(&positions).fetch_all(&mut *connection).await?;
        let open = "with ended as materialized (
                 select aggregate_id from events
                 where event_type in ('delivery.attempt_succeeded', 'delivery.dead_lettered'))
             select count(*) from events r
             join unnest($1::int[], $2::bigint[]) as h (partition, position)
               on h.partition = r.partition and r.position <= h.position
             join organizations o on o.id = r.organization_id
             cross join json_array_elements(r.payload -> 'matched') as d (delivery)
             where r.event_type = 'webhook.routed' and ($4 or o.slug <> $3)
               and not exists (select from ended e where e.aggregate_id = d.delivery ->> 'deliveryId')";
        let open = sqlx::query_scalar(open)
            .bind(&partitions)
            .bind(&positions)
            .bind(Behaviour::Hanging.slug())
            .bind(hanging)
            .fetch_one(connection)
            .await?;
        Ok(Behind { followers, open })
    }
}
