//! A request as it was received: headers, and the body as text.

use std::sync::Arc;

use async_graphql::{Context, Error, SimpleObject};
use base64::Engine as _;
use hookledger_aggregates::OrganizationId;

use crate::api::graphql::errors::internal;
use crate::api::graphql::guards::allowance::Allowance;
use crate::api::graphql::rows::{HeadersOf, load};

/// A received header.
#[derive(SimpleObject)]
pub struct Header {
    name: String,
    value: String,
}

impl Header {
    pub(crate) fn new(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), value: value.to_owned() }
    }

    /// The headers of the request at that position, while they are stored.
    pub(crate) async fn all_of(
        context: &Context<'_>,
        organization: OrganizationId,
        position: i64,
    ) -> Result<Vec<Self>, Error> {
        let pairs = load(context, HeadersOf(organization, position)).await?.unwrap_or_default();
        let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        Allowance::of(context)?.hold(3 * i64::try_from(bytes).map_err(internal)?)?;
        Ok(pairs.into_iter().map(|(name, value)| Self { name, value }).collect())
    }
}

/// A body as text, if it is UTF-8: paid for by its encoded length before it is copied.
pub(crate) fn as_text(context: &Context<'_>, body: Option<Arc<Vec<u8>>>) -> Result<Option<String>, Error> {
    let Some(body) = body else { return Ok(None) };
    let Ok(text) = std::str::from_utf8(&body) else { return Ok(None) };
    Allowance::of(context)?.hold_text(text)?;
    Ok(Some(text.to_owned()))
}

/// A body in base64, paid for before it is encoded.
pub(crate) fn as_base64(context: &Context<'_>, body: Option<Arc<Vec<u8>>>) -> Result<Option<String>, Error> {
    let Some(body) = body else { return Ok(None) };
    // Four bytes for three, as a value and as written; the body itself was paid for.
    Allowance::of(context)?.hold(i64::try_from(body.len() / 3 * 5).map_err(internal)?)?;
    Ok(Some(base64::engine::general_purpose::STANDARD.encode(&*body)))
}
