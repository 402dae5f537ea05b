use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for something that should come at once. Long, since a slow machine is not a failure.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Asks again and again until there is an answer, and panics with `what` when the deadline has passed.
///
/// For facts that only polling can tell: a file of another process, a counter in `/proc`, a port that opens.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < give_up, "waited {DEADLINE:?} in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
