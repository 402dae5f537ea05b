//! A segment of the store as a crash or a bad disk may leave it: no bytes may panic, and what is read is what was written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_store::record::{Found, HEADER, Salt, next, put, read_preamble, resume};
use waft_webhooks::core::record::Record;

const SALT: Salt = Salt(7);

fuzz_target!(|input: &[u8]| {
    read_preamble(input);
    let mut rest = input;
    while !rest.is_empty() {
        let skip = match next(rest, SALT) {
            Found::Record(record) => {
                let mut written = Vec::new();
                put(&mut written, SALT, record);
                assert_eq!(written, rest[..HEADER + record.len()]);
                HEADER + record.len()
            }
            Found::Broken | Found::Partial { .. } => match resume(rest, SALT) {
                Some(at) => at,
                None => break,
            },
        };
        rest = &rest[skip..];
    }
    // The same bytes as the content of a record.
    if let Ok(record) = Record::decode(input) {
        assert_eq!(Record::decode(&record.encode()), Ok(record.clone()));
    }
});
