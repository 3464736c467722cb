//! Tasks that are essential to a node, and their state.
//!
//! Each runs until the node stops. A task that ends earlier, most likely by a panic, would go unnoticed until
//! its work is missed, so `/readyz` and `/healthz` report it. A live task may be in trouble for a while,
//! which it reports itself, or hang, which the age of its last look shows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Problems of a node's tasks. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Vitals(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    ailments: BTreeMap<&'static str, Ailment>,
    /// Problems that end by themselves, by the part of the node that reports them.
    troubles: BTreeMap<Cow<'static, str>, String>,
    /// Problems that need attention although the node serves.
    warnings: BTreeMap<Cow<'static, str>, String>,
    looks: BTreeMap<Cow<'static, str>, Look>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ailment {
    /// It does not come back.
    Ended,
    /// It is tried again.
    Panicked,
}

/// When a task last looked at what it watches.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    limit: Duration,
}

impl Vitals {
    /// Runs a task that ends only when stopped, and records any other end.
    pub fn watch(
        &self,
        name: &'static str,
        stop: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let vitals = self.clone();
        async move {
            // The task's state is dropped with it, so nobody sees it half changed except through locks, whose
            // owners expect that.
            let panicked = AssertUnwindSafe(task).catch_unwind().await.is_err();
            if panicked || !stop.is_cancelled() {
                tracing::error!(
                    task.name = name,
                    task.panicked = panicked,
                    "a task exited unexpectedly; restart this node"
                );
                metrics::counter!("hookledger_tasks_ended_total", "task" => name).increment(1);
                vitals.set(name, Some(Ailment::Ended));
            }
        }
    }

    /// Runs one iteration of a task that retries; `None` if it panicked.
    pub async fn go<T>(&self, name: &'static str, go: impl Future<Output = T>) -> Option<T> {
        let done = AssertUnwindSafe(go).catch_unwind().await.ok();
        if done.is_none() {
            tracing::error!(task.name = name, "a task panicked; retrying");
            metrics::counter!("hookledger_tasks_panicked_total", "task" => name).increment(1);
            self.set(name, Some(Ailment::Panicked));
        }
        done
    }

    /// A task that had panicked works again.
    pub fn recovered(&self, name: &'static str) {
        self.set(name, None);
    }

    /// Reports a problem that ends by itself. `/readyz` shows the sentence, and returns 503 until
    /// [`Self::fine`].
    pub fn trouble(&self, name: impl Into<Cow<'static, str>>, sentence: impl Into<String>) {
        let (name, sentence) = (name.into(), sentence.into());
        let mut state = self.state();
        if state.troubles.get(&name) != Some(&sentence) {
            state.troubles.insert(name, sentence);
        }
    }

    /// The problem of that name has ended.
    pub fn fine(&self, name: &str) {
        self.state().troubles.remove(name);
    }

    /// Reports a problem that needs attention although the node serves: `/readyz` shows it and still returns
    /// 200.
    pub fn warn(&self, name: impl Into<Cow<'static, str>>, sentence: impl Into<String>) {
        self.state().warnings.insert(name.into(), sentence.into());
    }

    /// The warning of that name has ended.
    pub fn unwarn(&self, name: &str) {
        self.state().warnings.remove(name);
    }

    /// Expects a periodic task to call [`Self::seen`] at least this often. Registering counts as a look.
    pub fn expect_looks(&self, name: impl Into<Cow<'static, str>>, limit: Duration) {
        self.state().looks.insert(name.into(), Look { at: Instant::now(), limit });
    }

    /// A registered task looked at what it watches just now, even if there was nothing to do.
    pub fn seen(&self, name: &str) {
        if let Some(look) = self.state().looks.get_mut(name) {
            look.at = Instant::now();
        }
    }

    /// Expects no more looks of that name, because the task was stopped on purpose.
    pub fn expect_no_looks(&self, name: &str) {
        self.state().looks.remove(name);
    }

    /// Why the node is not ready, in sentences.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let state = self.state();
        let ailment = |(name, ailment): (&&str, &Ailment)| match ailment {
            Ailment::Ended => format!("the task {name} exited unexpectedly; restart this node"),
            Ailment::Panicked => format!("the task {name} failed and is being retried; see the server's log"),
        };
        let outdated = |(name, look): (&Cow<'static, str>, &Look)| {
            let age = look.at.elapsed();
            let sentence = || format!("{name} last succeeded {} s ago", age.as_secs());
            (age > look.limit).then(sentence)
        };
        let ailments = state.ailments.iter().map(ailment);
        ailments.chain(state.troubles.values().cloned()).chain(state.looks.iter().filter_map(outdated)).collect()
    }

    /// Problems that need attention although the node is ready, in sentences.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.state().warnings.values().cloned().collect()
    }

    /// Whether only a restart helps.
    #[must_use]
    pub fn is_past_help(&self) -> bool {
        self.state().ailments.values().any(|ailment| *ailment == Ailment::Ended)
    }

    fn set(&self, name: &'static str, ailment: Option<Ailment>) {
        let ailments = &mut self.state().ailments;
        match ailment {
            Some(ailment) => drop(ailments.insert(name, ailment)),
            None => drop(ailments.remove(name)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_missed_and_one_that_is_stopped_is_not() {
        let (vitals, stop) = (Vitals::default(), CancellationToken::new());
        vitals.watch("watched", stop.clone(), stop.clone().cancelled_owned()).now_or_never();
        assert!(vitals.reasons().is_empty());
        vitals.watch("short", stop.clone(), async {}).await;
        vitals.watch("broken", stop.clone(), async { panic!("as a defect would") }).await;
        assert_eq!(vitals.reasons().len(), 2, "{:?}", vitals.reasons());
        assert!(vitals.is_past_help());

        let (vitals, stopped) = (Vitals::default(), stop.clone());
        stop.cancel();
        vitals.watch("watched", stop, stopped.cancelled_owned()).await;
        assert!(vitals.reasons().is_empty());
    }

    #[tokio::test]
    async fn one_that_tries_again_is_missed_until_it_works() {
        let vitals = Vitals::default();
        assert_eq!(vitals.go("follower", async { 7 }).await, Some(7));
        let panics = async { panic!("as a defect would") };
        assert_eq!(vitals.go::<()>("follower", panics).await, None);
        assert_eq!((vitals.reasons().len(), vitals.is_past_help()), (1, false));
        vitals.recovered("follower");
        assert!(vitals.reasons().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_lasts_until_it_is_fine_and_a_look_until_its_limit() {
        let vitals = Vitals::default();
        vitals.trouble("writer", "the last 2 flushes failed");
        assert_eq!(vitals.reasons(), ["the last 2 flushes failed"]);
        vitals.fine("writer");
        assert!(vitals.reasons().is_empty() && !vitals.is_past_help());

        vitals.expect_looks("heads", Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(8)).await;
        vitals.seen("heads");
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(vitals.reasons().is_empty());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(vitals.reasons(), ["heads last succeeded 12 s ago"]);
        vitals.seen("heads");
        assert!(vitals.reasons().is_empty());
        tokio::time::advance(Duration::from_secs(60)).await;
        vitals.expect_no_looks("heads");
        vitals.seen("heads");
        assert!(vitals.reasons().is_empty());
    }

    #[test]
    fn a_warning_is_no_reason() {
        let vitals = Vitals::default();
        vitals.warn("clock", "the clocks differ by 3 s");
        assert_eq!((vitals.reasons().len(), vitals.warnings()), (0, vec!["the clocks differ by 3 s".to_owned()]));
        vitals.unwarn("clock");
        assert!(vitals.warnings().is_empty());
    }
}
