//! A hashed timer wheel for the held set: one small entry a hold, no allocation to move a deadline.

use std::time::{Duration, Instant};

/// Length of one tick. Deadlines fire up to one tick late, never early.
const TICK: Duration = Duration::from_millis(100);
/// Slots on the wheel: about 102 seconds; later deadlines go round again.
const SLOTS: usize = 1024;

/// When a deadline falls, counted in ticks from the start of the wheel. Zero means none.
pub(crate) type Tick = u32;

/// Entries are not removed when a deadline moves or its owner ends. The owner keeps the tick that
/// counts, and an entry that comes up is compared with it: gone, moved, or due.
#[derive(Debug)]
pub(crate) struct Wheel {
    start: Instant,
    /// The last tick that was handed out.
    now: Tick,
    slots: Box<[Vec<u32>]>,
}

impl Wheel {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, now: 0, slots: vec![Vec::new(); SLOTS].into_boxed_slice() }
    }

    /// The tick by which `at` has surely passed.
    pub(crate) fn tick_of(&self, at: Instant) -> Tick {
        let since = at.saturating_duration_since(self.start).as_millis() / TICK.as_millis();
        Tick::try_from(since).unwrap_or(Tick::MAX - 1).saturating_add(1).max(self.now + 1)
    }

    /// Enters `index`; its turn comes when `tick` does, or earlier if it is further than one round.
    /// Returns the tick at which it comes up.
    pub(crate) fn enter(&mut self, index: u32, tick: Tick) -> Tick {
        let furthest = self.now.saturating_add(SLOTS as u32 - 1);
        let tick = tick.min(furthest);
        if let Some(slot) = self.slots.get_mut(tick as usize % SLOTS) {
            slot.push(index);
        }
        tick
    }

    /// Moves time on, and appends the entries whose turn has come to `out`.
    pub(crate) fn advance(&mut self, now: Instant, out: &mut Vec<u32>) {
        let since = now.saturating_duration_since(self.start).as_millis() / TICK.as_millis();
        let target = Tick::try_from(since).unwrap_or(Tick::MAX - 1);
        let steps = target.saturating_sub(self.now).min(SLOTS as u32);
        let first = target - steps;
        for tick in first + 1..=target {
            if let Some(slot) = self.slots.get_mut(tick as usize % SLOTS) {
                out.append(slot);
                if slot.capacity() > 64 {
                    slot.shrink_to(0);
                }
            }
        }
        self.now = self.now.max(target);
    }

    /// The last tick handed out.
    pub(crate) fn now(&self) -> Tick {
        self.now
    }

    pub(crate) const fn tick_length() -> Duration {
        TICK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_up_when_its_tick_does() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let tick = wheel.tick_of(start + Duration::from_millis(250));
        wheel.enter(7, tick);
        let mut out = Vec::new();
        wheel.advance(start + Duration::from_millis(250), &mut out);
        assert!(out.is_empty(), "never early");
        wheel.advance(start + Duration::from_millis(300), &mut out);
        assert_eq!(out, [7]);
    }

    #[test]
    fn a_far_entry_comes_up_within_a_round_to_be_entered_again() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let tick = wheel.tick_of(start + Duration::from_secs(1000));
        wheel.enter(1, tick);
        let mut out = Vec::new();
        wheel.advance(start + Duration::from_secs(110), &mut out);
        assert_eq!(out, [1]);
        assert!(tick > wheel.now());
    }

    #[test]
    fn a_jump_of_time_loses_nothing() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        for second in 0..90 {
            wheel.enter(second, wheel.tick_of(start + Duration::from_secs(u64::from(second))));
        }
        let mut out = Vec::new();
        wheel.advance(start + Duration::from_secs(4000), &mut out);
        out.sort_unstable();
        assert_eq!(out, (0..90).collect::<Vec<_>>());
    }
}
