//! Requests that this gateway makes by itself for held clients: next links and gone links.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tracing::debug;
use url::Url;
use waft_grip::instruct::{Instruct, is_instruct};
use waft_http1::{HeadLimits, HeadWriter, Parsed, RequestHead, ResponseHead, parse_request, parse_response};
use waft_net::PeerAddr;
use waft_route::{Route, Target, TargetAddress};

use crate::exchange::Exchange;
use crate::forward::{Outgoing, proved_name};
use crate::pool::TargetConnection;
use crate::record::response_head_size;
use crate::relay::ResponseBody;
use crate::shard::Shard;

/// What a relative link is relative to: the URI of the client's request, or of the link that was
/// followed last.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Base {
    url: Option<Url>,
}

impl Base {
    /// The URI of a client's request, as the client knows it.
    pub(crate) fn of(exchange: &Exchange) -> Self {
        let scheme = if exchange.secure { "https" } else { "http" };
        let host = exchange.head.authority().unwrap_or("localhost");
        Self { url: Url::parse(&format!("{scheme}://{host}{}", exchange.head.path_and_query())).ok() }
    }

    /// The URI that a link means.
    pub(crate) fn join(&self, link: &str) -> Option<Self> {
        let url = match &self.url {
            Some(base) => base.join(link).ok(),
            None => Url::parse(link).ok(),
        };
        url.map(|url| Self { url: Some(url) })
    }

    fn is_same_place(&self, other: &Self) -> bool {
        match (&self.url, &other.url) {
            (Some(one), Some(other)) => {
                one.scheme() == other.scheme()
                    && one.host_str() == other.host_str()
                    && one.port_or_known_default() == other.port_or_known_default()
            }
            _ => false,
        }
    }

    /// The path and query.
    pub(crate) fn path_and_query(&self) -> String {
        let Some(url) = &self.url else { return "/".to_owned() };
        match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        }
    }

    fn authority(&self) -> String {
        let Some(url) = &self.url else { return "localhost".to_owned() };
        let host = url.host_str().unwrap_or("localhost");
        match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// What a next link led to.
#[derive(Debug)]
pub(crate) struct Page {
    /// Where it was found: what its own links are relative to.
    pub(crate) base: Base,
    pub(crate) instruct: Instruct,
    pub(crate) body: ResponseBody,
}

/// Why a link could not be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("`{0}` is no link")]
    Malformed(String),
    #[error("`{0}` is on another host than the request, where this gateway makes no requests")]
    Elsewhere(String),
    #[error("no target could be reached: {0}")]
    NotReached(String),
    #[error("the target did not answer: {0}")]
    Broken(String),
    #[error("the target answered with status {0}")]
    Status(u16),
    #[error("{0}")]
    Instruct(String),
}

impl LinkError {
    /// Whether another try may help.
    fn is_passing(&self) -> bool {
        matches!(self, Self::NotReached(_) | Self::Broken(_) | Self::Status(_))
    }
}

/// Follows a next link, with several tries while nothing of it has been used.
pub(crate) async fn fetch_again(
    shard: &Rc<Shard>,
    route: &Arc<Route>,
    base: &Base,
    link: &str,
    last: &[(String, String)],
) -> Result<Page, LinkError> {
    let retries = shard.gateway.settings().limits.link_retries_max;
    let mut tried = 0;
    loop {
        match fetch(shard, route, base, link, last).await {
            Err(error) if error.is_passing() && tried < retries && !shard.is_draining() => {
                debug!(route = %route.id, link, %error, "A next link could not be followed yet.");
                let wait = Duration::from_millis((1000 << tried.min(6)) + fastrand::u64(0..1000));
                tokio::time::sleep(wait).await;
                tried += 1;
            }
            other => return other,
        }
    }
}

async fn fetch(
    shard: &Rc<Shard>,
    route: &Arc<Route>,
    base: &Base,
    link: &str,
    last: &[(String, String)],
) -> Result<Page, LinkError> {
    shard.metrics.link_fetches.add(1);
    let place = base.join(link).ok_or_else(|| LinkError::Malformed(link.to_owned()))?;
    if !place.is_same_place(base) {
        return Err(LinkError::Elsewhere(link.to_owned()));
    }
    let (head, connection) = request(shard, route, "GET", &place, last).await?;
    let framing = head.framing("GET").map_err(|error| LinkError::Broken(error.to_string()))?;
    let body = ResponseBody::wire(connection, framing, head.keep_alive());
    if !(200..300).contains(&head.status()) {
        body.release(shard);
        return Err(LinkError::Status(head.status()));
    }
    let instruct = if is_instruct(head.fields()) {
        Instruct::from_head(head.status(), head.reason(), head.fields())
            .map_err(|error| LinkError::Instruct(error.to_string()))
            .and_then(|instruct| match instruct.needs_json_body() {
                true => Err(LinkError::Instruct("a next link cannot answer with a JSON instruct".to_owned())),
                false => Ok(instruct),
            })
    } else {
        Ok(Instruct::default())
    };
    match instruct {
        Ok(instruct) => Ok(Page { base: place, instruct, body }),
        Err(error) => {
            body.release(shard);
            Err(error)
        }
    }
}

/// Tells a target that a client has gone. Nothing depends on its answer.
pub(crate) fn tell_gone(shard: &Rc<Shard>, route: &Arc<Route>, base: &Base, link: &str) {
    let Some(place) = base.join(link).filter(|place| place.is_same_place(base)) else {
        debug!(link, "A gone link leads elsewhere and was not followed.");
        return;
    };
    let (shard, route) = (Rc::clone(shard), Arc::clone(route));
    tokio::task::spawn_local(async move {
        match request(&shard, &route, "POST", &place, &[]).await {
            Ok((head, connection)) => {
                if let Ok(framing) = head.framing("POST") {
                    let mut body = ResponseBody::wire(connection, framing, head.keep_alive());
                    let _content = body.read_all(&shard, 64 << 10).await;
                    body.release(&shard);
                }
            }
            Err(error) => debug!(%error, "A target could not be told that a client has gone."),
        }
    });
}

/// Makes a request without body to the targets of `route`.
async fn request(
    shard: &Rc<Shard>,
    route: &Arc<Route>,
    method: &str,
    place: &Base,
    last: &[(String, String)],
) -> Result<(ResponseHead, TargetConnection), LinkError> {
    let mut bytes = Vec::new();
    let mut writer = HeadWriter::new(&mut bytes);
    writer.request_line(method, &place.path_and_query()).field("Host", place.authority()).finish();
    let Ok(Parsed::Complete { head, .. }) = parse_request(&bytes, &HeadLimits::default()) else {
        return Err(LinkError::Malformed(place.path_and_query()));
    };
    let mut refused = Vec::new();
    for target in &route.targets {
        if !matches!(target.address, TargetAddress::Http { .. } | TargetAddress::Unix(_)) {
            continue;
        }
        let mut fresh = false;
        let name = proved_name(target, route, &head);
        loop {
            let open_max = shard.gateway.settings().limits.target_connections_max;
            let limit = route.options.timeouts.connect;
            let connecting = shard.pool.connect(shard, target, name.as_deref(), fresh, limit, open_max);
            let mut connection = match connecting.await {
                Ok(connection) => connection,
                Err(error) => {
                    refused.push(error.to_string());
                    break;
                }
            };
            shard.metrics.target_requests.add(1);
            match exchange(shard, route, target, &head, last, &mut connection).await {
                Ok(head) => return Ok((head, connection)),
                Err(_closed) if connection.reused && connection.buffer.is_empty() => fresh = true,
                Err(error) => return Err(LinkError::Broken(error)),
            }
        }
    }
    Err(LinkError::NotReached(refused.join(", ")))
}

/// How long a target may take to answer a request of this gateway's own.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

async fn exchange(
    shard: &Rc<Shard>,
    route: &Route,
    target: &Target,
    head: &RequestHead,
    last: &[(String, String)],
    connection: &mut TargetConnection,
) -> Result<ResponseHead, String> {
    let settings = shard.gateway.settings();
    let outgoing = Outgoing {
        head,
        route,
        target,
        forward: &settings.forward,
        peer: &PeerAddr::Unix,
        secure: false,
        trusted: false,
        signature: if route.options.no_grip { None } else { shard.signatures.sign(&settings, route) },
        last,
    };
    let mut out = Vec::with_capacity(512);
    outgoing.write(&mut out);
    shard.tally(route, |traffic| traffic.target_sent.written(&out));
    connection.stream.write_all(&out).await.map_err(|error| error.to_string())?;
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
                    Ok(0) => return Err("it closed the connection".to_owned()),
                    Err(error) => return Err(error.to_string()),
                },
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    tokio::time::timeout(ANSWER_LIMIT, answer)
        .await
        .unwrap_or_else(|_late| Err(format!("nothing within {ANSWER_LIMIT:?}")))
}
