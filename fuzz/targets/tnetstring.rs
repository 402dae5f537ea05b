//! TNetStrings, and the items that publishers send in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_grip::item::{parse_channel_packet, parse_packet};
use waft_grip::tnetstring::{TValue, parse, parse_all, write};

fn is_finite(value: &TValue<'_>) -> bool {
    match value {
        TValue::Float(number) => number.is_finite(),
        TValue::List(values) => values.iter().all(is_finite),
        TValue::Map(members) => members.iter().all(|(_, value)| is_finite(value)),
        _ => true,
    }
}

fuzz_target!(|input: &[u8]| {
    if let Ok((value, rest)) = parse(input) {
        assert!(rest.len() < input.len());
        let mut written = Vec::new();
        write(&value, &mut written);
        if is_finite(&value) {
            assert_eq!(parse_all(&written).as_ref(), Ok(&value));
        }
    }
    let _ = (parse_packet(input), parse_channel_packet(b"channel", input));
});
