//! The figures: of a round, their medians, and their failures.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::contender::Settled;
use crate::deliver::DeliveryFigures;
use crate::list::ListFigures;
use crate::load::Load;
use crate::machine::Machine;
use crate::options::Options;
use crate::overload::OverloadFigures;

/// Maximum lag of the ledger at the end of the load.
const LEDGER_LIMIT_SECONDS: f64 = 5.0;

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Figures {
    pub webhooks_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Figures {
    pub fn of(load: &Load) -> Self {
        let mut latencies = load.latencies.clone();
        latencies.sort_unstable();
        let at = |permille| percentile(&latencies, permille);
        let count = f64::from(u32::try_from(latencies.len()).unwrap_or(u32::MAX));
        Self {
            webhooks_per_second: count / load.elapsed.as_secs_f64(),
            p50_ms: at(500),
            p99_ms: at(990),
            p999_ms: at(999),
            max_ms: at(1000),
        }
    }

    /// Each figure's own median: the rows of a table, not one particular round.
    fn median(rounds: &[Self]) -> Option<Self> {
        Some(Self {
            webhooks_per_second: median(rounds.iter().map(|figures| figures.webhooks_per_second))?,
            p50_ms: median(rounds.iter().map(|figures| figures.p50_ms))?,
            p99_ms: median(rounds.iter().map(|figures| figures.p99_ms))?,
            p999_ms: median(rounds.iter().map(|figures| figures.p999_ms))?,
            max_ms: median(rounds.iter().map(|figures| figures.max_ms))?,
        })
    }

    pub fn print(&self, contender: &str, round: &str) {
        println!(
            "{contender:<11} {round:>7} {:>11.0} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
            self.webhooks_per_second, self.p50_ms, self.p99_ms, self.p999_ms, self.max_ms
        );
    }

    pub fn print_heading() {
        println!(
            "{:<11} {:>7} {:>11} {:>9} {:>9} {:>9} {:>9}",
            "", "round", "webhooks/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms"
        );
    }
}

/// One contender's results over all rounds; accepted and failed include the warm-ups.
#[derive(Debug, Serialize)]
pub struct Results {
    #[serde(skip)]
    pub name: &'static str,
    pub rounds: Vec<Figures>,
    pub median: Option<Figures>,
    pub accepted: u64,
    pub failures: BTreeMap<String, u64>,
    /// After the last round; `None` for a contender without a read model.
    pub caught_up_after_seconds: Option<f64>,
    /// At the end of the last round's load; likewise.
    pub ledger_behind_seconds: Option<f64>,
    pub counted: Option<u64>,
    pub exact: Option<bool>,
}

impl Results {
    pub fn of(name: &'static str, rounds: Vec<Figures>, accepted: u64, failures: BTreeMap<String, u64>) -> Self {
        let median = Figures::median(&rounds);
        Self {
            name,
            rounds,
            median,
            accepted,
            failures,
            caught_up_after_seconds: None,
            ledger_behind_seconds: None,
            counted: None,
            exact: None,
        }
    }

    pub fn settled(mut self, settled: Option<Settled>) -> Self {
        self.caught_up_after_seconds =
            settled.and_then(|settled| settled.caught_up_after).map(|after| after.as_secs_f64());
        self.ledger_behind_seconds =
            settled.and_then(|settled| settled.ledger).map(|ledger| ledger.behind.as_secs_f64());
        self.counted = settled.map(|settled| settled.counted);
        self.exact = settled.map(|settled| settled.exact);
        self
    }
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub seconds: u64,
    pub connections: u16,
    pub stock_pool: u32,
    pub postgres: &'static [&'static str],
    pub hookledger: Option<Results>,
    pub stock: Option<Results>,
    /// Hookledger's median of webhooks per second, divided by stock's.
    pub ratio: Option<f64>,
    /// Pages of a long list, if measured.
    pub list: Option<ListFigures>,
    /// Receiving and delivering together, if measured.
    pub deliver: Option<DeliveryFigures>,
    /// Answers under overload, if measured.
    pub overload: Vec<OverloadFigures>,
}

impl Report {
    fn contenders(&self) -> impl Iterator<Item = &Results> {
        self.hookledger.iter().chain(&self.stock)
    }

    pub fn print(&self) {
        println!();
        Figures::print_heading();
        for results in self.contenders() {
            if let Some(median) = results.median {
                median.print(results.name, "median");
            }
        }
        for results in self.contenders() {
            if let Some(after) = results.caught_up_after_seconds {
                println!("{}: read model caught up after {after:.2} s", results.name);
            }
            if let Some(counted) = results.counted {
                println!("{}: {counted} webhooks counted, {} accepted", results.name, results.accepted);
            }
        }
        self.overload.iter().for_each(OverloadFigures::print);
        if let Some(deliver) = self.deliver {
            deliver.print();
        }
        if let Some(list) = self.list {
            list.print();
        }
        if let Some(ratio) = self.ratio {
            println!("hookledger / stock: {ratio:.2}");
        }
        println!("{}; {} connections; stock with a pool of {}", self.machine, self.connections, self.stock_pool);
    }

    /// Every reason for a failure of this run, in sentences.
    pub fn complaints(&self, options: &Options) -> Vec<String> {
        let mut complaints = Vec::new();
        for results in self.contenders() {
            for (what, count) in &results.failures {
                complaints.push(format!("{}: {count} requests failed: {what}", results.name));
            }
            if results.ledger_behind_seconds.is_some_and(|behind| behind > LEDGER_LIMIT_SECONDS) {
                complaints.push(format!("{}: the ledger was more than {LEDGER_LIMIT_SECONDS} s behind", results.name));
            }
            if results.exact == Some(false) {
                complaints.push(format!("{}: what was accepted is not what was kept", results.name));
            }
        }
        complaints.extend(self.overload.iter().flat_map(OverloadFigures::complaints));
        if let Some(required) = options.require_ratio
            && self.ratio.is_none_or(|ratio| ratio < required)
        {
            complaints.push(format!("the ratio is below {required}"));
        }
        let p99 = self.hookledger.as_ref().and_then(|results| results.median).map(|median| median.p99_ms);
        if let Some(required) = options.require_p99_ms
            && p99.is_none_or(|p99| p99 > required)
        {
            complaints.push(format!("hookledger's p99 is above {required} ms"));
        }
        let list = |figure: fn(&ListFigures) -> f64| self.list.as_ref().map(figure);
        for (what, figure, required) in [
            ("median", list(|list| list.p50_ms), options.require_list_p50_ms),
            ("95th percentile", list(|list| list.p95_ms), options.require_list_p95_ms),
        ] {
            if let Some(required) = required
                && figure.is_none_or(|figure| figure > required)
            {
                complaints.push(format!("the {what} of the list's pages is above {required} ms"));
            }
        }
        complaints
    }
}

/// The milliseconds within which this many of 1,000 were, from sorted microseconds.
pub fn percentile(sorted: &[u32], permille: usize) -> f64 {
    let rank = (sorted.len() * permille).div_ceil(1000).saturating_sub(1);
    sorted.get(rank).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
}

/// Of an even number, the mean of the middle two.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_middle_two() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median(std::iter::empty()), None);
    }
}
