//! What publishers send over HTTP. What was understood is written and understood alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_grip::item::{Formats, ResponseBody, parse_item_json, parse_publish_body};

fuzz_target!(|input: &[u8]| {
    let items = parse_publish_body(input).unwrap_or_default();
    // An item may have formats that are not known here, and then says nothing that could be written.
    let items = items.into_iter().chain(parse_item_json(input)).filter(|item| item.formats != Formats::default());
    for item in items {
        let written = item.to_json();
        let again = parse_item_json(&written).expect("what was written can be read");
        assert_eq!(again, item, "{}", String::from_utf8_lossy(&written));
        if let Some(ResponseBody::Patch(patch)) = item.formats.http_response.as_ref().map(|format| &format.body) {
            let _ = patch.apply(br#"{"a":[1,{"b":"c"}]}"#);
        }
    }
});
