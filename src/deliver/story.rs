//! A webhook's state according to the log.

use hookledger_aggregates::webhook::{Owed, Webhook, WebhookEvent};
use hookledger_aggregates::{Event, OrganizationId, WebhookId};

use super::clock::within;
use super::queue::Due;
use crate::log::{Epoch, Log, ReadError, Reader};

/// A webhook's state after the last event of its stream. The database leaves out duplicates, which make
/// streams long and change nothing.
#[derive(Clone, Debug)]
pub(super) struct Story {
    pub state: Webhook,
    pub sequence: i64,
    /// Epoch of the log in which it was read.
    pub epoch: Epoch,
}

impl Story {
    /// Reads from the first event.
    pub async fn read(
        (log, reader): (&Log, &Reader),
        organization: OrganizationId,
        webhook: WebhookId,
    ) -> Result<Self, ReadError> {
        let mut story = Self { state: Webhook::default(), sequence: 0, epoch: log.epoch() };
        let verified_at = story.go_on(reader, organization, webhook).await?;
        let (None, Some(provider), Some(verified_at)) = (story.state.owed(), story.state.provider(), verified_at)
        else {
            return Ok(story);
        };
        // Received by an earlier release.
        let owed = owed_at(reader, organization, provider, verified_at).await?;
        Ok(Self { state: story.state.owing(owed), ..story })
    }

    /// Reads from the event that the queue's row states.
    pub async fn since((log, reader): (&Log, &Reader), due: &Due) -> Result<Self, ReadError> {
        if due.sequence == 0 || due.read.epoch != log.epoch() {
            return Self::read((log, reader), due.organization, due.webhook).await;
        }
        let state = Webhook::waiting(due.attempt, due.requested, Owed::Delivery);
        let mut story = Self { state, sequence: due.sequence, epoch: due.read.epoch };
        story.go_on(reader, due.organization, due.webhook).await?;
        Ok(story)
    }

    /// Reads newer events; returns the position of the verification if it is among them.
    pub async fn go_on(
        &mut self,
        reader: &Reader,
        organization: OrganizationId,
        webhook: WebhookId,
    ) -> Result<Option<i64>, ReadError> {
        let mut verified_at = None;
        loop {
            let tail = within(reader.story(organization, webhook, self.sequence)).await?;
            for recorded in &tail.events {
                let Event::Webhook(event) = &recorded.event else { continue };
                self.state.evolve(event);
                if matches!(event, WebhookEvent::SignatureVerified(_)) {
                    verified_at = Some(recorded.position);
                }
            }
            self.sequence = tail.sequence.max(self.sequence);
            if tail.is_last {
                return Ok(verified_at);
            }
        }
    }
}

/// What a webhook is owed that was verified at that position of its organization's partition.
pub(super) async fn owed_at(
    reader: &Reader,
    organization: OrganizationId,
    provider: hookledger_aggregates::ProviderId,
    position: i64,
) -> Result<Owed, ReadError> {
    let had_destination = within(reader.had_destination(organization, provider, position)).await?;
    Ok(if had_destination { Owed::Delivery } else { Owed::Recording })
}
