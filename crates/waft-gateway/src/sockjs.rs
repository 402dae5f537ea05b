//! SockJS: messages over polls or framed WebSockets for a client, a WebSocket for the target.
//!
//! A session is a client of this gateway's own: it speaks WebSocket over a pair of sockets within the process, so
//! that everything a WebSocket can do here (routes, events over HTTP, channels) holds for it too. `wire` has paths and
//! frames, `session` the state of a session over polls, `bridge` the socket to the gateway. Polls of one session may
//! arrive on different shards; the one that opened it has its bridge.

mod bridge;
mod session;
mod wire;

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Notify;
use waft_http1::RequestHead;

use self::session::{PollId, Polled, Session};
use self::wire::{Frame, Place, Transport};
use crate::body::{BODY_BUFFER, BodyEnd};
use crate::client::Client;
use crate::dress::SCRIPT;
use crate::exchange::{self, Exchange, is_websocket};
use crate::service::Answer;
use crate::shard::Shard;
use crate::ws;

/// Sessions over polls at a time, in the whole process. Each has two descriptors.
const SESSIONS_MAX: usize = 20_000;
/// How often a client that gets nothing is told that the session lives.
const HEARTBEAT: Duration = Duration::from_secs(25);

/// A session of a route: its id and the one the client chose.
type SessionKey = (Arc<str>, String);

/// The sessions over polls, for all shards.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<SessionKey, Arc<Shared>>>);

/// A session, and how those who work on it wake each other.
#[derive(Debug)]
struct Shared {
    session: Mutex<Session>,
    /// There may be something for the poll.
    poll: Notify,
    /// There may be something for the bridge.
    bridge: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks leaves a half-done change behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    fn find(&self, key: &SessionKey) -> Option<Arc<Shared>> {
        lock(&self.0).get(key).map(Arc::clone)
    }

    /// The session of a poll, and whether it is new. None if there are too many.
    fn find_or_open(&self, key: SessionKey) -> Option<(Arc<Shared>, bool)> {
        let mut sessions = lock(&self.0);
        let count = sessions.len();
        match sessions.entry(key) {
            Entry::Occupied(known) => Some((Arc::clone(known.get()), false)),
            Entry::Vacant(_) if count >= SESSIONS_MAX => None,
            Entry::Vacant(place) => {
                let session = Mutex::new(Session::new(Instant::now()));
                let shared = Arc::new(Shared { session, poll: Notify::new(), bridge: Notify::new() });
                Some((Arc::clone(place.insert(shared)), true))
            }
        }
    }

    fn forget(&self, key: &SessionKey) {
        lock(&self.0).remove(key);
    }
}

/// Whether the request is one to the SockJS endpoint of its route.
pub(crate) fn serves(exchange: &Exchange) -> bool {
    let endpoint = exchange.route.options.sockjs.as_ref();
    endpoint.is_some_and(|endpoint| wire::place(endpoint, exchange.head.path()).is_some())
}

/// Serves a request to a SockJS endpoint.
pub(crate) async fn serve(shard: &Rc<Shard>, mut client: Client, mut exchange: Exchange) -> Option<Client> {
    let route = Arc::clone(&exchange.route);
    let Some(endpoint) = &route.options.sockjs else { return Some(client) };
    let path = exchange.head.path().to_owned();
    let place = wire::place(endpoint, &path).unwrap_or(Place::Unknown);
    if is_websocket(&exchange.head) {
        return match place {
            Place::RawWebSocket => {
                let path = with_query(wire::target_path(endpoint, true), &exchange.head);
                if let Some(head) = wire::websocket_request(&exchange.head, &path, "", true) {
                    exchange.head = head;
                }
                ws::serve(shard, client, exchange).await
            }
            Place::Session { transport: Transport::WebSocket, .. } => {
                if let Some(refusal) = ws::refusal(shard, &exchange) {
                    return answer(shard, client, &exchange, refusal).await;
                }
                let Some(meant) = meant(shard, &exchange) else {
                    return answer(shard, client, &exchange, not_found()).await;
                };
                bridge::framed(shard, client, exchange, meant).await
            }
            _ => answer(shard, client, &exchange, not_found()).await,
        };
    }
    match exchange.body.read_all(shard, &mut client).await {
        BodyEnd::Complete => {}
        BodyEnd::TooLong => {
            return answer(shard, client, &exchange, Answer::text(400, "Request too large.\n")).await;
        }
        BodyEnd::Malformed(text) => {
            shard.metrics.requests_malformed.add(1);
            let malformed = Answer::text(400, format!("Failed to parse request: {text}\n"));
            return answer(shard, client, &exchange, malformed).await;
        }
        BodyEnd::Gone => {
            client.abandon(&shard.buffers);
            return None;
        }
    }
    let own = match (place, exchange.head.method()) {
        (_, "OPTIONS") => Answer::text(204, ""),
        (Place::Info, "GET") => info(),
        (Place::Iframe, "GET") => iframe(&exchange),
        (Place::Session { id, transport: Transport::Xhr }, "POST") => {
            return poll(shard, client, exchange, id, None).await;
        }
        (Place::Session { id, transport: Transport::JsonP }, "GET" | "POST") => {
            match wire::callback(exchange.head.query()) {
                Ok(Some(callback)) => return poll(shard, client, exchange, id, Some(callback)).await,
                Ok(None) => Answer::text(400, "Bad Request\n"),
                Err(()) => Answer::text(400, "Invalid callback parameter.\n"),
            }
        }
        (Place::Session { id, transport: Transport::XhrSend }, "POST") => {
            take(shard, &exchange, id, Some(exchange.body.saved().to_vec()))
        }
        (Place::Session { id, transport: Transport::JsonPSend }, "POST") => {
            let payload = wire::form_payload(exchange.head.field("content-type"), exchange.body.saved());
            take(shard, &exchange, id, payload)
        }
        _ => not_found(),
    };
    answer(shard, client, &exchange, own).await
}

fn not_found() -> Answer {
    Answer::text(404, "Not Found\n")
}

/// The path with the query of a request.
fn with_query(path: String, head: &RequestHead) -> String {
    match head.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

/// The request for the WebSocket that a request of a session stands for.
fn meant(shard: &Shard, exchange: &Exchange) -> Option<Exchange> {
    let endpoint = exchange.route.options.sockjs.as_ref()?;
    // 16 bytes that nobody needs to guess: 21 characters at random, one whose low bits are zero.
    let key: String = (0..21).map(|_| fastrand::alphanumeric()).chain(['A', '=', '=']).collect();
    let path = with_query(wire::target_path(endpoint, false), &exchange.head);
    let head = wire::websocket_request(&exchange.head, &path, &key, false)?;
    Some(exchange.to_websocket(shard, head))
}

/// Answers a request with what all answers of SockJS have: nothing is cached, and every site may read it.
async fn answer(shard: &Rc<Shard>, client: Client, exchange: &Exchange, mut answer: Answer) -> Option<Client> {
    let head = &exchange.head;
    if !answer.fields.contains("Cache-Control") {
        answer.fields.push("Cache-Control", "no-store, no-cache, must-revalidate, max-age=0");
    }
    answer.fields.push("Access-Control-Allow-Origin", head.field("origin").unwrap_or(b"*"));
    answer.fields.push("Access-Control-Allow-Credentials", "true");
    if head.method() == "OPTIONS" {
        answer.fields.push("Access-Control-Allow-Methods", "OPTIONS, GET, POST");
        answer.fields.push("Access-Control-Max-Age", "3600");
        if let Some(asked) = head.field("access-control-request-headers") {
            answer.fields.push("Access-Control-Allow-Headers", asked);
        }
    }
    exchange::answer(shard, client, exchange, answer, exchange.body.is_done()).await
}

fn info() -> Answer {
    let info = json!({
        "websocket": true,
        "origins": ["*:*"],
        "cookie_needed": false,
        "entropy": fastrand::u32(..),
    });
    Answer::new(200, "application/json; charset=UTF-8", format!("{info}\n"))
}

fn iframe(exchange: &Exchange) -> Answer {
    let page = wire::iframe_page(&exchange.settings.sockjs_url);
    let mut hasher = DefaultHasher::new();
    page.hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish());
    let known = exchange.head.field("if-none-match").is_some_and(|known| known == tag.as_bytes());
    let mut answer = match known {
        true => Answer { status: 304, ..Answer::text(304, "") },
        false => Answer::new(200, "text/html; charset=UTF-8", page),
    };
    answer.fields.push("ETag", tag);
    answer.fields.push("Cache-Control", "public, max-age=31536000");
    answer
}

/// Takes messages of the client of a session.
fn take(shard: &Shard, exchange: &Exchange, id: &str, payload: Option<Vec<u8>>) -> Answer {
    let key = (Arc::clone(&exchange.route.id), id.to_owned());
    let Some(shared) = shard.gateway.sockjs.find(&key) else { return not_found() };
    let Some(messages) = payload.and_then(|payload| wire::sent(&payload)) else {
        return Answer::text(400, "Payload expected\n");
    };
    let mut session = lock(&shared.session);
    if !session.is_open() {
        return Answer::text(410, "Session terminated\n");
    }
    let taken = session.handle_sent(messages);
    drop(session);
    shared.bridge.notify_one();
    if taken { Answer::text(200, "ok") } else { Answer::text(400, "Message too large\n") }
}

/// What waiting for a poll's answer came to.
enum Waited {
    Answer(Polled),
    ClientGone,
}

/// Answers a poll as soon as there is something to answer with.
async fn poll(
    shard: &Rc<Shard>,
    mut client: Client,
    exchange: Exchange,
    id: &str,
    callback: Option<String>,
) -> Option<Client> {
    let key = (Arc::clone(&exchange.route.id), id.to_owned());
    let Some((shared, fresh)) = shard.gateway.sockjs.find_or_open(key.clone()) else {
        return answer(shard, client, &exchange, Answer::text(503, "Too many sessions\n")).await;
    };
    if fresh {
        match meant(shard, &exchange) {
            Some(meant) => {
                let (shard, shared) = (Rc::clone(shard), Arc::clone(&shared));
                tokio::task::spawn_local(bridge::polled(shard, shared, key, meant));
            }
            None => shard.gateway.sockjs.forget(&key),
        }
    }
    let begun = lock(&shared.session).begin_poll();
    let polled = match begun {
        None => Polled::Frame(Frame::Close(2010, "Another connection still open".to_owned())),
        Some(poll) => {
            let waited = wait(shard, &mut client, &shared, poll).await;
            lock(&shared.session).end_poll(Instant::now(), poll);
            shared.bridge.notify_one();
            match waited {
                Waited::Answer(polled) => polled,
                Waited::ClientGone => {
                    client.abandon(&shard.buffers);
                    return None;
                }
            }
        }
    };
    let own = match (polled, callback) {
        (Polled::Frame(frame), None) => Answer::text(200, frame.text() + "\n"),
        (Polled::Frame(frame), Some(callback)) => Answer::new(200, SCRIPT, frame.script(&callback)),
        (Polled::Refused(status, body), _) => Answer::text(status, body),
    };
    answer(shard, client, &exchange, own).await
}

async fn wait(shard: &Shard, client: &mut Client, shared: &Shared, poll: PollId) -> Waited {
    let heartbeat = Instant::now() + HEARTBEAT;
    loop {
        let polled = lock(&shared.session).poll_frame(poll);
        if let Some(polled) = polled {
            return Waited::Answer(polled);
        }
        // What a client sends early is its next request, of which only so much is read.
        let full = client.buffer.unread().len() >= BODY_BUFFER;
        tokio::select! {
            biased;
            () = shared.poll.notified() => {}
            () = tokio::time::sleep_until(heartbeat.into()) => return Waited::Answer(Polled::Frame(Frame::Heartbeat)),
            read = client.read_more(shard, BODY_BUFFER), if !full => {
                if !matches!(read, Ok(1..)) {
                    return Waited::ClientGone;
                }
            }
        }
    }
}
