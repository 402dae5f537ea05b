//! Compression and decompression of messages (RFC 7692 section 7.2).
//!
//! A [`Compressor`] costs 90 to 310 KB, so connections do not own one: a shard keeps a few in [`Compressors`] and
//! every message it compresses stands alone, which any peer can read whatever was negotiated. A [`Decompressor`] has
//! to follow its peer's window and belongs to one connection, from the first compressed byte to the end of the
//! message when the peer keeps no context.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::negotiate::{WINDOW_BITS_MAX, WINDOW_BITS_MIN};

/// Messages below this many bytes are sent uncompressed: the gain is small and the work is not.
pub const COMPRESS_FROM: usize = 200;

/// The end of each compressed message, which is left out on the wire (section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// Room that one step of output begins with.
const OUTPUT_STEP: usize = 4096;

/// Why a compressed message could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InflateError {
    /// The bytes are not DEFLATE, or refer to more window than was kept.
    #[error("compressed message cannot be decompressed")]
    Corrupt,
    /// The message is larger than allowed once decompressed.
    #[error("message exceeds {limit} bytes once decompressed")]
    TooLarge {
        /// The limit that was crossed, in bytes.
        limit: u64,
    },
}

/// Compresses messages with one window size.
#[derive(Debug)]
pub struct Compressor {
    deflate: Compress,
    context_takeover: bool,
}

impl Compressor {
    /// A compressor with a window of `window_bits`; `None` when that is outside 9 to 15. With `context_takeover` a
    /// message may refer to the ones before it, and each must then reach the peer.
    #[must_use]
    pub fn new(window_bits: u8, level: Compression, context_takeover: bool) -> Option<Self> {
        if !(WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&window_bits) {
            return None;
        }
        Some(Self { deflate: Compress::new_with_window_bits(level, false, window_bits), context_takeover })
    }

    /// Appends the compressed form of `message` to `out`. False, with `out` as it was, if the compressor failed;
    /// the caller then sends the message as it is.
    pub fn compress(&mut self, message: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        if message.is_empty() {
            // One empty block, written down because a compressor has nothing to flush twice in a row (7.2.3.6).
            out.push(0);
            return true;
        }
        let done = self.deflate_into(message, out);
        if !self.context_takeover || !done {
            self.deflate.reset();
        }
        if !done || !out.get(start..).is_some_and(|written| written.ends_with(&TAIL)) {
            out.truncate(start);
            return false;
        }
        out.truncate(out.len() - TAIL.len());
        true
    }

    fn deflate_into(&mut self, message: &[u8], out: &mut Vec<u8>) -> bool {
        out.reserve(message.len() / 2 + 64);
        let before = self.deflate.total_in();
        loop {
            let consumed = usize::try_from(self.deflate.total_in() - before).unwrap_or(usize::MAX);
            let rest = message.get(consumed..).unwrap_or_default();
            if self.deflate.compress_vec(rest, out, FlushCompress::Sync).is_err() {
                return false;
            }
            let consumed = usize::try_from(self.deflate.total_in() - before).unwrap_or(usize::MAX);
            // Room left over means that the flush is complete.
            if consumed >= message.len() && out.len() < out.capacity() {
                return true;
            }
            out.reserve(OUTPUT_STEP);
        }
    }
}

/// One compressor per window size, made when first needed: what a shard keeps for all its connections.
#[derive(Debug)]
pub struct Compressors {
    level: Compression,
    by_bits: [Option<Box<Compressor>>; (WINDOW_BITS_MAX - WINDOW_BITS_MIN + 1) as usize],
}

impl Compressors {
    /// An empty set that compresses at `level` (0 to 9; 6 is what browsers and servers commonly use).
    #[must_use]
    pub fn new(level: u32) -> Self {
        Self { level: Compression::new(level.min(9)), by_bits: Default::default() }
    }

    /// The compressor for a window of `bits`, without context takeover; `None` when no compressor has that window.
    pub fn for_window(&mut self, bits: u8) -> Option<&mut Compressor> {
        let slot = self.by_bits.get_mut(usize::from(bits.checked_sub(WINDOW_BITS_MIN)?))?;
        if slot.is_none() {
            *slot = Compressor::new(bits, self.level, false).map(Box::new);
        }
        slot.as_deref_mut()
    }
}

impl Default for Compressors {
    fn default() -> Self {
        Self::new(6)
    }
}

/// Decompresses the messages of one peer.
#[derive(Debug)]
pub struct Decompressor {
    inflate: Decompress,
}

impl Decompressor {
    /// A decompressor for a peer that compresses with at most `window_bits`.
    #[must_use]
    pub fn new(window_bits: u8) -> Self {
        let window_bits = window_bits.clamp(WINDOW_BITS_MIN, WINDOW_BITS_MAX);
        Self { inflate: Decompress::new_with_window_bits(false, window_bits) }
    }

    /// Appends what the next piece of a message holds to `out`, which may grow by `room` bytes at most.
    ///
    /// # Errors
    /// The bytes are corrupt, or hold more than `room` bytes; `limit` is what the error then names.
    pub fn decompress(
        &mut self,
        mut piece: &[u8],
        room: u64,
        limit: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), InflateError> {
        let start = out.len();
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let mut step = OUTPUT_STEP.min(piece.len().saturating_mul(4).max(64));
        loop {
            // One byte of room beyond the limit tells a message that fits from one that does not.
            let left = room.saturating_add(1).saturating_sub(out.len() - start);
            let filled = out.len();
            out.resize(filled.saturating_add(step.min(left)), 0);
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let target = out.get_mut(filled..).unwrap_or_default();
            let target_len = target.len();
            let status = self.inflate.decompress(piece, target, FlushDecompress::Sync);
            let consumed = usize::try_from(self.inflate.total_in() - before_in).unwrap_or(usize::MAX);
            let produced = usize::try_from(self.inflate.total_out() - before_out).unwrap_or(usize::MAX);
            out.truncate(filled.saturating_add(produced));
            piece = piece.get(consumed..).unwrap_or_default();
            if out.len() - start > room {
                return Err(InflateError::TooLarge { limit });
            }
            match status {
                Err(_) => return Err(InflateError::Corrupt),
                // A final block ends the stream but not the message (7.2.3.4). The window is lost with it; senders
                // that close their stream begin anew as well.
                Ok(Status::StreamEnd) => {
                    self.inflate.reset(false);
                    if piece.is_empty() {
                        return Ok(());
                    }
                }
                Ok(Status::Ok | Status::BufError) => {
                    if piece.is_empty() && produced < target_len {
                        return Ok(());
                    }
                    if consumed == 0 && produced == 0 {
                        return Err(InflateError::Corrupt);
                    }
                }
            }
            step = step.saturating_mul(2).min(256 * 1024);
        }
    }

    /// Ends the message: puts back the tail the sender left out.
    ///
    /// # Errors
    /// As for [`Self::decompress`].
    pub fn finish(&mut self, room: u64, limit: u64, out: &mut Vec<u8>) -> Result<(), InflateError> {
        self.decompress(&TAIL, room, limit, out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inflated(decompressor: &mut Decompressor, compressed: &[u8], limit: u64) -> Result<Vec<u8>, InflateError> {
        let mut out = Vec::new();
        decompressor.decompress(compressed, limit, limit, &mut out)?;
        let left = limit - out.len() as u64;
        decompressor.finish(left, limit, &mut out)?;
        Ok(out)
    }

    #[test]
    fn the_examples_of_the_standard_are_read() {
        // RFC 7692 section 7.2.3: fixed Huffman, shared window, stored block, final block, two blocks.
        let mut keeping = Decompressor::new(15);
        let mut check = |compressed: &[u8]| {
            assert_eq!(inflated(&mut keeping, compressed, 100).as_deref(), Ok(&b"Hello"[..]), "{compressed:02x?}");
        };
        check(b"\xf2\x48\xcd\xc9\xc9\x07\x00");
        check(b"\xf2\x00\x11\x00\x00");
        check(b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00");
        check(b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00");
        check(b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00");
    }

    #[test]
    fn an_empty_message_is_one_zero_byte() {
        let mut compressor = Compressor::new(15, Compression::new(6), true).unwrap();
        let mut decompressor = Decompressor::new(15);
        for message in [&b"abc"[..], b"", b"", b"abc"] {
            let mut out = Vec::new();
            assert!(compressor.compress(message, &mut out));
            if message.is_empty() {
                assert_eq!(out, [0]);
            }
            assert_eq!(inflated(&mut decompressor, &out, 10).as_deref(), Ok(message));
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let mut compressor = Compressor::new(15, Compression::new(9), false).unwrap();
        let mut bomb = Vec::new();
        assert!(compressor.compress(&vec![0; 100_000], &mut bomb));
        assert!(bomb.len() < 150, "{} bytes", bomb.len());
        let mut out = Vec::new();
        let result = Decompressor::new(15).decompress(&bomb, 5000, 5000, &mut out);
        assert_eq!(result, Err(InflateError::TooLarge { limit: 5000 }));
        assert!(out.len() <= 5001 && out.capacity() < 20_000, "{} of {}", out.len(), out.capacity());
        assert_eq!(inflated(&mut Decompressor::new(15), &bomb, 100_000).map(|out| out.len()), Ok(100_000));
        let one_less = inflated(&mut Decompressor::new(15), &bomb, 99_999);
        assert_eq!(one_less, Err(InflateError::TooLarge { limit: 99_999 }));
    }

    proptest! {
        #[test]
        fn messages_come_back_with_every_window(
            messages in prop::collection::vec(("[ab]{0,40}", 1usize..400), 1..5),
            bits in WINDOW_BITS_MIN..=WINDOW_BITS_MAX, takeover: bool, level in 0u32..=9, cut: usize,
        ) {
            let mut compressor = Compressor::new(bits, Compression::new(level), takeover).unwrap();
            let mut keeping = Decompressor::new(bits);
            for (text, times) in messages {
                let message = text.repeat(times).into_bytes();
                let mut compressed = Vec::new();
                prop_assert!(compressor.compress(&message, &mut compressed));
                let limit = message.len() as u64;
                let (first, second) = compressed.split_at(cut % (compressed.len() + 1));
                let mut out = Vec::new();
                keeping.decompress(first, limit, limit, &mut out).unwrap();
                keeping.decompress(second, limit - out.len() as u64, limit, &mut out).unwrap();
                keeping.finish(limit - out.len() as u64, limit, &mut out).unwrap();
                prop_assert_eq!(&out, &message);
                if !takeover {
                    prop_assert_eq!(inflated(&mut Decompressor::new(bits), &compressed, limit).unwrap(), message);
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused_within_the_limit(pieces: Vec<Vec<u8>>) {
            let mut decompressor = Decompressor::new(15);
            let mut out = Vec::new();
            for piece in pieces {
                if decompressor.decompress(&piece, 1000 - out.len() as u64, 1000, &mut out).is_err() {
                    break;
                }
            }
            prop_assert!(out.len() <= 1001);
        }
    }
}
