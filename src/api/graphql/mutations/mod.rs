//! The fields of `Mutation`: what people change, a file for each subject.
//!
//! Each checks who asks, calls one use case, waits until the read models know of the change, and answers with what it
//! changed.

pub(crate) mod demo;
pub(crate) mod destinations;
pub(crate) mod duplicates;
pub(crate) mod erasure;
pub(crate) mod organizations;
pub(crate) mod people;
pub(crate) mod providers;
pub(crate) mod retries;
pub(crate) mod secrets;
pub(crate) mod tester;

use async_graphql::{Error, ID, InputObject, MergedObject};
use hookledger_aggregates::Label;

use super::errors::Code;

/// Maximum length of a reason in characters.
const MAX_REASON: usize = 500;

/// Mutations, by subject.
#[derive(Default, MergedObject)]
pub struct Mutation(
    organizations::OrganizationMutation,
    providers::ProviderMutation,
    secrets::SecretMutation,
    destinations::DestinationMutation,
    people::PeopleMutation,
    retries::RetryMutation,
    duplicates::DuplicateMutation,
    erasure::ErasureMutation,
    tester::TesterMutation,
    demo::DemoMutation,
);

#[derive(InputObject)]
pub(crate) struct SetActiveInput {
    pub(crate) id: ID,
    pub(crate) is_active: bool,
}

/// The reason that a person gives; none where it is empty.
fn checked_reason(reason: Option<String>) -> Result<Option<Label>, Error> {
    match reason {
        Some(reason) if reason.chars().count() > MAX_REASON => {
            Err(Code::BadUserInput.error(format!("A reason can have at most {MAX_REASON} characters.")))
        }
        Some(reason) if reason.trim().is_empty() => Ok(None),
        Some(reason) => Ok(Some(Label::cut(&reason, MAX_REASON))),
        None => Ok(None),
    }
}
