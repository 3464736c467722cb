//! The schema: migrations, each applied once, and functions, each applied whenever its file has another text.
//!
//! A migration that needs functions names them in a line of its own (`-- functions: lock_heads, month_of`). They are
//! created before it, in its transaction, as their files say today.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};
use sqlx::migrate::{Migrate as _, MigrateError, Migration, Migrator};
use sqlx::{Connection as _, Executor as _, PgConnection};

/// A function of the database, as its file was when this binary was built.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Of the file, and of the one function in it.
    pub name: &'static str,
    pub text: &'static str,
}

/// All functions, by name.
pub const FUNCTIONS: &[Function] = include!(concat!(env!("OUT_DIR"), "/functions.rs"));

static FILES: Migrator = sqlx::migrate!("./migrations");

/// The migrations, with the functions that they need. Their checksums are those of the files: another text of a
/// function makes no other migration.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| Migrator {
    migrations: FILES.iter().map(with_functions).collect(),
    // Functions are applied under the same lock.
    locking: false,
    ..Migrator::DEFAULT
});

/// Begins the line of a migration that names functions.
const NEEDED: &str = "-- functions: ";

const HISTORY: &str = "
    create table if not exists _applied_functions (
        number bigint generated always as identity primary key,
        name text not null,
        sha256 bytea not null
    );
    comment on table _applied_functions is 'Every text of a function that was applied; the last one is in force.'";

impl Function {
    fn sha256(self) -> Vec<u8> {
        Sha256::digest(self.text).to_vec()
    }
}

/// Names of the functions that a migration needs.
pub(super) fn needed(sql: &str) -> impl Iterator<Item = &str> {
    sql.lines().filter_map(|line| line.strip_prefix(NEEDED)).flat_map(|names| names.split(',').map(str::trim))
}

fn with_functions(file: &Migration) -> Migration {
    let texts: String = needed(&file.sql)
        .filter_map(|name| FUNCTIONS.iter().find(|function| function.name == name))
        .flat_map(|function| [function.text, "\n"])
        .collect();
    if texts.is_empty() {
        return file.clone();
    }
    // A function may name tables that come later.
    let sql = format!("set local check_function_bodies = off;\n{texts}reset check_function_bodies;\n{}", file.sql);
    Migration { sql: Cow::Owned(sql), ..file.clone() }
}

/// The files of migrations, without the functions that they need.
pub fn migrations() -> impl Iterator<Item = &'static Migration> {
    FILES.iter()
}

/// Brings the schema up to date. A failed run keeps the migrator's lock for as long as the connection lives.
///
/// # Errors
/// When the database does not answer, or refuses something; what it did is rolled back, but for finished migrations.
pub async fn apply(connection: &mut PgConnection) -> Result<(), MigrateError> {
    connection.lock().await?;
    MIGRATIONS.run(&mut *connection).await?;
    apply_functions(connection).await?;
    connection.unlock().await
}

/// Applies functions whose text is new. A text that another one has replaced stays replaced: a node of an earlier
/// release that restarts must not undo what a later one did.
async fn apply_functions(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let mut transaction = connection.begin().await?;
    transaction.execute(HISTORY).await?;
    let applied: Vec<(String, Vec<u8>)> = sqlx::query_as("select name, sha256 from _applied_functions order by number")
        .fetch_all(&mut *transaction)
        .await?;
    let mut texts: HashMap<&str, Vec<&[u8]>> = HashMap::new();
    for (name, sha256) in &applied {
        texts.entry(name).or_default().push(sha256);
    }
    for function in FUNCTIONS {
        let sha256 = function.sha256();
        let texts = texts.get(function.name).map_or(&[][..], Vec::as_slice);
        if texts.last().is_some_and(|last| *last == sha256) {
            continue;
        }
        if texts.contains(&sha256.as_slice()) {
            tracing::warn!(
                function = function.name,
                "the database has a later text of this function; this release is older than another one that migrated"
            );
            continue;
        }
        transaction.execute(function.text).await?;
        sqlx::query("insert into _applied_functions (name, sha256) values ($1, $2)")
            .bind(function.name)
            .bind(sha256)
            .execute(&mut *transaction)
            .await?;
    }
    Ok(transaction.commit().await?)
}

/// Tells one state of the files from another.
#[must_use]
pub fn digest() -> String {
    let mut digest = Sha256::new();
    for migration in migrations() {
        digest.update(&migration.checksum);
    }
    for function in FUNCTIONS {
        digest.update(function.sha256());
    }
    hex::encode(&digest.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_brings_the_functions_that_it_names() {
        for migration in migrations() {
            for name in needed(&migration.sql) {
                assert!(
                    FUNCTIONS.iter().any(|function| function.name == name),
                    "{}: no file for {name}",
                    migration.version
                );
            }
        }
        let with = MIGRATIONS.iter().find(|migration| migration.sql.contains("create or replace function")).unwrap();
        let file = migrations().find(|file| file.version == with.version).unwrap();
        assert_eq!(with.checksum, file.checksum);
    }

    #[test]
    fn no_function_stands_twice() {
        for migration in migrations() {
            let text = migration.sql.to_lowercase();
            assert!(
                !text.contains("create function") && !text.contains("create or replace function"),
                "{}: functions are files under migrations/functions/",
                migration.version
            );
        }
        for Function { name, text } in FUNCTIONS {
            let begins = format!("create or replace function {name}(");
            assert_eq!(text.matches("create or replace function ").count(), 1, "{name}: one function a file");
            assert!(text.contains(&begins), "{name}: the file is named after its function");
        }
    }
}
