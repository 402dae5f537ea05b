//! Why a call failed.

use std::io;

use waft_http1::{BodyError, HeadError};
use waft_websocket::handshake::AnswerError;

use crate::policy::Denial;
use crate::target::TargetError;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The connection ended before the response did.
    #[error("the connection ended before the response")]
    Closed,
    /// No address could be connected to.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The connection attempt took too long.
    #[error("the connection attempt took too long")]
    ConnectTimeout,
    /// A rule of the policy said no.
    #[error("the policy refuses the call")]
    Denied(#[from] Denial),
    /// The compressed body is broken, or grows beyond the allowed ratio.
    #[error("the compressed response is broken or grows too much")]
    Encoding,
    /// A WebSocket frame breaks a rule or is too large.
    #[error("the peer broke the websocket protocol")]
    Frame(#[from] waft_websocket::connection::Error),
    /// An HTTP/2 failure.
    #[error("http/2 failed")]
    Http2(#[source] hyper::Error),
    /// Reading or writing failed.
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// The request cannot be written: a method, name or value is not allowed.
    #[error("the request is not valid")]
    Request,
    /// The name has no address.
    #[error("the name has no address")]
    Resolve,
    /// The response's body breaks the framing rules.
    #[error("the body of the response is malformed")]
    ResponseBody(#[from] BodyError),
    /// The response's head breaks a rule.
    #[error("the head of the response is malformed")]
    ResponseHead(#[from] HeadError),
    /// The body for a redirect is no longer there.
    #[error("the request body is too large to be sent again after a redirect")]
    Replay,
    /// The URL, or that of a redirect, is not valid.
    #[error("the url is not valid")]
    Target(#[from] TargetError),
    /// Certificate or handshake failure.
    #[error("tls failed")]
    Tls(#[source] io::Error),
    /// More redirects than allowed.
    #[error("more than {limit} redirects")]
    TooManyRedirects {
        /// How many are allowed.
        limit: u8,
    },
    /// The WebSocket handshake was answered wrongly.
    #[error("the websocket handshake failed")]
    WebSocket(#[from] AnswerError),
}
