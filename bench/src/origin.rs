//! The backend behind every server: answers at once, from prepared bytes, and keeps connections open.
//!
//! - `/bytes?n=100` answers with that many bytes of [`pattern`].
//! - `/ws?channel=c` answers WebSocket events sent by POST: accepts and subscribes, then echoes.
//! - `/direct` is a WebSocket that echoes.
//! - `/stream?channel=c` and `/poll?channel=c` answer with a GRIP instruction to hold.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::http;
use crate::ws;

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
    /// There once the connection is a WebSocket.
    frames: Option<ws::Frames>,
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
                self.connections[index] =
                    Some(Connection { stream, partial: Vec::new(), out: Vec::new(), sent: 0, frames: None });
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
            if let Some(frames) = &mut connection.frames {
                if !echo(frames, &self.scratch[..read], &mut connection.out) || !connection.flush() {
                    return false;
                }
                answered.fetch_add(1, Ordering::Relaxed);
                if read < self.scratch.len() && !event.is_read_closed() {
                    return true;
                }
                continue;
            }
            connection.partial.extend_from_slice(&self.scratch[..read]);
            let mut done = 0;
            while let Some(end) = http::head_end(&connection.partial[done..]) {
                let head = &connection.partial[done..done + end];
                let whole = end + http::content_length(head);
                if connection.partial.len() < done + whole {
                    break;
                }
                let body = &connection.partial[done + end..done + whole];
                if let Some(key) = http::header(head, "sec-websocket-key").filter(|_| head.starts_with(b"GET")) {
                    let proof = ws::accept(key);
                    let head = format!(
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Accept: {proof}\r\n\r\n"
                    );
                    connection.out.extend_from_slice(head.as_bytes());
                    connection.frames = Some(ws::Frames::default());
                } else if head.starts_with(b"POST") {
                    answer_events(head, body, &mut connection.out);
                } else {
                    answer(head, &self.pattern, &mut connection.out);
                }
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

/// Appends the echo of each message; false when the other side closes.
fn echo(frames: &mut ws::Frames, input: &[u8], out: &mut Vec<u8>) -> bool {
    let mut alive = true;
    let fed = frames.feed(input, |opcode, payload| match opcode {
        ws::CLOSE => alive = false,
        ws::PING => ws::encode(ws::PONG, payload, false, out),
        _ => ws::encode(opcode, payload, false, out),
    });
    alive && fed.is_ok()
}

/// Appends the answer to WebSocket events in a POST.
fn answer_events(head: &[u8], mut body: &[u8], out: &mut Vec<u8>) {
    let mut events = Vec::new();
    let mut extension = "";
    while let Some(end) = memchr::memchr(b'\n', body) {
        let line = body[..end].trim_ascii_end();
        let size = line
            .split(|&byte| byte == b' ')
            .nth(1)
            .and_then(|size| usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok());
        let event_end = (end + 1 + size.map_or(0, |size| size + 2)).min(body.len());
        let event = &body[..event_end];
        if line == b"OPEN" {
            let channel = String::from_utf8_lossy(http::query(head, "channel").unwrap_or(b"none")).into_owned();
            let control = format!(r#"c:{{"type":"subscribe","channel":"{channel}"}}"#);
            events.extend_from_slice(format!("OPEN\r\nTEXT {:x}\r\n{control}\r\n", control.len()).as_bytes());
            extension = "Sec-WebSocket-Extensions: grip; message-prefix=\"\"\r\n";
        } else if line.starts_with(b"PING") {
            events.extend_from_slice(b"PO");
            events.extend_from_slice(&event[2..]);
        } else if !line.starts_with(b"DISCONNECT") {
            events.extend_from_slice(event);
        }
        body = &body[event_end..];
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/websocket-events\r\n{extension}Content-Length: {}\r\n\r\n",
        events.len()
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(&events);
}

/// Appends the answer to the request with this head.
fn answer(head: &[u8], pattern: &[u8], out: &mut Vec<u8>) {
    let channel = http::query(head, "channel").unwrap_or(b"none");
    let target = head.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
    if target.starts_with(b"/stream") {
        out.extend_from_slice(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 0\r\nGrip-Hold: stream\r\nGrip-Channel: ",
        );
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
