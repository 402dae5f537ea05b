//! Request heads, as clients send them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_http1::{Fields, HeadLimits, HeadWriter, Parsed, parse_request};

fuzz_target!(|input: &[u8]| {
    let limits = HeadLimits { bytes_max: 512, fields_max: 16, target_max: 128 };
    let Ok(Parsed::Complete { head, consumed }) = parse_request(input, &limits) else { return };
    // The same head is read however much follows it, and not before its last byte.
    assert!(matches!(parse_request(&input[..consumed - 1], &limits), Ok(Parsed::Partial)));
    assert_eq!(parse_request(&input[..consumed], &limits), Ok(Parsed::Complete { head: head.clone(), consumed }));
    let _ = (head.host(), head.query(), head.keep_alive(), head.expects_continue(), head.upgrade());
    // Written again, it is the same to any reader.
    let fields: Fields = head.fields().collect();
    let mut out = Vec::new();
    let mut writer = HeadWriter::new(&mut out);
    writer.request_line(head.method(), head.target()).fields(fields.iter());
    writer.finish();
    match parse_request(&out, &HeadLimits::default()) {
        Ok(Parsed::Complete { head: again, consumed }) => {
            assert_eq!(consumed, out.len());
            assert_eq!(again.framing(), head.framing());
            assert_eq!(again.fields().collect::<Fields>(), fields);
        }
        other => panic!("{other:?}"),
    }
});
