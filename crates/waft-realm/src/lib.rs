//! Realms: tenants that share one process, each with its keys, its channels, its rules and its limits.
//!
//! What it deliberately lacks: channels themselves (the hub has them), connections, clocks and files. Times are
//! arguments, Unix seconds for tokens and instants for rates.
//!
//! Start with [`Realm`], which says who may do what, and [`Grant`], which is what a client's token says.
//! [`Pattern`] names channels by rule, and [`Rate`] is a bucket of what may be done in a time. [`Roster`] has who is in
//! the channels, and [`Occupancy`] which channels have listeners; both say what has to be told, and
//! [`ChannelKind`] which channels tell it.
//!
//! ```
//! use waft_realm::{Operation, Pattern, Realm, Rule};
//!
//! let mut realm = Realm::new("demo");
//! realm.rules.push(Rule {
//!     channels: vec![Pattern::parse("news/**")],
//!     operations: vec![Operation::Read],
//!     everyone: true,
//! });
//! assert!(realm.may(Operation::Read, "news/eu", None));
//! assert!(!realm.may(Operation::Publish, "news/eu", None));
//! ```

mod grant;
mod key;
mod lifecycle;
mod pattern;
mod presence;
mod publisher;
mod rate;
mod realm;
mod reserved;

pub use grant::{Grant, GrantError};
pub use key::{Key, KeyError, keys_of_set};
pub use lifecycle::{Lifecycle, Occupancy, Reason, Visitor};
pub use pattern::Pattern;
pub use presence::{Change, EnterError, Event, Lease, Roster, member_json, member_name};
pub use publisher::Verdict;
pub use rate::Rate;
pub use realm::{Limits, Operation, Realm, Rule, Tells, channel_prefix, is_channel, is_realm_name};
pub use reserved::{ChannelKind, LIFECYCLE_CHANNEL, presence_channel};
