//! Requests at Mongrel2's control port, and lines of its access log.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use waft_mongrel2::AccessLine;
use waft_mongrel2::control::Command;

fuzz_target!(|input: &[u8]| {
    let input = Bytes::copy_from_slice(input);
    if let Err(refused) = Command::parse(&input) {
        assert!(!refused.encode().is_empty());
    }
    let _ = AccessLine::read(&input, |line| line.to_string());
});
