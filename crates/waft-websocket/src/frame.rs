//! Frame headers, masking and whole frames (RFC 6455 section 5).
//!
//! [`Header::decode`] judges each byte as soon as it is there: a header that breaks a rule in its first byte is
//! refused before the second arrives, so that the same bytes are judged alike however they are split.

use bytes::Bytes;

use crate::close::Close;

/// The longest header: two bytes, eight of length, four of masking key.
pub const HEADER_MAX: usize = 14;
/// The most content a control frame carries.
pub const CONTROL_MAX: usize = 125;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_RSV3: u8 = 0x30;
const MASKED: u8 = 0x80;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// A further fragment of the message under way.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// The close handshake.
    Close = 0x8,
    /// Asks for a pong.
    Ping = 0x9,
    /// Answers a ping, or keeps the connection alive unasked.
    Pong = 0xa,
}

impl Opcode {
    /// The opcode with this number, unless it is reserved.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    /// Whether this is a control frame: short, never fragmented, allowed between fragments.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// A decoded frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether this frame ends its message.
    pub fin: bool,
    /// The first reserved bit: with permessage-deflate, "this message is compressed".
    pub rsv1: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The masking key; frames from clients have one, frames from servers have none.
    pub mask: Option<[u8; 4]>,
    /// Bytes of content that follow.
    pub len: u64,
}

/// What the receiving side expects of the next header.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Frames must be masked (the peer is a client) or must not be (it is a server).
    pub masked: bool,
    /// permessage-deflate was negotiated, so that RSV1 may be set on the first frame of a message.
    pub compression: bool,
    /// A fragmented message is under way: data frames must be continuations.
    pub in_message: bool,
}

/// A frame that breaks a rule of RFC 6455; the connection fails with 1002.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A continuation without a message under way (section 5.4).
    #[error("continuation frame without a message to continue")]
    ContinuationWithoutStart,
    /// A control frame without FIN (section 5.5).
    #[error("control frame is fragmented")]
    ControlFragmented,
    /// A control frame with more than 125 bytes (section 5.5).
    #[error("control frame announces more than 125 bytes")]
    ControlTooLong,
    /// A length not in its shortest form (section 5.2).
    #[error("frame length {len} is not in its shortest form")]
    LengthNotMinimal {
        /// The length as decoded.
        len: u64,
    },
    /// A length with its highest bit set (section 5.2).
    #[error("frame length has its highest bit set")]
    LengthOverflow,
    /// A masked frame from a server (section 5.1).
    #[error("server frame is masked")]
    Masked,
    /// A text or binary frame while a fragmented message is under way (section 5.4).
    #[error("new message begins inside a fragmented message")]
    MessageInterrupted,
    /// A reserved bit without an extension that defines it (section 5.2).
    #[error("reserved bits {bits:#04x} are set without an extension that defines them")]
    ReservedBits {
        /// The bits that are set, in their place in the first byte.
        bits: u8,
    },
    /// An opcode nobody defined (section 5.2).
    #[error("opcode {opcode:#x} is reserved")]
    ReservedOpcode {
        /// The number found.
        opcode: u8,
    },
    /// An unmasked frame from a client (section 5.1).
    #[error("client frame is not masked")]
    Unmasked,
}

impl Header {
    /// Reads a header from the start of `input`. `None` asks for more bytes; the number is the header's length.
    ///
    /// # Errors
    /// [`FrameError`] names the broken rule, at the earliest byte that breaks one.
    pub fn decode(input: &[u8], expected: Expected) -> Result<Option<(Self, usize)>, FrameError> {
        let Some((&first, rest)) = input.split_first() else { return Ok(None) };
        let opcode = check_first(first, expected)?;
        let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
        check_second(second, opcode, expected)?;
        let short = u64::from(second & 0x7f);
        let (len, rest) = match short {
            126 => {
                let Some((bytes, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*bytes)), rest)
            }
            127 => {
                // The highest bit is in the first of the eight bytes and is judged with it.
                if rest.first().is_some_and(|byte| byte & 0x80 != 0) {
                    return Err(FrameError::LengthOverflow);
                }
                let Some((bytes, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
                (u64::from_be_bytes(*bytes), rest)
            }
            len => (len, rest),
        };
        if (short == 126 && len < 126) || (short == 127 && len <= u64::from(u16::MAX)) {
            return Err(FrameError::LengthNotMinimal { len });
        }
        let (mask, rest) = if expected.masked {
            let Some((key, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
            (Some(*key), rest)
        } else {
            (None, rest)
        };
        let header = Self { fin: first & FIN != 0, rsv1: first & RSV1 != 0, opcode, mask, len };
        Ok(Some((header, input.len() - rest.len())))
    }

    /// Appends the header in its shortest form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let fin = if self.fin { FIN } else { 0 };
        let rsv1 = if self.rsv1 { RSV1 } else { 0 };
        out.push(fin | rsv1 | self.opcode as u8);
        let masked = if self.mask.is_some() { MASKED } else { 0 };
        if let Some(short) = u8::try_from(self.len).ok().filter(|short| *short < 126) {
            out.push(masked | short);
        } else if let Ok(medium) = u16::try_from(self.len) {
            out.push(masked | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        } else {
            out.push(masked | 127);
            out.extend_from_slice(&self.len.to_be_bytes());
        }
        if let Some(key) = self.mask {
            out.extend_from_slice(&key);
        }
    }
}

/// Masks or unmasks `content` in place; `offset` says how many bytes of the frame came before it.
pub fn apply_mask(content: &mut [u8], key: [u8; 4], offset: u64) {
    let mut key = key;
    // The remainder is below four, so the conversion cannot cut anything.
    key.rotate_left((offset % 4) as usize);
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (blocks, tail) = content.as_chunks_mut::<8>();
    for block in blocks {
        *block = (u64::from_ne_bytes(*block) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// One whole frame. `mask` is `Some` on the client side, with four unpredictable bytes (RFC 6455 section 5.3).
#[must_use]
pub fn encode(opcode: Opcode, fin: bool, content: &[u8], mask: Option<[u8; 4]>) -> Bytes {
    encode_with(Header { fin, rsv1: false, opcode, mask, len: content.len() as u64 }, content)
}

/// One whole frame with every header field chosen; `header.len` is taken from `content`.
#[must_use]
pub fn encode_with(mut header: Header, content: &[u8]) -> Bytes {
    header.len = content.len() as u64;
    let mut out = Vec::with_capacity(HEADER_MAX + content.len());
    header.encode(&mut out);
    let start = out.len();
    out.extend_from_slice(content);
    if let (Some(key), Some(content)) = (header.mask, out.get_mut(start..)) {
        apply_mask(content, key, 0);
    }
    out.into()
}

/// A close frame; without a [`Close`] it is empty and the peer sees 1005.
#[must_use]
pub fn encode_close(close: Option<&Close>, mask: Option<[u8; 4]>) -> Bytes {
    let content = close.map(Close::to_content).unwrap_or_default();
    encode(Opcode::Close, true, content.get(..CONTROL_MAX).unwrap_or(&content), mask)
}

fn check_first(first: u8, expected: Expected) -> Result<Opcode, FrameError> {
    let number = first & 0x0f;
    let Some(opcode) = Opcode::from_number(number) else {
        return Err(FrameError::ReservedOpcode { opcode: number });
    };
    let begins_message = matches!(opcode, Opcode::Text | Opcode::Binary);
    let defined = if expected.compression && begins_message { RSV1 } else { 0 };
    let bits = first & (RSV1 | RSV2_RSV3) & !defined;
    if bits != 0 {
        return Err(FrameError::ReservedBits { bits });
    }
    match opcode {
        _ if opcode.is_control() && first & FIN == 0 => Err(FrameError::ControlFragmented),
        Opcode::Continuation if !expected.in_message => Err(FrameError::ContinuationWithoutStart),
        _ if begins_message && expected.in_message => Err(FrameError::MessageInterrupted),
        _ => Ok(opcode),
    }
}

fn check_second(second: u8, opcode: Opcode, expected: Expected) -> Result<(), FrameError> {
    match (second & MASKED != 0, expected.masked) {
        (true, false) => return Err(FrameError::Masked),
        (false, true) => return Err(FrameError::Unmasked),
        _ => {}
    }
    if opcode.is_control() && usize::from(second & 0x7f) > CONTROL_MAX {
        return Err(FrameError::ControlTooLong);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FROM_CLIENT: Expected = Expected { masked: true, compression: false, in_message: false };
    const FROM_SERVER: Expected = Expected { masked: false, compression: false, in_message: false };

    #[test]
    fn the_examples_of_the_standard_are_written() {
        // RFC 6455 section 5.7.
        let key = Some([0x37, 0xfa, 0x21, 0x3d]);
        let check = |frame: Bytes, expected: &[u8]| assert_eq!(&frame[..], expected);
        check(encode(Opcode::Text, true, b"Hello", None), b"\x81\x05Hello");
        check(encode(Opcode::Text, true, b"Hello", key), b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
        check(encode(Opcode::Text, false, b"Hel", None), b"\x01\x03Hel");
        check(encode(Opcode::Continuation, true, b"lo", None), b"\x80\x02lo");
        check(encode(Opcode::Ping, true, b"Hello", None), b"\x89\x05Hello");
        check(encode(Opcode::Pong, true, b"Hello", key), b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
        check(encode_close(Some(&Close::new(1000, "")), None), b"\x88\x02\x03\xe8");
        check(encode_close(None, None), b"\x88\x00");
        assert_eq!(&encode(Opcode::Binary, true, &[0; 256], None)[..4], b"\x82\x7e\x01\x00");
        assert_eq!(&encode(Opcode::Binary, true, &[0; 65_536], None)[..10], b"\x82\x7f\0\0\0\0\0\x01\0\0");
    }

    #[test]
    fn a_broken_header_is_refused_at_its_first_broken_byte() {
        let check = |input: &[u8], expected: Expected, error: FrameError| {
            assert_eq!(Header::decode(input, expected), Err(error), "{input:02x?}");
            let shorter = &input[..input.len() - 1];
            assert_eq!(Header::decode(shorter, expected), Ok(None), "{shorter:02x?} is not yet wrong");
        };
        check(b"\x83", FROM_SERVER, FrameError::ReservedOpcode { opcode: 3 });
        check(b"\x8b", FROM_SERVER, FrameError::ReservedOpcode { opcode: 11 });
        check(b"\xc1", FROM_SERVER, FrameError::ReservedBits { bits: 0x40 });
        check(b"\xb1", FROM_SERVER, FrameError::ReservedBits { bits: 0x30 });
        check(b"\xc9", Expected { compression: true, ..FROM_SERVER }, FrameError::ReservedBits { bits: 0x40 });
        check(b"\xa1", Expected { compression: true, ..FROM_SERVER }, FrameError::ReservedBits { bits: 0x20 });
        let inside = Expected { compression: true, in_message: true, ..FROM_SERVER };
        check(b"\xc0", inside, FrameError::ReservedBits { bits: 0x40 });
        check(b"\x81", inside, FrameError::MessageInterrupted);
        check(b"\x80", FROM_SERVER, FrameError::ContinuationWithoutStart);
        check(b"\x09", FROM_SERVER, FrameError::ControlFragmented);
        check(b"\x89\x7e", FROM_SERVER, FrameError::ControlTooLong);
        check(b"\x89\x7f", FROM_SERVER, FrameError::ControlTooLong);
        check(b"\x81\x80", FROM_SERVER, FrameError::Masked);
        check(b"\x81\x05", FROM_CLIENT, FrameError::Unmasked);
        check(b"\x81\x7e\x00\x7d", FROM_SERVER, FrameError::LengthNotMinimal { len: 125 });
        check(b"\x81\x7f\0\0\0\0\0\0\xff\xff", FROM_SERVER, FrameError::LengthNotMinimal { len: 65_535 });
        check(b"\x81\x7f\x80", FROM_SERVER, FrameError::LengthOverflow);
    }

    proptest! {
        #[test]
        fn a_header_comes_back_as_it_was(fin: bool, rsv1: bool, number in prop::sample::select(vec![1u8, 2]), mask: Option<[u8; 4]>,
            len in prop_oneof![0u64..200, 65_530u64..65_540, 0..=u64::MAX >> 1]) {
            let header = Header { fin, rsv1, opcode: Opcode::from_number(number).unwrap(), mask, len };
            let mut out = Vec::new();
            header.encode(&mut out);
            let expected = Expected { masked: mask.is_some(), compression: true, in_message: false };
            for end in 0..out.len() {
                prop_assert_eq!(Header::decode(&out[..end], expected), Ok(None));
            }
            prop_assert_eq!(Header::decode(&out, expected), Ok(Some((header, out.len()))));
        }

        #[test]
        fn masking_in_pieces_equals_masking_byte_by_byte(content: Vec<u8>, key: [u8; 4], at: usize) {
            let expected: Vec<u8> = content.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
            let mut masked = content;
            let at = at % (masked.len() + 1);
            let (first, second) = masked.split_at_mut(at);
            apply_mask(first, key, 0);
            apply_mask(second, key, at as u64);
            prop_assert_eq!(masked, expected);
        }
    }
}
