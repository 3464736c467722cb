//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(name = "hookledger-bench", about = "Measures Hookledger against the documented cqrs-es setup")]
pub struct Options {
    #[command(subcommand)]
    pub role: Option<Role>,
    /// Measured seconds per round and contender.
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Number of rounds; the contenders take turns, and the medians count.
    #[arg(long, default_value_t = 3)]
    pub rounds: u16,
    /// Keep-alive connections, each with one request at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub connections: u16,
    /// Seconds of load before each measurement, which count only in the read model.
    #[arg(long, default_value_t = 2)]
    pub warm_up: u64,
    /// Connections in stock's pool: the default of postgres-es, which also served it best among 10, 16 and
    /// 32.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub stock_pool: u32,
    /// Measure only one contender.
    #[arg(long)]
    pub only: Option<Name>,
    /// Also measure pages of a list with this many webhooks.
    #[arg(long, value_parser = clap::value_parser!(i64).range(1_000..))]
    pub list: Option<i64>,
    /// Fail unless the median of the list's pages is at most this many milliseconds.
    #[arg(long)]
    pub require_list_p50_ms: Option<f64>,
    /// Fail unless the 95th percentile of the list's pages is at most this many milliseconds.
    #[arg(long)]
    pub require_list_p95_ms: Option<f64>,
    /// Also measure receiving and delivering together, at this many webhooks per second.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub deliver: Option<u32>,
    /// Also measure the answers when this many webhooks per second are offered on 4,000 connections, and when
    /// 2,000 and 4,000 connections send again at once.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub overload: Option<u32>,
    /// Seconds of each overload.
    #[arg(long, default_value_t = 30)]
    pub overload_seconds: u64,
    /// Niceness of the process that offers the overload, relative to the server's, as in `nice`.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i32).range(0..=19))]
    pub overload_niceness: i32,
    /// Write the figures to this file as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Fail unless Hookledger acknowledges at least this many times as many webhooks as stock.
    #[arg(long)]
    pub require_ratio: Option<f64>,
    /// Fail unless the median of Hookledger's 99th percentiles is at most this many milliseconds.
    #[arg(long)]
    pub require_p99_ms: Option<f64>,
    /// The Hookledger binary; by default the one next to this program.
    #[arg(long, env = "HOOKLEDGER_BIN")]
    pub binary: Option<PathBuf>,
}

impl Options {
    pub fn measured(&self) -> Duration {
        Duration::from_secs(self.seconds.max(1))
    }

    pub fn warming(&self) -> Duration {
        Duration::from_secs(self.warm_up)
    }

    pub fn includes(&self, name: Name) -> bool {
        self.only.is_none_or(|only| only == name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    Hookledger,
    Stock,
}

#[derive(Debug, Subcommand)]
pub enum Role {
    /// Serves as the stock contender; the benchmark starts itself this way.
    #[command(hide = true)]
    Stock(StockArguments),
    /// Offers more than the server can take; the benchmark starts itself this way.
    #[command(hide = true)]
    Offer(OfferArguments),
}

#[derive(Debug, Args)]
pub struct OfferArguments {
    #[arg(long)]
    pub address: SocketAddr,
    #[arg(long)]
    pub connections: u16,
    /// Requests per second; without it, each connection sends again at once.
    #[arg(long)]
    pub rate: Option<u32>,
    #[arg(long)]
    pub seconds: u64,
    #[arg(long)]
    pub niceness: i32,
}

#[derive(Debug, Args)]
pub struct StockArguments {
    #[arg(long)]
    pub listen: SocketAddr,
    #[arg(long)]
    pub database_url: String,
    #[arg(long)]
    pub pool: u32,
}
