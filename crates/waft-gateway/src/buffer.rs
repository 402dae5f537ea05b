//! Read buffers, lent by the shard to whatever is being worked on.

use std::cell::{Cell, RefCell};

/// Bytes that were read and not yet used.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffer {
    /// All of it is initialised; `start..end` is unread.
    data: Vec<u8>,
    start: usize,
    end: usize,
}

/// What a buffer has at first: most requests and answers fit.
const SMALL: usize = 16 << 10;
/// What it grows to once a body has filled it: fewer system calls for each megabyte.
const LARGE: usize = 256 << 10;
/// Small buffers a shard keeps for the next connection.
const KEPT: usize = 256;
/// Large buffers that may be in use on a shard at once; a body beyond that makes do with a small one.
const LARGE_IN_USE_MAX: usize = 128;

impl ReadBuffer {
    /// A buffer that holds `data` already.
    pub(crate) fn holding(data: &[u8]) -> Self {
        Self { data: data.to_vec(), start: 0, end: data.len() }
    }

    /// What was read and not yet used.
    pub(crate) fn unread(&self) -> &[u8] {
        self.data.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether nothing is left to use.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Marks the first `count` unread bytes as used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room to read into, after moving what is unread to the front. Grows while the unread bytes
    /// fill it, up to `max`; empty when there is no more room.
    pub(crate) fn room(&mut self, buffers: &Buffers, max: usize) -> &mut [u8] {
        if self.data.len() < SMALL {
            let mut fresh = buffers.lend();
            let unread = self.unread();
            let kept = unread.len();
            if let Some(front) = fresh.get_mut(..kept) {
                front.copy_from_slice(unread);
            } else {
                fresh = unread.to_vec();
                fresh.resize(kept + SMALL, 0);
            }
            self.data = fresh;
            self.start = 0;
            self.end = kept;
        }
        if self.start > 0 && self.end == self.data.len() {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.data.len() && self.data.len() < max {
            let grown = (self.data.len() * 2).min(max);
            self.data.resize(grown, 0);
        }
        self.data.get_mut(self.end..).unwrap_or_default()
    }

    /// Says that `count` bytes of the room were filled.
    pub(crate) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.data.len());
    }

    /// Whether the last read filled all the room there was.
    pub(crate) fn is_full(&self) -> bool {
        !self.data.is_empty() && self.end == self.data.len()
    }

    /// Swaps an empty small buffer for a large one, if the shard still has one to lend.
    pub(crate) fn enlarge(&mut self, buffers: &Buffers) {
        if self.is_empty() && self.data.len() < LARGE && buffers.lend_large() {
            buffers.take_back(std::mem::take(&mut self.data));
            self.data = vec![0; LARGE];
        }
    }

    /// Gives the memory back to the shard. What is unread is lost.
    pub(crate) fn release(&mut self, buffers: &Buffers) {
        let data = std::mem::take(&mut self.data);
        self.start = 0;
        self.end = 0;
        if data.len() >= LARGE {
            buffers.return_large();
        } else {
            buffers.take_back(data);
        }
    }

    /// What is unread, as its own allocation; the memory goes back to the shard.
    pub(crate) fn take_unread(&mut self, buffers: &Buffers) -> Option<Box<[u8]>> {
        let unread = (!self.is_empty()).then(|| self.unread().into());
        self.release(buffers);
        unread
    }
}

/// The buffers of one shard that nobody uses right now.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    small: RefCell<Vec<Vec<u8>>>,
    /// The fewest that lay here at any time since the last sweep.
    unused: Cell<usize>,
    large_in_use: Cell<usize>,
}

impl Buffers {
    fn lend(&self) -> Vec<u8> {
        let mut small = self.small.borrow_mut();
        let lent = small.pop().unwrap_or_else(|| vec![0; SMALL]);
        self.unused.set(self.unused.get().min(small.len()));
        lent
    }

    fn take_back(&self, buffer: Vec<u8>) {
        let mut small = self.small.borrow_mut();
        if buffer.len() == SMALL && small.len() < KEPT {
            small.push(buffer);
        }
    }

    /// Gives what nobody has used since the last sweep back to the system.
    pub(crate) fn sweep(&self) {
        let mut small = self.small.borrow_mut();
        let unused = self.unused.replace(small.len()).min(small.len());
        let rest = small.len() - unused;
        small.truncate(rest);
        self.unused.set(rest);
    }

    fn lend_large(&self) -> bool {
        let free = self.large_in_use.get() < LARGE_IN_USE_MAX;
        if free {
            self.large_in_use.set(self.large_in_use.get() + 1);
        }
        free
    }

    fn return_large(&self) {
        self.large_in_use.set(self.large_in_use.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_bytes_survive_moving_and_growing() {
        let buffers = Buffers::default();
        let mut buffer = ReadBuffer::holding(b"abc");
        buffer.consume(1);
        let room = buffer.room(&buffers, 64 << 10);
        room[..2].copy_from_slice(b"de");
        buffer.filled(2);
        assert_eq!(buffer.unread(), b"bcde");
        let rest = buffer.room(&buffers, SMALL).len();
        buffer.filled(rest);
        assert!(buffer.is_full());
        assert!(buffer.room(&buffers, SMALL).is_empty());
        assert!(!buffer.room(&buffers, 2 * SMALL).is_empty());
        assert_eq!(&buffer.unread()[..4], b"bcde");
    }

    #[test]
    fn only_so_many_large_buffers_are_lent() {
        let buffers = Buffers::default();
        let mut lent: Vec<_> = (0..=LARGE_IN_USE_MAX).map(|_| ReadBuffer::default()).collect();
        for buffer in &mut lent {
            buffer.room(&buffers, SMALL);
            buffer.enlarge(&buffers);
        }
        assert_eq!(lent.iter().filter(|buffer| buffer.data.len() == LARGE).count(), LARGE_IN_USE_MAX);
        for mut buffer in lent {
            buffer.release(&buffers);
        }
        assert_eq!(buffers.large_in_use.get(), 0);
    }
}
