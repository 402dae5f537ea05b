//! WebSocket events in the bodies of responses. What was understood is written and understood alike.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use waft_websocket::control::GripExtension;
use waft_websocket::over_http::codec::{Event, decode};

fuzz_target!(|input: &[u8]| {
    let Ok(events) = decode(Bytes::copy_from_slice(input)) else { return };
    let mut written = Vec::new();
    for event in &events {
        event.encode(&mut written);
        if let Event::Text(content) = event {
            let _ = GripExtension::with_prefix("m:").classify(true, content);
        }
    }
    assert_eq!(decode(written.into()).as_ref(), Ok(&events));
});
