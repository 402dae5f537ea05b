//! LiveResource: clients that find out from the links of a channel how to follow it, and follow many at once by one poll
//! (here) or one WebSocket (`socket`). Both are at the root of the realm.

mod socket;

use std::rc::Rc;
use std::sync::Arc;

use waft_http1::Fields;
use waft_hub::{Mode, Position};
use waft_realm::Operation;

use super::door::{self, Ask, Resource, cross_origin, percent_decoded, wished_wait};
use super::feed::{Start, join};
use super::poll::{self, ChannelPoll, Kind, Now, Poll, StartOver};
use super::timeout;
use crate::begin;
use crate::client::Client;
use crate::exchange::Exchange;
use crate::hold::Member;
use crate::service::Answer;
use crate::shard::Shard;
use crate::subscribe::{Class, Item};

pub(super) use self::socket::{Follows, deliver, is_line, on_line, subscribe, unsubscribe};

/// A poll for whichever of some resources has news first.
#[derive(Debug)]
pub(crate) struct ManyPoll {
    parts: Vec<Part>,
    fields: Fields,
    style: Style,
}

/// One resource of such a poll.
#[derive(Debug)]
struct Part {
    /// As the client has named it.
    uri: String,
    /// Its channel in the hub.
    name: String,
    poll: ChannelPoll,
}

/// How a request names its resources, and how the client wants their bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// In the query; bodies are JSON values.
    Query,
    /// In a header; bodies are texts.
    Header,
}

/// A resource that a request names.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    uri: String,
    /// The tag that the client has, for a value.
    tag: Option<String>,
}

/// A channel that an address names, and the position after which its changes are wanted; the value is if there is none.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    channel: String,
    after: Option<String>,
}

/// Why a request names no resources that could be followed.
const NOT_NAMED: &str =
    "No resources are named; name each once, as u=URI in the query or as <URI> in the header Uri.\n";

/// Serves a request for many resources at once.
pub(super) async fn serve(shard: &Rc<Shard>, client: Client, mut exchange: Exchange, ask: Ask) -> Option<Client> {
    let limits = ask.tenant.realm().limits.clone();
    let (style, named) = named(&exchange);
    let parts = match parts(&ask, &named, limits.subscriptions_max) {
        Ok(parts) => parts,
        Err(refused) => return door::answer(shard, client, &exchange, *refused).await,
    };
    let mut fields = Fields::new();
    fields.push("Content-Type", "application/liveresource-multiplex");
    fields.push("Cache-Control", "no-cache");
    cross_origin(&exchange.head, &mut fields);
    let many = ManyPoll { parts, fields, style };
    let seen: Vec<Option<&str>> = named.iter().map(|named| named.tag.as_deref()).collect();
    let (news, froms) = many.look(shard, &seen);
    let wait = wished_wait(&exchange.head, &ask.query, limits.hold).filter(|_| exchange.head.method() == "GET");
    let at_the_end = if news.is_empty() { many.nothing() } else { many.answer_of(&news) };
    let Some(wait) = wait.filter(|_| news.is_empty() && !shard.is_draining()) else {
        let done = exchange.body.is_done();
        return crate::exchange::answer(shard, client, &exchange, at_the_end, done).await;
    };
    exchange.guest = ask.tenant.admit();
    if exchange.guest.is_none() {
        return door::answer(shard, client, &exchange, door::full()).await;
    }
    let template = timeout(at_the_end);
    let names: Vec<(String, Position)> = many.parts.iter().map(|part| part.name.clone()).zip(froms).collect();
    let mut missed = Vec::new();
    let subscribe = |key| {
        let join = |(name, from): (String, Position)| {
            let joined = join(shard, key, &name, Class::Poll, Mode::Response, Start::After(from));
            if missed.is_empty() {
                missed = joined.missed;
            }
            joined.sub
        };
        names.into_iter().map(join).collect()
    };
    let key = begin::hold_poll(shard, client, exchange, Poll::Many(many), template, wait, subscribe);
    // What came between the look and the subscriptions.
    if let Some(key) = key.filter(|_| !missed.is_empty()) {
        poll::deliver(shard, Member { key, since: 0 }, &missed, &mut poll::Answers::default());
    }
    None
}

/// The resources that a request names.
fn named(exchange: &Exchange) -> (Style, Vec<Named>) {
    let query = exchange.head.query().unwrap_or_default();
    let mut of_query: Vec<Named> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match (&*name, of_query.last_mut()) {
            ("u", _) => of_query.push(Named { uri: value.into_owned(), tag: None }),
            ("inm", Some(last)) => last.tag = Some(value.into_owned()),
            _ => {}
        }
    }
    if !of_query.is_empty() {
        return (Style::Query, of_query);
    }
    let fields = exchange.head.fields_named("uri").filter_map(|field| str::from_utf8(field).ok());
    (Style::Header, fields.flat_map(of_header).collect())
}

/// The resources of one header `Uri`: `<URI>; If-None-Match="TAG"`, with commas between them.
fn of_header(mut text: &str) -> Vec<Named> {
    let mut found = Vec::new();
    while let Some((uri, rest)) = text.split_once('<').and_then(|(_, rest)| rest.split_once('>')) {
        let end = rest.find('<').unwrap_or(rest.len());
        let (own, others) = rest.split_at(end);
        let tag = own.split(';').find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            let value = value.trim().trim_end_matches(',').replace('\\', "");
            name.trim().eq_ignore_ascii_case("if-none-match").then(|| value.trim_matches('"').to_owned())
        });
        found.push(Named { uri: uri.to_owned(), tag });
        text = others;
    }
    found
}

/// What an address means below the root of a realm; none if it is no resource there.
fn address(uri: &str, root: &str) -> Option<Address> {
    let path = match uri.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|begin| rest.get(begin..))?,
        None => uri,
    };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let own = if path.starts_with('/') { path.strip_prefix(root)? } else { path };
    let channel = percent_decoded(own);
    let mut query = url::form_urlencoded::parse(query.as_bytes());
    let after = query.find(|(name, _)| name == "after").map(|(_, value)| value.into_owned());
    (!channel.is_empty()).then_some(Address { channel, after })
}

/// The resources that a client may follow, or why it may not.
fn parts(ask: &Ask, named: &[Named], limit: usize) -> Result<Vec<Part>, Box<Answer>> {
    let bad = |text: &str| Box::new(Answer::text(400, text.to_owned()));
    let mut parts: Vec<Part> = Vec::new();
    if named.len() > limit {
        return Err(bad("More resources are named than the realm allows one client.\n"));
    }
    for Named { uri, tag } in named {
        let Address { channel, after } = address(uri, &ask.resource.root).ok_or_else(|| bad(NOT_NAMED))?;
        if parts.iter().any(|part| part.uri == *uri) {
            return Err(bad(NOT_NAMED));
        }
        if let Some(refused) = door::refusal(ask, &channel, Operation::Read) {
            return Err(Box::new(refused));
        }
        let is_changes = after.is_some() && tag.is_none();
        let mut fields = Fields::new();
        fields.push("Content-Type", "application/json");
        let path = uri.split_once('?').map_or(&**uri, |(path, _)| path).to_owned();
        let resource = Arc::new(Resource { path, root: ask.resource.root.clone() });
        let kind = if is_changes { Kind::List } else { Kind::Value };
        let name = ask.tenant.hub_name(&channel);
        parts.push(Part { uri: uri.clone(), name, poll: ChannelPoll::new(kind, Arc::new(fields), resource) });
    }
    if parts.is_empty() { Err(bad(NOT_NAMED)) } else { Ok(parts) }
}

/// What is new of a resource, by its place among the parts.
type News = (usize, Answer);

impl ManyPoll {
    /// What there is to say at once, and the positions from which to wait.
    fn look(&self, shard: &Shard, tags: &[Option<&str>]) -> (Vec<News>, Vec<Position>) {
        let (mut news, mut froms) = (Vec::new(), Vec::new());
        for (number, part) in self.parts.iter().enumerate() {
            let end = shard.gateway.hub.position(&part.name);
            let after = address(&part.uri, "/").and_then(|address| address.after);
            let seen = tags.get(number).copied().flatten().or(after.as_deref());
            let from = match part.poll.look(shard, &part.name, seen) {
                Ok((Now::Answer(answer), _)) => {
                    news.push((number, answer));
                    None
                }
                Ok((Now::Unchanged(_), from)) => from,
                Err(StartOver) => {
                    news.push((number, part.poll.start_over(end)));
                    None
                }
            };
            froms.push(from.filter(|from| from.epoch == end.epoch).unwrap_or(end));
        }
        (news, froms)
    }

    /// The answer that items of a channel make; none if they have no value.
    pub(super) fn answer(&self, channel: &str, items: &[Item]) -> Option<Answer> {
        let first = items.first()?;
        let of_channel = self.parts.iter().enumerate().filter(|(_, part)| part.name == channel);
        let news: Vec<News> =
            of_channel.filter_map(|(number, part)| Some((number, part.poll.answer(items, first.position)?))).collect();
        (!news.is_empty()).then(|| self.answer_of(&news))
    }

    /// The answer when nothing has come.
    fn nothing(&self) -> Answer {
        let unchanged = || Answer { status: 304, fields: Fields::new(), body: bytes::Bytes::new() };
        match self.style {
            Style::Query => self.answer_of(&[]),
            Style::Header => self.answer_of(&(0..self.parts.len()).map(|part| (part, unchanged())).collect::<Vec<_>>()),
        }
    }

    fn answer_of(&self, news: &[News]) -> Answer {
        let mut body = b"{".to_vec();
        for (number, answer) in news {
            let Some(part) = self.parts.get(*number) else { continue };
            if body.len() > 1 {
                body.push(b',');
            }
            body.extend_from_slice(serde_json::Value::from(part.uri.as_str()).to_string().as_bytes());
            body.extend_from_slice(format!(":{{\"code\":{},\"headers\":", answer.status).as_bytes());
            body.extend_from_slice(headers(&answer.fields).as_bytes());
            body.extend_from_slice(b",\"body\":");
            match self.style {
                Style::Query if answer.status == 200 => body.extend_from_slice(&answer.body),
                Style::Header | Style::Query => {
                    let text = String::from_utf8_lossy(&answer.body);
                    body.extend_from_slice(serde_json::Value::from(&*text).to_string().as_bytes());
                }
            }
            body.push(b'}');
        }
        body.push(b'}');
        Answer { status: 200, fields: self.fields.clone(), body: body.into() }
    }
}

/// Header fields as a JSON object.
fn headers(fields: &Fields) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let object: serde_json::Map<String, serde_json::Value> =
        fields.iter().map(|(name, value)| (name.to_owned(), text(value).into())).collect();
    serde_json::Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_resources_with_their_tags() {
        let check = |text: &str, expected: &[(&str, Option<&str>)]| {
            let found = of_header(text);
            let found: Vec<_> = found.iter().map(|named| (named.uri.as_str(), named.tag.as_deref())).collect();
            assert_eq!(found, expected, "{text}");
        };
        check("</a>; If-None-Match=\"1-2\", </b>", &[("/a", Some("1-2")), ("/b", None)]);
        check("</a,b>;if-none-match=\"\\\"7\\\"\"", &[("/a,b", Some("7"))]);
        check("</a>; x=\"y\",</c>; If-None-Match=z", &[("/a", None), ("/c", Some("z"))]);
        check("/a, <b", &[]);
        check("", &[]);
    }

    #[test]
    fn an_address_is_a_channel_below_the_root() {
        let check = |uri: &str, root: &str, expected: Option<(&str, Option<&str>)>| {
            let found = address(uri, root);
            let found = found.as_ref().map(|found| (found.channel.as_str(), found.after.as_deref()));
            assert_eq!(found, expected, "{uri} below {root}");
        };
        check("http://h:1/a/b", "/", Some(("a/b", None)));
        check("/r/a%20b?after=1-2", "/r/", Some(("a b", Some("1-2"))));
        check("a?x=1", "/r/", Some(("a", None)));
        check("/other/a", "/r/", None);
        check("http://h", "/", None);
        check("/", "/", None);
        check("", "/", None);
    }
}
