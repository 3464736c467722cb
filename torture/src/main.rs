//! `hookledger-torture`: runs seeds, prints a line per run, and a table.

#![expect(clippy::print_stdout, reason = "what it prints is its result")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use hookledger_torture::kind::Kind;
use hookledger_torture::report::{self, Report};
use hookledger_torture::run::{Limits, Options, run};
use hookledger_torture::schedule::Schedule;

/// Injects faults into real nodes and databases, and finds lost, duplicated, stuck and misremembered
/// webhooks.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The server's binary; by default the one next to this program.
    #[arg(long, env = "HOOKLEDGER_BIN", value_name = "FILE")]
    binary: Option<PathBuf>,
    /// The first seed.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Number of seeds; with `--kind`, per kind.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seeds: u64,
    /// Faults per run.
    #[arg(long, default_value_t = 1, value_name = "N")]
    faults: usize,
    /// Kinds, comma-separated; `each` runs all of them. By default, the seed chooses the kinds.
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    kind: Vec<String>,
    /// Webhooks per second.
    #[arg(long, default_value_t = 60, value_name = "N")]
    rate: u32,
    /// Use time limits for slow and busy machines.
    #[arg(long)]
    generous: bool,
    /// Stop at the first run with a finding.
    #[arg(long)]
    until_found: bool,
    /// Stop at the first run that violates this rule, and fail if none does; other findings are ignored.
    #[arg(long, value_name = "RULE")]
    expect: Option<String>,
    /// Print the schedules without running them.
    #[arg(long)]
    show: bool,
    /// List the kinds.
    #[arg(long)]
    list: bool,
    /// Print what happens during a run.
    #[arg(long, short)]
    verbose: bool,
    /// Directory for the logs of runs with findings.
    #[arg(long, default_value = "target/torture", value_name = "DIRECTORY")]
    evidence: PathBuf,
    /// Also write the table to this file.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.list {
        for kind in Kind::ALL {
            println!("{:<26} {}", kind.name(), kind.what());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let schedules = schedules(&arguments)?;
    if arguments.show {
        schedules.iter().for_each(|schedule| println!("{schedule}"));
        return Ok(ExitCode::SUCCESS);
    }
    let options = options(&arguments)?;
    let mut reports: Vec<Report> = Vec::new();
    let mut broken = 0;
    for schedule in &schedules {
        if arguments.verbose {
            println!("{schedule}");
        }
        // A separate runtime per run, so that nothing of one remains in the next.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        match runtime.block_on(run(schedule, &options)) {
            Ok(report) => {
                println!("{report}");
                reports.push(report);
            }
            Err(error) => {
                println!("BROKEN {schedule}: {error:#}");
                broken += 1;
            }
        }
        runtime.shutdown_timeout(std::time::Duration::from_secs(5));
        let Some(last) = reports.last().map(|report| &report.findings) else { continue };
        if let Some(rule) = arguments.expect.as_deref().filter(|rule| last.count(rule) > 0) {
            println!("found with {schedule}: {rule}");
            return Ok(ExitCode::SUCCESS);
        }
        if arguments.until_found && !last.is_empty() {
            break;
        }
    }
    let table = report::table(&reports);
    println!("\n{table}");
    if let Some(file) = &arguments.table {
        std::fs::write(file, &table)?;
    }
    let wrong = reports.iter().filter(|report| !report.findings.is_empty()).count();
    println!("{} runs, {wrong} with findings, {broken} that could not be made", reports.len() + broken);
    if let Some(rule) = &arguments.expect {
        println!("not found: {rule}");
        return Ok(ExitCode::FAILURE);
    }
    Ok(if wrong + broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn schedules(arguments: &Arguments) -> Result<Vec<Schedule>> {
    let (allowed, missing) = hookledger_torture::allowed_kinds();
    for reason in missing {
        println!("left out: {reason}");
    }
    let seeds = arguments.seed..arguments.seed + arguments.seeds;
    if arguments.kind.is_empty() {
        return Ok(seeds.map(|seed| Schedule::of_any_kind(seed, arguments.faults, &allowed)).collect());
    }
    let kinds = match arguments.kind.as_slice() {
        [each] if each == "each" => allowed,
        named => named.iter().map(|name| name.parse().map_err(anyhow::Error::msg)).collect::<Result<Vec<Kind>>>()?,
    };
    let of_kind = |kind: Kind| seeds.clone().map(move |seed| Schedule::of_kind(seed, arguments.faults, kind));
    Ok(kinds.into_iter().flat_map(of_kind).collect())
}

fn options(arguments: &Arguments) -> Result<Options> {
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("hookledger"),
    };
    ensure!(binary.is_file(), "{} is missing: build it, or name it with --binary", binary.display());
    std::fs::create_dir_all(&arguments.evidence)?;
    Ok(Options {
        binary: binary.canonicalize().context("the binary")?,
        rate: arguments.rate,
        limits: if arguments.generous { Limits::GENEROUS } else { Limits::PROMISED },
        evidence: Some(arguments.evidence.clone()),
        verbose: arguments.verbose,
    })
}
