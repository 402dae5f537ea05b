//! What Bayeux clients send. Whatever it is, the replies to it are JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waft_bayeux::{Reply, compact, parse_batch, read_subscription};

fuzz_target!(|input: &[u8]| {
    let Ok(batch) = parse_batch(input) else { return };
    let mut out = b"[".to_vec();
    for message in &batch {
        if out.len() > 1 {
            out.push(b',');
        }
        let text = message.subscription.as_ref().map_or("[]", |subscription| subscription.text);
        Reply::to(message).subscription(text).timesync(message.timesync().map(|tc| (tc, 1))).write(&mut out);
        let _ = (message.ack(), message.wants_acks(), message.ext_text("auth.token"));
        for name in message.subscription.iter().flat_map(|subscription| &subscription.names) {
            let _ = read_subscription(name);
        }
        if let Some(data) = message.data {
            assert!(compact(data).len() <= data.len());
        }
    }
    out.push(b']');
    // Nesting that our own reader does not follow is for others to refuse.
    if out.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() < 100 {
        check_again(&out);
    }
});

fn check_again(text: &[u8]) {
    assert!(parse_batch(text).is_ok(), "{}", String::from_utf8_lossy(text));
}
