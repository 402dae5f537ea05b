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

/// The test handler: holds that can be tried out without a backend.
fn test(exchange: &Exchange) -> Answer {
    let path = exchange.head.path();
    let prefix = exchange.route.condition.path_beg.as_deref().unwrap_or_default();
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let path = path.strip_prefix(prefix).unwrap_or(path);
    match path.strip_suffix('/').unwrap_or(path) {
        "" => Answer::text(200, "Hello from the Pushpin test handler!\n"),
        "/response" => hold("response", exchange, "nothing for now\n"),
        "/stream" => hold("stream", exchange, "[stream opened]\n"),
        _ => Answer::text(404, "no such test resource\n"),
    }
}

fn hold(mode: &str, exchange: &Exchange, body: &str) -> Answer {
    let query = exchange.head.query().unwrap_or_default();
    let mut channels: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "channel")
        .map(|(_, channel)| json!({ "name": channel }))
        .collect();
    if channels.is_empty() {
        channels.push(json!({ "name": "test" }));
    }
    let instruct = json!({
        "hold": { "mode": mode, "channels": channels },
        "response": { "headers": { "Content-Type": "text/plain" }, "body": body },
    });
    Answer::new(200, waft_grip::instruct::CONTENT_TYPE, instruct.to_string())
}
