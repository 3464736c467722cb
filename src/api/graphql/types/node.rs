//! Anything that has an ID of its own.

use async_graphql::{ID, Interface};

use super::organization::Organization;
use super::provider::WebhookProvider;
use super::user::User;
use super::webhook::Webhook;

/// Any object with a global ID.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID"))]
pub enum Node {
    Organization(Organization),
    WebhookProvider(WebhookProvider),
    Webhook(Webhook),
    User(User),
}
