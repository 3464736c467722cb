//! The order of lists in GraphQL.

use async_graphql::{Enum, InputObject, InputType};
use hookledger_projections::{order, organizations, users, webhook_providers};

/// The direction of a list.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "order::Direction")]
pub enum OrderDirection {
    #[graphql(name = "ASC")]
    Ascending,
    #[graphql(name = "DESC")]
    Descending,
}

/// Fields that organizations can be sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "organizations::OrganizationField")]
pub enum OrganizationOrderField {
    CreatedAt,
    /// Ignores case.
    Name,
}

/// Fields that users can be sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "users::UserField")]
pub enum UserOrderField {
    CreatedAt,
    /// Ignores case.
    Email,
    LastLoginAt,
}

/// Fields that providers can be sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "webhook_providers::ProviderField")]
pub enum ProviderOrderField {
    CreatedAt,
    ProviderName,
    /// Ignores case.
    OrganizationName,
}

/// The order of a list. Rows without a value come last, in either direction.
#[derive(InputObject)]
#[graphql(concrete(name = "OrganizationOrder", params(OrganizationOrderField)))]
#[graphql(concrete(name = "UserOrder", params(UserOrderField)))]
#[graphql(concrete(name = "ProviderOrder", params(ProviderOrderField)))]
pub struct OrderBy<N: InputType> {
    field: N,
    direction: OrderDirection,
}

impl<N: InputType> OrderBy<N> {
    /// The requested order, or newest first.
    pub(crate) fn or_newest<F: Default + From<N>>(asked: Option<Self>) -> order::Order<F> {
        asked
            .map(|asked| order::Order { field: asked.field.into(), direction: asked.direction.into() })
            .unwrap_or_default()
    }
}
