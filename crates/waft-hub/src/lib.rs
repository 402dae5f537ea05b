//! Channels: order, log, positions and the plan of who gets what, without IO.
//!
//! The hub has no clock (time is an argument), no thread and no socket, and it never looks into what it delivers: the
//! payload is a type of its user. It does not know filters, formats or clients.
//!
//! Start with [`Hub`], which all shards share, and [`Listeners`], of which each shard has its own. A publish goes through
//! the hub, which removes duplicates, brings items into the order that their ids ask for, gives each its [`Position`], keeps
//! it in the channel's log and hands it to the shards that listen; each shard then walks its listeners.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Instant;
//! use waft_hub::{Hub, HubLimits, Mode, Publish};
//!
//! let hub = Hub::new(HubLimits::default(), 42);
//! let now = Instant::now();
//! hub.subscribe(now, 0, "news", Mode::Stream);
//! let item = Publish { channel: "news".into(), id: None, prev_id: None, no_seq: false, size: 2, payload: "hi" };
//! let mut inbox = Vec::new();
//! let published = hub.publish(now, item, &mut |shard, item| inbox.push((shard, Arc::clone(item))));
//! assert_eq!((published.listeners, inbox[0].0, inbox[0].1.payload), (1, 0, "hi"));
//! assert_eq!(published.position.unwrap().to_string(), "42-1");
//! ```
//!
//! # One order without a hop
//!
//! A channel's state stands in one of 256 parts of a map, each behind a mutex, and whichever shard has a publish orders it
//! itself: it takes the lock, gives the item its number, and still under the lock puts it into the inbox of every shard
//! that listens. So all shards see one order, as they would if each channel had an owner shard, but a publish on another
//! shard than the owner costs no message there and back, which is a wake-up of tens of microseconds. The lock is held for
//! about 0.15 us of work; two publishes meet at one lock only if their channels share a part just then.
//!
//! Measured in CPU time, 1,000 channels: publish with a log 0.16-0.18 us, without log or listener 0.07 us; with ids about
//! 1 us while a million ids are remembered (the table no longer fits into the caches); subscribe and unsubscribe 0.21 us
//! together; [`Hub::expire`] with nothing due 9 us. The keyed hash of the standard library takes 18 ns for a channel name,
//! a tenth of a publish, so names from outside get its safety against chosen collisions. In [`Listeners`], a walk takes
//! 0.7 ns a listener, adding 43 ns, removing 31 ns. A subscribed channel costs up to 320 bytes in the hub with its name,
//! and 80 bytes in the index of a shard.
//!
//! # Rules
//!
//! - An id seen on the channel within [`HubLimits::id_cache_ttl`] is discarded before anything else.
//! - On a subscribed channel whose last id is known, an item that names another predecessor waits, until the predecessor
//!   came or [`HubLimits::message_wait`] is over. Then it goes first of its chain, if what comes before it waits too.
//! - When the last subscription is gone (a response hold's lingers for [`HubLimits::linger`]), the last id is forgotten, and
//!   what waited goes to the log.
//! - Every item that was ordered is in the log or is known to be missing: the log has no holes, and a reader who comes back
//!   is told of a gap. A channel that has neither subscription nor log is removed, and its numbers are not used again.

mod channel;
mod chunks;
mod hub;
mod item;
mod limits;
mod listener;
mod log;
mod names;
mod observer;
mod position;
mod seen;
mod stripe;
mod timers;

pub use hub::{ChannelCounts, Hub, HubTotals, ListenerCounts, Mode, Outcome, Published, Replay, Since, Subscribed};
pub use item::{Ordered, Publish};
pub use limits::{HubLimits, ITEM_OVERHEAD};
pub use listener::{ChannelIndex, Listeners, Subscription};
pub use observer::Observer;
pub use position::{Position, PositionError};
