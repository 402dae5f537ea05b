//! The WebSocket of LiveResource: JSON messages, or lines of text, by which resources are followed and let go.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use waft_hub::Position;
use waft_net::Key;
use waft_websocket::frame::Opcode;
use waft_websocket::message::Message;

use super::{Address, address};
use crate::deliver::{after, members, paced};
use crate::realm::door::{newest, position};
use crate::realm::feed::Start;
use crate::realm::forms;
use crate::realm::poll::tag;
use crate::realm::socket::{Refused, Speaks, begin, end, tell, with_socket};
use crate::shard::Shard;
use crate::subscribe::{Class, Item};
use crate::ws::{self, Out};

/// What a WebSocket follows by the address of a resource.
#[derive(Debug)]
pub(in crate::realm) struct Follows {
    /// The path of the realm, below which all resources are.
    root: String,
    /// Lines of text were agreed on when the WebSocket was opened.
    speaks_lines: bool,
    /// By the name of the channel in the hub.
    followed: HashMap<Arc<str>, Follow>,
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Follow {
    /// As the client has named it.
    uri: String,
    dialect: Dialect,
    /// Its changes are wanted, not its value.
    changes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Dialect {
    Json,
    Lines,
}

impl Follows {
    pub(in crate::realm) fn new(root: String, speaks_lines: bool) -> Self {
        Self { root, speaks_lines, followed: HashMap::new() }
    }

    /// Whether the WebSocket was opened for lines of text.
    pub(in crate::realm) const fn speaks_lines(&self) -> bool {
        self.speaks_lines
    }

    /// A channel is not subscribed to any more.
    pub(in crate::realm) fn forget(&mut self, hub_name: &str) {
        self.followed.remove(hub_name);
    }
}

/// Does something with what the socket of a key follows.
fn with_follows<T>(shard: &Shard, key: Key, act: impl FnOnce(&mut Follows) -> T) -> Option<T> {
    with_socket(shard, key, |socket| match &mut socket.speaks {
        Speaks::Json(_, follows) => Some(act(follows)),
        Speaks::Bayeux(_) => None,
    })?
}

/// Whether a message is a line of text, and not JSON.
pub(in crate::realm) fn is_line(shard: &Shard, key: Key, text: &[u8]) -> bool {
    !text.starts_with(b"{")
        && (text.starts_with(b"GET ")
            || text.starts_with(b"CANCEL ")
            || with_follows(shard, key, |follows| follows.speaks_lines) == Some(true))
}

/// A line has come.
pub(in crate::realm) fn on_line(shard: &Rc<Shard>, key: Key, text: &[u8], out: &mut Out) {
    let line = str::from_utf8(text).unwrap_or_default().lines().next().unwrap_or_default();
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    let (uri, outcome) = match words[..] {
        ["GET", uri] => (uri, follow(shard, key, uri, Dialect::Lines, false)),
        ["CANCEL", uri] => (uri, let_go(shard, key, uri).map(|()| Bytes::new())),
        [_, uri] => (uri, Err(Refused { code: "unknown-type", text: "" })),
        _ => return out.client_frame(Opcode::Text, true, b"ERROR * 400\nBad format."),
    };
    match outcome {
        Ok(events) => {
            out.client_frame(Opcode::Text, true, format!("OK {uri}").as_bytes());
            out.client_bytes(&events);
        }
        Err(refused) => {
            let (status, text) = match refused.code {
                "subscribed" => (400, "Already listening."),
                "not-subscribed" => (400, "Not listening."),
                "not-found" => (404, "Not found"),
                "unknown-type" => (405, "Method not allowed."),
                "too-many-subscriptions" => (403, "Too many resources."),
                _ => (403, "Forbidden"),
            };
            out.client_frame(Opcode::Text, true, format!("ERROR {uri} {status}\n{text}").as_bytes());
        }
    }
}

/// A JSON message asks to follow a resource.
pub(in crate::realm) fn subscribe(shard: &Rc<Shard>, key: Key, id: &Value, uri: &str, changes: bool, out: &mut Out) {
    match follow(shard, key, uri, Dialect::Json, changes) {
        Ok(events) => {
            tell(&json!({ "type": "subscribed", "id": id }), out);
            out.client_bytes(&events);
        }
        Err(refused) => tell_refused(id, &refused, out),
    }
}

/// A JSON message asks to let go of a resource.
pub(in crate::realm) fn unsubscribe(shard: &Rc<Shard>, key: Key, id: &Value, uri: &str, out: &mut Out) {
    match let_go(shard, key, uri) {
        Ok(()) => tell(&json!({ "type": "unsubscribed", "id": id }), out),
        Err(refused) => tell_refused(id, &refused, out),
    }
}

fn tell_refused(id: &Value, refused: &Refused, out: &mut Out) {
    let condition = if refused.code == "not-found" { "item-not-found" } else { refused.code };
    let Refused { code, text } = refused;
    tell(&json!({ "type": "error", "id": id, "condition": condition, "code": code, "text": text }), out);
}

/// The channel that an address names, by its own name.
fn resolve(shard: &Shard, key: Key, uri: &str) -> Result<Address, Refused> {
    let found = with_follows(shard, key, |follows| address(uri, &follows.root)).flatten();
    found.ok_or(Refused { code: "not-found", text: "the address names no channel of this realm" })
}

/// Follows a resource; returns the frames that come first: its value, or the changes after the position in the address.
fn follow(shard: &Rc<Shard>, key: Key, uri: &str, dialect: Dialect, changes: bool) -> Result<Bytes, Refused> {
    let Address { channel, after } = resolve(shard, key, uri)?;
    let start = match (changes, &after) {
        // The value may have changed since the client has read it.
        (false, _) => Start::Last(usize::MAX),
        (true, None) => Start::Now,
        (true, Some(after)) => position(after).map_or(Start::Unknown, Start::After),
    };
    let (joined, name) = begin(shard, key, &channel, Class::Live, start)?;
    if joined.gap {
        end(shard, key, &name);
        return Err(Refused { code: "not-found", text: "the position is too old or unknown; start over" });
    }
    let follow = Follow { uri: uri.to_owned(), dialect, changes };
    let missed =
        if changes { joined.missed.as_slice() } else { newest(&joined.missed).map_or(&[][..], std::slice::from_ref) };
    let events = frames(missed, &follow);
    with_follows(shard, key, |follows| follows.followed.insert(name.into(), follow));
    Ok(events)
}

fn let_go(shard: &Rc<Shard>, key: Key, uri: &str) -> Result<(), Refused> {
    let Address { channel, .. } = resolve(shard, key, uri)?;
    let name = with_socket(shard, key, |socket| socket.tenant.hub_name(&channel)).unwrap_or_default();
    let is_followed = with_follows(shard, key, |follows| follows.followed.contains_key(&*name)) == Some(true);
    if is_followed && end(shard, key, &name) {
        return Ok(());
    }
    Err(Refused { code: "not-subscribed", text: "the resource is not followed" })
}

/// Delivers items of one channel to the WebSockets that follow it by an address. Those that name it alike get the same
/// bytes.
pub(in crate::realm) async fn deliver(shard: &Rc<Shard>, items: &[Item]) -> usize {
    let Some(first) = items.first() else { return 0 };
    let crowd = members(shard, &first.channel, Class::Live);
    let count = crowd.len();
    let mut made: HashMap<Follow, Bytes> = HashMap::new();
    for member in paced(crowd) {
        let Some(member) = member else {
            tokio::task::yield_now().await;
            continue;
        };
        let follow = with_follows(shard, member.key, |follows| follows.followed.get(&first.channel).cloned());
        let Some(follow) = follow.flatten() else { continue };
        let bytes = if member.since < first.position.number {
            made.entry(follow).or_insert_with_key(|follow| frames(items, follow)).clone()
        } else {
            frames(after(items, member.since), &follow)
        };
        if !bytes.is_empty() && ws::deliver_bytes(shard, member.key, &bytes) {
            shard.metrics.delivered_ws.add(items.len() as u64);
        }
    }
    count
}

/// Items as the frames of events.
fn frames(items: &[Item], follow: &Follow) -> Bytes {
    let mut out = BytesMut::new();
    for item in items {
        let Some(value) = forms::value(item) else { continue };
        out.extend_from_slice(Message::new(Opcode::Text, &event(item.position, value, follow)).plain());
    }
    out.freeze()
}

fn event(at: Position, value: &[u8], follow: &Follow) -> Vec<u8> {
    let before = Position { number: at.number.saturating_sub(1), ..at };
    let uri = &follow.uri;
    let headers = if follow.changes {
        let path = uri.split_once('?').map_or(&**uri, |(path, _)| path);
        let link = format!("<{path}?after={at}>; rel=\"changes changes-wait\"");
        json!({ "Changes-Id": at.to_string(), "Previous-Changes-Id": before.to_string(), "Link": link })
    } else {
        json!({ "Content-Type": "application/json", "ETag": tag(at), "Previous-ETag": tag(before) })
    };
    if follow.dialect == Dialect::Lines {
        return [format!("* {uri} {headers}\n").as_bytes(), value].concat();
    }
    let begin = format!("{{\"type\":\"event\",\"uri\":{},\"headers\":{headers},\"body\":", Value::from(uri.as_str()));
    let (open, close) = if follow.changes { ("[", "]}") } else { ("", "}") };
    [begin.as_bytes(), open.as_bytes(), value, close.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_say_the_address_as_the_client_did() {
        let check = |uri: &str, dialect, changes, expected: &str| {
            let follow = Follow { uri: uri.to_owned(), dialect, changes };
            let at = Position { epoch: 7, number: 9 };
            assert_eq!(String::from_utf8(event(at, b"{\"x\":1}", &follow)).unwrap(), expected);
        };
        let headers = r#"{"Content-Type":"application/json","ETag":"\"7-9\"","Previous-ETag":"\"7-8\""}"#;
        check("/a", Dialect::Lines, false, &format!("* /a {headers}\n{{\"x\":1}}"));
        check(
            "http://h/a",
            Dialect::Json,
            false,
            &format!(r#"{{"type":"event","uri":"http://h/a","headers":{headers},"body":{{"x":1}}}}"#),
        );
        check(
            "/a?after=7-2",
            Dialect::Json,
            true,
            r#"{"type":"event","uri":"/a?after=7-2","headers":{"Changes-Id":"7-9","Link":"</a?after=7-9>; rel=\"changes changes-wait\"","Previous-Changes-Id":"7-8"},"body":[{"x":1}]}"#,
        );
    }
}
