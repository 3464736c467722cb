//! A client's request, over any transport, checked against the limits and parsed.

use async_graphql::parser::types::{ExecutableDocument, OperationDefinition, Selection, SelectionSet};
use async_graphql::{Extensions, Request, Response, ServerError, Value, Variables};
use async_graphql_value::Value as Literal;
use serde::Deserialize;

use super::limits::{check_document, check_source};
use super::merge::{check_repeats, merge_repeated};
use crate::api::graphql::errors::{Code, coded, only_error};

/// PostgreSQL's text cannot contain U+0000, and no real text needs it.
const NUL: &str = "Text can't contain U+0000.";

/// The parameters of a request, each of the type in the specification.
#[derive(Clone, Deserialize)]
pub struct Parameters {
    pub query: String,
    #[serde(rename = "operationName")]
    pub operation_name: Option<String>,
    pub variables: Option<serde_json::Map<String, serde_json::Value>>,
    pub extensions: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Parameters {
    /// One request, as an object: a list of several is refused. The error says what the body should be.
    pub fn from_json(body: &[u8]) -> Result<Self, String> {
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err("The body must be one GraphQL request, as a JSON object.".to_owned());
        }
        serde_json::from_slice(body).map_err(|error| format!("The body isn't a GraphQL request in JSON: {error}"))
    }

    /// The parsed request, or the answer if it does not parse or exceeds a limit.
    pub fn request(self) -> Result<Request, Response> {
        let variables = self.variables.map(|map| Variables::from_json(serde_json::Value::Object(map)));
        let mut request = Request::new(self.query).variables(variables.unwrap_or_default());
        request.operation_name = self.operation_name;
        if let Some(Ok(Value::Object(map))) =
            self.extensions.map(|map| Value::from_json(serde_json::Value::Object(map)))
        {
            request.extensions = Extensions(map.into_iter().map(|(name, value)| (name.to_string(), value)).collect());
        }
        checked(request)
    }
}

/// Checks a request against the limits, and parses it.
pub fn checked(mut request: Request) -> Result<Request, Response> {
    check_source(&request.query).map_err(|limit| only_error(Code::LimitExceeded, limit))?;
    if request.variables.values().any(holds_nul) {
        return Err(only_error(Code::BadUserInput, NUL));
    }
    // An empty name means none, for clients that send every field of a form.
    request.operation_name = request.operation_name.filter(|name| !name.is_empty());
    let refuse = |code, error| Response::from_errors(vec![coded(code, error)]);
    let variables = request.variables.clone();
    let document = request.parsed_query().map_err(|error| refuse(Code::ParseFailed, error))?;
    let too_much = |(limit, at)| refuse(Code::LimitExceeded, ServerError::new(limit, Some(at)));
    check_document(document, &variables).map_err(too_much)?;
    if texts_hold_nul(document) {
        return Err(only_error(Code::BadUserInput, NUL));
    }
    let mut document = document.clone();
    merge_repeated(&mut document);
    check_repeats(&document).map_err(too_much)?;
    request.set_parsed_query(document);
    Ok(request)
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::List(items) => items.iter().any(holds_nul),
        Value::Object(map) => map.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Number(_) | Value::Boolean(_) | Value::Binary(_) | Value::Enum(_) => false,
    }
}

/// Whether any text in the query itself contains it.
fn texts_hold_nul(document: &ExecutableDocument) -> bool {
    let defaults = |operation: &OperationDefinition| {
        let values =
            operation.variable_definitions.iter().filter_map(|definition| definition.node.default_value.as_ref());
        values.into_iter().any(|value| holds_nul(&value.node))
    };
    document
        .operations
        .iter()
        .any(|(_, operation)| defaults(&operation.node) || arguments_hold_nul(&operation.node.selection_set.node))
        || document.fragments.values().any(|fragment| arguments_hold_nul(&fragment.node.selection_set.node))
}

fn arguments_hold_nul(set: &SelectionSet) -> bool {
    set.items.iter().any(|selection| match &selection.node {
        Selection::Field(field) => {
            field.node.arguments.iter().any(|(_, value)| literal_holds_nul(&value.node))
                || arguments_hold_nul(&field.node.selection_set.node)
        }
        Selection::InlineFragment(fragment) => arguments_hold_nul(&fragment.node.selection_set.node),
        Selection::FragmentSpread(_) => false,
    })
}

fn literal_holds_nul(value: &Literal) -> bool {
    match value {
        Literal::String(text) => text.contains('\0'),
        Literal::List(items) => items.iter().any(literal_holds_nul),
        Literal::Object(map) => map.values().any(literal_holds_nul),
        Literal::Variable(_)
        | Literal::Null
        | Literal::Number(_)
        | Literal::Boolean(_)
        | Literal::Binary(_)
        | Literal::Enum(_) => false,
    }
}
