//! Keep-alive headers with their escapes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_grip::keepalive::{KeepAlive, decode_cstring};

fuzz_target!(|input: &[u8]| {
    if let Some(decoded) = decode_cstring(input) {
        assert!(decoded.len() <= input.len());
        if !input.contains(&b'\\') {
            assert_eq!(decoded, input);
        }
    }
    if let Ok(Some(keep_alive)) = KeepAlive::parse(input) {
        assert!(!keep_alive.timeout.is_zero());
    }
});
