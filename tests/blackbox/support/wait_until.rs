//! Waiting for a condition that something else brings about.

use std::time::{Duration, Instant};

/// Far beyond what any step takes on a loaded machine: it ends a test that
/// hangs, it measures nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until `condition` gives a value; panics with `what` when it never does.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        // Between two questions, so as not to take the processor from what is
        // waited for.
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
