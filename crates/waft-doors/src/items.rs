//! Items that come in by PULL and SUB.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{debug, warn};
use waft_gateway::Gateway;
use waft_grip::item::{Item, PacketError, parse_channel_packet, parse_packet};
use waft_zmq::{Message, Opened, Receiver, SendError};

use crate::watch::Watch;

/// Items published before other doors get their turn.
const AT_ONCE: usize = 1_024;

/// Publishes what arrives at the PULL socket, one frame an item, for as long as the engine lives.
pub(crate) async fn pull(mut receiver: Receiver, gateway: Arc<Gateway>) {
    let mut batch = Vec::new();
    let mut publisher = Publisher { gateway, complaints: Complaints::default() };
    while receiver.receive(&mut batch).await {
        publisher.wait_for_room().await;
        publisher.publish_all(&mut batch, |frames| match frames {
            [frame] => Ok(parse_packet(frame)?),
            _ => Err(Malformed::Frames { expected: 1, seen: frames.len() }),
        });
        tokio::task::yield_now().await;
    }
}

/// Publishes what arrives at the SUB socket, two frames an item, and subscribes it to exactly the channels that have
/// listeners.
pub(crate) async fn subscribe(opened: Opened, watch: Arc<Watch>, gateway: Arc<Gateway>) {
    /// Between two tries, when the queue towards the socket is full.
    const PAUSE: Duration = Duration::from_millis(10);
    let Opened { sender, mut receiver, .. } = opened;
    let mut publisher = Publisher { gateway, complaints: Complaints::default() };
    let (mut batch, mut changes) = (Vec::new(), Vec::new());
    let mut wanted: VecDeque<Message> = VecDeque::new();
    loop {
        tokio::select! {
            open = receiver.receive(&mut batch) => {
                if !open {
                    return;
                }
                publisher.wait_for_room().await;
                publisher.publish_all(&mut batch, |frames| match frames {
                    [channel, frame] => Ok(parse_channel_packet(channel, frame)?),
                    _ => Err(Malformed::Frames { expected: 2, seen: frames.len() }),
                });
                tokio::task::yield_now().await;
            }
            () = watch.subscriptions(&mut changes) => {
                wanted.extend(changes.drain(..).map(|(channel, subscribed)| subscription(&channel, subscribed)));
            }
            () = tokio::time::sleep(PAUSE), if !wanted.is_empty() => {}
        }
        while let Some(message) = wanted.pop_front() {
            match sender.send(message.clone()) {
                Ok(()) => {}
                Err(SendError::Full) => {
                    wanted.push_front(message);
                    break;
                }
                Err(_closed) => return,
            }
        }
    }
}

/// What tells publishers that a channel is wanted, or no longer.
fn subscription(channel: &str, subscribed: bool) -> Message {
    Message::single(Bytes::from([&[u8::from(subscribed)], channel.as_bytes()].concat()))
}

/// Why a message is no item.
#[derive(Debug, thiserror::Error)]
enum Malformed {
    #[error("it has {seen} frames and not {expected}")]
    Frames { expected: usize, seen: usize },
    #[error(transparent)]
    Packet(#[from] PacketError),
}

struct Publisher {
    gateway: Arc<Gateway>,
    complaints: Complaints,
}

impl Publisher {
    /// Waits while too much waits for its delivery. Meanwhile the queue of the socket fills and holds publishers back.
    async fn wait_for_room(&self) {
        /// Between two looks.
        const PAUSE: Duration = Duration::from_millis(5);
        if self.gateway.is_overloaded() {
            self.gateway.publish_metrics().overloads.add(1);
            while self.gateway.is_overloaded() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Publishes the items of a batch. Messages that are none are counted and left out.
    fn publish_all(&mut self, batch: &mut Vec<Message>, read: impl Fn(&[Bytes]) -> Result<Item, Malformed>) {
        let mut now = Instant::now();
        for (number, message) in batch.drain(..).enumerate() {
            if number % AT_ONCE == AT_ONCE - 1 {
                now = Instant::now();
            }
            match read(&message.frames) {
                Ok(item) => {
                    self.gateway.publish(now, item);
                }
                Err(error) => {
                    self.gateway.publish_metrics().malformed.add(1);
                    self.complaints.say(now, &error);
                }
            }
        }
    }
}

/// Warnings of malformed messages: one a second at the most, so that a broken publisher does not fill the log.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// Between two warnings.
    const PAUSE: Duration = Duration::from_secs(1);

    fn say(&mut self, now: Instant, error: &Malformed) {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < Self::PAUSE) {
            self.unsaid += 1;
            return debug!(%error, "Skipped a message that is no item.");
        }
        let before = std::mem::take(&mut self.unsaid);
        self.last = Some(now);
        warn!(%error, before, "Skipped a message that is no item; the publisher has to be corrected.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_told_as_publishers_read_them() {
        assert_eq!(subscription("room", true), Message::single("\u{1}room"));
        assert_eq!(subscription("room", false), Message::single("\0room"));
    }

    #[test]
    fn a_broken_publisher_is_warned_of_once_a_second() {
        let mut complaints = Complaints::default();
        let error = Malformed::Frames { expected: 1, seen: 2 };
        let now = Instant::now();
        for millis in [0, 1, 999] {
            complaints.say(now + Duration::from_millis(millis), &error);
        }
        assert_eq!(complaints.unsaid, 2);
        complaints.say(now + Duration::from_millis(1_001), &error);
        assert_eq!(complaints.unsaid, 0);
    }
}
