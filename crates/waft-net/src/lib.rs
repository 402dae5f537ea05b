//! The IO layer: shards (one thread, one runtime each), listening sockets, streams, and the set of
//! held connections with its timer wheel.
//!
//! What it deliberately lacks: any protocol. It moves bytes, tells when a socket can be read or
//! written, and keeps time; routes, channels and HTTP live above it.
//!
//! Start with [`Stream`], a client or target connection that is being worked on, and [`HeldSet`],
//! where a connection rests while nothing happens. A connection in the held set has no task and no
//! buffer: a record of about a hundred bytes and a file descriptor are all that is left of it.
//!
//! ```
//! use std::time::Instant;
//! use waft_net::{HeldSet, QueueLimits};
//!
//! let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
//! ours.set_nonblocking(true).unwrap();
//! let mut held: HeldSet<&str> = HeldSet::new(Instant::now(), QueueLimits::default()).unwrap();
//! let key = held.insert(ours.into(), "a listener").unwrap();
//! held.write(key, &bytes::Bytes::from_static(b"hello"));
//!
//! let mut got = [0; 5];
//! std::io::Read::read_exact(&mut theirs, &mut got).unwrap();
//! assert_eq!(&got, b"hello");
//! ```

mod held;
mod listen;
mod mailbox;
mod memory;
mod pipe;
mod stream;
mod tls;
mod watch;
mod wheel;

pub use held::{Flush, HeldSet, Key, QueueLimits, Readiness, Wrote};
pub use listen::{Accepted, Endpoint, EndpointError, Listener, Plain, bind};
pub use mailbox::{Mailbox, Shard, spawn_shards};
pub use memory::give_memory_back;
pub use pipe::{PIPE_ROOM, Pipe};
pub use rustls::ClientConfig;
pub use stream::{PeerAddr, Socket, Stream};
pub use tls::{
    CertificateProblem, Certificates, ClientAuth, ClientIdentity, Shown, TlsAcceptError, TlsAcceptor, TlsConnectError,
    TlsError, Trust, client_config, client_config_trusting,
};
pub use watch::{Happened, Watch};
