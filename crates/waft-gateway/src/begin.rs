//! From an instruct to a hold.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use waft_grip::filter::{BuildId, Context, Filters};
use waft_grip::instruct::{HoldMode, Instruct, ResponseParts};
use waft_http1::{LAST_CHUNK, Version};
use waft_hub::Mode;
use waft_net::Key;
use waft_route::Target;

use crate::client::Client;
use crate::dress::SCRIPT;
use crate::exchange::{Exchange, bad_instruct_failure, fail, log};
use crate::hold::{
    self, Gone, Hold, Line, Next, ResponseHold, SavedRequest, StreamHold, Timeout, count, keep_alive_due,
};
use crate::jsonp::{Call, Encoder};
use crate::payload::put_chunk;
use crate::place::Base;
use crate::realm::Poll;
use crate::relay::{BodyError, ResponseBody};
use crate::respond::{self, Failure, Frame};
use crate::shard::Shard;
use crate::subscribe::{self, Class, Seen, Sub, Wanted};
use crate::{deliver, link, update};

/// Does what an instruct asks for. The connection comes back if it can serve another request.
pub(crate) async fn begin(
    shard: &Rc<Shard>,
    client: Client,
    exchange: Exchange,
    target: &Target,
    mut instruct: Instruct,
    mut body: ResponseBody,
) -> Option<Client> {
    let limit = exchange.settings.limits.hold_body_max;
    if instruct.needs_json_body() {
        let applied = match body.read_all(shard, limit).await {
            Ok(json) => {
                shard.tally(&exchange.route, |traffic| traffic.target_received.content_bytes += body.count(&json));
                instruct.apply_json(&json).map_err(|error| bad_instruct_failure(&error))
            }
            Err(error) => Err(body_failure(&error, target)),
        };
        body.release(shard);
        if let Err(failure) = applied {
            return fail(shard, client, &exchange, &failure).await;
        }
        body = ResponseBody::Whole(instruct.response.body.take().unwrap_or_default());
    }
    if instruct.hold.is_some() && exchange.body.is_too_long() {
        body.release(shard);
        let failure = Failure::request(400, "Request too large to accept GRIP instruct.");
        return fail(shard, client, &exchange, &failure).await;
    }
    match instruct.hold {
        Some(HoldMode::Response) => hold_response(shard, client, exchange, target, instruct, body).await,
        Some(HoldMode::Stream) => Opening::new(shard, client, exchange, Some(target)).stream(instruct, body).await,
        None => Opening::new(shard, client, exchange, Some(target)).plain(instruct, body).await,
    }
}

/// Gives a response that asks for nothing to the client, as a script.
pub(crate) async fn wrap(
    shard: &Rc<Shard>,
    client: Client,
    exchange: Exchange,
    target: &Target,
    parts: ResponseParts,
    body: ResponseBody,
) -> Option<Client> {
    let mut instruct = Instruct::default();
    instruct.response = parts;
    let mut opening = Opening::new(shard, client, exchange, Some(target));
    opening.relayed = true;
    opening.plain(instruct, body).await
}

fn body_failure(error: &BodyError, target: &Target) -> Failure {
    Failure::target(
        502,
        match error {
            BodyError::TooLong { .. } => format!("GRIP instruct response too large from {}", target.address),
            BodyError::Cut(error) => format!("The response of {} was cut short: {error}", target.address),
        },
    )
}

/// The content filters of an instruct's channels, applied to the body of a response.
#[derive(Debug)]
pub(crate) struct BodyFilter(Option<BuildId>);

impl BodyFilter {
    /// The filter for a response to a listener of `channels`.
    ///
    /// # Errors
    /// What the filter misses.
    pub(crate) fn new(channels: &[Wanted], prefix: &str, meta: &[(String, String)]) -> Result<Self, String> {
        if !channels.iter().any(|channel| channel.filters.targets_response_content()) {
            return Ok(Self(None));
        }
        let named: Vec<_> = channels
            .iter()
            .map(|channel| {
                let name = channel.name.strip_prefix(prefix).unwrap_or(&channel.name).to_owned();
                (name, channel.prev_id.clone())
            })
            .collect();
        let positions = subscribe::as_filter_positions(&named);
        let context = Context { sub_meta: meta, pub_meta: &[], channels: &positions };
        BuildId::new(&context).map(|filter| Self(Some(filter))).map_err(|error| error.to_string())
    }

    /// Whether nothing changes the body.
    pub(crate) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// The next piece, filtered.
    ///
    /// # Errors
    /// What is wrong with the body.
    pub(crate) fn feed(&mut self, piece: Bytes) -> Result<Bytes, String> {
        let Some(filter) = &mut self.0 else { return Ok(piece) };
        let mut out = Vec::with_capacity(piece.len() + 64);
        filter.feed(&piece, &mut out).map_err(|error| error.to_string())?;
        Ok(out.into())
    }

    /// Says whether the body may end here.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn finish(&self) -> Result<(), String> {
        self.0.as_ref().map_or(Ok(()), BuildId::finish).map_err(|error| error.to_string())
    }
}

/// What a client said it has seen last.
fn last_event_id(exchange: &Exchange) -> Option<&str> {
    exchange.head.field("last-event-id").and_then(|id| str::from_utf8(id).ok()).filter(|id| !id.is_empty())
}

fn line(
    exchange: &mut Exchange,
    client_presence: crate::shard::Presence,
    secure: bool,
    leftover: Option<Box<[u8]>>,
) -> Line {
    exchange.seat.hold();
    Line {
        peer: exchange.peer.clone(),
        presence: client_presence,
        secure,
        version: exchange.head.version(),
        keep_alive: exchange.head.keep_alive(),
        half_closed: false,
        leftover,
        seat: std::mem::take(&mut exchange.seat),
        guest: exchange.guest.take(),
    }
}

async fn hold_response(
    shard: &Rc<Shard>,
    mut client: Client,
    mut exchange: Exchange,
    target: &Target,
    instruct: Instruct,
    mut body: ResponseBody,
) -> Option<Client> {
    let read = body.read_all(shard, exchange.settings.limits.hold_body_max).await;
    if let Ok(read) = &read {
        shard.tally(&exchange.route, |traffic| traffic.target_received.content_bytes += body.count(read));
    }
    body.release(shard);
    let body = match read {
        Ok(body) => body,
        Err(error) => return fail(shard, client, &exchange, &body_failure(&error, target)).await,
    };
    let route = Arc::clone(&exchange.route);
    let channels = subscribe::wanted(&exchange.settings, &route, Some(target), &instruct.channels);
    let filtered = BodyFilter::new(&channels, &route.options.prefix, &instruct.meta).and_then(|mut filter| {
        let body = filter.feed(body)?;
        filter.finish().map(|()| body)
    });
    let body = match filtered {
        Ok(body) => body,
        Err(error) => {
            let failure = Failure::target(502, format!("filter error: {error}"));
            return fail(shard, client, &exchange, &failure).await;
        }
    };
    if shard.is_draining() {
        let mut instruct = instruct;
        instruct.channels.clear();
        return Opening::new(shard, client, exchange, None).plain(instruct, ResponseBody::Whole(body)).await;
    }
    log(&exchange, Some(target), instruct.response.code, 0, "accept");
    let leftover = client.buffer.take_unread(&shard.buffers);
    let Client { stream, secure, presence, .. } = client;
    let line = line(&mut exchange, presence, secure, leftover);
    let gone = gone_link(&exchange, &instruct);
    let timeout = instruct.hold_timeout();
    let Exchange { head, body: request_body, trusted, served, dress, .. } = exchange;
    let parts = ResponseParts { body: None, ..instruct.response };
    let request = Box::new(SavedRequest { head, body: request_body.into_saved(), trusted, dress });
    let response = ResponseHold {
        line,
        route: Arc::clone(&route),
        subs: Box::default(),
        meta: shard.templates.meta(instruct.meta),
        template: shard.templates.timeout(Timeout { parts, body }),
        request,
        poll: None,
        gone,
    };
    let key = shard.held.borrow_mut().reserve(Hold::Response(Box::new(response)));
    count(shard, Mode::Response, 1);
    let seen = Seen { served: &served, last_event_id: None };
    let joined = subscribe::join(shard, key, Class::Response, &route, &channels, &seen);
    if let Some(Hold::Response(hold)) = shard.held.borrow_mut().get_mut(key) {
        hold.subs = joined.subs.into();
    }
    if !attach(shard, key, stream) {
        return None;
    }
    shard.held.borrow_mut().set_deadline(key, Some(Instant::now() + timeout));
    shard.metrics.replayed.add(joined.missed.len() as u64);
    for item in &joined.missed {
        deliver::to_response(shard, key, item, &mut deliver::Answers::default());
    }
    if joined.conflict {
        update::request(shard, key, update::Urgency::High);
    }
    None
}

/// Holds a request that a realm answers, not a target. `join` subscribes; the place is handed over after it.
pub(crate) fn hold_poll(
    shard: &Rc<Shard>,
    mut client: Client,
    mut exchange: Exchange,
    poll: Poll,
    template: Timeout,
    wait: Duration,
    join: impl FnOnce(Key) -> Vec<Sub>,
) -> Option<Key> {
    log(&exchange, None, template.parts.code, 0, "accept");
    let leftover = client.buffer.take_unread(&shard.buffers);
    let Client { stream, secure, presence, .. } = client;
    let line = line(&mut exchange, presence, secure, leftover);
    let Exchange { head, route, trusted, .. } = exchange;
    let response = ResponseHold {
        line,
        route,
        subs: Box::default(),
        meta: shard.templates.meta(Vec::new()),
        template: Rc::new(template),
        request: Box::new(SavedRequest { head, body: Vec::new(), trusted, dress: None }),
        poll: Some(Box::new(poll)),
        gone: None,
    };
    let key = shard.held.borrow_mut().reserve(Hold::Response(Box::new(response)));
    count(shard, Mode::Response, 1);
    let subs = join(key);
    if let Some(Hold::Response(hold)) = shard.held.borrow_mut().get_mut(key) {
        hold.subs = subs.into();
    }
    if !attach(shard, key, stream) {
        return None;
    }
    shard.held.borrow_mut().set_deadline(key, Some(Instant::now() + wait));
    Some(key)
}

/// Opens a stream that a realm feeds, not a target. `join` subscribes and gives what comes first.
pub(crate) async fn feed(
    shard: &Rc<Shard>,
    client: Client,
    exchange: Exchange,
    instruct: Instruct,
    join: impl FnOnce(Key, bool) -> (Vec<Sub>, Vec<u8>),
) -> Option<Client> {
    let mut opening = Opening::new(shard, client, exchange, None);
    let keep_alive = opening.exchange.head.keep_alive() && opening.exchange.body.is_done();
    if opening.exchange.is_to_head() || shard.is_draining() {
        opening.put_head(&instruct.response, Frame::None, keep_alive && !shard.is_draining());
        return opening.finish(keep_alive && !shard.is_draining()).await;
    }
    opening.put_head(&instruct.response, Frame::Stream, keep_alive);
    let key = opening.reserve(&instruct, &[]);
    let (subs, first) = join(key, opening.is_chunked());
    if let Some(Hold::Stream(hold)) = shard.held.borrow_mut().get_mut(key) {
        hold.subs = subs.into();
    }
    if !first.is_empty() {
        opening.put(&first);
    }
    if !opening.flush().await {
        hold::end(shard, key);
        return opening.abandon();
    }
    log(&opening.exchange, None, instruct.response.code, opening.bytes, "accept");
    opening.hand_over(key, false);
    None
}

/// Hands the socket of a connection over to its reserved place in the held set.
pub(crate) fn attach(shard: &Rc<Shard>, key: Key, stream: waft_net::Stream) -> bool {
    let attached = stream.into_socket().and_then(|socket| shard.held.borrow_mut().attach(key, socket));
    match attached {
        Ok(()) => {
            hold::flush(shard, key);
            true
        }
        Err(error) => {
            tracing::warn!(%error, "A connection could not be held and was closed.");
            hold::end(shard, key);
            false
        }
    }
}

fn gone_link(exchange: &Exchange, instruct: &Instruct) -> Option<Box<Gone>> {
    let uri = instruct.gone.as_ref()?.uri.clone();
    Some(Box::new(Gone { base: Base::of(&exchange.head, exchange.secure), uri }))
}

/// A response that this gateway sends piece by piece: a stream, or pages joined by next links.
struct Opening<'a> {
    shard: &'a Rc<Shard>,
    client: Client,
    exchange: Exchange,
    target: Option<&'a Target>,
    /// Head bytes that still have to go out, with what follows.
    out: BytesMut,
    head_sent: bool,
    bytes: u64,
    /// The response is the target's own, of which a script is made.
    relayed: bool,
    /// Makes a script of the body.
    encoder: Option<Encoder>,
    /// The page that opens the stream, if that is not what the client asked for.
    page: Option<Base>,
}

/// How sending a body ended.
enum Sent {
    Whole,
    /// The client has gone.
    ClientGone,
    /// The target broke off, or a filter failed.
    Broken(String),
}

impl<'a> Opening<'a> {
    fn new(shard: &'a Rc<Shard>, client: Client, exchange: Exchange, target: Option<&'a Target>) -> Self {
        Self {
            shard,
            client,
            exchange,
            target,
            out: BytesMut::new(),
            head_sent: false,
            bytes: 0,
            relayed: false,
            encoder: None,
            page: None,
        }
    }

    fn is_chunked(&self) -> bool {
        self.exchange.head.version() == Version::Http11
    }

    /// Puts the head into what goes out next.
    fn put_head(&mut self, parts: &ResponseParts, frame: Frame, keep_alive: bool) {
        if !std::mem::replace(&mut self.head_sent, true) {
            let mut fields = respond::fields_from(parts.headers.iter());
            if let Some(dress) = &self.exchange.dress {
                dress.apply(&mut fields);
            }
            let version = self.exchange.head.version();
            let head = respond::head(parts.code, &parts.reason, &fields, frame, version, keep_alive);
            self.tally_written(&head);
            self.out.extend_from_slice(&head);
        }
    }

    /// Puts the head and the beginning of a script into what goes out next. What follows is a stream.
    fn put_script_head(&mut self, call: &Call, parts: &ResponseParts, keep_alive: bool) {
        self.head_sent = true;
        let told = respond::fields_from(parts.headers.iter());
        let mut fields = if self.relayed {
            let kept = told.iter().filter(|(name, _)| name.eq_ignore_ascii_case("cache-control"));
            kept.collect()
        } else {
            told.clone()
        };
        fields.set("Content-Type", SCRIPT);
        let head = respond::head(200, "OK", &fields, Frame::Stream, self.exchange.head.version(), keep_alive);
        self.out.extend_from_slice(&head);
        let mut start = Vec::new();
        let encoder = call.begin(parts.code, &parts.reason, &told, &mut start);
        self.put(&start);
        self.encoder = Some(encoder);
    }

    fn put(&mut self, piece: &[u8]) {
        if let Some(encoder) = &mut self.encoder {
            let mut script = Vec::with_capacity(piece.len() + 64);
            encoder.push(piece, &mut script);
            return self.put_raw(&script);
        }
        self.put_raw(piece);
    }

    fn put_raw(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.tally_content(piece.len());
        if self.is_chunked() { put_chunk(&mut self.out, piece) } else { self.out.extend_from_slice(piece) }
    }

    fn tally_written(&self, head: &[u8]) {
        self.shard.tally(&self.exchange.route, |traffic| traffic.client_sent.written(head));
    }

    fn tally_content(&self, count: usize) {
        self.shard.tally(&self.exchange.route, |traffic| traffic.client_sent.content_bytes += count as u64);
    }

    async fn flush(&mut self) -> bool {
        let out = self.out.split();
        self.shard.metrics.bytes_sent.add(out.len() as u64);
        out.is_empty() || self.client.stream.write_all(&out).await.is_ok()
    }

    /// Sends a body through its filter, as it comes. What comes last is left to be flushed.
    async fn send_body(&mut self, body: &mut ResponseBody, filter: &mut BodyFilter) -> Sent {
        loop {
            let at_hand = body.is_at_hand();
            match body.next(self.shard).await {
                Ok(Some(piece)) => {
                    let count = body.count(&piece);
                    self.shard.tally(&self.exchange.route, |traffic| traffic.target_received.content_bytes += count);
                    match filter.feed(piece) {
                        Ok(piece) => self.put(&piece),
                        Err(error) => return Sent::Broken(format!("filter error: {error}")),
                    }
                }
                Ok(None) => break,
                Err(error) => return Sent::Broken(error.to_string()),
            }
            if !at_hand && !self.flush().await {
                return Sent::ClientGone;
            }
        }
        match filter.finish() {
            Ok(()) => Sent::Whole,
            Err(error) => Sent::Broken(format!("filter error: {error}")),
        }
    }

    /// A response that is not held: sent whole, and followed by the pages that its next links name.
    async fn plain(mut self, instruct: Instruct, mut body: ResponseBody) -> Option<Client> {
        let to_head = self.exchange.is_to_head();
        let keep_alive = self.exchange.head.keep_alive() && self.exchange.body.is_done() && !self.shard.is_draining();
        let call = self.exchange.dress.as_ref().and_then(|dress| dress.call.clone());
        let bodiless = call.is_none() && (to_head || matches!(instruct.response.code, 100..=199 | 204 | 304));
        let channels = subscribe::wanted(&self.exchange.settings, &self.exchange.route, None, &instruct.channels);
        let prefix = self.exchange.route.options.prefix.clone();
        let mut filter = match BodyFilter::new(&channels, &prefix, &instruct.meta) {
            Ok(filter) => filter,
            Err(error) => {
                body.release(self.shard);
                let failure = Failure::target(502, format!("filter error: {error}"));
                return fail(self.shard, self.client, &self.exchange, &failure).await;
            }
        };
        if bodiless {
            body.release(self.shard);
            self.put_head(&instruct.response, Frame::None, keep_alive);
            return self.finish(keep_alive).await;
        }
        if let (ResponseBody::Whole(whole), None, true) = (&body, &instruct.next, filter.is_none() && call.is_none()) {
            let whole = whole.clone();
            self.put_head(&instruct.response, Frame::Length(whole.len()), keep_alive);
            self.out.extend_from_slice(&whole);
            self.bytes += whole.len() as u64;
            self.tally_content(whole.len());
            return self.finish(keep_alive).await;
        }
        match &call {
            None => self.put_head(&instruct.response, Frame::Stream, keep_alive),
            Some(call) => self.put_script_head(call, &instruct.response, keep_alive),
        }
        let sent = self.send_body(&mut body, &mut filter).await;
        body.release(self.shard);
        match sent {
            Sent::Whole => {}
            Sent::ClientGone => return self.abandon(),
            Sent::Broken(error) => return self.break_off(&error).await,
        }
        match instruct.next {
            Some(next) => {
                let base = Base::of(&self.exchange.head, self.exchange.secure);
                Box::pin(self.follow(base, next.uri)).await
            }
            None => self.end_body(keep_alive).await,
        }
    }

    /// Appends page after page until one names no next, or is a stream.
    async fn follow(mut self, mut base: Base, mut uri: String) -> Option<Client> {
        loop {
            if !self.flush().await {
                return self.abandon();
            }
            let route = Arc::clone(&self.exchange.route);
            let page = match link::fetch_again(self.shard, &route, &base, &uri, &[]).await {
                Ok(page) => page,
                Err(error) => return self.break_off(&format!("Failed to retrieve next link: {error}")).await,
            };
            let link::Page { base: page_base, instruct, mut body } = page;
            match instruct.hold {
                Some(HoldMode::Response) => {
                    body.release(self.shard);
                    return self.break_off("Next link returned non-stream hold.").await;
                }
                Some(HoldMode::Stream) => {
                    self.page = Some(page_base);
                    return self.stream(instruct, body).await;
                }
                None => {}
            }
            let channels = subscribe::wanted(&self.exchange.settings, &route, None, &instruct.channels);
            let sent = match BodyFilter::new(&channels, &route.options.prefix, &instruct.meta) {
                Ok(mut filter) => self.send_body(&mut body, &mut filter).await,
                Err(error) => Sent::Broken(format!("filter error: {error}")),
            };
            body.release(self.shard);
            match sent {
                Sent::Whole => {}
                Sent::ClientGone => return self.abandon(),
                Sent::Broken(error) => return self.break_off(&error).await,
            }
            match instruct.next {
                Some(next) => {
                    base = page_base;
                    uri = next.uri;
                }
                None => {
                    let keep_alive = self.exchange.head.keep_alive() && !self.shard.is_draining();
                    return self.end_body(keep_alive).await;
                }
            }
        }
    }

    /// Ends a body that was sent piece by piece.
    async fn end_body(mut self, keep_alive: bool) -> Option<Client> {
        if let Some(encoder) = self.encoder.take() {
            let mut end = Vec::new();
            encoder.finish(&mut end);
            self.put_raw(&end);
        }
        if self.is_chunked() {
            self.out.extend_from_slice(LAST_CHUNK);
        }
        let keep_alive = keep_alive && self.is_chunked();
        self.finish(keep_alive).await
    }

    async fn finish(mut self, keep_alive: bool) -> Option<Client> {
        let written = self.flush().await;
        log(&self.exchange, self.target, 200, self.bytes, "");
        match (written, keep_alive) {
            (true, true) => Some(self.client),
            (true, false) => {
                self.client.close(self.shard).await;
                None
            }
            (false, _) => self.abandon(),
        }
    }

    fn abandon(self) -> Option<Client> {
        self.client.abandon(&self.shard.buffers);
        None
    }

    /// Ends a response that cannot go on. The client has the beginning already, so that all that
    /// is left to tell it is that this is not the orderly end.
    async fn break_off(mut self, error: &str) -> Option<Client> {
        tracing::warn!(route = %self.exchange.route.id, path = self.exchange.head.path(), error, "A response was broken off.");
        self.shard.metrics.requests_failed.add(1);
        if self.exchange.route.options.debug {
            self.put(format!("\n\n{error}\n").as_bytes());
        }
        self.flush().await;
        log(&self.exchange, self.target, 200, self.bytes, "error");
        self.abandon()
    }

    /// Opens a stream: subscribed before the first byte, then head, body, what was missed, and
    /// from then on what is published.
    async fn stream(mut self, instruct: Instruct, mut body: ResponseBody) -> Option<Client> {
        let shard = self.shard;
        let route = Arc::clone(&self.exchange.route);
        let channels = subscribe::wanted(&self.exchange.settings, &route, self.target, &instruct.channels);
        let mut filter = match BodyFilter::new(&channels, &route.options.prefix, &instruct.meta) {
            Ok(filter) => filter,
            Err(error) => {
                body.release(shard);
                self.put_head(&instruct.response, Frame::Stream, self.exchange.head.keep_alive());
                return self.break_off(&format!("filter error: {error}")).await;
            }
        };
        if self.exchange.is_to_head() {
            // Nobody waits for a body: there is nothing to hold.
            body.release(shard);
            self.put_head(&instruct.response, Frame::None, self.exchange.head.keep_alive());
            let keep_alive = self.exchange.head.keep_alive() && !shard.is_draining();
            return self.finish(keep_alive).await;
        }
        self.put_head(&instruct.response, Frame::Stream, self.exchange.head.keep_alive());
        if shard.is_draining() {
            let sent = self.send_body(&mut body, &mut filter).await;
            body.release(shard);
            let _sent = sent;
            return self.end_body(false).await;
        }
        let unlinked = instruct.next.is_none() && !route.options.log;
        if let Some(channel) = channels.iter().find(|channel| unlinked && channel.prev_id.is_some()) {
            let error = format!("channel '{}' specifies prev-id, but no next link found", channel.name);
            let sent = self.send_body(&mut body, &mut filter).await;
            body.release(shard);
            if let Sent::ClientGone = sent {
                return self.abandon();
            }
            tracing::warn!(route = %route.id, error, "A stream ends after its initial body.");
            if route.options.debug {
                self.put(format!("\n\n{error}\n").as_bytes());
            }
            let keep_alive = self.exchange.head.keep_alive();
            return self.end_body(keep_alive).await;
        }
        let key = self.reserve(&instruct, &channels);
        let is_sse = is_event_stream(&instruct.response);
        let seen = Seen { served: &[], last_event_id: last_event_id(&self.exchange).filter(|_| is_sse) };
        let class = stream_class(&channels, instruct.next.is_some(), self.is_chunked());
        let joined = subscribe::join(shard, key, class, &route, &channels, &seen);
        if let Some(Hold::Stream(hold)) = shard.held.borrow_mut().get_mut(key) {
            hold.subs = joined.subs.into();
        }
        let plain = class != Class::Stream;
        if !plain {
            // They wait in the place of the hold, before whatever is published from now on.
            for item in &joined.missed {
                deliver::to_stream(shard, key, item);
            }
        }
        let sent = self.send_body(&mut body, &mut filter).await;
        body.release(shard);
        match sent {
            Sent::Whole => {}
            Sent::ClientGone => {
                hold::end(shard, key);
                return self.abandon();
            }
            Sent::Broken(error) => {
                hold::end(shard, key);
                return self.break_off(&error).await;
            }
        }
        if joined.gap && is_sse {
            shard.metrics.gaps_told.add(1);
            self.put(hold::GAP_NOTICE);
        }
        shard.metrics.replayed.add(joined.missed.len() as u64);
        if plain {
            for item in &joined.missed {
                if let Some(content) = deliver::plain_content(item) {
                    self.put(content);
                }
            }
        }
        if !self.flush().await {
            hold::end(shard, key);
            return self.abandon();
        }
        log(&self.exchange, self.target, instruct.response.code, self.bytes, "accept");
        self.hand_over(key, joined.conflict);
        None
    }

    /// Makes the hold, in which items wait from now on.
    fn reserve(&mut self, instruct: &Instruct, channels: &[Wanted]) -> Key {
        let page = self.page.take();
        let (shard, exchange) = (self.shard, &mut self.exchange);
        let now = Instant::now();
        let base = || page.clone().unwrap_or_else(|| Base::of(&exchange.head, exchange.secure));
        let place = asks_network(channels).then(|| Box::new(base()));
        let next = instruct.next.as_ref().map(|next| {
            Box::new(Next {
                base: base(),
                uri: next.uri.clone(),
                timeout: next.timeout,
                due: now + next.timeout,
                updating: false,
                pending: Vec::new(),
                again: false,
            })
        });
        let hold = StreamHold {
            line: line(exchange, shard.presence(), self.client.secure, None),
            route: Arc::clone(&exchange.route),
            subs: Box::default(),
            meta: shard.templates.meta(instruct.meta.clone()),
            keep_alive: instruct.keep_alive.clone().map(|keep_alive| shard.templates.keep_alive(keep_alive)),
            keep_due: None,
            place,
            next,
            gone: gone_link(exchange, instruct),
            bayeux: None,
            is_sse: is_event_stream(&instruct.response),
            gap: false,
            slow_said: false,
        };
        count(shard, Mode::Stream, 1);
        shard.held.borrow_mut().reserve(Hold::Stream(Box::new(hold)))
    }

    /// Hands the connection over to the held set.
    fn hand_over(self, key: Key, conflict: bool) {
        let Self { shard, mut client, .. } = self;
        let leftover = client.buffer.take_unread(&shard.buffers);
        let now = Instant::now();
        {
            let mut held = shard.held.borrow_mut();
            let due = match held.get_mut(key) {
                Some(Hold::Stream(hold)) => {
                    hold.line.leftover = leftover;
                    hold.line.presence = client.presence;
                    hold.keep_due = hold.keep_alive.as_ref().map(|keep_alive| keep_alive_due(keep_alive, now));
                    hold.due()
                }
                // It was closed while its first bytes were on their way.
                Some(Hold::Finishing(line)) => {
                    line.leftover = leftover;
                    line.presence = client.presence;
                    None
                }
                _ => return,
            };
            held.set_deadline(key, due);
        }
        if !attach(shard, key, client.stream) {
            return;
        }
        if conflict {
            update::request(shard, key, update::Urgency::High);
        }
    }
}

/// Whether a subscription has a filter that asks a web service.
pub(crate) fn asks_network(channels: &[Wanted]) -> bool {
    channels.iter().any(|channel| channel.filters.needs_network())
}

/// Which class of listeners a stream belongs to.
pub(crate) fn stream_class(channels: &[Wanted], linked: bool, chunked: bool) -> Class {
    let special =
        linked || channels.iter().any(|channel| channel.prev_id.is_some() || channel.filters != Filters::default());
    match (special, chunked) {
        (true, _) => Class::Stream,
        (false, true) => Class::Chunked,
        (false, false) => Class::Raw,
    }
}

/// Whether a response is a stream of server-sent events.
fn is_event_stream(parts: &ResponseParts) -> bool {
    parts.headers.get("content-type").is_some_and(|value| {
        let kind = value.split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    })
}
