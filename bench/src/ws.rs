//! As much WebSocket as the load, the origin and the bare loop need: the handshake's proof and whole frames.

/// The key that the load generator always sends; its proof is known from RFC 6455, section 1.3.
pub const CLIENT_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The mask of all frames of the load: any will do.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A text message.
pub const TEXT: u8 = 1;
/// A ping, which must be answered.
pub const PING: u8 = 9;
/// A pong.
pub const PONG: u8 = 10;
/// The end.
pub const CLOSE: u8 = 8;

/// `Sec-WebSocket-Accept` for a key.
pub fn accept(key: &[u8]) -> String {
    base64(&sha1(&[key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat()))
}

/// Appends a whole frame, masked if a client sends it.
pub fn encode(opcode: u8, payload: &[u8], masked: bool, out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    let mask_bit = if masked { 0x80 } else { 0 };
    match payload.len() {
        length @ 0..126 => out.push(mask_bit | length as u8),
        length @ 126..65_536 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend_from_slice(&MASK);
        out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        out.extend_from_slice(payload);
    }
}

/// Cuts bytes into frames.
#[derive(Debug, Default)]
pub struct Frames {
    partial: Vec<u8>,
}

impl Frames {
    /// Takes bytes and hands each whole frame on, unmasked. Fragments are refused: nobody here sends any.
    pub fn feed(&mut self, input: &[u8], mut each: impl FnMut(u8, &[u8])) -> Result<(), String> {
        if self.partial.is_empty() {
            let used = parse(input, &mut each)?;
            self.partial.extend_from_slice(&input[used..]);
        } else {
            self.partial.extend_from_slice(input);
            let used = parse(&self.partial, &mut each)?;
            self.partial.drain(..used);
        }
        Ok(())
    }

    /// Whether a frame has come in part.
    pub fn is_inside(&self) -> bool {
        !self.partial.is_empty()
    }
}

/// Hands on the whole frames at the front; how many bytes they are.
fn parse(input: &[u8], each: &mut impl FnMut(u8, &[u8])) -> Result<usize, String> {
    let mut used = 0;
    while let Some(frame) = input.get(used..).filter(|frame| frame.len() >= 2) {
        if frame[0] & 0xf0 != 0x80 {
            return Err(format!("a frame begins with {:#x}", frame[0]));
        }
        let masked = frame[1] & 0x80 != 0;
        let (length, mut head) = match (frame[1] & 0x7f, frame) {
            (126, [_, _, a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
            (127, [_, _, a, b, c, d, e, f, g, h, ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]) as usize, 10)
            }
            (126 | 127, _) => return Ok(used),
            (length, _) => (usize::from(length), 2),
        };
        let mut mask = [0; 4];
        if masked {
            let Some(bytes) = frame.get(head..head + 4) else { return Ok(used) };
            mask.copy_from_slice(bytes);
            head += 4;
        }
        let Some(payload) = frame.get(head..head + length) else { return Ok(used) };
        if masked {
            let clear: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            each(frame[0] & 0x0f, &clear);
        } else {
            each(frame[0] & 0x0f, payload);
        }
        used += head + length;
    }
    Ok(used)
}

fn sha1(input: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = input.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64) + if padded.len() % 64 > 56 { 64 } else { 0 } - 8, 0);
    padded.extend_from_slice(&(input.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut words = [0u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        for at in 16..80 {
            words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mix, constant) = match at / 20 {
                0 => ((b & c) | (!b & d), 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let next = a.rotate_left(5).wrapping_add(mix).wrapping_add(e).wrapping_add(constant).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, word) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(word);
        }
    }
    let mut out = [0; 20];
    for (bytes, word) in out.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    out
}

fn base64(input: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in input.chunks(3) {
        let bits = group.iter().chain([&0, &0]).take(3).fold(0usize, |bits, byte| bits << 8 | usize::from(*byte));
        for place in 0..4 {
            let letter = char::from(LETTERS[bits >> (18 - 6 * place) & 63]);
            out.push(if place > group.len() { '=' } else { letter });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_of_the_standards_example_is_right() {
        assert_eq!(accept(CLIENT_KEY.as_bytes()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let hex = |input: &[u8]| sha1(input).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        let long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(hex(long), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    }

    #[test]
    fn frames_survive_masking_and_any_split() {
        for (size, masked) in [(0, false), (125, true), (126, false), (4_096, true), (70_000, false)] {
            let payload: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let mut bytes = Vec::new();
            encode(TEXT, &payload, masked, &mut bytes);
            encode(PING, b"x", masked, &mut bytes);
            for split in (0..bytes.len()).step_by(1 + bytes.len() / 50) {
                let (mut frames, mut seen) = (Frames::default(), Vec::new());
                for part in [&bytes[..split], &bytes[split..]] {
                    frames.feed(part, |opcode, payload| seen.push((opcode, payload.to_vec()))).expect("whole frames");
                }
                assert_eq!(seen, [(TEXT, payload.clone()), (PING, b"x".to_vec())], "{size} split at {split}");
                assert!(!frames.is_inside());
            }
        }
    }
}
