//! One webhook as a cqrs-es aggregate that is received once.

use std::convert::Infallible;

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct StockWebhook {
    received: bool,
}

pub enum Command {
    Receive { event_type: String, delivery: String, payload: String },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The body stays text, which is cheaper here than a parsed value that would be built once and copied
    /// twice on its way to the database.
    Received { event_type: String, delivery: String, payload: String },
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        "Received".to_owned()
    }

    fn event_version(&self) -> String {
        "1.0".to_owned()
    }
}

impl Aggregate for StockWebhook {
    const TYPE: &'static str = "webhook";
    type Command = Command;
    type Event = Event;
    type Error = Infallible;
    type Services = ();

    async fn handle(&mut self, command: Command, _services: &(), sink: &EventSink<Self>) -> Result<(), Infallible> {
        let Command::Receive { event_type, delivery, payload } = command;
        // A repeated request is acknowledged and changes nothing.
        if !self.received {
            sink.write(Event::Received { event_type, delivery, payload }, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Received { .. } => self.received = true,
        }
    }
}
