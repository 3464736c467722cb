//! Turns pure decisions into cqrs-es aggregates.
//!
//! Each aggregate file has a synchronous `decide(&self, command) -> Result<Vec<Event>, Error>`; cqrs-es's
//! async `handle` is the same loop for all of them, so it is written once, here.

/// Implements `cqrs_es::Aggregate` and `DomainEvent` for an aggregate with `decide` and `evolve`.
///
/// The event types are listed next to their Rust names, and a test compares them with what serde writes.
macro_rules! aggregate {
    ($aggregate:ident, $type:literal, $command:ty, $event:ident, $error:ty,
     { $($variant:ident => $event_type:literal v $version:literal),+ $(,)? }) => {
        impl cqrs_es::Aggregate for $aggregate {
            const TYPE: &'static str = $type;
            type Command = $command;
            type Event = $event;
            type Error = $error;
            type Services = ();

            async fn handle(
                &mut self,
                command: Self::Command,
                (): &(),
                sink: &cqrs_es::event_sink::EventSink<Self>,
            ) -> Result<(), Self::Error> {
                for event in self.decide(command)? {
                    sink.write(event, self).await;
                }
                Ok(())
            }

            fn apply(&mut self, event: Self::Event) {
                self.evolve(&event);
            }
        }

        impl cqrs_es::DomainEvent for $event {
            fn event_type(&self) -> String {
                crate::event::Stored::stored_type(self).to_owned()
            }
            fn event_version(&self) -> String {
                crate::event::Stored::stored_version(self).to_owned()
            }
        }

        impl $event {
            /// Every event type of this aggregate, with the version that is written today.
            pub const TYPES: &'static [(&'static str, u32)] = &[$(($event_type, $version)),+];
        }

        impl crate::event::Stored for $event {
            const AGGREGATE: &'static str = $type;

            fn stored_type(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $event_type,)+
                }
            }

            fn stored_version(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => stringify!($version),)+
                }
            }
        }
    };
}

pub(crate) use aggregate;
