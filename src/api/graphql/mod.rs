//! The GraphQL contract: the only place that knows GraphQL. No SQL here: resolvers ask projections,
//! the log's reader and commands, always with the organization first.
//!
//! | to find | look in |
//! | --- | --- |
//! | a field of a type | `types/`, a file for each type or subject |
//! | a field of `Query` | `queries/`, by who may ask |
//! | a mutation | `mutations/`, by what it changes |
//! | a subscription | `subscriptions.rs` |
//! | a right, a limit, a price | `guards/` |
//! | how rows are loaded together | `rows.rs` |
//! | what an error is called | `errors.rs` |

mod context;
mod errors;
mod guards;
mod mutations;
mod queries;
mod rows;
mod subscriptions;
mod types;

use async_graphql::SDLExportOptions;

pub use context::App;
pub(crate) use errors::only_error;
pub use errors::{Code, is_away, was_refused, with_codes};
pub use guards::allowance::{Allowance, Rendering};
pub use guards::guests::{Guest, is_for_guests, may_be_for_guests, with_guest};
pub use guards::request::{Parameters, checked};
pub use guards::rights::Viewer;
use mutations::Mutation;
use queries::Query;
pub use rows::with_viewer;
pub use types::system::{Platform, PlatformSetting};

/// Maximum depth of a query.
const MAX_DEPTH: usize = 16;

/// The schema with its resolvers.
pub type Schema = async_graphql::Schema<Query, Mutation, subscriptions::Subscription>;

/// The schema for a running server.
#[must_use]
pub fn schema(app: App) -> Schema {
    builder().data(app).finish()
}

/// The contract as committed in `schema.graphql`.
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
