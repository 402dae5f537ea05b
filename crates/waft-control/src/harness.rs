//! Requests and gateways for the tests of this crate.

use std::sync::Arc;
use std::time::Instant;

use waft_gateway::{Answer, Gateway, Request, Service, Settings};
use waft_http1::{HeadLimits, Parsed, parse_request};
use waft_hub::HubLimits;

use crate::Demo;

/// A gateway of two shards that nobody runs.
pub(crate) fn gateway() -> Gateway {
    Gateway::new(2, 7, HubLimits::default(), Settings::default(), Arc::new(Demo::new(1)))
}

/// What `service` answers to a request; `start` is its method and target, `fields` are whole lines.
pub(crate) fn ask(service: &dyn Service, gateway: &Gateway, start: &str, fields: &[&str], body: &[u8]) -> Answer {
    let length = if start.starts_with("GET ") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let head = format!("{start} HTTP/1.1\r\nHost: localhost\r\n{length}{fields}\r\n");
    let Ok(Parsed::Complete { head, .. }) = parse_request(head.as_bytes(), &HeadLimits::default()) else {
        panic!("{head:?} is no request");
    };
    service.answer(gateway, &Request { head: &head, body, now: Instant::now(), secure: false })
}

/// The body of an answer as text.
pub(crate) fn text(answer: &Answer) -> &str {
    str::from_utf8(&answer.body).unwrap()
}

/// A field of an answer as text; empty if it is not there.
pub(crate) fn field<'a>(answer: &'a Answer, name: &str) -> &'a str {
    str::from_utf8(answer.fields.get(name).unwrap_or_default()).unwrap()
}
