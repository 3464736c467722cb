//! Queries without a session: only the public demo is allowed.

use async_graphql::parser::types::{ExecutableDocument, Selection};
use async_graphql::{Context, Error, Request};

use super::allowance::{Allowance, TooManyReads};
use super::rights::Viewer;
use crate::api::graphql::context::App;
use crate::api::graphql::errors::{Code, internal};
use crate::demo::sandbox::{Sandbox, SandboxError};
use crate::platform::store::{Asker, Reading, Tenant};

/// Root fields that need no session.
const FOR_GUESTS: &[&str] = &["demo", "demoWebhook", "sendDemoWebhook", "__typename"];
/// Root fields per request.
const MAX_ROOTS: usize = 5;

/// A client without a session.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The client's address.
    pub address: String,
}

/// Whether a query is worth parsing for somebody without a session: it says something about the demo. Parsing
/// costs the most, so only such queries are parsed, at a rate.
#[must_use]
pub fn may_be_for_guests(query: &str) -> bool {
    query.contains("demo") || query.contains("Demo")
}

/// Whether a request needs no session: every root field is the demo's, and there are few. Fragments at the
/// root are refused without a look.
#[must_use]
pub fn is_for_guests(document: &ExecutableDocument) -> bool {
    let for_guests = |selection: &Selection| match selection {
        Selection::Field(field) => FOR_GUESTS.contains(&field.node.name.node.as_str()),
        Selection::FragmentSpread(_) | Selection::InlineFragment(_) => false,
    };
    let roots = document.operations.iter().flat_map(|(_, operation)| &operation.node.selection_set.node.items);
    let roots: Vec<_> = roots.take(MAX_ROOTS + 1).collect();
    // A request for nothing but type names is not about the demo.
    let about_demo = |selection: &Selection| match selection {
        Selection::Field(field) => field.node.name.node != "__typename",
        Selection::FragmentSpread(_) | Selection::InlineFragment(_) => false,
    };
    roots.len() <= MAX_ROOTS
        && roots.iter().all(|selection| for_guests(&selection.node))
        && roots.iter().any(|selection| about_demo(&selection.node))
}

/// A request without a session.
pub fn with_guest(request: Request, guest: Guest) -> Request {
    request.data(guest).data(Allowance::of_guest())
}

pub(crate) fn unavailable(error: SandboxError) -> Error {
    match error {
        SandboxError::SlugTaken => Code::Unavailable.error(error.to_string()),
        SandboxError::Failed(reason) => {
            tracing::error!(error = reason, "the demo cannot be made");
            Code::Unavailable.error("The demo isn't available right now. Try again.")
        }
    }
}

pub(crate) fn sandbox<'a>(context: &Context<'a>) -> Result<&'a Sandbox, Error> {
    let app = App::of(context)?;
    app.sandbox.as_deref().ok_or_else(|| Code::NotFound.error("This deployment has no demo."))
}

/// The address that the request came from.
pub(crate) fn address(context: &Context<'_>) -> Result<String, Error> {
    match context.data_opt::<Guest>() {
        Some(guest) => Ok(guest.address.clone()),
        None => Ok(Viewer::of(context)?.client.address.clone()),
    }
}

/// The sandbox's rows, for any client.
pub(crate) async fn rows(context: &Context<'_>) -> Result<Tenant, Error> {
    Allowance::of(context)?.reads(1).map_err(TooManyReads::told)?;
    let asker = match context.data_opt::<Guest>() {
        Some(guest) => Asker::Guest(guest.address.clone()),
        None => Viewer::of(context)?.asker(),
    };
    let tenants = App::of(context)?.tenants.asked_by(asker, Reading::Page);
    tenants.of(Sandbox::organization()).await.map_err(internal)
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;

    #[test]
    fn guests_ask_for_the_demo_and_for_nothing_else() {
        let for_guests = |query: &str| is_for_guests(&parse_query(query).unwrap());
        for good in [
            "{ demo { samples(providerName: GITHUB) { name } } }",
            "query A { a: demo { providers { webhookUrl } } __typename }",
            "mutation { sendDemoWebhook(input: {providerName: GITHUB, sample: \"push\"}) { webhookId } }",
        ] {
            assert!(for_guests(good), "{good}");
        }
        for bad in [
            "{ viewer { isSuperAdmin } }",
            "{ demo { __typename } viewer { isSuperAdmin } }",
            "{ demo: viewer { isSuperAdmin } }",
            "{ __schema { types { name } } }",
            "{ __type(name: \"Query\") { name } }",
            "{ ...F } fragment F on Query { viewer { isSuperAdmin } }",
            "{ ... on Query { viewer { isSuperAdmin } } }",
            "query A { demo { __typename } } query B { viewer { isSuperAdmin } }",
            "mutation { createOrganization(input: {name: \"x\", slug: \"x\"}) { organization { id } } }",
            "{ __typename }",
            "{ a: demo { __typename } b: __typename c: __typename d: __typename e: __typename f: __typename }",
        ] {
            assert!(!for_guests(bad), "{bad}");
        }
    }
}
