//! A webhook's state according to the log.

use hookledger_aggregates::webhook::Webhook;
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
        story.go_on(reader, organization, webhook).await?;
        Ok(story)
    }

    /// Reads from the event that the queue's row states.
    pub async fn since((log, reader): (&Log, &Reader), due: &Due) -> Result<Self, ReadError> {
        if due.sequence == 0 || due.read.epoch != log.epoch() {
            return Self::read((log, reader), due.organization, due.webhook).await;
        }
        let state = Webhook::waiting(due.attempt, due.requested);
        let mut story = Self { state, sequence: due.sequence, epoch: due.read.epoch };
        story.go_on(reader, due.organization, due.webhook).await?;
        Ok(story)
    }

    /// Reads newer events.
    pub async fn go_on(
        &mut self,
        reader: &Reader,
        organization: OrganizationId,
        webhook: WebhookId,
    ) -> Result<(), ReadError> {
        loop {
            let tail = within(reader.story(organization, webhook, self.sequence)).await?;
            for recorded in &tail.events {
                if let Event::Webhook(event) = &recorded.event {
                    self.state.evolve(event);
                }
            }
            self.sequence = tail.sequence.max(self.sequence);
            if tail.is_last {
                return Ok(());
            }
        }
    }
}
