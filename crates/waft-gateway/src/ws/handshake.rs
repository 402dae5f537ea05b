//! From a request for a WebSocket to one in the held set.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tracing::warn;
use waft_http1::{Fields, HeadWriter, RequestHead};
use waft_hub::Mode;
use waft_net::Stream;
use waft_route::{Route, Target, TargetAddress};
use waft_websocket::connection::{Delivery, Limits, Receiver, Role};
use waft_websocket::control::GripExtension;
use waft_websocket::handshake::{Request, RequestError, Response, accept_key, read_extensions};
use waft_websocket::negotiate::{Params, Policy};
use waft_websocket::over_http::{Client as ClientEvent, Failure as LinkFailure, ToClient, codec, relayed_with_accept};

use super::direct::{self, Connected};
use super::over_http::{self, Link, Reply};
use super::{ToTarget, WsHold, channels, feed, rearm, shared, worker};
use crate::begin::attach;
use crate::client::Client;
use crate::exchange::{Exchange, fail, log, refuse};
use crate::hold::{Hold, count};
use crate::internal;
use crate::place::uri_of;
use crate::realm::{self, RealmSocket};
use crate::respond::{self, Failure, Frame};
use crate::service::Answer;
use crate::shard::Shard;
use crate::subscribe::Class;

/// What a client may send before its handshake is answered.
const EARLY_MAX: usize = 64 << 10;

/// Whether a plain request pretends to be one of waft's own to a target that takes events.
pub(crate) fn forges_events(head: &RequestHead, route: &Route) -> bool {
    route.targets.iter().any(|target| target.over_http)
        && head.field("content-type").is_some_and(|value| {
            let kind = value.split(|byte| *byte == b';').next().unwrap_or_default();
            kind.trim_ascii().eq_ignore_ascii_case(codec::MEDIA_TYPE.as_bytes())
        })
}

/// The answer to such a request.
pub(crate) fn forged() -> Answer {
    Answer::text(403, "Client not allowed to send WebSocket events directly.\n")
}

/// Whether a client, itself a GRIP proxy, offers the control layer.
pub(super) fn offers_grip(head: &RequestHead) -> bool {
    read_extensions(head.fields()).is_ok_and(|list| list.iter().any(|extension| extension.name == "grip"))
}

/// What asking one target came to.
pub(super) enum Opened {
    Accepted(Acceptance),
    /// Nothing reached the target: another one may be tried.
    NotReached(String),
    /// The target answered with a response instead.
    Rejected(Reply),
    Failed(Failure),
    ClientGone,
}

/// A target's yes.
pub(super) struct Acceptance {
    /// For the client's 101.
    pub(super) fields: Fields,
    pub(super) grip: Option<GripExtension>,
    /// What the target answered in `Sec-WebSocket-Extensions`, for a client that is a GRIP proxy.
    pub(super) extensions: Vec<String>,
    pub(super) way: Way,
}

/// How the target is reached from now on.
pub(super) enum Way {
    Direct(Box<Connected>),
    /// The test handler, with its channels.
    Echo(Vec<String>),
    OverHttp(Rc<Link>),
    /// The realm whose client it is.
    Realm(Box<RealmSocket>),
    Worker(Rc<worker::Side>),
}

/// What a client sends while it waits for the answer to its handshake.
#[derive(Debug, Default)]
pub(super) struct Early {
    data: Vec<u8>,
    gone: bool,
}

impl Early {
    /// Waits until the client has gone; never returns for one that already has.
    pub(super) async fn gone(&mut self, stream: &Stream) {
        if self.gone {
            return std::future::pending().await;
        }
        let mut piece = [0; 256];
        loop {
            match stream.read(&mut piece).await {
                Ok(count @ 1..) if self.data.len() + count <= EARLY_MAX => {
                    self.data.extend_from_slice(piece.get(..count).unwrap_or_default());
                }
                Ok(_) | Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    /// What comes of asking a target, unless the client goes before it is known.
    async fn unless_gone(&mut self, stream: &Stream, asked: impl Future<Output = Opened>) -> Opened {
        tokio::select! {
            biased;
            opened = asked => opened,
            () = self.gone(stream) => Opened::ClientGone,
        }
    }
}

/// Serves a request for a WebSocket.
pub(crate) async fn serve(shard: &Rc<Shard>, mut client: Client, exchange: Exchange) -> Option<Client> {
    if let Some(answer) = refusal(shard, &exchange) {
        shard.metrics.requests_failed.add(1);
        log(&exchange, None, answer.status, 0, "websocket refused");
        return refuse(shard, client, &exchange.head, &answer, exchange.body.is_done()).await;
    }
    let mut early =
        Early { data: client.buffer.take_unread(&shard.buffers).map_or_else(Vec::new, Vec::from), gone: false };
    let route = Arc::clone(&exchange.route);
    let mut tried = Vec::new();
    for (number, target) in route.targets.iter().enumerate() {
        let opened = match &target.address {
            TargetAddress::Test => own(&exchange),
            TargetAddress::Demo => open_over_http(shard, &client, &exchange, number, target, &mut early).await,
            TargetAddress::Http { .. } | TargetAddress::Unix(_) if target.over_http => {
                open_over_http(shard, &client, &exchange, number, target, &mut early).await
            }
            TargetAddress::Http { .. } | TargetAddress::Unix(_) => {
                early.unless_gone(&client.stream, direct::open(shard, &exchange, target)).await
            }
            TargetAddress::Zhttp(_) | TargetAddress::ZhttpReq(_) if target.over_http => {
                open_over_http(shard, &client, &exchange, number, target, &mut early).await
            }
            TargetAddress::Zhttp(_) | TargetAddress::ZhttpReq(_) => {
                early.unless_gone(&client.stream, worker::open(shard, &exchange, target)).await
            }
            TargetAddress::Dir(_) => Opened::Failed(Failure::request(404, "There is no WebSocket here.")),
            TargetAddress::Handler(_) => {
                Opened::NotReached("a handler is the only target of its route, or is not used".to_owned())
            }
        };
        match opened {
            Opened::Accepted(acceptance) => {
                accept(shard, client, exchange, Some(target), acceptance, early);
                return None;
            }
            Opened::NotReached(why) => {
                warn!(route = %route.id, target = %target.address, error = %why, "A target could not be reached.");
                tried.push(target.address.to_string());
            }
            Opened::Rejected(reply) => return reject(shard, client, &exchange, target, &reply).await,
            Opened::Failed(failure) => return end(shard, client, &exchange, &failure).await,
            Opened::ClientGone => return abandon(shard, client),
        }
    }
    let detail = format!("Unable to connect to any targets. Tried: {}", tried.join(", "));
    end(shard, client, &exchange, &Failure::target(502, detail)).await
}

/// Why a request cannot become a WebSocket, if it cannot.
pub(crate) fn refusal(shard: &Shard, exchange: &Exchange) -> Option<Answer> {
    let head = &exchange.head;
    if let Err(error) = Request::read(head.method(), head.fields()) {
        let text = "Request contained an Upgrade header with value \"websocket\" but the request was not a valid \
                    WebSocket request.\n";
        let mut answer = Answer::text(400, text);
        if error == RequestError::Version {
            answer.fields.push("Sec-WebSocket-Version", "13");
        }
        return Some(answer);
    }
    let origin = head.field("origin").and_then(|origin| str::from_utf8(origin).ok());
    if !exchange.route.options.admits_origin(origin) {
        return Some(Answer::text(403, "Origin not allowed.\n"));
    }
    shard.is_draining().then(|| Failure { status: 503, public: "Shutting down.", detail: String::new() }.answer(false))
}

async fn end(shard: &Rc<Shard>, client: Client, exchange: &Exchange, failure: &Failure) -> Option<Client> {
    let client = fail(shard, client, exchange, failure).await?;
    client.close(shard).await;
    None
}

fn abandon(shard: &Rc<Shard>, client: Client) -> Option<Client> {
    client.abandon(&shard.buffers);
    None
}

/// Gives the target's own answer to the client, and ends the connection.
async fn reject(
    shard: &Rc<Shard>,
    client: Client,
    exchange: &Exchange,
    target: &Target,
    reply: &Reply,
) -> Option<Client> {
    log(exchange, Some(target), reply.status, reply.body.len() as u64, "websocket rejected");
    let mut fields = reply.fields.clone();
    fields.remove("content-length");
    let frame = match reply.status {
        100..=199 | 204 | 304 => Frame::None,
        _ => Frame::Length(reply.body.len()),
    };
    let mut out = respond::head(reply.status, &reply.reason, &fields, frame, exchange.head.version(), false);
    if frame != Frame::None {
        out.extend_from_slice(&reply.body);
    }
    shard.metrics.bytes_sent.add(out.len() as u64);
    shard.tally(&exchange.route, |traffic| traffic.client_sent.written(&out));
    if client.stream.write_all(&out).await.is_err() {
        return abandon(shard, client);
    }
    client.close(shard).await;
    None
}

/// The test handler.
fn own(exchange: &Exchange) -> Opened {
    let Some(channels) = internal::test_websocket(exchange) else {
        let body = Bytes::from_static(b"no such test resource\n");
        let mut fields = Fields::new();
        fields.push("Content-Type", "text/plain");
        return Opened::Rejected(Reply { status: 404, reason: "Not Found".to_owned(), fields, body });
    };
    let (fields, grip) = (Fields::new(), Some(GripExtension::default()));
    Opened::Accepted(Acceptance { fields, grip, extensions: Vec::new(), way: Way::Echo(channels) })
}

/// Asks a target by HTTP, again and again while it is undecided.
async fn open_over_http(
    shard: &Rc<Shard>,
    client: &Client,
    exchange: &Exchange,
    number: usize,
    target: &Target,
    early: &mut Early,
) -> Opened {
    let link = Rc::new(Link::new(shard, exchange, number, target));
    let mut first = true;
    loop {
        let plan = link.session.borrow_mut().poll_request(Instant::now());
        let Some(plan) = plan else {
            let again = link.session.borrow().poll_timeout();
            let Some(again) = again else { return Opened::ClientGone };
            tokio::select! {
                () = tokio::time::sleep_until(again.into()) => {}
                () = early.gone(&client.stream) => link.session.borrow_mut().handle_client(ClientEvent::Gone),
            }
            continue;
        };
        let request = link.request(shard, &plan);
        let outcome = {
            let mut performing = std::pin::pin!(link.perform(shard, &request));
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut performing => break outcome,
                    () = early.gone(&client.stream) => link.session.borrow_mut().handle_client(ClientEvent::Gone),
                }
            }
        };
        if let Err(LinkFailure::NotReached) = outcome
            && first
            && !early.gone
        {
            return Opened::NotReached("no connection".to_owned());
        }
        first = false;
        let reply = outcome.as_ref().ok().map(|reply| (reply.status, reply.reason.clone(), reply.fields.clone()));
        link.take(outcome);
        if early.gone {
            over_http::conclude(shard, &link).await;
            return Opened::ClientGone;
        }
        let next = link.session.borrow_mut().poll_client();
        let (status, reason, fields) = reply.unwrap_or_default();
        match next {
            None => {}
            Some(ToClient::Accept { grip }) => return accepted(link, &fields, grip),
            Some(ToClient::Reject { body }) => return Opened::Rejected(Reply { status, reason, fields, body }),
            Some(ToClient::BadGateway(error)) => return Opened::Failed(Failure::target(502, error.to_string())),
            Some(ToClient::Close(_) | ToClient::Drop(_) | ToClient::Finish | ToClient::Message(..)) => {
                return Opened::Failed(Failure::target(502, "The target sent events before it accepted."));
            }
        }
    }
}

fn accepted(link: Rc<Link>, answered: &Fields, grip: Option<GripExtension>) -> Opened {
    let mut fields = Fields::new();
    for (name, value) in answered.iter().filter(|(name, _)| relayed_with_accept(name)) {
        fields.push(name, value);
    }
    let extensions = relayed_extensions(answered.iter());
    let grip = grip.filter(|_| link.is_grip());
    Opened::Accepted(Acceptance { fields, grip, extensions, way: Way::OverHttp(link) })
}

/// The control layer as the target switched it on, for a client that is a GRIP proxy and does its work.
pub(super) fn relayed_extensions<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<String> {
    let values = fields.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-extensions"));
    let texts = values.filter_map(|(_, value)| str::from_utf8(value).ok());
    texts.filter(|text| text.trim_start().starts_with("grip")).map(str::to_owned).collect()
}

/// The limits for what a client sends: pieces are passed on where nothing needs them whole.
fn limits(shard: &Shard, exchange: &Exchange, way: &Way) -> Arc<Limits> {
    let limits = match way {
        Way::Realm(socket) => {
            let max = socket.frame_max();
            Limits { delivery: Delivery::Messages, frame_max: max, message_max: max }
        }
        Way::Direct(_) | Way::Worker(_) => {
            Limits { delivery: Delivery::Relay, frame_max: u64::MAX, message_max: u64::MAX }
        }
        Way::Echo(_) | Way::OverHttp(_) => {
            let max = exchange.settings.websocket.message_max;
            Limits { delivery: Delivery::Messages, frame_max: max, message_max: max }
        }
    };
    shared(&shard.ws.limits, limits)
}

/// The 101 for the client, and what was agreed on about compression.
fn switching(exchange: &Exchange, acceptance: &Acceptance) -> (Vec<u8>, Option<Params>) {
    let head = &exchange.head;
    let request = Request::read(head.method(), head.fields()).ok();
    let mut extensions = Vec::new();
    let mut deflate = None;
    let compresses = exchange.route.options.websocket.compression && !matches!(acceptance.way, Way::Realm(_));
    if let Some(request) = request.as_ref().filter(|_| compresses)
        && let Some((params, element)) = Policy::default().accept(&request.extensions)
    {
        deflate = Some(params);
        extensions.push(element);
    }
    if exchange.trusted {
        extensions.extend(acceptance.extensions.iter().cloned());
    }
    let key = request.map(|request| request.key).unwrap_or_default();
    let mut out = Vec::with_capacity(256);
    let mut writer = HeadWriter::new(&mut out);
    writer.status_line(101, "Switching Protocols");
    writer.fields(acceptance.fields.iter());
    Response { accept: accept_key(key), protocol: None, extensions: &extensions }.write_fields(&mut out);
    out.extend_from_slice(b"\r\n");
    (out, deflate)
}

/// Puts an accepted WebSocket into the held set. Its channels are subscribed to before the client sees the 101.
fn accept(
    shard: &Rc<Shard>,
    client: Client,
    mut exchange: Exchange,
    target: Option<&Target>,
    acceptance: Acceptance,
    early: Early,
) {
    log(&exchange, target, 101, 0, "websocket");
    let (answer, deflate) = switching(&exchange, &acceptance);
    shard.tally(&exchange.route, |traffic| traffic.client_sent.written(&answer));
    let Acceptance { grip, way, .. } = acceptance;
    let Client { stream, peer, presence, secure, .. } = client;
    let limits = limits(shard, &exchange, &way);
    let (to_target, way) = match way {
        Way::Direct(_) => (ToTarget::Nowhere, Some(way)),
        Way::Echo(_) => (ToTarget::Echo, Some(way)),
        Way::OverHttp(ref link) => (ToTarget::OverHttp(Rc::clone(link)), Some(way)),
        Way::Realm(socket) => (ToTarget::Realm(socket), None),
        Way::Worker(ref side) => (ToTarget::Worker(Rc::clone(side)), Some(way)),
    };
    let steered = grip.is_some() || matches!(to_target, ToTarget::OverHttp(_));
    let uri = if steered { uri_of(&exchange.head, exchange.secure) } else { String::new() };
    let hold = WsHold {
        peer,
        presence,
        route: Arc::clone(&exchange.route),
        receiver: Receiver::new(Role::Server, limits, deflate.as_ref()),
        subs: Vec::new(),
        meta: shard.templates.meta(Vec::new()),
        deflate,
        grip,
        target: to_target,
        uri: uri.into(),
        schedule: None,
        heard: Instant::now(),
        pings_unanswered: 0,
        paused: false,
        close_sent: false,
        close_received: false,
        secure,
        seat: std::mem::take(&mut exchange.seat),
    };
    let key = shard.held.borrow_mut().reserve(Hold::Ws(Box::new(hold)));
    if let Some(Hold::Ws(hold)) = shard.held.borrow_mut().get_mut(key) {
        hold.seat.begin();
        shard.place(&hold.seat, key);
    }
    count(shard, Mode::Ws, 1);
    super::write(shard, key, &answer.into());
    for name in target.into_iter().flat_map(|target| &target.subs) {
        channels::join_implicit(shard, key, name);
    }
    let mut target_bytes = Vec::new();
    let mut target_key = None;
    match way {
        None | Some(Way::Realm(_)) => realm::socket_begun(shard, key),
        Some(Way::Echo(names)) => {
            for name in names {
                channels::join(shard, key, &name, &[], None, None, &mut super::Out::default());
            }
        }
        Some(Way::Direct(connected)) => {
            target_bytes = connected.unread.clone();
            target_key = direct::hold(shard, key, *connected);
        }
        Some(Way::OverHttp(_)) => over_http::pump(shard, key),
        Some(Way::Worker(side)) => {
            side.hold(key);
            worker::on_worker(shard, key);
        }
    }
    if shard.held.borrow().get(key).is_none() || !attach(shard, key, stream) {
        return;
    }
    if let Some(target_key) = target_key.filter(|_| !target_bytes.is_empty()) {
        feed(shard, target_key, &target_bytes);
    }
    if early.gone {
        return super::lost(shard, key);
    }
    if !early.data.is_empty() {
        feed(shard, key, &early.data);
    }
    rearm(shard, key);
}

/// Accepts the WebSocket of a realm's client, which nobody else is asked about.
pub(crate) fn accept_in_realm(shard: &Rc<Shard>, mut client: Client, exchange: Exchange, socket: RealmSocket) {
    let early = Early { data: client.buffer.take_unread(&shard.buffers).map_or_else(Vec::new, Vec::from), gone: false };
    let mut fields = Fields::new();
    if let Some(name) = socket.protocol() {
        fields.push("Sec-WebSocket-Protocol", name);
    }
    let acceptance = Acceptance { fields, grip: None, extensions: Vec::new(), way: Way::Realm(Box::new(socket)) };
    accept(shard, client, exchange, None, acceptance, early);
}

/// Which class of listeners a subscription of a WebSocket belongs to.
pub(super) fn class(hold: &WsHold, careful: bool) -> Class {
    if careful || hold.deflate.is_some() { Class::WsCareful } else { Class::Ws }
}
