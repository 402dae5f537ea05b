//! The demonstration: a page that shows streams, long-polls and WebSockets at work, and the small backend behind it.
//!
//! It answers like any backend would, with holds for the gateway to keep. It is open to everyone, so it reads and writes
//! only channels whose names begin with `demo`.

mod events;
mod publish;
#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::json;
use url::form_urlencoded;
use waft_gateway::{Answer, Gateway, Request, Service};
use waft_http1::RequestHead;
use waft_hub::Replay;

use crate::stats;
use crate::totals::Totals;

/// The longest message, in bytes.
pub(crate) const MESSAGE_MAX: usize = 4096;

/// The longest name of a channel, in bytes.
const CHANNEL_MAX: usize = 64;

/// What the names of all its channels begin with, so that nobody reads or writes those of an application. It is the
/// channel of requests that name none, too.
const CHANNEL: &str = "demo";

/// Seconds after which a long-poll is answered with nothing.
const POLL_TIMEOUT_S: u32 = 25;

/// Seconds of silence after which a stream gets a comment, which keeps it open on its way through proxies.
const KEEP_ALIVE_S: u32 = 20;

const PAGE: &str = include_str!("demo/page.html");

/// What the page may do: run its own script, and talk to where it came from.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
     img-src data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers the requests of routes whose target is `demo`.
#[derive(Debug)]
pub struct Demo {
    /// Tells the ids of one run from those of another.
    epoch: u64,
    published: AtomicU64,
}

impl Demo {
    /// A demonstration whose messages have ids of this `epoch`, a number that the last run did not use.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self { epoch, published: AtomicU64::new(0) }
    }

    fn answer_at(&self, gateway: &Gateway, request: &Request<'_>, name: &str) -> Result<Answer, Refusal> {
        let head = request.head;
        match (name, head.method()) {
            ("events", "GET") => Ok(events_stream(&channel(head)?)),
            ("poll", "GET") => poll(gateway, head),
            ("publish", "POST") => {
                let channel = channel(head)?;
                let text = publish::message(head, request.body)?;
                Ok(stats::json(&self.publish(gateway, request.now, &channel, &text)))
            }
            ("stats", "GET" | "HEAD") => Ok(stats::json(&Counts::of(gateway))),
            ("ws", "POST") => self.socket(gateway, request),
            ("events" | "poll" | "stats", _) => Err(Refusal::Method("GET")),
            ("publish", _) => Err(Refusal::Method("POST")),
            ("ws", _) => Err(Refusal::NoSocket),
            _ => Err(Refusal::NotFound),
        }
    }
}

/// A demonstration whose messages are told from those of other runs by the time.
impl Default for Demo {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::new(since.as_secs())
    }
}

impl Service for Demo {
    fn answer(&self, gateway: &Gateway, request: &Request<'_>) -> Answer {
        let path = request.head.path();
        // A route may have put the demonstration below any path.
        let answer = match path.rsplit_once("/demo/") {
            Some((_, name)) if !name.is_empty() => self.answer_at(gateway, request, name),
            _ if !path.ends_with('/') => Err(Refusal::NotFound),
            _ if matches!(request.head.method(), "GET" | "HEAD") => Ok(page()),
            _ => Err(Refusal::Method("GET, HEAD")),
        };
        answer.unwrap_or_else(|refusal| refusal.answer())
    }

    /// A form may write three bytes for one.
    fn body_max(&self) -> usize {
        MESSAGE_MAX * 3 + 64
    }
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the channel must begin with `{CHANNEL}` and have up to {CHANNEL_MAX} letters, digits, `_`, `.` or `-`")]
    Channel,
    #[error("send some text as body, or a form with the field `message`")]
    Empty,
    #[error("the body is not text in UTF-8")]
    NotText,
    #[error("the message has {seen} bytes, more than {MESSAGE_MAX}")]
    TooLong { seen: usize },
    #[error("the body is no list of WebSocket events")]
    Events,
    #[error("this address takes WebSockets alone, and they are not available here")]
    NoSocket,
    #[error("no such page")]
    NotFound,
    #[error("method not allowed, use {0}")]
    Method(&'static str),
}

impl Refusal {
    fn answer(&self) -> Answer {
        let status = match self {
            Self::Channel | Self::Empty | Self::NotText | Self::Events | Self::NoSocket => 400,
            Self::TooLong { .. } => 413,
            Self::NotFound => 404,
            Self::Method(_) => 405,
        };
        let mut answer = Answer::text(status, format!("{self}\n"));
        if let Self::Method(allowed) = self {
            answer.fields.push("Allow", allowed);
        }
        answer
    }
}

fn page() -> Answer {
    let mut answer = Answer::new(200, "text/html; charset=utf-8", PAGE.as_bytes());
    answer.fields.push("Cache-Control", "no-cache");
    answer.fields.push("Content-Security-Policy", PAGE_POLICY);
    answer.fields.push("X-Content-Type-Options", "nosniff");
    answer.fields.push("Referrer-Policy", "no-referrer");
    answer
}

/// The channel that a request names in its query.
fn channel(head: &RequestHead) -> Result<String, Refusal> {
    let named = parameter(head, "channel").unwrap_or_default();
    if named.is_empty() {
        return Ok(CHANNEL.to_owned());
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if named.starts_with(CHANNEL) && named.len() <= CHANNEL_MAX && named.bytes().all(legal) {
        Ok(named)
    } else {
        Err(Refusal::Channel)
    }
}

fn parameter(head: &RequestHead, wanted: &str) -> Option<String> {
    let query = head.query()?.as_bytes();
    form_urlencoded::parse(query).find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
}

/// A stream of server-sent events. What a browser missed between two connections the gateway knows by `Last-Event-ID`.
fn events_stream(channel: &str) -> Answer {
    let keep_alive = json!({ "content": ": still here\n\n", "timeout": KEEP_ALIVE_S, "mode": "idle" });
    instruct(&json!({
        "hold": { "mode": "stream", "channels": [{ "name": channel }], "keep-alive": keep_alive },
        "response": {
            "headers": { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" },
            "body": ": open\nretry: 1000\n\n",
        },
    }))
}

/// A long-poll: what came after the message `last`, or after the position `after`, at once; else the next message when it
/// comes.
fn poll(gateway: &Gateway, head: &RequestHead) -> Result<Answer, Refusal> {
    let channel = channel(head)?;
    let hub = gateway.hub();
    // Read before the question what is missed: if nothing is, the hold goes on from here without a hole.
    let newest = hub.last_id(&channel).map(|id| id.to_string());
    let after = parameter(head, "after").and_then(|position| position.parse().ok());
    let last = parameter(head, "last").filter(|last| !last.is_empty() && last.len() <= CHANNEL_MAX);
    let (missed, seen) = match (after, last) {
        (Some(position), _) => (hub.since_position(&channel, position), newest),
        (None, Some(last)) => (hub.since_id(&channel, &last), Some(last)),
        (None, None) => (Replay::Unknown, None),
    };
    let follows = match missed {
        Replay::Items(items) if items.is_empty() => seen,
        Replay::Items(items) => return Ok(publish::poll_answer(&items, false)),
        Replay::Gap { available, .. } if !available.is_empty() => return Ok(publish::poll_answer(&available, true)),
        // Nothing is known of what the client saw, so nothing can be said to follow it.
        Replay::Gap { .. } | Replay::Unknown => None,
    };
    Ok(instruct(&json!({
        "hold": { "mode": "response", "channels": [{ "name": channel, "prev-id": follows }], "timeout": POLL_TIMEOUT_S },
        "response": {
            "headers": { "Content-Type": "application/json", "Cache-Control": "no-store" },
            "body": "{\"items\":[]}\n",
        },
    })))
}

fn instruct(instruct: &serde_json::Value) -> Answer {
    Answer::new(200, waft_grip::instruct::CONTENT_TYPE, instruct.to_string())
}

/// The counters on the page.
#[derive(Debug, Serialize)]
struct Counts {
    connections: i64,
    response: i64,
    stream: i64,
    ws: i64,
    published: u64,
    delivered: u64,
}

impl Counts {
    fn of(gateway: &Gateway) -> Self {
        let totals = Totals::of(gateway);
        Self {
            connections: totals.level(|shard| &shard.connections),
            response: totals.level(|shard| &shard.holds_response),
            stream: totals.level(|shard| &shard.holds_stream),
            ws: totals.level(|shard| &shard.holds_ws),
            published: gateway.publish_metrics().items.value(),
            delivered: totals.delivered(),
        }
    }
}
