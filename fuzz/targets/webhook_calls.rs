//! What callers of the webhook API send: messages, settings of endpoints, secrets, and what receivers answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_webhooks::core::sign::Key;
use waft_webhooks::core::{EndpointSettings, filter, id, schedule};
use waft_webhooks::submit;

fuzz_target!(|input: &[u8]| {
    if let Ok((messages, _)) = submit::parse(input, None, 1_000) {
        assert!(messages.iter().all(|message| !message.body.is_empty() && message.body.len() <= 1_000));
    }
    if let Ok(settings) = serde_json::from_slice::<EndpointSettings>(input) {
        settings.check(false).ok();
    }
    schedule::retry_after(input, 1_700_000_000_000);
    if let Ok(text) = std::str::from_utf8(input) {
        Key::parse(text).ok();
        filter::is_pattern(text);
        id::parse_message_id(text, id::Mark(5));
    }
});
