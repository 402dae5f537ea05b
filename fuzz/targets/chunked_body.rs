//! A chunked body, whole and byte by byte: the same data, the same end, the same refusal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_http1::{BodyDecoder, Framing};

/// Decodes pieces of `step` bytes: the data and whether the body ended, or `None` if it was refused.
fn decode(input: &[u8], step: usize) -> Option<(Vec<u8>, bool)> {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let mut data = Vec::new();
    for piece in input.chunks(step) {
        let mut rest = piece;
        while !rest.is_empty() && !decoder.is_done() {
            let decoded = decoder.decode(rest).ok()?;
            assert!(decoded.consumed > 0, "no progress with bytes at hand");
            data.extend_from_slice(decoded.data);
            rest = &rest[decoded.consumed..];
        }
    }
    Some((data, decoder.is_done()))
}

fuzz_target!(|input: &[u8]| {
    let whole = decode(input, input.len().max(1));
    assert_eq!(decode(input, 1), whole);
    assert_eq!(decode(input, 3), whole);
});
