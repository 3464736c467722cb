//! Sorted lists: keyset pagination by a chosen field.
//!
//! The fields that a list can be sorted by are defined with its rows, as a [`Field`].

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, Row as _};
use uuid::Uuid;

use crate::{Page, PageRequest};

/// The direction of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// The smallest or earliest first.
    Ascending,
    /// The largest or latest first.
    #[default]
    Descending,
}

/// The order of a list. The default of every list is newest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order<F> {
    /// The field whose values determine the order.
    pub field: F,
    /// The direction of the values. Rows without a value come last in both.
    pub direction: Direction,
}

/// A field that a list can be sorted by.
pub trait Field: Copy + Default {
    /// The column with its values.
    fn column(self) -> Column;
}

/// The type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `timestamptz`.
    Time,
    /// `text`.
    Text,
}

/// A column, in SQL. Its comparisons must be leakproof, or no index applies.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Distinguishes the columns of a list.
    pub tag: u8,
    /// The type of its values.
    pub kind: Kind,
    pub(crate) value: &'static str,
    /// An expression that is null exactly if a row has no value; `None` if every row has one.
    pub(crate) present: Option<&'static str>,
}

/// A value that a row is sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of a column of [`Kind::Time`].
    Time(DateTime<Utc>),
    /// Of a column of [`Kind::Text`].
    Text(String),
}

/// Key of a row in a sorted list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Rows without a value come last, in either direction.
    pub value: Option<Value>,
    /// Orders rows with the same value.
    pub id: Uuid,
}

/// A row, and its key.
#[derive(Clone, Debug)]
pub struct Sorted<T> {
    /// The row.
    pub row: T,
    /// The key that a next page begins after.
    pub place: Place,
}

/// A page of a list. `begin` starts the query, up to some condition: it receives the column, which it selects
/// as `sorted_by`, and whether the query is for rows with a value in it. It selects the rows' `id` as well.
///
/// Rows with and without a value are read one after the other, so that each part is in the order of an index.
/// A single query for both would sort them all.
pub(crate) async fn read<'a, T, F>(
    connection: &mut PgConnection,
    order: Order<F>,
    page: &PageRequest<Place>,
    id: &str,
    begin: impl Fn(&str, bool) -> QueryBuilder<'a, Postgres>,
) -> Result<Page<Sorted<T>>, sqlx::Error>
where
    T: for<'r> FromRow<'r, PgRow>,
    F: Field,
{
    let column = order.field.column();
    let ascending = (order.direction == Direction::Ascending) != page.backward;
    let (compare, way) = if ascending { (">", "asc") } else { ("<", "desc") };
    let mut rows = Vec::new();
    let mut missing = page.limit + 1;
    for has_value in parts(column, page) {
        let mut query = begin(column.value, has_value);
        if let Some(present) = column.present {
            query.push(format!(" and {present} is {}", if has_value { "not null" } else { "null" }));
        }
        if let Some(place) = page.from.as_ref().filter(|place| place.value.is_some() == has_value) {
            begin_after(&mut query, (column.value, id), compare, place);
        }
        // Even if every value is null, because the index is ordered by it first.
        query.push(format!(" order by {} {way}, {id} {way} limit ", column.value)).push_bind(missing);
        for row in query.build().fetch_all(&mut *connection).await? {
            let place = Place { value: value_of(&row, column.kind)?, id: row.try_get("id")? };
            rows.push(Sorted { row: T::from_row(&row)?, place });
            missing -= 1;
        }
        if missing == 0 {
            break;
        }
    }
    Ok(Page::from_overfull(rows, page))
}

/// The parts of a list that a page may contain, in the order of reading: rows with a value (true) or without.
fn parts(column: Column, page: &PageRequest<Place>) -> Vec<bool> {
    let mut parts = if column.present.is_some() { vec![true, false] } else { vec![true] };
    if page.backward {
        parts.reverse();
    }
    if let Some(place) = &page.from {
        let behind = parts.iter().take_while(|has_value| **has_value != place.value.is_some()).count();
        parts.drain(..behind);
    }
    parts
}

/// If the value is from another table than the ID, only the first condition on it selects an index.
fn begin_after(query: &mut QueryBuilder<'_, Postgres>, (value, id): (&str, &str), compare: &str, place: &Place) {
    match &place.value {
        Some(key) => {
            bind(query.push(format!(" and {value} {compare}= ")), key);
            bind(query.push(format!(" and ({value}, {id}) {compare} (")), key);
            query.push(", ").push_bind(place.id).push(")");
        }
        None => {
            query.push(format!(" and {id} {compare} ")).push_bind(place.id);
        }
    }
}

fn bind(query: &mut QueryBuilder<'_, Postgres>, value: &Value) {
    match value {
        Value::Time(time) => query.push_bind(*time),
        Value::Text(text) => query.push_bind(text.clone()),
    };
}

fn value_of(row: &PgRow, kind: Kind) -> Result<Option<Value>, sqlx::Error> {
    Ok(match kind {
        Kind::Time => row.try_get::<Option<_>, _>("sorted_by")?.map(Value::Time),
        Kind::Text => row.try_get::<Option<_>, _>("sorted_by")?.map(Value::Text),
    })
}
