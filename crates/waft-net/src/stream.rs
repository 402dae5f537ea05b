//! A connection that is being worked on.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::tls::ServerTls;

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddr {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// A peer on a Unix socket of this machine, which has no address worth telling.
    Unix,
}

impl std::fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(addr) => addr.ip().to_canonical().fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// A TCP, TLS or Unix connection. Reading and writing take a shared reference, so that the two
/// directions can be driven by two futures of one task; it is not for two threads.
#[derive(Debug)]
pub struct Stream {
    inner: RefCell<Inner>,
}

#[derive(Debug)]
enum Inner {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<ServerTls>),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self { inner: RefCell::new(Inner::Tcp(stream)) }
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self { inner: RefCell::new(Inner::Unix(stream)) }
    }
}

impl From<ServerTls> for Stream {
    fn from(stream: ServerTls) -> Self {
        Self { inner: RefCell::new(Inner::Tls(Box::new(stream))) }
    }
}

impl Stream {
    /// Connects over TCP; small writes are not delayed.
    ///
    /// # Errors
    /// The system's.
    pub async fn connect_tcp(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(stream.into())
    }

    /// Connects to a Unix socket.
    ///
    /// # Errors
    /// The system's.
    pub async fn connect_unix(path: &std::path::Path) -> io::Result<Self> {
        Ok(UnixStream::connect(path).await?.into())
    }

    /// Reads what is there, waiting for the first byte. 0 is the end of the stream.
    ///
    /// # Errors
    /// The system's.
    pub async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, into)).await
    }

    /// The poll form of [`Stream::read`].
    pub fn poll_read(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(into);
        let polled = match &mut *self.inner.borrow_mut() {
            Inner::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Inner::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Inner::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, &mut buf),
        };
        polled.map_ok(|()| buf.filled().len())
    }

    /// Writes some of the parts; returns how many bytes were taken.
    pub fn poll_write(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let [part] = parts {
            // The plain call is cheaper than the gathering one.
            return match &mut *self.inner.borrow_mut() {
                Inner::Tcp(stream) => Pin::new(stream).poll_write(cx, part),
                Inner::Unix(stream) => Pin::new(stream).poll_write(cx, part),
                Inner::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, part),
            };
        }
        match &mut *self.inner.borrow_mut() {
            Inner::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Inner::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Inner::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, parts),
        }
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// The system's; `WriteZero` when the peer takes nothing more.
    pub async fn write_all(&self, data: &[u8]) -> io::Result<()> {
        self.write_parts(&[data]).await
    }

    /// Writes all parts, in one call where the kernel takes them at once.
    ///
    /// # Errors
    /// As [`Stream::write_all`].
    pub async fn write_parts(&self, parts: &[&[u8]]) -> io::Result<()> {
        let mut skip = 0;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        while skip < total {
            let mut slices = [IoSlice::new(&[]); 8];
            let mut count = 0;
            let mut before = 0;
            for part in parts {
                let from = skip.saturating_sub(before).min(part.len());
                before += part.len();
                if let (Some(rest), Some(slice)) = (part.get(from..), slices.get_mut(count))
                    && !rest.is_empty()
                {
                    *slice = IoSlice::new(rest);
                    count += 1;
                }
            }
            let taken = poll_fn(|cx| self.poll_write(cx, slices.get(..count).unwrap_or_default())).await?;
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            skip += taken;
        }
        self.flush().await
    }

    /// Hands what TLS still keeps to the kernel; nothing to do for plain connections.
    async fn flush(&self) -> io::Result<()> {
        if !self.is_tls() {
            return Ok(());
        }
        poll_fn(|cx| match &mut *self.inner.borrow_mut() {
            Inner::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Inner::Tcp(_) | Inner::Unix(_) => Poll::Ready(Ok(())),
        })
        .await
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(&*self.inner.borrow(), Inner::Tls(_))
    }

    /// Whether bytes or the end of the stream can be read right now, without reading them. Used
    /// to tell a live idle connection from one that its peer has closed.
    pub fn is_idle(&self) -> bool {
        let mut byte = [0];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.poll_read(&mut cx, &mut byte).is_pending()
    }

    /// Whether the peer has reset the connection. A peer that has only ended its side may still
    /// be reading, and is not broken.
    pub fn is_broken(&self) -> bool {
        match &*self.inner.borrow() {
            Inner::Tcp(stream) => !matches!(stream.take_error(), Ok(None)),
            Inner::Unix(stream) => !matches!(stream.take_error(), Ok(None)),
            Inner::Tls(stream) => !matches!(stream.get_ref().0.take_error(), Ok(None)),
        }
    }

    /// Sends the end of the stream and closes the connection, reading away for a moment what the
    /// peer still sends, so that a reset does not overtake the last bytes of the answer.
    pub async fn close(self, linger: Duration) {
        let ended = poll_fn(|cx| match &mut *self.inner.borrow_mut() {
            Inner::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        })
        .await;
        if ended.is_err() || linger.is_zero() {
            return;
        }
        let drain = async {
            // On the heap: every task that may close a connection would carry it otherwise.
            let mut sink = vec![0; 4096];
            let mut budget = 1 << 20;
            while let Ok(count @ 1..) = self.read(&mut sink).await {
                budget -= count.min(budget);
                if budget == 0 {
                    return;
                }
            }
        };
        let _late = tokio::time::timeout(linger, drain).await;
    }

    /// Takes a plain connection out of the runtime.
    ///
    /// # Errors
    /// The stream itself when it is encrypted or the system refuses.
    pub fn into_fd(self) -> Result<OwnedFd, Self> {
        match self.inner.into_inner() {
            Inner::Tcp(stream) => stream.into_std().map(OwnedFd::from).map_err(|_gone| Self::broken()),
            Inner::Unix(stream) => stream.into_std().map(OwnedFd::from).map_err(|_gone| Self::broken()),
            inner @ Inner::Tls(_) => Err(Self { inner: RefCell::new(inner) }),
        }
    }

    /// A stream on which everything fails, in place of one that the system took away.
    fn broken() -> Self {
        let (ours, _theirs) = match UnixStream::pair() {
            Ok(pair) => pair,
            Err(error) => unreachable!("no descriptor for a stand-in: {error}"),
        };
        ours.into()
    }

    /// Brings a connection that was held back to the runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn from_fd(fd: OwnedFd, peer: &PeerAddr) -> io::Result<Self> {
        Ok(match peer {
            PeerAddr::Tcp(_) => TcpStream::from_std(fd.into())?.into(),
            PeerAddr::Unix => UnixStream::from_std(fd.into())?.into(),
        })
    }
}
