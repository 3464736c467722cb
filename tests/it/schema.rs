//! The schema of a migrated database, compared with its source files.

use hookledger::platform::store::schema::{self, FUNCTIONS, Function};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::app::Database;

/// Every function of the database, with its definition.
async fn definitions(connection: &mut PgConnection) -> Vec<(String, String)> {
    sqlx::query_as(
        "select proname::text, pg_get_functiondef(oid) from pg_proc
         where pronamespace = current_schema()::regnamespace order by 1, 2",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

async fn definition_of(connection: &mut PgConnection, name: &str) -> String {
    let all = definitions(connection).await;
    all.into_iter().find(|(its, _)| its == name).unwrap().1
}

#[tokio::test]
async fn every_function_of_the_database_is_what_its_file_says() {
    let database = Database::fresh().await;
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let migrated = definitions(&mut connection).await;
    let names: Vec<&str> = migrated.iter().map(|(name, _)| name.as_str()).collect();
    let files: Vec<&str> = FUNCTIONS.iter().map(|function| function.name).collect();
    assert_eq!(names, files, "a function is one file under migrations/functions/");
    for Function { name, text } in FUNCTIONS {
        connection.execute(*text).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert_eq!(definitions(&mut connection).await, migrated);
}

#[tokio::test]
async fn a_function_whose_text_is_new_is_applied_and_a_later_text_is_left_alone() {
    let database = Database::fresh().await;
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let file = definition_of(&mut connection, "month_of").await;
    let other = "create or replace function month_of(p_time timestamptz) returns date
                 language sql immutable return '2000-01-01'::date";

    // As a release with another text would find it.
    connection.execute(other).await.unwrap();
    connection.execute("update _applied_functions set sha256 = 'earlier' where name = 'month_of'").await.unwrap();
    schema::apply(&mut connection).await.unwrap();
    assert_eq!(definition_of(&mut connection, "month_of").await, file);

    // A later release migrates, and this one starts again.
    connection.execute(other).await.unwrap();
    connection.execute("insert into _applied_functions (name, sha256) values ('month_of', 'later')").await.unwrap();
    let later = definition_of(&mut connection, "month_of").await;
    schema::apply(&mut connection).await.unwrap();
    assert_eq!(definition_of(&mut connection, "month_of").await, later);
}
