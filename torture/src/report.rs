//! Results of a run as a line, and of many as a table for the docs.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use crate::checker::Findings;
use crate::readiness::Readiness;

#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    /// The kinds of its faults.
    pub name: String,
    pub requests: usize,
    pub acknowledged: usize,
    pub delivered: usize,
    pub lost: usize,
    /// Webhooks that a promoted replica lacks, which are known to be lost.
    pub lost_with_the_tail: usize,
    pub doubled: usize,
    pub stuck: usize,
    pub readiness: Readiness,
    /// The slowest node after the worst fault; `None` if one never recovered.
    pub first_200: Option<Duration>,
    pub level: Option<Duration>,
    pub memory: u64,
    pub findings: Findings,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.findings.is_empty() { "ok   " } else { "WRONG" };
        write!(
            f,
            "{verdict} seed {:<4} {:<22} {:>5} requests, {:>5} acknowledged, {:>4} delivered; lost {}, doubled {}, stuck {}; \
             readyz wrong {:.1} s; first 200 {}, level {}; {} MiB",
            self.seed,
            self.name,
            self.requests,
            self.acknowledged,
            self.delivered,
            self.lost,
            self.doubled,
            self.stuck,
            self.readiness.lied.as_secs_f64(),
            Seconds(self.first_200),
            Seconds(self.level),
            self.memory >> 20,
        )?;
        if self.lost_with_the_tail > 0 {
            write!(f, "; {} went with the tail", self.lost_with_the_tail)?;
        }
        for line in self.findings.lines() {
            write!(f, "\n      {line}")?;
        }
        Ok(())
    }
}

/// A time, or none if it never came.
struct Seconds(Option<Duration>);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => write!(f, "{:.1} s", time.as_secs_f64()),
            None => f.write_str("never"),
        }
    }
}

/// A Markdown table with one row per name of a run.
#[must_use]
pub fn table(reports: &[Report]) -> String {
    let mut rows: BTreeMap<&str, Vec<&Report>> = BTreeMap::new();
    for report in reports {
        rows.entry(&report.name).or_default().push(report);
    }
    let mut table = String::from(
        "| kind | runs | clean | requests | acknowledged | delivered | lost | doubled | stuck | `/readyz` wrong | first 200 | level | memory |\n\
         | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n",
    );
    for (name, runs) in rows {
        let sum = |of: fn(&Report) -> usize| runs.iter().map(|run| of(run)).sum::<usize>();
        let worst = |of: fn(&Report) -> Option<Duration>| {
            Seconds(runs.iter().map(|run| of(run)).collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max()))
        };
        let _ = writeln!(
            table,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} s | {} | {} | {} MiB |",
            runs.len(),
            runs.iter().filter(|run| run.findings.is_empty()).count(),
            sum(|run| run.requests),
            sum(|run| run.acknowledged),
            sum(|run| run.delivered),
            sum(|run| run.lost),
            sum(|run| run.doubled),
            sum(|run| run.stuck),
            runs.iter().map(|run| run.readiness.lied).max().unwrap_or_default().as_secs_f64(),
            worst(|run| run.first_200),
            worst(|run| run.level),
            runs.iter().map(|run| run.memory >> 20).max().unwrap_or(0),
        );
    }
    table
}
