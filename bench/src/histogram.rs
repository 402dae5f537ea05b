//! Latencies counted in buckets of about three per cent.

use std::time::Duration;

/// Buckets per doubling.
const STEPS: usize = 32;
const BUCKETS: usize = 64 * STEPS;

/// How many values of which size were seen, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }

    /// Counts one value.
    pub fn record(&mut self, value: Duration) {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    /// The value below which `share` (0 to 1) of all lie; zero when nothing was recorded.
    pub fn quantile(&self, share: f64) -> Duration {
        let wanted = ((self.total as f64) * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(upper(index));
            }
        }
        Duration::ZERO
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < STEPS as u64 {
        return nanos as usize;
    }
    let power = nanos.ilog2();
    let shift = power - STEPS.ilog2();
    ((shift as usize + 1) * STEPS + (nanos >> shift) as usize - STEPS).min(BUCKETS - 1)
}

fn upper(index: usize) -> u64 {
    if index < STEPS {
        return index as u64;
    }
    let shift = index / STEPS - 1;
    ((STEPS + index % STEPS) as u64) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_four_per_cent() {
        let mut histogram = Histogram::new();
        for micros in 1..=1_000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (share, micros) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let seen = histogram.quantile(share).as_nanos() as f64 / 1_000.0;
            assert!((seen / micros - 1.0).abs() < 0.04, "{share}: {seen}");
        }
    }
}
