//! The filters that ask a web service about each delivery: `http-check` and `http-modify` (GRIP section 8.7).
//!
//! While a question about a listener is open, what else is published for it waits behind, so that the order stays. A
//! listener without such a filter is never looked up here.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Map, Value};
use tracing::debug;
use waft_grip::filter::{Context, Filter, Filters};
use waft_net::Key;
use waft_outbound::CallError;
use waft_route::Route;

use crate::errand::{self, Errand, ErrandError, Places, Reply};
use crate::hold::{Hold, Meta};
use crate::place::Base;
use crate::relay::BodyError;
use crate::shard::Shard;
use crate::subscribe::{self, Item};
use crate::{deliver, update, ws};

/// The questions of a shard that are open.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    open: RefCell<HashMap<Key, Open>>,
    places: Places,
}

/// What waits until a question is answered.
#[derive(Debug, Default)]
struct Open {
    items: VecDeque<Item>,
    /// The hold is to hear from its target again.
    update: bool,
}

/// A delivery that a web service is asked about.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) route: Arc<Route>,
    /// What the service's address is relative to.
    pub(crate) base: Base,
    pub(crate) meta: Rc<Meta>,
    /// The listener's channels and positions.
    pub(crate) positions: Vec<(String, Option<String>)>,
    pub(crate) filters: Filters,
    pub(crate) item: Item,
    pub(crate) content: Bytes,
}

/// What comes of an item for a listener: the content to send, nothing, or why a filter failed.
pub(crate) type Outcome = Result<Option<Bytes>, String>;

/// Lets an item wait if a question about its listener is open. False if there is none.
pub(crate) fn wait(shard: &Shard, key: Key, item: &Item) -> bool {
    let mut open = shard.asking.open.borrow_mut();
    if open.is_empty() {
        return false;
    }
    let Some(question) = open.get_mut(&key) else { return false };
    if question.items.len() < shard.gateway.settings().outside.filters.waiting_max {
        question.items.push_back(Arc::clone(item));
    } else {
        shard.metrics.dropped_filtering.add(1);
    }
    true
}

/// Puts an update off until the open question about its hold is answered. False if there is none.
pub(crate) fn put_off_update(shard: &Shard, key: Key) -> bool {
    let mut open = shard.asking.open.borrow_mut();
    let Some(question) = open.get_mut(&key) else { return false };
    question.update = true;
    true
}

/// Asks about an item for the listener `key`, and delivers it, and what came meanwhile, when the answer is there.
pub(crate) fn put(shard: &Rc<Shard>, key: Key, question: Box<Question>) {
    shard.asking.open.borrow_mut().insert(key, Open::default());
    shard.metrics.filters_under_way.add(1);
    let shard = Rc::clone(shard);
    tokio::task::spawn_local(async move {
        let outcome = outcome(&shard, key, &question).await;
        shard.metrics.filters_under_way.add(-1);
        match &outcome {
            Ok(Some(_)) => {}
            Ok(None) => shard.metrics.dropped_filter.add(1),
            Err(error) => {
                shard.metrics.dropped_filter_error.add(1);
                debug!(channel = %question.item.channel, error, "An item was dropped for a listener because a filter failed.");
            }
        }
        answered(&shard, key, &question.item, outcome);
    });
}

fn answered(shard: &Rc<Shard>, key: Key, item: &Item, outcome: Outcome) {
    let Some(Open { mut items, update }) = shard.asking.open.borrow_mut().remove(&key) else { return };
    give(shard, key, item, outcome);
    while let Some(item) = items.pop_front() {
        deliver_to(shard, key, &item);
        if let Some(again) = shard.asking.open.borrow_mut().get_mut(&key) {
            again.items.append(&mut items);
            again.update |= update;
            return;
        }
    }
    if update {
        update::request(shard, key, update::Urgency::High);
    }
}

/// What a held connection is, as far as deliveries are concerned.
enum Kind {
    Response,
    Stream,
    Ws,
}

fn kind(shard: &Shard, key: Key) -> Option<Kind> {
    match shard.held.borrow().get(key) {
        Some(Hold::Response(_)) => Some(Kind::Response),
        Some(Hold::Stream(_)) => Some(Kind::Stream),
        Some(Hold::Ws(_)) => Some(Kind::Ws),
        Some(Hold::Changing | Hold::Finishing(_) | Hold::Resting(_) | Hold::WsTarget(_)) | None => None,
    }
}

fn give(shard: &Rc<Shard>, key: Key, item: &Item, outcome: Outcome) {
    match kind(shard, key) {
        Some(Kind::Response) => deliver::give_response(shard, key, item, outcome),
        Some(Kind::Stream) => deliver::give_stream(shard, key, outcome),
        Some(Kind::Ws) => ws::give(shard, key, item, outcome),
        None => {}
    }
}

fn deliver_to(shard: &Rc<Shard>, key: Key, item: &Item) {
    match kind(shard, key) {
        Some(Kind::Response) => deliver::to_response(shard, key, item, &mut deliver::Answers::default()),
        Some(Kind::Stream) => deliver::to_stream(shard, key, item),
        Some(Kind::Ws) => ws::deliver_to(shard, key, item),
        None => {}
    }
}

/// Runs the filters in their order, each on what the one before left.
async fn outcome(shard: &Rc<Shard>, key: Key, question: &Question) -> Outcome {
    let failed = |error: &dyn std::fmt::Display| format!("filter error: {error}");
    let mut content = question.content.clone();
    for filter in question.filters.iter() {
        content = match filter {
            Filter::HttpCheck | Filter::HttpModify => {
                let sent = if filter == Filter::HttpModify { content.clone() } else { Bytes::new() };
                match ask(shard, key, question, sent).await {
                    Ok(Verdict::Drop) => return Ok(None),
                    Ok(Verdict::Replace(replaced)) if filter == Filter::HttpModify => replaced,
                    Ok(Verdict::Keep | Verdict::Replace(_)) => content,
                    Err(error) => {
                        shard.metrics.filter_failures.add(1);
                        return Err(failed(&error));
                    }
                }
            }
            local => {
                let positions = subscribe::as_filter_positions(&question.positions);
                let meta = &question.item.payload.meta;
                let context = Context { sub_meta: &question.meta.0, pub_meta: meta, channels: &positions };
                match local.change(&context, Cow::Borrowed(&content)) {
                    Ok(Cow::Owned(changed)) => changed.into(),
                    Ok(Cow::Borrowed(_)) => content,
                    Err(error) => return Err(failed(&error)),
                }
            }
        };
    }
    Ok(Some(content))
}

/// What a web service says.
enum Verdict {
    Drop,
    Keep,
    Replace(Bytes),
}

/// Why a web service's answer is none. The texts are those that users of the filters know.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("missing url value")]
    NoUrl,
    #[error("invalid url value")]
    Url,
    #[error("network request failed: {0}")]
    Failed(&'static str),
    #[error("unexpected network request status: code={0}")]
    Status(u16),
    #[error("network response exceeded {0} bytes")]
    TooLong(usize),
}

async fn ask(shard: &Rc<Shard>, key: Key, question: &Question, body: Bytes) -> Result<Verdict, AskError> {
    let settings = shard.gateway.settings();
    let filters = settings.outside.filters;
    let url = question.meta.0.iter().find(|(name, _)| name == "url").ok_or(AskError::NoUrl)?;
    let place = question.base.join(&url.1).filter(Base::is_http).ok_or(AskError::Url)?;
    let start = shard.gateway.filter_pace.start(place.as_str(), Instant::now(), filters.rate_max);
    if start > Instant::now() {
        tokio::time::sleep_until(start.into()).await;
    }
    let _turn = shard.asking.places.take(shard.share_of(filters.concurrent_max)).await;
    if kind(shard, key).is_none() {
        // The listener has gone while it waited.
        return Ok(Verdict::Drop);
    }
    shard.metrics.filter_requests.add(1);
    let last: Vec<(String, String)> =
        question.positions.iter().filter_map(|(name, id)| Some((name.clone(), id.clone()?))).collect();
    let fields = [("Sub-Meta", as_json(&question.meta.0)), ("Pub-Meta", as_json(&question.item.payload.meta))];
    let errand = Errand { method: "POST", place: &place, last: &last, fields: &fields, body, limit: filters.timeout };
    let answer = async {
        let Reply { status, fields, mut body, .. } =
            errand::run(shard, &question.route, &errand).await.map_err(|error| AskError::Failed(reason(&error)))?;
        let content = body.read_all(shard, filters.body_max).await;
        body.release(shard);
        if !matches!(status, 200 | 204) {
            return Err(AskError::Status(status));
        }
        if fields.get("action").is_some_and(|action| action.trim_ascii().eq_ignore_ascii_case(b"drop")) {
            return Ok(Verdict::Drop);
        }
        match content {
            Ok(_) if status == 204 => Ok(Verdict::Keep),
            Ok(content) => Ok(Verdict::Replace(content)),
            Err(BodyError::TooLong { limit }) => Err(AskError::TooLong(limit)),
            Err(BodyError::Cut(_)) => Err(AskError::Failed("disconnected")),
        }
    };
    tokio::time::timeout(filters.timeout, answer)
        .await
        .unwrap_or(Err(AskError::Failed("request timed out")))
        .inspect_err(|error| debug!(url = place.as_str(), %error, "A filter got no answer."))
}

/// The word for a failure.
fn reason(error: &ErrandError) -> &'static str {
    debug!(%error, "A filter's request failed.");
    match error {
        ErrandError::NotReached(_) => "connection refused",
        ErrandError::Broken(_) => "disconnected",
        ErrandError::TimedOut(_) => "request timed out",
        ErrandError::Outside(CallError::Connect(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "connection refused"
        }
        ErrandError::Outside(CallError::ConnectTimeout) => "connection timed out",
        ErrandError::Outside(CallError::Tls(_)) => "tls error",
        ErrandError::Outside(CallError::Closed | CallError::Io(_)) => "disconnected",
        ErrandError::Outside(_) | ErrandError::Malformed(_) => "general error",
    }
}

/// Metadata as one line of JSON that every program reads alike: in ASCII.
fn as_json(meta: &[(String, String)]) -> String {
    let map: Map<String, Value> =
        meta.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect();
    let text = Value::Object(map).to_string();
    if text.is_ascii() {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if char.is_ascii() {
            out.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// When requests to an address may start: so many each second, a tenth of them at once.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The time up to which an address has used its share.
    used: Mutex<HashMap<Box<str>, Instant>>,
}

impl Pace {
    /// Addresses above which those with nothing used are forgotten.
    const KEPT: usize = 1_024;

    /// When a request to `url` may start, which is then counted.
    fn start(&self, url: &str, now: Instant, rate_max: u32) -> Instant {
        let share = Duration::from_secs(1) / rate_max.max(1);
        let ahead = share * (rate_max / 10).saturating_sub(1);
        // A thread that panicked left whole times behind.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() > Self::KEPT {
            used.retain(|_, until| *until > now);
        }
        let until = used.get(url).copied().filter(|until| *until > now).unwrap_or(now);
        let start = until.checked_sub(ahead).map_or(now, |start| start.max(now));
        used.insert(url.into(), until + share);
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_one_line_of_ascii() {
        let meta = [("user", "al\"ice\r\n"), ("city", "Zürich 🌍")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(as_json(&meta), r#"{"city":"Z\u00fcrich \ud83c\udf0d","user":"al\"ice\r\n"}"#);
        assert_eq!(as_json(&[]), "{}");
    }

    #[test]
    fn an_address_is_asked_no_more_often_than_allowed() {
        let (pace, now) = (Pace::default(), Instant::now());
        let starts: Vec<Duration> = (0..120).map(|_| pace.start("u", now, 100) - now).collect();
        assert!(starts[..10].iter().all(Duration::is_zero), "{starts:?}");
        assert_eq!((starts[10], starts[109]), (Duration::from_millis(10), Duration::from_secs(1)));
        assert_eq!(pace.start("other", now, 100), now);
        let later = now + Duration::from_secs(5);
        assert_eq!(pace.start("u", later, 100), later);
        assert_eq!(pace.start("slow", now, 1), now);
        assert_eq!(pace.start("slow", now, 1), now + Duration::from_secs(1));
    }
}
