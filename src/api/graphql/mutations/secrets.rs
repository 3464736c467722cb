//! The signing secrets of a provider.

use async_graphql::{Context, Error, ID, InputObject, Object, SimpleObject};
use chrono::Utc;
use hookledger_aggregates::provider::ProviderCommand;
use hookledger_aggregates::signature::{Opinion, SIMULATOR_SENTENCE, judge_secret};

use super::providers::{Managed, change_provider, refused};
use crate::api::graphql::errors::Code;
use crate::api::graphql::guards::rights::Viewer;
use crate::api::graphql::types::provider::{ProviderName, WebhookProvider};
use crate::providers::Replacement;

#[derive(InputObject)]
struct RotateProviderSecretInput {
    provider_id: ID,
    secret: String,
    /// How long the earlier secrets still verify; 24 hours by default, at most 30 days.
    grace_seconds: Option<i32>,
    /// The version that the new secret replaces. Required if there are several; the others stay.
    replaces_version: Option<i32>,
}

#[derive(InputObject)]
struct AddProviderSecretInput {
    provider_id: ID,
    secret: String,
    /// Distinguishes it from the others; 1 to 64 characters.
    label: String,
    /// Accepts webhooks from PayPal's webhooks simulator, whose webhook ID is `WEBHOOK_ID`. Anyone with a
    /// PayPal account can send such webhooks.
    accept_simulator: Option<bool>,
}

#[derive(InputObject)]
struct LabelProviderSecretInput {
    provider_id: ID,
    version: i32,
    label: String,
}

#[derive(InputObject)]
struct RevokeProviderSecretInput {
    provider_id: ID,
    version: i32,
}

#[derive(InputObject)]
struct CheckProviderSecretInput {
    provider_name: ProviderName,
    secret: String,
}

#[derive(SimpleObject)]
struct AddProviderSecretPayload {
    provider: WebhookProvider,
}

#[derive(SimpleObject)]
struct LabelProviderSecretPayload {
    provider: WebhookProvider,
}

#[derive(SimpleObject)]
struct RevokeProviderSecretPayload {
    provider: WebhookProvider,
}

/// The result of checking a text as a signing secret.
#[derive(SimpleObject)]
struct CheckProviderSecretPayload {
    /// Why it would be refused.
    refused: Option<&'static str>,
    /// Why it may be wrong, although it would be accepted.
    doubtful: Option<&'static str>,
    /// It is the ID of PayPal's simulator: accepted only with `acceptSimulator`.
    is_simulator: bool,
}

#[derive(SimpleObject)]
struct RotateProviderSecretPayload {
    provider: WebhookProvider,
}

/// Secrets that verify.
#[derive(Default)]
pub struct SecretMutation;

#[Object]
impl SecretMutation {
    /// For admins of the organization. Earlier secrets verify until their grace period ends.
    async fn rotate_provider_secret(
        &self,
        context: &Context<'_>,
        input: RotateProviderSecretInput,
    ) -> Result<RotateProviderSecretPayload, Error> {
        let managed = Managed::of(context, &input.provider_id).await?;
        let version = input.replaces_version.map(version).transpose()?;
        let replacement = Replacement { grace_seconds: input.grace_seconds, version };
        let rotated = managed
            .providers()
            .rotate_secret(managed.change(), managed.name()?, input.secret.into(), replacement)
            .await;
        Ok(RotateProviderSecretPayload { provider: managed.after(context, rotated.map_err(refused)?).await? })
    }

    /// For admins of the organization. The secret verifies besides the others until somebody revokes it,
    /// because two endpoints of a service can send to one URL.
    async fn add_provider_secret(
        &self,
        context: &Context<'_>,
        input: AddProviderSecretInput,
    ) -> Result<AddProviderSecretPayload, Error> {
        let managed = Managed::of(context, &input.provider_id).await?;
        let (secret, accept) = (input.secret.into(), input.accept_simulator.unwrap_or_default());
        let added =
            managed.providers().add_secret(managed.change(), managed.name()?, secret, &input.label, accept).await;
        Ok(AddProviderSecretPayload { provider: managed.after(context, added.map_err(refused)?).await? })
    }

    /// For admins of the organization.
    async fn label_provider_secret(
        &self,
        context: &Context<'_>,
        input: LabelProviderSecretInput,
    ) -> Result<LabelProviderSecretPayload, Error> {
        let command = ProviderCommand::LabelSecret { version: version(input.version)?, label: input.label };
        Ok(LabelProviderSecretPayload { provider: change_provider(context, &input.provider_id, command).await? })
    }

    /// For admins of the organization. The secret stops verifying at once. The last one cannot be revoked.
    async fn revoke_provider_secret(
        &self,
        context: &Context<'_>,
        input: RevokeProviderSecretInput,
    ) -> Result<RevokeProviderSecretPayload, Error> {
        let command = ProviderCommand::RevokeSecret { version: version(input.version)?, now: Utc::now() };
        Ok(RevokeProviderSecretPayload { provider: change_provider(context, &input.provider_id, command).await? })
    }

    /// For everybody who is signed in. Says whether a secret would be accepted, and stores nothing. A
    /// mutation, so that no secret is in a URL or a cache.
    async fn check_provider_secret(
        &self,
        context: &Context<'_>,
        input: CheckProviderSecretInput,
    ) -> Result<CheckProviderSecretPayload, Error> {
        Viewer::of(context)?;
        let mut said = CheckProviderSecretPayload { refused: None, doubtful: None, is_simulator: false };
        match judge_secret(input.provider_name.into(), &input.secret) {
            Opinion::Fine => {}
            Opinion::Doubtful(sentence) => said.doubtful = Some(sentence),
            Opinion::Refused(sentence) => said.refused = Some(sentence),
            Opinion::Simulator => (said.refused, said.is_simulator) = (Some(SIMULATOR_SENTENCE), true),
        }
        Ok(said)
    }
}

/// A secret's version.
fn version(version: i32) -> Result<u32, Error> {
    u32::try_from(version).map_err(|_| Code::BadUserInput.error("A version must be 1 or more."))
}
