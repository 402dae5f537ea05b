//! All messages by their number, in little memory.
//!
//! Numbers come in ascending order and go from both ends, so messages lie in pieces, each a sorted vector. A tree with an
//! entry a message has nodes that are half empty when keys ascend; here every piece but the last is full.

use std::collections::BTreeMap;

use super::Message;

/// Messages of one piece: 8 KiB, so that moving those behind a gap costs a fraction of a microsecond.
const PIECE: usize = 128;

/// Messages by number.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// Each by a number that none of its messages is below, and those of the piece before are.
    pieces: BTreeMap<u64, Vec<Entry>>,
    count: usize,
}

#[derive(Debug)]
struct Entry {
    seq: u64,
    message: Message,
}

const _: () = assert!(size_of::<Entry>() <= 64);

impl Messages {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The message of a number.
    pub(super) fn get(&self, seq: u64) -> Option<&Message> {
        let (_, piece) = self.pieces.range(..=seq).next_back()?;
        let at = place(piece, seq).ok()?;
        piece.get(at).map(|entry| &entry.message)
    }

    /// The message of a number, to be changed.
    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut Message> {
        let (_, piece) = self.pieces.range_mut(..=seq).next_back()?;
        let at = place(piece, seq).ok()?;
        piece.get_mut(at).map(|entry| &mut entry.message)
    }

    /// Puts a message in, in the place of one with the same number.
    pub(super) fn insert(&mut self, seq: u64, message: Message) {
        let entry = Entry { seq, message };
        let Some((_, piece)) = self.pieces.range_mut(..=seq).next_back() else {
            self.count += 1;
            self.pieces.insert(seq, vec![entry]);
            return;
        };
        match place(piece, seq) {
            Ok(at) => {
                if let Some(known) = piece.get_mut(at) {
                    *known = entry;
                }
            }
            Err(at) => {
                self.count += 1;
                if piece.len() < PIECE {
                    piece.insert(at, entry);
                    return;
                }
                // The rest becomes a piece of its own; for the newest message there is none.
                let rest = piece.split_off(at);
                if let Some(first) = rest.first().map(|entry| entry.seq) {
                    piece.push(entry);
                    self.pieces.insert(first, rest);
                } else {
                    self.pieces.insert(seq, vec![entry]);
                }
            }
        }
    }

    /// Takes a message out.
    pub(super) fn remove(&mut self, seq: u64) -> Option<Message> {
        let (key, piece) = self.pieces.range_mut(..=seq).next_back()?;
        let at = place(piece, seq).ok()?;
        let entry = piece.remove(at);
        self.count -= 1;
        if piece.is_empty() {
            let key = *key;
            self.pieces.remove(&key);
        } else if piece.len() < piece.capacity() / 4 {
            piece.shrink_to(piece.len() * 2);
        }
        Some(entry.message)
    }

    /// The lowest number.
    pub(super) fn first(&self) -> Option<u64> {
        self.pieces.values().next()?.first().map(|entry| entry.seq)
    }

    /// All, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Message)> {
        self.pieces.values().flatten().map(|entry| (entry.seq, &entry.message))
    }

    /// All, the oldest first, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Message)> {
        self.pieces.values_mut().flatten().map(|entry| (entry.seq, &mut entry.message))
    }

    /// Those from `since` on and before `end`, the newest first.
    pub(super) fn newest_first(&self, since: u64, end: u64) -> impl Iterator<Item = (u64, &Message)> {
        let pieces = self.pieces.range(..end).rev();
        pieces
            .flat_map(|(_, piece)| piece.iter().rev())
            .skip_while(move |entry| entry.seq >= end)
            .take_while(move |entry| entry.seq >= since)
            .map(|entry| (entry.seq, &entry.message))
    }
}

fn place(piece: &[Entry], seq: u64) -> Result<usize, usize> {
    piece.binary_search_by_key(&seq, |entry| entry.seq)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use waft_store::Place;

    use super::*;

    fn message(app: u32) -> Message {
        let place = Place { segment: 1, offset: 0, length: 1 };
        Message { place, app, order: 0, deliveries: Vec::new().into(), attempts: Default::default() }
    }

    fn apps<'a>(messages: impl Iterator<Item = (u64, &'a Message)>) -> Vec<(u64, u32)> {
        messages.map(|(seq, message)| (seq, message.app)).collect()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u64),
        PutNext,
        Remove(u64),
        RemoveFirst,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => (0u64..900).prop_map(Step::Put),
            4 => Just(Step::PutNext),
            1 => (0u64..900).prop_map(Step::Remove),
            1 => Just(Step::RemoveFirst),
        ]
    }

    proptest! {
        #[test]
        fn it_is_what_a_tree_would_be(
            steps in proptest::collection::vec(step(), 1..700), since in 0u64..900, end in 0u64..900,
        ) {
            let (mut messages, mut expected, mut next) = (Messages::default(), BTreeMap::new(), 300);
            for (number, step) in steps.into_iter().enumerate() {
                let seq = match step {
                    Step::PutNext => {
                        next += 1;
                        next
                    }
                    Step::Put(seq) | Step::Remove(seq) => seq,
                    Step::RemoveFirst => messages.first().unwrap_or(0),
                };
                match step {
                    Step::Put(_) | Step::PutNext => {
                        messages.insert(seq, message(number as u32));
                        expected.insert(seq, number as u32);
                    }
                    Step::Remove(_) | Step::RemoveFirst => {
                        prop_assert_eq!(messages.remove(seq).map(|message| message.app), expected.remove(&seq));
                    }
                }
                prop_assert_eq!(messages.get(seq).map(|message| message.app), expected.get(&seq).copied());
                prop_assert_eq!(messages.get_mut(seq + 1).map(|message| message.app), expected.get(&(seq + 1)).copied());
            }
            prop_assert_eq!(messages.len(), expected.len());
            let all: Vec<_> = expected.iter().map(|(seq, app)| (*seq, *app)).collect();
            prop_assert_eq!(&apps(messages.iter()), &all);
            let part: Vec<_> = all.into_iter().rev().filter(|(seq, _)| (since..end).contains(seq)).collect();
            prop_assert_eq!(apps(messages.newest_first(since, end)), part);
        }
    }

    #[test]
    fn pieces_are_full_when_numbers_ascend_and_go_when_they_are_empty() {
        let mut messages = Messages::default();
        (0..1_000).for_each(|seq| messages.insert(seq, message(0)));
        assert_eq!(messages.pieces.len(), 1_000_usize.div_ceil(PIECE));
        (0..1_000).for_each(|seq| drop(messages.remove(seq)));
        assert!(messages.pieces.is_empty());
    }
}
