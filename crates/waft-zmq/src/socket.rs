//! What a socket is to be, and how it is opened.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use bytes::Bytes;

use crate::queue::{Receiver, Sender};

/// Messages that either queue of a socket holds beside libzmq's own, unless told otherwise.
const QUEUE_MAX: usize = 65_536;

/// The socket types.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// DEALER
    Dealer,
    /// PUB
    Pub,
    /// PULL
    Pull,
    /// PUSH
    Push,
    /// REP: answers one request after the other.
    Rep,
    /// REQ
    Req,
    /// ROUTER: the first frame names the peer.
    Router,
    /// SUB
    Sub,
    /// XPUB: receives subscriptions, as a byte 1 or 0 and the topic.
    Xpub,
    /// XSUB
    Xsub,
}

impl Kind {
    fn socket_type(self) -> zmq::SocketType {
        match self {
            Self::Dealer => zmq::DEALER,
            Self::Pub => zmq::PUB,
            Self::Pull => zmq::PULL,
            Self::Push => zmq::PUSH,
            Self::Rep => zmq::REP,
            Self::Req => zmq::REQ,
            Self::Router => zmq::ROUTER,
            Self::Sub => zmq::SUB,
            Self::Xpub => zmq::XPUB,
            Self::Xsub => zmq::XSUB,
        }
    }

    pub(crate) fn can_receive(self) -> bool {
        !matches!(self, Self::Pub | Self::Push)
    }
}

/// How a connection over TCP that is quiet is looked after.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Keepalive {
    /// Quiet before the first probe, in seconds.
    pub idle_s: i32,
    /// Between two probes, in seconds.
    pub interval_s: i32,
    /// Probes without an answer after which the peer counts as gone.
    pub probes: i32,
}

/// What a socket is to be.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// The type.
    pub kind: Kind,
    /// Endpoints to bind, such as `tcp://127.0.0.1:5560` or `ipc:///run/waft/in`.
    pub bind: Vec<String>,
    /// Endpoints to connect to; they are found again whenever they come back.
    pub connect: Vec<String>,
    /// The name under which ROUTERs know the socket.
    pub identity: Option<Bytes>,
    /// Messages that libzmq holds per peer on the way in; 0 means no bound. Default 1,000.
    pub receive_hwm: i32,
    /// Messages that libzmq holds per peer on the way out; 0 means no bound. Default 1,000.
    pub send_hwm: i32,
    /// Prefixes a SUB wants.
    pub subscriptions: Vec<Bytes>,
    /// A ROUTER reports messages for peers it does not know instead of dropping them.
    pub router_mandatory: bool,
    /// A ROUTER lets a peer take over the identity of an older connection.
    pub router_handover: bool,
    /// Messages wait for a connection that is there, rather than for one that is still being tried.
    pub immediate: bool,
    /// Permissions of bound ipc files, such as `0o660`; the umask decides if there are none.
    pub ipc_file_mode: Option<u32>,
    /// Finds out that a peer over TCP has gone without a word; the system's settings hold if there are none.
    pub keepalive: Option<Keepalive>,
    /// How long unsent messages are kept at closing, in milliseconds. Default 100.
    pub linger_ms: i32,
    /// Largest frame taken from a peer, in bytes; a peer that sends more is disconnected. Default 64 MiB.
    pub frame_size_max: i64,
    /// Messages in each of the queues to and from the engine. Default 65,536.
    pub queue_max: usize,
}

impl SocketOptions {
    /// The defaults for a type.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            bind: Vec::new(),
            connect: Vec::new(),
            identity: None,
            receive_hwm: 1_000,
            send_hwm: 1_000,
            subscriptions: Vec::new(),
            router_mandatory: false,
            router_handover: false,
            immediate: false,
            ipc_file_mode: None,
            keepalive: None,
            linger_ms: 100,
            frame_size_max: 67_108_864,
            queue_max: QUEUE_MAX,
        }
    }
}

/// An open socket.
#[derive(Debug)]
pub struct Opened {
    /// Towards the peers.
    pub sender: Sender,
    /// From the peers.
    pub receiver: Receiver,
    /// The bound endpoints, with the ports that were chosen.
    pub endpoints: Vec<String>,
}

/// Why a socket or the engine cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An endpoint cannot be bound.
    #[error("cannot bind {endpoint}: {cause}; choose another endpoint or stop who uses it")]
    Bind {
        /// The endpoint.
        endpoint: String,
        /// What libzmq says.
        cause: zmq::Error,
    },
    /// An endpoint cannot be connected to.
    #[error("cannot connect to {endpoint}: {cause}; check the spelling of the endpoint")]
    Connect {
        /// The endpoint.
        endpoint: String,
        /// What libzmq says.
        cause: zmq::Error,
    },
    /// The permissions of an ipc file cannot be set.
    #[error("cannot set the mode of {endpoint}")]
    FileMode {
        /// The endpoint.
        endpoint: String,
        /// Why.
        source: std::io::Error,
    },
    /// An option is refused.
    #[error("libzmq refuses a socket option: {0}")]
    Option(#[from] zmq::Error),
    /// The thread or its wake-up descriptor cannot be made.
    #[error("cannot start the thread for zeromq")]
    Thread(#[from] std::io::Error),
}

/// Opens a socket; returns it with the endpoints that were bound.
pub(crate) fn open(context: &zmq::Context, options: &SocketOptions) -> Result<(zmq::Socket, Vec<String>), Error> {
    let socket = context.socket(options.kind.socket_type())?;
    socket.set_rcvhwm(options.receive_hwm)?;
    socket.set_sndhwm(options.send_hwm)?;
    socket.set_linger(options.linger_ms)?;
    socket.set_maxmsgsize(options.frame_size_max)?;
    if let Some(Keepalive { idle_s, interval_s, probes }) = options.keepalive {
        socket.set_tcp_keepalive(1)?;
        socket.set_tcp_keepalive_idle(idle_s)?;
        socket.set_tcp_keepalive_intvl(interval_s)?;
        socket.set_tcp_keepalive_cnt(probes)?;
    }
    if let Some(identity) = &options.identity {
        socket.set_identity(identity)?;
    }
    if options.kind == Kind::Router {
        socket.set_router_mandatory(options.router_mandatory)?;
        socket.set_router_handover(options.router_handover)?;
    }
    if options.immediate {
        socket.set_immediate(true)?;
    }
    for prefix in &options.subscriptions {
        socket.set_subscribe(prefix)?;
    }
    let mut endpoints = Vec::with_capacity(options.bind.len());
    for endpoint in &options.bind {
        socket.bind(endpoint).map_err(|cause| Error::Bind { endpoint: endpoint.clone(), cause })?;
        if let (Some(mode), Some(path)) = (options.ipc_file_mode, endpoint.strip_prefix("ipc://")) {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
                .map_err(|source| Error::FileMode { endpoint: endpoint.clone(), source })?;
        }
        endpoints.push(socket.get_last_endpoint()?.unwrap_or_else(|_raw| endpoint.clone()));
    }
    for endpoint in &options.connect {
        socket.connect(endpoint).map_err(|cause| Error::Connect { endpoint: endpoint.clone(), cause })?;
    }
    Ok((socket, endpoints))
}

pub(crate) fn opened(queues: crate::queue::Queues, endpoints: Vec<String>) -> (Arc<crate::queue::Queues>, Opened) {
    let queues = Arc::new(queues);
    let sender = Sender { queues: Arc::clone(&queues) };
    let receiver = Receiver { queues: Arc::clone(&queues) };
    (queues, Opened { sender, receiver, endpoints })
}
