//! The thread that runs libzmq.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use rustix::event::EventfdFlags;

use crate::queue::{Message, Queues, lock};
use crate::socket::{self, Error, Opened, SocketOptions};

/// Messages read from one socket before the others get their turn.
pub(crate) const BATCH_MAX: usize = 256;

/// Frames in one message. ZHTTP needs three, deep ROUTER chains a few more.
const FRAMES_MAX: usize = 32;

/// Frames up to this size are copied, larger ones keep libzmq's memory: the bookkeeping costs more than
/// the copy below it.
const COPIED_SIZE_MAX: usize = 2_048;

/// A thread with its own libzmq context. Dropping it closes its sockets.
pub struct Engine {
    context: zmq::Context,
    adopted: Arc<Mutex<Vec<Owned>>>,
    wake: Arc<Wake>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread, under a name that shows in process listings.
    pub fn start(name: &str) -> Result<Self, Error> {
        let wake = Arc::new(Wake::new()?);
        let adopted = Arc::new(Mutex::new(Vec::new()));
        let loop_state = Loop { adopted: Arc::clone(&adopted), sockets: Vec::new(), wake: Arc::clone(&wake) };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || loop_state.run())?;
        Ok(Self { context: zmq::Context::new(), adopted, wake, thread: Some(thread) })
    }

    /// Opens a socket. Binding happens at once, so that an endpoint in use is an error here.
    pub fn open(&self, options: &SocketOptions) -> Result<Opened, Error> {
        self.adopt(options, None)
    }

    /// Opens a socket whose messages go to `handler`, on the engine's own thread, instead of into the queue of
    /// the receiver: that saves a switch of threads where they only have to be sorted. The receiver still owns
    /// the socket, and [`Receiver::pause`](crate::Receiver::pause) resumes one whose handler wanted no more.
    pub fn open_handled(&self, options: &SocketOptions, handler: Box<dyn Handler>) -> Result<Opened, Error> {
        self.adopt(options, Some(handler))
    }

    fn adopt(&self, options: &SocketOptions, handler: Option<Box<dyn Handler>>) -> Result<Opened, Error> {
        let (socket, endpoints) = socket::open(&self.context, options)?;
        let (queues, opened) = socket::opened(Queues::new(options.queue_max, Arc::clone(&self.wake)), endpoints);
        let fd = socket.get_fd()?;
        let can_receive = options.kind.can_receive();
        let owned = Owned {
            socket,
            fd,
            queues,
            handler,
            can_receive,
            closing: false,
            reading: false,
            stuck: false,
            recheck: true,
        };
        lock(&self.adopted).push(owned);
        self.wake.wake();
        Ok(opened)
    }
}

/// Takes what comes by a socket, on the thread of its [`Engine`], which all sockets share: it must be quick and must
/// not block.
pub trait Handler: Send {
    /// Messages that came, oldest first. False stops the reading of the socket until somebody resumes it.
    fn arrived(&mut self, batch: Vec<Message>) -> bool;

    /// A message that a mandatory ROUTER could not deliver, as its peer has gone.
    fn undeliverable(&mut self, message: Message);
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("wake", &self.wake).finish_non_exhaustive()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.wake.stop.store(true, Ordering::Release);
        self.wake.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("The thread for ZeroMQ had panicked.");
        }
    }
}

/// Wakes the thread from its poll.
#[derive(Debug)]
pub(crate) struct Wake {
    eventfd: OwnedFd,
    signalled: AtomicBool,
    stop: AtomicBool,
}

impl Wake {
    fn new() -> std::io::Result<Self> {
        let eventfd = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { eventfd, signalled: AtomicBool::new(false), stop: AtomicBool::new(false) })
    }

    pub(crate) fn wake(&self) {
        // A write that fails means that the counter is at its top, which wakes as well.
        if !self.signalled.swap(true, Ordering::AcqRel) {
            rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes()).ok();
        }
    }

    /// Called by the thread when its poll says that the descriptor is readable, and never behind
    /// [`Self::begin_turn`] without a poll in between: whoever wakes then has seen the signal gone and written
    /// anew, and emptying the descriptor after that would leave a signal that nobody is woken by.
    fn empty(&self) {
        rustix::io::read(&self.eventfd, &mut [0_u8; 8]).ok();
    }

    /// Called by the thread before it looks into the queues: what is put there later wakes it again.
    fn begin_turn(&self) {
        self.signalled.swap(false, Ordering::AcqRel);
    }
}

struct Owned {
    socket: zmq::Socket,
    /// Readable when libzmq has something to do for the socket.
    fd: RawFd,
    queues: Arc<Queues>,
    handler: Option<Box<dyn Handler>>,
    can_receive: bool,
    /// Its owner has closed it.
    closing: bool,
    /// The last turn read from it.
    reading: bool,
    /// The last send would have blocked.
    stuck: bool,
    /// Its descriptor may have been emptied by a call that looked for something else.
    recheck: bool,
}

impl std::fmt::Debug for Owned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owned").field("queues", &self.queues).finish_non_exhaustive()
    }
}

struct Loop {
    adopted: Arc<Mutex<Vec<Owned>>>,
    sockets: Vec<Owned>,
    wake: Arc<Wake>,
}

impl Loop {
    fn run(mut self) {
        while !self.wake.stop.load(Ordering::Acquire) {
            self.wake.begin_turn();
            self.sockets.append(&mut lock(&self.adopted));
            for owned in &mut self.sockets {
                // Looked at before the flush, so that what was queued before the closing still leaves.
                owned.closing = owned.queues.closed.load(Ordering::Acquire);
                owned.flush();
            }
            self.sockets.retain(|owned| !owned.closing);
            self.sockets.iter_mut().for_each(Owned::turn);
            if let Err(error) = self.poll() {
                tracing::error!(%error, "Polling ZeroMQ sockets failed.");
                break;
            }
        }
        self.sockets.append(&mut lock(&self.adopted));
        for owned in &mut self.sockets {
            owned.flush();
            owned.queues.closed.store(true, Ordering::Release);
            owned.queues.arrived.notify_one();
        }
    }

    /// Waits for a wake-up or for one of the sockets.
    ///
    /// The descriptors are polled instead of the sockets: a poll of sockets asks each of them twice, at a
    /// system call each, where one of them alone has news.
    fn poll(&mut self) -> Result<(), zmq::Error> {
        let mut items = Vec::with_capacity(self.sockets.len() + 1);
        items.push(zmq::PollItem::from_fd(self.wake.eventfd.as_raw_fd(), zmq::POLLIN));
        items.extend(self.sockets.iter().map(|owned| zmq::PollItem::from_fd(owned.fd, zmq::POLLIN)));
        let wait = if self.sockets.iter().any(|owned| owned.recheck) { 0 } else { -1 };
        match zmq::poll(&mut items, wait) {
            Ok(_) | Err(zmq::Error::EINTR) => {}
            Err(error) => return Err(error),
        }
        if items.first().is_some_and(zmq::PollItem::is_readable) {
            self.wake.empty();
        }
        for (owned, item) in self.sockets.iter_mut().zip(items.iter().skip(1)) {
            owned.recheck |= item.is_readable();
        }
        Ok(())
    }
}

impl Owned {
    /// Does what the socket has for us, if it may have something.
    fn turn(&mut self) {
        let reading =
            self.can_receive && !self.queues.paused.load(Ordering::Acquire) && !lock(&self.queues.incoming).stalled;
        // Set in either case: what came while nothing was read is not announced again.
        let was_reading = std::mem::replace(&mut self.reading, reading);
        let resumed = reading && !was_reading;
        if !std::mem::take(&mut self.recheck) && !resumed {
            return;
        }
        if self.stuck || !reading {
            // Asking for the events also empties the descriptor.
            let writable = self.socket.get_events().is_ok_and(|events| events.contains(zmq::POLLOUT));
            if self.stuck && writable {
                self.stuck = false;
                self.recheck = true;
            }
        }
        if reading {
            self.read();
        }
    }

    fn read(&mut self) {
        let mut batch = Vec::new();
        while batch.len() < BATCH_MAX {
            match receive(&self.socket) {
                Ok(message) => batch.push(message),
                Err(_) => break,
            }
        }
        self.recheck |= batch.len() == BATCH_MAX;
        // Over-long messages were read to their end, they are dropped here.
        batch.retain(|message| message.frames.len() <= FRAMES_MAX);
        if batch.is_empty() {
            return;
        }
        if let Some(handler) = &mut self.handler {
            if !handler.arrived(batch) {
                self.queues.paused.store(true, Ordering::Release);
            }
            return;
        }
        let mut incoming = lock(&self.queues.incoming);
        incoming.messages.extend(batch);
        incoming.stalled = incoming.messages.len() >= self.queues.queue_max;
        drop(incoming);
        self.queues.arrived.notify_one();
    }

    fn flush(&mut self) {
        // A short critical section: senders must not wait for libzmq.
        let mut waiting = std::mem::take(&mut *lock(&self.queues.outgoing));
        // Sending takes in news for reading too.
        self.recheck |= !waiting.is_empty();
        while let Some(message) = waiting.pop_front() {
            match send(&self.socket, &message) {
                Ok(()) => {}
                Err(zmq::Error::EAGAIN) => {
                    waiting.push_front(message);
                    self.stuck = true;
                    break;
                }
                Err(zmq::Error::EHOSTUNREACH) if self.handler.is_some() => {
                    if let Some(handler) = &mut self.handler {
                        handler.undeliverable(message);
                    }
                }
                Err(zmq::Error::EHOSTUNREACH) => {
                    let mut undeliverable = lock(&self.queues.undeliverable);
                    if undeliverable.len() < self.queues.queue_max {
                        undeliverable.push(message);
                    }
                    drop(undeliverable);
                    self.queues.arrived.notify_one();
                }
                Err(error) => tracing::debug!(%error, "Dropped a message that its socket cannot send."),
            }
        }
        if !waiting.is_empty() {
            let mut outgoing = lock(&self.queues.outgoing);
            waiting.append(&mut outgoing);
            *outgoing = waiting;
        }
    }
}

pub(crate) fn receive(socket: &zmq::Socket) -> Result<Message, zmq::Error> {
    let mut frames = Vec::with_capacity(3);
    loop {
        let frame = socket.recv_msg(zmq::DONTWAIT)?;
        let more = frame.get_more();
        if frames.len() <= FRAMES_MAX {
            frames.push(if frame.len() <= COPIED_SIZE_MAX {
                Bytes::copy_from_slice(&frame)
            } else {
                Bytes::from_owner(Frame(frame))
            });
        }
        if !more {
            return Ok(Message { frames });
        }
    }
}

pub(crate) fn send(socket: &zmq::Socket, message: &Message) -> Result<(), zmq::Error> {
    let mut frames = message.frames.iter().peekable();
    while let Some(frame) = frames.next() {
        let more = if frames.peek().is_some() { zmq::SNDMORE } else { 0 };
        socket.send(frame.as_ref(), zmq::DONTWAIT | more)?;
    }
    Ok(())
}

struct Frame(zmq::Message);

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Kind, Receiver, SendError};

    fn bound(kind: Kind) -> SocketOptions {
        SocketOptions { bind: vec!["tcp://127.0.0.1:*".into()], ..SocketOptions::new(kind) }
    }

    fn connected(kind: Kind, to: &Opened) -> SocketOptions {
        SocketOptions { connect: to.endpoints.clone(), ..SocketOptions::new(kind) }
    }

    async fn next(receiver: &mut Receiver, count: usize) -> Vec<Message> {
        let mut batch = Vec::new();
        while batch.len() < count {
            let open = tokio::time::timeout(Duration::from_secs(20), receiver.receive(&mut batch)).await.unwrap();
            assert!(open);
        }
        batch
    }

    #[tokio::test]
    async fn messages_keep_their_order_and_their_frames() {
        let engine = Engine::start("test").unwrap();
        let mut pull = engine.open(&bound(Kind::Pull)).unwrap();
        let push = engine.open(&connected(Kind::Push, &pull)).unwrap();
        for number in 0..10_000_u32 {
            let body = vec![b'x'; usize::try_from(number % 7).unwrap() * 1_000];
            push.sender.send(Message { frames: vec![number.to_string().into(), body.into()] }).unwrap();
        }
        for (number, message) in next(&mut pull.receiver, 10_000).await.iter().enumerate() {
            assert_eq!(message.frames[0], number.to_string());
            assert_eq!(message.frames[1].len(), number % 7 * 1_000);
        }
    }

    #[tokio::test]
    async fn a_router_answers_by_identity_and_reports_peers_it_does_not_know() {
        let engine = Engine::start("test").unwrap();
        let mut router = engine.open(&SocketOptions { router_mandatory: true, ..bound(Kind::Router) }).unwrap();
        let options = SocketOptions { identity: Some("me".into()), ..connected(Kind::Dealer, &router) };
        let mut dealer = engine.open(&options).unwrap();
        dealer.sender.send(Message::single("ask")).unwrap();
        let asked = next(&mut router.receiver, 1).await;
        assert_eq!(asked, [Message { frames: vec!["me".into(), "ask".into()] }]);
        router.sender.send(asked[0].clone()).unwrap();
        assert_eq!(next(&mut dealer.receiver, 1).await, [Message::single("ask")]);

        let lost = Message { frames: vec!["stranger".into(), "x".into()] };
        router.sender.send(lost.clone()).unwrap();
        dealer.sender.send(Message::single("again")).unwrap();
        next(&mut router.receiver, 1).await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let mut undeliverable = router.receiver.take_undeliverable();
        while undeliverable.is_empty() && tokio::time::Instant::now() < deadline {
            tokio::task::yield_now().await;
            undeliverable = router.receiver.take_undeliverable();
        }
        assert_eq!(undeliverable, [lost]);
    }

    #[tokio::test]
    async fn subscriptions_are_seen_and_filter() {
        let engine = Engine::start("test").unwrap();
        let mut xpub = engine.open(&bound(Kind::Xpub)).unwrap();
        let options = SocketOptions { subscriptions: vec!["a ".into()], ..connected(Kind::Sub, &xpub) };
        let mut sub = engine.open(&options).unwrap();
        assert_eq!(next(&mut xpub.receiver, 1).await, [Message::single(&b"\x01a "[..])]);
        for text in ["b 1", "a 2", "ab 3", "a 4"] {
            xpub.sender.send(Message::single(text)).unwrap();
        }
        assert_eq!(next(&mut sub.receiver, 2).await, [Message::single("a 2"), Message::single("a 4")]);
    }

    #[tokio::test]
    async fn a_paused_socket_is_not_read_until_it_resumes() {
        let engine = Engine::start("test").unwrap();
        let mut pull = engine.open(&bound(Kind::Pull)).unwrap();
        let mut other = engine.open(&bound(Kind::Pull)).unwrap();
        pull.receiver.pause(true);
        let push = engine.open(&connected(Kind::Push, &pull)).unwrap();
        push.sender.send(Message::single("held")).unwrap();
        // A whole journey through the engine, after which the held message would have been read.
        let probe = engine.open(&connected(Kind::Push, &other)).unwrap();
        probe.sender.send(Message::single("probe")).unwrap();
        next(&mut other.receiver, 1).await;
        assert!(lock(&pull.receiver.queues.incoming).messages.is_empty());
        pull.receiver.pause(false);
        assert_eq!(next(&mut pull.receiver, 1).await, [Message::single("held")]);
    }

    #[test]
    fn no_wake_up_is_lost_however_threads_meet() {
        const ROUNDS: u64 = 50_000;
        let wake = Arc::new(Wake::new().unwrap());
        let queue = Arc::new(Mutex::new(0_u64));
        let waker = |count: u64| {
            let (wake, queue) = (Arc::clone(&wake), Arc::clone(&queue));
            std::thread::spawn(move || {
                for _ in 0..count {
                    *lock(&queue) += 1;
                    wake.wake();
                }
            })
        };
        let wakers = [waker(ROUNDS), waker(ROUNDS)];
        let mut seen = 0;
        while seen < 2 * ROUNDS {
            wake.begin_turn();
            seen += std::mem::take(&mut *lock(&queue));
            if seen == 2 * ROUNDS {
                break;
            }
            let mut items = [zmq::PollItem::from_fd(wake.eventfd.as_raw_fd(), zmq::POLLIN)];
            assert_eq!(zmq::poll(&mut items, 20_000), Ok(1), "a wake-up was lost after {seen}");
            wake.empty();
        }
        for waker in wakers {
            waker.join().unwrap();
        }
    }

    #[tokio::test]
    async fn a_queue_that_was_full_is_filled_again() {
        let engine = Engine::start("test").unwrap();
        let mut pull = engine.open(&SocketOptions { queue_max: 4, ..bound(Kind::Pull) }).unwrap();
        let push = engine.open(&connected(Kind::Push, &pull)).unwrap();
        for round in 0..20_u32 {
            for number in 0..1_000 {
                push.sender.send(Message::single((round * 1_000 + number).to_string())).unwrap();
            }
            let stalled = async {
                while !lock(&pull.receiver.queues.incoming).stalled {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), stalled).await.unwrap();
            next(&mut pull.receiver, 1_000).await;
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_loses_nothing_it_took() {
        let engine = Engine::start("test").unwrap();
        let options = SocketOptions { queue_max: 4, send_hwm: 1, ..bound(Kind::Push) };
        let push = engine.open(&options).unwrap();
        let mut taken = Vec::new();
        // Nobody is connected, so everything stays in the queue.
        for number in 0..10_u32 {
            if push.sender.send(Message::single(number.to_string())).is_ok() {
                taken.push(Message::single(number.to_string()));
            }
        }
        assert_eq!(push.sender.send(Message::single("x")), Err(SendError::Full));
        let mut pull = engine.open(&connected(Kind::Pull, &push)).unwrap();
        assert_eq!(next(&mut pull.receiver, taken.len()).await, taken);
    }

    #[test]
    fn an_endpoint_in_use_is_an_error_at_once() {
        let engine = Engine::start("test").unwrap();
        let first = engine.open(&bound(Kind::Pull)).unwrap();
        let options = SocketOptions { bind: first.endpoints, ..SocketOptions::new(Kind::Pull) };
        assert!(matches!(engine.open(&options), Err(Error::Bind { .. })));
        let options = SocketOptions { connect: vec!["nonsense".into()], ..SocketOptions::new(Kind::Pull) };
        assert!(matches!(engine.open(&options), Err(Error::Connect { .. })));
    }

    #[tokio::test]
    async fn the_end_of_the_engine_is_seen_by_both_sides() {
        let engine = Engine::start("test").unwrap();
        let mut pull = engine.open(&bound(Kind::Pull)).unwrap();
        drop(engine);
        assert!(!pull.receiver.receive(&mut Vec::new()).await);
        assert_eq!(pull.sender.send(Message::default()), Err(SendError::Closed));
    }
}
