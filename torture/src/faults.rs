//! Faults: how each kind is injected and healed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};

use crate::clock::MovableClock;
use crate::draw::Draw;
use crate::kind::Kind;
use crate::node::Node;
use crate::process::send;
use crate::proxy::{Network, Proxy};
use crate::schedule::Step;
use crate::world::{World, socket};

/// How far a clock jumps.
const JUMP_SECONDS: i64 = 600;
/// Pause between a fault of the database and the SIGTERM of a node, so that the node is busy with the fault.
const BEFORE_STOP: Duration = Duration::from_secs(1);
/// How long a node may take to be ready before the next one is restarted.
const ROLL_LIMIT: Duration = Duration::from_secs(60);
/// Maximum number of connections taken.
const CONNECTIONS: usize = 200;

impl Step {
    fn draw(&self) -> Draw {
        Draw::new(self.choice, "choice")
    }

    /// Injects the fault.
    pub async fn inject(&self, world: &mut World) -> Result<()> {
        let node = Arc::clone(&world.nodes[self.node]);
        match self.kind {
            Kind::KillNode | Kind::EmbeddedKillNode => node.kill(),
            Kind::KillBackend | Kind::EmbeddedKillBackend => send(self.backend(world).await?, Signal::KILL),
            Kind::KillPostmaster => world.cluster()?.kill(),
            Kind::KillBoth => {
                node.kill();
                world.cluster()?.kill();
            }
            Kind::EmbeddedKillPostmaster => kill_postmaster(world),
            Kind::EmbeddedKill => {
                kill_postmaster(world);
                node.kill();
            }
            Kind::RestartFast => world.cluster()?.stop(Signal::INT).await,
            Kind::RestartImmediate => world.cluster()?.stop(Signal::QUIT).await,
            Kind::PauseNode | Kind::PauseOneOfTwo => node.signal(Signal::STOP),
            Kind::PauseBackend => {
                let backend = self.backend(world).await?;
                pause(world, backend);
            }
            Kind::PauseWalwriter => {
                let walwriter = world.database.walwriter().await?;
                walwriter.into_iter().for_each(|pid| pause(world, pid));
            }
            Kind::TerminateAll => {
                let (database, times) = (world.database.clone(), self.draw().between(2..11));
                let pause = self.lasts / u32::try_from(times).unwrap_or(1);
                world.held.repeats = Some(tokio::spawn(async move {
                    loop {
                        let _ = database.terminate_all().await;
                        tokio::time::sleep(pause).await;
                    }
                }));
            }
            Kind::Reset => {
                let (proxy, pause) = (Arc::clone(world.proxy(self.node)?), self.draw().millis(50..1_500));
                world.held.repeats = Some(tokio::spawn(async move {
                    loop {
                        proxy.reset_all();
                        tokio::time::sleep(pause).await;
                    }
                }));
            }
            Kind::Refuse => self.network(world, Network::Refusing)?,
            Kind::Delay => {
                let most = self.draw().between(30..300);
                self.network(world, Network::Slow(20, most))?;
            }
            Kind::Stall => self.network(world, Network::Stalled)?,
            Kind::BlackHole => self.network(world, Network::Hole)?,
            Kind::HoleForOneOfTwo => world.proxy(self.node)?.set(Network::Hole),
            Kind::HalfOpen => world.proxies.iter().for_each(|proxy| proxy.silence_all()),
            Kind::CutCommit => self.network(world, Network::CuttingCommits)?,
            Kind::CutTransaction => self.network(world, Network::CuttingTransactions)?,
            Kind::SilentTransaction => self.network(world, Network::SilencingTransactions)?,
            Kind::LongSnapshot => {
                let mut connection = world.database.connect().await?;
                connection.execute("begin isolation level repeatable read").await?;
                connection.execute("select 1 from commits limit 1").await?;
                world.held.connections.push(connection);
            }
            Kind::ConnectionsUsedUp => use_up_connections(world).await?,
            Kind::DiskFull | Kind::EmbeddedDiskFull => world.disk.as_ref().context("no small disk")?.fill()?,
            Kind::NodeClock => node.clock.as_ref().context("its clock cannot be moved")?.set(self.jump())?,
            Kind::DatabaseClock => world.cluster()?.clock()?.set(self.jump())?,
            Kind::Promotion => {
                let directory = world.directory.path().join("run").join("replica");
                world.held.replica = Some(world.cluster()?.replica(&directory)?);
            }
            Kind::StopUp => terminate(world, &node).await,
            Kind::StopDown => {
                world.cluster()?.stop(Signal::QUIT).await;
                tokio::time::sleep(BEFORE_STOP).await;
                terminate(world, &node).await;
            }
            Kind::StopHanging => {
                self.network(world, Network::Hole)?;
                tokio::time::sleep(BEFORE_STOP).await;
                terminate(world, &node).await;
            }
            Kind::StartFirst => {
                node.kill();
                world.cluster()?.stop(Signal::INT).await;
                node.spawn()?;
            }
            Kind::RollingRestart => {
                for node in world.nodes.clone() {
                    terminate(world, &node).await;
                    node.start().await?;
                    until_ready(&node).await;
                }
            }
        }
        Ok(())
    }

    /// Ends the fault, and starts what it stopped, as a service manager would.
    pub async fn heal(&self, world: &mut World) -> Result<()> {
        if let Some(repeats) = world.held.repeats.take() {
            repeats.abort();
        }
        for pid in world.held.paused.drain(..) {
            send(pid, Signal::CONT);
        }
        for mut connection in world.held.connections.drain(..) {
            // Its server may be gone.
            let _ = connection.execute("rollback").await;
            let _ = connection.close().await;
        }
        world.proxies.iter().for_each(|proxy| proxy.set(Network::Well));
        let node = Arc::clone(&world.nodes[self.node]);
        match self.kind {
            Kind::KillNode | Kind::EmbeddedKillNode | Kind::EmbeddedKill | Kind::StopUp | Kind::StopHanging => {
                node.start().await?;
            }
            Kind::KillBoth | Kind::StopDown => {
                world.cluster()?.start().await?;
                node.start().await?;
            }
            Kind::KillPostmaster | Kind::RestartFast | Kind::RestartImmediate => world.cluster()?.start().await?,
            Kind::StartFirst => {
                world.cluster()?.start().await?;
                node.until_alive().await?;
            }
            Kind::PauseNode | Kind::PauseOneOfTwo => node.signal(Signal::CONT),
            Kind::DiskFull => {
                world.disk.as_ref().context("no small disk")?.free()?;
                world.cluster()?.start().await?;
            }
            Kind::EmbeddedDiskFull => {
                world.disk.as_ref().context("no small disk")?.free()?;
                node.until_alive().await?;
            }
            // Its node restarts it, or exits and is restarted.
            Kind::EmbeddedKillPostmaster => {
                node.until_alive().await?;
                drop(world.database.connect_patiently().await?);
            }
            Kind::NodeClock => {
                node.clock.as_ref().context("its clock cannot be moved")?.set(0)?;
                tokio::time::sleep(MovableClock::TAKES_EFFECT).await;
            }
            Kind::DatabaseClock => {
                world.cluster()?.clock()?.set(0)?;
                tokio::time::sleep(MovableClock::TAKES_EFFECT).await;
            }
            Kind::Promotion => promote(world).await?,
            // PostgreSQL recovers by itself, and takes as long as the machine needs.
            Kind::KillBackend | Kind::EmbeddedKillBackend => drop(world.database.connect_patiently().await?),
            Kind::PauseBackend
            | Kind::PauseWalwriter
            | Kind::TerminateAll
            | Kind::Reset
            | Kind::Refuse
            | Kind::Delay
            | Kind::Stall
            | Kind::BlackHole
            | Kind::HoleForOneOfTwo
            | Kind::HalfOpen
            | Kind::CutCommit
            | Kind::CutTransaction
            | Kind::SilentTransaction
            | Kind::LongSnapshot
            | Kind::ConnectionsUsedUp
            | Kind::RollingRestart => {}
        }
        Ok(())
    }

    /// For all nodes, because they share the connection to the database.
    fn network(&self, world: &World, network: Network) -> Result<()> {
        world.proxy(self.node)?;
        world.proxies.iter().for_each(|proxy| proxy.set(network));
        Ok(())
    }

    /// The backend that appends, usually.
    async fn backend(&self, world: &World) -> Result<i32> {
        let backends = world.database.backends().await?;
        let mut draw = self.draw();
        let index = if draw.chance(60) { 0 } else { draw.index(backends.len().max(1)) };
        backends.get(index).copied().context("the product has no backend")
    }

    fn jump(&self) -> i64 {
        if self.choice.is_multiple_of(2) { JUMP_SECONDS } else { -JUMP_SECONDS }
    }
}

fn pause(world: &mut World, pid: i32) {
    send(pid, Signal::STOP);
    world.held.paused.push(pid);
}

fn kill_postmaster(world: &World) {
    if let Some(pid) = world.database.postmaster() {
        send(pid, Signal::KILL);
    }
}

async fn terminate(world: &mut World, node: &Node) {
    let stopped = node.terminate().await;
    world.stops.push(stopped);
}

async fn until_ready(node: &Node) {
    let deadline = std::time::Instant::now() + ROLL_LIMIT;
    while !node.is_ready().await && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Takes all free connections, then those of the nodes.
async fn use_up_connections(world: &mut World) -> Result<()> {
    let options = PgConnectOptions::new_without_pgpass().socket(&world.database.directory).port(5432);
    let options = options.username("hookledger").database("hookledger").application_name("torture");
    for is_last in [false, true] {
        while world.held.connections.len() < CONNECTIONS {
            match options.connect().await {
                Ok(connection) => world.held.connections.push(connection),
                Err(_) => break,
            }
        }
        if !is_last {
            world.database.terminate_all().await?;
        }
    }
    Ok(())
}

/// The primary is gone for good, and an older replica takes its place.
async fn promote(world: &mut World) -> Result<()> {
    let mut replica = world.held.replica.take().context("no replica was made")?;
    let mut former = world.cluster.take().context("no cluster")?;
    world.proxies.iter().map(Arc::as_ref).for_each(Proxy::reset_all);
    former.kill();
    replica.start().await?;
    replica.promote().await?;
    world.database = replica.database.clone();
    for proxy in &world.proxies {
        proxy.lead_to(socket(&replica.database));
    }
    world.former = Some(former);
    world.cluster = Some(replica);
    Ok(())
}
