//! Who is told what happens to channels.

use std::sync::Arc;

use crate::{ListenerCounts, Mode, Ordered};

/// Hears of subscriptions and items, channel by channel in the order in which they happen.
///
/// Every method is called under the lock of a part of the channel map, so it must only note what it heard, and must not
/// call the hub. A hub without observer does nothing for one.
pub trait Observer<P>: Send + Sync {
    /// A channel got its first subscription in this process, or has lost its last one. A lingering one counts.
    fn subscribed(&self, channel: &Arc<str>, subscribed: bool);

    /// A channel has that many listeners of a mode now. With `lingering` there are none, and the channel counts as
    /// subscribed to for a while yet.
    fn counted(&self, channel: &Arc<str>, mode: Mode, listeners: u32, lingering: bool);

    /// An item has its place and goes to the listeners that there are, be there any or none.
    fn ordered(&self, item: &Arc<Ordered<P>>, listeners: ListenerCounts);
}
