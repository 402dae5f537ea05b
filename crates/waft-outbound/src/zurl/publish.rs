//! Answers on the XPUB socket. A packet for an address that nobody subscribes to yet waits for a second:
//! the client may still be connecting.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant};

use bytes::Bytes;
use waft_zmq::{LocalSender, Message};

/// How long a packet waits for its subscriber.
const WAIT: Duration = Duration::from_secs(1);

/// Packets that wait in all; the oldest give way.
const WAITING_MAX: usize = 65_536;

/// Bytes of packets that wait in all; the oldest give way.
const WAITING_SIZE_MAX: usize = 67_108_864;

#[derive(Debug)]
pub(crate) struct Publisher {
    sender: LocalSender,
    subscriptions: BTreeSet<Bytes>,
    waiting: VecDeque<Waiting>,
    waiting_size: usize,
    dropped: u64,
}

#[derive(Debug)]
struct Waiting {
    until: Instant,
    address: Bytes,
    frame: Bytes,
}

impl Publisher {
    pub(crate) fn new(sender: LocalSender) -> Self {
        Self { sender, subscriptions: BTreeSet::new(), waiting: VecDeque::new(), waiting_size: 0, dropped: 0 }
    }

    /// Publishes a frame that begins with the address and a blank; it leaves with the next flush.
    pub(crate) fn publish(&mut self, now: Instant, address: &Bytes, frame: Bytes) {
        if self.is_subscribed(&frame) {
            return self.send(frame);
        }
        self.waiting_size += frame.len();
        self.waiting.push_back(Waiting { until: now + WAIT, address: address.clone(), frame });
        while self.waiting.len() > WAITING_MAX || self.waiting_size > WAITING_SIZE_MAX {
            self.drop_oldest();
        }
    }

    /// Lets what was published leave.
    pub(crate) fn flush(&self) {
        self.sender.flush();
    }

    /// Takes a message of the XPUB socket: a byte 1 or 0 and the prefix.
    pub(crate) fn subscription(&mut self, message: &Message) {
        let Some(frame) = message.frames.first() else { return };
        match frame.first() {
            Some(1) => {
                let prefix = frame.slice(1..);
                let waiting = std::mem::take(&mut self.waiting);
                self.waiting_size = 0;
                for packet in waiting {
                    if packet.frame.starts_with(&prefix) {
                        self.send(packet.frame);
                    } else {
                        self.waiting_size += packet.frame.len();
                        self.waiting.push_back(packet);
                    }
                }
                self.subscriptions.insert(prefix);
            }
            Some(0) => {
                self.subscriptions.remove(frame.get(1..).unwrap_or_default());
            }
            _ => {}
        }
    }

    /// Drops what has waited long enough.
    pub(crate) fn sweep(&mut self, now: Instant) {
        while self.waiting.front().is_some_and(|packet| packet.until <= now) {
            self.drop_oldest();
        }
    }

    /// When [`Publisher::sweep`] has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|packet| packet.until)
    }

    /// Packets that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn is_subscribed(&self, frame: &[u8]) -> bool {
        // The prefixes of a text sort before it; those with the same beginning stand right before it.
        let mut at = frame;
        loop {
            let Some(below) = self.subscriptions.range::<[u8], _>((Bound::Unbounded, Bound::Included(at))).next_back()
            else {
                return false;
            };
            if frame.starts_with(below) {
                return true;
            }
            // Nothing between the common beginning and `below` can be a prefix of the frame.
            let common = below.iter().zip(frame).take_while(|(a, b)| a == b).count();
            at = frame.get(..common).unwrap_or_default();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(packet) = self.waiting.pop_front() {
            self.waiting_size -= packet.frame.len();
            self.dropped += 1;
            tracing::debug!(address = %packet.address.escape_ascii(), "Dropped a packet that nobody subscribes to.");
        }
    }

    fn send(&mut self, frame: Bytes) {
        if let Err(error) = self.sender.queue(Message::single(frame)) {
            self.dropped += 1;
            tracing::warn!(%error, "Dropped a packet.");
        }
    }
}

#[cfg(test)]
mod tests {
    use waft_zmq::{Kind, LocalContext, SocketOptions};

    use super::*;

    fn subscription(prefix: &str) -> Message {
        Message::single([&[1], prefix.as_bytes()].concat())
    }

    #[test]
    fn packets_wait_for_their_subscriber_and_no_longer_than_a_second() {
        let context = LocalContext::new();
        let socket = context.open(&SocketOptions::new(Kind::Xpub)).unwrap();
        let mut publisher = Publisher::new(socket.sender);
        let now = Instant::now();
        publisher.publish(now, &"a".into(), "a 1".into());
        publisher.publish(now, &"b".into(), "b 1".into());
        assert_eq!((publisher.waiting.len(), publisher.waiting_size), (2, 6));
        publisher.subscription(&subscription("a "));
        assert_eq!((publisher.waiting.len(), publisher.waiting_size), (1, 3));
        publisher.publish(now, &"a".into(), "a 2".into());
        assert_eq!(publisher.due(), Some(now + WAIT));
        publisher.sweep(now + WAIT);
        assert_eq!((publisher.waiting.len(), publisher.waiting_size, publisher.dropped()), (0, 0, 1));
        publisher.subscription(&Message::single(&b"\0a "[..]));
        publisher.publish(now, &"a".into(), "a 3".into());
        assert_eq!(publisher.waiting.len(), 1);
    }

    #[test]
    fn any_prefix_is_a_subscription() {
        let context = LocalContext::new();
        let socket = context.open(&SocketOptions::new(Kind::Xpub)).unwrap();
        let mut publisher = Publisher::new(socket.sender);
        for prefix in ["a", "abc ", "abd ", "b T1", "bb"] {
            publisher.subscription(&subscription(prefix));
        }
        for (frame, expected) in
            [("abcd T", true), ("b T12:x", true), ("b T2:x", false), ("c T", false), ("", false), ("ba T", false)]
        {
            assert_eq!(publisher.is_subscribed(frame.as_bytes()), expected, "{frame}");
        }
        publisher.subscription(&subscription(""));
        assert!(publisher.is_subscribed(b"c T"));
    }
}
