//! A message framed once for every receiver (RFC 6455 section 5, RFC 7692 section 7).

use std::sync::OnceLock;

use bytes::Bytes;

use crate::deflate::{COMPRESS_FROM, Compressors};
use crate::frame::{self, HEADER_MAX, Header, Opcode};
use crate::negotiate::{Params, WINDOW_BITS_MAX, WINDOW_BITS_MIN};

const WINDOWS: usize = (WINDOW_BITS_MAX - WINDOW_BITS_MIN + 1) as usize;

/// One message for many clients: framed once plain, and at most once per window size compressed.
///
/// Threads may share it; the first that needs a form makes it.
#[derive(Debug)]
pub struct Message {
    opcode: Opcode,
    content_len: usize,
    plain: Bytes,
    /// By window size. `None` inside means that compression did not pay.
    compressed: Option<Box<[OnceLock<Option<Bytes>>; WINDOWS]>>,
}

impl Message {
    /// One unmasked frame with FIN, as servers send it.
    #[must_use]
    pub fn shared(opcode: Opcode, content: &[u8]) -> Bytes {
        frame::encode(opcode, true, content, None)
    }

    /// Frames `content` as one message; compressed forms come later, when a receiver wants one.
    #[must_use]
    pub fn new(opcode: Opcode, content: &[u8]) -> Self {
        let worth_it = content.len() >= COMPRESS_FROM && !opcode.is_control();
        Self {
            opcode,
            content_len: content.len(),
            plain: Self::shared(opcode, content),
            compressed: worth_it.then(Box::default),
        }
    }

    /// The frame without compression.
    #[must_use]
    pub const fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// The content without its frame.
    #[must_use]
    pub fn content(&self) -> Bytes {
        self.plain.slice(self.plain.len() - self.content_len..)
    }

    /// The frame for a client that negotiated `params`: compressed when that was negotiated, the message is at least
    /// [`COMPRESS_FROM`] bytes, and the outcome is smaller. No form refers to earlier messages.
    pub fn frame_for(&self, params: Option<&Params>, compressors: &mut Compressors) -> &Bytes {
        let slot = params
            .and_then(|params| params.server_max_window_bits.checked_sub(WINDOW_BITS_MIN))
            .and_then(|index| self.compressed.as_ref()?.get(usize::from(index)).map(|slot| (index, slot)));
        let Some((index, slot)) = slot else { return &self.plain };
        slot.get_or_init(|| self.compress(WINDOW_BITS_MIN + index, compressors)).as_ref().unwrap_or(&self.plain)
    }

    fn compress(&self, window_bits: u8, compressors: &mut Compressors) -> Option<Bytes> {
        let compressor = compressors.for_window(window_bits)?;
        let (_, content) = self.plain.split_at_checked(self.plain.len() - self.content_len)?;
        // The header is written in front of the compressed bytes once their number is known, so they are not moved.
        let mut out = Vec::with_capacity(HEADER_MAX + self.content_len / 2 + 64);
        out.resize(HEADER_MAX, 0);
        if !compressor.compress(content, &mut out) {
            return None;
        }
        let len = out.len() - HEADER_MAX;
        let mut header = Vec::with_capacity(HEADER_MAX);
        Header { fin: true, rsv1: true, opcode: self.opcode, mask: None, len: len as u64 }.encode(&mut header);
        let start = HEADER_MAX - header.len();
        out.get_mut(start..HEADER_MAX)?.copy_from_slice(&header);
        let frame = Bytes::from(out).slice(start..);
        (frame.len() < self.plain.len()).then_some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deflate::Decompressor;
    use crate::frame::Expected;

    const PARAMS: Params = Params {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };

    #[test]
    fn a_large_message_is_compressed_once_per_window() {
        let mut compressors = Compressors::default();
        let content = b"the same words again and again ".repeat(40);
        let message = Message::new(Opcode::Text, &content);
        assert_eq!(message.content(), content);
        assert_eq!(message.frame_for(None, &mut compressors), message.plain());
        for bits in 9..=15 {
            let params = Params { server_max_window_bits: bits, ..PARAMS };
            let frame = message.frame_for(Some(&params), &mut compressors).clone();
            let again = message.frame_for(Some(&params), &mut compressors);
            assert_eq!(frame.as_ptr(), again.as_ptr(), "the same bytes are shared");
            let expected = Expected { masked: false, compression: true, in_message: false };
            let (header, len) = Header::decode(&frame, expected).unwrap().unwrap();
            assert!(header.fin && header.rsv1 && header.opcode == Opcode::Text);
            assert_eq!(header.len, (frame.len() - len) as u64);
            let mut out = Vec::new();
            let mut decompressor = Decompressor::new(bits);
            decompressor.decompress(&frame[len..], 2000, 2000, &mut out).unwrap();
            decompressor.finish(2000 - out.len() as u64, 2000, &mut out).unwrap();
            assert_eq!(out, content);
        }
    }

    #[test]
    fn what_would_not_gain_is_sent_plain() {
        let mut compressors = Compressors::default();
        let mut plain = |content: &[u8], params: Params| {
            let message = Message::new(Opcode::Binary, content);
            message.frame_for(Some(&params), &mut compressors) == message.plain()
        };
        assert!(plain(&[b'a'; 199], PARAMS));
        assert!(!plain(&[b'a'; 200], PARAMS));
        assert!(plain(&[b'a'; 200], Params { server_max_window_bits: 8, ..PARAMS }), "no compressor has that window");
        let mut seed = 1u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed.to_be_bytes()[0]
        })
        .take(300)
        .collect();
        assert!(plain(&noise, PARAMS));
    }
}
