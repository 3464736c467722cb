//! Conditions of a query on `webhook_logs`.

use chrono::{DateTime, Duration, Utc};
use hookledger_aggregates::OrganizationId;
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::QueryAs;
use uuid::Uuid;

use super::{FAILED, WebhookFilter, WebhookKey, WebhookStatus};
use crate::PageRequest;

/// The predicate of the partial index `webhook_logs_flagged`, word for word.
const FLAGGED: &str = "(suspected_replay or body_differs or rejection = 'transmission_replayed')";

pub(crate) enum Value {
    Id(Uuid),
    Ids(Vec<Uuid>),
    Time(DateTime<Utc>),
    Span(Duration),
    Number(i64),
    Text(String),
    Texts(Vec<String>),
}

/// The conditions of a query on `webhook_logs`, with their bound values.
#[derive(Default)]
pub(crate) struct Conditions {
    pub(crate) all: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    pub(crate) fn bind(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    /// Conditions and order of a page. Conditions are added only when requested, so that the planner sees
    /// which index applies; every value is bound.
    pub(super) fn of_page(
        &mut self,
        organization: OrganizationId,
        filter: &WebhookFilter,
        page: PageRequest<WebhookKey>,
    ) -> &'static str {
        let (compare, order) = if page.backward {
            (">", "received_at asc, position asc")
        } else {
            ("<", "received_at desc, position desc")
        };
        let organization = self.bind(Value::Id(organization.uuid()));
        self.all.push(format!("organization_id = {organization}"));
        self.of_filter(filter);
        if let Some((received_at, position)) = page.from {
            let (received_at, position) = (self.bind(Value::Time(received_at)), self.bind(Value::Number(position)));
            self.all.push(format!("(received_at, position) {compare} ({received_at}, {position})"));
        }
        order
    }

    pub(crate) fn of_filter(&mut self, filter: &WebhookFilter) {
        if let Some(provider) = filter.provider {
            let provider = self.bind(Value::Id(provider.uuid()));
            self.all.push(format!("provider_id = {provider}"));
        }
        if let Some(providers) = &filter.providers {
            let providers = self.bind(Value::Ids(providers.iter().map(|id| id.uuid()).collect()));
            self.all.push(format!("provider_id = any ({providers})"));
        }
        match filter.status.as_deref() {
            None => {}
            Some([WebhookStatus::Failed]) => self.all.push(FAILED.to_owned()),
            Some(several) => {
                let names = several.iter().map(|status| status.as_str().to_owned()).collect();
                let names = self.bind(Value::Texts(names));
                self.all.push(format!("status = any ({names})"));
            }
        }
        if let Some(event_type) = &filter.event_type {
            let event_type = self.bind(Value::Text(event_type.clone()));
            self.all.push(format!("event_type = {event_type}"));
        }
        if let Some(event_types) = &filter.event_types {
            let event_types = self.bind(Value::Texts(event_types.clone()));
            self.all.push(format!("event_type = any ({event_types})"));
        }
        if let Some(error) = &filter.error_message {
            let error = self.bind(Value::Text(error.clone()));
            self.all.push(format!("error_message = {error}"));
        }
        // Spelled out, so that the planner sees that the index of failed ones contains all rejections.
        match filter.signature_valid {
            None => {}
            Some(true) => self.all.push("signature_valid".to_owned()),
            Some(false) => self.all.push("not signature_valid".to_owned()),
        }
        match filter.dead_lettered {
            None => {}
            Some(true) => self.all.push("status = 'failed' and dead_lettered_at is not null".to_owned()),
            Some(false) => self.all.push("dead_lettered_at is null".to_owned()),
        }
        for (column, wanted) in [("body_differs", filter.body_differs), ("suspected_replay", filter.suspected_replay)] {
            match wanted {
                None => {}
                Some(true) => self.all.push(format!("{column} and {FLAGGED}")),
                Some(false) => self.all.push(format!("not {column}")),
            }
        }
        match filter.is_test {
            None => {}
            Some(true) => self.all.push("is_test".to_owned()),
            Some(false) => self.all.push("not is_test".to_owned()),
        }
        match filter.flagged {
            None => {}
            Some(true) => self.all.push(FLAGGED.to_owned()),
            Some(false) => self.all.push(format!("{FLAGGED} is not true")),
        }
        if let Some(from) = filter.received_from {
            let from = self.bind(Value::Time(from));
            self.all.push(format!("received_at >= {from}"));
        }
        if let Some(to) = filter.received_to {
            let to = self.bind(Value::Time(to));
            self.all.push(format!("received_at < {to}"));
        }
        if let Some(text) = &filter.text {
            let exact_id = text.parse::<Uuid>().ok();
            let prefix = self.bind(Value::Text(text.clone()));
            let id = exact_id.map(|id| self.bind(Value::Id(id)));
            let by_id = id.map(|id| format!(" or webhook_id = {id}")).unwrap_or_default();
            self.all.push(format!(
                "(starts_with(provider_event_id, {prefix}) or starts_with(event_type, {prefix}){by_id})"
            ));
        }
    }

    pub(crate) fn bind_to<O>(
        self,
        query: QueryAs<'_, Postgres, O, PgArguments>,
    ) -> QueryAs<'_, Postgres, O, PgArguments> {
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Id(id) => query.bind(id),
            Value::Ids(ids) => query.bind(ids),
            Value::Time(time) => query.bind(time),
            Value::Span(span) => query.bind(span),
            Value::Number(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Texts(texts) => query.bind(texts),
        })
    }
}
