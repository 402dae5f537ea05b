//! How many deliveries a second an endpoint gets.

/// A limit that lets bursts of one second through (the generic cell rate algorithm). Times are Unix milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    /// Microseconds that one delivery takes; 0 is no limit.
    cell_us: u64,
    /// When the next delivery would be due if they came evenly, in microseconds.
    next_us: u64,
}

impl Rate {
    /// A limit of this many a second; none if it is not above 0.
    pub(super) fn per_second(rate: Option<f64>) -> Self {
        let cell_us = rate.filter(|rate| *rate > 0.0).map_or(0, |rate| (1e6 / rate).clamp(1.0, 3.6e9) as u64);
        Self { cell_us, next_us: 0 }
    }

    /// Takes a place now, or says from when on there is one.
    pub(super) fn admit(&mut self, now: u64) -> Result<(), u64> {
        if self.cell_us == 0 {
            return Ok(());
        }
        let now_us = now.saturating_mul(1_000);
        let burst_us = 1_000_000u64.saturating_sub(self.cell_us);
        if self.next_us > now_us + burst_us {
            return Err((self.next_us - burst_us).div_ceil(1_000));
        }
        self.next_us = self.next_us.max(now_us) + self.cell_us;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_second_gets_more_than_twice_the_rate(rate in 1u32..500, gaps in proptest::collection::vec(0u64..200, 1..400)) {
            let mut limit = Rate::per_second(Some(f64::from(rate)));
            let mut now = 1_000_000;
            let mut admitted = Vec::new();
            for gap in gaps {
                now += gap;
                if limit.admit(now).is_ok() {
                    admitted.push(now);
                }
            }
            for first in &admitted {
                let within = admitted.iter().filter(|at| (*first..first + 1_000).contains(at)).count();
                prop_assert!(within <= 2 * rate as usize + 1, "{within}");
            }
        }

        #[test]
        fn who_waits_as_told_is_admitted(rate in 0.01..2_000.0f64) {
            let mut limit = Rate::per_second(Some(rate));
            let mut now = 5_000_000;
            for _ in 0..50 {
                if let Err(from) = limit.admit(now) {
                    prop_assert!(from > now);
                    now = from;
                    prop_assert_eq!(limit.admit(now), Ok(()));
                }
            }
        }
    }

    #[test]
    fn without_a_rate_all_are_admitted() {
        let mut limit = Rate::per_second(None);
        assert!((0..10_000).all(|_| limit.admit(7).is_ok()));
    }
}
