//! What a request of a realm's client asks for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use waft_grip::item::{Formats, Item};
use waft_http1::{Fields, RequestHead};
use waft_hub::Position;
use waft_realm::{Grant, Operation, Rate, is_channel};

use super::presence::{self, Membership};
use super::tenant::Tenant;
use super::{bayeux, feed, forms, live, poll, socket, unix_seconds};
use crate::body::{BodyEnd, RequestBody};
use crate::client::Client;
use crate::exchange::{self, Exchange, is_websocket};
use crate::service::Answer;
use crate::shard::Shard;
use crate::ws;

/// A request, as far as all doors have to know it.
pub(super) struct Ask {
    pub(super) tenant: Arc<Tenant>,
    /// The channel that the path names; empty for none.
    pub(super) channel: String,
    pub(super) query: HashMap<String, String>,
    pub(super) grant: Option<Grant>,
    pub(super) resource: Arc<Resource>,
    /// Its client as a member of the channel, if it has entered by this request.
    pub(super) membership: Option<Membership>,
}

/// Where a channel is, as other resources link to it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Resource {
    /// Its path.
    pub(super) path: String,
    /// The path of the realm itself, where many channels are followed at once; all others are below it.
    pub(super) root: String,
}

/// Where the Bayeux endpoint of a realm is, below its route.
const BAYEUX: &str = "bayeux";

/// Whether waft answers the request itself: all of those to a realm without targets, and those to the Bayeux endpoint.
pub(crate) fn serves(exchange: &Exchange) -> bool {
    exchange.route.options.realm.is_some() && (exchange.route.targets.is_empty() || is_bayeux(own_path(exchange)))
}

/// The path below that of the route, without the slash at its beginning.
fn own_path(exchange: &Exchange) -> &str {
    let path = exchange.head.path();
    let below = exchange.route.condition.path_beg.as_deref().and_then(|beginning| path.strip_prefix(beginning));
    let below = below.unwrap_or(path);
    below.strip_prefix('/').unwrap_or(below)
}

fn is_bayeux(path: &str) -> bool {
    path.strip_prefix(BAYEUX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Serves a request of a realm's client.
pub(crate) async fn serve(shard: &Rc<Shard>, mut client: Client, mut exchange: Exchange) -> Option<Client> {
    let name = exchange.route.options.realm.clone().unwrap_or_default();
    let Some(tenant) = shard.gateway.realms().get(&name) else {
        return answer(shard, client, &exchange, Answer::text(404, "There is no such realm.\n")).await;
    };
    let realm = tenant.realm();
    let origin = exchange.head.field("origin").and_then(|origin| str::from_utf8(origin).ok());
    if origin.is_some_and(|origin| !realm.origins.is_empty() && !waft_route::is_listed_origin(&realm.origins, origin)) {
        let refused = Answer::text(403, "Origin not allowed.\n");
        return exchange::answer(shard, client, &exchange, refused, exchange.body.is_done()).await;
    }
    if exchange.head.method() == "OPTIONS" {
        return answer(shard, client, &exchange, preflight(&exchange.head)).await;
    }
    let own = own_path(&exchange).to_owned();
    if is_websocket(&exchange.head)
        && let Some(refusal) = ws::refusal(shard, &exchange)
    {
        return answer(shard, client, &exchange, refusal).await;
    }
    if !is_websocket(&exchange.head) {
        let limit = if is_bayeux(&own) { bayeux::BATCH_MAX } else { realm.limits.message_max };
        exchange.body = RequestBody::new(&exchange.head, limit);
        match exchange.body.read_all(shard, &mut client).await {
            BodyEnd::Complete => {}
            BodyEnd::TooLong => {
                return answer(shard, client, &exchange, Answer::text(413, "The message is too large.\n")).await;
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
    }
    if is_bayeux(&own) {
        return bayeux::serve(shard, client, exchange, tenant).await;
    }
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(exchange.head.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let grant = match token(&exchange.head, &query).map(|token| realm.grant(&token, unix_seconds())) {
        None => None,
        Some(Ok(grant)) => Some(grant),
        Some(Err(error)) => {
            let mut refused = Answer::text(401, format!("Unauthorized: {error}.\n"));
            refused.fields.push("WWW-Authenticate", "Bearer realm=\"waft\"");
            return answer(shard, client, &exchange, refused).await;
        }
    };
    let channel = percent_decoded(&own);
    let path = exchange.head.path().to_owned();
    let mut root = path.strip_suffix(&*own).unwrap_or_default().to_owned();
    if !root.ends_with('/') {
        root.push('/');
    }
    let resource = Arc::new(Resource { path, root });
    let ask = Ask { tenant, channel, query, grant, resource, membership: None };
    if is_websocket(&exchange.head) {
        return socket::serve(shard, client, exchange, ask).await;
    }
    match exchange.head.method() {
        "GET" | "HEAD" => read(shard, client, exchange, ask).await,
        "POST" | "PUT" => {
            let own = publish(shard, &exchange, &ask);
            answer(shard, client, &exchange, own).await
        }
        method => {
            let mut refused = Answer::text(405, format!("Method not allowed: {method}.\n"));
            refused.fields.push("Allow", "GET, HEAD, POST, PUT, OPTIONS");
            answer(shard, client, &exchange, refused).await
        }
    }
}

/// A token of the client: as a bearer token, or in the query, where an `EventSource` has to put it.
fn token(head: &RequestHead, query: &HashMap<String, String>) -> Option<String> {
    let field = head.field("authorization").and_then(|value| str::from_utf8(value).ok());
    let bearer = field.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    bearer.or_else(|| query.get("token").cloned()).filter(|token| !token.is_empty())
}

/// Serves a request for a channel.
async fn read(shard: &Rc<Shard>, client: Client, mut exchange: Exchange, mut ask: Ask) -> Option<Client> {
    if ask.channel.is_empty() {
        return live::serve(shard, client, exchange, ask).await;
    }
    if let Some(refused) = refusal(&ask, &ask.channel, Operation::Read) {
        return answer(shard, client, &exchange, refused).await;
    }
    let head = &exchange.head;
    let form = if accepts(head, EVENTS) {
        Some(feed::Form::Events)
    } else if accepts(head, b"application/x-ndjson") || accepts(head, b"application/ndjson") {
        Some(feed::Form::Lines)
    } else {
        None
    };
    ask.membership = match presence::enter_by_request(shard, &exchange, &ask) {
        Ok(membership) => membership,
        Err(refused) => return answer(shard, client, &exchange, refused).await,
    };
    let Some(form) = form else {
        if presence::wants_list(&ask) {
            let list = presence::list(shard, &ask);
            return answer(shard, client, &exchange, list).await;
        }
        return poll::serve(shard, client, exchange, ask).await;
    };
    exchange.guest = match ask.tenant.admit() {
        Some(mut guest) => {
            guest.tell(&ask.tenant, if form == feed::Form::Events { "sse" } else { "ndjson" }, ask.grant.as_ref());
            guest.keep_all(ask.membership.take());
            Some(guest)
        }
        None => return answer(shard, client, &exchange, full()).await,
    };
    feed::serve(shard, client, exchange, &ask, form).await
}

/// The media type of server-sent events.
pub(super) const EVENTS: &[u8] = b"text/event-stream";

/// Whether a client says that it takes answers of a media type.
pub(super) fn accepts(head: &RequestHead, kind: &[u8]) -> bool {
    head.fields_named("accept").flat_map(|value| value.split(|byte| *byte == b',')).any(|range| {
        let name = range.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(kind)
    })
}

/// The answer to one client more than a realm may have.
pub(super) fn full() -> Answer {
    let mut answer = Answer::text(503, "The realm has as many connections as it may.\n");
    answer.fields.push("Retry-After", "5");
    answer
}

/// Why a client may not do this with a channel.
pub(super) fn refusal(ask: &Ask, channel: &str, operation: Operation) -> Option<Answer> {
    if !is_channel(channel) {
        return Some(Answer::text(404, "There is no such channel.\n"));
    }
    if ask.tenant.realm().may(operation, channel, ask.grant.as_ref()) {
        return None;
    }
    Some(match ask.grant {
        Some(_) => Answer::text(403, "The token does not allow this.\n"),
        None => {
            let mut refused = Answer::text(401, "A token is needed for this.\n");
            refused.fields.push("WWW-Authenticate", "Bearer realm=\"waft\"");
            refused
        }
    })
}

/// Publishes the body of a request, a JSON value, to the channel that it names.
fn publish(shard: &Shard, exchange: &Exchange, ask: &Ask) -> Answer {
    if let Some(refused) = refusal(ask, &ask.channel, Operation::Publish) {
        return refused;
    }
    let Some(value) = str::from_utf8(exchange.body.saved()).ok().and_then(json_text) else {
        return Answer::text(400, "The body is not valid JSON.\n");
    };
    let now = Instant::now();
    if !ask.tenant.take_from_rate(now) {
        let mut refused = Answer::text(429, "Too many messages are published.\n");
        refused.fields.push("Retry-After", "1");
        return refused;
    }
    let published = shard.gateway.publish_in(&ask.tenant, now, item(&ask.channel, value));
    let mut done = Answer::new(
        202,
        "application/json",
        published.position.map_or_else(|| "{}\n".to_owned(), |position| format!("{{\"id\":\"{position}\"}}\n")),
    );
    if let Some(position) = published.position {
        done.fields.push("ETag", poll::tag(position));
        poll::put_links(&mut done.fields, &ask.resource, position);
    }
    done
}

/// An item with this JSON value.
pub(super) fn item(channel: &str, value: impl Into<Bytes>) -> Item {
    Item::new(channel, Formats { json_object: Some(value.into()), ..Formats::default() })
}

/// JSON without white space, if that is what a text is.
pub(super) fn json_text(text: &str) -> Option<Vec<u8>> {
    // Depth is bounded here, so that readers of other kinds than ours are not overwhelmed.
    serde_json::from_str::<serde_json::Value>(text).ok().map(|_valid| waft_bayeux::compact(text))
}

/// Answers with what scripts of other sites need.
pub(super) async fn answer(
    shard: &Rc<Shard>,
    client: Client,
    exchange: &Exchange,
    mut answer: Answer,
) -> Option<Client> {
    cross_origin(&exchange.head, &mut answer.fields);
    exchange::answer(shard, client, exchange, answer, exchange.body.is_done()).await
}

/// Response headers that scripts of other sites may read.
const EXPOSED: &str = "ETag, Link, Previous-ETag, Changes-Id, Previous-Changes-Id, X-Poll-Interval, Retry-After";

/// Adds the headers that let a script of another site read a response.
pub(super) fn cross_origin(head: &RequestHead, fields: &mut Fields) {
    match head.field("origin") {
        Some(origin) => {
            fields.push("Access-Control-Allow-Origin", origin);
            fields.push("Access-Control-Allow-Credentials", "true");
            fields.push("Access-Control-Expose-Headers", EXPOSED);
            fields.push("Vary", "Accept, Origin");
        }
        None => fields.push("Vary", "Accept, Origin"),
    }
}

fn preflight(head: &RequestHead) -> Answer {
    let mut answer = Answer::text(200, "");
    let asked: Vec<&[u8]> = head.fields_named("access-control-request-headers").collect();
    let usual = &b"Accept, Authorization, Content-Type, If-None-Match, Last-Event-ID, Pragma, Prefer, Uri, Wait, X-Requested-With"[..];
    let allowed = asked.into_iter().fold(usual.to_vec(), |all, more| [&all[..], b", ", more].concat());
    answer.fields.push("Access-Control-Allow-Headers", allowed);
    answer.fields.push("Access-Control-Allow-Methods", "POST, GET, HEAD, PUT");
    answer.fields.push("Access-Control-Max-Age", "86400");
    answer
}

/// How long a client wants to wait at most: `Wait: N`, `Prefer: wait=N`, or `wait` in the query, in seconds.
pub(super) fn wished_wait(head: &RequestHead, query: &HashMap<String, String>, longest: Duration) -> Option<Duration> {
    let text = |value| str::from_utf8(value).ok().map(str::trim);
    let seconds = |value: &str| value.trim_end_matches('s').parse::<u32>().ok();
    let prefer = head.fields_named("prefer").filter_map(text).find_map(|value| {
        value.split([',', ';']).find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("wait").then(|| seconds(value.trim().trim_matches('"')))?
        })
    });
    let wait = head.field("wait").and_then(text).and_then(seconds);
    let asked = wait.or(prefer).or_else(|| query.get("wait").and_then(|value| seconds(value)))?;
    (asked > 0).then(|| Duration::from_secs(u64::from(asked)).min(longest))
}

/// A position as a client writes it, with or without the word before it.
pub(super) fn position(text: &str) -> Option<Position> {
    let text = text.trim().trim_matches('"');
    text.strip_prefix("cursor:").or_else(|| text.strip_prefix("id:")).unwrap_or(text).parse().ok()
}

/// A part of a path as it is meant.
pub(super) fn percent_decoded(path: &str) -> String {
    percent_encoding::percent_decode_str(path).decode_utf8().map(Cow::into_owned).unwrap_or_default()
}

/// What a client may publish in a time.
pub(super) fn bucket(tenant: &Tenant, now: Instant) -> Rate {
    Rate::full(tenant.realm().limits.publish_rate, now)
}

/// The newest item of a list that has a value.
pub(super) fn newest(items: &[crate::subscribe::Item]) -> Option<&crate::subscribe::Item> {
    items.iter().rev().find(|item| forms::value(item).is_some())
}

#[cfg(test)]
mod tests {
    use waft_http1::{HeadLimits, Parsed, parse_request};

    use super::*;

    fn head(fields: &str) -> RequestHead {
        let text = format!("GET /a HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        match parse_request(text.as_bytes(), &HeadLimits::default()) {
            Ok(Parsed::Complete { head, .. }) => head,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_wait_is_asked_for_in_three_ways_and_bounded() {
        let check = |fields: &str, query: &str, expected: Option<u64>| {
            let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
            let wait = wished_wait(&head(fields), &query, Duration::from_secs(45));
            assert_eq!(wait.map(|wait| wait.as_secs()), expected, "{fields} {query:?}");
        };
        check("Wait: 5\r\n", "", Some(5));
        check("Prefer: respond-async, wait=7\r\n", "", Some(7));
        check("Prefer: wait=\"8\"\r\n", "", Some(8));
        check("", "wait=30s", Some(30));
        check("Wait: 500\r\n", "", Some(45));
        check("Wait: 0\r\n", "", None);
        check("Wait: x\r\n", "wait=-1", None);
        check("", "", None);
    }

    #[test]
    fn tokens_stand_in_a_field_or_in_the_query() {
        let query = |text: &str| url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
        assert_eq!(token(&head("Authorization: bearer  a\r\n"), &query("token=b")).as_deref(), Some("a"));
        assert_eq!(token(&head("Authorization: Basic a\r\n"), &query("token=b")).as_deref(), Some("b"));
        assert_eq!(token(&head(""), &query("token=")), None);
    }

    #[test]
    fn paths_and_positions_are_read() {
        assert_eq!(percent_decoded("a%2Fb/c%20d%"), "a/b/c d%");
        assert_eq!(position("cursor:7-8"), Some(Position { epoch: 7, number: 8 }));
        assert_eq!(position("\"7-8\""), Some(Position { epoch: 7, number: 8 }));
        assert_eq!(position("x"), None);
        assert!(is_bayeux("bayeux") && is_bayeux("bayeux/connect") && !is_bayeux("bayeuxx") && !is_bayeux("a"));
    }
}
