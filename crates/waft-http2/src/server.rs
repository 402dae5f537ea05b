//! A client's connection: its streams become connections of their own.

use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use http::{Request, Response};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout};
use waft_http1::HeadLimits;
use waft_net::{Pipe, Stream};

use crate::head::{Body, Unsupported, write_request};
use crate::io::Io;
use crate::stream::Bridge;

/// What one client's connection may ask for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerLimits {
    /// Streams open at once (SETTINGS_MAX_CONCURRENT_STREAMS). Default 100.
    pub streams_max: u32,
    /// Bytes of the body of one request that the client may send before they are taken. Default 65,535.
    pub stream_window: u32,
    /// The same over all streams of the connection. Default 262,144.
    pub connection_window: u32,
    /// Heads, of requests and of answers. The size of a request's head is checked as HTTP/2 counts it, too.
    pub head: HeadLimits,
    /// How long the client may take for its first frames, and at the end for taking the last ones. Default 10 seconds.
    pub patience: Duration,
    /// How long a connection without a stream is kept. Default 60 seconds.
    pub idle_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            streams_max: 100,
            stream_window: 65_535,
            connection_window: 262_144,
            head: HeadLimits::default(),
            patience: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// Streams that a client may reset before they were looked at (CVE-2023-44487) without losing its connection.
const RESET_UNSEEN_MAX: usize = 20;
/// Bytes of an answer that wait, framed, for the connection to take them.
const SEND_BUFFER: usize = 64 << 10;

/// How a client's connection ended, if not in peace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The first frames did not come in time.
    #[error("the client did not begin in time")]
    Late,
    /// The client broke the protocol, or the connection.
    #[error("{0}")]
    Protocol(#[from] h2::Error),
}

/// Serves a client's connection until it ends. `read` is what was read from it already. `accept` is given each stream as
/// a connection that speaks HTTP/1.1, and says whether it takes it; when `drain` resolves, no more are accepted and the
/// connection ends with its last stream.
///
/// Runs on a [`LocalSet`](tokio::task::LocalSet): each stream has a task of its own.
///
/// # Errors
/// What the client did wrong.
pub async fn serve(
    stream: Stream,
    read: Bytes,
    limits: &ServerLimits,
    mut accept: impl FnMut(Stream) -> bool,
    drain: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let secure = stream.is_tls();
    let handshake = builder(limits).handshake::<_, Bytes>(Io::new(stream, read));
    let mut connection = timeout(limits.patience, handshake).await.map_err(|_late| ServeError::Late)??;
    tokio::pin!(drain);
    let mut draining = false;
    let mut look = Instant::now() + limits.idle_timeout;
    let mut was_idle = false;
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = connection.accept() => accepted,
            () = &mut drain, if !draining => {
                draining = true;
                connection.graceful_shutdown();
                continue;
            }
            () = sleep_until(look) => {
                let idle = !connection.has_streams();
                if idle && (was_idle || draining) {
                    connection.graceful_shutdown();
                    // Whoever does not even take the goodbye is left.
                    let _ended = timeout(limits.patience, std::future::poll_fn(|cx| connection.poll_closed(cx))).await;
                    return Ok(());
                }
                was_idle = idle;
                look = Instant::now() + if idle { limits.patience } else { limits.idle_timeout };
                continue;
            }
        };
        match accepted {
            None => return Ok(()),
            Some(Err(error)) => return Err(error.into()),
            Some(Ok((request, respond))) => {
                was_idle = false;
                begin(request, respond, secure, limits, &mut accept);
            }
        }
    }
}

fn builder(limits: &ServerLimits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.streams_max)
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_header_list_size(u32::try_from(limits.head.bytes_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESET_UNSEEN_MAX)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_connect_protocol();
    builder
}

/// Begins to serve one stream.
fn begin(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    secure: bool,
    limits: &ServerLimits,
    accept: &mut impl FnMut(Stream) -> bool,
) {
    let mut head = Vec::with_capacity(512);
    let body = match write_request(&request, request.body().is_end_stream(), &mut head) {
        Ok(body) => body,
        Err(Unsupported(status)) => {
            let mut response = Response::new(());
            *response.status_mut() = status;
            // A stream that is gone needs no answer.
            let _gone = respond.send_response(response, true);
            return;
        }
    };
    let (ours, theirs) = Pipe::pair(secure);
    if ours.send(&head.into()).is_err() || !accept(theirs.into()) {
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        return;
    }
    let method = if body == Body::Tunnel { http::Method::GET } else { request.method().clone() };
    spawn_local(Bridge::new(ours, request.into_body(), body, method, respond, limits.head));
}
