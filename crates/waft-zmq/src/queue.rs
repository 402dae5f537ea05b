//! The queues between a socket's owner and the thread that runs libzmq.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::engine::Wake;

/// A multipart message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Message {
    /// The frames, in order.
    pub frames: Vec<Bytes>,
}

impl Message {
    /// A message of one frame.
    pub fn single(frame: impl Into<Bytes>) -> Self {
        Self { frames: vec![frame.into()] }
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The socket or its engine has gone.
    #[error("the socket is closed")]
    Closed,
    /// The queue holds as many messages as [`crate::SocketOptions::queue_max`] allows.
    #[error("the queue towards the socket is full")]
    Full,
}

/// Puts messages into a socket's queue; may be cloned and used from any thread.
#[derive(Clone, Debug)]
pub struct Sender {
    pub(crate) queues: Arc<Queues>,
}

impl Sender {
    /// Queues a message; never blocks.
    pub fn send(&self, message: Message) -> Result<(), SendError> {
        self.queue(message)?;
        self.flush();
        Ok(())
    }

    /// Queues a message that leaves after the next [`Sender::flush`] at the latest. One flush for many messages
    /// saves a switch of threads for each.
    pub fn queue(&self, message: Message) -> Result<(), SendError> {
        if self.queues.closed.load(Ordering::Acquire) {
            return Err(SendError::Closed);
        }
        {
            let mut outgoing = lock(&self.queues.outgoing);
            if outgoing.len() >= self.queues.queue_max {
                return Err(SendError::Full);
            }
            outgoing.push_back(message);
        }
        Ok(())
    }

    /// Takes a message back that has not left yet: the one whose last frame is `frame`, the same memory. False if it
    /// has left, or is about to.
    pub fn withdraw(&self, frame: &Bytes) -> bool {
        let mut outgoing = lock(&self.queues.outgoing);
        let is_it = |message: &Message| {
            message.frames.last().is_some_and(|last| last.as_ptr() == frame.as_ptr() && last.len() == frame.len())
        };
        let place = outgoing.iter().position(is_it);
        place.is_some_and(|place| outgoing.remove(place).is_some())
    }

    /// Lets queued messages leave.
    pub fn flush(&self) {
        self.queues.wake.wake();
    }
}

/// Takes messages out of a socket's queue. Dropping it closes the socket.
#[derive(Debug)]
pub struct Receiver {
    pub(crate) queues: Arc<Queues>,
}

impl Receiver {
    /// Waits for messages and appends all that are there to `batch`. False when the engine has gone.
    pub async fn receive(&mut self, batch: &mut Vec<Message>) -> bool {
        loop {
            {
                let mut incoming = lock(&self.queues.incoming);
                if !incoming.messages.is_empty() {
                    batch.extend(incoming.messages.drain(..));
                    if std::mem::take(&mut incoming.stalled) {
                        self.queues.wake.wake();
                    }
                    return true;
                }
            }
            if self.queues.closed.load(Ordering::Acquire) {
                return false;
            }
            self.queues.arrived.notified().await;
        }
    }

    /// Stops or resumes the reading of the socket; what was read already still arrives.
    pub fn pause(&self, paused: bool) {
        if self.queues.paused.swap(paused, Ordering::AcqRel) != paused {
            self.queues.wake.wake();
        }
    }

    /// Messages that a mandatory ROUTER could not deliver, as their peer has gone.
    pub fn take_undeliverable(&self) -> Vec<Message> {
        std::mem::take(&mut *lock(&self.queues.undeliverable))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.queues.closed.store(true, Ordering::Release);
        self.queues.wake.wake();
    }
}

/// What both sides share. No two of the locks are ever held at once.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) arrived: Notify,
    pub(crate) closed: AtomicBool,
    pub(crate) incoming: Mutex<Incoming>,
    pub(crate) outgoing: Mutex<VecDeque<Message>>,
    pub(crate) paused: AtomicBool,
    pub(crate) queue_max: usize,
    pub(crate) undeliverable: Mutex<Vec<Message>>,
    pub(crate) wake: Arc<Wake>,
}

#[derive(Debug, Default)]
pub(crate) struct Incoming {
    pub(crate) messages: VecDeque<Message>,
    /// The engine stopped reading as the queue was full.
    pub(crate) stalled: bool,
}

impl Queues {
    pub(crate) fn new(queue_max: usize, wake: Arc<Wake>) -> Self {
        Self {
            arrived: Notify::new(),
            closed: AtomicBool::new(false),
            incoming: Mutex::default(),
            outgoing: Mutex::default(),
            paused: AtomicBool::new(false),
            queue_max,
            undeliverable: Mutex::default(),
            wake,
        }
    }
}

/// A panic elsewhere leaves a queue whole, so poisoning is no reason to stop.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
