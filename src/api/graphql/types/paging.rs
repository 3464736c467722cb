//! Relay's arguments, checked and turned into a page request, and pages turned into connections.

use async_graphql::connection::{Connection, CursorType, Edge, EmptyFields};
use async_graphql::{Error, ObjectType, OutputType};
use hookledger_projections::{Page, PageRequest};

use crate::api::graphql::errors::Code;

/// Default and maximum number of rows per page.
pub(crate) const DEFAULT_ROWS: i32 = 50;
pub(crate) const MAX_ROWS: i32 = 1_000;

/// `first` and `after`, or `last` and `before`.
#[derive(Default)]
pub(crate) struct Window {
    pub(crate) first: Option<i32>,
    pub(crate) after: Option<String>,
    pub(crate) last: Option<i32>,
    pub(crate) before: Option<String>,
}

impl Window {
    pub(crate) fn forward(first: Option<i32>, after: Option<String>) -> Self {
        Self { first, after, ..Self::default() }
    }

    pub(crate) fn request<K>(self, key: impl FnOnce(&str) -> Result<K, Error>) -> Result<PageRequest<K>, Error> {
        let backward = self.last.is_some() || self.before.is_some();
        if backward && (self.first.is_some() || self.after.is_some()) {
            return Err(Code::BadUserInput.error("Use `first` and `after`, or `last` and `before`, not both."));
        }
        let (rows, cursor) = if backward { (self.last, self.before) } else { (self.first, self.after) };
        let rows = rows.unwrap_or(DEFAULT_ROWS);
        if !(0..=MAX_ROWS).contains(&rows) {
            return Err(Code::BadUserInput.error(format!("A page can have 0 to {MAX_ROWS} rows.")));
        }
        Ok(PageRequest { from: cursor.as_deref().map(key).transpose()?, limit: i64::from(rows), backward })
    }
}

/// An encoded cursor.
pub(crate) struct Cursor(pub(crate) String);

impl CursorType for Cursor {
    type Error = std::convert::Infallible;
    fn decode_cursor(text: &str) -> Result<Self, Self::Error> {
        Ok(Self(text.to_owned()))
    }
    fn encode_cursor(&self) -> String {
        self.0.clone()
    }
}

/// A page as a Relay connection.
pub(crate) fn connection<K, R, N: OutputType, F: ObjectType>(
    page: Page<R>,
    request: &PageRequest<K>,
    cursor: impl Fn(&R) -> String,
    node: impl Fn(R) -> N,
    fields: F,
) -> Connection<Cursor, N, F> {
    let came_from_somewhere = request.from.is_some();
    let (previous, next) =
        if request.backward { (page.has_more, came_from_somewhere) } else { (came_from_somewhere, page.has_more) };
    let mut connection = Connection::with_additional_fields(previous, next, fields);
    connection.edges.extend(
        page.rows.into_iter().map(|row| Edge::with_additional_fields(Cursor(cursor(&row)), node(row), EmptyFields)),
    );
    connection
}
