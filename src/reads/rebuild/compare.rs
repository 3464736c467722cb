//! Compares two versions of a read model row by row.

use serde_json::{Map, Value};
use sqlx::PgConnection;

use super::RebuildError;
use super::copies::quoted;

/// Differences shown individually.
const EXAMPLES: i64 = 5;
/// Characters shown of a value.
const VALUE_LENGTH: usize = 80;

/// Result of comparing some tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub tables: Vec<TableComparison>,
}

impl Comparison {
    /// Whether all rows are equal.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.tables.iter().all(|table| table.different + table.only_live + table.only_copy == 0)
    }
}

/// Result of comparing one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableComparison {
    pub table: String,
    pub same: i64,
    pub different: i64,
    pub only_live: i64,
    pub only_copy: i64,
    pub examples: Vec<Difference>,
}

/// A row that differs, or that only one side has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The primary key, column by column.
    pub key: Vec<(String, String)>,
    /// The differing columns: name, live value, value of the copy. Empty for a row that only one side has.
    pub columns: Vec<(String, String, String)>,
    /// Whether the live table has the row.
    pub in_live: bool,
    /// Whether the copy has the row.
    pub in_copy: bool,
}

/// A table's columns, and those of its primary key.
struct Shape {
    columns: Vec<String>,
    key: Vec<String>,
}

/// Compares a table in two schemas within one snapshot: all rows, or those of an organization.
pub(super) async fn compare(
    connection: &mut PgConnection,
    live: &str,
    copy: &str,
    table: &str,
    organization: Option<uuid::Uuid>,
) -> Result<TableComparison, RebuildError> {
    let shape = shape(connection, live, table).await?;
    if shape.key.is_empty() {
        return Err(RebuildError::NoKey(table.to_owned()));
    }
    let list = |side: &str, columns: &[String]| {
        columns.iter().map(|column| format!("{side}.{}", quoted(column))).collect::<Vec<_>>().join(", ")
    };
    let on: Vec<String> = shape.key.iter().map(|column| format!("l.{0} = c.{0}", quoted(column))).collect();
    let first = quoted(&shape.key[0]);
    // Rows of a tenant begin with its organization; an organization's own row has its ID.
    let tenant = if shape.key[0] == "organization_id" { "organization_id" } else { "id" };
    let wanted = organization.map(|id| format!(" where {tenant} = '{id}'")).unwrap_or_default();
    let from = format!(
        "from (select * from {}.{table}{wanted}) l full join (select * from {}.{table}{wanted}) c on {}",
        quoted(live),
        quoted(copy),
        on.join(" and "),
        table = quoted(table),
    );
    // SQL does not treat a single column as a row.
    let is_same = match shape.columns.as_slice() {
        [only] => format!("l.{0} is not distinct from c.{0}", quoted(only)),
        all => format!("({}) is not distinct from ({})", list("l", all), list("c", all)),
    };
    let (same, different, only_live, only_copy): (i64, i64, i64, i64) = sqlx::query_as(&format!(
        "select count(*) filter (where l.{first} is not null and c.{first} is not null and {is_same}),
                count(*) filter (where l.{first} is not null and c.{first} is not null and not ({is_same})),
                count(*) filter (where c.{first} is null), count(*) filter (where l.{first} is null) {from}"
    ))
    .fetch_one(&mut *connection)
    .await?;
    let mut told =
        TableComparison { table: table.to_owned(), same, different, only_live, only_copy, examples: Vec::new() };
    if different + only_live + only_copy > 0 {
        let rows: Vec<(Option<Value>, Option<Value>)> = sqlx::query_as(&format!(
            "select case when l.{first} is not null then to_jsonb(l) end,
                    case when c.{first} is not null then to_jsonb(c) end
             {from} where l.{first} is null or c.{first} is null or not ({is_same}) limit {EXAMPLES}"
        ))
        .fetch_all(&mut *connection)
        .await?;
        told.examples = rows.into_iter().map(|(live, copy)| difference(&shape, live, copy)).collect();
    }
    Ok(told)
}

fn difference(shape: &Shape, live: Option<Value>, copy: Option<Value>) -> Difference {
    let fields = |row: Option<Value>| match row {
        Some(Value::Object(fields)) => Some(fields),
        _ => None,
    };
    let (live, copy) = (fields(live), fields(copy));
    let value = |row: &Map<String, Value>, column: &String| row.get(column).map(shortened).unwrap_or_default();
    let columns = match (&live, &copy) {
        (Some(live), Some(copy)) => shape
            .columns
            .iter()
            .filter(|column| live.get(*column) != copy.get(*column))
            .map(|column| (column.clone(), value(live, column), value(copy, column)))
            .collect(),
        _ => Vec::new(),
    };
    let key = live
        .as_ref()
        .or(copy.as_ref())
        .map(|row| shape.key.iter().map(|column| (column.clone(), value(row, column))).collect());
    Difference { key: key.unwrap_or_default(), columns, in_live: live.is_some(), in_copy: copy.is_some() }
}

fn shortened(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // Text from strangers must not control the terminal.
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let short: String = text.chars().take(VALUE_LENGTH).map(clean).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

async fn shape(connection: &mut PgConnection, schema: &str, table: &str) -> Result<Shape, sqlx::Error> {
    let (columns, key): (Vec<String>, Vec<String>) = sqlx::query_as(
        "select array(select attname::text from pg_attribute
                      where attrelid = t.oid and attnum > 0 and not attisdropped order by attnum),
                array(select a.attname::text
                      from pg_index i cross join unnest(i.indkey::smallint[]) with ordinality as k (number, place)
                      join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
                      where i.indrelid = t.oid and i.indisprimary order by k.place)
         from (select format('%I.%I', $1::text, $2::text)::regclass::oid as oid) t",
    )
    .bind(schema)
    .bind(table)
    .fetch_one(connection)
    .await?;
    Ok(Shape { columns, key })
}

/// Whether a table has the same columns in both schemas.
pub(super) async fn has_same_columns(
    connection: &mut PgConnection,
    live: &str,
    copy: &str,
    table: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select array(select (attname, atttypid, atttypmod, attnotnull)::text from pg_attribute
                      where attrelid = format('%I.%I', $1::text, $3::text)::regclass and attnum > 0 and not attisdropped
                      order by attnum)
              = array(select (attname, atttypid, atttypmod, attnotnull)::text from pg_attribute
                      where attrelid = format('%I.%I', $2::text, $3::text)::regclass and attnum > 0 and not attisdropped
                      order by attnum)",
    )
    .bind(live)
    .bind(copy)
    .bind(table)
    .fetch_one(connection)
    .await
}
