//! How lists are sorted, as GraphQL says it.

use async_graphql::{Enum, InputObject, InputType};
use hookledger_projections::{order, organizations, users, webhook_providers};

/// Which way a list goes.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "order::Direction")]
pub enum OrderDirection {
    #[graphql(name = "ASC")]
    Ascending,
    #[graphql(name = "DESC")]
    Descending,
}

/// What organizations are sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "organizations::OrganizationField")]
pub enum OrganizationOrderField {
    CreatedAt,
    /// Upper and lower case are the same.
    Name,
}

/// What users are sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "users::UserField")]
pub enum UserOrderField {
    CreatedAt,
    /// Upper and lower case are the same.
    Email,
    LastLoginAt,
}

/// What providers are sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "webhook_providers::ProviderField")]
pub enum ProviderOrderField {
    CreatedAt,
    ProviderName,
    /// Upper and lower case are the same.
    OrganizationName,
}

/// How a list is sorted. Rows that have no such value come last, whichever way it goes.
#[derive(InputObject)]
#[graphql(concrete(name = "OrganizationOrder", params(OrganizationOrderField)))]
#[graphql(concrete(name = "UserOrder", params(UserOrderField)))]
#[graphql(concrete(name = "ProviderOrder", params(ProviderOrderField)))]
pub struct OrderBy<N: InputType> {
    field: N,
    direction: OrderDirection,
}

impl<N: InputType> OrderBy<N> {
    /// What was asked for, or newest first.
    pub(crate) fn or_newest<F: Default + From<N>>(asked: Option<Self>) -> order::Order<F> {
        asked
            .map(|asked| order::Order { field: asked.field.into(), direction: asked.direction.into() })
            .unwrap_or_default()
    }
}
