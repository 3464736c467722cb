//! The command line. The calling thread starts the embedded store, which ends with the thread that started
//! it, and then runs everything else.

#![expect(clippy::print_stdout, reason = "what commands print is their result")]

mod audit;
mod comparison;
mod declare_loss;
mod progress;
mod projections;
mod replay;
pub mod seed_demo;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use self::audit::{AuditCommand, VerifySettings};
use crate::audit::LedgerId;
use crate::audit::checkpoint::{LedgerKeys, Origin};
use crate::audit::verify::{Verification, report};
use crate::node::Core;
use crate::node::config::{ServeSettings, StoreSettings, with_file};
use crate::platform::secrets::master::generate;
use crate::platform::store::Store;
use crate::platform::store::embedded::Supervised;
use anyhow::Context as _;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use hookledger_aggregates::OrganizationId;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// How long stopping may take, whatever the database does.
const STOP_LIMIT: Duration = Duration::from_secs(19);
/// Part of it that remaining tasks may take after everything was stopped in order.
const RUNTIME_LIMIT: Duration = Duration::from_secs(2);

/// Leaves PostgreSQL's notices out of the log, such as "relation already exists, skipping" at each migration.
const WITHOUT_NOTICES: &str = "sqlx::postgres::notice=warn";
/// Bytes of log lines written at once.
const LOG_BUFFER: usize = 64 << 10;

/// Receives webhooks, keeps each one in an append-only ledger that can be audited, and delivers it.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// A TOML file with settings. The keys are the names of the environment variables in lower case.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the server: webhooks, GraphQL, and sign-in.
    Serve(Box<ServeSettings>),
    /// Updates the database schema.
    Migrate(StoreSettings),
    /// Prints a new key for `HOOKLEDGER_MASTER_KEYS` or `HOOKLEDGER_JWT_KEYS`.
    Keygen {
        /// ID of the key. Give each key a different one.
        #[arg(default_value = "k1")]
        id: String,
    },
    /// Creates sample data, unless it exists, and prints a curl command that sends a webhook.
    SeedDemo(StoreSettings),
    /// Prints a sign-in link for a user, or a link with which an invited person joins.
    SignInLink(SignInLink),
    /// Prints the public keys that verify the ledger's checkpoints. Needs the master keys, but no database.
    LedgerKey(LedgerKey),
    /// Shows and rebuilds the read models.
    Projections(projections::Projections),
    /// Builds the read models as they were at an earlier time, beside the live ones, and compares both.
    Replay(replay::ReplayCommand),
    /// Exports an organization's ledger, or verifies a ledger or an export.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Prints the GraphQL schema.
    Schema,
}

#[derive(Args)]
struct LedgerKey {
    /// Slug of an organization. Prints its key in the format of C2SP signed-note, `name+id+base64`. Without it,
    /// prints the key that all ledgers share, in base64.
    organization: Option<String>,
    #[command(flatten)]
    store: StoreSettings,
}

#[derive(Args)]
struct SignInLink {
    /// Email address of the user or the invited person.
    email: String,
    /// Slug of the organization that invited the person, if several did.
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
    #[command(flatten)]
    store: StoreSettings,
}

/// Runs the command given by the arguments.
pub fn run() -> anyhow::Result<ExitCode> {
    let cli = parse()?;
    // A separate thread writes log lines, several at once under load; the guard writes the last ones. A log
    // reader that stops reading must not delay webhooks.
    let (lines, _guard) =
        tracing_appender::non_blocking(std::io::BufWriter::with_capacity(LOG_BUFFER, std::io::stderr()));
    tracing_subscriber::fmt().with_env_filter(log_filter()).with_writer(lines).json().flatten_event(true).init();
    let done = match cli.command {
        Command::Serve(settings) => {
            allow_many_files(settings.max_connections);
            let threads = settings.threads;
            with_store(&settings.store, threads, async |store, deadline| {
                serve(&store.waiting(), &settings, deadline).await
            })
        }
        Command::Migrate(settings) => with_store(&settings, None, async |store, _| Ok(store.migrate().await?)),
        Command::Keygen { id } => {
            println!("{}", generate(&id)?);
            Ok(())
        }
        Command::SeedDemo(settings) => with_store(&settings, None, async |store, _| seed_demo(&store, &settings).await),
        Command::SignInLink(SignInLink { email, organization, store }) => with_store(&store, None, async |at, _| {
            let core = Core::start(&at, &store).await?;
            let organization = organization.as_deref().map(OrganizationId::from_slug);
            let link = core.sign_in_link_by(&store, &email, organization).await;
            core.stop().await;
            println!("{}", link?.url);
            Ok(())
        }),
        Command::LedgerKey(LedgerKey { organization, store }) => {
            let keys = LedgerKeys::derive(&crate::node::keys::master(&store)?).public();
            let ledger = organization.map(|slug| LedgerId::organization(OrganizationId::from_slug(&slug)));
            let name = ledger.map(|ledger| Origin::new(&store.base_url.0, ledger).to_string());
            for key in keys {
                println!("{}", name.as_ref().map_or_else(|| key.to_string(), |name| key.named(name)));
            }
            Ok(())
        }
        Command::Projections(arguments) => {
            with_store(&arguments.store, None, async |store, _| projections::run(&store, &arguments).await)
        }
        Command::Replay(arguments) => {
            with_store(&arguments.store, None, async |store, _| replay::run(&store, &arguments).await)
        }
        Command::Audit(AuditCommand::Export(settings)) => with_store(&settings.ledger.store, None, async |store, _| {
            let (path, exported) = audit::export(&store, &settings).await?;
            let trailer = &exported.trailer;
            println!(
                "{}: {} events, {} requests, sha256 {}",
                path.display(),
                trailer.events,
                trailer.requests,
                trailer.sha256
            );
            if exported.left_out > 0 {
                println!(
                    "{} checkpoints are left out, because none of the available keys signed them",
                    exported.left_out
                );
            }
            Ok(())
        }),
        Command::Audit(AuditCommand::Verify(settings)) => return Ok(verify(&settings)),
        Command::Audit(AuditCommand::DeclareLoss(settings)) => {
            with_store(&settings.ledger.store, None, async |store, _| {
                print!("{}", declare_loss::declare(&store, &settings).await?);
                Ok(())
            })
        }
        Command::Schema => Ok(std::io::stdout().write_all(crate::api::graphql::sdl().as_bytes())?),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// `RUST_LOG`, or `info`. A directive of `RUST_LOG` for the same target overrides [`WITHOUT_NOTICES`].
fn log_filter() -> EnvFilter {
    let level = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    EnvFilter::try_new(format!("{WITHOUT_NOTICES},{level}"))
        .unwrap_or_else(|_| EnvFilter::new(format!("{WITHOUT_NOTICES},info")))
}

/// 0 if nothing is wrong, 1 if something is wrong, 2 if the verification failed.
fn verify(settings: &VerifySettings) -> ExitCode {
    let found: anyhow::Result<Verification> = match &settings.file {
        Some(file) => audit::verify_file(file, settings).map_err(Into::into),
        None => with_store(&settings.ledger.store, None, async |store, _| {
            audit::verify_store(&store, settings).await.map_err(Into::into)
        }),
    };
    let reported = found.and_then(|found| audit::write_report(&found, settings).map(|()| found).map_err(Into::into));
    match reported {
        Ok(found) => {
            print!("{}", report::text(&found));
            if found.is_intact() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            println!("NOT VERIFIED: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Each connection is a file; many systems allow a process 1,024 unless it requests more.
fn allow_many_files(connections: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = connections as u64 + 1_024;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return;
    }
    let current = maximum.map_or(needed, |maximum| maximum.min(needed));
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum }) {
        tracing::warn!(%error, "could not raise the limit of open files");
    } else if current < needed {
        tracing::warn!(files = current, "the system's limit of open files is below the maximum number of connections");
    }
}

/// Reads the file's path from the arguments; its settings become defaults of the others.
fn parse() -> anyhow::Result<Cli> {
    let arguments: Vec<_> = std::env::args_os().collect();
    let mut command = Cli::command();
    let file = arguments.iter().enumerate().find_map(|(index, argument)| {
        let argument = argument.to_str()?;
        match argument.strip_prefix("--config=") {
            Some(path) => Some(PathBuf::from(path)),
            None if argument == "--config" => arguments.get(index + 1).map(PathBuf::from),
            None => None,
        }
    });
    if let Some(file) = file {
        command = with_file(command, &file)?;
    }
    Ok(Cli::from_arg_matches(&command.get_matches_from(arguments))
        .map_err(|error| error.exit())
        .unwrap_or_else(|never| never))
}

/// Runs a command with its store, embedded if no other is configured, and stops everything it started.
fn with_store<T>(
    settings: &StoreSettings,
    threads: Option<usize>,
    run: impl AsyncFnOnce(Store, StopDeadline) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut embedded = match settings.database_url {
        Some(_) => None,
        None => Some(Supervised::start(&settings.data_dir).context("the embedded store does not start")?),
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        runtime.worker_threads(threads.max(1));
    }
    let runtime = runtime.enable_all().build()?;
    let stopping = StopDeadline::default();
    let result = runtime.block_on(async {
        let store = match (&embedded, &settings.database_url) {
            (Some(embedded), _) => Store::embedded(embedded.socket_directory()).await?,
            (None, Some(url)) => Store::at_url(url)?,
            (None, None) => anyhow::bail!("there is no store"),
        };
        let run = run(store.with(settings.database_connections), stopping.clone());
        match &mut embedded {
            None => run.await,
            Some(embedded) => tokio::select! {
                done = run => done,
                lost = embedded.lost() => Err(lost).context("the embedded store is gone"),
            },
        }
    });
    runtime.shutdown_timeout(stopping.remaining().min(RUNTIME_LIMIT));
    if let Some(embedded) = embedded {
        embedded.stop(stopping.remaining());
    }
    result
}

/// The process's deadline, once it was asked to stop.
#[derive(Clone, Debug, Default)]
struct StopDeadline(Arc<OnceLock<Instant>>);

impl StopDeadline {
    /// Starts the deadline. The process ends then, even if something hangs: another node or the next start
    /// takes over unfinished work, as after a crash.
    fn begin(&self) {
        self.0.get_or_init(|| Instant::now() + STOP_LIMIT);
        let spawned = std::thread::Builder::new().name("stop".to_owned()).spawn(|| {
            std::thread::sleep(STOP_LIMIT);
            tracing::warn!(limit_s = STOP_LIMIT.as_secs(), "reached the time limit for stopping; exiting");
            // Another thread writes the line.
            std::thread::sleep(Duration::from_millis(200));
            std::process::exit(0);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "could not start a thread; stopping has no time limit");
        }
    }

    fn remaining(&self) -> Duration {
        self.0.get().map_or(STOP_LIMIT, |at| at.saturating_duration_since(Instant::now()))
    }
}

async fn serve(store: &Store, settings: &ServeSettings, deadline: StopDeadline) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping; finishing requests in flight");
        deadline.begin();
        stopping.cancel();
        // A second signal ends the process at once.
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(130);
    });
    let (asked_to_stop, is_serving) = (stop.clone(), AtomicBool::new(false));
    let serving = crate::node::serve(store, settings, stop, |address| {
        is_serving.store(true, Ordering::Relaxed);
        tracing::info!(http.address = %address, base_url = settings.store.base_url.0, "serving");
    });
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => Ok(served?),
        // A node that is not serving yet stops at once; a serving one stops in order.
        () = asked_to_stop.cancelled(), if !is_serving.load(Ordering::Relaxed) => Ok(()),
    }
}

async fn seed_demo(store: &Store, settings: &StoreSettings) -> anyhow::Result<()> {
    let core = Core::start(store, settings).await?;
    let seeded = crate::cli::seed_demo::seed(&core, &settings.base_url.0).await;
    let link = core.sign_in_link(settings, &settings.super_admin_email).await;
    core.stop().await;
    let seeded = seeded?;
    println!("{}\n", if seeded.is_new { "Created the sample data." } else { "The sample data already exists." });
    println!("Send a webhook:\n\n{}\n", seeded.curl);
    println!(
        "Sign in as the super admin (works once, for {} minutes):\n\n{}",
        settings.magic_link_ttl.0.num_minutes(),
        link?.url
    );
    Ok(())
}
