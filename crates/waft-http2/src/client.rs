//! A connection to a server, shared by many exchanges: each has a pipe that takes HTTP/1.1.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::Response;
use tokio::task::spawn_local;
use tokio::time::timeout;
use waft_http1::{BodyDecoder, HeadLimits, Parsed, parse_request};
use waft_net::{Pipe, Stream};

use crate::body::{Receiving, Sending, Stopped};
use crate::head::{Body, has_body, request_from, write_response};
use crate::io::Io;
use crate::server::ServeError;

/// What one connection to a server may hold.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// Bytes of one answer that the server may send before they are taken. Default 262,144.
    pub stream_window: u32,
    /// The same over all streams of the connection. Default 4 MiB.
    pub connection_window: u32,
    /// Heads, of requests and of answers.
    pub head: HeadLimits,
    /// How long the server may take for its first frames. Default 10 seconds.
    pub patience: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            stream_window: 262_144,
            connection_window: 4 << 20,
            head: HeadLimits::default(),
            patience: Duration::from_secs(10),
        }
    }
}

/// A connection to a server that speaks HTTP/2. Clones share it; it ends with the last of them and of its streams.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requests: RefCell<SendRequest<Bytes>>,
    secure: bool,
    limits: HeadLimits,
    ended: Rc<Cell<bool>>,
    streams: Rc<Cell<usize>>,
}

impl Connection {
    /// Begins HTTP/2 on a connection whose server is known to speak it: by ALPN, or because the operator said so.
    ///
    /// Runs on a [`LocalSet`](tokio::task::LocalSet).
    ///
    /// # Errors
    /// When the server does not speak HTTP/2, or not in time.
    pub async fn begin(stream: Stream, limits: &ConnectionLimits) -> Result<Self, ServeError> {
        let secure = stream.is_tls();
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(limits.stream_window)
            .initial_connection_window_size(limits.connection_window)
            .max_header_list_size(u32::try_from(limits.head.bytes_max).unwrap_or(u32::MAX));
        let handshake = builder.handshake::<_, Bytes>(Io::new(stream, Bytes::new()));
        let (requests, connection) = timeout(limits.patience, handshake).await.map_err(|_late| ServeError::Late)??;
        let ended = Rc::new(Cell::new(false));
        let (over, head) = (Rc::clone(&ended), limits.head);
        spawn_local(async move {
            // Its streams hear of an error, and nobody else is there to hear it.
            let _over = connection.await;
            over.set(true);
        });
        let streams = Rc::default();
        Ok(Self { shared: Rc::new(Shared { requests: RefCell::new(requests), secure, limits: head, ended, streams }) })
    }

    /// Whether the connection takes no more exchanges: it has ended, or the server has said goodbye.
    pub fn has_ended(&self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let broken = matches!(self.shared.requests.borrow_mut().poll_ready(&mut cx), Poll::Ready(Err(_)));
        broken || self.shared.ended.get()
    }

    /// Exchanges under way.
    pub fn streams(&self) -> usize {
        self.shared.streams.get()
    }

    /// Exchanges the server takes at once.
    pub fn streams_max(&self) -> usize {
        self.shared.requests.borrow().current_max_send_streams()
    }

    /// A connection for one exchange: what is written to it as an HTTP/1.1 request goes to the server as a stream.
    pub fn open(&self) -> Stream {
        let (ours, theirs) = Pipe::pair(self.shared.secure);
        let requests = self.shared.requests.borrow().clone();
        self.shared.streams.set(self.shared.streams.get() + 1);
        spawn_local(Exchange {
            pipe: ours,
            secure: self.shared.secure,
            limits: self.shared.limits,
            requests,
            state: State::Request { text: Vec::new() },
            counted: Counted(Rc::clone(&self.shared.streams)),
        });
        theirs.into()
    }
}

/// Counts a stream for as long as it exists.
#[derive(Debug)]
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// One exchange: from a pipe to a stream, and its answer back.
#[derive(Debug)]
struct Exchange {
    pipe: Pipe,
    secure: bool,
    limits: HeadLimits,
    requests: SendRequest<Bytes>,
    state: State,
    #[expect(dead_code, reason = "it counts by being dropped")]
    counted: Counted,
}

#[derive(Debug)]
enum State {
    /// The head of the request has not come whole.
    Request {
        text: Vec<u8>,
    },
    Open(Box<Open>),
}

#[derive(Debug)]
struct Open {
    method: String,
    sending: Option<Sending>,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    Awaited(ResponseFuture),
    Receiving(Receiving),
}

impl Future for Exchange {
    type Output = ();

    /// Ends when the answer is over or cannot come. Dropping the pipe tells its user, dropping the stream the server.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let State::Request { .. } = self.state {
            match ready!(self.poll_request(cx)) {
                Some(open) => self.state = State::Open(Box::new(open)),
                None => return Poll::Ready(()),
            }
        }
        let Self { pipe, state, .. } = &mut *self;
        let State::Open(open) = state else { return Poll::Ready(()) };
        if pipe.poll_closed(cx).is_ready() {
            return Poll::Ready(());
        }
        open.poll(cx, pipe)
    }
}

impl Exchange {
    /// Reads the head of the request and opens a stream for it; none if that cannot be.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Option<Open>> {
        let State::Request { text } = &mut self.state else { return Poll::Ready(None) };
        loop {
            let Ok(()) = ready!(self.requests.poll_ready(cx)) else { return Poll::Ready(None) };
            let Ok(Some(piece)) = ready!(self.pipe.poll_receive(cx)) else { return Poll::Ready(None) };
            text.extend_from_slice(&piece);
            let (head, consumed) = match parse_request(text, &self.limits) {
                Ok(Parsed::Complete { head, consumed }) => (head, consumed),
                Ok(Parsed::Partial) => continue,
                Err(_) => return Poll::Ready(None),
            };
            let Some(request) = request_from(&head, self.secure) else { return Poll::Ready(None) };
            let follows = has_body(&head);
            let Ok((answer, stream)) = self.requests.send_request(request, !follows) else { return Poll::Ready(None) };
            let behind = Bytes::copy_from_slice(text.get(consumed..).unwrap_or_default());
            let decoder = BodyDecoder::new(head.framing());
            let sending = follows.then(|| Sending::new(stream, Some(decoder), behind));
            let method = head.method().to_owned();
            return Poll::Ready(Some(Open { method, sending, answer: Answer::Awaited(answer) }));
        }
    }
}

impl Open {
    fn poll(&mut self, cx: &mut Context<'_>, pipe: &Pipe) -> Poll<()> {
        if let Some(sending) = &mut self.sending {
            match sending.poll(cx, pipe) {
                Poll::Pending => {}
                // A server may answer without having taken the whole request.
                Poll::Ready(Ok(()) | Err(Stopped::Stream)) => self.sending = None,
                Poll::Ready(Err(Stopped::Pipe | Stopped::Message)) => return Poll::Ready(()),
            }
        }
        if let Answer::Awaited(answer) = &mut self.answer {
            let Ok(response) = ready!(Pin::new(answer).poll(cx)) else { return Poll::Ready(()) };
            match self.begin(response, pipe) {
                Some(receiving) => self.answer = Answer::Receiving(receiving),
                None => return Poll::Ready(()),
            }
        }
        let Answer::Receiving(receiving) = &mut self.answer else { return Poll::Ready(()) };
        receiving.poll(cx, pipe).map(|_over| ())
    }

    /// Writes the head of the answer; its body if one follows.
    fn begin(&self, response: Response<h2::RecvStream>, pipe: &Pipe) -> Option<Receiving> {
        let mut text = Vec::with_capacity(512);
        let body = write_response(&response, &self.method, response.body().is_end_stream(), &mut text);
        pipe.send(&text.into()).ok()?;
        (body != Body::None).then(|| Receiving::new(response.into_body(), body))
    }
}
