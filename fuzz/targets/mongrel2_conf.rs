//! The configuration language of Mongrel2.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_mongrel2::conf::parse;

fuzz_target!(|input: &str| {
    if let Err(error) = parse(input) {
        assert!(!error.text.is_empty());
    }
});
