//! The rounds: the contenders take turns, so that changes on the machine affect both.
//!
//! In its turn a contender has the machine to itself: the other's server and cluster are stopped, including
//! the checkpoint, because even an idle PostgreSQL vacuums what its last round wrote.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};

use crate::contender::{Contender, ORGANIZATIONS, Settled};
use crate::deliver::DeliveryFigures;
use crate::hookledger::Hookledger;
use crate::list::ListFigures;
use crate::load::Load;
use crate::machine::Machine;
use crate::options::{Name, Options};
use crate::overload::OverloadFigures;
use crate::postgres::SETTINGS;
use crate::report::{Figures, Report, Results};
use crate::stock::Stock;

pub async fn run(options: &Options) -> Result<Report> {
    // Other users may traverse the directory but not list it, because PostgreSQL may run under another
    // account.
    let directory =
        tempfile::Builder::new().prefix("hookledger-bench-").permissions(Permissions::from_mode(0o711)).tempdir()?;
    let path = directory.path();
    let hookledger = || Hookledger::prepare(path, options.binary.as_deref()).map(Course::new);
    let stock = || Stock::prepare(path, options.stock_pool).map(Course::new);
    let mut hookledger = options.includes(Name::Hookledger).then(hookledger).transpose()?;
    let mut stock = options.includes(Name::Stock).then(stock).transpose()?;
    let machine = Machine::here();
    println!("{machine}; {} connections, {} s a round", options.connections, options.measured().as_secs());
    Figures::print_heading();
    for round in 1..=options.rounds {
        if let Some(course) = &mut hookledger {
            course.round(round, options).await.context("hookledger")?;
        }
        if let Some(course) = &mut stock {
            course.round(round, options).await.context("stock")?;
        }
    }
    let overload = match (&mut hookledger, options.overload) {
        (Some(course), Some(rate)) => {
            let Course { contender, accepted, .. } = course;
            OverloadFigures::measure(contender, rate, options, accepted).await.context("hookledger")?
        }
        _ => Vec::new(),
    };
    let deliver = match (&mut hookledger, options.deliver) {
        (Some(course), Some(rate)) => {
            Some(DeliveryFigures::measure(&mut course.contender, rate).await.context("hookledger")?)
        }
        _ => None,
    };
    let list = match (&mut hookledger, options.list) {
        (Some(course), Some(rows)) => {
            Some(ListFigures::measure(&mut course.contender, rows).await.context("hookledger")?)
        }
        _ => None,
    };
    let (hookledger, stock) = (hookledger.map(Course::results), stock.map(Course::results));
    let pace = |results: &Option<Results>| Some(results.as_ref()?.median?.webhooks_per_second);
    Ok(Report {
        machine,
        seconds: options.measured().as_secs(),
        connections: options.connections,
        stock_pool: options.stock_pool,
        postgres: SETTINGS,
        ratio: pace(&hookledger).zip(pace(&stock)).map(|(ours, theirs)| ours / theirs),
        hookledger,
        stock,
        list,
        deliver,
        overload,
    })
}

/// One contender's progress through the rounds.
struct Course<C> {
    contender: C,
    figures: Vec<Figures>,
    accepted: [u64; ORGANIZATIONS],
    failures: BTreeMap<String, u64>,
    settled: Option<Settled>,
}

impl<C: Contender> Course<C> {
    fn new(contender: C) -> Self {
        let (figures, failures) = (Vec::new(), BTreeMap::new());
        Self { contender, figures, accepted: [0; ORGANIZATIONS], failures, settled: None }
    }

    /// Warms up, measures, and waits until the contender is idle, so that no turn leaves work for the next.
    async fn round(&mut self, round: u16, options: &Options) -> Result<()> {
        let mut running = self.contender.start().await?;
        let warming = Load::run(running.address, options.connections, options.warming()).await?;
        self.count(&warming);
        let load = Load::run(running.address, options.connections, options.measured()).await?;
        running.still_runs()?;
        self.count(&load);
        let figures = Figures::of(&load);
        figures.print(C::NAME, &round.to_string());
        self.figures.push(figures);
        let settled = self.contender.settle(&self.accepted).await?;
        if let Some(after) = settled.caught_up_after {
            println!("{:<11} {round:>7} read model caught up after {:.2} s", C::NAME, after.as_secs_f64());
        }
        if let Some(ledger) = settled.ledger {
            let (behind, after) = (ledger.behind.as_secs_f64(), ledger.caught_up_after.as_secs_f64());
            println!("{:<11} {round:>7} ledger was {behind:.2} s behind, and caught up after {after:.2} s", C::NAME);
        }
        self.settled = Some(settled);
        Ok(())
    }

    fn count(&mut self, load: &Load) {
        for (sum, count) in self.accepted.iter_mut().zip(load.accepted) {
            *sum += count;
        }
        for (what, count) in &load.failures {
            *self.failures.entry(what.clone()).or_default() += count;
        }
    }

    fn results(self) -> Results {
        Results::of(C::NAME, self.figures, self.accepted.iter().sum(), self.failures).settled(self.settled)
    }
}
