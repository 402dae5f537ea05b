//! The egress door: HTTP and WebSocket calls for programs that speak ZHTTP over ZeroMQ, a drop-in for the
//! Zurl daemon.
//!
//! [`run`] serves a [`Config`] until a signal; [`main`] is the whole program with its command line.

mod call;
mod cli;
mod conf;
mod door;
mod durable;
mod exchange;
mod http;
mod log;
mod metrics;
mod publish;
mod receive;
mod websocket;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use waft_zmq::{Kind, LocalContext, LocalOpened, LocalReceiver, LocalSender, Message, SocketOptions};

pub use self::call::Rules;
pub use self::cli::{OpenQueue, main};
pub use self::conf::{Config, ConfigError};
use self::door::Door;
pub use self::durable::{Kept, KeptCall, NotKept, Queue, Receipt};
use self::publish::Publisher;
use crate::{Client, Limits};

/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Why the door cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The address for metrics cannot be had.
    #[error("cannot listen on {address} for metrics: {error}; change metrics_listen")]
    Metrics {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// The runtime or a signal handler cannot be had.
    #[error("cannot start the runtime")]
    Runtime(#[from] std::io::Error),
    /// A socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] waft_zmq::Error),
}

/// Serves until SIGINT or SIGTERM, then tells the clients of what is still open.
///
/// Runs on the calling thread, with a runtime of its own.
pub fn run(config: Config) -> Result<(), RunError> {
    // Dropped after everything else: it waits until the last packets have left.
    let context = LocalContext::new();
    let sockets = Sockets::open(&context, &config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let queue = config.queue.clone();
    let result = local.block_on(&runtime, serve(config, sockets));
    // The tasks hold sockets, too.
    drop(local);
    if let Some(queue) = queue {
        queue.stop();
    }
    result
}

#[derive(Default)]
struct Sockets {
    first: Option<LocalOpened>,
    later: Option<LocalOpened>,
    out: Option<LocalOpened>,
    requests: Option<LocalOpened>,
}

impl Sockets {
    fn open(context: &LocalContext, config: &Config) -> Result<Self, waft_zmq::Error> {
        let open = |kind, specs: &[String]| {
            if specs.is_empty() {
                return Ok(None);
            }
            let mut options = SocketOptions::new(kind);
            options.bind = specs.to_vec();
            options.ipc_file_mode = config.ipc_file_mode;
            options.receive_hwm = config.in_hwm;
            options.send_hwm = config.out_hwm;
            options.identity = (kind == Kind::Dealer).then(|| config.instance_id.clone());
            context.open(&options).map(Some)
        };
        Ok(Self {
            first: open(Kind::Pull, &config.in_spec)?,
            later: open(Kind::Dealer, &config.in_stream_spec)?,
            out: open(Kind::Xpub, &config.out_spec)?,
            requests: open(Kind::Router, &config.in_req_spec)?,
        })
    }
}

/// What is read, and what was read but has no room yet.
struct Inbox {
    first: Option<LocalReceiver>,
    later: Option<LocalReceiver>,
    subscriptions: Option<LocalReceiver>,
    requests: Option<LocalReceiver>,
    waiting: VecDeque<(Source, Message)>,
    batch: Vec<Message>,
}

#[derive(Clone, Copy)]
enum Source {
    First,
    Later,
    Request,
    Subscription,
}

async fn serve(config: Config, sockets: Sockets) -> Result<(), RunError> {
    let mut stop = Stop { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? };
    let limits = Limits {
        connection_age_max: config.connection_max_time,
        frame_size_max: config.buffer_size,
        ..Limits::default()
    };
    let listener = match config.metrics_listen {
        Some(address) => {
            Some(tokio::net::TcpListener::bind(address).await.map_err(|error| RunError::Metrics { address, error })?)
        }
        None => None,
    };
    let split = |opened: Option<LocalOpened>| {
        opened.map_or((None, None), |opened| (Some(opened.sender), Some(opened.receiver)))
    };
    let (publish, subscriptions): (Option<LocalSender>, _) = split(sockets.out);
    let (replies, requests) = split(sockets.requests);
    let (_, first) = split(sockets.first);
    let (_, later) = split(sockets.later);
    let client = Client::new(limits, config.lookup.clone());
    let door = Rc::new(Door::new(config, client, publish.map(Publisher::new), replies));
    let mut inbox = Inbox { first, later, subscriptions, requests, waiting: VecDeque::new(), batch: Vec::new() };
    let flusher = Rc::clone(&door);
    tokio::task::spawn_local(async move {
        loop {
            flusher.flush_wanted().await;
            flusher.flush();
        }
    });
    if let Some(listener) = listener {
        tokio::task::spawn_local(metrics::serve(Rc::clone(&door), listener));
    }
    for name in &door.config.unknown {
        tracing::warn!("the option {name} is not known and has no effect");
    }
    tracing::info!("started");
    let mut swept = Instant::now();
    loop {
        let due = door.due().unwrap_or(swept + SWEEP_EVERY).min(swept + SWEEP_EVERY);
        tokio::select! {
            biased;
            () = stop.wait() => break,
            source = inbox.receive() => match source {
                Some(source) => inbox.sort(&door, source),
                None => break,
            },
            () = door.ended.notified(), if !inbox.waiting.is_empty() => {}
            () = tokio::time::sleep_until(due.into()) => {}
        }
        inbox.admit(&door);
        let now = Instant::now();
        door.sweep(now);
        if now.duration_since(swept) >= SWEEP_EVERY {
            swept = now;
            door.client.sweep(now);
        }
    }
    report(&door);
    door.close();
    door.flush();
    Ok(())
}

fn report(door: &Door) {
    let counters = &door.counters;
    tracing::info!(
        open = door.open_exchanges(),
        begun = counters.begun.get(),
        failed = counters.failed.get(),
        malformed = counters.malformed.get(),
        unknown = counters.unknown.get(),
        violations = counters.violations.get(),
        expired = counters.expired.get(),
        unheard = door.publisher.borrow().as_ref().map_or(0, Publisher::dropped),
        "stopped"
    );
}

struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl Inbox {
    /// Waits until one of the sockets has messages, which are then in `batch`.
    async fn receive(&mut self) -> Option<Source> {
        async fn next(receiver: &mut Option<LocalReceiver>, batch: &mut Vec<Message>) -> bool {
            match receiver {
                Some(receiver) => receiver.receive(batch).await,
                None => std::future::pending().await,
            }
        }
        let (mut one, mut two, mut three, mut four) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (source, open) = tokio::select! {
            biased;
            // Subscriptions first, so that a client that subscribes and asks at once hears the answer.
            open = next(&mut self.subscriptions, &mut one) => (Source::Subscription, open),
            open = next(&mut self.later, &mut two) => (Source::Later, open),
            open = next(&mut self.first, &mut three) => (Source::First, open),
            open = next(&mut self.requests, &mut four) => (Source::Request, open),
        };
        for batch in [&mut one, &mut two, &mut three, &mut four] {
            self.batch.append(batch);
        }
        open.then_some(source)
    }

    /// Does at once what needs no room, and queues the rest.
    fn sort(&mut self, door: &Rc<Door>, source: Source) {
        for message in std::mem::take(&mut self.batch) {
            match source {
                Source::Later => receive::later(door, &message),
                Source::Subscription => {
                    if let Some(publisher) = door.publisher.borrow_mut().as_mut() {
                        publisher.subscription(&message);
                    }
                    door.flush_soon();
                }
                Source::First | Source::Request => self.waiting.push_back((source, message)),
            }
        }
    }

    /// Begins exchanges while there is room. While there is none, no first packets are read, which the
    /// peers feel.
    fn admit(&mut self, door: &Rc<Door>) {
        while door.has_room() {
            match self.waiting.pop_front() {
                Some((Source::Request, message)) => receive::request(door, &message),
                Some((_, message)) => receive::first(door, &message),
                None => break,
            }
        }
        for receiver in [&self.first, &self.requests].into_iter().flatten() {
            receiver.pause(!door.has_room());
        }
    }
}
