//! A breaker for each host: who does not answer is asked rarely until it does.

/// Failures in a row after which a host is asked rarely. An endpoint that fails alone has its own schedule; this is for
/// hosts that are down.
const FAILURES_MAX: u32 = 5;

/// The first pause, in milliseconds.
const PAUSE_MIN: u64 = 1_000;

/// The longest pause, in milliseconds.
const PAUSE_MAX: u64 = 60_000;

/// What is known of a host. Times are Unix milliseconds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Breaker {
    failures: u32,
    /// While it is open: when it may be asked again, and how long the pause was.
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Open {
    until: u64,
    pause: u64,
    /// One delivery finds out whether it is back.
    probing: bool,
}

/// Whether a host may be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    /// Yes.
    Open,
    /// Not before this time.
    NotBefore(u64),
    /// Not before the delivery that tries it out has ended.
    Probing,
}

impl Breaker {
    /// Whether the host may be asked now. Whoever is admitted has to ask, and to tell what came of it.
    pub(super) fn admit(&mut self, now: u64) -> Admission {
        match &mut self.open {
            None => Admission::Open,
            Some(open) if open.probing => Admission::Probing,
            Some(open) if now < open.until => Admission::NotBefore(open.until),
            Some(open) => {
                open.probing = true;
                Admission::Open
            }
        }
    }

    /// The host has answered.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The host could not be reached, did not answer, or said that it is out of order. Says whether it is asked rarely
    /// from now on and was not before.
    pub(super) fn failed(&mut self, now: u64) -> bool {
        self.failures = self.failures.saturating_add(1);
        match &mut self.open {
            Some(open) if open.probing || now >= open.until => {
                let pause = (open.pause * 2).min(PAUSE_MAX);
                *open = Open { until: now + pause, pause, probing: false };
                false
            }
            // A call that began before it was opened.
            Some(_) => false,
            None if self.failures >= FAILURES_MAX => {
                self.open = Some(Open { until: now + PAUSE_MIN, pause: PAUSE_MIN, probing: false });
                true
            }
            None => false,
        }
    }

    /// The probe ended without saying anything about the host.
    pub(super) fn undecided(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = false;
        }
    }

    /// Whether the host is asked rarely.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_host_is_asked_rarely_and_one_that_is_back_at_once() {
        let mut breaker = Breaker::default();
        for n in 1..=FAILURES_MAX {
            assert_eq!(breaker.admit(0), Admission::Open);
            assert_eq!(breaker.failed(0), n == FAILURES_MAX);
        }
        assert_eq!(breaker.admit(999), Admission::NotBefore(1_000));
        assert_eq!(breaker.admit(1_000), Admission::Open);
        assert_eq!(breaker.admit(1_000), Admission::Probing);
        assert!(!breaker.failed(1_100));
        assert_eq!(breaker.admit(1_200), Admission::NotBefore(3_100));
        assert_eq!(breaker.admit(3_100), Admission::Open);
        breaker.undecided();
        assert_eq!(breaker.admit(3_100), Admission::Open);
        breaker.succeeded();
        assert!(!breaker.is_open());
    }

    #[test]
    fn pauses_grow_to_their_limit() {
        let (mut breaker, mut now, mut asked) = (Breaker::default(), 0, 0);
        while now < 86_400_000 {
            match breaker.admit(now) {
                Admission::Open => {
                    asked += 1;
                    breaker.failed(now);
                }
                Admission::NotBefore(until) => now = until,
                Admission::Probing => unreachable!("each probe is told of at once"),
            }
        }
        assert!((1_440..1_460).contains(&asked), "{asked} questions a day");
    }
}
