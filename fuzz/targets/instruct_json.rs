//! What a target asks for with a JSON body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_grip::instruct::{CONTENT_TYPE, Instruct};

fuzz_target!(|input: &[u8]| {
    let head = [("Content-Type", CONTENT_TYPE.as_bytes())];
    let mut instruct = Instruct::from_head(200, "OK", head.iter().copied()).expect("the head is sound");
    assert!(instruct.needs_json_body());
    if instruct.apply_json(input).is_ok() {
        let _ = instruct.hold_timeout();
    }
});
