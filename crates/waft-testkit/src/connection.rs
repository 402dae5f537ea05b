use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::{DEADLINE, Head};

/// One connection, from either end, with control over every byte.
///
/// What was read but not asked for waits in a buffer. Reads wait for at most the deadline and then panic with what had
/// arrived by then.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    unread: Vec<u8>,
    deadline: Duration,
    /// What is left of a chunk that `stream_text` took apart.
    partial: Vec<u8>,
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status line and headers.
    pub head: Head,
    /// The body without its framing.
    pub body: Vec<u8>,
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// The body as text; bytes which are not UTF-8 are replaced.
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Connection {
    /// Connects over TCP.
    pub fn tcp(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE);
        let stream = stream.unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
        stream.set_nodelay(true).unwrap();
        Self::from_socket(Socket::Tcp(stream))
    }

    /// Connects to a Unix socket.
    pub fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path);
        Self::from_socket(Socket::Unix(stream.unwrap_or_else(|error| panic!("cannot connect to {path:?}: {error}"))))
    }

    pub(crate) fn from_socket(socket: Socket) -> Self {
        let connection = Self { socket, unread: Vec::new(), deadline: DEADLINE, partial: Vec::new() };
        connection.socket.set_timeouts(connection.deadline);
        connection
    }

    /// Waits for at most this long in each read and write from now on.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
        self.socket.set_timeouts(deadline);
    }

    /// Asks the kernel to keep no more than about this many bytes that were not read yet.
    pub fn set_receive_buffer(&self, size: usize) {
        sockopt::set_socket_recv_buffer_size(self.socket.as_fd(), size).unwrap();
    }

    /// The address of this end.
    pub fn local_address(&self) -> SocketAddr {
        match &self.socket {
            Socket::Tcp(stream) => stream.local_addr().unwrap(),
            Socket::Unix(_) => panic!("a Unix socket has no address"),
        }
    }

    /// Sends all bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Sends all bytes, or says why the other side does not take them.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket.write_all(bytes.as_ref())
    }

    /// Sends what the other side takes without more than `patience` of waiting, and returns how much that was.
    pub fn send_until_full(&mut self, bytes: &[u8], patience: Duration) -> usize {
        self.socket.set_timeouts(patience);
        let mut sent = 0;
        while sent < bytes.len() {
            match self.socket.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if is_timeout(&error) => break,
                Err(error) => panic!("cannot send: {error}"),
            }
        }
        self.socket.set_timeouts(self.deadline);
        sent
    }

    /// Reads what is there, waiting for the first byte; 0 means the other side closed.
    pub fn read_more(&mut self) -> usize {
        let mut bytes = [0; 65_536];
        match self.socket.read(&mut bytes) {
            Ok(count) => {
                self.unread.extend_from_slice(&bytes[..count]);
                count
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) if is_timeout(&error) => {
                panic!("waited {:?} for bytes; had {:?}", self.deadline, String::from_utf8_lossy(&self.unread))
            }
            Err(error) => panic!("cannot read: {error}"),
        }
    }

    /// Whether bytes, or the end, arrive within `patience`.
    pub fn is_readable_within(&mut self, patience: Duration) -> bool {
        if !self.unread.is_empty() {
            return true;
        }
        self.socket.set_timeouts(patience);
        let mut bytes = [0; 65_536];
        let readable = match self.socket.read(&mut bytes) {
            Ok(count) => {
                self.unread.extend_from_slice(&bytes[..count]);
                true
            }
            Err(error) => !is_timeout(&error),
        };
        self.socket.set_timeouts(self.deadline);
        readable
    }

    /// What arrived and was not asked for yet.
    pub fn peek(&self) -> &[u8] {
        &self.unread
    }

    /// Reads up to and including `end`.
    pub fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut searched = 0;
        loop {
            let found = self.unread[searched..].windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                return self.take(searched + at + end.len());
            }
            searched = self.unread.len().saturating_sub(end.len() - 1);
            self.more_or_panic(&format!("{:?}", String::from_utf8_lossy(end)));
        }
    }

    /// Reads exactly this many bytes.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            self.more_or_panic(&format!("{count} bytes"));
        }
        self.take(count)
    }

    /// Reads a request or response head.
    pub fn head(&mut self) -> Head {
        Head::parse(&self.until(b"\r\n\r\n"))
    }

    /// Reads a request head, or nothing when the other side closed instead.
    pub fn head_or_end(&mut self) -> Option<Head> {
        if self.unread.is_empty() && self.read_or_end() == 0 {
            return None;
        }
        Some(self.head())
    }

    /// Waits for another byte; false when the other side closed instead.
    pub fn has_more(&mut self) -> bool {
        !self.unread.is_empty() || self.read_or_end() > 0
    }

    /// Reads a response head and checks its status.
    pub fn expect_head(&mut self, status: u16) -> Head {
        let head = self.head();
        if head.status() != status {
            let body = if head.content_length().is_some() { self.body(&head) } else { Vec::new() };
            panic!("expected status {status}, got {head:?}\n{}", String::from_utf8_lossy(&body));
        }
        head
    }

    /// Reads the body that belongs to this head: by length, in chunks, or until the end of the connection.
    pub fn body(&mut self, head: &Head) -> Vec<u8> {
        let is_response = head.first_line().starts_with("HTTP/");
        if is_response && matches!(head.status(), 100..=199 | 204 | 304) {
            return Vec::new();
        }
        if head.is_chunked() {
            let mut body = Vec::new();
            loop {
                let chunk = self.chunk();
                if chunk.is_empty() {
                    return body;
                }
                body.extend(chunk);
            }
        }
        match head.content_length() {
            Some(length) => self.exactly(length),
            None if is_response => self.rest(),
            None => Vec::new(),
        }
    }

    /// Reads a whole response, passing over interim ones.
    pub fn response(&mut self) -> Response {
        loop {
            let head = self.head();
            if head.status() >= 200 {
                let body = self.body(&head);
                return Response { head, body };
            }
        }
    }

    /// Sends a request and reads the whole response.
    pub fn fetch(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request);
        self.response()
    }

    /// Reads one chunk; an empty one is the last, whose trailers are read and dropped.
    pub fn chunk(&mut self) -> Vec<u8> {
        let line = self.until(b"\r\n");
        let line = String::from_utf8_lossy(&line);
        let size = line.trim_end().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
        if size == 0 {
            while self.until(b"\r\n") != b"\r\n" {}
            return Vec::new();
        }
        let data = self.exactly(size);
        assert_eq!(self.exactly(2), b"\r\n", "a chunk ends with CR LF");
        data
    }

    /// Checks that the next bytes of a chunked body are these, however they are cut into chunks.
    pub fn expect_stream(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        while self.partial.len() < expected.len() {
            let chunk = self.chunk();
            assert!(
                !chunk.is_empty(),
                "the body ended; expected {:?}, had {:?}",
                String::from_utf8_lossy(expected),
                String::from_utf8_lossy(&self.partial)
            );
            self.partial.extend(chunk);
        }
        let got: Vec<u8> = self.partial.drain(..expected.len()).collect();
        assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(expected));
    }

    /// Reads a chunked body up to and including `end`, and returns it as text.
    pub fn stream_until(&mut self, end: &str) -> String {
        // Keep-alives must not keep the wait alive.
        let give_up = Instant::now() + self.deadline;
        loop {
            if let Some(at) = self.partial.windows(end.len()).position(|window| window == end.as_bytes()) {
                let text: Vec<u8> = self.partial.drain(..at + end.len()).collect();
                return String::from_utf8_lossy(&text).into_owned();
            }
            let chunk = self.chunk();
            let had = String::from_utf8_lossy(&self.partial);
            assert!(!chunk.is_empty(), "the body ended; expected {end:?}, had {had:?}");
            assert!(Instant::now() < give_up, "expected {end:?}, had {had:?}");
            self.partial.extend(chunk);
        }
    }

    /// Checks that a chunked body ends here, properly.
    pub fn expect_stream_end(&mut self) {
        let chunk = self.chunk();
        let had = [self.partial.as_slice(), &chunk].concat();
        assert!(had.is_empty(), "expected the last chunk, got {:?}", String::from_utf8_lossy(&had));
    }

    /// Reads everything up to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.read_more() > 0 {}
        std::mem::take(&mut self.unread)
    }

    /// Checks that the other side closes without another byte.
    pub fn expect_close(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "expected the end, got {:?}", String::from_utf8_lossy(&rest));
    }

    /// Says that this side sends no more.
    pub fn finish_sending(&self) {
        // The other side may be gone already, which is for the test to judge.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset, losing what is under way.
    pub fn reset(self) {
        sockopt::set_socket_linger(self.socket.as_fd(), Some(Duration::ZERO)).unwrap();
    }

    /// Ends both directions from another thread's point of view; used to stop a backend.
    pub(crate) fn duplicate(&self) -> io::Result<Socket> {
        self.socket.try_clone()
    }

    fn read_or_end(&mut self) -> usize {
        let mut bytes = [0; 65_536];
        // A backend's idle connection may outlive any deadline; errors end it like a close.
        match self.socket.read(&mut bytes) {
            Ok(count) => {
                self.unread.extend_from_slice(&bytes[..count]);
                count
            }
            Err(_) => 0,
        }
    }

    fn more_or_panic(&mut self, wanted: &str) {
        if self.read_more() == 0 {
            panic!("the other side closed; expected {wanted}, had {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }
}

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn set_timeouts(&self, deadline: Duration) {
        let set = match self {
            Self::Tcp(s) => s.set_read_timeout(Some(deadline)).and_then(|()| s.set_write_timeout(Some(deadline))),
            Self::Unix(s) => s.set_read_timeout(Some(deadline)).and_then(|()| s.set_write_timeout(Some(deadline))),
        };
        set.unwrap();
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        }
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
        })
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buf),
            Self::Unix(stream) => stream.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buf),
            Self::Unix(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
