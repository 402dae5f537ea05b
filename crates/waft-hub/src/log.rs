//! The last items of one channel.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::limits::{HubLimits, ITEM_OVERHEAD};
use crate::timers::TimerKey;
use crate::{Ordered, Position, Replay, Since};

/// The newest items of a channel, without a hole: the last one in here is the last one of the channel.
#[derive(Debug)]
pub(crate) struct Log<P> {
    items: VecDeque<Arc<Ordered<P>>>,
    bytes: usize,
    /// The deadline at which the oldest item is looked at.
    pub(crate) timer: Option<TimerKey>,
}

impl<P> Log<P> {
    pub(crate) const fn new() -> Self {
        Self { items: VecDeque::new(), bytes: 0, timer: None }
    }

    pub(crate) fn push(&mut self, item: Arc<Ordered<P>>) {
        self.bytes += cost(&item);
        self.items.push_back(item);
    }

    pub(crate) fn pop(&mut self) {
        if let Some(item) = self.items.pop_front() {
            self.bytes -= cost(&item);
        }
        if self.items.capacity() > 64 && self.items.len() < self.items.capacity() / 4 {
            self.items.shrink_to(self.items.len() * 2);
        }
    }

    pub(crate) fn is_over(&self, limits: &HubLimits) -> bool {
        self.items.len() > limits.log_items_max || self.bytes > limits.log_bytes_max
    }

    /// When the oldest item has its full age.
    pub(crate) fn due(&self, limits: &HubLimits) -> Option<Instant> {
        self.items.front().map(|item| item.received + limits.log_age_max)
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The newest item with this id.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Ordered<P>>> {
        self.items.iter().rev().find(|item| item.id.as_deref() == Some(id)).map(Arc::clone)
    }

    /// What a reader missed that stands at `since`, when the channel stands at `end`.
    pub(crate) fn replay(log: Option<&Self>, end: Position, since: Since<'_>) -> Replay<P> {
        let kept = log.map_or(0, |log| log.items.len());
        let missed = match since {
            Since::Position(position) if position.epoch == end.epoch => match end.number.checked_sub(position.number) {
                Some(missed) => missed,
                None => return Replay::Unknown,
            },
            // A run of the process that is over: how much was published since then cannot be known.
            Since::Position(_) => u64::MAX,
            Since::Id(id) => {
                let newer = log.and_then(|log| log.items.iter().rev().position(|item| item.id.as_deref() == Some(id)));
                match newer {
                    Some(newer) => newer as u64,
                    None if kept == 0 => return Replay::Unknown,
                    None => u64::MAX,
                }
            }
        };
        let newest = |count: usize| -> Vec<_> {
            log.map(|log| log.items.iter().skip(kept - count).cloned().collect()).unwrap_or_default()
        };
        match usize::try_from(missed) {
            Ok(missed) if missed <= kept => Replay::Items(newest(missed)),
            _ => {
                let available = newest(kept);
                let oldest = available.first().map_or(end, |item| item.position);
                Replay::Gap { available, oldest }
            }
        }
    }
}

fn cost<P>(item: &Ordered<P>) -> usize {
    item.size.saturating_add(ITEM_OVERHEAD)
}
