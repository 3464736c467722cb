//! Tasks that a node cannot do without, and what is known of them.
//!
//! Each runs until the node stops. One that ends before, by a panic most likely, would be missed
//! only by what it does not do any more: so `/readyz` and `/healthz` say it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;

/// What is wrong with a node's tasks. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Vitals(Arc<Mutex<BTreeMap<&'static str, Ailment>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ailment {
    /// It will not come back.
    Ended,
    /// It is tried again.
    Panicked,
}

impl Vitals {
    /// Runs a task that ends only when it is stopped, and notes when it ends otherwise.
    pub fn watch(
        &self,
        name: &'static str,
        stop: CancellationToken,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let vitals = self.clone();
        async move {
            // What the task held is gone with it, so nobody sees it half changed but through locks,
            // whose owners expect that.
            let panicked = AssertUnwindSafe(task).catch_unwind().await.is_err();
            if panicked || !stop.is_cancelled() {
                tracing::error!(
                    task.name = name,
                    task.panicked = panicked,
                    "a task ended by itself; restart this node"
                );
                metrics::counter!("hookledger_tasks_ended_total", "task" => name).increment(1);
                vitals.set(name, Some(Ailment::Ended));
            }
        }
    }

    /// Runs one go of a task that tries again; nothing where it panicked.
    pub async fn go<T>(&self, name: &'static str, go: impl Future<Output = T>) -> Option<T> {
        let done = AssertUnwindSafe(go).catch_unwind().await.ok();
        if done.is_none() {
            tracing::error!(task.name = name, "a task panicked; it tries again");
            metrics::counter!("hookledger_tasks_panicked_total", "task" => name).increment(1);
            self.set(name, Some(Ailment::Panicked));
        }
        done
    }

    /// A task that had panicked works again.
    pub fn recovered(&self, name: &'static str) {
        self.set(name, None);
    }

    /// What is wrong, in sentences.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let ailments = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sentence = |(name, ailment): (&&str, &Ailment)| match ailment {
            Ailment::Ended => format!("the task {name} ended by itself; restart this node"),
            Ailment::Panicked => format!("the task {name} fails and is tried again; see the server's log"),
        };
        ailments.iter().map(sentence).collect()
    }

    /// Whether only a restart helps.
    #[must_use]
    pub fn is_past_help(&self) -> bool {
        let ailments = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ailments.values().any(|ailment| *ailment == Ailment::Ended)
    }

    fn set(&self, name: &'static str, ailment: Option<Ailment>) {
        let mut ailments = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match ailment {
            Some(ailment) => drop(ailments.insert(name, ailment)),
            None => drop(ailments.remove(name)),
        }
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
}
