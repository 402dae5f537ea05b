//! Configuration: files, environment and flags read into one validated plan.

mod mistake;
mod native;
mod plan;
mod reference;
mod route;
mod section;
mod settings;
mod suggest;
mod value;

pub use mistake::{Mistake, Mistakes};
pub use native::{ReadFile, Sources, load};
pub use plan::Plan;
pub use reference::{print_defaults, to_toml};
pub use route::{Defaults, HeaderLine, HeaderMatch, QueryMatch, RouteEntry, TargetEntry};
pub use settings::{Control, Forward, Grip, Limits, Log, Logging, Metrics, Server, SockJs, Stats, WebSocket, Zmq};
pub use value::{
    ByteSize, Duration, ForwardedFor, ForwardedProto, JsonPForm, Level, Listen, LogFormat, NotAValue, OctalMode, OrOff,
    PingMode, RequestKind, SlowReader, StatsFormat,
};
