//! Where a provider's webhooks are forwarded to.

use async_graphql::{Context, Error, ID, InputObject, MaybeUndefined, Object, SimpleObject};

use super::providers::{Managed, refused, shown_once};
use crate::api::graphql::context::App;
use crate::api::graphql::errors::Code;
use crate::api::graphql::types::provider::WebhookProvider;
use crate::providers::{Headers, Replacement, Set, Wish, WishError};

/// An additional header of deliveries.
#[derive(InputObject)]
struct HeaderInput {
    name: String,
    /// Stored encrypted and never shown again.
    value: String,
}

#[derive(InputObject)]
struct SetProviderDestinationInput {
    provider_id: ID,
    /// An https URL; null to only store webhooks and not forward them any more.
    url: Option<String>,
    /// 1 to 120; defaults to the deployment's timeout.
    timeout_seconds: Option<i32>,
    /// Concurrent attempts, 1 to 256; defaults to 16.
    concurrency: Option<i32>,
    /// Replaces all earlier headers; unchanged if omitted.
    headers: MaybeUndefined<Vec<HeaderInput>>,
    /// Whether deliveries include the sender's signature header, so that the sender's own library can verify
    /// them with the sender's own secret. Unchanged if omitted, and initially false.
    original_signature: Option<bool>,
}

#[derive(SimpleObject)]
struct SetProviderDestinationPayload {
    provider: WebhookProvider,
    /// The secret that signs deliveries, if it was just created. It is never shown again.
    signing_secret: Option<String>,
}

#[derive(InputObject)]
struct RotateDestinationSecretInput {
    provider_id: ID,
    /// How long the earlier secrets still sign besides the new one; 24 hours by default, at most 30 days.
    grace_seconds: Option<i32>,
}

#[derive(SimpleObject)]
struct RotateDestinationSecretPayload {
    provider: WebhookProvider,
    /// The new secret. It is never shown again.
    signing_secret: String,
}

#[derive(Default)]
pub struct DestinationMutation;

#[Object]
impl DestinationMutation {
    /// For admins of the organization. Forwards future webhooks there, signed according to Standard Webhooks.
    async fn set_provider_destination(
        &self,
        context: &Context<'_>,
        input: SetProviderDestinationInput,
    ) -> Result<SetProviderDestinationPayload, Error> {
        let managed = Managed::of(context, &input.provider_id).await?;
        let set = match wish(managed.app(), input)? {
            None => {
                let removed = managed.providers().remove_destination(managed.change()).await;
                Set { last: removed.map_err(refused)?, signing_secret: None }
            }
            Some(wish) => managed.providers().set_destination(managed.change(), wish).await.map_err(refused)?,
        };
        let provider = managed.after(context, set.last).await?;
        Ok(SetProviderDestinationPayload { provider, signing_secret: set.signing_secret.as_ref().map(shown_once) })
    }

    /// For admins of the organization. Earlier secrets sign besides the new one until their grace period
    /// ends.
    async fn rotate_destination_secret(
        &self,
        context: &Context<'_>,
        input: RotateDestinationSecretInput,
    ) -> Result<RotateDestinationSecretPayload, Error> {
        let managed = Managed::of(context, &input.provider_id).await?;
        let replacement = Replacement { grace_seconds: input.grace_seconds, version: None };
        let rotated = managed.providers().rotate_signing_secret(managed.change(), replacement).await;
        let (last, secret) = rotated.map_err(refused)?;
        let provider = managed.after(context, last).await?;
        Ok(RotateDestinationSecretPayload { provider, signing_secret: shown_once(&secret) })
    }
}

fn unfit(error: WishError) -> Error {
    Code::BadUserInput.error(error.to_string())
}

/// A destination with only a URL.
pub(crate) fn plain(app: &App, url: &str) -> Result<Wish, Error> {
    Wish::to_url(url, &app.base_url, app.egress.allow_list()).map_err(unfit)
}

/// The requested destination; `None` to remove it.
fn wish(app: &App, input: SetProviderDestinationInput) -> Result<Option<Wish>, Error> {
    let Some(url) = input.url else { return Ok(None) };
    let number = |number: i32, what: &str| {
        u32::try_from(number).map_err(|_| Code::BadUserInput.error(format!("`{what}` must be 1 or more.")))
    };
    let mut wish = plain(app, &url)?;
    wish.timeout_seconds = input.timeout_seconds.map(|seconds| number(seconds, "timeoutSeconds")).transpose()?;
    if let Some(concurrency) = input.concurrency {
        wish.concurrency = number(concurrency, "concurrency")?;
    }
    wish.headers = match input.headers {
        MaybeUndefined::Undefined => Headers::Unchanged,
        MaybeUndefined::Null => Headers::None,
        MaybeUndefined::Value(headers) => {
            Headers::of(headers.into_iter().map(|header| (header.name, header.value))).map_err(unfit)?
        }
    };
    wish.original_signature = input.original_signature;
    Ok(Some(wish))
}
