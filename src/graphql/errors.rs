//! Errors as GraphQL tells them: a sentence and a code. Details are logged, never returned.

use async_graphql::{Error, ErrorExtensions as _, Response, ServerError, Value};

use crate::log::CommandError;

/// What kind of error, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Unauthenticated,
    Forbidden,
    NotFound,
    BadUserInput,
    Conflict,
    Unavailable,
    Internal,
    ParseFailed,
    ValidationFailed,
}

impl Code {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::BadUserInput => "BAD_USER_INPUT",
            Self::Conflict => "CONFLICT",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
            Self::ParseFailed => "GRAPHQL_PARSE_FAILED",
            Self::ValidationFailed => "GRAPHQL_VALIDATION_FAILED",
        }
    }

    /// An error of this kind.
    pub fn error(self, message: impl Into<String>) -> Error {
        Error::new(message).extend_with(|_, extensions| extensions.set("code", self.as_str()))
    }
}

/// The same answer for what is not there and for what is another organization's.
pub(super) fn not_found() -> Error {
    Code::NotFound.error("there is nothing with this id")
}

/// Something of ours failed: it is logged here, once, and not told.
pub(super) fn internal(error: impl std::fmt::Display) -> Error {
    tracing::error!(%error, "a GraphQL field failed");
    Code::Internal.error("something failed on our side; it was logged")
}

/// What a refused or failed command means to who gave it.
pub(super) fn command<E: std::error::Error>(error: CommandError<E>, refused: impl FnOnce(&E) -> Code) -> Error {
    match error {
        CommandError::Refused(error) => refused(&error).error(error.to_string()),
        CommandError::Busy => Code::Conflict.error("others are changing the same thing; try again"),
        CommandError::Overloaded => Code::Unavailable.error("the log takes no more for now; try again"),
        CommandError::Failed(reason) => internal(reason),
    }
}

/// Gives a code to every error that has none: those are async-graphql's own, about the query.
#[must_use]
pub fn with_codes(mut response: Response) -> Response {
    for error in &mut response.errors {
        let extensions = error.extensions.get_or_insert_default();
        if extensions.get("code").is_none() {
            let code = if error.path.is_empty() { Code::ValidationFailed } else { Code::BadUserInput };
            extensions.set("code", code.as_str());
        }
    }
    response
}

/// A response that is one error about the whole request.
pub(crate) fn only_error(code: Code, message: impl Into<String>) -> Response {
    let mut error = ServerError::new(message, None);
    error.extensions.get_or_insert_default().set("code", Value::from(code.as_str()));
    Response::from_errors(vec![error])
}
