//! Ids seen a short while ago, for the removal of duplicates.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::time::{Duration, Instant};

/// Makes the digest under which an id of a channel is remembered: 128 bits under two secret keys, so that neither chance
/// nor intent makes two ids look alike, and an entry costs the same however long the names are.
#[derive(Debug, Default)]
pub(crate) struct IdDigest {
    low: RandomState,
    high: RandomState,
}

impl IdDigest {
    pub(crate) fn of(&self, channel: &str, id: &str) -> u128 {
        let low = self.low.hash_one((channel, id));
        let high = self.high.hash_one((channel, id));
        (u128::from(high) << 64) | u128::from(low)
    }
}

/// The ids seen within the last while, in one part of the channel map.
#[derive(Debug, Default)]
pub(crate) struct SeenIds {
    digests: HashSet<u128, BuildHasherDefault<Folded>>,
    by_age: VecDeque<(Instant, u128)>,
}

impl SeenIds {
    /// Remembers an id; false when it was known already. A second sight does not prolong the first.
    pub(crate) fn insert(&mut self, now: Instant, digest: u128) -> bool {
        let new = self.digests.insert(digest);
        if new {
            self.by_age.push_back((now, digest));
        }
        new
    }

    /// Forgets ids that are `ttl` old, and tells how many, at most `budget`.
    pub(crate) fn expire(&mut self, now: Instant, ttl: Duration, budget: usize) -> usize {
        let mut gone = 0;
        while gone < budget && self.next(ttl).is_some_and(|at| at <= now) && self.drop_oldest() {
            gone += 1;
        }
        gone
    }

    /// Forgets the oldest id; false when there is none.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        let Some((_, digest)) = self.by_age.pop_front() else { return false };
        self.digests.remove(&digest);
        if self.by_age.capacity() > 1_024 && self.by_age.len() < self.by_age.capacity() / 4 {
            let room = self.by_age.len() * 2;
            self.by_age.shrink_to(room);
            self.digests.shrink_to(room);
        }
        true
    }

    pub(crate) fn next(&self, ttl: Duration) -> Option<Instant> {
        self.by_age.front().and_then(|(at, _)| at.checked_add(ttl))
    }
}

/// Takes the low half of a digest as its hash, because it is one already.
#[derive(Debug, Default)]
struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, digest: u128) {
        let bytes = (digest & u128::from(u64::MAX)).to_le_bytes();
        let [a, b, c, d, e, f, g, h, ..] = bytes;
        self.0 = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    }
}
