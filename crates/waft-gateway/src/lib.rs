//! The gateway: requests proxied to targets, held as their targets ask, and fed from channels.
//!
//! What it deliberately lacks: parsers of wire formats (the wire crates have them), rules about
//! order and logs of channels (the hub has them), and descriptors (`waft-net` has them).
//!
//! Start with [`Gateway`], what all shards share, and [`run`], which is one shard. A request's way
//! is told by the modules in this order: `client` reads it, `exchange` finds its route and asks
//! its target, `relay` sends the answer on or `begin` makes a hold of it, `hold` is the life of
//! that in the held set, `deliver` brings it what is published, and `update` asks the target again.
//! Targets that are reached by ZeroMQ have `worker` beside `pool`. WebSockets go their own way from `exchange` on,
//! which `ws` tells, and so do requests for Mongrel2's handlers, which `handler` tells; `files` answers from directories.

mod access;
mod ask;
mod begin;
mod body;
mod buffer;
mod client;
mod cors;
mod deliver;
mod dress;
mod errand;
mod exchange;
mod files;
mod forward;
mod gateway;
mod handler;
mod hold;
mod internal;
mod jsonp;
mod link;
pub mod metrics;
mod pace;
mod payload;
mod place;
mod pool;
mod realm;
mod record;
mod relay;
mod respond;
mod service;
mod settings;
mod shard;
mod sign;
mod sockjs;
mod subscribe;
mod update;
mod worker;
mod ws;

pub use access::AccessLog;
pub use gateway::Gateway;
pub use handler::{HandlerConnection, HandlersError};
pub use payload::Payload;
pub use realm::{Realms, Tenant};
pub use record::{Flow, Recorder, Traffic, TrafficByRoute, Visit, VisitEvent, VisitKind};
pub use service::{Answer, Door, Extension, Reply, Request, Service, Tap};
pub use settings::{
    Forward, ForwardedFor, HandlerSettings, Limits, NetworkFilters, Outside, Pace, SchemeHeaders, Settings,
    UploadStore, WebSocketSettings, WorkerRole, WorkerSettings,
};
pub use shard::{Entrance, run};
pub use waft_zhttp::Pace as WorkerPace;
