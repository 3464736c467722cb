//! Everything that answers over HTTP: webhooks, GraphQL, sign-in, audit files, operations, and the pages.

pub mod graphql;
pub mod http;
