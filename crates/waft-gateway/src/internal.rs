//! Targets that are part of waft itself.

use std::rc::Rc;
use std::time::Instant;

use serde_json::json;
use url::form_urlencoded;
use waft_route::{Target, TargetAddress};

use crate::exchange::Exchange;
use crate::service::{Answer, Request};
use crate::shard::Shard;

/// The answer of a target that is part of waft.
pub(crate) fn answer(shard: &Rc<Shard>, exchange: &Exchange, target: &Target) -> Answer {
    match target.address {
        TargetAddress::Demo => {
            let request = Request {
                head: &exchange.head,
                body: exchange.body.saved(),
                now: Instant::now(),
                secure: exchange.secure,
            };
            shard.gateway.demo.answer(&shard.gateway, &request)
        }
        _ => test(exchange),
    }
}

/// The answer to a request that asks what answers here (`Pushpin-Check`).
pub(crate) fn check() -> Answer {
    Answer::text(200, concat!("waft ", env!("CARGO_PKG_VERSION"), "\n"))
}

/// The path below the route, as the test handler reads it.
fn test_path(exchange: &Exchange) -> &str {
    let path = exchange.head.path();
    let prefix = exchange.route.condition.path_beg.as_deref().unwrap_or_default();
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let path = path.strip_prefix(prefix).unwrap_or(path);
    path.strip_suffix('/').unwrap_or(path)
}

/// The channels of a WebSocket to the test handler; none where it accepts no WebSocket.
pub(crate) fn test_websocket(exchange: &Exchange) -> Option<Vec<String>> {
    (test_path(exchange) == "/ws").then(|| test_channels(exchange))
}

/// The test handler: holds that can be tried out without a backend.
fn test(exchange: &Exchange) -> Answer {
    match test_path(exchange) {
        "" => Answer::text(200, "Hello from the Pushpin test handler!\n"),
        "/response" => hold("response", exchange, "nothing for now\n"),
        "/stream" => hold("stream", exchange, "[stream opened]\n"),
        _ => Answer::text(404, "no such test resource\n"),
    }
}

/// The channels that the query asks for.
fn test_channels(exchange: &Exchange) -> Vec<String> {
    let query = exchange.head.query().unwrap_or_default();
    let asked = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "channel");
    let channels: Vec<String> = asked.map(|(_, channel)| channel.into_owned()).collect();
    if channels.is_empty() { vec!["test".to_owned()] } else { channels }
}

fn hold(mode: &str, exchange: &Exchange, body: &str) -> Answer {
    let channels: Vec<_> = test_channels(exchange).into_iter().map(|channel| json!({ "name": channel })).collect();
    let instruct = json!({
        "hold": { "mode": mode, "channels": channels },
        "response": { "headers": { "Content-Type": "text/plain" }, "body": body },
    });
    Answer::new(200, waft_grip::instruct::CONTENT_TYPE, instruct.to_string())
}
