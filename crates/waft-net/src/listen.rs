//! Listening sockets.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::stream::PeerAddr;

/// Connections the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 65_535;

/// An address to listen on: `port`, `addr:port`, `[v6]:port`, or `unix:/path` with an optional
/// `?mode=666` (octal).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Where the socket is made. A socket that is there already is replaced.
        path: PathBuf,
        /// Permissions of the socket file, as `chmod` takes them.
        mode: Option<u32>,
    },
}

/// An address that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no address to listen on; write `port`, `addr:port`, `[v6]:port` or `unix:/path?mode=660`")]
pub struct EndpointError {
    text: String,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let refused = || EndpointError { text: text.to_owned() };
        if let Some(rest) = text.strip_prefix("unix:") {
            let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
            let mode = match query.strip_prefix("mode=") {
                Some(octal) => Some(u32::from_str_radix(octal, 8).map_err(|_not_octal| refused())?),
                None if query.is_empty() => None,
                None => return Err(refused()),
            };
            if path.is_empty() {
                return Err(refused());
            }
            return Ok(Self::Unix { path: path.into(), mode });
        }
        if let Ok(port) = text.parse::<u16>() {
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)));
        }
        if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        text.parse().map(Self::Tcp).map_err(|_not_an_address| refused())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Sockets bound to one endpoint, one for each shard. They accept nothing until a shard takes its own.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// Unix.
    Unix(std::os::unix::net::UnixListener),
}

/// Binds `endpoint` once for each of `shards`. TCP sockets share the port and the kernel spreads
/// connections over them; a Unix socket is one queue that all shards accept from. Returns the
/// listeners and the endpoint as bound (with the port the kernel chose, if it was 0).
///
/// # Errors
/// The system's: the address is in use, or may not be bound.
pub fn bind(endpoint: &Endpoint, shards: usize) -> io::Result<(Vec<Listener>, Endpoint)> {
    match endpoint {
        Endpoint::Tcp(addr) => {
            // Sockets that share a port would share it with another waft of this user as well, unseen: so the port
            // has to be free for one that does not share.
            drop(bind_tcp(*addr, false)?);
            let first = bind_tcp(*addr, shards > 1)?;
            let bound = first.local_addr()?;
            let mut listeners = vec![Listener::Tcp(first)];
            while listeners.len() < shards {
                listeners.push(Listener::Tcp(bind_tcp(bound, true)?));
            }
            Ok((listeners, Endpoint::Tcp(bound)))
        }
        Endpoint::Unix { path, mode } => {
            remove_socket(path)?;
            let listener = std::os::unix::net::UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            if let Some(mode) = mode {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode))?;
            }
            let mut listeners = Vec::with_capacity(shards);
            while listeners.len() + 1 < shards {
                listeners.push(Listener::Unix(listener.try_clone()?));
            }
            listeners.push(Listener::Unix(listener));
            Ok((listeners, endpoint.clone()))
        }
    }
}

fn bind_tcp(addr: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Removes a socket left by an earlier run, and nothing else: not one that somebody still listens on.
fn remove_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() && std::os::unix::net::UnixStream::connect(path).is_ok() => {
            Err(io::ErrorKind::AddrInUse.into())
        }
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A listener at work on a shard.
#[derive(Debug)]
pub enum Accepted {
    /// TCP.
    Tcp(TcpListener),
    /// Unix.
    Unix(UnixListener),
}

impl Accepted {
    /// Hands a bound listener to the runtime of this thread.
    ///
    /// # Errors
    /// The system's.
    pub fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            Listener::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// The system's, for instance when there is no descriptor left.
    pub async fn accept(&self) -> io::Result<(Plain, PeerAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, addr) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Plain::Tcp(stream), PeerAddr::Tcp(addr)))
            }
            Self::Unix(listener) => {
                let (stream, _unnamed) = listener.accept().await?;
                Ok((Plain::Unix(stream), PeerAddr::Unix))
            }
        }
    }
}

/// A connection as the system knows it.
#[derive(Debug)]
pub enum Plain {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_written() {
        let cases = [
            ("7999", Some("0.0.0.0:7999")),
            ("127.0.0.1:80", Some("127.0.0.1:80")),
            ("localhost:80", Some("127.0.0.1:80")),
            ("[::]:80", Some("[::]:80")),
            ("unix:/run/waft.sock", Some("unix:/run/waft.sock")),
            ("unix:/run/waft.sock?mode=660", Some("unix:/run/waft.sock")),
            ("unix:", None),
            ("unix:/a?mode=9", None),
            ("unix:/a?owner=me", None),
            ("example.com:80", None),
            ("70000", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let read = text.parse::<Endpoint>().ok().map(|endpoint| endpoint.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn every_shard_gets_a_listener_on_the_port_the_kernel_chose() {
        let (listeners, bound) = bind(&"127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let Endpoint::Tcp(bound) = bound else { panic!("bound to something else") };
        assert_ne!(bound.port(), 0);
        let ports: Vec<_> = listeners
            .iter()
            .map(|listener| match listener {
                Listener::Tcp(listener) => listener.local_addr().unwrap().port(),
                Listener::Unix(_) => 0,
            })
            .collect();
        assert_eq!(ports, [bound.port(); 3]);
    }

    #[test]
    fn a_file_that_is_no_socket_is_not_removed() {
        let path = std::env::temp_dir().join(format!("waft-listen-{}", std::process::id()));
        std::fs::write(&path, "precious").unwrap();
        let endpoint = Endpoint::Unix { path: path.clone(), mode: None };
        assert!(bind(&endpoint, 1).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
        let (listeners, _) = bind(&endpoint, 2).unwrap();
        assert_eq!(listeners.len(), 2);
        std::fs::remove_file(&path).unwrap();
    }
}
