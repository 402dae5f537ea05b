//! What a target asks for with headers. Each line of the input is one header.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_grip::instruct::{Instruct, is_instruct};

fuzz_target!(|input: &[u8]| {
    let fields: Vec<(&str, &[u8])> = input
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((std::str::from_utf8(&line[..colon]).ok()?, &line[colon + 1..]))
        })
        .collect();
    let _ = is_instruct(fields.iter().copied());
    if let Ok(instruct) = Instruct::from_head(200, "OK", fields.iter().copied()) {
        assert!(instruct.response.headers.len() <= fields.len());
        let _ = (instruct.hold_timeout(), instruct.needs_json_body());
    }
});
