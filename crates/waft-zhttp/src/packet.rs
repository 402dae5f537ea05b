//! A packet of either direction, as fields.

use std::sync::Arc;

use bytes::Bytes;

use crate::Value;

/// One ZHTTP packet. Absent fields have the protocol's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packet {
    /// The sender's address.
    pub from: Option<Bytes>,
    /// The exchanges it belongs to, with the sequence numbers.
    pub ids: Ids,
    /// What kind of packet it is.
    pub kind: Kind,
    /// Why the exchange failed, beside [`Kind::Error`].
    pub condition: Option<Condition>,
    /// Body bytes that the sender is ready to receive, beyond those granted before.
    pub credits: u64,
    /// More body packets follow.
    pub more: bool,
    /// The client wants the response piecewise, under credit control.
    pub stream: bool,
    /// The client can receive answers over its ROUTER socket.
    pub router_resp: bool,
    /// Largest response body that a client wants collected, in bytes.
    pub max_size: Option<u64>,
    /// Time for the whole exchange, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The HTTP method, a token.
    pub method: Option<Bytes>,
    /// The absolute URI, as sent.
    pub uri: Option<Bytes>,
    /// Header lines in their order. Names are tokens, values have no CR, LF or NUL.
    pub headers: Vec<(Bytes, Bytes)>,
    /// A piece of the body, or the reason text of a close.
    pub body: Bytes,
    /// `binary` or `text`, WebSocket only.
    pub content_type: Option<Bytes>,
    /// The status code of a response, or the code of a WebSocket close.
    pub code: Option<u16>,
    /// The reason phrase that goes with the status code.
    pub reason: Option<Bytes>,
    /// Whatever the client wants to get back with each packet.
    pub user_data: Option<Arc<Value>>,
    /// Address of the HTTP client at a front.
    pub peer_address: Option<Bytes>,
    /// Port of the HTTP client at a front.
    pub peer_port: Option<u16>,
    /// Connect to this host instead of that of the URI.
    pub connect_host: Option<Bytes>,
    /// The port that goes with `connect_host`.
    pub connect_port: Option<u16>,
    /// Skip the address policy.
    pub ignore_policies: bool,
    /// Verify the certificate against `connect_host`.
    pub trust_connect_host: bool,
    /// Do not verify the certificate.
    pub ignore_tls_errors: bool,
    /// Certificate to present, PEM.
    pub client_cert: Option<Bytes>,
    /// Key of that certificate, PEM.
    pub client_key: Option<Bytes>,
    /// Follow redirects.
    pub follow_redirects: bool,
    /// Keep the request on disk and deliver it until it is taken, instead of making it once. Of waft's own.
    pub durable: Option<Box<Durable>>,
    /// The sender understands lists of ids.
    pub ext_multi: bool,
    /// The exchange is logged at debug level alone.
    pub ext_quiet: bool,
}

impl Packet {
    /// A packet of a kind for one exchange.
    pub fn new(kind: Kind, id: Id) -> Self {
        Self { kind, ids: Ids::One(id), ..Self::default() }
    }

    /// The answer to a packet of an unknown exchange: it names the id alone.
    pub fn cancel_unknown(id: Bytes) -> Self {
        Self::new(Kind::Cancel, Id { id, seq: None })
    }

    /// The answer to a packet that could not be read: it names the id, if one could be read.
    pub fn bad_request(id: Option<Bytes>) -> Self {
        Self {
            kind: Kind::Error,
            condition: Some(Condition::BadRequest),
            ids: id.map_or(Ids::None, |id| Ids::One(Id { id, seq: None })),
            ..Self::default()
        }
    }
}

/// What a client says of a request that is to be delivered until it is taken. `durable` is `true` on the wire, or a map of
/// these.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Durable {
    /// The application that it belongs to.
    pub app: Option<Bytes>,
    /// A registered endpoint that it is for, instead of a URI.
    pub endpoint: Option<Bytes>,
    /// What the request is recognised by if it comes again.
    pub idempotency_key: Option<Bytes>,
    /// Requests with the same key keep their order, at endpoints that keep one.
    pub order_key: Option<Bytes>,
    /// The event type, for registered endpoints.
    pub event_type: Option<Bytes>,
}

impl Durable {
    /// Its fields with their names on the wire.
    pub(crate) fn fields(&self) -> [(&'static str, &Option<Bytes>); 5] {
        [
            ("app", &self.app),
            ("endpoint", &self.endpoint),
            ("idempotency-key", &self.idempotency_key),
            ("order-key", &self.order_key),
            ("type", &self.event_type),
        ]
    }
}

/// The encodings of a packet, told apart by its first byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    /// `J`: text alone survives.
    Json,
    /// `T`
    Tnetstring,
}

/// An exchange id with the packet's number in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Id {
    /// The id, unique for a client.
    pub id: Bytes,
    /// The number of the packet, counted from 0 for each exchange and direction.
    pub seq: Option<u64>,
}

/// Which exchanges a packet is for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Ids {
    /// A list, between peers that both announced `ext.multi`.
    List(Vec<Id>),
    /// No id: fire and forget.
    #[default]
    None,
    /// One.
    One(Id),
}

impl Ids {
    /// All ids, in order.
    pub fn as_slice(&self) -> &[Id] {
        match self {
            Self::List(ids) => ids,
            Self::None => &[],
            Self::One(id) => std::slice::from_ref(id),
        }
    }
}

/// The value of `type`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Kind {
    /// The exchange is over or unknown at the sender.
    Cancel,
    /// A WebSocket close frame.
    Close,
    /// Credits alone.
    Credit,
    /// No type: head and body.
    #[default]
    Data,
    /// The exchange failed.
    Error,
    /// Answer to `HandoffStart`.
    HandoffProceed,
    /// The sender passes the exchange on.
    HandoffStart,
    /// A sign of life.
    KeepAlive,
    /// A WebSocket ping frame.
    Ping,
    /// A WebSocket pong frame.
    Pong,
    /// A type this crate does not know: a sign of life, nothing more.
    Unknown,
}

impl Kind {
    /// The word on the wire; none for data.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Cancel => Some("cancel"),
            Self::Close => Some("close"),
            Self::Credit => Some("credit"),
            Self::Data => None,
            Self::Error => Some("error"),
            Self::HandoffProceed => Some("handoff-proceed"),
            Self::HandoffStart => Some("handoff-start"),
            Self::KeepAlive => Some("keep-alive"),
            Self::Ping => Some("ping"),
            Self::Pong => Some("pong"),
            Self::Unknown => Some("unknown"),
        }
    }

    pub(crate) fn parse(word: &[u8]) -> Self {
        const NAMED: [Kind; 9] = [
            Kind::Cancel,
            Kind::Close,
            Kind::Credit,
            Kind::Error,
            Kind::HandoffProceed,
            Kind::HandoffStart,
            Kind::KeepAlive,
            Kind::Ping,
            Kind::Pong,
        ];
        let known = NAMED.into_iter().find(|kind| kind.as_str().is_some_and(|name| name.as_bytes() == word));
        known.unwrap_or(Self::Unknown)
    }

    /// Whether the packet ends the exchange and must not be answered.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Cancel | Self::Error)
    }
}

/// Why an exchange failed. An unknown word reads as [`Condition::Undefined`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Condition {
    /// A field is missing or wrong.
    BadRequest,
    /// The connection attempt took too long.
    ConnectionTimeout,
    /// A body where none may be.
    ContentNotAllowed,
    /// The peer closed.
    Disconnected,
    /// A WebSocket frame larger than the buffer.
    FrameTooLarge,
    /// The server wants a Content-Length.
    LengthRequired,
    /// The collected body is larger than asked for.
    MaxSizeExceeded,
    /// The address policy forbids it.
    PolicyViolation,
    /// A durable request finds no room on the disk. Of waft's own.
    QueueFull,
    /// A durable request, and nothing keeps such. Of waft's own.
    QueueUnavailable,
    /// The WebSocket was refused by an HTTP response, which is in the packet.
    Rejected,
    /// The response that refused a WebSocket is too large.
    RejectionTooLarge,
    /// DNS or connection failure.
    RemoteConnectionFailed,
    /// The time of the exchange is over.
    SessionTimeout,
    /// Certificate or handshake failure.
    TlsError,
    /// More redirects than allowed.
    TooManyRedirects,
    /// Everything else.
    Undefined,
}

impl Condition {
    const ALL: [Self; 17] = [
        Self::BadRequest,
        Self::ConnectionTimeout,
        Self::ContentNotAllowed,
        Self::Disconnected,
        Self::FrameTooLarge,
        Self::LengthRequired,
        Self::MaxSizeExceeded,
        Self::PolicyViolation,
        Self::QueueFull,
        Self::QueueUnavailable,
        Self::Rejected,
        Self::RejectionTooLarge,
        Self::RemoteConnectionFailed,
        Self::SessionTimeout,
        Self::TlsError,
        Self::TooManyRedirects,
        Self::Undefined,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::ConnectionTimeout => "connection-timeout",
            Self::ContentNotAllowed => "content-not-allowed",
            Self::Disconnected => "disconnected",
            Self::FrameTooLarge => "frame-too-large",
            Self::LengthRequired => "length-required",
            Self::MaxSizeExceeded => "max-size-exceeded",
            Self::PolicyViolation => "policy-violation",
            Self::QueueFull => "queue-full",
            Self::QueueUnavailable => "queue-unavailable",
            Self::Rejected => "rejected",
            Self::RejectionTooLarge => "rejection-too-large",
            Self::RemoteConnectionFailed => "remote-connection-failed",
            Self::SessionTimeout => "session-timeout",
            Self::TlsError => "tls-error",
            Self::TooManyRedirects => "too-many-redirects",
            Self::Undefined => "undefined-condition",
        }
    }

    pub(crate) fn parse(word: &[u8]) -> Self {
        Self::ALL.into_iter().find(|known| known.as_str().as_bytes() == word).unwrap_or(Self::Undefined)
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
