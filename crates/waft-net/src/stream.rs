//! A connection that is being worked on.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::listen::Plain;
use crate::pipe::Pipe;
use crate::tls::{Session, TlsConnectError, is_plain_http};

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

/// A TCP, TLS or Unix connection, or one within the shard ([`Pipe`]). Reading and writing take a shared reference, so that the two
/// directions can be driven by two futures of one task; it is not for two threads.
#[derive(Debug)]
pub struct Stream {
    inner: RefCell<Inner>,
}

#[derive(Debug)]
enum Inner {
    Plain(Plain),
    Tls(Plain, Box<Session>),
    Pipe(Pipe),
}

/// A connection outside of the runtime.
#[derive(Debug)]
pub struct Socket(pub(crate) Link);

/// What a connection consists of: its descriptor, and the state of its encryption if it has one.
#[derive(Debug)]
pub(crate) enum Link {
    Plain(OwnedFd),
    Tls(OwnedFd, Box<Session>),
    Pipe(Pipe),
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        Self(Link::Plain(fd))
    }
}

impl From<Pipe> for Stream {
    fn from(pipe: Pipe) -> Self {
        Self { inner: RefCell::new(Inner::Pipe(pipe)) }
    }
}

impl From<std::os::unix::net::UnixStream> for Socket {
    fn from(stream: std::os::unix::net::UnixStream) -> Self {
        OwnedFd::from(stream).into()
    }
}

impl From<Plain> for Stream {
    fn from(plain: Plain) -> Self {
        Self { inner: RefCell::new(Inner::Plain(plain)) }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Plain::Tcp(stream).into()
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Plain::Unix(stream).into()
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

    /// The same connection encrypted, after a handshake as a client. The server has to prove that it is `name`, a host
    /// name or an address.
    ///
    /// # Errors
    /// When `name` is neither, or one side does not accept the other.
    pub async fn connect_tls(self, config: &Arc<ClientConfig>, name: &str) -> Result<Self, TlsConnectError> {
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let proved = ServerName::try_from(bare.to_owned());
        let proved = proved.map_err(|_no_name| TlsConnectError::Name { name: name.to_owned() })?;
        let failed = |error| TlsConnectError::new(name, error);
        let session = Session::client(Arc::clone(config), proved)
            .map_err(|error| TlsConnectError::Refused { name: name.to_owned(), error })?;
        self.encrypt(session).await.map_err(|(error, _)| failed(error))
    }

    /// Performs the handshake of `session`. Where that fails because a client speaks plain HTTP, the connection comes
    /// back with the error.
    pub(crate) async fn encrypt(self, mut session: Session) -> Result<Self, (io::Error, Option<Self>)> {
        let Inner::Plain(plain) = self.inner.into_inner() else {
            let twice = io::Error::new(io::ErrorKind::InvalidInput, "the connection is encrypted already");
            return Err((twice, None));
        };
        if let Err(error) = session.advance() {
            return Err((io::Error::other(error), None));
        }
        let mut shaken = Inner::Tls(plain, Box::new(session));
        match poll_fn(|cx| shaken.poll_handshake(cx)).await {
            Ok(()) => Ok(Self { inner: RefCell::new(shaken) }),
            Err(error) => match shaken {
                Inner::Tls(plain, session) if is_plain_http(&error, session.first()) => {
                    Err((error, Some(plain.into())))
                }
                _ => Err((error, None)),
            },
        }
    }

    /// Whether the peer has proved who it is by a certificate that was asked for.
    pub fn is_peer_verified(&self) -> bool {
        matches!(&*self.inner.borrow(), Inner::Tls(_, session) if session.common().peer_certificates().is_some())
    }

    /// Whether the peer was known from an earlier connection, so that the handshake was a short one.
    pub fn is_resumed(&self) -> bool {
        use rustls::HandshakeKind::Resumed;
        matches!(&*self.inner.borrow(), Inner::Tls(_, session) if session.common().handshake_kind() == Some(Resumed))
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
        match &mut *self.inner.borrow_mut() {
            Inner::Plain(plain) => plain.poll_read(cx, into),
            Inner::Tls(plain, session) => {
                let read = session.read(into, |room| plain.read_now(cx, room));
                // Reading may have made something to send: new keys, or what was wrong. If the socket does not take it
                // now, it goes with the next write.
                let _later = session.flush(|data| plain.write_now(cx, data));
                or_pending(read)
            }
            Inner::Pipe(pipe) => pipe.poll_read(cx, into),
        }
    }

    /// Writes some of the parts; returns how many bytes were taken.
    pub fn poll_write(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut *self.inner.borrow_mut() {
            Inner::Plain(plain) => plain.poll_write(cx, parts),
            Inner::Tls(plain, session) => or_pending(session.write(parts, |data| plain.write_now(cx, data))),
            Inner::Pipe(pipe) => pipe.poll_write(cx, parts),
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
        self.write_parts_within(parts, Duration::MAX).await
    }

    /// As [`Stream::write_parts`], with a peer that may pause for `patience` and no longer.
    ///
    /// # Errors
    /// As [`Stream::write_all`]; `TimedOut` when the peer took nothing for so long.
    pub async fn write_parts_within(&self, parts: &[&[u8]], patience: Duration) -> io::Result<()> {
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
            let writing = poll_fn(|cx| self.poll_write(cx, slices.get(..count).unwrap_or_default()));
            let taken = in_time(writing, patience).await?;
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            skip += taken;
        }
        if matches!(&*self.inner.borrow(), Inner::Tls(..)) {
            in_time(poll_fn(|cx| self.poll_flush(cx)), patience).await?;
        }
        Ok(())
    }

    /// Waits until what was written is with the kernel, or in the pipe.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.inner.borrow_mut() {
            Inner::Plain(_) | Inner::Pipe(_) => Poll::Ready(Ok(())),
            Inner::Tls(plain, session) => or_pending(session.flush(|data| plain.write_now(cx, data))),
        }
    }

    /// Sends the end of the stream. What was written before must have been flushed.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.inner.borrow_mut() {
            Inner::Plain(plain) => plain.poll_shutdown(cx),
            Inner::Tls(plain, session) => {
                session.close();
                match session.flush(|data| plain.write_now(cx, data)) {
                    Ok(()) => plain.poll_shutdown(cx),
                    error => or_pending(error),
                }
            }
            Inner::Pipe(pipe) => {
                pipe.end();
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        match &*self.inner.borrow() {
            Inner::Plain(_) => false,
            Inner::Tls(..) => true,
            Inner::Pipe(pipe) => pipe.is_secure(),
        }
    }

    /// Whether bytes or the end of the stream can be read right now, without reading them. Used
    /// to tell a live idle connection from one that its peer has closed.
    pub fn is_idle(&self) -> bool {
        if let Inner::Pipe(pipe) = &*self.inner.borrow() {
            return pipe.is_quiet();
        }
        let mut byte = [0];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.poll_read(&mut cx, &mut byte).is_pending()
    }

    /// Whether the peer has reset the connection. A peer that has only ended its side may still
    /// be reading, and is not broken.
    pub fn is_broken(&self) -> bool {
        match &*self.inner.borrow() {
            Inner::Plain(Plain::Tcp(stream)) | Inner::Tls(Plain::Tcp(stream), _) => {
                !matches!(stream.take_error(), Ok(None))
            }
            Inner::Plain(Plain::Unix(stream)) | Inner::Tls(Plain::Unix(stream), _) => {
                !matches!(stream.take_error(), Ok(None))
            }
            Inner::Pipe(pipe) => pipe.is_broken(),
        }
    }

    /// Whether the peer has ended its side, whatever is still to be read of it. It may still be reading itself.
    pub fn is_ended(&self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let ready = match &*self.inner.borrow() {
            Inner::Plain(Plain::Tcp(stream)) | Inner::Tls(Plain::Tcp(stream), _) => {
                pin!(stream.ready(Interest::READABLE)).poll(&mut cx)
            }
            Inner::Plain(Plain::Unix(stream)) | Inner::Tls(Plain::Unix(stream), _) => {
                pin!(stream.ready(Interest::READABLE)).poll(&mut cx)
            }
            Inner::Pipe(pipe) => return pipe.is_broken(),
        };
        match ready {
            Poll::Ready(Ok(ready)) => ready.is_read_closed(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }

    /// Sends the end of the stream and closes the connection, reading away for a moment what the
    /// peer still sends, so that a reset does not overtake the last bytes of the answer.
    pub async fn close(self, linger: Duration) {
        let ended = poll_fn(|cx| self.poll_shutdown(cx)).await;
        // Within the shard nothing overtakes.
        if ended.is_err() || linger.is_zero() || matches!(&*self.inner.borrow(), Inner::Pipe(_)) {
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

    /// Takes the connection out of the runtime.
    ///
    /// # Errors
    /// The system's; the connection is closed then.
    pub fn into_socket(self) -> io::Result<Socket> {
        Ok(Socket(match self.inner.into_inner() {
            Inner::Plain(plain) => Link::Plain(plain.into_fd()?),
            Inner::Tls(plain, session) => Link::Tls(plain.into_fd()?, session),
            Inner::Pipe(pipe) => Link::Pipe(pipe),
        }))
    }

    /// Brings a connection that was held back to the runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn from_socket(socket: Socket, peer: &PeerAddr) -> io::Result<Self> {
        let inner = match socket.0 {
            Link::Plain(fd) => Inner::Plain(Plain::from_fd(fd, peer)?),
            Link::Tls(fd, session) => Inner::Tls(Plain::from_fd(fd, peer)?, session),
            Link::Pipe(pipe) => Inner::Pipe(pipe),
        };
        Ok(Self { inner: RefCell::new(inner) })
    }
}

impl Inner {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self::Tls(plain, session) = self else { return Poll::Ready(Ok(())) };
        loop {
            match session.flush(|data| plain.write_now(cx, data)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(()) if !session.is_handshaking() => return Poll::Ready(Ok(())),
                Ok(()) => {}
            }
            if !session.is_handshaking() {
                return Poll::Pending;
            }
            match session.receive(|room| plain.read_now(cx, room)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => {
                    // The peer learns what was wrong, if it takes that at once and understands it.
                    if !is_plain_http(&error, session.first()) {
                        let _told = session.flush(|data| plain.write_now(cx, data));
                    }
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl Plain {
    fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(match self {
            Self::Tcp(stream) => stream.into_std()?.into(),
            Self::Unix(stream) => stream.into_std()?.into(),
        })
    }

    fn from_fd(fd: OwnedFd, peer: &PeerAddr) -> io::Result<Self> {
        Ok(match peer {
            PeerAddr::Tcp(_) => Self::Tcp(TcpStream::from_std(fd.into())?),
            PeerAddr::Unix => Self::Unix(UnixStream::from_std(fd.into())?),
        })
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(into);
        let polled = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buf),
        };
        polled.map_ok(|()| buf.filled().len())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let [part] = parts {
            // The plain call is cheaper than the gathering one.
            return match self {
                Self::Tcp(stream) => Pin::new(stream).poll_write(cx, part),
                Self::Unix(stream) => Pin::new(stream).poll_write(cx, part),
            };
        }
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// Reads without waiting; the task is woken when there is more.
    fn read_now(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> io::Result<usize> {
        or_would_block(self.poll_read(cx, into))
    }

    /// Writes without waiting; the task is woken when there is room again.
    fn write_now(&mut self, cx: &mut Context<'_>, data: &[u8]) -> io::Result<usize> {
        or_would_block(self.poll_write(cx, &[IoSlice::new(data)]))
    }
}

fn or_would_block(polled: Poll<io::Result<usize>>) -> io::Result<usize> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Awaits one step of writing. The time is only looked at if the step has to wait.
async fn in_time<T>(step: impl Future<Output = io::Result<T>>, patience: Duration) -> io::Result<T> {
    let mut step = pin!(step);
    if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(step.as_mut().poll(cx))).await {
        return done;
    }
    if patience == Duration::MAX {
        return step.await;
    }
    tokio::time::timeout(patience, step).await.unwrap_or_else(|_late| Err(io::ErrorKind::TimedOut.into()))
}

fn or_pending<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}
