//! How much may be done in a time.

use std::time::Instant;

/// A bucket that fills at a rate and holds what fills it in a second: bursts of that size pass at once.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    left: f64,
    at: Instant,
}

impl Rate {
    /// A full bucket.
    #[must_use]
    pub fn full(per_second: u32, now: Instant) -> Self {
        Self { left: f64::from(per_second), at: now }
    }

    /// Takes one out of it. False if it is empty.
    pub fn take(&mut self, per_second: u32, now: Instant) -> bool {
        let room = f64::from(per_second);
        let filled = now.saturating_duration_since(self.at).as_secs_f64() * room;
        self.left = (self.left + filled).min(room);
        self.at = self.at.max(now);
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_fills_the_bucket_and_no_more() {
        let begin = Instant::now();
        let mut rate = Rate::full(3, begin);
        let taken = |rate: &mut Rate, now| (0..10).filter(|_| rate.take(3, now)).count();
        assert_eq!(taken(&mut rate, begin), 3);
        assert_eq!(taken(&mut rate, begin + Duration::from_millis(400)), 1);
        assert_eq!(taken(&mut rate, begin + Duration::from_secs(60)), 3);
        assert_eq!(taken(&mut rate, begin), 0, "time that goes back fills nothing");
    }
}
