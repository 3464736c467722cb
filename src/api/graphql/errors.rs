//! GraphQL errors: a sentence and a code. Details are logged, never returned.

use std::error::Error as StdError;

use async_graphql::{Error, ErrorExtensions as _, Response, ServerError, Value};
use hookledger_aggregates::team::TeamError;
use hookledger_aggregates::user::UserError;

use crate::identity::IdentityError;
use crate::log::{AppendError, CommandError, ReadError, is_busy, is_out_of_range, is_unavailable};

/// Seconds until the next try.
pub(super) const RETRY_AFTER: u64 = 1;

/// The kind of an error, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Unauthenticated,
    Forbidden,
    NotFound,
    BadUserInput,
    Conflict,
    RateLimited,
    Unavailable,
    Internal,
    ParseFailed,
    ValidationFailed,
    /// Too large, too deep, or too much for one answer.
    LimitExceeded,
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
            Self::RateLimited => "RATE_LIMITED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
            Self::ParseFailed => "GRAPHQL_PARSE_FAILED",
            Self::ValidationFailed => "GRAPHQL_VALIDATION_FAILED",
            Self::LimitExceeded => "LIMIT_EXCEEDED",
        }
    }

    /// An error of this kind.
    pub fn error(self, message: impl Into<String>) -> Error {
        Error::new(message).extend_with(|_, extensions| extensions.set("code", self.as_str()))
    }
}

/// The same error for unknown objects and for those of other organizations.
pub(super) fn not_found() -> Error {
    Code::NotFound.error("Not found. It doesn't exist, or you may not have access.")
}

/// An internal error, logged here once and not shown. An unreachable store is reported as such instead.
pub(super) fn internal(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    failed(&*error.into())
}

/// The same for a shared error.
pub(super) fn failed(error: &(dyn StdError + 'static)) -> Error {
    if is_unavailable(error) {
        return away(error);
    }
    if is_out_of_range(error) {
        tracing::warn!(%error, "a GraphQL field was asked for what the store cannot hold");
        return Code::BadUserInput.error("A value in this query is out of range.");
    }
    if is_busy(error) {
        return again("The server is busy. Try again.");
    }
    tracing::error!(%error, "a GraphQL field failed");
    Code::Internal.error("Something went wrong on our side. The error was logged.")
}

fn away(error: impl std::fmt::Display) -> Error {
    tracing::warn!(%error, "a GraphQL field was not answered: the store is away");
    again("The database isn't responding. Try again.")
}

/// An error after which the same request may succeed in a moment.
fn again(sentence: &str) -> Error {
    Code::Unavailable.error(sentence).extend_with(|_, extensions| extensions.set("retryAfter", RETRY_AFTER))
}

/// A failed read. If it was stopped for taking too long, the client may ask for less.
pub(super) fn unread(error: impl Into<ReadError>) -> Error {
    let error = error.into();
    if let ReadError::Database(error) = &error {
        // 57014, `query_canceled`: the statement timeout.
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        if code.is_some_and(|code| code == "57014") {
            tracing::warn!("a read for a person took too long and was stopped");
            return Code::LimitExceeded.error("This takes too long. Choose a shorter time range, or ask for less.");
        }
    }
    internal(error)
}

/// The error for a refused or failed command.
pub(super) fn command<E: std::error::Error>(error: CommandError<E>, refused: impl FnOnce(&E) -> Code) -> Error {
    match error {
        CommandError::Refused(error) => refused(&error).error(error.to_string()),
        CommandError::Busy => Code::Conflict.error("Someone else is changing this too. Try again."),
        CommandError::Overloaded => again("The server is busy. Try again."),
        CommandError::Unavailable(reason) => away(reason),
        CommandError::Failed(reason) => internal(reason),
    }
}

/// The error for a refused or failed change of a person.
pub(super) fn identity(error: IdentityError) -> Error {
    let code = match &error {
        IdentityError::Address(_) | IdentityError::User(UserError::SuperAdmin) => Code::BadUserInput,
        IdentityError::NoSuchUser | IdentityError::User(UserError::NotRegistered) => return not_found(),
        IdentityError::AddressTaken
        | IdentityError::AlreadyHere
        | IdentityError::User(
            UserError::AlreadyRegistered | UserError::Deactivated | UserError::Active | UserError::Erased,
        )
        | IdentityError::Team(TeamError::LastAdmin)
        | IdentityError::SeveralInvitations(_)
        | IdentityError::Busy => Code::Conflict,
        IdentityError::Append(AppendError::Overloaded | AppendError::OverLimit(_)) => Code::Unavailable,
        IdentityError::Unavailable(_) | IdentityError::Append(AppendError::Failed) => return away(error),
        IdentityError::Append(AppendError::Conflict)
        | IdentityError::Read(_)
        | IdentityError::Token(_)
        | IdentityError::Database(_)
        | IdentityError::Vault(_)
        | IdentityError::Json(_) => return internal(error),
    };
    code.error(error.to_string())
}

/// Adds a code to every error without one: those are async-graphql's own, about the query. An internal error
/// gets the ID under which it was logged.
#[must_use]
pub fn with_codes(mut response: Response, request_id: &str) -> Response {
    for error in &mut response.errors {
        let code = match error.message.as_str() {
            "Query is nested too deep." => Code::LimitExceeded,
            told if told.starts_with("The recursion depth of the query") => Code::LimitExceeded,
            _ if error.path.is_empty() => Code::ValidationFailed,
            _ => Code::BadUserInput,
        };
        let extensions = error.extensions.get_or_insert_default();
        match extensions.get("code") {
            None => extensions.set("code", code.as_str()),
            Some(code) if *code == Value::from(Code::Internal.as_str()) => extensions.set("requestId", request_id),
            Some(_) => {}
        }
    }
    response
}

/// Whether part of the request failed because the store is unreachable.
#[must_use]
pub fn is_away(response: &Response) -> bool {
    let unavailable = Value::from(Code::Unavailable.as_str());
    let code = |error: &ServerError| error.extensions.as_ref()?.get("code").cloned();
    response.errors.iter().any(|error| code(error).as_ref() == Some(&unavailable))
}

/// Whether nothing was executed, so that the answer has only errors about the request itself.
#[must_use]
pub fn was_refused(response: &Response) -> bool {
    response.is_err() && response.data == Value::Null && response.errors.iter().all(|error| error.path.is_empty())
}

/// An error with its code.
pub(super) fn coded(code: Code, mut error: ServerError) -> ServerError {
    error.extensions.get_or_insert_default().set("code", Value::from(code.as_str()));
    error
}

/// A response with a single error about the whole request.
pub(crate) fn only_error(code: Code, message: impl Into<String>) -> Response {
    Response::from_errors(vec![coded(code, ServerError::new(message, None))])
}
