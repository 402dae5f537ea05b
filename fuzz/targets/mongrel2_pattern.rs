//! Mongrel2's patterns, and requests that meet them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_mongrel2::{HostRule, PathRule};

fuzz_target!(|input: (&str, &str)| {
    let (rule, text) = input;
    if let Ok(rule) = PathRule::parse(rule) {
        rule.matches(text);
    }
    if let Ok(rule) = HostRule::parse(rule) {
        rule.matches(text);
    }
});
