//! Channels: order, log, positions and the plan of who gets what, without IO.

mod channel;
mod chunks;
mod hub;
mod item;
mod limits;
mod listener;
mod log;
mod names;
mod position;
mod seen;
mod stripe;
mod timers;

pub use hub::{ChannelCounts, Hub, HubTotals, ListenerCounts, Mode, Outcome, Published, Replay, Since, Subscribed};
pub use item::{Ordered, Publish};
pub use limits::{HubLimits, ITEM_OVERHEAD};
pub use listener::{ChannelIndex, Listeners, Subscription};
pub use position::{Position, PositionError};
