//! A zurl.conf: read or refused with a text that says what to do.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_outbound::zurl::Config;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = str::from_utf8(input) else { return };
    match Config::parse(text) {
        Ok(config) => {
            assert!(!config.in_spec.is_empty() || !config.in_req_spec.is_empty());
            assert!(config.buffer_size > 0 && config.in_hwm >= 0);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
