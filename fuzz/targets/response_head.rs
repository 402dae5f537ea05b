//! Response heads, as targets send them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_http1::{HeadLimits, Parsed, parse_response};

fuzz_target!(|input: &[u8]| {
    let limits = HeadLimits { bytes_max: 512, fields_max: 16, target_max: 128 };
    let Ok(Parsed::Complete { head, consumed }) = parse_response(input, &limits) else { return };
    assert!((100..=999).contains(&head.status()));
    assert!(matches!(parse_response(&input[..consumed - 1], &limits), Ok(Parsed::Partial)));
    assert_eq!(parse_response(&input[..consumed], &limits), Ok(Parsed::Complete { head: head.clone(), consumed }));
    for method in ["GET", "HEAD", "CONNECT"] {
        let _ = head.framing(method);
    }
    let _ = (head.keep_alive(), head.upgrade(), head.end_to_end_fields().count());
});
