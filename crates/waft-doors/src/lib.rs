//! The ZeroMQ doors of the control side (GRIP section 11.6): items come in by PULL and SUB sockets, commands by a ROUTER
//! that REQ and DEALER sockets talk to, and statistics go out by PUB.
//!
//! What it deliberately lacks: rules about channels (the hub has them) and the shape of items (`waft-grip` has it).
//!
//! Start with [`Doors`]: it is made before the gateway, which it has to observe, and opened after it. Without an address no
//! socket is made, no thread runs, and the gateway is told to observe and record nothing.
//!
//! ```
//! use std::sync::Arc;
//! use waft_doors::{Doors, DoorsConfig};
//! # use waft_gateway::{Answer, Gateway, Request, Service, Settings};
//! # #[derive(Debug)] struct Nothing;
//! # impl Service for Nothing {
//! #     fn answer(&self, _: &Gateway, _: &Request<'_>) -> Answer { Answer::text(404, "") }
//! #     fn body_max(&self) -> usize { 0 }
//! # }
//! # let (limits, settings, demo) = (Default::default(), Settings::default(), Arc::new(Nothing));
//! let config = DoorsConfig { pull: Some("tcp://127.0.0.1:*".into()), ..DoorsConfig::default() };
//! let doors = Doors::new(config);
//! let gateway = Arc::new(doors.observe(Gateway::new(1, 7, limits, settings, demo)));
//! let open = doors.open(&gateway).unwrap().unwrap();
//! assert_eq!(open.endpoints().len(), 1);
//! ```

mod census;
mod command;
mod config;
mod items;
mod mongrel2;
mod packet;
mod stats;
mod watch;

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;
use tracing::{error, info};
use waft_gateway::Gateway;
use waft_zmq::{Engine, Keepalive, Kind, Opened, SocketOptions};

use crate::command::Commands;
pub use crate::config::{DoorsConfig, Error, StatsConfig, StatsFormat};
pub use crate::mongrel2::ControlPort;
use crate::stats::Stats;
use crate::watch::Watch;

/// Messages that libzmq holds for each publisher before it waits, as publishers know it.
const PULL_HWM: i32 = 101_000;
/// Statistics that libzmq holds for each slow subscriber before it drops.
const STATS_HWM: i32 = 200_000;
/// How a publisher that waft connected to is looked after.
const KEEPALIVE: Keepalive = Keepalive { idle_s: 30, interval_s: 5, probes: 6 };

/// The doors before they are opened.
#[derive(Debug)]
pub struct Doors {
    config: DoorsConfig,
    watch: Option<Arc<Watch>>,
}

/// The doors while they are open. Dropping this closes them.
#[derive(Debug)]
pub struct OpenDoors {
    endpoints: Vec<String>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Doors {
    /// Doors with these addresses.
    pub fn new(config: DoorsConfig) -> Self {
        let watch = Watch::new(!config.sub.is_empty(), config.stats.is_some()).map(Arc::new);
        Self { config, watch }
    }

    /// Lets these doors hear of what they have to tell others: nothing, if they have no address.
    #[must_use]
    pub fn observe(&self, mut gateway: Gateway) -> Gateway {
        if let Some(watch) = &self.watch {
            gateway = gateway.observed_by(Arc::clone(watch) as _);
        }
        // Commands name single connections, so these have to be known.
        if self.config.stats.is_some() || self.config.command.is_some() {
            gateway = gateway.recording(self.config.stats_config.block_size);
        }
        gateway
    }

    /// Opens the doors of a gateway that they observe, on a thread of their own; none if they have no address.
    ///
    /// # Errors
    /// [`Error`], when an address cannot be used.
    pub fn open(self, gateway: &Arc<Gateway>) -> Result<Option<OpenDoors>, Error> {
        if self.config.is_empty() {
            return Ok(None);
        }
        let engine = Engine::start("zmq")?;
        let sockets = Sockets::open(&engine, &self.config)?;
        let mut endpoints = Vec::new();
        for (what, opened) in sockets.named() {
            for endpoint in &opened.endpoints {
                info!(address = endpoint, what, "Listening with ZeroMQ.");
            }
            endpoints.extend(opened.endpoints.iter().cloned());
        }
        let (stop, stopped) = oneshot::channel();
        let gateway = Arc::clone(gateway);
        let thread = std::thread::Builder::new().name("zmq-doors".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
                Ok(runtime) => runtime,
                Err(error) => return error!(%error, "The ZeroMQ doors cannot run; restart the process."),
            };
            let local = tokio::task::LocalSet::new();
            let stats = sockets.serve(&local, &gateway, self);
            // Either the owner says so, or it has gone.
            let _why = runtime.block_on(local.run_until(stopped));
            if let Some(stats) = stats {
                stats.borrow_mut().look(Instant::now());
            }
            drop(local);
            drop(engine);
        });
        Ok(Some(OpenDoors { endpoints, stop: Some(stop), thread: Some(thread.map_err(Error::Thread)?) }))
    }
}

impl OpenDoors {
    /// The addresses that were bound, with the ports that were chosen.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }
}

impl Drop for OpenDoors {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("The thread of the ZeroMQ doors had panicked.");
        }
    }
}

/// Makes the directory of an ipc socket, as a directory for what lives only as long as a process often is not there yet.
fn make_room(address: &str) -> Result<(), Error> {
    let directory = address.strip_prefix("ipc://").and_then(|path| Path::new(path).parent());
    match directory.filter(|directory| !directory.as_os_str().is_empty()) {
        Some(directory) => std::fs::create_dir_all(directory)
            .map_err(|source| Error::Directory { directory: directory.to_owned(), source }),
        None => Ok(()),
    }
}

/// An error with its causes, in one line.
fn error_chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The sockets behind the doors.
struct Sockets {
    pull: Option<Opened>,
    sub: Option<Opened>,
    command: Option<Opened>,
    stats: Option<Opened>,
    mongrel2: Option<Opened>,
}

impl Sockets {
    fn open(engine: &Engine, config: &DoorsConfig) -> Result<Self, Error> {
        let open = |address: &String, options: SocketOptions| -> Result<Opened, Error> {
            let ipc_file_mode = config.ipc_file_mode;
            make_room(address)?;
            Ok(engine.open(&SocketOptions { bind: vec![address.clone()], ipc_file_mode, ..options })?)
        };
        let pull = SocketOptions { receive_hwm: PULL_HWM, ..SocketOptions::new(Kind::Pull) };
        let router = SocketOptions { router_handover: true, ..SocketOptions::new(Kind::Router) };
        let stats = SocketOptions { send_hwm: STATS_HWM, queue_max: 200_000, ..SocketOptions::new(Kind::Pub) };
        Ok(Self {
            pull: config.pull.as_ref().map(|address| open(address, pull)).transpose()?,
            sub: Self::open_sub(engine, config)?,
            command: config.command.as_ref().map(|address| open(address, router)).transpose()?,
            stats: config.stats.as_ref().map(|address| open(address, stats)).transpose()?,
            mongrel2: config.mongrel2.as_ref().and_then(|port| {
                // As in Mongrel2, a server can do without it, and most of its configurations do not name it.
                let opened = open(&port.address, SocketOptions::new(Kind::Rep));
                opened
                    .inspect_err(|error| {
                        error!(address = port.address, error = error_chain(error), "There is no control port.")
                    })
                    .ok()
            }),
        })
    }

    /// An XSUB rather than a SUB: it takes subscriptions as messages, at any time. A publisher that connects late is sent
    /// all of them at once, which a high-water mark would cut short.
    fn open_sub(engine: &Engine, config: &DoorsConfig) -> Result<Option<Opened>, Error> {
        let Some(first) = config.sub.first() else { return Ok(None) };
        let options = SocketOptions { receive_hwm: PULL_HWM, send_hwm: 0, ..SocketOptions::new(Kind::Xsub) };
        let options = if config.sub_connect {
            SocketOptions { connect: config.sub.clone(), keepalive: Some(KEEPALIVE), ..options }
        } else {
            make_room(first)?;
            SocketOptions { bind: vec![first.clone()], ipc_file_mode: config.ipc_file_mode, ..options }
        };
        Ok(Some(engine.open(&options)?))
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, &Opened)> {
        [
            ("items", &self.pull),
            ("subscriptions", &self.sub),
            ("commands", &self.command),
            ("statistics", &self.stats),
            ("mongrel2 control", &self.mongrel2),
        ]
        .into_iter()
        .filter_map(|(what, opened)| Some((what, opened.as_ref()?)))
    }

    /// Starts a task for each socket. The statistics are returned for a last look.
    fn serve(self, local: &tokio::task::LocalSet, gateway: &Arc<Gateway>, doors: Doors) -> Option<Rc<RefCell<Stats>>> {
        let Doors { config, watch } = doors;
        if let Some(opened) = self.pull {
            local.spawn_local(items::pull(opened.receiver, Arc::clone(gateway)));
        }
        if let (Some(opened), Some(watch)) = (self.sub, &watch) {
            local.spawn_local(items::subscribe(opened, Arc::clone(watch), Arc::clone(gateway)));
        }
        if let (Some(opened), Some(port)) = (self.mongrel2, &config.mongrel2) {
            local.spawn_local(mongrel2::run(opened, port.clone(), Arc::clone(gateway)));
        }
        let recorder = gateway.recorder()?;
        let stats = Stats::shared(&config.stats_config, self.stats, Arc::clone(recorder), watch, Arc::clone(gateway));
        local.spawn_local(stats::run(Rc::clone(&stats)));
        if let Some(opened) = self.command {
            local.spawn_local(command::run(opened, Commands::new(Arc::clone(gateway), Rc::clone(&stats), &config)));
        }
        Some(stats)
    }
}
