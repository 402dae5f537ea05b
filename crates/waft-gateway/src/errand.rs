//! Requests that this gateway makes by itself: through the route of the client they are made for, or to the outside
//! where they lead to another origin.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use waft_grip::feature;
use waft_http1::{Fields, HeadLimits, HeadWriter, Parsed, RequestHead, ResponseHead, parse_request, parse_response};
use waft_net::PeerAddr;
use waft_outbound::policy::Policy;
use waft_outbound::target::Target as OutsideTarget;
use waft_outbound::{Call, CallError, Client, RequestBody};
use waft_route::{Route, Target, TargetAddress};

use crate::forward::{Outgoing, proved_name};
use crate::place::Base;
use crate::pool::TargetConnection;
use crate::record::response_head_size;
use crate::relay::ResponseBody;
use crate::settings::{Outside, Settings};
use crate::shard::Shard;
use crate::worker::{self, AnswerHead, Unanswered};

/// A request that this gateway makes by itself.
#[derive(Debug)]
pub(crate) struct Errand<'a> {
    pub(crate) method: &'static str,
    pub(crate) place: &'a Base,
    /// Positions to tell.
    pub(crate) last: &'a [(String, String)],
    pub(crate) fields: &'a [(&'static str, String)],
    pub(crate) body: Bytes,
    /// How long the answer's head may take, once the request is on its way.
    pub(crate) limit: Duration,
}

/// The answer to an errand.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) fields: Fields,
    pub(crate) body: ResponseBody,
}

/// Why an errand has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ErrandError {
    #[error("`{0}` cannot be asked for")]
    Malformed(String),
    #[error("no target could be reached: {0}")]
    NotReached(String),
    #[error("the target did not answer: {0}")]
    Broken(String),
    #[error("nothing was answered within {0:?}")]
    TimedOut(Duration),
    #[error("the call to the outside failed: {}", whole_story(.0))]
    Outside(CallError),
}

/// An error with what caused it.
fn whole_story(error: &CallError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl ErrandError {
    /// Whether another try may help.
    pub(crate) fn is_passing(&self) -> bool {
        !matches!(
            self,
            Self::Malformed(_) | Self::Outside(CallError::Denied(_) | CallError::Target(_) | CallError::Request)
        )
    }
}

/// Places for errands of a kind: who finds none waits, in the order of asking.
#[derive(Debug, Default)]
pub(crate) struct Places {
    taken: Cell<usize>,
    freed: Notify,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a>(&'a Places);

impl Places {
    /// A place among `most`.
    pub(crate) async fn take(&self, most: usize) -> Place<'_> {
        while self.taken.get() >= most.max(1) {
            self.freed.notified().await;
        }
        self.taken.set(self.taken.get() + 1);
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.taken.set(self.0.taken.get().saturating_sub(1));
        self.0.freed.notify_one();
    }
}

/// The way to the outside: a client that is made for the first call.
#[derive(Debug, Default)]
pub(crate) struct Exit {
    client: RefCell<Option<(Arc<Outside>, Client)>>,
}

impl Exit {
    fn client(&self, shard: &Shard, settings: &Settings) -> Client {
        let outside = &settings.outside;
        let mut kept = self.client.borrow_mut();
        if let Some((of, client)) = &*kept
            && Arc::ptr_eq(of, outside)
        {
            return client.clone();
        }
        let metrics = Arc::clone(shard.gateway.outbound_metrics());
        let client = Client::counted(outside.limits.clone(), outside.lookup.clone(), metrics);
        *kept = Some((Arc::clone(outside), client.clone()));
        client
    }

    /// Closes connections that have rested for too long.
    pub(crate) fn sweep(&self, now: std::time::Instant) {
        if let Some((_, client)) = &*self.client.borrow() {
            client.sweep(now);
        }
    }
}

/// Runs an errand for a client of `route`.
pub(crate) async fn run(shard: &Rc<Shard>, route: &Arc<Route>, errand: &Errand<'_>) -> Result<Reply, ErrandError> {
    if errand.place.is_home() {
        return at_home(shard, route, errand).await;
    }
    Box::pin(outside(shard, route, errand)).await
}

/// Makes a call to the outside, under the address policy.
async fn outside(shard: &Rc<Shard>, route: &Arc<Route>, errand: &Errand<'_>) -> Result<Reply, ErrandError> {
    let settings = shard.gateway.settings();
    let target = OutsideTarget::parse(errand.place.as_str().as_bytes())
        .map_err(|error| ErrandError::Outside(CallError::Target(error)))?;
    let mut call = Call::new(errand.method, target, policy_for(&settings, route));
    call.who = Bytes::copy_from_slice(route.id.as_bytes());
    call.body = RequestBody::Whole(errand.body.clone());
    let mut put = |name: &str, value: &[u8]| {
        call.headers.push((Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value)));
    };
    for (name, value) in errand.fields {
        put(name, value.as_bytes());
    }
    for (name, value) in route.options.headers.iter().filter(|(_, value)| !value.is_empty()) {
        put(name, value.as_bytes());
    }
    if !route.options.no_grip {
        if let Some(signature) = shard.signatures.sign(&settings, route) {
            put("Grip-Sig", signature.as_bytes());
        }
        put("Grip-Feature", feature::FEATURES.as_bytes());
    }
    for last in errand.last.iter().filter_map(|(channel, id)| feature::last(channel, id)) {
        put(feature::LAST, last.as_bytes());
    }
    let client = shard.exit.client(shard, &settings);
    let response = tokio::time::timeout(errand.limit, client.call(call))
        .await
        .map_err(|_late| ErrandError::TimedOut(errand.limit))?
        .map_err(ErrandError::Outside)?;
    let mut fields = Fields::new();
    for (name, value) in &response.headers {
        if let Ok(name) = str::from_utf8(name) {
            fields.push(name, value);
        }
    }
    Ok(Reply {
        status: response.status,
        reason: String::from_utf8_lossy(&response.reason).into_owned(),
        fields,
        body: ResponseBody::Outside(Some(Box::new(response.body))),
    })
}

/// The rules for calls that the targets of a route ask for.
fn policy_for(settings: &Settings, route: &Route) -> Arc<Policy> {
    let outside = &settings.outside;
    let untrusted = route.targets.iter().any(|target| target.untrusted);
    Arc::clone(if untrusted { &outside.untrusted_policy } else { &outside.policy })
}

/// Makes a request to the targets of `route`.
async fn at_home(shard: &Rc<Shard>, route: &Arc<Route>, errand: &Errand<'_>) -> Result<Reply, ErrandError> {
    let place = errand.place;
    let mut bytes = Vec::new();
    let mut writer = HeadWriter::new(&mut bytes);
    writer.request_line(errand.method, &place.path_and_query()).field("Host", place.authority());
    for (name, value) in errand.fields {
        writer.field(name, value);
    }
    if !errand.body.is_empty() {
        writer.content_length(errand.body.len() as u64);
    }
    writer.finish();
    let limits = HeadLimits { bytes_max: bytes.len().max(HeadLimits::default().bytes_max), ..HeadLimits::default() };
    let Ok(Parsed::Complete { head, .. }) = parse_request(&bytes, &limits) else {
        return Err(ErrandError::Malformed(place.path_and_query()));
    };
    let mut refused = Vec::new();
    for target in &route.targets {
        if worker::is_worker(target) {
            match by_worker(shard, route, target, &head, errand).await {
                Err(ErrandError::NotReached(why)) => {
                    refused.push(why);
                    continue;
                }
                other => return other,
            }
        }
        if !matches!(target.address, TargetAddress::Http { .. } | TargetAddress::Unix(_)) {
            continue;
        }
        let mut fresh = false;
        let name = proved_name(target, route, &head);
        loop {
            let limits = &shard.gateway.settings().limits;
            let (limit, open_max) = (route.options.timeouts.connect, limits.target_connections_max);
            let connecting = shard.pool.connect(shard, target, name.as_deref(), fresh, limit, open_max);
            let mut connection = match connecting.await {
                Ok(connection) => connection,
                Err(error) => {
                    refused.push(error.to_string());
                    break;
                }
            };
            shard.metrics.target_requests.add(1);
            match exchange(shard, route, target, &head, errand, &mut connection).await {
                Ok(head) => {
                    let framing =
                        head.framing(errand.method).map_err(|error| ErrandError::Broken(error.to_string()))?;
                    let mut fields = Fields::new();
                    head.fields().for_each(|(name, value)| fields.push(name, value));
                    let body = ResponseBody::wire(connection, framing, head.keep_alive());
                    return Ok(Reply { status: head.status(), reason: head.reason().to_owned(), fields, body });
                }
                Err(_closed) if connection.reused && connection.buffer.is_empty() => fresh = true,
                Err(error) => return Err(error),
            }
        }
    }
    Err(ErrandError::NotReached(refused.join(", ")))
}

/// The bytes of a request as a target of HTTP gets them.
fn written(
    shard: &Shard,
    settings: &Settings,
    (route, target): (&Route, &Target),
    head: &RequestHead,
    errand: &Errand<'_>,
) -> Vec<u8> {
    let outgoing = Outgoing {
        head,
        route,
        target,
        forward: &settings.forward,
        peer: &PeerAddr::Unix,
        secure: false,
        trusted: false,
        signature: if route.options.no_grip { None } else { shard.signatures.sign(settings, route) },
        last: errand.last,
    };
    let mut out = Vec::with_capacity(512);
    outgoing.write(&mut out);
    out.extend_from_slice(&errand.body);
    shard.tally(route, |traffic| traffic.target_sent.written(&out));
    out
}

/// Makes a request of a ZHTTP worker.
async fn by_worker(
    shard: &Rc<Shard>,
    route: &Route,
    target: &Target,
    head: &RequestHead,
    errand: &Errand<'_>,
) -> Result<Reply, ErrandError> {
    let request = written(shard, &shard.gateway.settings(), (route, target), head, errand);
    let request = worker::request_of(request.into(), "http");
    let limits = (route.options.timeouts.connect, Some(errand.limit));
    let fetched = worker::fetch(shard, target, request, limits).await;
    let (head, body) = fetched.map_err(|error| match error {
        Unanswered::NotTaken(limit) => {
            ErrandError::NotReached(format!("{}: no worker took the request within {limit:?}", target.address))
        }
        Unanswered::Failed(failure) => ErrandError::Broken(failure.to_string()),
        Unanswered::ClientGone | Unanswered::Late(_) => ErrandError::TimedOut(errand.limit),
    })?;
    shard.tally(route, |traffic| traffic.target_received.header_bytes += worker::size_of_head(&head));
    let AnswerHead { status, reason, fields, .. } = head;
    Ok(Reply { status, reason, fields, body })
}

async fn exchange(
    shard: &Rc<Shard>,
    route: &Route,
    target: &Target,
    head: &RequestHead,
    errand: &Errand<'_>,
    connection: &mut TargetConnection,
) -> Result<ResponseHead, ErrandError> {
    let settings = shard.gateway.settings();
    let out = written(shard, &settings, (route, target), head, errand);
    let broken = |error: &dyn std::fmt::Display| ErrandError::Broken(error.to_string());
    connection.stream.write_all(&out).await.map_err(|error| broken(&error))?;
    let answer = async {
        loop {
            match parse_response(connection.buffer.unread(), &settings.limits.head) {
                Ok(Parsed::Complete { head, consumed }) => {
                    connection.buffer.consume(consumed);
                    shard.tally(route, |traffic| traffic.target_received.header_bytes += response_head_size(&head));
                    if head.status() >= 200 {
                        return Ok(head);
                    }
                }
                Ok(Parsed::Partial) => match connection.read_more(shard, settings.limits.head.bytes_max).await {
                    Ok(1..) => {}
                    Ok(0) => return Err(broken(&"it closed the connection")),
                    Err(error) => return Err(broken(&error)),
                },
                Err(error) => return Err(broken(&error)),
            }
        }
    };
    tokio::time::timeout(errand.limit, answer).await.unwrap_or_else(|_late| Err(ErrandError::TimedOut(errand.limit)))
}
