//! `hookledger projections …`.

use crate::cli::progress::Progress;
use crate::node::config::StoreSettings;
use crate::platform::store::Store;
use crate::reads::rebuild::{ProjectionStatus, Rebuild, Step, status};
use clap::{Args, Subcommand};

#[derive(Args)]
pub struct Projections {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    pub store: StoreSettings,
}

#[derive(Subcommand)]
enum Command {
    /// Shows how far each follower of the log is, and which rebuild of a read model is live.
    Status,
    /// Rebuilds a read model from the log beside the live one, compares both, and switches to the new one
    /// while the servers run. The replaced one is kept until the next rebuild.
    Rebuild {
        /// Name of the read model. `projections status` lists them.
        name: String,
        /// Continue an interrupted rebuild instead of starting over.
        #[arg(long)]
        resume: bool,
        /// Build and compare, but do not switch.
        #[arg(long)]
        no_switch: bool,
    },
    /// Compares the live read model row by row with a rebuilt one that is not in use yet, or with the one that the
    /// last rebuild replaced, after updating it. Exits with 1 if they differ.
    Compare {
        /// Name of the read model.
        name: String,
    },
    /// Switches to a rebuilt read model that is not in use yet.
    Switch {
        /// Name of the read model.
        name: String,
    },
    /// Updates the read model that the last rebuild replaced, and switches back to it.
    Revert {
        /// Name of the read model.
        name: String,
    },
    /// Deletes a rebuilt read model that is not in use, and the one that the last rebuild replaced.
    Drop {
        /// Name of the read model.
        name: String,
    },
}

pub async fn run(store: &Store, arguments: &Projections) -> anyhow::Result<()> {
    store.migrate().await?;
    match &arguments.command {
        Command::Status => {
            println!("{}", table(&status(store).await?));
            Ok(())
        }
        Command::Rebuild { name, resume, no_switch } => rebuild(store, name, *resume, *no_switch).await,
        Command::Compare { name } => compare(store, name).await,
        Command::Switch { name } => switch(Rebuild::open(store, name).await?, name).await,
        Command::Revert { name } => {
            let mut rebuild = Rebuild::open(store, name).await?;
            rebuild.take_back().await?;
            let mut progress = Progress::new(name, "positions");
            rebuild.catch_up(|step| tell(&mut progress, step)).await?;
            progress.end();
            switch(rebuild, name).await
        }
        Command::Drop { name } => {
            Rebuild::open(store, name).await?.drop_all().await?;
            println!("Only the live version of {name} exists now.");
            Ok(())
        }
    }
}

async fn rebuild(store: &Store, name: &str, resume: bool, no_switch: bool) -> anyhow::Result<()> {
    let mut rebuild = Rebuild::open(store, name).await?;
    if !(resume && rebuild.is_begun().await?) {
        rebuild.begin().await?;
    }
    let mut progress = Progress::new(name, "positions");
    rebuild.catch_up(|step| tell(&mut progress, step)).await?;
    let comparison = rebuild.compare(|step| tell(&mut progress, step)).await?;
    progress.end();
    println!("{}", super::comparison::told(&comparison, "rebuilt"));
    if no_switch {
        println!("The rebuilt {name} is ready. Switch to it with `hookledger projections switch {name}`.");
        return Ok(());
    }
    switch(rebuild, name).await
}

async fn switch(mut rebuild: Rebuild, name: &str) -> anyhow::Result<()> {
    let mut progress = Progress::new(name, "positions");
    let version = rebuild.switch(|step| tell(&mut progress, step)).await?;
    progress.end();
    println!(
        "Version {version} of {name} is live. The replaced version stays in the schema previous_{name} until the next \
         rebuild. `hookledger projections revert {name}` restores it, `drop` deletes it."
    );
    Ok(())
}

async fn compare(store: &Store, name: &str) -> anyhow::Result<()> {
    let mut rebuild = Rebuild::open(store, name).await?;
    let waits = rebuild.is_begun().await?;
    if !waits {
        rebuild.take_back().await?;
    }
    let mut progress = Progress::new(name, "positions");
    let comparison = rebuild.compare(|step| tell(&mut progress, step)).await;
    progress.end();
    if !waits {
        rebuild.put_back().await?;
    }
    let comparison = comparison?;
    println!("{}", super::comparison::told(&comparison, if waits { "rebuilt" } else { "previous" }));
    anyhow::ensure!(comparison.is_same(), "the read models differ");
    println!("No differences.");
    Ok(())
}

fn tell(progress: &mut Progress, step: Step) {
    match step {
        Step::Applying { done, of } => {
            progress.set(u64::try_from(done).unwrap_or_default(), u64::try_from(of).unwrap_or_default());
        }
        Step::Analyzing => progress.step("gathering statistics"),
        Step::Comparing => progress.step("comparing"),
        Step::Switching => progress.step("switching"),
    }
}

fn table(all: &[ProjectionStatus]) -> String {
    let mut lines = vec![format!(
        "{:<20} {:>7} {:>9} {:>12} {:>12} {:>9}  state",
        "follower", "version", "partition", "checkpoint", "head", "lag"
    )];
    for follower in all {
        let version = follower.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
        for at in &follower.partitions {
            let state =
                at.stopped_by.as_ref().map_or_else(|| "follows".to_owned(), |reason| format!("stopped: {reason}"));
            lines.push(format!(
                "{:<20} {version:>7} {:>9} {:>12} {:>12} {:>9}  {state}",
                follower.name, at.partition, at.position, at.head, at.lag
            ));
        }
        if follower.has_copy {
            lines.push(format!("{:<20} a rebuilt copy is there that is not in use (rebuild_{0})", follower.name));
        }
        if follower.has_previous {
            lines.push(format!("{:<20} what the last rebuild replaced is kept (previous_{0})", follower.name));
        }
    }
    lines.join("\n")
}
