//! The grammar of Grip headers: values with parameters, quotes and commas.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_grip::feature;
use waft_grip::header::{parse_params, parse_piece, parse_values, split_commas};

fuzz_target!(|input: &[u8]| {
    let pieces = split_commas(input);
    assert!(pieces.iter().map(|piece| piece.len()).sum::<usize>() <= input.len());
    assert!(parse_values(input).len() <= pieces.len());
    let _ = (parse_piece(input), parse_params(input));
    for (channel, id) in feature::parse_last([("Grip-Last", input)].into_iter()) {
        // What was understood can be said again, and is understood alike. A name with a quote is written as it is, since
        // the header has no way to quote names.
        if let Some(text) = feature::last(&channel, &id).filter(|_| !channel.contains('"')) {
            assert_eq!(feature::parse_last([("Grip-Last", text.as_bytes())].into_iter()), [(channel, id)]);
        }
    }
});
