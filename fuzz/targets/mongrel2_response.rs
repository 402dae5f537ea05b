//! What handlers send.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use waft_mongrel2::{Response, TARGETS_MAX};

fuzz_target!(|input: &[u8]| {
    if let Ok(response) = Response::parse(&Bytes::copy_from_slice(input), TARGETS_MAX) {
        assert!((1..=TARGETS_MAX).contains(&response.ids.len()));
        assert!(input.ends_with(&response.body));
    }
});
