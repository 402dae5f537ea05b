//! A slab whose memory goes back.

/// Values at stable places, in blocks that are freed when their last value is taken. A plain slab keeps its room for ever
/// after a crowd has left, and a growing vector holds up to twice what it needs.
#[derive(Debug)]
pub(crate) struct Chunks<T> {
    chunks: Vec<Chunk<T>>,
    /// Chunks with room, each once.
    open: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Chunk<T> {
    /// Without memory while nothing is in it.
    slots: Vec<Slot<T>>,
    used: u32,
    free: u32,
}

#[derive(Debug)]
enum Slot<T> {
    Free { next: u32 },
    Used(T),
}

impl<T> Chunks<T> {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), open: Vec::new(), len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Places are 32 bits wide: four thousand million values do not fit into the memory of a machine.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if self.open.is_empty() {
            self.open.push(self.chunks.len() as u32);
            self.chunks.push(Chunk { slots: Vec::new(), used: 0, free: NONE });
        }
        let place = self.open.last().copied().unwrap_or(0);
        let Some(chunk) = self.chunks.get_mut(place as usize) else { return NONE };
        let slot = chunk.insert(value);
        if chunk.used == CHUNK {
            self.open.pop();
        }
        place * CHUNK + slot
    }

    pub(crate) fn get(&self, place: u32) -> Option<&T> {
        match self.chunks.get((place / CHUNK) as usize)?.slots.get((place % CHUNK) as usize)? {
            Slot::Used(value) => Some(value),
            Slot::Free { .. } => None,
        }
    }

    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        match self.chunks.get_mut((place / CHUNK) as usize)?.slots.get_mut((place % CHUNK) as usize)? {
            Slot::Used(value) => Some(value),
            Slot::Free { .. } => None,
        }
    }

    pub(crate) fn remove(&mut self, place: u32) -> Option<T> {
        self.get(place)?;
        let chunk = self.chunks.get_mut((place / CHUNK) as usize)?;
        let slot = chunk.slots.get_mut((place % CHUNK) as usize)?;
        let taken = std::mem::replace(slot, Slot::Free { next: chunk.free });
        if chunk.used == CHUNK {
            self.open.push(place / CHUNK);
        }
        chunk.free = place % CHUNK;
        chunk.used -= 1;
        if chunk.used == 0 {
            chunk.slots = Vec::new();
            chunk.free = NONE;
        }
        self.len -= 1;
        match taken {
            Slot::Used(value) => Some(value),
            Slot::Free { .. } => None,
        }
    }
}

impl<T> Chunk<T> {
    fn insert(&mut self, value: T) -> u32 {
        self.used += 1;
        if let Some(slot) = self.slots.get_mut(self.free as usize)
            && let Slot::Free { next } = *slot
        {
            *slot = Slot::Used(value);
            return std::mem::replace(&mut self.free, next);
        }
        if self.slots.capacity() == 0 {
            self.slots.reserve_exact(CHUNK as usize);
        }
        self.slots.push(Slot::Used(value));
        self.slots.len() as u32 - 1
    }
}

/// Values in a chunk: few enough that a straggler keeps little, many enough that a chunk's own record does not count.
const CHUNK: u32 = 256;

const NONE: u32 = u32::MAX;

// A value with an impossible state pays nothing for the free list.
const _: () = assert!(size_of::<Slot<(u64, std::num::NonZeroU64)>>() == 16);

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_memory_of_a_crowd_goes_back_but_for_the_chunk_of_a_straggler() {
        let mut chunks = Chunks::new();
        let places: Vec<u32> = (0..10_000).map(|value| chunks.insert(value)).collect();
        let (straggler, crowd) = places.split_last().unwrap();
        for place in crowd {
            chunks.remove(*place);
        }
        assert_eq!(chunks.chunks.iter().filter(|chunk| chunk.slots.capacity() > 0).count(), 1);
        assert_eq!((chunks.get(*straggler), chunks.len()), (Some(&9_999), 1));
    }

    proptest! {
        #[test]
        fn values_stay_where_they_were_put(steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..2_000)) {
            let mut chunks = Chunks::new();
            let mut model: HashMap<u32, usize> = HashMap::new();
            let mut order = Vec::new();
            for (number, (add, which)) in steps.into_iter().enumerate() {
                if add || order.is_empty() {
                    let place = chunks.insert(number);
                    prop_assert_eq!(model.insert(place, number), None);
                    order.push(place);
                } else {
                    let place = order.swap_remove(which.index(order.len()));
                    prop_assert_eq!(chunks.remove(place), model.remove(&place));
                    prop_assert_eq!(chunks.remove(place), None);
                }
            }
            prop_assert_eq!(chunks.len(), model.len());
            for (place, value) in model {
                prop_assert_eq!(chunks.get(place), Some(&value));
                prop_assert_eq!(chunks.get_mut(place).copied(), Some(value));
            }
        }
    }
}
