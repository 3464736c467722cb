//! Lanes: threads besides those that serve requests, each with its own runtime.
//!
//! The writer has one because every answer waits for it: on a shared thread it would wait behind dozens of
//! requests after each answer of the database. Followers have one because decoding thousands of events at
//! once would delay the requests on the same thread; theirs also yields the processor to all others.

use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long remaining tasks may take to end.
const END_LIMIT: Duration = Duration::from_secs(1);

/// How much processor time a lane gives up to others, as in `nice` (0 to 19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Niceness {
    /// The default.
    None,
    /// For work that may be slightly late.
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

/// A thread with a runtime. Dropping it ends the thread and its tasks.
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
            // A lookup of a name has no time limit, so it is not waited for.
            runtime.shutdown_timeout(END_LIMIT);
        })?;
        Ok(Self { handle, stop: Some(stop.drop_guard()), thread: Some(thread) })
    }

    /// Runs a future on the lane and waits for it, so that connections opened by it belong to the lane.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> std::io::Result<T> {
        self.handle.spawn(work).await.map_err(std::io::Error::other)
    }

    /// Handle for spawning tasks on the lane.
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

/// Linux has a niceness per thread. Elsewhere it belongs to the process, so it is left alone.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "setpriority has no safe form in std")]
fn be_nice(niceness: Niceness) {
    if niceness != Niceness::None {
        // SAFETY: a system call on plain numbers; 0 is the calling thread. A refusal is harmless.
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
