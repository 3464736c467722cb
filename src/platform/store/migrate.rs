//! Migrations, run while other nodes serve.

use std::time::{Duration, Instant};

use sqlx::migrate::MigrateError;
use sqlx::{Connection as _, Executor as _};

use super::{Store, StoreError, schema};

/// How long a migration waits for a lock, because everybody who comes later waits behind it.
const LOCK_TIMEOUT: &str = "set lock_timeout = '2s'";
/// Pause for other nodes' work before the next try.
const PAUSE: Duration = Duration::from_secs(2);
/// How long it keeps trying: a dump may hold locks for minutes.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Runs new migrations, each file in a transaction.
pub(super) async fn run(store: &Store) -> Result<(), StoreError> {
    let begun = Instant::now();
    loop {
        // A failed run holds the migrator's lock for as long as its connection lives.
        let mut owner = store.owner().await?;
        owner.execute(LOCK_TIMEOUT).await?;
        let done = schema::apply(&mut owner).await;
        let _ = tokio::time::timeout(PAUSE, owner.close()).await;
        match done {
            Err(error) if is_locked_out(&error) && begun.elapsed() < PATIENCE => {
                tracing::warn!(
                    waited_s = begun.elapsed().as_secs(),
                    "could not migrate the schema while others hold locks; retrying"
                );
                tokio::time::sleep(PAUSE).await;
            }
            done => return Ok(done?),
        }
    }
}

/// 55P03, `lock_not_available`.
fn is_locked_out(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else { return false };
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "55P03")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::schema::{FUNCTIONS, migrations};

    /// Exceptions: the number of a migration, the statement, and why no running node misses what it drops.
    const ALLOWED: &[(i64, &str, &str)] = &[];

    /// Every statement that removes something that a node of an earlier release may use.
    fn removals(sql: &str) -> Vec<String> {
        let lines = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
        let text = lines.collect::<Vec<_>>().join(" ").to_lowercase();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let kinds = ["function", "procedure", "table", "view", "materialized view", "column", "schema", "type"];
        let drops = kinds.iter().flat_map(|kind| {
            let (told, length) = (format!("drop {kind} "), text.len());
            text.match_indices(&told).map(|(at, _)| text[at..length.min(at + 80)].to_owned()).collect::<Vec<_>>()
        });
        let renames = text.match_indices("rename ").map(|(at, _)| text[at..text.len().min(at + 80)].to_owned());
        drops.chain(renames).collect()
    }

    #[test]
    fn migrations_take_nothing_away_that_running_nodes_use() {
        let mut refused = BTreeMap::new();
        for migration in migrations() {
            let allowed = |removal: &String| {
                ALLOWED.iter().any(|(number, what, _)| *number == migration.version && removal.contains(what))
            };
            let removals: Vec<_> = removals(&migration.sql).into_iter().filter(|removal| !allowed(removal)).collect();
            if !removals.is_empty() {
                refused.insert(migration.version, removals);
            }
        }
        assert!(FUNCTIONS.iter().all(|function| removals(function.text).is_empty()));
        assert!(
            refused.is_empty(),
            "nodes of the earlier release run beside these migrations; drop it one release later, and list it in \
             ALLOWED with the reason: {refused:#?}"
        );
    }

    #[test]
    fn migrations_leave_nothing_half_done_when_a_lock_is_not_had() {
        for migration in migrations() {
            let is_half = migration.no_tx || migration.sql.to_lowercase().contains(" concurrently");
            assert!(!is_half, "{}: what a lock timeout leaves of it is in the way of the next try", migration.version);
        }
    }

    /// A function with the same name and other arguments leaves the earlier one in place; one with another
    /// result has to be dropped first, which is refused above.
    #[test]
    fn removals_are_seen_through_comments_and_line_breaks() {
        assert_eq!(removals("-- drop table a\ncreate table a ();"), Vec::<String>::new());
        assert_eq!(removals("drop\n  function f(int);"), ["drop function f(int);"]);
        assert_eq!(removals("alter table a drop column b;"), ["drop column b;"]);
        assert_eq!(removals("alter table a rename to b;"), ["rename to b;"]);
    }
}
