//! Configuration: files, environment and flags read into one validated plan.
//!
//! What it deliberately lacks: behaviour. It binds nothing, starts nothing, and reads files only
//! through the function it is given.
//!
//! Start with [`load`], which reads `waft.toml`, and [`Plan`], which is what everything is read
//! into; [`pushpin`] reads the files of Pushpin into the same plan, [`mongrel2`] a configuration of Mongrel2, and
//! [`condure`] the command line of Condure.
//!
//! ```
//! use waft_config::{Sources, load, report};
//!
//! let sources = Sources { sets: vec!["server.shards=2".to_owned()], ..Sources::default() };
//! let plan = load(&sources, &|path| std::fs::read_to_string(path)).unwrap();
//! assert_eq!(plan.server.shards, 2);
//! assert!(report(&plan).starts_with("clients: 7999\n"));
//! ```

mod check;
pub mod condure;
mod diff;
mod egress;
mod mistake;
pub mod mongrel2;
mod native;
mod plan;
pub mod pushpin;
mod realm;
mod reference;
mod route;
mod section;
mod settings;
mod suggest;
mod target;
mod value;

pub use check::{report, warnings};
pub use diff::{Change, Effect, diff};
pub use egress::EgressException;
pub use mistake::{Mistake, Mistakes};
pub use native::{ReadFile, Sources, load};
pub use plan::Plan;
pub use realm::{AccessEntry, RealmEntry};
pub use reference::{print_defaults, to_toml};
pub use route::{Defaults, HeaderLine, HeaderMatch, PathPattern, QueryMatch, RouteEntry};
pub use settings::{
    Control, Forward, Grip, Limits, Log, Logging, Metrics, Mongrel2, Outbound, Server, SockJs, Stats, WebSocket,
    WebhookApp, WebhookEndpoint, WebhookTls, Webhooks, Workers, Zmq,
};
pub use target::TargetEntry;
pub use value::{
    Allowed, Audience, ByteSize, CloseCode, Duration, ForwardedFor, ForwardedProto, JsonPForm, Level, Listen,
    LogFormat, NotAValue, OctalMode, OrOff, OutboundRules, PingMode, RequestKind, Resolver, SlowReader, StatsFormat,
    WorkerRole,
};
