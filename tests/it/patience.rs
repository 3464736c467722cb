//! Waiting for conditions. No test asserts how fast a machine is: it waits for a condition, and fails
//! only if that takes longer than on the slowest usable machine.

use std::time::{Duration, Instant};

/// The limit of every wait.
pub const PATIENCE: Duration = Duration::from_secs(300);
const STEP: Duration = Duration::from_millis(20);

/// Waits for a value, and returns it.
pub async fn found<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for this: {what}");
        tokio::time::sleep(STEP).await;
    }
}

/// Waits for a condition.
pub async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    found(what, async || is_so().await.then_some(())).await;
}
