//! Requests that waft answers itself: the control API, the demo, the test handler.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;
use waft_grip::item::Item;
use waft_http1::{Fields, HeadError, RequestHead};

use crate::gateway::Gateway;

/// A request that waft answers itself, read to its end.
#[derive(Debug)]
pub struct Request<'a> {
    /// Its head.
    pub head: &'a RequestHead,
    /// Its body.
    pub body: &'a [u8],
    /// When it had been read.
    pub now: Instant,
    /// Whether it came over an encrypted connection.
    pub secure: bool,
}

/// An answer of waft's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header fields, without those that frame the body.
    pub fields: Fields,
    /// Body, sent with its length.
    pub body: Bytes,
}

impl Answer {
    /// A text answer.
    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        Self::new(status, "text/plain", body)
    }

    /// The answer to a request whose head breaks a rule of HTTP.
    pub fn malformed(error: &HeadError) -> Self {
        Self::text(error.status(), format!("Failed to parse request: {error}\n"))
    }

    /// An answer of the given content type.
    pub fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut fields = Fields::new();
        fields.push("Content-Type", content_type.as_bytes());
        Self { status, fields, body: body.into() }
    }
}

/// An answer, or the promise of one.
#[derive(Debug)]
pub enum Reply {
    /// It comes when something has happened, such as a write to a disk. If its sender is dropped, the client is told that
    /// the service is not there.
    Later(oneshot::Receiver<Answer>),
    /// Here it is.
    Now(Answer),
}

impl Reply {
    /// Waits for the answer.
    pub(crate) async fn wait(self) -> Answer {
        match self {
            Self::Now(answer) => answer,
            Self::Later(answer) => {
                answer.await.unwrap_or_else(|_gone| Answer::text(503, &b"The service has stopped.\n"[..]))
            }
        }
    }
}

/// Answers requests without keeping a thread waiting.
pub trait Service: fmt::Debug + Send + Sync {
    /// The answer to `request`.
    fn answer(&self, gateway: &Gateway, request: &Request<'_>) -> Answer;

    /// The longest head it reads, in bytes, where that is not what holds for clients.
    fn head_max(&self) -> Option<usize> {
        None
    }

    /// The answer to a request whose head is refused; the connection closes after it.
    fn malformed(&self, error: &HeadError) -> Answer {
        Answer::malformed(error)
    }

    /// The answer to `request`, or the promise of one.
    fn reply(&self, gateway: &Gateway, request: &Request<'_>) -> Reply {
        Reply::Now(self.answer(gateway, request))
    }

    /// The longest body it reads, in bytes. Longer ones are answered by [`Service::too_large`].
    fn body_max(&self) -> usize;

    /// The answer to a request whose body is too long; the connection closes after it.
    fn too_large(&self) -> Answer {
        Answer::text(413, format!("The request body exceeds the limit of {} bytes.\n", self.body_max()))
    }
}

/// Paths of one part of the program, answered on the port of another.
pub trait Extension: fmt::Debug + Send + Sync {
    /// What all its paths begin with, without a slash at the end.
    fn prefix(&self) -> &'static str;

    /// The answer to a request below its prefix. `trusted` says that the caller has shown what the port asks of everyone;
    /// an extension may know callers of its own.
    fn reply(&self, request: &Request<'_>, trusted: bool) -> Reply;

    /// Appends its metrics in the text format of Prometheus.
    fn metrics(&self, out: &mut String);
}

/// Hears what is published to channels.
pub trait Tap: fmt::Debug + Send + Sync {
    /// Whether the items of this channel are of interest.
    fn wants(&self, channel: &str) -> bool;

    /// An item of such a channel was published, and is no duplicate.
    fn published(&self, item: Item);
}

/// What a listening socket is for.
#[derive(Clone, Debug)]
pub enum Door {
    /// Requests are routed to targets.
    Front,
    /// Requests are routed to the targets of the route with this id.
    Route(Arc<str>),
    /// Requests are answered by a service.
    Service(Arc<dyn Service>),
}
