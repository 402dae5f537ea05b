//! The backend behind every server: answers at once, from prepared bytes, and keeps connections open.
//!
//! - `/bytes?n=100` answers with that many bytes of [`pattern`].
//! - `/stream?channel=c` and `/poll?channel=c` answer with a GRIP instruction to hold.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::http;

/// The largest body it can answer with.
pub const BODY_MAX: usize = 1 << 20;

/// Bytes of a body, different at each place so that a shift would be noticed.
pub fn pattern() -> Vec<u8> {
    (0..BODY_MAX).map(|at| (at % 251) as u8).collect()
}

/// A running origin, on a thread of its own.
#[derive(Debug)]
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    /// Requests answered so far.
    pub answered: Arc<AtomicU64>,
}

impl Origin {
    /// Starts it on a free port of the loopback interface.
    pub fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = listener.local_addr()?;
        let answered = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&answered);
        std::thread::spawn(move || Loop::run(listener, &counter));
        Ok(Self { address, answered })
    }
}

struct Connection {
    stream: TcpStream,
    /// A request that came in pieces.
    partial: Vec<u8>,
    /// What the socket did not take yet.
    out: Vec<u8>,
    sent: usize,
}

struct Loop {
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    scratch: Vec<u8>,
    pattern: Vec<u8>,
}

impl Loop {
    fn run(mut listener: TcpListener, answered: &AtomicU64) {
        let mut poll = Poll::new().expect("an epoll descriptor");
        poll.registry().register(&mut listener, Token(0), Interest::READABLE).expect("a listener to wait for");
        let mut events = Events::with_capacity(1024);
        let mut own = Self { connections: Vec::new(), free: Vec::new(), scratch: vec![0; 65_536], pattern: pattern() };
        loop {
            if let Err(error) = poll.poll(&mut events, None)
                && error.kind() != ErrorKind::Interrupted
            {
                return;
            }
            let mut closed = Vec::new();
            for event in &events {
                match event.token() {
                    Token(0) => own.accept(&listener, &poll),
                    Token(token) => {
                        if !own.serve(token - 1, event, answered) {
                            closed.push(token - 1);
                        }
                    }
                }
            }
            // Only now: an index used again inside the turn would get the events of its predecessor.
            for index in closed {
                if own.connections[index].take().is_some() {
                    own.free.push(index);
                }
            }
        }
    }

    fn accept(&mut self, listener: &TcpListener, poll: &Poll) {
        while let Ok((mut stream, _)) = listener.accept() {
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let _ = stream.set_nodelay(true);
            let interest = Interest::READABLE | Interest::WRITABLE;
            if poll.registry().register(&mut stream, Token(index + 1), interest).is_ok() {
                self.connections[index] = Some(Connection { stream, partial: Vec::new(), out: Vec::new(), sent: 0 });
            }
        }
    }

    /// False when the connection is over.
    fn serve(&mut self, index: usize, event: &Event, answered: &AtomicU64) -> bool {
        let Some(connection) = self.connections[index].as_mut() else { return true };
        if !connection.flush() {
            return false;
        }
        if !event.is_readable() {
            return true;
        }
        loop {
            let read = match connection.stream.read(&mut self.scratch) {
                Ok(0) => return false,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            };
            connection.partial.extend_from_slice(&self.scratch[..read]);
            let mut done = 0;
            while let Some(end) = http::head_end(&connection.partial[done..]) {
                let head = &connection.partial[done..done + end];
                let whole = end + http::content_length(head);
                if connection.partial.len() < done + whole {
                    break;
                }
                answer(head, &self.pattern, &mut connection.out);
                answered.fetch_add(1, Ordering::Relaxed);
                done += whole;
            }
            connection.partial.drain(..done);
            if !connection.flush() {
                return false;
            }
            if read < self.scratch.len() && !event.is_read_closed() {
                return true;
            }
        }
    }
}

impl Connection {
    fn flush(&mut self) -> bool {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        self.out.clear();
        self.sent = 0;
        true
    }
}

/// Appends the answer to the request with this head.
fn answer(head: &[u8], pattern: &[u8], out: &mut Vec<u8>) {
    let channel = http::query(head, "channel").unwrap_or(b"none");
    let target = head.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
    if target.starts_with(b"/stream") {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 0\r\nGrip-Hold: stream\r\nGrip-Channel: ");
        out.extend_from_slice(channel);
        out.extend_from_slice(b"\r\n\r\n");
    } else if target.starts_with(b"/poll") {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 0\r\nGrip-Hold: response\r\nGrip-Channel: ");
        out.extend_from_slice(channel);
        out.extend_from_slice(b"\r\n\r\n");
    } else {
        let length = http::query(head, "n").and_then(|n| std::str::from_utf8(n).ok()?.parse().ok()).unwrap_or(0);
        let body = &pattern[..pattern.len().min(length)];
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(body);
    }
}
