//! Listeners: many stream holds on one epoll descriptor, and publishes to them.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use crate::histogram::Histogram;
use crate::http::Response;
use crate::message::{Assembler, Template};
use crate::process;
use crate::server::{Server, Transport};
use crate::wire::Wire;
use crate::ws::{self, Frames};

/// Holds that are opened at a time: fewer than what makes Pushpin answer 502.
const OPENING_MAX: usize = 64;
/// Without progress for so long, a run is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client connection that expects one response.
#[derive(Debug)]
pub struct Exchange {
    /// The socket.
    pub stream: Wire,
    /// The response so far.
    pub response: Response,
    /// When the request was sent.
    pub began: Instant,
}

impl Exchange {
    /// Connects, sends the request and registers the socket.
    pub fn begin(address: std::net::SocketAddr, request: &[u8], poll: &Poll, token: usize) -> Result<Self, String> {
        let began = Instant::now();
        let stream = Wire::plain(address).map_err(|error| format!("cannot connect to {address}: {error}"))?;
        Self::send(stream, request, poll, token, began)
    }

    /// The same by TLS.
    pub fn begin_encrypted(server: &Server, request: &[u8], poll: &Poll, token: usize) -> Result<Self, String> {
        let began = Instant::now();
        let address = server.encrypted;
        let stream = Wire::encrypted(address, &server.certificate)
            .map_err(|error| format!("cannot connect to {address}: {error}"))?;
        Self::send(stream, request, poll, token, began)
    }

    fn send(mut stream: Wire, request: &[u8], poll: &Poll, token: usize, began: Instant) -> Result<Self, String> {
        let sent = stream.write_all(request);
        let watched = sent.and_then(|()| poll.registry().register(stream.socket(), Token(token), Interest::READABLE));
        watched.map_err(|error| format!("cannot send a request: {error}"))?;
        Ok(Self { stream, response: Response::new(), began })
    }
}

/// What one listener saw.
#[derive(Debug, Default)]
struct Seen {
    assembler: Assembler,
    frames: Frames,
    count: u32,
    sum: u64,
    /// Differs between listeners that saw the same messages in another order.
    order: u64,
}

/// Which channel a listener is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// All on one.
    One,
    /// One each.
    Each,
}

/// Open holds.
#[derive(Debug)]
pub struct Holds {
    poll: Poll,
    events: Events,
    exchanges: Vec<Option<Exchange>>,
    seen: Vec<Seen>,
    transport: Transport,
    channels: Channels,
    prefix: String,
    scratch: Vec<u8>,
    /// Opens that failed and were tried again.
    pub retries: usize,
    /// CPU of the server to open them all.
    pub cpu: Duration,
    /// From the connection to the head of the response.
    pub latency: Histogram,
    /// How long opening them all took.
    pub took: Duration,
}

/// What publishing cost.
#[derive(Debug)]
pub struct Delivered {
    /// CPU of the server.
    pub cpu: Duration,
    /// Wall time.
    pub took: Duration,
    /// Messages that arrived at listeners.
    pub deliveries: usize,
    /// From publish to each arrival.
    pub each: Histogram,
    /// From publish to the last arrival of a message.
    pub last: Histogram,
    /// Listeners that saw another order than the first.
    pub disordered: usize,
    /// Listeners that the server has closed, in this run or before.
    pub closed: usize,
}

/// How messages are published.
#[derive(Clone, Copy, Debug)]
pub struct Publishing {
    /// Bytes of a message.
    pub size: usize,
    /// Messages under way at a time, each on a connection of its own.
    pub window: usize,
    /// Messages in all.
    pub messages: usize,
}

impl Holds {
    /// Opens `count` holds on channels that begin with `prefix`.
    pub fn open(
        server: &Server,
        transport: Transport,
        count: usize,
        channels: Channels,
        prefix: &str,
    ) -> Result<Self, String> {
        let io = |error: std::io::Error| format!("no epoll descriptor: {error}");
        let mut own = Self {
            poll: Poll::new().map_err(io)?,
            events: Events::with_capacity(1024),
            exchanges: (0..count).map(|_| None).collect(),
            seen: (0..count).map(|_| Seen::default()).collect(),
            transport,
            channels,
            prefix: prefix.to_owned(),
            scratch: vec![0; 256 * 1024],
            retries: 0,
            cpu: Duration::ZERO,
            latency: Histogram::new(),
            took: Duration::ZERO,
        };
        let (cpu, begin) = (process::cpu(server.pid()), Instant::now());
        let (mut next, mut open, mut progress) = (0, 0, Instant::now());
        while open < count {
            while next < count && next - open < OPENING_MAX {
                own.begin(server, next)?;
                next += 1;
            }
            own.wait()?;
            for index in own.ready() {
                match own.read_head(index) {
                    Ok(true) => {
                        open += 1;
                        progress = Instant::now();
                    }
                    Ok(false) => {}
                    Err(reason) => own.again(server, index, count, &reason)?,
                }
            }
            if progress.elapsed() > PATIENCE / 3 {
                progress = Instant::now();
                for index in 0..next {
                    if own.exchanges[index].as_ref().is_none_or(|exchange| exchange.response.status.is_none()) {
                        own.again(server, index, count, "no answer")?;
                    }
                }
            }
        }
        own.took = begin.elapsed();
        own.cpu = process::cpu(server.pid()).saturating_sub(cpu);
        Ok(own)
    }

    fn begin(&mut self, server: &Server, index: usize) -> Result<(), String> {
        let request = server.hold_request(self.transport, &self.channel(index));
        let begun = match self.transport {
            Transport::Encrypted => Exchange::begin_encrypted(server, &request, &self.poll, index),
            Transport::Socket | Transport::Stream => Exchange::begin(server.clients, &request, &self.poll, index),
        };
        self.exchanges[index] = Some(begun?);
        Ok(())
    }

    fn again(&mut self, server: &Server, index: usize, count: usize, reason: &str) -> Result<(), String> {
        self.retries += 1;
        if self.retries > count / 20 + 5 {
            return Err(format!("{} holds could not be opened, the last with: {reason}", self.retries));
        }
        self.begin(server, index)
    }

    /// The channel of a listener or of a message.
    fn channel(&self, index: usize) -> String {
        match self.channels {
            Channels::One => self.prefix.clone(),
            Channels::Each => format!("{}-{}", self.prefix, index % self.seen.len()),
        }
    }

    fn wait(&mut self) -> Result<(), String> {
        match self.poll.poll(&mut self.events, Some(Duration::from_millis(500))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(format!("epoll failed: {error}")),
            _ => Ok(()),
        }
    }

    fn ready(&self) -> Vec<usize> {
        self.events.iter().map(|event| event.token().0).collect()
    }

    /// True when the head of this hold has arrived now.
    fn read_head(&mut self, index: usize) -> Result<bool, String> {
        let Some(exchange) = self.exchanges[index].as_mut() else { return Ok(false) };
        let before = exchange.response.status;
        loop {
            match exchange.stream.read(&mut self.scratch) {
                Ok(0) => return Err("closed".to_owned()),
                Ok(read) => exchange.response.feed(&self.scratch[..read], |_| ())?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        match exchange.response.status {
            Some(200 | 101) if before.is_none() => {
                self.latency.record(exchange.began.elapsed());
                Ok(true)
            }
            Some(status) if !matches!(status, 200 | 101) => Err(format!("status {status}")),
            _ => Ok(false),
        }
    }

    /// Publishes and waits until every listener has every message.
    pub fn deliver(&mut self, server: &Server, how: Publishing) -> Result<Delivered, String> {
        let template = Template::new(how.size);
        let count = self.seen.len();
        self.seen.fill_with(Seen::default);
        let mut run = Run::new(how.messages, self.channels, self.exchanges.iter().map(Option::is_some));
        let mut publishers: Vec<Publisher> = (0..how.window).map(|_| Publisher::default()).collect();
        let requests: Vec<Vec<u8>> = (0..how.messages)
            .map(|number| server.publish_hold(self.transport, &self.channel(number), &template.render(number as u32)))
            .collect();
        let cpu = process::cpu(server.pid());
        let (begin, mut next, mut progress) = (Instant::now(), 0, (0, Instant::now()));
        while run.complete < how.messages || publishers.iter().any(|publisher| publisher.waits) {
            for (slot, publisher) in publishers.iter_mut().enumerate() {
                let is_free = !publisher.waits && publisher.number.is_none_or(|number| run.done[number]);
                if is_free && next < how.messages {
                    run.sent[next] = Instant::now();
                    publisher.send(server, &requests[next], next, &self.poll, count + slot)?;
                    next += 1;
                }
            }
            self.wait()?;
            let mut arrived = 0;
            for event in &self.events {
                match event.token().0.checked_sub(count) {
                    Some(slot) => publishers[slot].read(&mut self.scratch)?,
                    None => {
                        let (index, closed) = (event.token().0, event.is_read_closed());
                        let Some(exchange) = self.exchanges[index].as_mut() else { continue };
                        let seen = &mut self.seen[index];
                        let read = read_listener(exchange, seen, &mut self.scratch, closed, &template, &mut run)
                            .map_err(|reason| format!("listener {index}: {reason}"))?;
                        match read {
                            Some(messages) => arrived += messages,
                            None => {
                                self.exchanges[index] = None;
                                run.lose(index)?;
                            }
                        }
                    }
                }
            }
            if arrived > 0 || run.complete > progress.0 {
                progress = (run.complete, Instant::now());
            } else if progress.1.elapsed() > PATIENCE {
                let missing: usize = run.missing[..next].iter().map(|missing| missing - run.lost.min(*missing)).sum();
                return Err(format!("{missing} deliveries never came, after {} whole messages", run.complete));
            }
        }
        let took = begin.elapsed();
        let cpu = process::cpu(server.pid()).saturating_sub(cpu);
        self.verify(how.messages)?;
        let open = || self.seen.iter().zip(&self.exchanges).filter(|(_, exchange)| exchange.is_some());
        let first = open().next().map_or(0, |(seen, _)| seen.order);
        let disordered = match self.channels {
            Channels::One => open().filter(|(seen, _)| seen.order != first).count(),
            Channels::Each => 0,
        };
        let closed = count - open().count();
        Ok(Delivered { cpu, took, deliveries: run.deliveries, each: run.each, last: run.last, disordered, closed })
    }

    /// Every listener that is still there saw its messages, each once.
    fn verify(&self, messages: usize) -> Result<(), String> {
        let count = self.seen.len();
        for (index, seen) in self.seen.iter().enumerate().filter(|(index, _)| self.exchanges[*index].is_some()) {
            let own = (0..messages as u64)
                .filter(|number| self.channels == Channels::One || *number as usize % count == index);
            let (expected, sum) = own.fold((0, 0), |(expected, sum), number| (expected + 1, sum + number * number));
            if seen.count != expected || seen.sum != sum {
                return Err(format!("listener {index} saw {} messages of {expected}, or wrong ones", seen.count));
            }
        }
        Ok(())
    }
}

/// The state of a run.
struct Run {
    channels: Channels,
    listeners: usize,
    sent: Vec<Instant>,
    missing: Vec<usize>,
    done: Vec<bool>,
    complete: usize,
    deliveries: usize,
    /// Listeners that the server closed during this run. A message counts as complete when no more than these lack it.
    lost: usize,
    each: Histogram,
    last: Histogram,
}

impl Run {
    fn new(messages: usize, channels: Channels, open: impl ExactSizeIterator<Item = bool>) -> Self {
        let listeners = open.len();
        let closed: Vec<usize> = open.enumerate().filter(|(_, open)| !open).map(|(index, _)| index).collect();
        let per_message = if channels == Channels::One { listeners - closed.len() } else { 1 };
        let mut own = Self {
            channels,
            listeners,
            sent: vec![Instant::now(); messages],
            missing: vec![per_message; messages],
            done: vec![false; messages],
            complete: 0,
            deliveries: 0,
            lost: 0,
            each: Histogram::new(),
            last: Histogram::new(),
        };
        if channels == Channels::Each {
            closed.into_iter().for_each(|index| own.give_up(index));
        }
        own
    }

    /// The server closed a listener. An error when it did so to many.
    fn lose(&mut self, index: usize) -> Result<(), String> {
        self.lost += 1;
        if self.lost > self.listeners / 20 {
            return Err(format!("{} listeners were closed by the server", self.lost));
        }
        match self.channels {
            Channels::One => {
                for number in 0..self.done.len() {
                    if self.missing[number] <= self.lost && !self.done[number] {
                        self.done[number] = true;
                        self.complete += 1;
                    }
                }
            }
            Channels::Each => self.give_up(index),
        }
        Ok(())
    }

    /// Nobody is left for the messages of one listener's channel.
    fn give_up(&mut self, index: usize) {
        for number in (index..self.done.len()).step_by(self.listeners) {
            if !std::mem::replace(&mut self.done[number], true) {
                self.complete += 1;
            }
        }
    }

    /// A message arrived somewhere. An error is one that nobody sent, or one too many.
    fn arrived(&mut self, number: u32, now: Instant) -> Result<(), String> {
        let number = number as usize;
        match self.missing.get_mut(number) {
            Some(missing) if *missing > 0 => {
                *missing -= 1;
                self.deliveries += 1;
                let since = now.saturating_duration_since(self.sent[number]);
                self.each.record(since);
                if *missing <= self.lost && !std::mem::replace(&mut self.done[number], true) {
                    self.last.record(since);
                    self.complete += 1;
                }
                Ok(())
            }
            _ => Err(format!("message {number} arrived once too often")),
        }
    }
}

/// Reads what arrived at a listener; the number of messages, or none when the server closed it.
fn read_listener(
    exchange: &mut Exchange,
    seen: &mut Seen,
    scratch: &mut [u8],
    closed: bool,
    template: &Template,
    run: &mut Run,
) -> Result<Option<usize>, String> {
    let before = seen.count;
    loop {
        let read = match exchange.stream.read(scratch) {
            Ok(0) => return Ok(None),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return Ok(None),
        };
        let now = Instant::now();
        let mut outcome = Ok(());
        let is_socket = exchange.response.status == Some(101);
        let Seen { assembler, frames, count, sum, order } = &mut *seen;
        exchange.response.feed(&scratch[..read], |part| {
            let mut arrived = |number: u32| {
                *count += 1;
                *sum += u64::from(number) * u64::from(number);
                *order = order.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(number) + 1);
                run.arrived(number, now)
            };
            let fed = if is_socket {
                let mut inner = Ok(());
                let fed = frames.feed(part, |opcode, payload| match (opcode, template.number(payload)) {
                    (ws::TEXT, Some(number)) => inner = inner.clone().and(arrived(number)),
                    _ => inner = Err(format!("a frame arrived that is not ours, opcode {opcode}")),
                });
                fed.and(inner)
            } else {
                let mut inner = Ok(());
                let fed = assembler.feed(template, part, |number| inner = inner.clone().and(arrived(number)));
                fed.and(inner)
            };
            if fed.is_err() {
                outcome = fed;
            }
        })?;
        outcome?;
        if read < scratch.len() && !closed && !exchange.stream.is_encrypted() {
            break;
        }
    }
    Ok(Some((seen.count - before) as usize))
}

/// A connection that publishes, one message at a time.
#[derive(Debug, Default)]
pub struct Publisher {
    exchange: Option<Exchange>,
    /// The message it published last.
    pub number: Option<usize>,
    /// Whether the answer is missing.
    pub waits: bool,
}

impl Publisher {
    /// Publishes message `number`.
    pub fn send(
        &mut self,
        server: &Server,
        request: &[u8],
        number: usize,
        poll: &Poll,
        token: usize,
    ) -> Result<(), String> {
        self.number = Some(number);
        self.waits = true;
        if let Some(exchange) = &mut self.exchange {
            exchange.response = Response::new();
            // A server may have closed meanwhile; then a new connection is made.
            if matches!(exchange.stream.write(request), Ok(sent) if sent == request.len()) {
                return Ok(());
            }
        }
        self.exchange = Some(Exchange::begin(server.control, request, poll, token)?);
        Ok(())
    }

    /// Reads the answer.
    pub fn read(&mut self, scratch: &mut [u8]) -> Result<(), String> {
        let Some(exchange) = &mut self.exchange else { return Ok(()) };
        let mut ended = false;
        loop {
            match exchange.stream.read(scratch) {
                Ok(0) => {
                    exchange.response.end();
                    ended = true;
                    break;
                }
                Ok(read) => exchange.response.feed(&scratch[..read], |_| ())?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(format!("publishing failed: {error}")),
            }
        }
        if self.waits && exchange.response.is_done() {
            match exchange.response.status {
                Some(200..=299) => self.waits = false,
                status => return Err(format!("a publish was answered with {status:?}")),
            }
        }
        if ended && self.waits {
            return Err("the control door closed without an answer".to_owned());
        }
        if ended || (!self.waits && exchange.response.closes) {
            self.exchange = None;
        }
        Ok(())
    }
}
