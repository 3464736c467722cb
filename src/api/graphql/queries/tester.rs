//! Queries of the tester.

use async_graphql::{Context, Error, Object};

use crate::api::graphql::guards::rights::Viewer;
use crate::api::graphql::types::provider::ProviderName;
use crate::api::graphql::types::tester::{Sample, samples_of};

/// Reads of the tester.
#[derive(Default)]
pub struct TesterQuery;

#[Object]
impl TesterQuery {
    /// Sample webhooks of a provider. For everybody who is signed in.
    async fn sample_webhooks(&self, context: &Context<'_>, provider_name: ProviderName) -> Result<Vec<Sample>, Error> {
        Viewer::of(context)?;
        Ok(samples_of(provider_name))
    }
}
