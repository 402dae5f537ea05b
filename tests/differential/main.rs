//! Pushpin and waft side by side, see run.py.

use std::time::Duration;

use waft_testkit::{program, python, waft_binary, waft_only};

/// The run has a deadline of its own, a little earlier, so that it can stop what it started.
const DEADLINE: Duration = Duration::from_secs(270);

#[test]
fn pushpin_and_waft_show_the_same_but_for_what_is_meant_to_differ() {
    waft_only!("it plays to both");
    let known = program("sh").args(["-c", "command -v pushpin"]).run();
    if !known.status.success() {
        eprintln!("skipped: pushpin is not installed, and apt has none for this system");
        return;
    }
    let printed = python("tests/differential/run.py").arg(waft_binary()).within(DEADLINE).succeed();
    eprintln!("{printed}");
}
