//! One request and its response: to a route, to its first reachable target, and back.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};
use waft_grip::instruct::{Instruct, ResponseParts, is_instruct};
use waft_http1::{BodyDecoder, Framing, HeadWriter, Parsed, RequestHead, ResponseHead, Version, parse_response};
use waft_net::{PeerAddr, Stream};
use waft_route::{Headers, Proto, RequestFacts, Route, Target, TargetAddress};

use crate::body::{BODY_BUFFER, BodyEnd, Piece, RequestBody, read_into};
use crate::buffer::ReadBuffer;
use crate::client::Client;
use crate::dress::Dress;
use crate::files::{self, Served};
use crate::forward::{Outgoing, proved_name};
use crate::handler;
use crate::hold;
use crate::internal;
use crate::jsonp;
use crate::pool::{ConnectError, TargetConnection};
use crate::realm::{self, Guest};
use crate::record::{Seat, VisitKind, response_head_size};
use crate::relay::{self, Relayed, ResponseBody};
use crate::respond::{self, CONTINUE, Failure, Frame};
use crate::service::{Answer, Door};
use crate::settings::Settings;
use crate::shard::Shard;
use crate::sockjs;
use crate::worker;
use crate::ws;

/// A request on its way, and everything decided about it.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) head: RequestHead,
    pub(crate) body: RequestBody,
    pub(crate) route: Arc<Route>,
    pub(crate) settings: Arc<Settings>,
    /// The client's side is encrypted, as far as we can tell.
    pub(crate) secure: bool,
    /// The client is a GRIP proxy in front of this one.
    pub(crate) trusted: bool,
    /// Positions to tell the target, as it named the channels.
    pub(crate) last: Vec<(String, String)>,
    pub(crate) peer: PeerAddr,
    pub(crate) started: Instant,
    /// This request was held and is made again.
    pub(crate) retry: bool,
    /// The positions in the channel logs up to which its hold had been served, if it is made again.
    pub(crate) served: Vec<(Arc<str>, waft_hub::Position)>,
    /// What its answer is dressed with for scripts of other sites.
    pub(crate) dress: Option<Box<Dress>>,
    pub(crate) seat: Seat,
    /// Its place among the held connections of a realm.
    pub(crate) guest: Option<Guest>,
}

struct HeadFields<'a>(&'a RequestHead);

impl Headers for HeadFields<'_> {
    fn has(&self, name: &str, value: Option<&str>) -> bool {
        self.0.fields_named(name).any(|found| value.is_none_or(|value| found == value.as_bytes()))
    }
}

/// Finds the route of a request.
fn find_route(settings: &Settings, head: &RequestHead, secure: bool, client_cert: bool) -> Option<Arc<Route>> {
    if settings.accept_route_header
        && let Some(id) = head.field("pushpin-route")
    {
        // Who asks for a route that is not there must not end at another one.
        return settings.table.by_id(str::from_utf8(id).ok()?).map(Arc::clone);
    }
    let facts = RequestFacts {
        host: head.host(),
        path: head.path(),
        proto: if is_websocket(head) { Proto::Ws } else { Proto::Http },
        ssl: secure,
        client_cert,
        method: head.method(),
        query: head.query().unwrap_or_default(),
        headers: &HeadFields(head),
    };
    settings.table.find(&facts).map(Arc::clone)
}

/// Whether the request asks for a WebSocket.
pub(crate) fn is_websocket(head: &RequestHead) -> bool {
    waft_websocket::handshake::wants_websocket(head.fields())
}

/// Serves one request of a client. The connection comes back if it can serve another.
pub(crate) async fn run(shard: &Rc<Shard>, client: Client, head: RequestHead) -> Option<Client> {
    match prepare(shard, client, head).await {
        Ok((client, exchange)) => handle(shard, client, exchange).await,
        Err(client) => client,
    }
}

/// Finds out where a request goes. A request that goes nowhere is answered, and its connection comes back if it can
/// serve another.
pub(crate) async fn prepare(
    shard: &Rc<Shard>,
    client: Client,
    head: RequestHead,
) -> Result<(Client, Exchange), Option<Client>> {
    let settings = shard.gateway.settings();
    let secure = client.secure || (settings.forward.accept_scheme && claims_encryption(&head));
    if head.method() == "CONNECT" {
        let failure = Failure::request(501, "This server makes no tunnels.");
        return Err(refuse(shard, client, &head, &failure.answer(false), false).await);
    }
    let found = match &client.door {
        Door::Route(id) => settings.table.by_id(id).map(Arc::clone),
        Door::Front | Door::Service(_) => find_route(&settings, &head, secure, client.stream.is_peer_verified()),
    };
    let Some(route) = found else {
        debug!(host = head.host(), path = head.path(), "No route for a request.");
        shard.metrics.requests_failed.add(1);
        let mut answer = Failure::request(502, "Route not found").answer(false);
        if settings.cross_origin {
            answer = Dress::of(&head, None).own(answer);
        }
        let reusable = matches!(head.framing(), Framing::None | Framing::Length(0));
        return Err(refuse(shard, client, &head, &answer, reusable).await);
    };
    let trusted = settings.upstream_key.as_ref().is_some_and(|key| {
        head.field("grip-sig").is_some_and(|signature| key.verify(signature, crate::sign::unix_seconds()))
    });
    let body = RequestBody::new(&head, settings.limits.request_body_max);
    let kind = if is_websocket(&head) { VisitKind::Ws } else { VisitKind::Http };
    let exchange = Exchange::new(shard, kind, head, body, route, settings, secure, trusted, &client);
    Ok((client, exchange))
}

/// Serves a request whose way is known.
pub(crate) async fn handle(shard: &Rc<Shard>, mut client: Client, mut exchange: Exchange) -> Option<Client> {
    let trusted = exchange.trusted;
    if realm::serves(&exchange) {
        return Box::pin(realm::serve(shard, client, exchange)).await;
    }
    if handler::handler_of(&exchange).is_some() {
        return proxy(shard, client, exchange).await;
    }
    if sockjs::serves(&exchange) {
        return Box::pin(sockjs::serve(shard, client, exchange)).await;
    }
    if is_websocket(&exchange.head) {
        return ws::serve(shard, client, exchange).await;
    }
    if let Err(mistake) = exchange.put_on_dress() {
        let failure = Failure::request(400, mistake.text());
        return fail(shard, client, &exchange, &failure).await;
    }
    if exchange.head.field("pushpin-check").is_some() {
        let done = exchange.body.is_done();
        return answer(shard, client, &exchange, internal::check(), done).await;
    }
    if !trusted && ws::forges_events(&exchange.head, &exchange.route) {
        shard.metrics.requests_failed.add(1);
        let done = exchange.body.is_done();
        return answer(shard, client, &exchange, ws::forged(), done).await;
    }
    let done = exchange.body.is_done();
    if exchange.head.expects_continue() && !done && client.stream.write_all(CONTINUE).await.is_err() {
        client.abandon(&shard.buffers);
        return None;
    }
    if client.buffer.is_empty() && done {
        // Nothing of the client needs memory while its target is at work.
        client.buffer.release(&shard.buffers);
    }
    proxy(shard, client, exchange).await
}

impl Exchange {
    #[expect(clippy::too_many_arguments, reason = "each is decided by another step of reading the request")]
    fn new(
        shard: &Shard,
        kind: VisitKind,
        head: RequestHead,
        body: RequestBody,
        route: Arc<Route>,
        settings: Arc<Settings>,
        secure: bool,
        trusted: bool,
        client: &Client,
    ) -> Self {
        let rule = settings.forward.rule(trusted);
        let seat = shard.seat(kind, &route, (&client.peer, rule), secure, &head);
        Self {
            head,
            body,
            route,
            settings,
            seat,
            secure,
            trusted,
            last: Vec::new(),
            peer: client.peer.clone(),
            started: Instant::now(),
            retry: false,
            served: Vec::new(),
            dress: None,
            guest: None,
        }
    }

    /// The exchange for a WebSocket that carries what this request and later ones say.
    pub(crate) fn to_websocket(&self, shard: &Shard, head: RequestHead) -> Self {
        let rule = self.settings.forward.rule(self.trusted);
        let seat = shard.seat(VisitKind::Ws, &self.route, (&self.peer, rule), self.secure, &head);
        Self {
            body: RequestBody::new(&head, 0),
            head,
            route: Arc::clone(&self.route),
            settings: Arc::clone(&self.settings),
            secure: self.secure,
            trusted: self.trusted,
            last: Vec::new(),
            peer: self.peer.clone(),
            started: self.started,
            retry: false,
            served: Vec::new(),
            dress: None,
            seat,
            guest: None,
        }
    }

    /// Prepares the answers for scripts of other sites where the route says so, and puts the request that a script
    /// URL means in the place of the one that was sent.
    fn put_on_dress(&mut self) -> Result<(), jsonp::Mistake> {
        if !self.route.options.aco {
            return Ok(());
        }
        let dress = self.dress.insert(Box::new(Dress::of(&self.head, None)));
        if let Some(meant) = jsonp::read(&self.head, &self.route.options.jsonp)? {
            dress.call = Some(meant.call);
            self.head = meant.head;
            if self.body.is_done() {
                self.body = RequestBody::replay(meant.body);
            }
        }
        Ok(())
    }

    /// Whether the answer has no body because it is one to HEAD. A script has one, whatever request it stands for.
    pub(crate) fn is_to_head(&self) -> bool {
        self.head.is_head() && !self.is_wrapped()
    }

    /// Whether the answer is a script.
    pub(crate) fn is_wrapped(&self) -> bool {
        self.dress.as_ref().is_some_and(|dress| dress.call.is_some())
    }
}

fn claims_encryption(head: &RequestHead) -> bool {
    let says = |name| {
        let value = head.field(name).unwrap_or_default();
        value.eq_ignore_ascii_case(b"https") || value.eq_ignore_ascii_case(b"wss")
    };
    says("x-forwarded-proto") || says("x-forwarded-protocol")
}

/// Why a request got no response from a target.
pub(crate) enum AttemptError {
    /// Nothing reached the target: another one may be tried.
    NotReached(String),
    /// The kept connection was closed before any byte of a response.
    Stale(String),
    /// The target broke off or sent what cannot be understood.
    Broken(Failure),
    /// The client broke a rule within its body.
    Malformed(String),
    /// The client has gone.
    ClientGone,
}

/// What an attempt came to.
pub(crate) enum Attempt {
    /// The response went to the client as it came.
    Relayed(Relayed),
    /// The response tells this gateway what to do.
    Instruct(Box<Instruct>, ResponseBody),
    /// The response goes to the client as a script.
    Wrap(ResponseParts, ResponseBody),
}

/// Sends the request to the targets of its route, and does with the response what it asks for.
pub(crate) async fn proxy(shard: &Rc<Shard>, mut client: Client, mut exchange: Exchange) -> Option<Client> {
    let mut tried = Vec::new();
    let route = Arc::clone(&exchange.route);
    if let Some(TargetAddress::Handler(handler)) = route.targets.first().map(|target| &target.address) {
        return handler::serve(shard, client, exchange, handler).await;
    }
    for target in &route.targets {
        let reached = reach(shard, &mut client, &mut exchange, target).await;
        tally_body(shard, &mut exchange, target);
        match reached {
            Ok(Attempt::Relayed(relayed)) => return relayed_to(shard, client, &exchange, target, relayed).await,
            Ok(Attempt::Instruct(instruct, body)) => {
                // Boxed, so that requests that are only proxied do not carry what a hold needs.
                return Box::pin(hold::begin(shard, client, exchange, target, *instruct, body)).await;
            }
            Ok(Attempt::Wrap(parts, body)) => return hold::wrap(shard, client, exchange, target, parts, body).await,
            Err(AttemptError::NotReached(why)) => {
                shard.metrics.target_failures.add(1);
                warn!(route = %route.id, target = %target.address, error = %why, "A target could not be reached.");
                tried.push(target.address.to_string());
            }
            Err(AttemptError::Stale(why)) => {
                return fail(shard, client, &exchange, &Failure::target(502, why)).await;
            }
            Err(AttemptError::Broken(failure)) => return fail(shard, client, &exchange, &failure).await,
            Err(AttemptError::Malformed(text)) => {
                shard.metrics.requests_malformed.add(1);
                let malformed = Answer::text(400, format!("Failed to parse request: {text}\n"));
                return answer(shard, client, &exchange, malformed, false).await;
            }
            Err(AttemptError::ClientGone) => {
                client.abandon(&shard.buffers);
                return None;
            }
        }
    }
    let detail = format!("Unable to connect to any targets. Tried: {}", tried.join(", "));
    fail(shard, client, &exchange, &Failure::target(502, detail)).await
}

/// Counts what has come of the body of a request, and went on to a target.
fn tally_body(shard: &Shard, exchange: &mut Exchange, target: &Target) {
    let received = exchange.body.take_received();
    let again = if exchange.retry { exchange.body.saved().len() as u64 } else { 0 };
    shard.tally(&exchange.route, |traffic| {
        traffic.client_received.content_bytes += received;
        if !is_own(target) {
            traffic.target_sent.content_bytes += received + again;
        }
    });
}

/// Whether a target is part of waft itself.
pub(crate) fn is_own(target: &Target) -> bool {
    matches!(target.address, TargetAddress::Demo | TargetAddress::Test)
}

/// One target: on a kept connection first, once more on a fresh one if that was closed.
async fn reach(
    shard: &Rc<Shard>,
    client: &mut Client,
    exchange: &mut Exchange,
    target: &Target,
) -> Result<Attempt, AttemptError> {
    if let TargetAddress::Dir(directory) = &target.address {
        // Boxed, so that other requests do not carry what files need.
        return match Box::pin(files::serve(shard, client, exchange, directory)).await {
            Served::Sent(relayed) => Ok(Attempt::Relayed(relayed)),
            Served::Malformed(text) => Err(AttemptError::Malformed(text)),
            Served::Gone => Err(AttemptError::ClientGone),
        };
    }
    if is_own(target) {
        return own_target(shard, client, exchange, target).await;
    }
    if worker::is_worker(target) {
        // Boxed, so that other requests do not carry what it needs.
        return Box::pin(worker::ask(shard, client, exchange, target)).await;
    }
    let mut fresh = false;
    let name = proved_name(target, &exchange.route, &exchange.head);
    loop {
        let (limits, timeouts) = (&exchange.settings.limits, &exchange.route.options.timeouts);
        let open_max = limits.target_connections_max;
        let connecting = shard.pool.connect(shard, target, name.as_deref(), fresh, timeouts.connect, open_max);
        let mut connection = connecting.await.map_err(|error| match error {
            ConnectError::Blocked { .. } => {
                AttemptError::Broken(Failure::target(502, "Error: Origin host/IP blocked."))
            }
            error => AttemptError::NotReached(error.to_string()),
        })?;
        shard.metrics.target_requests.add(1);
        match attempt(shard, client, exchange, target, &mut connection).await {
            Ok(Answered::Relayed(relayed)) => {
                if relayed.target_reusable {
                    connection.keep(shard)
                } else {
                    connection.abandon(shard)
                }
                return Ok(Attempt::Relayed(relayed));
            }
            Ok(Answered::Instruct(head)) => return instruct(exchange, &head, connection),
            Ok(Answered::Wrap(head)) => return wrap(exchange, &head, connection),
            Err(AttemptError::Stale(why)) if !fresh && exchange.body.is_replayable() => {
                debug!(target = %target.address, error = %why, "A kept connection was closed; the request is sent again.");
                connection.abandon(shard);
                shard.metrics.target_retries.add(1);
                fresh = true;
            }
            Err(error) => {
                connection.abandon(shard);
                return Err(error);
            }
        }
    }
}

/// A target that is part of waft itself.
async fn own_target(
    shard: &Rc<Shard>,
    client: &mut Client,
    exchange: &mut Exchange,
    target: &Target,
) -> Result<Attempt, AttemptError> {
    match exchange.body.read_all(shard, client).await {
        BodyEnd::Complete => {}
        // The demonstration is waft's own; the test handler answers as its users know it.
        BodyEnd::TooLong => {
            let status = if target.address == TargetAddress::Test { 400 } else { 413 };
            return Err(AttemptError::Broken(Failure::request(status, "request too large")));
        }
        BodyEnd::Malformed(text) => return Err(AttemptError::Malformed(text)),
        BodyEnd::Gone => return Err(AttemptError::ClientGone),
    }
    let answer = internal::answer(shard, exchange, target);
    if is_instruct(answer.fields.iter()) && !exchange.trusted && !exchange.route.options.no_grip {
        let reason = waft_http1::reason_phrase(answer.status);
        let instruct = Instruct::from_head(answer.status, reason, answer.fields.iter()).map_err(bad_instruct)?;
        return Ok(Attempt::Instruct(Box::new(instruct), ResponseBody::Whole(answer.body)));
    }
    tally_answer(shard, exchange, &answer);
    let keep = send(shard, client, exchange, answer.clone(), true).await;
    Ok(Attempt::Relayed(Relayed {
        status: answer.status,
        bytes: answer.body.len() as u64,
        client_reusable: keep,
        target_reusable: true,
        cut_short: false,
    }))
}

pub(crate) fn bad_instruct_failure(error: &waft_grip::instruct::InstructError) -> Failure {
    Failure::target(502, format!("Failed to parse accept instructions: {error}"))
}

pub(crate) fn bad_instruct(error: waft_grip::instruct::InstructError) -> AttemptError {
    AttemptError::Broken(bad_instruct_failure(&error))
}

fn instruct(exchange: &Exchange, head: &ResponseHead, connection: TargetConnection) -> Result<Attempt, AttemptError> {
    let instruct = Instruct::from_head(head.status(), head.reason(), head.fields()).map_err(bad_instruct)?;
    let framing = framing_of(head, exchange.head.method())?;
    Ok(Attempt::Instruct(Box::new(instruct), ResponseBody::wire(connection, framing, head.keep_alive())))
}

fn framing_of(head: &ResponseHead, method: &str) -> Result<Framing, AttemptError> {
    head.framing(method).map_err(|error| {
        AttemptError::Broken(Failure::target(502, format!("The response of the target cannot be read: {error}")))
    })
}

/// A response that is to become a script. What frames it goes no further.
fn wrap(exchange: &Exchange, head: &ResponseHead, connection: TargetConnection) -> Result<Attempt, AttemptError> {
    let framing = framing_of(head, exchange.head.method())?;
    let headers = head.end_to_end_fields().filter(|(name, _)| !name.eq_ignore_ascii_case("content-length")).collect();
    let parts = ResponseParts { code: head.status(), reason: head.reason().to_owned(), headers, body: None };
    Ok(Attempt::Wrap(parts, ResponseBody::wire(connection, framing, head.keep_alive())))
}

enum Answered {
    Relayed(Relayed),
    Instruct(ResponseHead),
    Wrap(ResponseHead),
}

/// One request on one connection.
async fn attempt(
    shard: &Rc<Shard>,
    client: &mut Client,
    exchange: &mut Exchange,
    target: &Target,
    connection: &mut TargetConnection,
) -> Result<Answered, AttemptError> {
    let outgoing = Outgoing { signature: sign(shard, exchange), last: &exchange.last, ..exchange.outgoing(target) };
    let grip = outgoing.is_grip();
    let mut out = Vec::with_capacity(1024);
    outgoing.write(&mut out);
    shard.tally(&exchange.route, |traffic| traffic.target_sent.written(&out));
    let chunked = exchange.head.framing() == Framing::Chunked;
    if !exchange.body.saved().is_empty() {
        relay::put_piece(&mut out, exchange.body.saved(), chunked);
    }
    let done = exchange.body.is_done();
    if done && chunked {
        out.extend_from_slice(waft_http1::LAST_CHUNK);
    }
    let reused = connection.reused;
    let broke = |why: String| match reused {
        true => AttemptError::Stale(why),
        false => AttemptError::Broken(Failure::target(502, why)),
    };
    if let Err(error) = connection.stream.write_all(&out).await {
        return Err(broke(format!("Sending the request failed: {error}")));
    }
    let TargetConnection { stream: target_stream, buffer: target_buffer, .. } = connection;
    let Client { stream, buffer, .. } = client;
    let mut upload = pin!(upload(shard, stream, buffer, &mut exchange.body, target_stream, chunked));
    let mut uploading = !done;
    let head = {
        let options = &exchange.route.options;
        let to_http11 = exchange.head.version() == Version::Http11;
        let reading = Reading { shard, from: target_stream, client: stream, to_http11 };
        let limits = &exchange.settings.limits.head;
        let timeouts = (options.timeouts.response_head, options.timeouts.response_idle);
        let mut reading = pin!(reading.head(target_buffer, limits, timeouts));
        loop {
            tokio::select! {
                biased;
                read = &mut reading => break read.map_err(|error| match error {
                    ReadHeadError::Closed(why) => broke(why),
                    ReadHeadError::Broken(failure) => AttemptError::Broken(failure),
                    ReadHeadError::ClientGone => AttemptError::ClientGone,
                })?,
                sent = &mut upload, if uploading => {
                    uploading = false;
                    match sent {
                        // The target may answer although it does not want the rest.
                        Ok(()) | Err(UploadError::Target) => {}
                        Err(UploadError::Client) => return Err(AttemptError::ClientGone),
                        Err(UploadError::Malformed(text)) => return Err(AttemptError::Malformed(text)),
                    }
                }
            }
        }
    };
    shard.tally(&exchange.route, |traffic| traffic.target_received.header_bytes += response_head_size(&head));
    if grip && is_instruct(head.fields()) {
        if uploading && let Err(UploadError::Client) = upload.await {
            return Err(AttemptError::ClientGone);
        }
        return Ok(Answered::Instruct(head));
    }
    if exchange.dress.as_ref().is_some_and(|dress| dress.call.is_some()) {
        return Ok(Answered::Wrap(head));
    }
    let framing = framing_of(&head, exchange.head.method())?;
    let mut out = Vec::with_capacity(1024);
    let keep = exchange.head.keep_alive() && !shard.is_draining();
    let client_side = (exchange.head.version(), exchange.dress.as_deref());
    let frame = write_response_head(&mut out, &head, framing, client_side, keep && !uploading);
    shard.tally(&exchange.route, |traffic| traffic.client_sent.written(&out));
    let ends_with_connection = frame == Frame::Stream && exchange.head.version() == Version::Http10;
    let relaying = relay::response(relay::Response {
        shard,
        out,
        decoder: BodyDecoder::new(framing),
        from: target_stream,
        buffer: target_buffer,
        to: stream,
        chunked: frame == Frame::Stream && exchange.head.version() == Version::Http11,
        idle_limit: exchange.route.options.timeouts.response_idle,
    });
    let mut relaying = pin!(relaying);
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut relaying => break ended,
            sent = &mut upload, if uploading => {
                uploading = false;
                if let Err(UploadError::Client) = sent {
                    return Err(AttemptError::ClientGone);
                }
            }
        }
    };
    if !ended.begun {
        let why = "The body of the response cannot be read.";
        return Err(AttemptError::Broken(Failure::target(502, why)));
    }
    Ok(Answered::Relayed(Relayed {
        status: head.status(),
        bytes: ended.bytes,
        client_reusable: keep && ended.complete && !uploading && !ends_with_connection,
        target_reusable: ended.complete && !uploading && framing != Framing::UntilClose && head.keep_alive(),
        cut_short: !ended.complete,
    }))
}

impl Exchange {
    /// What its request to a target is made from, without signature and positions.
    pub(crate) fn outgoing<'a>(&'a self, target: &'a Target) -> Outgoing<'a> {
        Outgoing {
            head: &self.head,
            route: &self.route,
            target,
            forward: &self.settings.forward,
            peer: &self.peer,
            secure: self.secure,
            trusted: self.trusted,
            signature: None,
            last: &[],
        }
    }
}

/// The signature of a request to a target, where it is to have one.
pub(crate) fn sign(shard: &Shard, exchange: &Exchange) -> Option<Arc<str>> {
    match exchange.trusted || exchange.route.options.no_grip {
        true => None,
        false => shard.signatures.sign(&exchange.settings, &exchange.route),
    }
}

/// Writes the head of a relayed response; returns how its body is framed.
fn write_response_head(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    framing: Framing,
    (version, dress): (Version, Option<&Dress>),
    keep_alive: bool,
) -> Frame {
    let mut writer = HeadWriter::new(out);
    writer.status_line(head.status(), head.reason());
    // A length beside chunks was refused; one on a response without body is information.
    match dress {
        None => {
            writer.fields(head.end_to_end_fields());
        }
        Some(dress) => {
            let mut fields = head.end_to_end_fields().collect();
            dress.apply(&mut fields);
            writer.fields(fields.iter());
        }
    }
    let frame = match framing {
        Framing::None | Framing::Length(_) => Frame::None,
        Framing::Chunked | Framing::UntilClose => Frame::Stream,
    };
    respond::finish(&mut writer, frame, version, keep_alive);
    writer.finish();
    frame
}

/// What is needed to read a response head.
struct Reading<'a> {
    shard: &'a Shard,
    from: &'a Stream,
    client: &'a Stream,
    /// Whether the client understands interim responses.
    to_http11: bool,
}

enum ReadHeadError {
    /// The connection ended before any byte of a response.
    Closed(String),
    Broken(Failure),
    ClientGone,
}

impl Reading<'_> {
    /// Reads a response head, passing on interim responses.
    async fn head(
        &self,
        buffer: &mut ReadBuffer,
        limits: &waft_http1::HeadLimits,
        (head_limit, idle_limit): (Option<Duration>, Option<Duration>),
    ) -> Result<ResponseHead, ReadHeadError> {
        let broken = |why: String| ReadHeadError::Broken(Failure::target(502, why));
        let started = Instant::now();
        let mut any = false;
        loop {
            match parse_response(buffer.unread(), limits) {
                Ok(Parsed::Complete { head, consumed }) => {
                    buffer.consume(consumed);
                    match head.status() {
                        100..=199 => self.interim(&head).await,
                        _ => return Ok(head),
                    }
                    continue;
                }
                Ok(Parsed::Partial) => {}
                Err(error) => return Err(broken(format!("The response of the target cannot be read: {error}"))),
            }
            let sweep = self.shard.sweep.notified();
            let room = buffer.room(&self.shard.buffers, limits.bytes_max);
            tokio::select! {
                biased;
                read = self.from.read(room) => match read {
                    Ok(0) | Err(_) if !any => {
                        let why = read.err().map_or_else(|| "it closed the connection".to_owned(), |error| error.to_string());
                        return Err(ReadHeadError::Closed(format!("The target did not answer: {why}")));
                    }
                    Ok(0) => return Err(broken("The target closed the connection within the head of its response.".to_owned())),
                    Ok(count) => {
                        any = true;
                        buffer.filled(count);
                    }
                    Err(error) => return Err(broken(format!("Reading the response failed: {error}"))),
                },
                () = sweep => {
                    if self.client.is_broken() {
                        return Err(ReadHeadError::ClientGone);
                    }
                    if let Some(limit) = head_limit.or(idle_limit)
                        && started.elapsed() > limit
                    {
                        let why = format!("The target did not answer within {limit:?}.");
                        return Err(ReadHeadError::Broken(Failure::target(504, why)));
                    }
                }
            }
        }
    }

    /// Passes on an interim response, but for the one that was answered here already and the one
    /// that nobody asked for.
    async fn interim(&self, head: &ResponseHead) {
        if let (true, 102..=199) = (self.to_http11, head.status()) {
            let mut out = Vec::with_capacity(256);
            let mut writer = HeadWriter::new(&mut out);
            writer.status_line(head.status(), head.reason()).fields(head.end_to_end_fields()).finish();
            // If the client has gone, writing the response will tell.
            let _told = self.client.write_all(&out).await;
        }
    }
}

enum UploadError {
    Client,
    Malformed(String),
    Target,
}

/// Sends the body of the request as it arrives, no faster than the target takes it.
async fn upload(
    shard: &Shard,
    from: &Stream,
    buffer: &mut ReadBuffer,
    body: &mut RequestBody,
    to: &Stream,
    chunked: bool,
) -> Result<(), UploadError> {
    if body.is_done() {
        return Ok(());
    }
    loop {
        match body.next(buffer).map_err(UploadError::Malformed)? {
            Piece::End => break,
            Piece::Data { skip, len, consumed } => {
                let data = buffer.unread().get(skip..skip + len).unwrap_or_default();
                let sent = if chunked {
                    to.write_parts(&[waft_http1::chunk_header(len).as_bytes(), data, b"\r\n"]).await
                } else {
                    to.write_all(data).await
                };
                sent.map_err(|_gone| UploadError::Target)?;
                buffer.consume(consumed);
            }
            Piece::More => match read_into(shard, from, buffer, BODY_BUFFER).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(UploadError::Client),
            },
        }
    }
    if chunked {
        to.write_all(waft_http1::LAST_CHUNK).await.map_err(|_gone| UploadError::Target)?;
    }
    Ok(())
}

/// Does what is left to do after a response went to the client.
async fn relayed_to(
    shard: &Rc<Shard>,
    client: Client,
    exchange: &Exchange,
    target: &Target,
    relayed: Relayed,
) -> Option<Client> {
    if !is_own(target) {
        shard.tally(&exchange.route, |traffic| {
            traffic.target_received.content_bytes += relayed.bytes;
            traffic.client_sent.content_bytes += relayed.bytes;
        });
    }
    log(exchange, Some(target), relayed.status, relayed.bytes, if relayed.cut_short { "cut short" } else { "" });
    if relayed.client_reusable {
        return Some(client);
    }
    if relayed.cut_short {
        // The client must see that something is missing: no last chunk, no orderly end.
        client.abandon(&shard.buffers);
    } else {
        client.close(shard).await;
    }
    None
}

/// Answers a request with an error of waft's own.
pub(crate) async fn fail(shard: &Rc<Shard>, client: Client, exchange: &Exchange, failure: &Failure) -> Option<Client> {
    shard.metrics.requests_failed.add(1);
    if !failure.detail.is_empty() {
        warn!(route = %exchange.route.id, path = exchange.head.path(), status = failure.status, error = %failure.detail, "A request failed.");
    }
    log(exchange, None, failure.status, 0, "error");
    let failed = failure.answer(exchange.route.options.debug);
    answer(shard, client, exchange, failed, exchange.body.is_done()).await
}

/// Answers a request for which there is an exchange, and says what becomes of its connection.
pub(crate) async fn answer(
    shard: &Rc<Shard>,
    client: Client,
    exchange: &Exchange,
    answer: Answer,
    reusable: bool,
) -> Option<Client> {
    tally_answer(shard, exchange, &answer);
    if send(shard, &client, exchange, answer, reusable).await {
        return Some(client);
    }
    client.close(shard).await;
    None
}

/// Writes an answer of waft's own, dressed as the route says; says whether the connection can be used again.
async fn send(shard: &Shard, client: &Client, exchange: &Exchange, answer: Answer, reusable: bool) -> bool {
    match &exchange.dress {
        None => client.answer(shard, &exchange.head, &answer, reusable).await,
        Some(dress) => {
            client.answer_as(shard, &exchange.head, exchange.is_to_head(), &dress.own(answer), reusable).await
        }
    }
}

/// Counts an answer of waft's own.
fn tally_answer(shard: &Shard, exchange: &Exchange, answer: &Answer) {
    let head = &exchange.head;
    shard.tally(&exchange.route, |traffic| {
        traffic.client_sent.written(&respond::own(head.is_head(), head.version(), answer, true));
    });
}

pub(crate) async fn refuse(
    shard: &Rc<Shard>,
    client: Client,
    head: &RequestHead,
    answer: &Answer,
    reusable: bool,
) -> Option<Client> {
    if client.answer(shard, head, answer, reusable).await {
        return Some(client);
    }
    client.close(shard).await;
    None
}

/// The level of lines of requests, as Pushpin numbers levels.
const REQUEST_LINE_LEVEL: u8 = 2;

/// Writes the access log line of a request, if there is one.
pub(crate) fn log(exchange: &Exchange, target: Option<&Target>, status: u16, bytes: u64, note: &str) {
    if let Some(file) = &exchange.settings.access_file {
        file.write(exchange, status, bytes);
    }
    // Lines of requests have the level 2, which a route may be kept below.
    if !exchange.settings.access_log || exchange.route.options.log_level.is_some_and(|level| level < REQUEST_LINE_LEVEL)
    {
        return;
    }
    let head = &exchange.head;
    let user_agent = exchange.settings.log_user_agent.then(|| head.field("user-agent")).flatten();
    info!(
        target: "access",
        method = head.method(),
        path = head.path_and_query(),
        host = head.host(),
        client = %exchange.peer,
        user_agent = user_agent.and_then(|agent| str::from_utf8(agent).ok()),
        route = %exchange.route.id,
        to = target.map(|target| target.address.to_string()),
        status,
        bytes,
        took_ms = u64::try_from(exchange.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        note,
        retry = exchange.retry,
    );
}
