//! Where connections rest while nothing happens on them.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::net::{SendFlags, send, sendmsg};

use crate::pipe::{Pipe, PipeNews};
use crate::stream::{Link, Socket};
use crate::tls::Session;
use crate::watch::Watch;
use crate::wheel::{Tick, Wheel};

/// Names a held connection. A key is never reused: after its connection has left, it finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// The key as one number, for tables that keep many.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The key that [`Key::to_bits`] made a number of.
    pub fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// How much may wait for a client that reads slowly.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Writes that may wait.
    pub items_max: usize,
    /// Bytes that may wait.
    pub bytes_max: usize,
    /// Bytes that may wait for all clients of a set together: a write beyond them is refused as if its own queue were
    /// full.
    pub total_bytes_max: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { items_max: 1000, bytes_max: 1 << 20, total_bytes_max: 256 << 20 }
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// All of it is with the kernel.
    Sent,
    /// Some or all of it waits until the client reads.
    Queued,
    /// The queue is full: nothing of it was taken.
    Full,
    /// The connection is broken, or the key names none.
    Failed,
}

/// What happened to a held connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// There is something to read (perhaps the end of the stream).
    pub readable: bool,
    /// The client will send no more; it may still read.
    pub read_closed: bool,
    /// The connection is broken.
    pub failed: bool,
    /// Everything that waited has now been written.
    pub drained: bool,
}

/// How far a flush came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Nothing waits any more.
    Done,
    /// Some bytes still wait.
    Waiting,
    /// The connection is broken.
    Failed,
}

/// Bytes that wait for the client, oldest first.
#[derive(Debug, Default)]
struct Queue {
    parts: VecDeque<Bytes>,
    /// Their bytes, and those that are encrypted already and wait in the session.
    bytes: usize,
    /// When the client last took something: one that takes nothing for too long is given up.
    progress: Tick,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    /// The tick at which the owner wants to hear of this connection, 0 for never.
    deadline: Tick,
    /// The tick of this slot's entry on the wheel, 0 if it has none.
    entered: Tick,
    /// None while the connection is reserved: writes queue until a socket is attached.
    ///
    /// What waits in the queue of an encrypted connection is not encrypted yet, but for what the socket has not taken of
    /// the last records, which the session keeps.
    socket: Option<Link>,
    queue: Option<Box<Queue>>,
    state: Option<T>,
}

/// A slab of held connections on an epoll instance of its own, with their deadlines.
///
/// One shard owns it; nothing in it is shared. Methods are called in any order; [`HeldSet::poll`]
/// and [`HeldSet::expired`] tell what happened.
#[derive(Debug)]
pub struct HeldSet<T> {
    poll: Poll,
    events: Events,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    wheel: Wheel,
    due: Vec<u32>,
    limits: QueueLimits,
    queued_bytes: usize,
    /// Writes refused because of `total_bytes_max`.
    refused_for_all: u64,
    /// What happened on connections within the shard.
    pipes: Rc<PipeNews>,
    /// The generation of slots that are made anew: above that of any slot given back.
    fresh: u32,
}

impl<T> HeldSet<T> {
    /// An empty set whose time begins at `now`.
    ///
    /// # Errors
    /// The system's, when it has no descriptor left.
    pub fn new(now: Instant, limits: QueueLimits) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            slots: Vec::new(),
            free: Vec::new(),
            wheel: Wheel::new(now),
            due: Vec::new(),
            limits,
            queued_bytes: 0,
            refused_for_all: 0,
            pipes: Rc::default(),
            fresh: 0,
        })
    }

    /// Waits, on the runtime of this thread, for [`HeldSet::poll`] to have something to tell.
    ///
    /// # Errors
    /// The system's, when it has no descriptor left.
    pub fn watch(&self) -> io::Result<Watch> {
        Watch::new(rustix::io::dup(self.poll.registry().as_fd())?, Rc::clone(&self.pipes))
    }

    /// How long a tick of the timers is: how often [`HeldSet::expired`] should be called.
    pub fn tick_length() -> Duration {
        Wheel::tick_length()
    }

    /// Number of connections held, reserved ones included.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that wait for slow clients, over all connections.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Writes refused because too much waited for all connections together.
    pub fn refused_for_all(&self) -> u64 {
        self.refused_for_all
    }

    /// Changes the limits for what may wait. Holds for later writes.
    pub fn set_limits(&mut self, limits: QueueLimits) {
        self.limits = limits;
    }

    /// Takes in a connection. The socket must be non-blocking.
    ///
    /// # Errors
    /// The system's, when the socket cannot be watched.
    pub fn insert(&mut self, socket: Socket, state: T) -> io::Result<Key> {
        let key = self.reserve(state);
        match self.attach(key, socket) {
            Ok(()) => Ok(key),
            Err(error) => {
                self.remove(key);
                Err(error)
            }
        }
    }

    /// Takes in a connection whose socket is still in use elsewhere; what is written to it waits.
    pub fn reserve(&mut self, state: T) -> Key {
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.state = Some(state);
            return Key { index, generation: slot.generation };
        }
        let index = self.slots.len() as u32;
        let generation = self.fresh;
        let slot = Slot { generation, deadline: 0, entered: 0, socket: None, queue: None, state: Some(state) };
        self.slots.push(slot);
        Key { index, generation }
    }

    /// Gives a reserved connection its socket. What waits goes out with the next [`HeldSet::flush`].
    ///
    /// # Errors
    /// The system's, when the socket cannot be watched; `NotFound` for a key that names nothing.
    pub fn attach(&mut self, key: Key, socket: Socket) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let Some(slot) = slot_mut(&mut self.slots, key) else { return Err(io::ErrorKind::NotFound.into()) };
        let token = Token(key.to_bits() as usize);
        match &socket.0 {
            Link::Plain(fd) | Link::Tls(fd, _) => {
                self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), token, interest)?;
            }
            Link::Pipe(pipe) => pipe.hold(&self.pipes, key.to_bits()),
        }
        if let Link::Tls(_, session) = &socket.0
            && session.unsent() > 0
        {
            let now = self.wheel.now();
            let queue = slot.queue.get_or_insert_with(|| Box::new(Queue { progress: now, ..Queue::default() }));
            queue.bytes += session.unsent();
            self.queued_bytes += session.unsent();
        }
        slot.socket = Some(socket.0);
        Ok(())
    }

    /// The state kept with a connection.
    pub fn get(&self, key: Key) -> Option<&T> {
        self.slots.get(key.index as usize).filter(|slot| slot.generation == key.generation)?.state.as_ref()
    }

    /// The state kept with a connection, to change.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        slot_mut(&mut self.slots, key)?.state.as_mut()
    }

    /// All keys in the set.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.state.is_some())
            .map(|(index, slot)| Key { index: index as u32, generation: slot.generation })
    }

    /// Sets or clears the time at which [`HeldSet::expired`] names this connection.
    pub fn set_deadline(&mut self, key: Key, at: Option<Instant>) {
        let tick = at.map_or(0, |at| self.wheel.tick_of(at));
        let Some(slot) = slot_mut(&mut self.slots, key) else { return };
        slot.deadline = tick;
        // An entry that comes up too early is entered again; only one that is too late is no use.
        if tick != 0 && (slot.entered == 0 || slot.entered > tick) {
            slot.entered = self.wheel.enter(key.index, tick);
        }
    }

    /// Sends `data` now, or keeps what the kernel does not take. Order is kept.
    pub fn write(&mut self, key: Key, data: &Bytes) -> Wrote {
        let Some(slot) = slot_mut(&mut self.slots, key) else { return Wrote::Failed };
        let (Some(link), None) = (&mut slot.socket, &slot.queue) else {
            return self.enqueue(key, data.clone(), false);
        };
        match link {
            Link::Plain(fd) => match send_now(fd.as_fd(), data) {
                Ok(sent) if sent == data.len() => Wrote::Sent,
                Ok(sent) => self.enqueue(key, data.slice(sent..), true),
                Err(_) => Wrote::Failed,
            },
            Link::Tls(fd, session) => match write_sealed(session, fd.as_fd(), data) {
                Ok((taken, 0)) if taken == data.len() => Wrote::Sent,
                Ok((taken, unsent)) => self.enqueue_sealed(key, data.slice(taken..), unsent),
                Err(_) => Wrote::Failed,
            },
            Link::Pipe(pipe) => match pipe.send(data) {
                Ok(true) => Wrote::Sent,
                Ok(false) => self.enqueue(key, data.clone(), false),
                Err(_) => Wrote::Failed,
            },
        }
    }

    /// As [`HeldSet::write`] for the last bytes of an exchange, which are kept whatever the limits say.
    pub fn write_last(&mut self, key: Key, data: &Bytes) -> Wrote {
        if self.is_waiting(key) {
            return self.enqueue(key, data.clone(), true);
        }
        self.write(key, data)
    }

    /// Whether bytes wait for this connection's client.
    pub fn is_waiting(&self, key: Key) -> bool {
        self.slots.get(key.index as usize).is_some_and(|slot| slot.generation == key.generation && slot.queue.is_some())
    }

    /// Bytes that wait for this connection's client.
    pub fn waiting_bytes(&self, key: Key) -> usize {
        let slot = self.slots.get(key.index as usize).filter(|slot| slot.generation == key.generation);
        slot.and_then(|slot| slot.queue.as_ref()).map_or(0, |queue| queue.bytes)
    }

    /// Since when the client has taken nothing of what waits; none if nothing waits, or if the socket is not there yet.
    pub fn stalled_for(&self, key: Key) -> Option<Duration> {
        let slot = self.slots.get(key.index as usize).filter(|slot| slot.generation == key.generation)?;
        slot.socket.as_ref()?;
        let queue = slot.queue.as_ref()?;
        Some(Wheel::tick_length() * self.wheel.now().saturating_sub(queue.progress))
    }

    /// Appends to the queue. A started write (`force`) must be finished whatever the limits say.
    fn enqueue(&mut self, key: Key, data: Bytes, force: bool) -> Wrote {
        let (limits, now) = (self.limits, self.wheel.now());
        let Some(slot) = slot_mut(&mut self.slots, key) else { return Wrote::Failed };
        let queue = slot.queue.get_or_insert_with(|| Box::new(Queue { progress: now, ..Queue::default() }));
        let full = queue.parts.len() >= limits.items_max || queue.bytes + data.len() > limits.bytes_max;
        let all_full = self.queued_bytes + data.len() > limits.total_bytes_max;
        if (full || all_full) && !force && !queue.parts.is_empty() {
            self.refused_for_all += u64::from(!full);
            return Wrote::Full;
        }
        queue.bytes += data.len();
        self.queued_bytes += data.len();
        queue.parts.push_back(data);
        Wrote::Queued
    }

    /// Keeps what is left of a write to an encrypted connection: `rest`, and the `unsent` bytes in its session.
    fn enqueue_sealed(&mut self, key: Key, rest: Bytes, unsent: usize) -> Wrote {
        let wrote = self.enqueue(key, rest, true);
        if let Some(queue) = slot_mut(&mut self.slots, key).and_then(|slot| slot.queue.as_mut()) {
            queue.bytes += unsent;
            self.queued_bytes += unsent;
        }
        wrote
    }

    /// Writes what waits, in as few calls as the kernel allows.
    pub fn flush(&mut self, key: Key) -> Flush {
        let now = self.wheel.now();
        let Some(slot) = slot_mut(&mut self.slots, key) else { return Flush::Failed };
        let Some(queue) = slot.queue.as_mut() else { return Flush::Done };
        let Some(link) = &mut slot.socket else { return Flush::Waiting };
        let before = queue.bytes;
        let flushed = match link {
            Link::Plain(fd) => flush_plain(fd.as_fd(), queue, now),
            Link::Tls(fd, session) => flush_sealed(session, fd.as_fd(), queue, now),
            Link::Pipe(pipe) => flush_pipe(pipe, queue, now),
        };
        self.queued_bytes = (self.queued_bytes + queue.bytes).saturating_sub(before);
        if flushed == Flush::Done {
            slot.queue = None;
        }
        flushed
    }

    /// Takes a connection out: its socket (none if it was only reserved), what waited for the
    /// client, and its state.
    pub fn remove(&mut self, key: Key) -> Option<(Option<Socket>, Vec<Bytes>, T)> {
        let slot = slot_mut(&mut self.slots, key)?;
        let state = slot.state.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.deadline = 0;
        let socket = slot.socket.take();
        let waiting = slot.queue.take();
        self.free.push(key.index);
        match &socket {
            None => {}
            Some(Link::Plain(fd) | Link::Tls(fd, _)) => {
                // Fails only for a socket that is not registered, which is what is wanted.
                let _gone = self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
            }
            Some(Link::Pipe(pipe)) => pipe.release(),
        }
        let waiting = waiting.map_or_else(Vec::new, |queue| {
            self.queued_bytes -= queue.bytes;
            queue.parts.into()
        });
        self.give_back();
        Some((socket.map(Socket), waiting, state))
    }

    /// After a crowd has left, gives the memory of its records back.
    fn give_back(&mut self) {
        const KEPT: usize = 64;
        if self.free.len() < self.slots.len() || self.slots.len() <= KEPT {
            return;
        }
        // Generations go on where they were, or an old key could name a new connection.
        let highest = self.slots.iter().map(|slot| slot.generation).max().unwrap_or(0);
        self.fresh = highest.wrapping_add(1);
        self.slots = Vec::new();
        self.free = Vec::new();
    }

    /// Asks the kernel what happened and appends it to `out`. Never waits. Queues of connections
    /// that can be written again have been flushed when this returns.
    ///
    /// # Errors
    /// The system's.
    pub fn poll(&mut self, out: &mut Vec<(Key, Readiness)>) -> io::Result<()> {
        self.poll_pipes(out);
        loop {
            match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let first = out.len();
            for event in &self.events {
                let ready = Readiness {
                    readable: event.is_readable(),
                    read_closed: event.is_read_closed(),
                    failed: event.is_error(),
                    drained: event.is_writable(),
                };
                out.push((Key::from_bits(event.token().0 as u64), ready));
            }
            for (key, ready) in out.iter_mut().skip(first) {
                if ready.drained {
                    let waited = self.is_waiting(*key);
                    let flush = if waited { self.flush(*key) } else { Flush::Waiting };
                    ready.drained = flush == Flush::Done;
                    ready.failed |= flush == Flush::Failed;
                }
                // What was decrypted before is not announced by the kernel.
                ready.readable |= self.has_unread(*key);
            }
            if self.events.iter().count() < 1024 {
                return Ok(());
            }
        }
    }

    /// Appends what happened to connections within the shard.
    fn poll_pipes(&mut self, out: &mut Vec<(Key, Readiness)>) {
        for bits in self.pipes.take() {
            let key = Key::from_bits(bits);
            let Some(Link::Pipe(pipe)) = slot_mut(&mut self.slots, key).and_then(|slot| slot.socket.as_ref()) else {
                continue;
            };
            let (readable, read_closed, mut failed, writable) = pipe.readiness();
            let flush = if writable && self.is_waiting(key) { self.flush(key) } else { Flush::Waiting };
            failed |= flush == Flush::Failed;
            out.push((key, Readiness { readable, read_closed, failed, drained: flush == Flush::Done }));
        }
    }

    /// Appends the connections whose deadline has passed to `out`, and clears these deadlines.
    pub fn expired(&mut self, now: Instant, out: &mut Vec<Key>) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(now, &mut due);
        let tick = self.wheel.now();
        for index in due.drain(..) {
            let Some(slot) = self.slots.get_mut(index as usize) else { continue };
            if slot.entered > tick {
                // An older entry of a deadline that has since been brought forward.
                continue;
            }
            if slot.deadline == 0 || slot.state.is_none() {
                slot.entered = 0;
            } else if slot.deadline <= tick {
                slot.deadline = 0;
                slot.entered = 0;
                out.push(Key { index, generation: slot.generation });
            } else {
                slot.entered = self.wheel.enter(index, slot.deadline);
            }
        }
        due.shrink_to(1024);
        self.due = due;
    }

    /// Reads from a held connection without waiting. What is short of `into` has emptied the connection, unless
    /// [`HeldSet::has_unread`] says otherwise.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, `NotFound` for a key without a socket, or the system's.
    pub fn read(&mut self, key: Key, into: &mut [u8]) -> io::Result<usize> {
        let slot = slot_mut(&mut self.slots, key).ok_or(io::ErrorKind::NotFound)?;
        let (socket, session) = match slot.socket.as_mut().ok_or(io::ErrorKind::NotFound)? {
            Link::Plain(fd) => return Ok(rustix::io::read(fd, into)?),
            Link::Pipe(pipe) => return pipe.read_now(into),
            Link::Tls(fd, session) => (&*fd, session),
        };
        let read = session.read(into, |room| Ok(rustix::io::read(socket, room)?));
        if slot.queue.is_none() {
            // Reading may have made something to send, such as new keys.
            let _later = session.flush(|data| send_or_block(socket.as_fd(), data));
            let unsent = session.unsent();
            if unsent > 0 {
                let queue = Queue { bytes: unsent, progress: self.wheel.now(), ..Queue::default() };
                slot.queue = Some(Box::new(queue));
                self.queued_bytes += unsent;
            }
        }
        read
    }

    /// Whether something that came earlier was not read yet, which the kernel will not announce: the content of a record,
    /// or the end of an encrypted stream.
    pub fn has_unread(&self, key: Key) -> bool {
        let slot = self.slots.get(key.index as usize).filter(|slot| slot.generation == key.generation);
        match slot.and_then(|slot| slot.socket.as_ref()) {
            Some(Link::Tls(_, session)) => session.has_unread(),
            _ => false,
        }
    }
}

/// Encrypts and sends `data`; how much of it was encrypted, and how many encrypted bytes wait.
fn write_sealed(session: &mut Session, socket: BorrowedFd<'_>, data: &[u8]) -> io::Result<(usize, usize)> {
    let mut taken = 0;
    while let Some(rest) = data.get(taken..).filter(|rest| !rest.is_empty()) {
        match session.write(&[IoSlice::new(rest)], |sealed| send_or_block(socket, sealed)) {
            Ok(count) => taken += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok((taken, session.unsent()))
}

/// Sends what waits.
fn flush_plain(socket: BorrowedFd<'_>, queue: &mut Queue, now: Tick) -> Flush {
    while !queue.parts.is_empty() {
        match send_parts(socket, &queue.parts) {
            Ok(0) => return Flush::Waiting,
            Ok(sent) => {
                queue.progress = now;
                queue.bytes -= sent;
                drop_front(&mut queue.parts, sent);
            }
            Err(_) => return Flush::Failed,
        }
    }
    Flush::Done
}

/// Hands what waits to the other end.
fn flush_pipe(pipe: &Pipe, queue: &mut Queue, now: Tick) -> Flush {
    while let Some(part) = queue.parts.front() {
        match pipe.send(part) {
            Ok(true) => {
                queue.progress = now;
                queue.bytes -= part.len();
                queue.parts.pop_front();
            }
            Ok(false) => return Flush::Waiting,
            Err(_) => return Flush::Failed,
        }
    }
    Flush::Done
}

/// Encrypts and sends what waits.
fn flush_sealed(session: &mut Session, socket: BorrowedFd<'_>, queue: &mut Queue, now: Tick) -> Flush {
    loop {
        let mut sent = 0;
        let mut send = |sealed: &[u8]| send_or_block(socket, sealed).inspect(|count| sent += count);
        let unsent = session.unsent();
        let mut slices = [IoSlice::new(&[]); AT_ONCE];
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(&queue.parts) {
            *slice = IoSlice::new(part);
            count += 1;
        }
        let written = session.write(slices.get(..count).unwrap_or_default(), &mut send);
        if sent > 0 {
            queue.progress = now;
        }
        let taken = match written {
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Flush::Failed,
        };
        drop_front(&mut queue.parts, taken);
        queue.bytes = (queue.bytes + session.unsent()).saturating_sub(unsent + taken);
        if session.unsent() > 0 {
            return Flush::Waiting;
        }
        if queue.parts.is_empty() {
            return Flush::Done;
        }
    }
}

fn slot_mut<T>(slots: &mut [Slot<T>], key: Key) -> Option<&mut Slot<T>> {
    slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)
}

const FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Bytes the kernel took: 0 when it takes none now.
fn send_now(socket: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    loop {
        match send(socket, data, FLAGS) {
            Ok(sent) => return Ok(sent),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
    }
}

/// [`send_now`] for a session.
fn send_or_block(socket: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    match send_now(socket, data) {
        Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
        sent => sent,
    }
}

/// Parts that are written at once.
const AT_ONCE: usize = 64;

/// The same for a list of parts, as many as one call takes.
fn send_parts(socket: BorrowedFd<'_>, parts: &VecDeque<Bytes>) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); AT_ONCE];
    let mut count = 0;
    for (slice, part) in slices.iter_mut().zip(parts) {
        *slice = IoSlice::new(part);
        count += 1;
    }
    loop {
        let slices = slices.get(..count).unwrap_or_default();
        match sendmsg(socket, slices, &mut Default::default(), FLAGS) {
            Ok(sent) => return Ok(sent),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
    }
}

fn drop_front(parts: &mut VecDeque<Bytes>, mut sent: usize) {
    while let Some(front) = parts.front_mut() {
        if front.len() > sent {
            bytes::Buf::advance(front, sent);
            return;
        }
        sent -= front.len();
        parts.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn held_pair(held: &mut HeldSet<u32>, state: u32) -> (Key, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (held.insert(ours.into(), state).unwrap(), theirs)
    }

    fn set(limits: QueueLimits) -> (Instant, HeldSet<u32>) {
        let start = Instant::now();
        (start, HeldSet::new(start, limits).unwrap())
    }

    #[test]
    fn what_a_slow_client_does_not_take_waits_in_order_and_within_limits() {
        let (_, mut held) = set(QueueLimits { items_max: 3, bytes_max: 1 << 30, total_bytes_max: usize::MAX });
        let (key, mut client) = held_pair(&mut held, 0);
        let part = Bytes::from(vec![b'a'; 1 << 20]);
        assert_eq!(held.write(key, &part), Wrote::Queued);
        assert_eq!(held.write(key, &Bytes::from_static(b"b")), Wrote::Queued);
        assert_eq!(held.write(key, &Bytes::from_static(b"c")), Wrote::Queued);
        assert_eq!(held.write(key, &Bytes::from_static(b"d")), Wrote::Full);
        assert!(held.queued_bytes() > 0);

        let mut got = Vec::new();
        client.set_nonblocking(true).unwrap();
        loop {
            let mut chunk = [0; 65536];
            match client.read(&mut chunk) {
                Ok(count) => got.extend_from_slice(&chunk[..count]),
                Err(_) if held.flush(key) == Flush::Done && got.len() == part.len() + 2 => break,
                Err(_) => {}
            }
        }
        assert_eq!(&got[part.len()..], b"bc");
        assert_eq!(held.queued_bytes(), 0);
        assert!(!held.is_waiting(key));
    }

    #[test]
    fn all_clients_together_have_a_limit_which_what_waits_for_one_uses_up_for_others() {
        let (_, mut held) = set(QueueLimits { bytes_max: 1 << 30, total_bytes_max: 3 << 20, ..QueueLimits::default() });
        let part = Bytes::from(vec![b'a'; 1 << 20]);
        let (one, _client) = held_pair(&mut held, 1);
        let (other, _client_of_other) = held_pair(&mut held, 2);
        for key in [one, other] {
            assert_eq!(held.write(key, &part), Wrote::Queued);
        }
        let small = Bytes::from(vec![b'b'; 512 << 10]);
        while held.queued_bytes() + small.len() <= 3 << 20 {
            assert_eq!(held.write(one, &small), Wrote::Queued);
        }
        assert_eq!((held.write(one, &small), held.write(other, &small)), (Wrote::Full, Wrote::Full));
        assert_eq!(held.refused_for_all(), 2);
        held.remove(one);
        assert_eq!(held.write(other, &Bytes::from_static(b"c")), Wrote::Queued);
    }

    #[test]
    fn a_key_finds_nothing_after_its_connection_left() {
        let (_, mut held) = set(QueueLimits::default());
        let (key, _client) = held_pair(&mut held, 1);
        assert_eq!(held.get(key), Some(&1));
        assert!(held.remove(key).is_some());
        assert_eq!(held.get(key), None);
        let (next, _other) = held_pair(&mut held, 2);
        assert_ne!(key, next);
        assert_eq!(held.write(key, &Bytes::from_static(b"x")), Wrote::Failed);
        assert!(held.remove(key).is_none());
        assert_eq!(held.len(), 1);
    }

    #[test]
    fn keys_stay_unique_when_a_crowd_has_left_and_memory_was_given_back() {
        let (_, mut held) = set(QueueLimits::default());
        let old: Vec<_> = (0..200).map(|state| held.reserve(state)).collect();
        for key in &old {
            held.remove(*key);
        }
        assert!(held.is_empty());
        for state in 0..200 {
            let key = held.reserve(state);
            assert!(!old.contains(&key));
        }
    }

    #[test]
    fn a_reserved_connection_gets_what_waited_once_it_is_attached() {
        let (_, mut held) = set(QueueLimits::default());
        let key = held.reserve(0);
        assert_eq!(held.write(key, &Bytes::from_static(b"one")), Wrote::Queued);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        held.attach(key, ours.into()).unwrap();
        assert_eq!(held.flush(key), Flush::Done);
        let mut got = [0; 3];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"one");
    }

    #[test]
    fn a_deadline_that_moves_fires_once_at_its_last_value() {
        let (start, mut held) = set(QueueLimits::default());
        let key = held.reserve(0);
        held.set_deadline(key, Some(start + Duration::from_secs(10)));
        held.set_deadline(key, Some(start + Duration::from_secs(20)));
        held.set_deadline(key, Some(start + Duration::from_secs(5)));
        held.set_deadline(key, Some(start + Duration::from_secs(300)));
        let mut out = Vec::new();
        let mut fired = Vec::new();
        for second in 0..400 {
            held.expired(start + Duration::from_secs(second), &mut out);
            fired.extend(out.drain(..).map(|_| second));
        }
        assert_eq!(fired, [301]);
    }

    #[test]
    fn the_end_of_a_client_is_told() {
        let (_, mut held) = set(QueueLimits::default());
        let (key, client) = held_pair(&mut held, 0);
        drop(client);
        let mut out = Vec::new();
        while out.is_empty() || !out.iter().any(|(_, ready): &(Key, Readiness)| ready.read_closed) {
            held.poll(&mut out).unwrap();
        }
        assert!(out.iter().all(|(named, _)| *named == key));
        assert_eq!(held.read(key, &mut [0; 8]).unwrap(), 0);
    }
}
