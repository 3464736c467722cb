//! The GraphQL contract: the only place that knows GraphQL. No SQL here: resolvers ask projections,
//! the log's reader and commands, always with the organization first.

mod allowance;
mod analytics;
mod audit;
mod conservation;
mod context;
mod demo;
mod destination;
mod duplicates;
mod errors;
mod history;
mod ids;
mod insight;
mod ledger;
mod limits;
mod merge;
mod mutations;
mod order;
mod organization;
mod paging;
mod people;
mod provider;
mod query;
mod request;
mod retention;
mod retries;
mod rows;
mod shown;
mod subscriptions;
mod system;
mod tester;
mod time;
mod usage;
mod user;
mod webhook;

use async_graphql::{MergedObject, SDLExportOptions};

pub use allowance::{Allowance, Rendering};
pub use context::{App, Viewer};
pub use demo::{Guest, is_for_guests, with_guest};
pub(crate) use errors::only_error;
pub use errors::{Code, is_away, was_refused, with_codes};
pub use request::{Parameters, checked};
pub use rows::with_viewer;
pub use system::{Platform, PlatformSetting};

/// How deep a query may nest.
const MAX_DEPTH: usize = 16;

/// What people change, by subject.
#[derive(Default, MergedObject)]
pub struct Mutation(
    mutations::SettingsMutation,
    people::PeopleMutation,
    destination::DestinationMutation,
    retries::RetryMutation,
    duplicates::DuplicateMutation,
    retention::RetentionMutation,
    tester::TesterMutation,
    demo::DemoMutation,
);

/// What is read, by subject.
#[derive(Default, MergedObject)]
pub struct Query(query::PeopleQuery, tester::TesterQuery, demo::DemoQuery);

/// The schema with its resolvers.
pub type Schema = async_graphql::Schema<Query, Mutation, subscriptions::Subscription>;

/// The schema for a running server.
#[must_use]
pub fn schema(app: App) -> Schema {
    builder().data(app).finish()
}

/// The contract as it is committed in `schema.graphql`.
#[must_use]
pub fn sdl() -> String {
    let options = SDLExportOptions::new()
        .sorted_fields()
        .sorted_arguments()
        .sorted_enum_items()
        .prefer_single_line_descriptions();
    builder().finish().sdl_with_options(options)
}

fn builder() -> async_graphql::SchemaBuilder<Query, Mutation, subscriptions::Subscription> {
    Schema::build(Query::default(), Mutation::default(), subscriptions::Subscription).limit_depth(MAX_DEPTH)
}
