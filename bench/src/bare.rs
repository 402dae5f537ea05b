//! The bare loop: the least a GRIP gateway can do, as the yardstick for what the sockets themselves cost.
//!
//! One thread, one epoll descriptor, one record a connection. It proxies GET requests through pooled connections,
//! holds when the answer says so, and sends what is published to `/publish?channel=c` with one `send` a listener,
//! all messages of one turn together. It has no timeouts, no queues and few checks: a listener that does not keep up
//! is closed.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::http;
use crate::ws;
use rewrite::{event_request, rebuild_request, rebuild_response, subscription};

mod rewrite;

const CLIENT_LISTENER: Token = Token(usize::MAX - 1);
const CONTROL_LISTENER: Token = Token(usize::MAX - 2);
/// One read; large, since the read buffer decides what a large body costs.
const SCRATCH: usize = 256 * 1024;

/// One record; what is held is 12 bytes, the rest is boxed.
enum Record {
    Vacant,
    Client(Box<Client>),
    Control(Box<Control>),
    Target(Box<Target>),
    Held {
        stream: TcpStream,
        channel: u32,
        place: u32,
        poll: bool,
    },
    /// A held WebSocket; what the client says goes to the target by POST.
    Socket {
        stream: TcpStream,
        channel: u32,
        place: u32,
    },
    /// One side of a WebSocket that is passed through.
    Tunnel {
        stream: TcpStream,
        other: u32,
    },
}

struct Client {
    stream: TcpStream,
    partial: Vec<u8>,
    /// Response bytes the socket did not take; while there are some, the target is not read.
    out: Vec<u8>,
    sent: usize,
    target: Option<usize>,
    close: bool,
    /// The proof for a WebSocket that waits for the target's consent.
    proof: Option<String>,
}

struct Control {
    stream: TcpStream,
    partial: Vec<u8>,
}

struct Target {
    stream: TcpStream,
    client: Option<usize>,
    partial: Vec<u8>,
    /// Body bytes still to come.
    left: usize,
    in_body: bool,
}

#[derive(Default)]
struct Channel {
    name: Vec<u8>,
    /// Whether its listeners are WebSockets, so that frames are pending and not chunks.
    sockets: bool,
    listeners: Vec<u32>,
    pending: Vec<u8>,
    /// Size of the first pending message's chunk framing, and of the message.
    first: (usize, usize),
}

/// Serves until killed.
pub fn run(client: SocketAddr, control: SocketAddr, target: SocketAddr) -> std::io::Result<()> {
    let (mut clients, mut controls) = (TcpListener::bind(client)?, TcpListener::bind(control)?);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut clients, CLIENT_LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut controls, CONTROL_LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut own = Bare {
        registry: poll.registry().try_clone()?,
        address: target,
        records: Vec::new(),
        free: Vec::new(),
        freed: Vec::new(),
        idle: Vec::new(),
        names: HashMap::new(),
        channels: Vec::new(),
        dirty: Vec::new(),
        scratch: vec![0; SCRATCH],
        head: Vec::new(),
    };
    loop {
        if let Err(error) = poll.poll(&mut events, None)
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error);
        }
        for event in &events {
            match event.token() {
                CLIENT_LISTENER => own.accept(&clients, |stream| {
                    Record::Client(Box::new(Client {
                        stream,
                        partial: Vec::new(),
                        out: Vec::new(),
                        sent: 0,
                        target: None,
                        close: false,
                        proof: None,
                    }))
                }),
                CONTROL_LISTENER => {
                    own.accept(&controls, |stream| Record::Control(Box::new(Control { stream, partial: Vec::new() })));
                }
                Token(index) => own.serve(index, event),
            }
        }
        own.flush();
        own.free.append(&mut own.freed);
    }
}

struct Bare {
    registry: mio::Registry,
    address: SocketAddr,
    records: Vec<Record>,
    free: Vec<usize>,
    /// Freed in this turn: used again in the next, or events would reach a successor.
    freed: Vec<usize>,
    /// Connections to the target without a request.
    idle: Vec<usize>,
    names: HashMap<Vec<u8>, u32>,
    channels: Vec<Channel>,
    dirty: Vec<u32>,
    scratch: Vec<u8>,
    head: Vec<u8>,
}

impl Bare {
    fn accept(&mut self, listener: &TcpListener, record: impl Fn(TcpStream) -> Record) {
        while let Ok((stream, _)) = listener.accept() {
            let _ = stream.set_nodelay(true);
            self.add(stream, &record);
        }
    }

    fn add(&mut self, mut stream: TcpStream, record: impl Fn(TcpStream) -> Record) -> Option<usize> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.records.push(Record::Vacant);
            self.records.len() - 1
        });
        self.registry.register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE).ok()?;
        self.records[index] = record(stream);
        Some(index)
    }

    fn close(&mut self, index: usize) {
        match std::mem::replace(&mut self.records[index], Record::Vacant) {
            Record::Vacant => return,
            Record::Client(client) => {
                if let Some(target) = client.target {
                    self.close(target);
                }
            }
            Record::Control(_) => {}
            Record::Target(target) => {
                self.idle.retain(|idle| *idle != index);
                if let Some(client) = target.client {
                    self.close(client);
                }
            }
            Record::Held { channel, place, .. } | Record::Socket { channel, place, .. } => self.leave(channel, place),
            Record::Tunnel { other, .. } => self.close(other as usize),
        }
        self.freed.push(index);
    }

    /// Takes a listener out of its channel; the last one moves to its place.
    fn leave(&mut self, channel: u32, place: u32) {
        let listeners = &mut self.channels[channel as usize].listeners;
        listeners.swap_remove(place as usize);
        if let Some(&moved) = listeners.get(place as usize)
            && let Record::Held { place: at, .. } | Record::Socket { place: at, .. } = &mut self.records[moved as usize]
        {
            *at = place;
        }
    }

    fn serve(&mut self, index: usize, event: &Event) {
        let alive = match &mut self.records[index] {
            Record::Vacant => true,
            Record::Client(_) => self.serve_client(index, event),
            Record::Control(_) => !event.is_readable() || self.serve_control(index, event),
            Record::Target(_) => !event.is_readable() || self.serve_target(index),
            Record::Socket { .. } => !event.is_readable() || self.serve_socket(index),
            Record::Tunnel { .. } => !event.is_readable() || self.serve_tunnel(index, event),
            Record::Held { stream, .. } => !event.is_readable() || !matches!(stream.read(&mut self.scratch), Ok(0)),
        };
        if !alive {
            self.close(index);
        }
    }

    fn serve_client(&mut self, index: usize, event: &Event) -> bool {
        let Record::Client(client) = &mut self.records[index] else { return true };
        if event.is_writable() && !client.out.is_empty() {
            if !client.flush() {
                return false;
            }
            if client.out.is_empty()
                && let Some(target) = client.target
                && !self.serve_target(target)
            {
                return false;
            }
        }
        let Record::Client(client) = &mut self.records[index] else { return true };
        if !event.is_readable() || client.target.is_some() {
            return !event.is_read_closed();
        }
        let read = match client.stream.read(&mut self.scratch) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let whole;
        let head = if client.partial.is_empty() && http::head_end(&self.scratch[..read]) == Some(read) {
            &self.scratch[..read]
        } else {
            client.partial.extend_from_slice(&self.scratch[..read]);
            if http::head_end(&client.partial).is_none() {
                return true;
            }
            whole = std::mem::take(&mut client.partial);
            &whole
        };
        client.close = http::closes(head);
        if let Some(key) = http::header(head, "sec-websocket-key") {
            if head.starts_with(b"GET /direct") {
                self.head = head.to_vec();
                return self.tunnel(index);
            }
            client.proof = Some(ws::accept(key));
            let channel = http::query(head, "channel").unwrap_or_default();
            self.head = event_request(channel, b"OPEN\r\n");
            return self.request(index);
        }
        if !rebuild_request(head, &mut self.head) {
            return false;
        }
        self.request(index)
    }

    /// A new connection to the target. Over loopback connecting ends at once, so blocking for it is no delay.
    fn connect(&mut self, record: impl Fn(TcpStream) -> Record) -> Option<usize> {
        let stream = std::net::TcpStream::connect(self.address).ok()?;
        stream.set_nonblocking(true).ok()?;
        stream.set_nodelay(true).ok()?;
        self.add(TcpStream::from_std(stream), record)
    }

    /// Passes a WebSocket through, handshake and all.
    fn tunnel(&mut self, index: usize) -> bool {
        let Some(target) = self.connect(|stream| Record::Tunnel { stream, other: index as u32 }) else { return false };
        if let Record::Client(client) = std::mem::replace(&mut self.records[index], Record::Vacant) {
            self.records[index] = Record::Tunnel { stream: client.stream, other: target as u32 };
        }
        let Record::Tunnel { stream, .. } = &mut self.records[target] else { return false };
        matches!(stream.write(&self.head), Ok(sent) if sent == self.head.len())
    }

    fn serve_tunnel(&mut self, index: usize, event: &Event) -> bool {
        loop {
            let Record::Tunnel { stream, other } = &mut self.records[index] else { return true };
            let other = *other as usize;
            let read = match stream.read(&mut self.scratch) {
                Ok(0) => return false,
                Ok(read) => read,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            };
            let Record::Tunnel { stream, .. } = &mut self.records[other] else { return false };
            if !matches!(stream.write(&self.scratch[..read]), Ok(sent) if sent == read) {
                return false;
            }
            if read < self.scratch.len() && !event.is_read_closed() {
                return true;
            }
        }
    }

    /// A held WebSocket says something: it goes to the target as events, all that has come in one request.
    fn serve_socket(&mut self, index: usize) -> bool {
        let Record::Socket { stream, channel, .. } = &mut self.records[index] else { return true };
        let read = match stream.read(&mut self.scratch) {
            Ok(0) => return false,
            Ok(read) => read,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        };
        let (mut frames, mut events, mut alive) = (ws::Frames::default(), Vec::new(), true);
        let fed = frames.feed(&self.scratch[..read], |opcode, payload| {
            alive &= opcode == ws::TEXT;
            let _ = write!(events, "TEXT {:x}\r\n", payload.len());
            events.extend_from_slice(payload);
            events.extend_from_slice(b"\r\n");
        });
        if fed.is_err() || frames.is_inside() || !alive {
            return false;
        }
        self.head = event_request(&self.channels[*channel as usize].name, &events);
        self.request(index)
    }

    /// The target answers with events: consent to a WebSocket, or messages for it.
    fn event_response(&mut self, index: usize, client_index: usize, body: &[u8]) -> bool {
        self.finish(index, client_index);
        let mut out = Vec::new();
        let mut rest = body;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, tail) = rest.split_at(end + 1);
            let size = line.trim_ascii_end().strip_prefix(b"TEXT ").and_then(|size| std::str::from_utf8(size).ok());
            let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
            let Some(content) = tail.get(..size.unwrap_or(0)) else { return false };
            if let Some(name) = subscription(content) {
                let channel = self.channel(name);
                self.upgrade(client_index, channel);
            } else if size.is_some() {
                ws::encode(ws::TEXT, content, false, &mut out);
            }
            rest = tail.get(size.map_or(0, |size| size + 2)..).unwrap_or_default();
        }
        match &mut self.records[client_index] {
            Record::Socket { stream, .. } if !out.is_empty() => {
                matches!(stream.write(&out), Ok(sent) if sent == out.len())
            }
            Record::Socket { .. } => true,
            _ => false,
        }
    }

    /// A client whose target consented becomes a WebSocket and a listener.
    fn upgrade(&mut self, client_index: usize, channel: u32) {
        if let Record::Client(mut client) = std::mem::replace(&mut self.records[client_index], Record::Vacant) {
            let place = self.join(channel, client_index, true);
            let proof = client.proof.take().unwrap_or_default();
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {proof}\r\n\r\n"
            );
            // A short write shows in the load as a handshake that never ends.
            let _ = client.stream.write(head.as_bytes());
            self.records[client_index] = Record::Socket { stream: client.stream, channel, place };
        }
    }

    /// The number of a channel, made if it is new.
    fn channel(&mut self, name: &[u8]) -> u32 {
        if let Some(channel) = self.names.get(name) {
            return *channel;
        }
        self.channels.push(Channel { name: name.to_vec(), ..Channel::default() });
        let channel = (self.channels.len() - 1) as u32;
        self.names.insert(name.to_vec(), channel);
        channel
    }

    /// Adds a listener; its place.
    fn join(&mut self, channel: u32, index: usize, socket: bool) -> u32 {
        let channel = &mut self.channels[channel as usize];
        channel.sockets = socket;
        channel.listeners.push(index as u32);
        (channel.listeners.len() - 1) as u32
    }

    /// Sends the request in `head` for a client.
    fn request(&mut self, index: usize) -> bool {
        let record = |stream| {
            Record::Target(Box::new(Target { stream, client: None, partial: Vec::new(), left: 0, in_body: false }))
        };
        let Some(target) = self.idle.pop().or_else(|| self.connect(record)) else { return false };
        if let Record::Target(record) = &mut self.records[target] {
            record.client = Some(index);
            if !matches!(record.stream.write(&self.head), Ok(sent) if sent == self.head.len()) {
                return false;
            }
        }
        if let Record::Client(client) = &mut self.records[index] {
            client.target = Some(target);
        }
        true
    }

    /// Reads a target while its client takes what arrives.
    fn serve_target(&mut self, index: usize) -> bool {
        loop {
            let Record::Target(target) = &mut self.records[index] else { return true };
            let client_index = target.client;
            if let Some(client) = client_index
                && let Record::Client(client) = &self.records[client]
                && !client.out.is_empty()
            {
                return true;
            }
            let Record::Target(target) = &mut self.records[index] else { return true };
            let read = match target.stream.read(&mut self.scratch) {
                Ok(0) => return false,
                Ok(read) => read,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            };
            let Some(client_index) = client_index else { return false };
            if target.in_body {
                target.left = target.left.saturating_sub(read);
                let done = target.left == 0;
                let Record::Client(client) = &mut self.records[client_index] else { return false };
                if !client.send(&self.scratch[..read]) {
                    return false;
                }
                if done {
                    self.finish(index, client_index);
                    return true;
                }
            } else if !self.response_head(index, client_index, read) {
                return false;
            }
            if read < self.scratch.len() {
                return true;
            }
        }
    }

    /// A response begins: passes it on or holds.
    fn response_head(&mut self, index: usize, client_index: usize, read: usize) -> bool {
        let is_event = match &self.records[client_index] {
            Record::Client(client) => client.proof.is_some(),
            record => matches!(record, Record::Socket { .. }),
        };
        let Record::Target(target) = &mut self.records[index] else { return true };
        let whole;
        let bytes = if target.partial.is_empty() {
            &self.scratch[..read]
        } else {
            target.partial.extend_from_slice(&self.scratch[..read]);
            whole = std::mem::take(&mut target.partial);
            &whole
        };
        let Some(end) = http::head_end(bytes) else {
            target.partial = bytes.to_vec();
            return true;
        };
        if is_event {
            let length = http::content_length(&bytes[..end]);
            if bytes.len() < end + length {
                target.partial = bytes.to_vec();
                return true;
            }
            let body = bytes[end..end + length].to_vec();
            return self.event_response(index, client_index, &body);
        }
        let Record::Client(client) = &mut self.records[client_index] else { return false };
        let Some(seen) = rebuild_response(&bytes[..end], client.close, &mut self.head) else { return false };
        let body = &bytes[end..];
        if let Some((poll, name)) = seen.hold {
            let name = name.to_vec();
            let channel = self.channel(&name);
            self.hold(index, client_index, channel, poll);
            return true;
        }
        let done = body.len() >= seen.length;
        if let Record::Target(target) = &mut self.records[index] {
            target.left = seen.length - body.len().min(seen.length);
            target.in_body = !done;
        }
        self.head.extend_from_slice(body);
        let Record::Client(client) = &mut self.records[client_index] else { return false };
        if !client.send(&self.head) {
            return false;
        }
        if done {
            self.finish(index, client_index);
        }
        true
    }

    /// The response is passed on: the target is free for the next, the client stays or goes.
    fn finish(&mut self, index: usize, client_index: usize) {
        if let Record::Target(target) = &mut self.records[index] {
            target.client = None;
            target.in_body = false;
            self.idle.push(index);
        }
        if let Record::Client(client) = &mut self.records[client_index] {
            client.target = None;
            if client.close && client.out.is_empty() {
                self.close(client_index);
            }
        }
    }

    /// The client becomes a listener.
    fn hold(&mut self, index: usize, client_index: usize, channel: u32, poll: bool) {
        self.finish(index, client_index);
        if let Record::Client(client) = std::mem::replace(&mut self.records[client_index], Record::Vacant) {
            let place = self.join(channel, client_index, false);
            self.records[client_index] = Record::Held { stream: client.stream, channel, place, poll };
            if !poll {
                let begin = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
                self.send_held(client_index, begin);
            }
        }
    }

    fn send_held(&mut self, index: usize, bytes: &[u8]) {
        if let Record::Held { stream, .. } | Record::Socket { stream, .. } = &mut self.records[index]
            && !matches!(stream.write(bytes), Ok(sent) if sent == bytes.len())
        {
            self.close(index);
        }
    }

    fn serve_control(&mut self, index: usize, event: &Event) -> bool {
        let Record::Control(control) = &mut self.records[index] else { return true };
        loop {
            let read = match control.stream.read(&mut self.scratch) {
                Ok(0) => return false,
                Ok(read) => read,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            };
            control.partial.extend_from_slice(&self.scratch[..read]);
            while let Some(end) = http::head_end(&control.partial) {
                let whole = end + http::content_length(&control.partial[..end]);
                if control.partial.len() < whole {
                    break;
                }
                let name = http::query(&control.partial[..end], "channel").unwrap_or_default();
                if let Some(&channel) = self.names.get(name) {
                    let message = &control.partial[end..whole];
                    let pending = &mut self.channels[channel as usize];
                    if pending.pending.is_empty() {
                        self.dirty.push(channel);
                    }
                    if pending.sockets {
                        ws::encode(ws::TEXT, message, false, &mut pending.pending);
                        pending.first = (0, 0);
                    } else {
                        let before = pending.pending.len();
                        let _ = write!(pending.pending, "{:x}\r\n", message.len());
                        if before == 0 {
                            pending.first = (pending.pending.len(), message.len());
                        }
                        pending.pending.extend_from_slice(message);
                        pending.pending.extend_from_slice(b"\r\n");
                    }
                }
                control.partial.drain(..whole);
                if control.stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
                    return false;
                }
            }
            if read < self.scratch.len() && !event.is_read_closed() {
                return true;
            }
        }
    }

    /// Sends what was published in this turn, one `send` a listener.
    fn flush(&mut self) {
        while let Some(channel) = self.dirty.pop() {
            let pending = std::mem::take(&mut self.channels[channel as usize].pending);
            let (at, length) = self.channels[channel as usize].first;
            let listeners = self.channels[channel as usize].listeners.clone();
            let mut answer = None;
            for listener in listeners {
                let index = listener as usize;
                match &self.records[index] {
                    Record::Held { poll: true, .. } => {
                        let answer = answer.get_or_insert_with(|| {
                            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                            [head.as_bytes(), &pending[at..at + length]].concat()
                        });
                        self.answer_poll(index, answer);
                    }
                    Record::Held { .. } | Record::Socket { .. } => self.send_held(index, &pending),
                    _ => {}
                }
            }
        }
    }

    /// A long-poll gets its answer and is an ordinary client again.
    fn answer_poll(&mut self, index: usize, answer: &[u8]) {
        if let Record::Held { stream, channel, place, .. } = std::mem::replace(&mut self.records[index], Record::Vacant)
        {
            self.leave(channel, place);
            let mut client = Box::new(Client {
                stream,
                partial: Vec::new(),
                out: Vec::new(),
                sent: 0,
                target: None,
                close: false,
                proof: None,
            });
            let alive = client.send(answer);
            self.records[index] = Record::Client(client);
            if !alive {
                self.close(index);
            }
        }
    }
}

impl Client {
    fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = match self.stream.write(bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return false,
        };
        self.out.extend_from_slice(&bytes[sent..]);
        true
    }

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
        !(self.close && self.target.is_none())
    }
}
