//! A route and its options.

use std::sync::Arc;
use std::time::Duration;

use crate::condition::Condition;
use crate::problem::Source;
use crate::target::Target;

/// Which requests go where, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its name in statistics and logs, and what a request may select it by.
    pub id: Arc<str>,
    /// Whether the id was written. A derived one is not shown, and no request can select it.
    pub explicit_id: bool,
    /// Which requests it is for.
    pub condition: Condition,
    /// How it treats them.
    pub options: RouteOptions,
    /// Where they go: the first target that can be connected to.
    pub targets: Vec<Target>,
    /// Where it was written.
    pub source: Source,
}

impl Route {
    /// A route without explicit id.
    pub fn new(condition: Condition, targets: Vec<Target>) -> Self {
        Self {
            id: condition.automatic_id().into(),
            explicit_id: false,
            condition,
            options: RouteOptions::default(),
            targets,
            source: Source::default(),
        }
    }

    /// The id, if it is one that was written.
    pub fn shown_id(&self) -> Option<&Arc<str>> {
        self.explicit_id.then_some(&self.id)
    }
}

/// How a route treats its requests. Settings that hold for all routes are written into each by
/// whoever makes them, so that what stands here is what counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteOptions {
    /// Issuer in the signature of requests to targets.
    pub sig_iss: String,
    /// Key of that signature, as written (`base64:` for bytes). `None`: requests are not signed.
    pub sig_key: Option<String>,
    /// Put before the name of every channel that a target names.
    pub prefix: String,
    /// Send a marked copy of the original request headers.
    pub orig_headers: bool,
    /// `host[:port]` sent as Host header and used in URIs.
    pub as_host: Option<String>,
    /// Leading bytes of the path to remove.
    pub path_rem: usize,
    /// What to put in the place of `path_beg`; goes before `path_rem`.
    pub replace_beg: Option<String>,
    /// Request headers to set before the request goes out, in order. Those that the client sent
    /// under the name are removed; an empty value removes only.
    pub headers: Vec<(String, String)>,
    /// Put the reason into error responses.
    pub debug: bool,
    /// Automatic cross-origin headers and JSON-P.
    pub aco: bool,
    /// How JSON-P is done where `aco` is on.
    pub jsonp: JsonP,
    /// Use the session state service.
    pub session: bool,
    /// Serve SockJS.
    pub sockjs: Option<SockJs>,
    /// Add no GRIP headers to requests and never act on responses.
    pub no_grip: bool,
    /// Highest log level of its request lines (0 errors to 4 trace). `None`: no cap of its own.
    pub log_level: Option<u8>,
    /// Keep the log of its channels, and answer a returning listener from it.
    pub log: bool,
    /// What happens to a client that reads too slowly.
    pub slow_client: SlowClient,
    /// How long it waits for its targets.
    pub timeouts: Timeouts,
    /// Its WebSockets.
    pub websocket: WebSocketOptions,
    /// The realm of the push service whose clients it is for.
    pub realm: Option<Arc<str>>,
    /// Values of the Origin header that are let in, compared in any case; `*` for one label of a
    /// host is allowed at its beginning (`https://*.example.com`). Empty: all, and requests without.
    pub origins: Vec<String>,
}

impl Default for RouteOptions {
    fn default() -> Self {
        Self {
            sig_iss: "pushpin".to_owned(),
            sig_key: None,
            prefix: String::new(),
            orig_headers: false,
            as_host: None,
            path_rem: 0,
            replace_beg: None,
            headers: Vec::new(),
            debug: false,
            aco: false,
            jsonp: JsonP::default(),
            session: false,
            sockjs: None,
            no_grip: false,
            log_level: None,
            log: true,
            slow_client: SlowClient::default(),
            timeouts: Timeouts::default(),
            websocket: WebSocketOptions::default(),
            realm: None,
            origins: Vec::new(),
        }
    }
}

impl RouteOptions {
    /// Whether a request with this Origin header (`None`: without one) is let in.
    pub fn admits_origin(&self, origin: Option<&str>) -> bool {
        self.origins.is_empty() || origin.is_some_and(|origin| is_listed_origin(&self.origins, origin))
    }
}

/// Whether an Origin header is one of those listed, `*` standing for one label of a host at its beginning.
#[must_use]
pub fn is_listed_origin(list: &[String], origin: &str) -> bool {
    list.iter().any(|allowed| match allowed.split_once("*.") {
        Some((scheme, suffix)) => {
            let below = origin.len().checked_sub(suffix.len() + 1).and_then(|at| origin.split_at_checked(at));
            below.is_some_and(|(start, end)| {
                let label = start.split_at_checked(scheme.len());
                end.strip_prefix('.').is_some_and(|end| end.eq_ignore_ascii_case(suffix))
                    && label.is_some_and(|(start, label)| {
                        start.eq_ignore_ascii_case(scheme) && !label.is_empty() && !label.contains(['.', '/'])
                    })
            })
        }
        None => allowed == "*" || allowed.eq_ignore_ascii_case(origin),
    })
}

/// How JSON-P requests are recognised and answered (Pushpin's `jsonp_*` options).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonP {
    /// Form of the answer.
    pub mode: JsonPMode,
    /// Query parameter with the name of the callback.
    pub callback_param: String,
    /// Query parameter with the request body, read as JSON.
    pub body_param: Option<String>,
    /// Callback for requests that carry the body parameter without a callback.
    pub default_callback: Option<String>,
    /// Method where the query names none. `None`: GET (extended) or POST (basic).
    pub default_method: Option<String>,
}

impl Default for JsonP {
    fn default() -> Self {
        Self {
            mode: JsonPMode::default(),
            callback_param: "callback".to_owned(),
            body_param: None,
            default_callback: None,
            default_method: None,
        }
    }
}

/// Form of a JSON-P answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JsonPMode {
    /// The body alone.
    Basic,
    /// An object with code, reason, headers and body.
    #[default]
    Extended,
}

/// A SockJS endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SockJs {
    /// Path below which it is served.
    pub path: String,
    /// Path presented to the target. `None`: `path`.
    pub as_path: Option<String>,
}

/// What happens to a client whose queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SlowClient {
    /// Its connection is closed, so that it knows.
    #[default]
    Close,
    /// The item is dropped for it and counted. An event stream is told of the gap.
    Drop,
}

/// How long a route waits for its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect, before the next target is tried.
    pub connect: Duration,
    /// From the request sent to the head of the response. `None`: as long as it takes.
    pub response_head: Option<Duration>,
    /// Between two bytes of a response. `None`: as long as it takes.
    pub response_idle: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), response_head: None, response_idle: Some(Duration::from_secs(1800)) }
    }
}

/// The WebSockets of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketOptions {
    /// Pause after which an idle client is sent a ping. `None`: no pings of our own.
    pub ping_interval: Option<Duration>,
    /// Answer the pings of clients here rather than passing them to the target.
    pub answer_pings: bool,
    /// Take offers of permessage-deflate, and make one to direct targets.
    pub compression: bool,
    /// What a client that has missed items is told. Its target is told in any case.
    pub gap: GapNotice,
}

/// What the client of a WebSocket is told when items of a channel are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GapNotice {
    /// A text message, in which `{channel}` and `{last-id}` stand for what they say, escaped as in a JSON string.
    pub message: Option<String>,
    /// The code to close with, after the message.
    pub close: Option<u16>,
}

impl GapNotice {
    /// Whether clients are told at all.
    #[must_use]
    pub const fn is_given(&self) -> bool {
        self.message.is_some() || self.close.is_some()
    }
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            ping_interval: Some(Duration::from_secs(30)),
            answer_pings: true,
            compression: false,
            gap: GapNotice::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &[&str], origin: Option<&str>, expected: bool) {
        let origins = allowed.iter().map(|text| (*text).to_owned()).collect();
        let options = RouteOptions { origins, ..RouteOptions::default() };
        assert_eq!(options.admits_origin(origin), expected, "{origin:?} against {allowed:?}");
    }

    #[test]
    fn origins_are_let_in_by_the_list() {
        check(&[], None, true);
        check(&[], Some("https://evil.example"), true);
        let list = ["https://app.example.com", "https://*.example.org"];
        check(&list, None, false);
        check(&list, Some("null"), false);
        check(&list, Some("https://APP.example.com"), true);
        check(&list, Some("http://app.example.com"), false);
        check(&list, Some("https://app.example.com.evil"), false);
        check(&list, Some("https://a.example.org"), true);
        check(&list, Some("https://example.org"), false);
        check(&list, Some("https://.example.org"), false);
        check(&list, Some("https://evil/a.example.org"), false);
        check(&list, Some("https://évil.example.org"), true);
        check(&["*"], Some("https://any.example"), true);
        check(&["*"], None, false);
    }
}
