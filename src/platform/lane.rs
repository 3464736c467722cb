//! Lanes: threads beside those that serve requests, each with a runtime of its own.
//!
//! The writer has one, because every answer waits for it: on a shared thread it would wait behind
//! dozens of requests each time that the database answered. Followers have one, because decoding
//! thousands of events at once would hold up the requests on the same thread; theirs also yields
//! the processor to everybody else's.

use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long what still ran may take to end.
const END_LIMIT: Duration = Duration::from_secs(1);

/// How much less processor time than others a lane asks for, as `nice` counts (0 to 19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Niceness {
    /// As everybody.
    None,
    /// What can be late by a moment.
    Background,
}

impl Niceness {
    fn value(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Background => 5,
        }
    }
}

/// A thread with a runtime. Dropping it ends the thread, and whatever still ran there.
#[derive(Debug)]
pub struct Lane {
    handle: Handle,
    stop: Option<DropGuard>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    /// Starts the thread.
    pub fn start(name: &str, niceness: Niceness) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            be_nice(niceness);
            runtime.block_on(stopped.cancelled());
            // Looking a name up has no limit, and is not waited for.
            runtime.shutdown_timeout(END_LIMIT);
        })?;
        Ok(Self { handle, stop: Some(stop.drop_guard()), thread: Some(thread) })
    }

    /// Runs something there and waits for it: connections that are opened belong to the lane.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> std::io::Result<T> {
        self.handle.spawn(work).await.map_err(std::io::Error::other)
    }

    /// Where tasks are spawned on.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A lane whose thread panicked has nothing left to end.
            let _ = thread.join();
        }
    }
}

/// Linux counts niceness by thread. Elsewhere it is the process's, and nobody is made nicer.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "setpriority has no safe form in std")]
fn be_nice(niceness: Niceness) {
    if niceness != Niceness::None {
        // SAFETY: a system call on plain numbers; 0 is the calling thread. To be refused is no harm.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness.value()) };
    }
}

#[cfg(not(target_os = "linux"))]
fn be_nice(_niceness: Niceness) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_runs_tasks_on_its_own_thread_and_ends_with_its_owner() {
        let lane = Lane::start("test-lane", Niceness::Background).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        lane.handle().spawn(async move {
            tell.send(std::thread::current().name().map(str::to_owned)).unwrap();
            std::future::pending::<()>().await;
        });
        assert_eq!(told.recv().unwrap().as_deref(), Some("test-lane"));
        drop(lane);
        assert!(told.recv().is_err());
    }
}
