//! The API that publishers and operators call (GRIP section 11.5).
//!
//! Answers, their texts included, are those that publishers know from Pushpin. Other on purpose: connections are kept,
//! chunked bodies are read, a query is no part of the path, and `/recover` needs no body.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde::Serialize;
use waft_gateway::{Answer, Extension, Gateway, Reply, Request, Service};
use waft_grip::item::parse_publish_body;
use waft_grip::sig::VerifyingKey;
use waft_http1::{Framing, HeadError, RequestHead};
use waft_hub::{Outcome, Published};

use crate::accept::{self, Form};
use crate::auth::Guard;
use crate::metrics::{self, MetricsNames};
use crate::{realm, stats};

/// What the control API is told to do.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// The token that callers must show as a bearer token, or as the password of basic authentication.
    pub token: Option<String>,
    /// The key of signed tokens (JWT) that callers may show as a bearer token. They must expire. With neither key nor
    /// token, everyone who reaches the API may call it.
    pub jwt_key: Option<VerifyingKey>,
    /// The longest body of a call, in bytes. Default 1,000,000; longer ones are answered with 400.
    pub body_max: usize,
    /// The longest head of a call, in bytes. Default 10,000; longer ones are answered with 400.
    pub header_max: usize,
    /// Whether the metrics of Pushpin are there too, under its names.
    pub pushpin_metrics: bool,
    /// What stands before Pushpin's names. Characters that no name may have are left out.
    pub metrics_prefix: String,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            token: None,
            jwt_key: None,
            body_max: 1_000_000,
            header_max: 10_000,
            pushpin_metrics: false,
            metrics_prefix: String::new(),
        }
    }
}

/// The control API: publishing, recovery, statistics, metrics and health.
#[derive(Debug)]
pub struct ControlApi {
    state: ArcSwap<State>,
    body_max: usize,
    header_max: usize,
    extensions: Vec<Arc<dyn Extension>>,
}

#[derive(Debug)]
struct State {
    guard: Guard,
    names: MetricsNames,
}

impl ControlApi {
    /// An API that does as it is configured.
    #[must_use]
    pub fn new(config: ControlConfig) -> Self {
        let (body_max, header_max) = (config.body_max, config.header_max);
        Self { state: ArcSwap::from_pointee(State::new(config)), body_max, header_max, extensions: Vec::new() }
    }

    /// Serves the paths of an extension too, and its metrics with the others.
    #[must_use]
    pub fn extended_by(mut self, extension: Arc<dyn Extension>) -> Self {
        self.extensions.push(extension);
        self
    }

    /// Takes other secrets and names from now on. The limits stay.
    pub fn reload(&self, config: ControlConfig) {
        self.state.store(State::new(config).into());
    }
}

impl State {
    fn new(config: ControlConfig) -> Self {
        let names = MetricsNames::new(&config);
        Self { guard: Guard { token: config.token, jwt_key: config.jwt_key }, names }
    }
}

impl Service for ControlApi {
    fn answer(&self, gateway: &Gateway, request: &Request<'_>) -> Answer {
        let head = request.head;
        let path = head.path();
        // One slash at the end is no part of the name; client libraries publish to `/publish/`.
        let name = path.strip_suffix('/').unwrap_or(path);
        if let Some(place) = realm::place(name) {
            // Each realm has keys of its own.
            return realm::answer(gateway, request, &place);
        }
        let state = self.state.load();
        if let Some(place) = realm::occupancy::place(name) {
            let is_trusted = state.guard.admits(head.field("Authorization"), now_unix_s);
            return realm::occupancy::answer(gateway, request, place, is_trusted);
        }
        if !matches!(name, "/healthz" | "/readyz")
            && !state.guard.is_open()
            && !state.guard.admits(head.field("Authorization"), now_unix_s)
        {
            return state.guard.refusal();
        }
        match name {
            "/publish" | "/recover" | "" => publisher(gateway, request, name),
            "/stats" => reading(head, || stats::stats(gateway)),
            "/channels" => reading(head, || stats::channels(gateway, head.query().unwrap_or_default())),
            "/metrics" => reading(head, || metrics::answer(gateway, &state.names, &self.extensions)),
            "/healthz" => reading(head, || Answer::text(200, &b"ok\n"[..])),
            "/readyz" => reading(head, || readiness(gateway)),
            _ => match accept::form(head.fields_named("Accept")) {
                Some(_) => Answer::text(404, &b"Not Found\n"[..]),
                None => not_acceptable(),
            },
        }
    }

    fn reply(&self, gateway: &Gateway, request: &Request<'_>) -> Reply {
        let below = |extension: &&Arc<dyn Extension>| {
            let rest = request.head.path().strip_prefix(extension.prefix());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match self.extensions.iter().find(below) {
            Some(extension) => {
                let trusted = self.state.load().guard.admits(request.head.field("Authorization"), now_unix_s);
                extension.reply(request, trusted)
            }
            None => Reply::Now(self.answer(gateway, request)),
        }
    }

    fn body_max(&self) -> usize {
        self.body_max
    }

    fn too_large(&self) -> Answer {
        Answer::text(400, &b"Request body too large.\n"[..])
    }

    fn head_max(&self) -> Option<usize> {
        Some(self.header_max)
    }

    fn malformed(&self, error: &HeadError) -> Answer {
        let text = match error {
            HeadError::HeadTooLong { .. } => "Request header too large.\n",
            HeadError::InvalidContentLength => "Bad Content-Length.\n",
            _ => "Failed to parse request header.\n",
        };
        Answer::text(400, text)
    }
}

/// Answers what GRIP publishers call.
fn publisher(gateway: &Gateway, request: &Request<'_>, name: &str) -> Answer {
    let head = request.head;
    let Some(form) = accept::form(head.fields_named("Accept")) else { return not_acceptable() };
    match (name, head.method()) {
        ("", _) => Answer::text(200, &b"Pushpin API\n"[..]),
        ("/publish", "POST") => publish(gateway, request, form),
        (_, "POST") => {
            gateway.recover();
            done(form, "Updated\n", "{\"message\":\"Updated\"}\n")
        }
        (_, method) => method_not_allowed(method, "POST"),
    }
}

/// Publishes the items of a body in their order; all of them, or none if one is malformed.
fn publish(gateway: &Gateway, request: &Request<'_>, form: Form) -> Answer {
    if request.head.framing() == Framing::None {
        return Answer::text(411, &b"Request requires Content-Length.\n"[..]);
    }
    if gateway.is_overloaded() {
        gateway.publish_metrics().overloads.add(1);
        let mut answer = Answer::text(503, &b"Too much waits for its delivery. Publish again in a second.\n"[..]);
        answer.fields.push("Retry-After", b"1");
        return answer;
    }
    let items = match parse_publish_body(request.body) {
        Ok(items) => items,
        Err(error) => return Answer::text(400, format!("{error}\n")),
    };
    if form == Form::Json && wants_details(request.head) {
        let mut details = Vec::with_capacity(items.len());
        for item in items {
            let channel = item.channel.clone();
            details.push(Detail::new(channel, gateway.publish(request.now, item)));
        }
        return stats::json(&Details { message: "Published", items: details });
    }
    for item in items {
        gateway.publish(request.now, item);
    }
    done(form, "Published\n", "{\"message\":\"Published\"}\n")
}

/// Whether the publisher wants to know what became of each item.
fn wants_details(head: &RequestHead) -> bool {
    head.query().is_some_and(|query| query.split('&').any(|part| part == "details=true"))
        || head.field("Waft-Details").is_some_and(|value| value.eq_ignore_ascii_case(b"true"))
}

#[derive(Debug, Serialize)]
struct Details {
    message: &'static str,
    items: Vec<Detail>,
}

/// What became of one item.
#[derive(Debug, Serialize)]
struct Detail {
    channel: String,
    outcome: &'static str,
    /// Its place in the channel; null if it was not delivered.
    position: Option<String>,
    /// Listeners that the channel had.
    listeners: usize,
}

impl Detail {
    fn new(channel: String, published: Published) -> Self {
        let outcome = match published.outcome {
            Outcome::Delivered => "delivered",
            Outcome::Duplicate => "duplicate",
            Outcome::Parked => "parked",
            Outcome::ParkedFull => "parked-full",
            Outcome::RivalParked => "rival-parked",
        };
        let position = published.position.map(|position| position.to_string());
        Self { channel, outcome, position, listeners: published.listeners }
    }
}

fn readiness(gateway: &Gateway) -> Answer {
    if gateway.is_draining() { Answer::text(503, &b"draining\n"[..]) } else { Answer::text(200, &b"ready\n"[..]) }
}

/// Answers a request for something that is only read.
fn reading(head: &RequestHead, answer: impl FnOnce() -> Answer) -> Answer {
    match head.method() {
        "GET" | "HEAD" => answer(),
        method => method_not_allowed(method, "GET, HEAD"),
    }
}

fn done(form: Form, text: &'static str, json: &'static str) -> Answer {
    match form {
        Form::Json => Answer::new(200, "application/json", Bytes::from_static(json.as_bytes())),
        Form::Text => Answer::text(200, Bytes::from_static(text.as_bytes())),
    }
}

fn not_acceptable() -> Answer {
    let text = &b"Not Acceptable. Supported formats are text/plain and application/json.\n"[..];
    Answer::text(406, text)
}

fn method_not_allowed(method: &str, allowed: &str) -> Answer {
    let mut answer = Answer::text(405, format!("Method not allowed: {method}.\n"));
    answer.fields.push("Allow", allowed);
    answer
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
