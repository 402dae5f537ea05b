//! What the doors hear of channels, noted under the hub's locks and taken later.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use waft_gateway::Payload;
use waft_hub::{ListenerCounts, Mode, Observer, Ordered};
use waft_net::Mailbox;

/// Items that wait to be told of; more are not told of.
const ITEMS_MAX: usize = 200_000;

/// Listeners of one mode of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) listeners: u32,
    /// There are none, and the channel counts as subscribed to for a while yet.
    pub(crate) lingering: bool,
}

/// A published item and those that listened.
pub(crate) type Heard = (Arc<Ordered<Payload>>, ListenerCounts);

/// The counts that changed, as they are now.
pub(crate) type Counts = HashMap<(Arc<str>, Mode), Count>;

/// Hears of channels, for the doors that have to tell of them.
pub(crate) struct Watch {
    /// Channels that are subscribed to from now on, or no longer.
    subscriptions: Option<Mailbox<(Arc<str>, bool)>>,
    stats: Option<ForStats>,
}

#[derive(Default)]
struct ForStats {
    counts: Mutex<Counts>,
    items: Mutex<Vec<Heard>>,
    untold: AtomicU64,
}

impl Watch {
    /// A watch for subscriptions, for statistics, or for both; none for neither.
    pub(crate) fn new(subscriptions: bool, stats: bool) -> Option<Self> {
        (subscriptions || stats)
            .then(|| Self { subscriptions: subscriptions.then(Mailbox::default), stats: stats.then(ForStats::default) })
    }

    /// Waits for subscriptions to begin or end.
    pub(crate) async fn subscriptions(&self, into: &mut Vec<(Arc<str>, bool)>) {
        match &self.subscriptions {
            Some(mailbox) => mailbox.receive(into).await,
            None => std::future::pending().await,
        }
    }

    /// Takes the counts that changed since the last call.
    pub(crate) fn take_counts(&self) -> Counts {
        self.stats.as_ref().map(|stats| std::mem::take(&mut *lock(&stats.counts))).unwrap_or_default()
    }

    /// Takes the items that were published since the last call, and how many more there were.
    pub(crate) fn take_items(&self) -> (Vec<Heard>, u64) {
        let Some(stats) = &self.stats else { return (Vec::new(), 0) };
        (std::mem::take(&mut *lock(&stats.items)), stats.untold.swap(0, Ordering::Relaxed))
    }
}

impl Observer<Payload> for Watch {
    fn subscribed(&self, channel: &Arc<str>, subscribed: bool) {
        if let Some(mailbox) = &self.subscriptions {
            mailbox.send((Arc::clone(channel), subscribed));
        }
    }

    fn counted(&self, channel: &Arc<str>, mode: Mode, listeners: u32, lingering: bool) {
        if let Some(stats) = &self.stats {
            lock(&stats.counts).insert((Arc::clone(channel), mode), Count { listeners, lingering });
        }
    }

    fn ordered(&self, item: &Arc<Ordered<Payload>>, listeners: ListenerCounts) {
        // What nobody here listens to is no traffic.
        let Some(stats) = self.stats.as_ref().filter(|_| listeners.total() > 0) else { return };
        let mut items = lock(&stats.items);
        if items.len() < ITEMS_MAX {
            items.push((Arc::clone(item), listeners));
        } else {
            stats.untold.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// A thread that panicked left a whole collection behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
