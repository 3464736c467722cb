//! One run: start everything, disturb it according to the schedule, let it settle, and check.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::checker::{self, Evidence, Findings};
use crate::kind::Kind;
use crate::level::Heads;
use crate::log::Log;
use crate::postgres::Database;
use crate::readiness::Readiness;
use crate::report::Report;
use crate::schedule::{Schedule, Step};
use crate::world::World;

const FIRST_200: &str = "webhooks are accepted soon after healing";
const LEVEL: &str = "everything is level soon after healing";
const READYZ: &str = "/readyz tells the truth";
const STOPS: &str = "a node stops in time";
const ENDED: &str = "a node does not end by itself";
const PANICS: &str = "nothing panics";
const AUDIT: &str = "`audit verify` passes";
const DECLARED: &str = "`audit declare-loss` declares";
const MEMORY: &str = "memory is bounded";
const TOLD: &str = "a lost tail is told";

/// Time limits for checks.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After healing, until each node accepts a webhook.
    pub first_200: Duration,
    /// After healing, until read models, ledger and deliveries have caught up.
    pub level: Duration,
    /// How long `/readyz` may be wrong.
    pub readyz: Duration,
    /// From SIGTERM to the exit.
    pub stop: Duration,
    pub memory: u64,
}

impl Limits {
    /// The product's promises.
    pub const PROMISED: Self = Self {
        first_200: Duration::from_secs(2),
        level: Duration::from_secs(30),
        readyz: Duration::from_secs(2),
        stop: Duration::from_secs(21),
        memory: 700 << 20,
    };
    /// For slow and busy machines: nothing here depends on their speed.
    pub const GENEROUS: Self = Self {
        first_200: Duration::from_secs(30),
        level: Duration::from_secs(90),
        readyz: Duration::from_secs(10),
        stop: Duration::from_secs(35),
        memory: 1 << 30,
    };
    /// How long to wait beyond the limits, to measure the actual time.
    const BEYOND: Duration = Duration::from_secs(15);
    /// How long everything may take to end without further faults.
    const SETTLE: Duration = Duration::from_secs(75);
    /// The same if it has not recovered from a fault.
    const GIVEN_UP: Duration = Duration::from_secs(5);
}

#[derive(Clone, Debug)]
pub struct Options {
    pub binary: PathBuf,
    /// Webhooks a second.
    pub rate: u32,
    pub limits: Limits,
    /// The logs of a run that found something are copied here.
    pub evidence: Option<PathBuf>,
    /// Says what happens, on stderr.
    pub verbose: bool,
}

/// A node's recovery from a fault.
#[derive(Clone, Copy, Debug, Default)]
struct Recovery {
    first_200: Option<Duration>,
    level: Option<Duration>,
}

/// Runs a schedule.
pub async fn run(schedule: &Schedule, options: &Options) -> Result<Report> {
    let mut world = World::start(&options.binary, schedule.setting, schedule.seed).await.context("the start")?;
    let result = disturb_and_check(&mut world, schedule, options).await;
    let found = result.as_ref().map_or(true, |report| !report.findings.is_empty());
    if let Some(evidence) = options.evidence.as_ref().filter(|_| found) {
        keep(&world, &evidence.join(format!("{}-{}", schedule.name(), schedule.seed)))?;
    }
    result
}

async fn disturb_and_check(world: &mut World, schedule: &Schedule, options: &Options) -> Result<Report> {
    let started = Instant::now();
    let say = |what: &dyn std::fmt::Display| {
        if options.verbose {
            narrate(started.elapsed(), what);
        }
    };
    for node in &world.nodes {
        world.tasks.spawn(std::sync::Arc::clone(node).supervise(world.stop.clone()));
        world.traffic.sample(node.number, &world.tasks, &world.stop);
    }
    world.traffic.start(options.rate, &world.tasks, &world.stop);
    let mut findings = Findings::default();
    let mut recoveries = Vec::new();
    for step in &schedule.steps {
        tokio::time::sleep(step.after).await;
        say(&format!("{} on node {}", step.kind, step.node));
        step.inject(world).await.with_context(|| format!("injecting {}", step.kind))?;
        tokio::time::sleep(step.lasts).await;
        say(&"healing");
        step.heal(world).await.with_context(|| format!("healing {}", step.kind))?;
        let recovery = recover(world, step, options, &mut findings).await?;
        say(&format!("first 200 after {:?}, level after {:?}", recovery.first_200, recovery.level));
        recoveries.push(recovery);
    }
    world.stop.cancel();
    world.tasks.close();
    world.tasks.wait().await;
    let came_back = recoveries.iter().all(|recovery| recovery.level.is_some());
    let settle = if came_back { Limits::SETTLE } else { Limits::GIVEN_UP };
    // Twice, because the ends of the last webhooks are appended meanwhile.
    for _ in 0..2 {
        let heads = Heads::read(&world.database).await?;
        if let Err(behind) = heads.until_level(&world.database, true, settle).await {
            findings.add(LEVEL, format!("at the end: {behind:?}"));
            break;
        }
    }
    say(&"settled; checking");
    check(world, schedule, options, &mut findings, &recoveries).await
}

/// Measures how soon each node accepts webhooks and everything has caught up.
async fn recover(world: &World, step: &Step, options: &Options, findings: &mut Findings) -> Result<Recovery> {
    let healed = Instant::now();
    let heads = Heads::read(&world.database).await?;
    let level = heads.until_level(&world.database, false, options.limits.level + Limits::BEYOND);
    let first_200 = async {
        loop {
            let firsts = world.nodes.iter().map(|node| world.record.first_accepted(node.number, healed));
            match firsts.collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max()) {
                Some(last) => return Some(last - healed),
                None if healed.elapsed() > options.limits.first_200 + Limits::BEYOND => return None,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let (first_200, level) = tokio::join!(first_200, level);
    match first_200 {
        None => findings.add(FIRST_200, format!("{}: never", step.kind)),
        Some(after) if after > options.limits.first_200 => {
            findings.add(FIRST_200, format!("{}: after {:.1} s", step.kind, after.as_secs_f64()));
        }
        Some(_) => {}
    }
    match &level {
        Err(behind) => findings.add(LEVEL, format!("{}: never; {behind:?}", step.kind)),
        Ok(after) if *after > options.limits.level => {
            findings.add(LEVEL, format!("{}: after {:.1} s", step.kind, after.as_secs_f64()));
        }
        Ok(_) => {}
    }
    Ok(Recovery { first_200, level: level.ok() })
}

async fn check(
    world: &mut World,
    schedule: &Schedule,
    options: &Options,
    findings: &mut Findings,
    recoveries: &[Recovery],
) -> Result<Report> {
    let mut connection = world.database.connect_patiently().await?;
    let log = Log::read(&mut connection).await?;
    let former = former_log(world).await?;
    let evidence = Evidence::new(&world.record, log, former, schedule.kinds());
    let mut found = evidence.check();
    if let Err(error) = checker::check_lists(&world.product, &evidence.log, &mut found).await {
        found.add(checker::LISTS, format!("{error:#}"));
    }
    checker::check_tables(&mut connection, &evidence.log, &mut found).await?;
    checker::check_conservation(&mut connection, options.limits.level, &mut found).await?;
    check_audit(world, schedule, &mut found).await;
    check_nodes(world, schedule, options, &mut found);
    let readiness = Readiness::of(&world.record.samples());
    if readiness.lied > options.limits.readyz {
        let lied = readiness.lied.as_secs_f64();
        found.add(READYZ, format!("200 for {lied:.1} s while no webhook was accepted"));
    }
    for line in std::mem::take(findings).into_examples() {
        found.add(line.0, line.1);
    }
    let slowest = |of: fn(&Recovery) -> Option<Duration>| {
        recoveries.iter().map(of).collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max())
    };
    Ok(Report {
        seed: schedule.seed,
        name: schedule.name(),
        requests: evidence.requests.len(),
        acknowledged: evidence.requests.iter().filter(|request| request.accepted().is_some()).count(),
        delivered: evidence.arrivals.len(),
        lost: found.count(checker::LOST),
        lost_with_the_tail: evidence.lost_with_the_tail(),
        doubled: found.count(checker::DOUBLED) + found.count(checker::TWICE_NEW),
        stuck: found.count(checker::STUCK),
        readiness,
        first_200: slowest(|recovery| recovery.first_200),
        level: slowest(|recovery| recovery.level),
        memory: world.nodes.iter().map(|node| node.peak_memory()).max().unwrap_or(0),
        findings: found,
    })
}

/// The log of the primary that a replica replaced.
async fn former_log(world: &mut World) -> Result<Option<Log>> {
    let Some(former) = &mut world.former else { return Ok(None) };
    former.start().await?;
    let database: Database = former.database.clone();
    let log = Log::read(&mut database.connect_patiently().await?).await?;
    Ok(Some(log))
}

async fn check_audit(world: &World, schedule: &Schedule, findings: &mut Findings) {
    if schedule.kinds().contains(&Kind::Promotion) {
        // Each node has signed its own checkpoints.
        for node in &world.nodes {
            let declare = ["audit", "declare-loss", "--reason", "a replica was promoted", "--yes"];
            match node.run(&declare, Duration::from_secs(180)).await {
                Ok((status, _)) if status.success() => {}
                Ok((_, printed)) => findings.add(DECLARED, printed.lines().take(6).collect::<Vec<_>>().join(" / ")),
                Err(error) => findings.add(DECLARED, format!("{error:#}")),
            }
        }
    }
    match world.nodes[0].run(&["audit", "verify"], Duration::from_secs(180)).await {
        Ok((status, _)) if status.success() => {}
        Ok((_, printed)) => {
            findings.add(AUDIT, wrong(&printed));
        }
        Err(error) => findings.add(AUDIT, format!("{error:#}")),
    }
}

/// The problem in a check's output, which comes last.
fn wrong(printed: &str) -> String {
    let said: Vec<_> = printed.lines().filter(|line| !line.starts_with('{')).collect();
    let first = said.iter().position(|line| line.starts_with("WRONG")).unwrap_or(said.len().saturating_sub(4));
    said[first..].iter().take(4).copied().collect::<Vec<_>>().join(" / ")
}

fn check_nodes(world: &World, schedule: &Schedule, options: &Options, findings: &mut Findings) {
    for (took, wrong) in &world.stops {
        if *took > options.limits.stop {
            findings.add(STOPS, format!("{:.1} s", took.as_secs_f64()));
        }
        if let Some(wrong) = wrong {
            findings.add(STOPS, wrong.clone());
        }
    }
    let may_end = schedule.steps.iter().any(|step| step.kind.may_end_the_node());
    for node in &world.nodes {
        for ended in node.ended_by_itself().into_iter().filter(|_| !may_end) {
            findings.add(ENDED, format!("node {}: {ended}", node.number));
        }
        let log = std::fs::read_to_string(node.log()).unwrap_or_default();
        for line in log.lines().filter(|line| line.contains("panicked at")) {
            findings.add(PANICS, line.chars().take(200).collect());
        }
        if node.peak_memory() > options.limits.memory {
            findings.add(MEMORY, format!("node {}: {} MiB", node.number, node.peak_memory() >> 20));
        }
        let tells = |line: &str| line.contains("\"ERROR\"") && TAIL_WORDS.iter().any(|word| line.contains(word));
        if schedule.kinds().contains(&Kind::Promotion) && !log.lines().any(tells) {
            findings.add(TOLD, format!("node {} says nothing of it", node.number));
        }
    }
}

/// Texts of which a node logs one if its log is shorter than before.
const TAIL_WORDS: &[&str] = &["lost its end"];

/// Copies the logs of all processes, for people.
fn keep(world: &World, directory: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let of_nodes = world.nodes.iter().map(|node| node.log());
    let clusters = world.cluster.iter().chain(&world.former).map(crate::postgres::Cluster::log);
    let embedded = world.nodes.iter().map(|node| node.data.join("postgres.log"));
    for log in of_nodes.chain(clusters).chain(embedded).filter(|log| log.exists()) {
        if let Some(name) = log.file_name() {
            let _ = std::fs::copy(&log, directory.join(name));
        }
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "it is what --verbose asks for")]
fn narrate(at: Duration, what: &dyn std::fmt::Display) {
    eprintln!("  {:6.2} s  {what}", at.as_secs_f64());
}
