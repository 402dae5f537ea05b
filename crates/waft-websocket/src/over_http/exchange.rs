//! What goes into a [`Session`](super::Session) and comes out of it, and its limits.

use std::time::Duration;

use bytes::Bytes;

use crate::close::Close;
use crate::control::GripExtension;

/// How often a failed request is repeated, after 1, 2, 4, 8 and 16 seconds.
pub const RETRIES_MAX: u8 = 5;

/// Limits and manners of a route's sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A request takes queued messages until it holds this many content bytes; the last may go beyond. Default
    /// 200,000.
    pub batch_content_max: u64,
    /// Put one event into each request. Default false.
    pub one_event: bool,
    /// Bytes of client data that wait for the target before the client is no longer read. Default 200,000.
    pub queue_max: u64,
    /// Bytes that may wait for the client before no further request is made. Default 200,000.
    pub client_backlog_max: u64,
    /// The largest body of a response. Default 1,000,000 bytes.
    pub body_max: usize,
    /// The most bytes of a rejection's body that reach the client. Default 100,000.
    pub reject_body_max: usize,
    /// The shortest keep-alive interval; a target that asks for less gets this. Default 20 s.
    pub keep_alive_min: Duration,
    /// The most bytes of names and values a target may have repeated. Default 65,536, what fits a request's head.
    pub meta_size_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batch_content_max: 200_000,
            one_event: false,
            queue_max: 200_000,
            client_backlog_max: 200_000,
            body_max: 1_000_000,
            reject_body_max: 100_000,
            keep_alive_min: Duration::from_secs(20),
            meta_size_max: 65_536,
        }
    }
}

/// The kinds of event that carry a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A binary message.
    Binary,
    /// A ping.
    Ping,
    /// A pong.
    Pong,
    /// A text message.
    Text,
}

/// What the client did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// It sent a close frame.
    Closed(Option<Close>),
    /// Its connection is lost, or was cut from our side for a reason of ours.
    Gone,
    /// It sent a whole message, a ping or a pong.
    Sent(Kind, Bytes),
}

/// What the client is to be sent, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum ToClient {
    /// Answer the handshake with 101 and the response's fields, as far as
    /// [`relayed_with_accept`](super::relayed_with_accept) lets them pass.
    Accept {
        /// The control layer, if the target asked for it.
        grip: Option<GripExtension>,
    },
    /// Answer the handshake with 502. The session is over.
    BadGateway(DropReason),
    /// Send a close frame.
    Close(Close),
    /// Cut the connection without a close frame. The session is over.
    Drop(DropReason),
    /// Both sides have closed; end the connection once its close frames have passed. The session is over.
    Finish,
    /// A message from the target, before any control layer.
    Message(Kind, Bytes),
    /// Answer the handshake with the response as it came and this much of its body. The session is over.
    Reject {
        /// The body, cut to the limit.
        body: Bytes,
    },
}

/// Why a session failed. It names what the target did, or that it could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DropReason {
    /// More bytes accepted than offered.
    #[error("target accepted more bytes than it was offered")]
    AcceptedTooMuch,
    /// The answer is not a list of events, or begins wrongly.
    #[error("target answered with a malformed list of events")]
    BadEvents,
    /// The status is not 200 or the media type is not that of events.
    #[error("target answered with another status or content type than events need")]
    BadResponse,
    /// The close was offered and not taken.
    #[error("target did not accept the close")]
    CloseNotAccepted,
    /// The body is larger than allowed.
    #[error("target answered with more than the allowed body size")]
    BodyTooLarge,
    /// The client closed and the target neither closes nor keeps the connection alive.
    #[error("target did not answer the close")]
    CloseUnanswered,
    /// A target that sent DISCONNECT.
    #[error("target disconnected the client")]
    Disconnected,
    /// More meta than allowed.
    #[error("target set more meta than allowed")]
    MetaTooLarge,
    /// Nothing was accepted of what cannot grow further.
    #[error("target accepted nothing and more data cannot be offered")]
    NoProgress,
    /// The request failed, for the last time or in a way that forbids another.
    #[error("request to the target failed")]
    RequestFailed,
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection was made, then the request broke or timed out.
    Broken {
        /// The whole body had been handed over, so that the target may have acted on it.
        body_sent: bool,
    },
    /// The target was not reached: refused, timed out, or TLS failed.
    NotReached,
    /// Anything that a repetition would not mend.
    Refused,
}

/// Which step a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Says that the client is lost; its answer does not matter.
    Disconnect,
    /// Asks for acceptance; a target that cannot be reached may be replaced by the next one of the route.
    Open,
    /// Everything in between.
    Update,
}

/// A request to be made now: POST with the media type of events, [`Session::meta`] as `Meta-` fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPlan {
    /// Which step it is.
    pub kind: RequestKind,
    /// The events.
    pub body: Bytes,
    /// Value for `Content-Bytes-Replayed`, where there is one.
    pub replayed: Option<u64>,
    /// How often this request failed before.
    pub attempt: u8,
}
