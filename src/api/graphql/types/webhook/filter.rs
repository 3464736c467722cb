//! Which webhooks a list shows.

use async_graphql::{Error, ID, InputObject};
use hookledger_aggregates::{OrganizationId, ProviderId};
use hookledger_projections::webhook_logs;

use super::status::WebhookStatus;
use crate::api::graphql::errors::Code;
use crate::api::graphql::types::ids::NodeId;
use crate::api::graphql::types::time::Time;

/// Maximum length of a text search in bytes.
const MAX_TEXT: usize = 1_000;
/// Maximum number of providers and types in a filter.
const MAX_PROVIDERS: usize = 20;
const MAX_TYPES: usize = 50;

/// Filters webhooks; omitted fields match everything.
#[derive(Default, InputObject)]
pub struct WebhookFilter {
    provider_id: Option<ID>,
    /// Any of these providers; at most 20.
    provider_ids: Option<Vec<ID>>,
    status: Option<Vec<WebhookStatus>>,
    event_type: Option<String>,
    /// Any of these types; at most 50.
    event_types: Option<Vec<String>>,
    /// The last error, word for word.
    error_message: Option<String>,
    signature_valid: Option<bool>,
    dead_lettered: Option<bool>,
    /// A duplicate had a different body.
    body_differs: Option<bool>,
    /// Its body was received before, under another unsigned ID.
    suspected_replay: Option<bool>,
    /// A person sent it to test the provider.
    is_test: Option<bool>,
    /// Anything about it is suspicious.
    flagged: Option<bool>,
    /// Received at this time or later.
    received_from: Option<Time>,
    /// Received before this time.
    received_to: Option<Time>,
    /// A webhook ID or a provider's event ID; or the beginning of a provider's event ID or of an event type;
    /// or text anywhere in a body of up to 1 MiB, byte for byte. IDs are found anywhere; everything else is
    /// searched in the newest 10,000 webhooks from the page's cursor on that match the other filters. If
    /// those do not fill the page, `searchedTo` says how far the search got.
    text: Option<String>,
}

impl WebhookFilter {
    pub(crate) fn checked(self, organization: OrganizationId) -> Result<webhook_logs::WebhookFilter, Error> {
        let provider = provider_of(organization, self.provider_id.as_ref())?;
        // PostgreSQL's text cannot contain U+0000, so nothing can match it.
        let single = [&self.event_type, &self.error_message, &self.text].into_iter().flatten();
        if single.chain(self.event_types.iter().flatten()).any(|text| text.contains('\0')) {
            return Err(Code::BadUserInput.error("A filter can't contain U+0000."));
        }
        if self.text.as_ref().is_some_and(|text| text.len() > MAX_TEXT) {
            return Err(Code::BadUserInput.error(format!("A filter's text can be at most {MAX_TEXT} bytes.")));
        }
        if self.provider_ids.as_ref().is_some_and(|ids| ids.len() > MAX_PROVIDERS) {
            return Err(Code::BadUserInput.error(format!("`providerIds` can have at most {MAX_PROVIDERS} IDs.")));
        }
        if self.event_types.as_ref().is_some_and(|types| types.len() > MAX_TYPES) {
            return Err(Code::BadUserInput.error(format!("`eventTypes` can have at most {MAX_TYPES} names.")));
        }
        let one_of =
            |ids: Vec<ID>| ids.iter().filter_map(|id| provider_of(organization, Some(id)).transpose()).collect();
        let providers: Option<Vec<ProviderId>> = self.provider_ids.map(one_of).transpose()?;
        Ok(webhook_logs::WebhookFilter {
            provider,
            providers,
            status: self.status.map(|all| all.into_iter().map(webhook_logs::WebhookStatus::from).collect()),
            event_type: self.event_type,
            event_types: self.event_types,
            error_message: self.error_message,
            signature_valid: self.signature_valid,
            dead_lettered: self.dead_lettered,
            body_differs: self.body_differs,
            suspected_replay: self.suspected_replay,
            is_test: self.is_test,
            flagged: self.flagged,
            received_from: self.received_from.map(|from| from.0),
            received_to: self.received_to.map(|to| to.0),
            text: self.text.filter(|text| !text.is_empty()),
        })
    }
}

/// The provider in an argument, which has to belong to this organization.
pub(crate) fn provider_of(organization: OrganizationId, id: Option<&ID>) -> Result<Option<ProviderId>, Error> {
    match id.map(NodeId::decode) {
        None => Ok(None),
        Some(Some(NodeId::Provider(owner, provider))) if owner == organization => Ok(Some(provider)),
        Some(_) => Err(Code::BadUserInput.error("`providerId` isn't a provider of this organization.")),
    }
}
