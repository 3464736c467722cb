//! Overload: the server's answers when it is offered far more than it can take.
//!
//! Another process offers it (`offer`), on the same cores, which the server then lacks.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::contender::{Contender as _, ORGANIZATIONS};
use crate::hookledger::Hookledger;
use crate::offer::Offered;
use crate::options::Options;

/// Connections that share requests at a steady rate: nearly the server's maximum.
const CONNECTIONS: u16 = 4_000;
/// Connections that send again at once.
const CLOSED: [u16; 2] = [2_000, 4_000];

#[derive(Debug, Serialize)]
pub struct OverloadFigures {
    /// `None` if each connection sent again at once.
    pub due_per_second: Option<u32>,
    pub connections: u16,
    pub offered: Offered,
    /// New webhooks in the log, to be compared with the 200 answers.
    pub appended: i64,
}

impl OverloadFigures {
    /// Adds the accepted webhooks to `accepted`.
    pub async fn measure(
        hookledger: &mut Hookledger,
        rate: u32,
        options: &Options,
        accepted: &mut [u64; ORGANIZATIONS],
    ) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        let courses = std::iter::once((CONNECTIONS, Some(rate))).chain(CLOSED.map(|connections| (connections, None)));
        for (connections, due_per_second) in courses {
            let mut running = hookledger.start().await?;
            let before = hookledger.webhooks_in_log().await?;
            let offered = offer(running.address, connections, due_per_second, options).await?;
            running.still_runs()?;
            for (sum, count) in accepted.iter_mut().zip(&offered.accepted) {
                *sum += count;
            }
            let appended = hookledger.webhooks_in_log().await? - before;
            hookledger.settle(accepted).await?;
            let figures = Self { due_per_second, connections, offered, appended };
            figures.print();
            all.push(figures);
        }
        Ok(all)
    }

    pub fn print(&self) {
        let Self { offered, connections, .. } = self;
        #[expect(clippy::cast_precision_loss, reason = "some millions")]
        let per_second = |count: u64| count as f64 / offered.elapsed_seconds;
        match self.due_per_second {
            Some(rate) => println!("overload: {rate}/s due on {connections} connections"),
            None => println!("overload: {connections} connections that send again at once"),
        }
        println!(
            "  {:.0}/s sent, {:.0}/s found no free connection; {:.0}/s answered 200, {:.0}/s 503, {} anything else",
            per_second(offered.sent),
            per_second(offered.unsent),
            per_second(self.acknowledged()),
            per_second(offered.refused),
            offered.others.values().sum::<u64>(),
        );
        for (what, latencies) in [("200", offered.acknowledged_ms), ("503", offered.refused_ms)] {
            println!(
                "  {what}: p50 {:.0} ms, p99 {:.0} ms, p99.9 {:.0} ms, max {:.0} ms",
                latencies.p50, latencies.p99, latencies.p999, latencies.max
            );
        }
        println!("  {} answered 200, {} in the log", self.acknowledged(), self.appended);
    }

    fn acknowledged(&self) -> u64 {
        self.offered.accepted.iter().sum()
    }

    /// Every reason for a failure, in sentences.
    pub fn complaints(&self) -> Vec<String> {
        let others = self.offered.others.iter().map(|(what, count)| format!("overload: {count} requests: {what}"));
        let mut complaints: Vec<_> = others.collect();
        if self.acknowledged() != u64::try_from(self.appended).unwrap_or_default() {
            complaints.push(format!("overload: {} answered 200, {} in the log", self.acknowledged(), self.appended));
        }
        if self.offered.acknowledged_ms.p99 > 1_000.0 {
            complaints.push(format!("overload: p99 of the acknowledged is {:.0} ms", self.offered.acknowledged_ms.p99));
        }
        complaints
    }
}

/// Runs this program again to offer the load.
async fn offer(
    address: std::net::SocketAddr,
    connections: u16,
    rate: Option<u32>,
    options: &Options,
) -> Result<Offered> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.arg("offer").args(["--address", &address.to_string()]);
    command.args(["--connections", &connections.to_string()]);
    command.args(["--seconds", &options.overload_seconds.to_string()]);
    command.args(["--niceness", &options.overload_niceness.to_string()]);
    if let Some(rate) = rate {
        command.args(["--rate", &rate.to_string()]);
    }
    command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = command.output().await.context("offer")?;
    ensure!(output.status.success(), "who offers ended: {}", output.status);
    serde_json::from_slice(&output.stdout).context("what was offered")
}
