//! Plain requests through the proxy, and long-polls.

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use crate::histogram::Histogram;
use crate::holds::{Exchange, Publisher};
use crate::http::Response;
use crate::message::Template;
use crate::process;
use crate::server::{self, Server};
use crate::ws::{self, Frames};

const PATIENCE: Duration = Duration::from_secs(10);

/// What a run of requests cost.
#[derive(Debug)]
pub struct Answered {
    /// CPU of the server.
    pub cpu: Duration,
    /// Wall time.
    pub took: Duration,
    /// Requests answered.
    pub requests: usize,
    /// From the request to the end of its response.
    pub latency: Histogram,
    /// Publishes that had to be repeated.
    pub repeated: usize,
    /// Requests answered with an error of the server's own.
    pub refused: usize,
}

/// A run of requests.
#[derive(Clone, Copy, Debug)]
pub struct Requests {
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// Requests in all.
    pub total: usize,
    /// Bytes of each response's body.
    pub body: usize,
    /// Whether each request has a connection of its own.
    pub fresh: bool,
}

/// Sends the requests and checks every byte of every answer.
pub fn proxy(server: &Server, how: Requests, pattern: &[u8]) -> Result<Answered, String> {
    let close = if how.fresh { "Connection: close\r\n" } else { "" };
    let request = format!(
        "GET /bytes?n={} HTTP/1.1\r\nHost: bench\r\nUser-Agent: waft-bench\r\nAccept: */*\r\n{close}\r\n",
        how.body
    );
    let request = request.as_bytes();
    let mut poll = Poll::new().map_err(|error| format!("no epoll descriptor: {error}"))?;
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0; 256 * 1024];
    let cpu = process::cpu(server.pid());
    let begin = Instant::now();
    let mut clients = Vec::new();
    for token in 0..how.connections {
        clients.push(Client {
            exchange: Exchange::begin(server.clients, request, &poll, token)?,
            received: 0,
            busy: true,
        });
    }
    let (mut started, mut done, mut latency) = (how.connections, 0, Histogram::new());
    let mut progress = Instant::now();
    while done < how.total {
        wait(&mut poll, &mut events)?;
        if events.is_empty() && progress.elapsed() > PATIENCE {
            return Err(format!("no answer for {} s after {done} requests", PATIENCE.as_secs()));
        }
        for event in &events {
            let token = event.token().0;
            let Client { exchange, received, busy } = &mut clients[token];
            if !*busy {
                continue;
            }
            let ended = read(exchange, &mut scratch, event.is_read_closed(), |part| {
                let expected = pattern.get(*received..*received + part.len());
                *received += part.len();
                if expected == Some(part) { Ok(()) } else { Err("a body arrived damaged".to_owned()) }
            })?;
            if !exchange.response.is_done() {
                if ended {
                    return Err(format!("closed inside a response, after {done} requests"));
                }
                continue;
            }
            if exchange.response.status != Some(200) || *received != how.body {
                return Err(format!("status {:?} with {received} bytes", exchange.response.status));
            }
            // With a connection each, the answer counts when the server has closed, as it was told.
            if how.fresh && !ended {
                continue;
            }
            latency.record(exchange.began.elapsed());
            progress = Instant::now();
            done += 1;
            *received = 0;
            *busy = started < how.total;
            if !*busy {
                continue;
            }
            started += 1;
            if how.fresh || ended || exchange.response.closes {
                *exchange = Exchange::begin(server.clients, request, &poll, token)?;
            } else {
                send(exchange, request)?;
            }
        }
    }
    let took = begin.elapsed();
    let cpu = process::cpu(server.pid()).saturating_sub(cpu);
    Ok(Answered { cpu, took, requests: done, latency, repeated: 0, refused: 0 })
}

/// A run of echoes over WebSockets.
#[derive(Clone, Copy, Debug)]
pub struct Echoes {
    /// WebSockets, each with one message under way.
    pub connections: usize,
    /// Messages in all.
    pub total: usize,
    /// Path of the request.
    pub path: &'static str,
}

/// Opens WebSockets, sends messages through the server to the origin, and checks what comes back.
pub fn echo(server: &Server, how: Echoes) -> Result<Answered, String> {
    let template = Template::new(64);
    let mut poll = Poll::new().map_err(|error| format!("no epoll descriptor: {error}"))?;
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0; 65_536];
    let mut clients = Vec::new();
    for token in 0..how.connections {
        let request = server::socket_request(&format!("{}?channel=echo-{token}", how.path));
        let mut exchange = Exchange::begin(server.clients, &request, &poll, token)?;
        let limit = Instant::now();
        while exchange.response.status.is_none() {
            wait(&mut poll, &mut events)?;
            if read(&mut exchange, &mut scratch, false, |_| Ok(()))? || limit.elapsed() > PATIENCE {
                return Err(format!("WebSocket {token} was not opened"));
            }
        }
        if exchange.response.status != Some(101) {
            return Err(format!("WebSocket {token} was answered with {:?}", exchange.response.status));
        }
        clients.push((exchange, Frames::default()));
    }
    process::settle(server.pid(), Duration::from_secs(2));
    let (mut started, mut done, mut latency) = (0u32, 0, Histogram::new());
    let mut say = |exchange: &mut Exchange| {
        let mut frame = Vec::new();
        ws::encode(ws::TEXT, &template.render(started), true, &mut frame);
        started += 1;
        exchange.began = Instant::now();
        match exchange.stream.write(&frame) {
            Ok(sent) if sent == frame.len() => Ok(started - 1),
            Ok(_) => Err("the server does not read".to_owned()),
            Err(error) => Err(format!("cannot send: {error}")),
        }
    };
    let (cpu, begin, mut progress) = (process::cpu(server.pid()), Instant::now(), Instant::now());
    let mut wanted = Vec::new();
    for (exchange, _) in &mut clients {
        wanted.push(say(exchange)?);
    }
    while done < how.total {
        wait(&mut poll, &mut events)?;
        if events.is_empty() && progress.elapsed() > PATIENCE {
            return Err(format!("no echo for {} s after {done}", PATIENCE.as_secs()));
        }
        for event in &events {
            let token = event.token().0;
            let (exchange, frames) = &mut clients[token];
            let mut echoed = Vec::new();
            let ended = read(exchange, &mut scratch, event.is_read_closed(), |part| {
                frames.feed(part, |opcode, payload| echoed.push((opcode, template.number(payload))))
            })?;
            if ended {
                return Err(format!("WebSocket {token} was closed after {done} echoes"));
            }
            for (opcode, number) in echoed {
                if (opcode, number) != (ws::TEXT, Some(wanted[token])) {
                    return Err(format!("WebSocket {token} got message {number:?} with opcode {opcode}"));
                }
                latency.record(exchange.began.elapsed());
                progress = Instant::now();
                done += 1;
                wanted[token] = say(exchange)?;
            }
        }
    }
    let took = begin.elapsed();
    let cpu = process::cpu(server.pid()).saturating_sub(cpu);
    Ok(Answered { cpu, took, requests: done, latency, repeated: 0, refused: 0 })
}

/// A run of long-polls.
#[derive(Clone, Copy, Debug)]
pub struct Polls {
    /// Clients, each with one poll under way.
    pub pollers: usize,
    /// Clients on one channel: so many polls are answered, and come again, at a time.
    pub group: usize,
    /// Publishes in all.
    pub publishes: usize,
}

/// Answers long-polls group by group; each client polls again at once.
pub fn long_poll(server: &Server, how: Polls, origin: &AtomicU64, prefix: &str) -> Result<Answered, String> {
    let template = Template::new(64);
    let mut poll = Poll::new().map_err(|error| format!("no epoll descriptor: {error}"))?;
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0; 65_536];
    let groups = how.pollers / how.group;
    let channel = |poller: usize| format!("{prefix}-{}", poller / how.group);
    let mut pollers = Vec::new();
    for index in 0..how.pollers {
        let seen = origin.load(Ordering::Relaxed);
        let exchange = Exchange::begin(server.clients, &server.poll_request(&channel(index)), &poll, index)?;
        pollers.push(Poller { exchange, body: Vec::new(), wanted: None });
        // One after the other is slow but sure: this part is not measured.
        let limit = Instant::now();
        while server.kind.speaks_grip() && origin.load(Ordering::Relaxed) == seen {
            if limit.elapsed() > PATIENCE {
                return Err(format!("poll {index} never reached the origin"));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    process::settle(server.pid(), Duration::from_secs(3));
    let cpu = process::cpu(server.pid());
    let begin = Instant::now();
    let (mut publisher, mut latency, mut repeated, mut cycles) = (Publisher::default(), Histogram::new(), 0, 0);
    let mut refused = 0;
    for number in 0..how.publishes {
        let members = number % groups * how.group..(number % groups + 1) * how.group;
        for poller in &mut pollers[members.clone()] {
            poller.wanted = Some(number as u32);
        }
        let request = server.publish_response(&channel(members.start), &template.render(number as u32));
        let mut sent = Instant::now();
        let published = sent;
        publisher.send(server, &request, number, &poll, how.pollers)?;
        let mut missing = how.group;
        while missing > 0 || publisher.waits {
            wait(&mut poll, &mut events)?;
            if published.elapsed() > PATIENCE {
                return Err(format!("{missing} polls of publish {number} were not answered"));
            }
            // A poll that had not come back yet when its message was published.
            if events.is_empty() && !publisher.waits && sent.elapsed() > Duration::from_millis(400) {
                repeated += 1;
                sent = Instant::now();
                publisher.send(server, &request, number, &poll, how.pollers)?;
            }
            for event in &events {
                let token = event.token().0;
                if token == how.pollers {
                    publisher.read(&mut scratch)?;
                    continue;
                }
                let poller = &mut pollers[token];
                let ended = read(&mut poller.exchange, &mut scratch, event.is_read_closed(), |part| {
                    poller.body.extend_from_slice(part);
                    Ok(())
                })?;
                if !poller.exchange.response.is_done() {
                    if ended {
                        return Err(format!("poll {token} was closed without an answer"));
                    }
                    continue;
                }
                let seen = template.number(&std::mem::take(&mut poller.body));
                match (poller.exchange.response.status, seen) {
                    (Some(200), Some(_)) => cycles += 1,
                    // Pushpin does so now and then when several requests come at once; the poll is sent again.
                    (Some(500..=599), _) if refused < how.pollers => refused += 1,
                    (status, _) => return Err(format!("poll {token} was answered with {status:?}")),
                }
                if seen.is_some() && seen == poller.wanted {
                    poller.wanted = None;
                    missing -= 1;
                    latency.record(published.elapsed());
                }
                let request = server.poll_request(&channel(token));
                if ended || poller.exchange.response.closes {
                    poller.exchange = Exchange::begin(server.clients, &request, &poll, token)?;
                } else {
                    send(&mut poller.exchange, &request)?;
                }
            }
        }
    }
    let took = begin.elapsed();
    process::settle(server.pid(), Duration::from_secs(1));
    let cpu = process::cpu(server.pid()).saturating_sub(cpu);
    Ok(Answered { cpu, took, requests: cycles, latency, repeated, refused })
}

struct Client {
    exchange: Exchange,
    /// Bytes of the body so far.
    received: usize,
    /// Whether it has a request under way.
    busy: bool,
}

struct Poller {
    exchange: Exchange,
    body: Vec<u8>,
    /// The message it has not seen yet.
    wanted: Option<u32>,
}

fn wait(poll: &mut Poll, events: &mut Events) -> Result<(), String> {
    match poll.poll(events, Some(Duration::from_millis(200))) {
        Err(error) if error.kind() != ErrorKind::Interrupted => Err(format!("epoll failed: {error}")),
        _ => Ok(()),
    }
}

/// Sends the next request on a connection.
fn send(exchange: &mut Exchange, request: &[u8]) -> Result<(), String> {
    exchange.response = Response::new();
    exchange.began = Instant::now();
    match exchange.stream.write(request) {
        Ok(sent) if sent == request.len() => Ok(()),
        Ok(_) => Err("the server does not read".to_owned()),
        Err(error) => Err(format!("cannot send: {error}")),
    }
}

/// Reads what is there; true when the server closed.
fn read(
    exchange: &mut Exchange,
    scratch: &mut [u8],
    closed: bool,
    mut body: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<bool, String> {
    loop {
        match exchange.stream.read(scratch) {
            Ok(0) => {
                exchange.response.end();
                return Ok(true);
            }
            Ok(read) => {
                let mut outcome = Ok(());
                exchange.response.feed(&scratch[..read], |part| {
                    if outcome.is_ok() {
                        outcome = body(part);
                    }
                })?;
                outcome?;
                if read < scratch.len() && !closed {
                    return Ok(false);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(format!("reading failed: {error}")),
        }
    }
}
