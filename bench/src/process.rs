//! What the kernel says about a server's processes: CPU time and memory, read from /proc.

use std::fs;
use std::time::{Duration, Instant};

/// CPU time of a process and all its descendants so far.
///
/// The scheduler's own sum of each thread in nanoseconds, not the ticks of `stat`: short runs would drown in
/// their ten milliseconds.
pub fn cpu(root: u32) -> Duration {
    let nanos = family(root)
        .into_iter()
        .flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten())
        .filter_map(|task| {
            fs::read_to_string(task.path().join("schedstat")).ok()?.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum();
    Duration::from_nanos(nanos)
}

/// Proportional memory of a process and all its descendants, in bytes.
pub fn memory(root: u32) -> u64 {
    family(root)
        .into_iter()
        .filter_map(|pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = text.lines().find(|line| line.starts_with("Pss:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .sum::<u64>()
        * 1024
}

/// Waits until the server uses less than two per cent of a core, at most `limit`.
pub fn settle(root: u32, limit: Duration) {
    const STEP: Duration = Duration::from_millis(100);
    let begin = Instant::now();
    let mut before = cpu(root);
    while begin.elapsed() < limit {
        std::thread::sleep(STEP);
        let now = cpu(root);
        if now.saturating_sub(before) < STEP / 50 {
            return;
        }
        before = now;
    }
}

/// A process and its descendants.
pub fn family(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The command in brackets may hold anything; the parent is the second field behind it.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut family = vec![root];
    let mut at = 0;
    while let Some(&member) = family.get(at) {
        family.extend(parents.iter().filter(|(_, parent)| *parent == member).map(|(pid, _)| *pid));
        at += 1;
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_work_shows_in_the_figures() {
        let before = cpu(std::process::id());
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(50) {
            std::hint::black_box(memory(std::process::id()));
        }
        assert!(cpu(std::process::id()) > before);
        assert!(memory(std::process::id()) > 100_000);
    }
}
