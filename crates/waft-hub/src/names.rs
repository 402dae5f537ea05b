//! From a hash to the place of the channel that has it.

/// An open-addressed table of places. It holds no names, which stand at the places: eight bytes an entry, where a map from
/// shared names to places takes four times that.
#[derive(Debug)]
pub(crate) struct NameTable {
    buckets: Vec<Bucket>,
    len: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Bucket {
    hash: u32,
    place: u32,
}

impl NameTable {
    pub(crate) const fn new() -> Self {
        Self { buckets: Vec::new(), len: 0 }
    }

    /// The place with this hash for which `is_it` says yes.
    pub(crate) fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let found = self.search(hash, |bucket| bucket.hash == hash && is_it(bucket.place))?;
        self.buckets.get(found).map(|bucket| bucket.place)
    }

    /// Adds a place, which must not be in here.
    pub(crate) fn insert(&mut self, hash: u32, place: u32) {
        if (self.len + 1) * 4 > self.buckets.len() * 3 {
            self.resize((self.buckets.len() * 2).max(8));
        }
        self.len += 1;
        self.put(Bucket { hash, place });
    }

    pub(crate) fn remove(&mut self, hash: u32, place: u32) {
        let Some(mut hole) = self.search(hash, |bucket| bucket.place == place) else { return };
        self.len -= 1;
        // Those behind the hole move up as long as they do not pass their home, so that no search ends early.
        let mask = self.buckets.len() - 1;
        let mut next = hole;
        loop {
            next = (next + 1) & mask;
            let bucket = self.buckets.get(next).copied().unwrap_or(EMPTY);
            if bucket == EMPTY {
                break;
            }
            let from_home = next.wrapping_sub(bucket.hash as usize) & mask;
            let from_hole = next.wrapping_sub(hole) & mask;
            if from_home >= from_hole {
                self.set(hole, bucket);
                hole = next;
            }
        }
        self.set(hole, EMPTY);
        if self.buckets.len() > 64 && self.len < self.buckets.len() / 8 {
            self.resize(self.buckets.len() / 4);
        }
    }

    /// The bucket that `is_it` accepts, on the way from the home of `hash` to the first empty bucket.
    fn search(&self, hash: u32, mut is_it: impl FnMut(Bucket) -> bool) -> Option<usize> {
        let mask = self.buckets.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        loop {
            let bucket = *self.buckets.get(at)?;
            if bucket == EMPTY {
                return None;
            }
            if is_it(bucket) {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
    }

    /// Puts a bucket into the first empty place; at least a quarter is always empty.
    fn put(&mut self, bucket: Bucket) {
        let mask = self.buckets.len() - 1;
        let mut at = bucket.hash as usize & mask;
        while self.buckets.get(at).is_some_and(|taken| *taken != EMPTY) {
            at = (at + 1) & mask;
        }
        self.set(at, bucket);
    }

    fn set(&mut self, at: usize, bucket: Bucket) {
        if let Some(place) = self.buckets.get_mut(at) {
            *place = bucket;
        }
    }

    /// `size` is a power of two.
    fn resize(&mut self, size: usize) {
        let old = std::mem::replace(&mut self.buckets, vec![EMPTY; size]);
        for bucket in old {
            if bucket != EMPTY {
                self.put(bucket);
            }
        }
    }
}

/// No channel stands at this place.
const EMPTY: Bucket = Bucket { hash: u32::MAX, place: u32::MAX };

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_emptied_table_gives_its_memory_back() {
        let mut table = NameTable::new();
        for place in 0..10_000_u32 {
            table.insert(place.wrapping_mul(0x9e37_79b9), place);
        }
        for place in 0..10_000_u32 {
            table.remove(place.wrapping_mul(0x9e37_79b9), place);
        }
        assert!(table.buckets.len() <= 64, "{}", table.buckets.len());
    }

    proptest! {
        #[test]
        fn what_is_in_is_found_however_hashes_collide(
            steps in prop::collection::vec((any::<bool>(), 0_u32..64), 0..300),
        ) {
            // Few hashes, close together and at the end of their range: long runs that wrap round.
            let hash_of = |place: u32| u32::MAX - (place % 5);
            let mut table = NameTable::new();
            let mut model = BTreeSet::new();
            for (add, place) in steps {
                if add && model.insert(place) {
                    table.insert(hash_of(place), place);
                } else if !add {
                    model.remove(&place);
                    table.remove(hash_of(place), place);
                }
                prop_assert_eq!(table.len, model.len());
                for place in 0..64 {
                    let found = table.find(hash_of(place), |found| found == place);
                    prop_assert_eq!(found, model.contains(&place).then_some(place));
                }
            }
        }
    }
}
