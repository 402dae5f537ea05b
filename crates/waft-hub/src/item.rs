//! An item before and after the hub gave it its place.

use std::sync::Arc;
use std::time::Instant;

use crate::Position;

/// An item as it comes from a publish door. `P` is what the delivery needs of it; the hub never looks inside.
#[derive(Clone, Debug)]
pub struct Publish<P> {
    /// The channel, with the name that listeners subscribed to.
    pub channel: Arc<str>,
    /// The publisher's name for this item, unique in its channel.
    pub id: Option<Arc<str>>,
    /// The id of the item that comes before this one.
    pub prev_id: Option<Arc<str>>,
    /// Deliver at once, without regard to `prev_id`, and without a change of the channel's last id.
    pub no_seq: bool,
    /// Bytes of memory that the payload holds, for the limits of the log.
    pub size: usize,
    /// What is delivered.
    pub payload: P,
}

/// An item in its place in the order of its channel.
#[derive(Debug)]
pub struct Ordered<P> {
    /// The channel.
    pub channel: Arc<str>,
    /// The place of this item: numbers of one channel follow each other without a hole.
    pub position: Position,
    /// The publisher's name for this item.
    pub id: Option<Arc<str>>,
    /// The id of the item that comes before this one, according to the publisher.
    pub prev_id: Option<Arc<str>>,
    /// Bytes of memory that the payload holds.
    pub size: usize,
    /// What is delivered.
    pub payload: P,
    /// When the item was published; an item that waited for its predecessor keeps its own time.
    pub received: Instant,
}
