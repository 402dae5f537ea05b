//! Threads that each do all the work of their own connections, and how they are told of things.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::sync::Notify;

/// Messages for one shard, from any thread, handed over in batches and in order.
#[derive(Debug)]
pub struct Mailbox<M> {
    messages: Mutex<Vec<M>>,
    /// What the messages in the box weigh, as their senders say.
    weight: AtomicUsize,
    /// Whether the receiver has been woken for what is in the box.
    signalled: AtomicBool,
    wake: Notify,
}

impl<M> Default for Mailbox<M> {
    fn default() -> Self {
        Self {
            messages: Mutex::new(Vec::new()),
            weight: AtomicUsize::new(0),
            signalled: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }
}

impl<M> Mailbox<M> {
    /// What the messages weigh that nobody has taken yet.
    pub fn weight(&self) -> usize {
        self.weight.load(Ordering::Relaxed)
    }

    /// Puts a message into the box. The receiver is woken once for all messages it has not seen.
    pub fn send(&self, message: M) {
        self.send_heavy(message, 0);
    }

    /// The same for a message that weighs something, whatever the unit: see [`Mailbox::weight`].
    pub fn send_heavy(&self, message: M, weight: usize) {
        {
            let mut messages = self.lock();
            messages.push(message);
            // Changed only under the lock, as what is in the box is.
            self.weight.store(self.weight.load(Ordering::Relaxed).saturating_add(weight), Ordering::Relaxed);
        }
        if !self.signalled.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Waits until there are messages and moves them to the end of `into`.
    pub async fn receive(&self, into: &mut Vec<M>) {
        loop {
            self.signalled.store(false, Ordering::Release);
            self.try_receive(into);
            if !into.is_empty() {
                return;
            }
            self.wake.notified().await;
        }
    }

    /// Moves what is in the box now to the end of `into`, without waiting.
    pub fn try_receive(&self, into: &mut Vec<M>) {
        let mut messages = self.lock();
        self.weight.store(0, Ordering::Relaxed);
        into.append(&mut messages);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<M>> {
        // A thread that panicked while it held the lock left a whole vector behind.
        self.messages.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A running shard thread.
#[derive(Debug)]
pub struct Shard {
    thread: JoinHandle<()>,
}

impl Shard {
    /// Waits for the shard to end.
    ///
    /// # Errors
    /// When the shard ended by a panic.
    pub fn join(self) -> Result<(), ShardPanicked> {
        self.thread.join().map_err(|_payload| ShardPanicked)
    }
}

/// A shard ended by a panic; its connections are closed.
#[derive(Debug, thiserror::Error)]
#[error("a shard ended by a panic, its connections are closed; please report the log lines before this one")]
pub struct ShardPanicked;

/// Starts `count` threads, each with a current-thread runtime on which it runs the future that
/// `body` makes for its number.
///
/// # Errors
/// The system's, when a thread or its runtime cannot be made.
pub fn spawn_shards<F, Fut>(count: usize, body: F) -> io::Result<Vec<Shard>>
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()>,
{
    let mut shards = Vec::with_capacity(count);
    for number in 0..count {
        let body = body.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, body(number));
        })?;
        shards.push(Shard { thread });
    }
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_box_weighs_what_nobody_has_taken() {
        let mailbox = Mailbox::default();
        mailbox.send('a');
        mailbox.send_heavy('b', 5);
        mailbox.send_heavy('c', 7);
        assert_eq!(mailbox.weight(), 12);
        let mut got = Vec::new();
        mailbox.try_receive(&mut got);
        assert_eq!((got, mailbox.weight()), (vec!['a', 'b', 'c'], 0));
    }

    #[test]
    fn messages_arrive_in_order_from_another_thread() {
        let mailbox = Arc::new(Mailbox::default());
        let sender = Arc::clone(&mailbox);
        let thread = thread::spawn(move || (0..10_000).for_each(|number| sender.send(number)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let got = runtime.block_on(async {
            let mut got = Vec::new();
            while got.len() < 10_000 {
                let mut batch = Vec::new();
                mailbox.receive(&mut batch).await;
                got.append(&mut batch);
            }
            got
        });
        thread.join().unwrap();
        assert_eq!(got, (0..10_000).collect::<Vec<_>>());
    }
}
