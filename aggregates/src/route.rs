//! A route: from a provider to a destination.
//!
//! Every change counts its version up. What a version decided about a webhook stays as it was decided. A route ends
//! with its provider's connection: whoever folds routes also takes `provider.deleted` into account.

use serde::{Deserialize, Serialize};

use crate::decision::aggregate;
use crate::destination::{MAX_NAME, is_name};
use crate::{DestinationId, Label, ProviderId};

/// Maximum number of routes of one provider.
pub const MAX_ROUTES: usize = 32;

/// The state of a route. Its stream outlives a deletion, so versions are never reused.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Route {
    settings: Option<RouteSettings>,
    version: u32,
    enabled: bool,
}

/// From where to where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteSettings {
    pub name: Label,
    pub provider_id: ProviderId,
    pub destination_id: DestinationId,
}

/// Sets, changes or deletes a route.
#[derive(Clone, Debug)]
pub enum RouteCommand {
    Set(RouteSettings),
    SetEnabled(bool),
    Delete,
}

/// A route was set, changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteEvent {
    /// A route is enabled when it is set for the first time, and after a deletion.
    #[serde(rename = "route.set", rename_all = "camelCase")]
    Set {
        #[serde(flatten)]
        settings: RouteSettings,
        version: u32,
    },
    #[serde(rename = "route.enabled", rename_all = "camelCase")]
    Enabled { version: u32 },
    #[serde(rename = "route.disabled", rename_all = "camelCase")]
    Disabled { version: u32 },
    #[serde(rename = "route.deleted", rename_all = "camelCase")]
    Deleted { version: u32 },
}

aggregate!(Route, "route", RouteCommand, RouteEvent, RouteError, {
    Set => "route.set" v 1,
    Enabled => "route.enabled" v 1,
    Disabled => "route.disabled" v 1,
    Deleted => "route.deleted" v 1,
});

/// Why a command is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("Route not found.")]
    NotFound,
    #[error("A route's name must be 1 to {MAX_NAME} characters, on one line.")]
    BadName,
    #[error("A route stays with its provider. Add another route instead.")]
    OtherProvider,
    #[error("A provider can have {MAX_ROUTES} routes. Delete one first.")]
    TooManyRoutes,
}

impl Route {
    /// Decides a command. `settings` is set again even if nothing changed, because its provider's deletion, which is
    /// not in this stream, may have ended the route.
    pub fn decide(&self, command: RouteCommand) -> Result<Vec<RouteEvent>, RouteError> {
        let version = self.version + 1;
        match command {
            RouteCommand::Set(settings) if !is_name(&settings.name) => Err(RouteError::BadName),
            RouteCommand::Set(settings) => {
                let known = self.settings.as_ref();
                if known.is_some_and(|known| known.provider_id != settings.provider_id) {
                    return Err(RouteError::OtherProvider);
                }
                Ok(vec![RouteEvent::Set { settings, version }])
            }
            _ if self.settings.is_none() => Err(RouteError::NotFound),
            RouteCommand::SetEnabled(enabled) if enabled == self.enabled => Ok(vec![]),
            RouteCommand::SetEnabled(true) => Ok(vec![RouteEvent::Enabled { version }]),
            RouteCommand::SetEnabled(false) => Ok(vec![RouteEvent::Disabled { version }]),
            RouteCommand::Delete => Ok(vec![RouteEvent::Deleted { version }]),
        }
    }

    /// Applies an event; public because the in-memory directory is the same fold.
    pub fn evolve(&mut self, event: &RouteEvent) {
        match event {
            RouteEvent::Set { settings, version } => {
                self.enabled = self.enabled || self.settings.is_none();
                self.settings = Some(settings.clone());
                self.version = *version;
            }
            RouteEvent::Enabled { version } => (self.enabled, self.version) = (true, *version),
            RouteEvent::Disabled { version } => (self.enabled, self.version) = (false, *version),
            RouteEvent::Deleted { version } => {
                (self.enabled, self.version) = (false, *version);
                self.settings = None;
            }
        }
    }

    /// From where to where; `None` if it was deleted.
    #[must_use]
    pub fn settings(&self) -> Option<&RouteSettings> {
        self.settings.as_ref()
    }

    /// Counts its changes, from 1.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether new webhooks go by it.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn settings(provider: u128) -> RouteSettings {
        RouteSettings {
            name: Label::new("All"),
            provider_id: ProviderId::new(Uuid::from_u128(provider)),
            destination_id: DestinationId::default(),
        }
    }

    fn after(commands: impl IntoIterator<Item = RouteCommand>) -> Route {
        let mut route = Route::default();
        for command in commands {
            for event in route.decide(command).unwrap() {
                route.evolve(&event);
            }
        }
        route
    }

    #[test]
    fn every_change_counts_the_version_up() {
        let changes = [
            RouteCommand::Set(settings(1)),
            RouteCommand::SetEnabled(false),
            RouteCommand::SetEnabled(false),
            RouteCommand::Set(settings(1)),
        ];
        let route = after(changes.clone());
        assert_eq!((route.version(), route.is_enabled()), (3, false));
        let again = after(changes.into_iter().chain([RouteCommand::Delete, RouteCommand::Set(settings(1))]));
        assert_eq!((again.version(), again.is_enabled()), (5, true));
    }

    #[test]
    fn a_deleted_route_cannot_be_enabled() {
        let deleted = after([RouteCommand::Set(settings(1)), RouteCommand::Delete]);
        assert_eq!(deleted.decide(RouteCommand::SetEnabled(true)), Err(RouteError::NotFound));
    }

    #[test]
    fn a_route_stays_with_its_provider() {
        let route = after([RouteCommand::Set(settings(1))]);
        assert_eq!(route.decide(RouteCommand::Set(settings(2))), Err(RouteError::OtherProvider));
    }
}
