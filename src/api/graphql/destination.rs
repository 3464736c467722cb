//! Where webhooks are forwarded to: what people see of a destination, and how they change it.

use std::collections::BTreeMap;

use async_graphql::{Context, Enum, Error, ID, InputObject, MaybeUndefined, Object, SimpleObject};
use chrono::{DateTime, Duration, Utc};
use hookledger_aggregates::provider::{
    DEFAULT_CONCURRENCY, DEFAULT_GRACE, Destination as Settings, Provider, ProviderCommand, SecretRef,
};
use hookledger_aggregates::{OrganizationId, ProviderId, SecretId, outgoing};
use hookledger_projections::webhook_providers;
use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::context::{App, Viewer};
use super::errors::{Code, command, internal};
use super::mutations::{VERSION_TRIES, existing_provider, provider_after, provider_id, provider_refusal};
use super::provider::{SecretInfo, WebhookProvider};
use super::rows::{CircuitsOf, OutgoingSecretsOf, WaitingOf, load};
use crate::deliver::{CircuitNote, CircuitState as Circuits, is_reserved};
use crate::log::{CommandError, LogPosition};
use crate::platform::egress::Target;
use crate::platform::secrets::master::random_bytes;

/// Headers that a destination may have, and bytes of their names and values.
const MAX_HEADERS: usize = 20;
const MAX_HEADER_BYTES: usize = 8 << 10;

/// Whether attempts go through.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "Circuits")]
pub enum CircuitState {
    /// Everything goes through.
    Closed,
    /// It failed so often that nothing is sent for a while.
    Open,
    /// One attempt goes through, and decides.
    HalfOpen,
}

/// A destination's circuit on one node.
#[derive(SimpleObject)]
pub struct Circuit {
    node: Uuid,
    state: CircuitState,
    /// Attempts in a row that failed, when the node last told.
    failures: i32,
    opened_at: Option<DateTime<Utc>>,
    /// When the next single attempt is let through.
    probe_at: Option<DateTime<Utc>>,
    changed_at: DateTime<Utc>,
}

impl Circuit {
    pub(super) fn of(row: CircuitNote) -> Result<Self, Error> {
        Ok(Self {
            state: row.state().map_err(internal)?.into(),
            node: row.node,
            failures: row.failures,
            opened_at: row.opened_at,
            probe_at: row.probe_at,
            changed_at: row.changed_at,
        })
    }
}

/// Where a provider's webhooks are forwarded to.
pub struct Destination(pub(super) webhook_providers::WebhookProvider);

impl Destination {
    fn key(&self) -> (OrganizationId, ProviderId) {
        (OrganizationId::new(self.0.organization_id), ProviderId::new(self.0.id))
    }

    async fn circuit_rows(&self, context: &Context<'_>) -> Result<Vec<Circuit>, Error> {
        let (organization, provider) = self.key();
        let rows = load(context, CircuitsOf(organization, provider)).await?.unwrap_or_default();
        rows.into_iter().map(Circuit::of).collect()
    }
}

#[Object]
impl Destination {
    async fn url(&self) -> Option<&str> {
        self.0.destination_url.as_deref()
    }
    /// How long it may take to answer; null: the deployment's default.
    async fn timeout_seconds(&self) -> Option<i32> {
        self.0.destination_timeout_seconds
    }
    /// Attempts at the same time, per node.
    async fn concurrency(&self) -> Option<i32> {
        self.0.destination_concurrency
    }
    /// Names of the headers that deliveries carry besides. Their values are never shown.
    async fn header_names(&self) -> &[String] {
        self.0.destination_headers.as_deref().unwrap_or_default()
    }
    /// Deliveries carry the sender's signature header too.
    async fn original_signature(&self) -> bool {
        self.0.destination_original_signature
    }
    async fn set_at(&self) -> Option<DateTime<Utc>> {
        self.0.destination_set_at
    }
    /// The secrets that sign deliveries now or did, newest first.
    async fn secrets(&self, context: &Context<'_>) -> Result<Vec<SecretInfo>, Error> {
        let (organization, provider) = self.key();
        let rows = load(context, OutgoingSecretsOf(organization, provider)).await?.unwrap_or_default();
        Ok(rows.into_iter().map(SecretInfo::from).collect())
    }
    /// Whether attempts go through on every node: the worst of its circuits.
    async fn circuit(&self, context: &Context<'_>) -> Result<CircuitState, Error> {
        let circuits = self.circuit_rows(context).await?;
        let any = |state| circuits.iter().any(|circuit| circuit.state == state);
        Ok(match () {
            () if any(CircuitState::Open) => CircuitState::Open,
            () if any(CircuitState::HalfOpen) => CircuitState::HalfOpen,
            () => CircuitState::Closed,
        })
    }
    /// The circuits that ever opened, by node.
    async fn circuits(&self, context: &Context<'_>) -> Result<Vec<Circuit>, Error> {
        self.circuit_rows(context).await
    }
    /// Webhooks that wait for an attempt, or are in one.
    async fn waiting(&self, context: &Context<'_>) -> Result<i64, Error> {
        let (organization, provider) = self.key();
        Ok(load(context, WaitingOf(organization, provider)).await?.unwrap_or_default())
    }
}

/// A header that deliveries carry besides.
#[derive(InputObject)]
struct HeaderInput {
    name: String,
    /// It is stored encrypted and never shown again.
    value: String,
}

#[derive(InputObject)]
struct SetProviderDestinationInput {
    provider_id: ID,
    /// An https URL; null: webhooks are recorded and not forwarded any more.
    url: Option<String>,
    /// 1 to 120; left out: the deployment's default.
    timeout_seconds: Option<i32>,
    /// Attempts at the same time, 1 to 256; left out: 16.
    concurrency: Option<i32>,
    /// Left out: as they are. They replace all earlier ones.
    headers: MaybeUndefined<Vec<HeaderInput>>,
    /// Deliveries carry the sender's signature header too, so that the sender's own library verifies them with the
    /// sender's own secret. Left out: as it is, and false at first.
    original_signature: Option<bool>,
}

#[derive(SimpleObject)]
struct SetProviderDestinationPayload {
    provider: WebhookProvider,
    /// The secret that signs deliveries, where it was made just now. It is never shown again.
    signing_secret: Option<String>,
}

#[derive(InputObject)]
struct RotateDestinationSecretInput {
    provider_id: ID,
    /// How long the earlier secrets still sign beside the new one; a day when left out, at most 30.
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
    /// For admins of the organization. Webhooks that come from now on are forwarded there, signed as
    /// Standard Webhooks say.
    async fn set_provider_destination(
        &self,
        context: &Context<'_>,
        input: SetProviderDestinationInput,
    ) -> Result<SetProviderDestinationPayload, Error> {
        let (organization, id) = provider_id(&input.provider_id)?;
        Viewer::of(context)?.must_manage(organization)?;
        existing_provider(context, organization, id).await?;
        let (place, signing_secret) = match checked(App::of(context)?, input)? {
            None => (execute(context, organization, id, ProviderCommand::RemoveDestination).await?, None),
            Some(wish) => set(context, organization, id, wish).await?,
        };
        let provider = provider_after(context, organization, id, place).await?;
        Ok(SetProviderDestinationPayload { provider, signing_secret })
    }

    /// For admins of the organization. Earlier secrets sign beside the new one until their grace ends.
    async fn rotate_destination_secret(
        &self,
        context: &Context<'_>,
        input: RotateDestinationSecretInput,
    ) -> Result<RotateDestinationSecretPayload, Error> {
        let (organization, id) = provider_id(&input.provider_id)?;
        Viewer::of(context)?.must_manage(organization)?;
        existing_provider(context, organization, id).await?;
        let grace = input.grace_seconds.map_or(DEFAULT_GRACE, |seconds| Duration::seconds(seconds.into()));
        let signing_secret = outgoing::secret(&random_bytes().map_err(internal)?);
        let secrets = [SecretString::from(signing_secret.clone())];
        let now = Utc::now();
        let place = with_secrets(context, organization, id, &secrets, |_, refs| {
            ProviderCommand::RotateOutgoingSecret { secret: refs[0], grace, now }
        })
        .await?;
        let provider = provider_after(context, organization, id, place).await?;
        Ok(RotateDestinationSecretPayload { provider, signing_secret })
    }
}

/// A destination as it was asked for.
pub(super) struct Wish {
    url: String,
    timeout_seconds: Option<u32>,
    concurrency: u32,
    headers: WishedHeaders,
    /// Nothing: as it is.
    original_signature: Option<bool>,
}

impl Wish {
    /// A URL and nothing else.
    pub(super) fn plain(app: &App, url: &str) -> Result<Self, Error> {
        Ok(Self {
            url: target(app, url)?,
            timeout_seconds: None,
            concurrency: DEFAULT_CONCURRENCY,
            headers: WishedHeaders::AsTheyAre,
            original_signature: None,
        })
    }
}

/// The URL as it is kept.
fn target(app: &App, url: &str) -> Result<String, Error> {
    if leads_back(&app.base_url, url) {
        let sentence =
            "This URL belongs to this Hookledger server, so webhooks would go in a circle. Use a different URL.";
        return Err(Code::BadUserInput.error(sentence));
    }
    let target = Target::parse(url, app.egress.allow_list());
    Ok(target.map_err(|error| Code::BadUserInput.error(error.to_string()))?.as_str().to_owned())
}

/// Whether a URL is one of ours that receives webhooks. Other names of this installation are told by the hops of
/// what comes back.
fn leads_back(base_url: &str, url: &str) -> bool {
    let (Ok(base), Ok(url)) = (url::Url::parse(base_url), url::Url::parse(url)) else { return false };
    let same_place = base.host_str() == url.host_str() && base.port_or_known_default() == url.port_or_known_default();
    let below = url.path().strip_prefix(base.path().trim_end_matches('/'));
    same_place && below.is_some_and(|path| path.starts_with("/webhooks/"))
}

enum WishedHeaders {
    AsTheyAre,
    None,
    /// Names, and all of it as JSON.
    These(Vec<String>, SecretString),
}

fn checked(app: &App, input: SetProviderDestinationInput) -> Result<Option<Wish>, Error> {
    let Some(url) = input.url else { return Ok(None) };
    let number = |number: i32, what: &str| {
        u32::try_from(number).map_err(|_| Code::BadUserInput.error(format!("`{what}` must be 1 or more.")))
    };
    Ok(Some(Wish {
        timeout_seconds: input.timeout_seconds.map(|seconds| number(seconds, "timeoutSeconds")).transpose()?,
        concurrency: input.concurrency.map_or(Ok(DEFAULT_CONCURRENCY), |wished| number(wished, "concurrency"))?,
        headers: match input.headers {
            MaybeUndefined::Undefined => WishedHeaders::AsTheyAre,
            MaybeUndefined::Null => WishedHeaders::None,
            MaybeUndefined::Value(headers) if headers.is_empty() => WishedHeaders::None,
            MaybeUndefined::Value(headers) => checked_headers(headers)?,
        },
        original_signature: input.original_signature,
        ..Wish::plain(app, &url)?
    }))
}

fn checked_headers(headers: Vec<HeaderInput>) -> Result<WishedHeaders, Error> {
    let bad = |reason: String| Err(Code::BadUserInput.error(reason));
    if headers.len() > MAX_HEADERS {
        return bad(format!("A destination can have at most {MAX_HEADERS} headers."));
    }
    let mut pairs = BTreeMap::new();
    for HeaderInput { name, value } in headers {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            return bad("A header name can have only letters, digits, and hyphens.".to_owned());
        };
        if is_reserved(&name) {
            return bad(format!("Hookledger sets {name} itself. Remove it."));
        }
        if HeaderValue::from_str(&value).is_err() {
            return bad(format!("The value of {name} must be visible ASCII text."));
        }
        if pairs.insert(name.as_str().to_owned(), value).is_some() {
            return bad(format!("The header {name} appears twice."));
        }
    }
    let json = SecretString::from(serde_json::to_string(&pairs).map_err(internal)?);
    if json.expose_secret().len() > MAX_HEADER_BYTES {
        return bad(format!("Headers can be at most {MAX_HEADER_BYTES} bytes in total."));
    }
    Ok(WishedHeaders::These(pairs.into_keys().collect(), json))
}

pub(super) async fn set(
    context: &Context<'_>,
    organization: OrganizationId,
    id: ProviderId,
    wish: Wish,
) -> Result<(Option<LogPosition>, Option<String>), Error> {
    let app = App::of(context)?;
    let current: Provider =
        app.commands.load(organization, id.uuid()).await.map_err(|error| command(error, provider_refusal))?;
    let signing_secret =
        if current.outgoing().is_empty() { Some(outgoing::secret(&random_bytes().map_err(internal)?)) } else { None };
    let mut secrets: Vec<SecretString> =
        signing_secret.iter().map(|secret| SecretString::from(secret.clone())).collect();
    if let WishedHeaders::These(_, json) = &wish.headers {
        secrets.push(json.clone());
    }
    let has_new_secret = signing_secret.is_some();
    let to_command = |current: &Provider, refs: &[SecretRef]| {
        let outgoing = has_new_secret.then(|| refs[0]);
        let known = current.destination();
        let (header_names, headers) = match &wish.headers {
            WishedHeaders::None => (vec![], None),
            WishedHeaders::AsTheyAre => (
                known.map(|known| known.header_names.clone()).unwrap_or_default(),
                known.and_then(|known| known.headers),
            ),
            WishedHeaders::These(names, _) => (names.clone(), refs.last().copied()),
        };
        let Wish { url, timeout_seconds, concurrency, headers: _, original_signature } = &wish;
        let was = known.is_some_and(|known| known.original_signature);
        let destination = Settings {
            url: url.clone(),
            timeout_seconds: *timeout_seconds,
            concurrency: *concurrency,
            header_names,
            headers,
            original_signature: original_signature.unwrap_or(was),
        };
        ProviderCommand::SetDestination { destination, outgoing }
    };
    let place = with_secrets(context, organization, id, &secrets, to_command).await?;
    Ok((place, signing_secret))
}

/// Stores secrets under the versions that are next, then decides; again if another change came first.
async fn with_secrets(
    context: &Context<'_>,
    organization: OrganizationId,
    id: ProviderId,
    secrets: &[SecretString],
    to_command: impl Fn(&Provider, &[SecretRef]) -> ProviderCommand,
) -> Result<Option<LogPosition>, Error> {
    let (app, viewer) = (App::of(context)?, Viewer::of(context)?);
    let mut tries = 1;
    loop {
        let current: Provider =
            app.commands.load(organization, id.uuid()).await.map_err(|error| command(error, provider_refusal))?;
        let mut refs: Vec<SecretRef> = (current.next_version()..)
            .zip(secrets)
            .map(|(secret_version, _)| SecretRef { secret_id: SecretId::default(), secret_version })
            .collect();
        // What would be refused anyway is refused before its secrets are stored.
        current
            .decide(to_command(&current, &refs))
            .map_err(|error| provider_refusal(&error).error(error.to_string()))?;
        for (reference, secret) in refs.iter_mut().zip(secrets) {
            let stored = app.vault.store(organization, id, reference.secret_version, secret).await;
            reference.secret_id = stored.map_err(internal)?;
        }
        let change = to_command(&current, &refs);
        match app.commands.execute::<Provider>(organization, id.uuid(), change, &viewer.metadata()).await {
            Err(CommandError::Refused(hookledger_aggregates::provider::ProviderError::VersionTaken))
                if tries < VERSION_TRIES =>
            {
                tries += 1;
            }
            result => return result.map_err(|error| command(error, provider_refusal)),
        }
    }
}

async fn execute(
    context: &Context<'_>,
    organization: OrganizationId,
    id: ProviderId,
    change: ProviderCommand,
) -> Result<Option<LogPosition>, Error> {
    let (app, viewer) = (App::of(context)?, Viewer::of(context)?);
    let place = app.commands.execute::<Provider>(organization, id.uuid(), change, &viewer.metadata()).await;
    place.map_err(|error| command(error, provider_refusal))
}
