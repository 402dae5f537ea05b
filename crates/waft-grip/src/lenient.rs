//! Readers that forgive what GRIP publishers and origins are known to send.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Decodes base64 and skips every byte outside the standard alphabet, padding included. GRIP senders wrap lines, omit
/// padding, or both, and the protocol defines no error for it.
pub(crate) fn base64(text: &[u8]) -> Vec<u8> {
    if let Ok(exact) = STANDARD.decode(text) {
        return exact;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let mut bits: u32 = 0;
    let mut held: u32 = 0;
    for &byte in text {
        let Some(sextet) = sextet(byte) else { continue };
        // Only the low bits of `bits` are ever read, so the mask keeps it from growing without loss.
        bits = (bits << 6 | u32::from(sextet)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            let [.., low] = (bits >> held).to_be_bytes();
            out.push(low);
        }
    }
    out
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn base64_is_read_with_line_breaks_and_without_padding() {
        for (input, expected) in
            [("aGVsbG8=", "hello"), ("aGVsbG8", "hello"), ("aGVs\r\nbG8=", "hello"), ("", ""), ("a", ""), ("!?", "")]
        {
            assert_eq!(base64(input.as_bytes()), expected.as_bytes(), "{input}");
        }
    }

    proptest! {
        #[test]
        fn the_slow_path_agrees_with_the_exact_decoder(data: Vec<u8>) {
            let unpadded = STANDARD.encode(&data).replace('=', "");
            let wrapped = format!("\n{unpadded}\n");
            prop_assert_eq!(base64(wrapped.as_bytes()), data);
        }

        #[test]
        fn any_bytes_are_read_without_panic(data: Vec<u8>) {
            prop_assert!(base64(&data).len() <= data.len());
        }
    }
}
