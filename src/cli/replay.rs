//! `hookledger replay …`.

use crate::cli::progress::Progress;
use crate::node::config::StoreSettings;
use crate::platform::store::Store;
use crate::reads::rebuild::{AsOf, RebuildError, Replay, Replayed, drop_replay};
use clap::Args;

#[derive(Args)]
pub struct ReplayCommand {
    /// A time such as 2026-01-31T12:00:00Z, or a position in the log such as 3:1500 (PARTITION:POSITION).
    #[arg(long, required_unless_present = "drop")]
    as_of: Option<String>,

    /// Only the organization with this slug.
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,

    /// Database schema for the result. Replaces that of an earlier replay.
    #[arg(long, default_value = "replay", value_name = "NAME")]
    schema: String,

    /// Delete the schema instead.
    #[arg(long, conflicts_with_all = ["as_of", "organization"])]
    drop: bool,

    #[command(flatten)]
    pub store: StoreSettings,
}

pub async fn run(store: &Store, arguments: &ReplayCommand) -> anyhow::Result<()> {
    store.migrate().await?;
    let schema = &arguments.schema;
    if arguments.drop {
        let dropped = drop_replay(store, schema).await?;
        println!(
            "{}",
            if dropped { format!("Deleted the schema {schema}.") } else { format!("There is no schema {schema}.") }
        );
        return Ok(());
    }
    let as_of: AsOf = arguments.as_of.as_deref().unwrap_or_default().parse()?;
    let replay = Replay { as_of, organization: arguments.organization.clone(), schema: schema.clone() };
    let replayed = run_telling(&replay, store).await?;
    println!("{}\n", super::comparison::told(&replayed.comparison, "then"));
    let reached: Vec<String> = replayed
        .positions
        .iter()
        .enumerate()
        .filter(|(_, position)| **position > 0)
        .map(|(partition, position)| format!("{partition}:{position}"))
        .collect();
    println!(
        "Replayed as of {as_of}, to {}.",
        if reached.is_empty() { "nothing".to_owned() } else { reached.join(" ") }
    );
    println!("Look inside:\n\n  {}\n", psql(&arguments.store, schema));
    println!("Delete it:\n\n  hookledger replay --drop --schema {schema}");
    Ok(())
}

async fn run_telling(replay: &Replay, store: &Store) -> Result<Replayed, RebuildError> {
    let mut progress: Option<(String, Progress)> = None;
    let replayed = replay
        .run(store, |name, done, of| {
            if progress.as_ref().is_none_or(|(of_name, _)| of_name != name) {
                progress = Some((name.to_owned(), Progress::new(name, "positions")));
            }
            if let Some((_, progress)) = &mut progress {
                progress.set(u64::try_from(done).unwrap_or_default(), u64::try_from(of).unwrap_or_default());
            }
        })
        .await;
    if let Some((_, progress)) = &progress {
        progress.end();
    }
    replayed
}

/// The command that opens the schema. The URL of an external store is not printed, because it may contain a
/// password.
fn psql(settings: &StoreSettings, schema: &str) -> String {
    let options = format!("PGOPTIONS='-c search_path={schema},public'");
    if settings.database_url.is_some() {
        return format!("{options} psql \"$DATABASE_URL\"");
    }
    let data = std::fs::canonicalize(&settings.data_dir).unwrap_or_else(|_| settings.data_dir.clone());
    format!("{options} psql -h '{}' -U postgres hookledger", data.join("postgres").display())
}
