//! Which request goes where: conditions, targets, the table that picks one, and the grammar of
//! Pushpin's routes file.
//!
//! What it deliberately lacks: files, sockets and keys. It reads text, keeps keys as the text that
//! was written, and never connects to a target.
//!
//! Start with [`Route`], one rule with its targets, and [`Table`], which finds the route of a
//! request without allocating.
//!
//! ```
//! use waft_route::{pushpin, Proto, RequestFacts, Table};
//!
//! let (routes, problems) = pushpin::parse_routes("* test\nexample.com,path_beg=/a localhost:8000\n", "routes");
//! assert!(problems.is_empty());
//! let (table, problems) = Table::new(routes);
//! assert!(problems.is_empty());
//!
//! let facts = RequestFacts { host: Some("Example.com:7999"), path: "/api", ..RequestFacts::default() };
//! let route = table.find(&facts).unwrap();
//! assert_eq!(route.targets[0].address.to_string(), "localhost:8000");
//! assert!(table.find(&RequestFacts { path: "/", ..facts }).is_none(), "a listed host never falls back to `*`");
//! ```

mod condition;
mod problem;
pub mod pushpin;
mod route;
mod table;
mod target;

pub use condition::{Condition, HostPattern, NamedValue, Proto};
pub use problem::{Problem, Severity, Source};
pub use route::{
    GapNotice, JsonP, JsonPMode, Route, RouteOptions, SlowClient, SockJs, Timeouts, WebSocketOptions, is_listed_origin,
};
pub use table::{Headers, NoHeaders, RequestFacts, Table};
pub use target::{Directory, Handler, Target, TargetAddress, TargetAddressError};
