//! Sockets that are driven by the thread that uses them, for programs whose only work is on one thread.
//!
//! libzmq's own IO thread stays; the thread of the [`crate::Engine`] and two wake-ups for each message are saved.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::Rc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::engine::{BATCH_MAX, receive, send};
use crate::queue::{Message, SendError};
use crate::socket::{self, Error, SocketOptions};

/// Opens sockets for the current thread. It has to outlive them.
pub struct LocalContext {
    context: zmq::Context,
}

/// An open socket of this thread.
#[derive(Debug)]
pub struct LocalOpened {
    /// Towards the peers.
    pub sender: LocalSender,
    /// From the peers.
    pub receiver: LocalReceiver,
    /// The bound endpoints, with the ports that were chosen.
    pub endpoints: Vec<String>,
}

/// Sends through a socket of this thread.
#[derive(Clone, Debug)]
pub struct LocalSender {
    inner: Rc<Inner>,
}

/// Receives from a socket of this thread, inside a tokio runtime.
#[derive(Debug)]
pub struct LocalReceiver {
    /// Stands first: it is let go before the socket, and with it the descriptor, can be closed.
    ready: Option<AsyncFd<RawFd>>,
    inner: Rc<Inner>,
    paused: Cell<bool>,
    /// Nothing is there until the descriptor or a send tells of news: a look would cost a system call.
    drained: bool,
}

struct Inner {
    socket: zmq::Socket,
    outgoing: RefCell<VecDeque<Message>>,
    queue_max: usize,
    /// A send may have taken in the news that the descriptor would have told.
    poked: Notify,
}

impl LocalContext {
    /// A context with one IO thread.
    #[must_use]
    pub fn new() -> Self {
        Self { context: zmq::Context::new() }
    }

    /// Opens a socket; an endpoint in use is an error here.
    pub fn open(&self, options: &SocketOptions) -> Result<LocalOpened, Error> {
        let (socket, endpoints) = socket::open(&self.context, options)?;
        let inner = Inner { socket, outgoing: RefCell::default(), queue_max: options.queue_max, poked: Notify::new() };
        let inner = Rc::new(inner);
        let sender = LocalSender { inner: Rc::clone(&inner) };
        let receiver = LocalReceiver { ready: None, inner, paused: Cell::new(false), drained: false };
        Ok(LocalOpened { sender, receiver, endpoints })
    }
}

impl Default for LocalContext {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for LocalContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalContext").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("outgoing", &self.outgoing).finish_non_exhaustive()
    }
}

impl LocalSender {
    /// Queues a message that leaves with the next [`LocalSender::flush`].
    pub fn queue(&self, message: Message) -> Result<(), SendError> {
        let mut outgoing = self.inner.outgoing.borrow_mut();
        if outgoing.len() >= self.inner.queue_max {
            return Err(SendError::Full);
        }
        outgoing.push_back(message);
        Ok(())
    }

    /// Hands queued messages to libzmq. What it cannot take yet stays queued.
    pub fn flush(&self) {
        let mut outgoing = self.inner.outgoing.borrow_mut();
        if outgoing.is_empty() {
            return;
        }
        while let Some(message) = outgoing.front() {
            match send(&self.inner.socket, message) {
                Ok(()) => {}
                Err(zmq::Error::EAGAIN) => break,
                Err(error) => tracing::debug!(%error, "Dropped a message that its socket cannot send."),
            }
            outgoing.pop_front();
        }
        self.inner.poked.notify_one();
    }
}

impl LocalReceiver {
    /// Waits for messages and appends what is there to `batch`. False when the socket has failed. Nothing is
    /// lost when the future is dropped.
    pub async fn receive(&mut self, batch: &mut Vec<Message>) -> bool {
        if self.paused.get() {
            return std::future::pending().await;
        }
        let before = batch.len();
        loop {
            let mut left = if self.drained { 0 } else { BATCH_MAX };
            while left > 0 {
                match receive(&self.inner.socket) {
                    Ok(message) => batch.push(message),
                    Err(zmq::Error::EAGAIN) => {
                        self.drained = true;
                        break;
                    }
                    Err(error) => {
                        tracing::error!(%error, "Reading a ZeroMQ socket failed.");
                        return false;
                    }
                }
                left -= 1;
            }
            if batch.len() > before {
                return true;
            }
            // The queue was seen empty with nothing left to be taken in, so that news will show from here on.
            let Some(ready) = &self.ready else {
                match self.watch() {
                    Ok(ready) => self.ready = Some(ready),
                    Err(error) => {
                        tracing::error!(%error, "Watching a ZeroMQ socket failed.");
                        return false;
                    }
                }
                continue;
            };
            tokio::select! {
                biased;
                () = self.inner.poked.notified() => {}
                guard = ready.readable() => match guard {
                    Ok(mut guard) => guard.clear_ready(),
                    Err(_) => return false,
                }
            }
            self.drained = false;
        }
    }

    /// Stops or resumes reading, from the next [`LocalReceiver::receive`] on.
    pub fn pause(&self, paused: bool) {
        self.paused.set(paused);
    }

    #[allow(deprecated, reason = "libzmq names its descriptor by number; it stays open as long as `inner`")]
    fn watch(&self) -> Result<AsyncFd<RawFd>, std::io::Error> {
        let fd = self.inner.socket.get_fd().map_err(std::io::Error::from)?;
        AsyncFd::with_interest(fd, Interest::READABLE)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Kind;

    async fn next(receiver: &mut LocalReceiver, count: usize) -> Vec<Message> {
        let mut batch = Vec::new();
        while batch.len() < count {
            let open = tokio::time::timeout(Duration::from_secs(20), receiver.receive(&mut batch)).await.unwrap();
            assert!(open);
        }
        batch
    }

    #[tokio::test]
    async fn thousands_of_questions_are_answered_in_order() {
        let context = LocalContext::new();
        let options = SocketOptions { bind: vec!["tcp://127.0.0.1:*".into()], ..SocketOptions::new(Kind::Router) };
        let mut router = context.open(&options).unwrap();
        let options = SocketOptions { connect: router.endpoints.clone(), ..SocketOptions::new(Kind::Dealer) };
        let mut dealer = context.open(&options).unwrap();
        for round in 0..50_u32 {
            for number in 0..round {
                dealer.sender.queue(Message::single(format!("{round} {number}"))).unwrap();
            }
            dealer.sender.flush();
            for question in next(&mut router.receiver, usize::try_from(round).unwrap()).await {
                router.sender.queue(question).unwrap();
            }
            router.sender.flush();
            let expected: Vec<_> = (0..round).map(|number| Message::single(format!("{round} {number}"))).collect();
            assert_eq!(next(&mut dealer.receiver, expected.len()).await, expected);
        }
    }

    #[tokio::test]
    async fn subscriptions_are_seen_between_publications() {
        let context = LocalContext::new();
        let options = SocketOptions { bind: vec!["tcp://127.0.0.1:*".into()], ..SocketOptions::new(Kind::Xpub) };
        let mut xpub = context.open(&options).unwrap();
        for number in 0..20_u32 {
            let options = SocketOptions {
                connect: xpub.endpoints.clone(),
                subscriptions: vec![format!("{number} ").into()],
                ..SocketOptions::new(Kind::Sub)
            };
            let mut sub = context.open(&options).unwrap();
            xpub.sender.queue(Message::single("nobody")).unwrap();
            xpub.sender.flush();
            assert_eq!(next(&mut xpub.receiver, 1).await[0].frames[0][1..], *format!("{number} ").as_bytes());
            xpub.sender.queue(Message::single(format!("{number} hello"))).unwrap();
            xpub.sender.flush();
            assert_eq!(next(&mut sub.receiver, 1).await, [Message::single(format!("{number} hello"))]);
            drop(sub);
            next(&mut xpub.receiver, 1).await;
        }
    }
}
