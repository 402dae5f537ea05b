//! WebSocket frames with and without compression, whole and byte by byte. The first byte of the input chooses how.
#![no_main]

use std::sync::Arc;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use waft_websocket::connection::{Delivery, Error, Event, Limits, Receiver, Role};
use waft_websocket::negotiate::Params;

/// Events up to the end, in which the pieces of a relayed message are joined, since they follow arrival.
fn receive(how: u8, input: &[u8], step: usize) -> (Vec<Event>, Option<Error>) {
    let role = if how & 1 == 0 { Role::Client } else { Role::Server };
    let delivery = if how & 2 == 0 { Delivery::Messages } else { Delivery::Relay };
    let takeover = how & 8 != 0;
    let params = Params {
        server_no_context_takeover: !takeover,
        client_no_context_takeover: !takeover,
        server_max_window_bits: 15,
        client_max_window_bits: 10,
    };
    let limits = Limits { delivery, frame_max: 64 << 10, message_max: 64 << 10 };
    let mut receiver = Receiver::new(role, Arc::new(limits), (how & 4 != 0).then_some(&params));
    let mut events: Vec<Event> = Vec::new();
    let mut buffer = BytesMut::new();
    for piece in input.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match receiver.receive(&mut buffer) {
                Ok(Some(Event::Fragment(next))) => match events.last_mut() {
                    Some(Event::Fragment(before)) if !next.first && !before.fin => {
                        before.content = [&before.content[..], &next.content].concat().into();
                        before.fin = next.fin;
                    }
                    _ => events.push(Event::Fragment(next)),
                },
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
        assert!(buffer.is_empty());
    }
    (events, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((&how, input)) = input.split_first() else { return };
    let (events, error) = receive(how, input, input.len().max(1));
    let (split_events, split_error) = receive(how, input, 1);
    assert_eq!(split_error, error);
    // What of an unfinished piece was handed on before the error depends on how the bytes came.
    if error.is_none() || how & 2 == 0 {
        assert_eq!(split_events, events);
    }
});
