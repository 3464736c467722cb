//! A request as clients send it, over whichever transport, checked against the limits and parsed.

use async_graphql::{Extensions, Request, Response, ServerError, Value, Variables};
use serde::Deserialize;

use super::errors::{Code, coded, only_error};
use super::limits::{check_document, check_source};
use super::merge::{check_repeats, merge_repeated};

/// The parameters of a request, each of the type that the specification says, or refused.
#[derive(Clone, Deserialize)]
pub struct Parameters {
    pub query: String,
    #[serde(rename = "operationName")]
    pub operation_name: Option<String>,
    pub variables: Option<serde_json::Map<String, serde_json::Value>>,
    pub extensions: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Parameters {
    /// One request, as an object: a list of several is not taken.
    ///
    /// # Errors
    /// What the body should be.
    pub fn from_json(body: &[u8]) -> Result<Self, String> {
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err("the body is one GraphQL request, an object in JSON".to_owned());
        }
        serde_json::from_slice(body).map_err(|error| format!("the body is not a GraphQL request in JSON: {error}"))
    }

    /// The parsed request.
    ///
    /// # Errors
    /// The answer to give where it does not parse or exceeds a limit.
    pub fn request(self) -> Result<Request, Response> {
        check_source(&self.query).map_err(|limit| only_error(Code::LimitExceeded, limit))?;
        let variables = self.variables.map(|map| Variables::from_json(serde_json::Value::Object(map)));
        let mut request = Request::new(self.query).variables(variables.unwrap_or_default());
        request.operation_name = self.operation_name;
        if let Some(Ok(Value::Object(map))) =
            self.extensions.map(|map| Value::from_json(serde_json::Value::Object(map)))
        {
            request.extensions = Extensions(map.into_iter().map(|(name, value)| (name.to_string(), value)).collect());
        }
        let refuse = |code, error| Response::from_errors(vec![coded(code, error)]);
        let variables = request.variables.clone();
        let document = request.parsed_query().map_err(|error| refuse(Code::ParseFailed, error))?;
        let too_much = |(limit, at)| refuse(Code::LimitExceeded, ServerError::new(limit, Some(at)));
        check_document(document, &variables).map_err(too_much)?;
        let mut document = document.clone();
        merge_repeated(&mut document);
        check_repeats(&document).map_err(too_much)?;
        request.set_parsed_query(document);
        Ok(request)
    }
}
