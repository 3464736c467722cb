//! Giving rows back: done, due again, or undecided.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::{Queue, Settled, Settlement, When};
use crate::deliver::clock::within;

impl Queue {
    /// Records settlements and answers of many deliveries at once. Does not touch rows that another node holds
    /// by now, or that a person's request renewed, because those concern a later event.
    ///
    /// # Errors
    /// After an error, nothing was recorded.
    pub async fn settle(&self, settlements: &[Settlement]) -> Result<(), sqlx::Error> {
        within(async {
            let mut transaction = self.pool.begin().await?;
            self.settle_done(&mut transaction, settlements).await?;
            self.settle_again(&mut transaction, settlements).await?;
            self.settle_back(&mut transaction, settlements).await?;
            keep_responses(&mut transaction, settlements).await?;
            transaction.commit().await
        })
        .await
    }

    async fn settle_done(&self, connection: &mut PgConnection, settlements: &[Settlement]) -> Result<(), sqlx::Error> {
        let (mut organizations, mut deliveries, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        for settlement in settlements {
            if let Settled::Done { sequence } = settlement.settled {
                organizations.push(settlement.organization.uuid());
                deliveries.push(settlement.delivery.uuid());
                sequences.push(sequence);
            }
        }
        if deliveries.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "delete from delivery_due d
             using unnest($1::uuid[], $2::uuid[], $3::bigint[]) as n (organization_id, delivery_id, sequence)
             where d.organization_id = n.organization_id and d.delivery_id = n.delivery_id
               and d.holder = $4 and d.sequence <= n.sequence",
        )
        .bind(organizations)
        .bind(deliveries)
        .bind(sequences)
        .bind(self.node)
        .execute(connection)
        .await
        .map(drop)
    }

    async fn settle_again(&self, connection: &mut PgConnection, settlements: &[Settlement]) -> Result<(), sqlx::Error> {
        let (mut organizations, mut deliveries) = (Vec::new(), Vec::new());
        let (mut attempts, mut sequences, mut times, mut waits) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut asked, mut pending) = (Vec::new(), Vec::new());
        let now = Instant::now();
        for settlement in settlements {
            let Settled::Again { attempt, sequence, due, requested, pending: is_pending } = settlement.settled else {
                continue;
            };
            organizations.push(settlement.organization.uuid());
            deliveries.push(settlement.delivery.uuid());
            attempts.push(attempt.cast_signed());
            sequences.push(sequence);
            let (time, wait) = match due {
                When::At(time) => (Some(time), 0.0),
                When::In(instant) => (None, instant.saturating_duration_since(now).as_secs_f64()),
            };
            times.push(time);
            waits.push(wait);
            asked.push(requested);
            pending.push(is_pending);
        }
        if deliveries.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "update delivery_due d
             set holder = null, attempt = n.attempt, sequence = n.sequence,
                 due_at = coalesce(n.due_at, now() + n.wait * interval '1 second'), requested = n.requested,
                 pending_since = case when n.pending then coalesce(d.pending_since, now()) end
             from unnest($1::uuid[], $2::uuid[], $3::int[], $4::bigint[], $5::timestamptz[], $6::float8[], $7::bool[],
                         $8::bool[])
                  as n (organization_id, delivery_id, attempt, sequence, due_at, wait, requested, pending)
             where d.organization_id = n.organization_id and d.delivery_id = n.delivery_id
               and d.holder = $9 and d.sequence <= n.sequence",
        )
        .bind(organizations)
        .bind(deliveries)
        .bind(attempts)
        .bind(sequences)
        .bind(times)
        .bind(waits)
        .bind(asked)
        .bind(pending)
        .bind(self.node)
        .execute(connection)
        .await
        .map(drop)
    }

    /// Gives back rows whose deliveries did not change.
    async fn settle_back(&self, connection: &mut PgConnection, settlements: &[Settlement]) -> Result<(), sqlx::Error> {
        let (mut organizations, mut deliveries) = (Vec::new(), Vec::new());
        let (mut pauses, mut anew, mut reasons, mut doubtful) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for settlement in settlements {
            let (pause, waits_anew, hold, is_doubtful) = match settlement.settled {
                Settled::Back { pause, waits_anew } => (pause, waits_anew, None, false),
                Settled::Doubtful => (Duration::ZERO, false, None, true),
                Settled::Held(hold) => (Duration::ZERO, false, Some(hold.as_str()), false),
                Settled::Done { .. } | Settled::Again { .. } => continue,
            };
            organizations.push(settlement.organization.uuid());
            deliveries.push(settlement.delivery.uuid());
            pauses.push(pause.as_secs_f64());
            anew.push(waits_anew);
            reasons.push(hold);
            doubtful.push(is_doubtful);
        }
        if deliveries.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "update delivery_due d
             set holder = case when n.doubtful then d.holder end, held = n.held,
                 due_at = case when n.held is null then now() + n.pause * interval '1 second' else 'infinity' end,
                 pending_since = case when n.held is not null or d.pending_since is null then null
                                      when n.anew then now() + n.pause * interval '1 second'
                                      else d.pending_since end
             from unnest($1::uuid[], $2::uuid[], $3::float8[], $4::bool[], $5::text[], $6::bool[])
                  as n (organization_id, delivery_id, pause, anew, held, doubtful)
             where d.organization_id = n.organization_id and d.delivery_id = n.delivery_id and d.holder = $7",
        )
        .bind(organizations)
        .bind(deliveries)
        .bind(pauses)
        .bind(anew)
        .bind(reasons)
        .bind(doubtful)
        .bind(self.node)
        .execute(connection)
        .await
        .map(drop)
    }
}

async fn keep_responses(connection: &mut PgConnection, settlements: &[Settlement]) -> Result<(), sqlx::Error> {
    let (mut organizations, mut webhooks, mut deliveries) = (vec![], vec![], vec![]);
    let (mut attempts, mut excerpts) = (vec![], vec![]);
    for settlement in settlements {
        if let Some(response) = &settlement.response {
            organizations.push(settlement.organization.uuid());
            webhooks.push(settlement.webhook.uuid());
            deliveries.push(settlement.delivery.uuid());
            attempts.push(response.attempt.cast_signed());
            excerpts.push(&response.excerpt[..]);
        }
    }
    if webhooks.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into attempt_responses (organization_id, webhook_id, delivery_id, attempt_number, excerpt)
         select * from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::bytea[])
                       as n (organization, webhook, delivery, attempt, excerpt)
         where not body_is_erased(organization, webhook) on conflict do nothing",
    )
    .bind(organizations)
    .bind(webhooks)
    .bind(deliveries)
    .bind(attempts)
    .bind(excerpts)
    .execute(connection)
    .await
    .map(drop)
}
