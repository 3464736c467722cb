//! The contender "stock": cqrs-es and postgres-es behind warp, assembled as in their documentation, in a
//! separate process. Nothing in it is slowed down on purpose.

mod aggregate;
pub mod server;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use sqlx::{Connection as _, PgConnection};

use crate::contender::{Contender, Running, Settled, client, free_address};
use crate::postgres::Cluster;
use crate::process::Process;

pub struct Stock {
    cluster: Cluster,
    pool: u32,
    log: PathBuf,
    http: reqwest::Client,
}

impl Stock {
    pub fn prepare(directory: &Path, pool: u32) -> Result<Self> {
        let cluster = Cluster::create(directory, "stock")?;
        Ok(Self { cluster, pool, log: directory.join("stock").join("server.log"), http: client()? })
    }
}

impl Contender for Stock {
    const NAME: &'static str = "stock";

    async fn start(&mut self) -> Result<Running> {
        let cluster = self.cluster.start().await?;
        let address = free_address()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["stock", "--listen", &address.to_string(), "--pool", &self.pool.to_string()]);
        command.args(["--database-url", &self.cluster.url()]);
        let server = Process::spawn("the stock server", &mut command, libc::SIGTERM, &self.log)?;
        Running::new(address, server, cluster).ready(&self.http).await
    }

    /// It has no read model: its documentation dispatches to one within the command, which the benchmark
    /// spares it. Its events are counted, so that both are known to have stored what they accepted.
    async fn settle(&mut self, accepted: &[u64]) -> Result<Settled> {
        let mut connection = PgConnection::connect(&self.cluster.url()).await?;
        let counted: i64 = sqlx::query_scalar("select count(*) from events").fetch_one(&mut connection).await?;
        let counted = u64::try_from(counted)?;
        Ok(Settled { caught_up_after: None, ledger: None, counted, exact: counted == accepted.iter().sum::<u64>() })
    }
}
