//! A front and whatever a worker may send it.
#![no_main]

use std::time::{Duration, Instant};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use waft_zhttp::{Front, FrontEvent, Interface, Pace, Packet};

const WINDOW: u64 = 1_000;

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let interface = [Interface::Request, Interface::Stream, Interface::WebSocket][usize::from(first % 3)];
    let mut now = Instant::now();
    let request = Packet { more: first & 8 != 0, ..Packet::default() };
    let (mut front, _) = Front::start(now, interface, ("g".into(), "1".into()), (WINDOW, Pace::default()), request);
    let mut ended = false;
    // Packets stand behind each other, each with the byte 10 at its end, as their number and text.
    for line in rest.split(|byte| *byte == b'\n') {
        let Some((seq, wire)) = line.split_first() else { continue };
        now += Duration::from_millis(u64::from(*seq) * 10);
        let seq = (*seq != 255).then_some(u64::from(*seq));
        match Packet::decode(&Bytes::copy_from_slice(wire)) {
            Ok((packet, _)) => {
                front.receive(now, seq, packet);
            }
            Err(_) => front.unreadable(now),
        }
        let room = usize::try_from(front.room()).unwrap_or(usize::MAX).min(100);
        front.send_body(now, vec![0; room].into(), true);
        front.handle_timeout(now);
        while let Some(event) = front.poll_event() {
            assert!(!ended, "nothing comes behind the end");
            match event {
                FrontEvent::Body(body) | FrontEvent::Message { body, .. } => front.consumed(now, body.len()),
                FrontEvent::End | FrontEvent::Failed(_) => ended = true,
                _ => {}
            }
        }
        while let Some((_, packet)) = front.poll_output() {
            assert!(packet.credits <= WINDOW);
        }
    }
    assert_eq!(ended, front.is_over());
});
