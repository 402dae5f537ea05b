//! Starts the built program and its peers for tests, and speaks to them byte by byte.
//!
//! It lacks product logic on purpose: it shares no parser with waft, so that a mistake in waft cannot hide behind the
//! same mistake here. Everything blocks, on plain threads, and every wait has a deadline. Helpers fail by panicking,
//! because a test that cannot go on has failed.
//!
//! Start with [`Target`], a backend that does what a closure says, and [`Server`], which runs waft, or the genuine
//! Pushpin when the environment says `WAFT_TEST_SERVER=pushpin`. Pushpin is the judge: a test that holds on both is a
//! statement about the protocol and not about one program.
//!
//! ```no_run
//! use waft_testkit::{Reply, Server, Setup, Target};
//!
//! let target = Target::start(|_request| Reply::text("hello\n"));
//! let server = Server::start(Setup::to(&target));
//! let answer = server.fetch("GET /greeting HTTP/1.1\r\nHost: a\r\n\r\n");
//! assert_eq!(answer.body_text(), "hello\n");
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test helper fails by panicking, and tells why on stderr"
)]

mod connection;
mod head;
mod port;
mod process;
mod script;
mod server;
mod setup;
mod target;
mod tls;
mod wait;
mod websocket;

pub use connection::{Connection, Response};
pub use head::Head;
pub use port::free_port;
pub use process::{Process, descriptors, resident_bytes};
pub use script::{Finished, Script, chromium, node, program, python, waft, workspace_root};
pub use server::{Server, metric_sum, waft_binary};
pub use setup::Setup;
pub use target::{Arrivals, Gate, Reply, Request, Target};
pub use tls::{Authority, Certificate, TlsRelay};
pub use wait::{DEADLINE, eventually};
pub use websocket::{Frame, Opcode, WebSocket};

/// The program under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The genuine program, which tells what is right.
    Pushpin,
    /// The program of this workspace.
    Waft,
}

/// The program under test, as the environment variable `WAFT_TEST_SERVER` says: `waft` (the default) or `pushpin`.
pub fn subject() -> Subject {
    match std::env::var("WAFT_TEST_SERVER").as_deref() {
        Err(_) | Ok("" | "waft") => Subject::Waft,
        Ok("pushpin") => Subject::Pushpin,
        Ok(other) => panic!("WAFT_TEST_SERVER is '{other}'; set it to 'waft' or 'pushpin'"),
    }
}

/// What the program under test should answer where waft leaves Pushpin's way on purpose; `why` is for the reader.
pub fn differs<T>(_why: &str, pushpin: T, waft: T) -> T {
    match subject() {
        Subject::Pushpin => pushpin,
        Subject::Waft => waft,
    }
}

/// Ends the test at once when Pushpin runs in waft's place, since Pushpin cannot pass it; the text says why.
#[macro_export]
macro_rules! waft_only {
    ($why:literal) => {
        if $crate::subject() == $crate::Subject::Pushpin {
            eprintln!("not for Pushpin: {}", $why);
            return;
        }
    };
}
