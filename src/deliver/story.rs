//! A delivery's state according to the log.

use hookledger_aggregates::delivery::Delivery;
use hookledger_aggregates::{DeliveryId, Event, OrganizationId};

use super::clock::within;
use super::queue::Due;
use crate::log::{Epoch, Log, ReadError, Reader};

/// A delivery's state after the last event of its stream.
#[derive(Clone, Debug)]
pub(super) struct Story {
    pub state: Delivery,
    pub sequence: i64,
    /// Epoch of the log in which it was read.
    pub epoch: Epoch,
}

impl Story {
    /// Reads from the first event.
    pub async fn read(
        (log, reader): (&Log, &Reader),
        organization: OrganizationId,
        delivery: DeliveryId,
    ) -> Result<Self, ReadError> {
        let mut story = Self { state: Delivery::default(), sequence: 0, epoch: log.epoch() };
        story.go_on(reader, organization, delivery).await?;
        Ok(story)
    }

    /// Reads from the event that the queue's row states.
    pub async fn since((log, reader): (&Log, &Reader), due: &Due) -> Result<Self, ReadError> {
        if due.sequence == 0 || due.read.epoch != log.epoch() {
            return Self::read((log, reader), due.organization, due.delivery).await;
        }
        let state = Delivery::waiting(due.attempt, due.requested);
        let mut story = Self { state, sequence: due.sequence, epoch: due.read.epoch };
        story.go_on(reader, due.organization, due.delivery).await?;
        Ok(story)
    }

    /// Reads newer events.
    pub async fn go_on(
        &mut self,
        reader: &Reader,
        organization: OrganizationId,
        delivery: DeliveryId,
    ) -> Result<(), ReadError> {
        loop {
            let tail = within(reader.story(organization, delivery, self.sequence)).await?;
            for recorded in &tail.events {
                if let Event::Delivery(event) = &recorded.event {
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
