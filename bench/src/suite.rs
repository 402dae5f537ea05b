//! The workloads and their order: workload by workload, round by round, server after server, so that what the
//! machine does beside them meets all alike.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::holds::{Channels, Delivered, Holds, Publishing};
use crate::origin::{self, Origin};
use crate::process;
use crate::report::{Sample, Table};
use crate::requests::{self, Answered, Echoes, Polls, Requests};
use crate::server::{Kind, Server, Setting, Transport};

/// What a run covers.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Servers in order.
    pub servers: Vec<Kind>,
    /// Names of workloads; see [`WORKLOADS`].
    pub workloads: Vec<String>,
    /// Rounds of each; the tables show medians.
    pub rounds: usize,
    /// Numbers of holds.
    pub holds: Vec<usize>,
    /// Whether to do a tenth of the work, to see whether all is well.
    pub quick: bool,
}

/// All workloads.
pub const WORKLOADS: [&str; 9] =
    ["delivery", "proxy", "poll", "memory", "ws-delivery", "ws-echo", "ws-memory", "tls-delivery", "tls-memory"];

/// Runs everything and hands each table on when it is complete.
pub fn run(plan: &Plan, setting: &Setting, origin: &Origin, each: &mut dyn FnMut(&Table)) {
    let mut own = Suite {
        plan,
        setting,
        origin,
        servers: BTreeMap::new(),
        serial: 0,
        pattern: origin::pattern(),
        tables: Vec::new(),
        shown: 0,
        each,
    };
    for workload in &plan.workloads {
        match workload.as_str() {
            "delivery" => own.delivery(Transport::Stream),
            "ws-delivery" => own.delivery(Transport::Socket),
            "tls-delivery" => own.delivery(Transport::Encrypted),
            "tls-memory" => own.memory(Transport::Encrypted),
            "ws-echo" => own.echo(),
            "ws-memory" => own.memory(Transport::Socket),
            "proxy" => own.proxy(),
            "poll" => own.poll(),
            "memory" => own.memory(Transport::Stream),
            _ => {}
        }
        own.show();
    }
}

struct Suite<'a> {
    plan: &'a Plan,
    setting: &'a Setting,
    origin: &'a Origin,
    servers: BTreeMap<Kind, Server>,
    /// Makes channel names of each session new.
    serial: usize,
    pattern: Vec<u8>,
    tables: Vec<Table>,
    /// How many of them were handed on.
    shown: usize,
    each: &'a mut dyn FnMut(&Table),
}

impl Suite<'_> {
    /// Runs `work` on a server that is kept for the next workload; after a failure it is started anew.
    fn with_server<T>(
        &mut self,
        kind: Kind,
        work: impl FnOnce(&Server, &Self) -> Result<T, String>,
    ) -> Result<T, String> {
        let server = match self.servers.remove(&kind) {
            Some(server) => server,
            None => Server::start(kind, self.setting)?,
        };
        self.serial += 1;
        let outcome = work(&server, self);
        if outcome.is_ok() {
            process::settle(server.pid(), Duration::from_secs(3));
            self.servers.insert(kind, server);
        }
        outcome
    }

    fn table(&mut self, title: String, unit: &'static str, budget: Option<f64>) -> usize {
        self.tables.push(Table { title, unit, budget, rows: Vec::new() });
        self.tables.len() - 1
    }

    /// Hands the tables on that are complete.
    fn show(&mut self) {
        for table in &self.tables[self.shown..] {
            (self.each)(table);
        }
        self.shown = self.tables.len();
    }

    fn has_failed(&self, table: usize, kind: Kind) -> bool {
        self.tables[table].rows.iter().any(|row| row.kind == kind && row.failure.is_some())
    }

    fn delivery(&mut self, transport: Transport) {
        let mut sessions: Vec<(usize, Channels)> =
            self.plan.holds.iter().map(|holds| (*holds, Channels::One)).collect();
        sessions.extend(self.plan.holds.iter().filter(|holds| **holds >= 1_000).map(|holds| (*holds, Channels::Each)));
        for (holds, channels) in sessions {
            self.session(transport, holds, channels);
            self.show();
        }
    }

    /// Opens holds and publishes to them in several ways, each a table.
    fn session(&mut self, transport: Transport, holds: usize, channels: Channels) {
        let name = describe_transport(transport);
        let hold_budget = (transport == Transport::Stream && channels == Channels::One).then_some(70.0);
        let opening = self.table(
            format!("Accept, proxied instruct, {name} hold: {holds} holds, {}", describe(channels)),
            "CPU us/hold",
            hold_budget,
        );
        let ways: Vec<(usize, usize)> = match (channels, holds) {
            (Channels::One, 1_000) => vec![(64, 1), (64, 8), (4_096, 1), (4_096, 8)],
            _ => vec![(64, 1), (64, 8)],
        };
        let tables: Vec<usize> = ways
            .iter()
            .map(|(size, window)| {
                let title = match channels {
                    Channels::One => format!("Delivery: {holds} {name}s on one channel, {size} B, {window} under way"),
                    Channels::Each => {
                        format!("Publish to one of {holds} channels with a {name} each, {size} B, {window} under way")
                    }
                };
                self.table(title, "CPU us/delivery", budget(transport, holds, channels, *size, *window))
            })
            .collect();
        for _ in 0..self.plan.rounds {
            for kind in self.plan.servers.clone() {
                if !kind.holds(transport) || self.has_failed(opening, kind) || (!kind.is_single() && holds < 1_000) {
                    continue;
                }
                let mut samples = Vec::new();
                let outcome = self.with_server(kind, |server, own| {
                    let prefix = format!("s{}", own.serial);
                    let mut open = Holds::open(server, transport, holds, channels, &prefix)?;
                    samples.push((opening, opened(&open, holds, kind)));
                    for (table, &(size, window)) in tables.iter().zip(&ways) {
                        let messages = own.messages(holds, channels, window, kind);
                        open.deliver(server, Publishing { size, window, messages: (messages / 10).max(window) })?;
                        let delivered = open.deliver(server, Publishing { size, window, messages })?;
                        samples.push((*table, sample(&delivered)));
                    }
                    Ok(())
                });
                let reached = samples.len();
                for (table, sample) in samples {
                    self.tables[table].row(kind).samples.push(sample);
                }
                if let Err(reason) = outcome {
                    let failed = if reached == 0 { opening } else { tables[reached - 1] };
                    for table in [opening, failed] {
                        self.tables[table].row(kind).failure = Some(reason.clone());
                    }
                }
            }
        }
    }

    /// Messages that make a run long enough to be measured and short enough to be borne.
    fn messages(&self, holds: usize, channels: Channels, window: usize, kind: Kind) -> usize {
        let deliveries = if window > 1 { 400_000 } else { 150_000 } / if self.plan.quick { 4 } else { 1 };
        let messages = match channels {
            Channels::One => deliveries / holds,
            Channels::Each => deliveries / 10,
        };
        (messages / kind.share()).max(3 * window).max(6)
    }

    fn proxy(&mut self) {
        let works = [
            (
                "Proxied request, 100 B, 64 connections kept open",
                20.0,
                60_000,
                Requests { connections: 64, total: 0, body: 100, fresh: false },
            ),
            (
                "Proxied request, 100 B, a new connection each",
                60.0,
                12_000,
                Requests { connections: 32, total: 0, body: 100, fresh: true },
            ),
            (
                "Proxied response, 1 MB, 4 connections kept open",
                300.0,
                1_000,
                Requests { connections: 4, total: 0, body: origin::BODY_MAX, fresh: false },
            ),
        ];
        for (title, budget, total, how) in works {
            let table = self.table(title.to_owned(), "CPU us/request", Some(budget));
            for _ in 0..self.plan.rounds {
                for kind in self.plan.servers.clone() {
                    if !kind.proxies() || self.has_failed(table, kind) {
                        continue;
                    }
                    let share = if kind == Kind::Pushpin { 16 } else { 1 } * if self.plan.quick { 4 } else { 1 };
                    let how = Requests { total: total / share, ..how };
                    let outcome = self.with_server(kind, |server, own| {
                        requests::proxy(server, Requests { total: how.total / 10, ..how }, &own.pattern)?;
                        process::settle(server.pid(), Duration::from_secs(1));
                        requests::proxy(server, how, &own.pattern)
                    });
                    self.record(table, kind, outcome);
                }
            }
        }
    }

    fn poll(&mut self) {
        let table = self.table(
            "Long-poll answered and polled again: 1000 clients, 50 a channel".to_owned(),
            "CPU us/cycle",
            Some(60.0),
        );
        for _ in 0..self.plan.rounds {
            for kind in self.plan.servers.clone() {
                if !kind.holds(Transport::Stream) || self.has_failed(table, kind) {
                    continue;
                }
                let share = kind.share() * if self.plan.quick { 4 } else { 1 };
                let how = Polls { pollers: 1_000, group: 50, publishes: 800 / share };
                let outcome = self.with_server(kind, |server, own| {
                    requests::long_poll(server, how, &own.origin.answered, &format!("p{}", own.serial))
                });
                self.record(table, kind, outcome);
            }
        }
    }

    fn echo(&mut self) {
        let works = [
            ("WebSocket-over-HTTP echo, 64 B, 64 WebSockets", 50.0, "/ws"),
            ("WebSocket echo through the proxy, 64 B, 64 WebSockets", 18.0, "/direct"),
        ];
        for (title, budget, path) in works {
            let table = self.table(title.to_owned(), "CPU us/echo", Some(budget));
            for _ in 0..self.plan.rounds {
                for kind in self.plan.servers.clone() {
                    let takes_part = if path == "/ws" { kind.speaks_grip() } else { kind.proxies() };
                    if !takes_part || self.has_failed(table, kind) {
                        continue;
                    }
                    let share = kind.share() * if self.plan.quick { 4 } else { 1 };
                    let how = Echoes { connections: 64, total: 60_000 / share, path };
                    let outcome = self.with_server(kind, |server, _| requests::echo(server, how));
                    self.record(table, kind, outcome);
                }
            }
        }
    }

    fn record(&mut self, table: usize, kind: Kind, outcome: Result<Answered, String>) {
        let row = self.tables[table].row(kind);
        match outcome {
            Ok(answered) => row.samples.push(Sample {
                cost: micros(answered.cpu) / answered.requests as f64,
                rate: Some(answered.requests as f64 / answered.took.as_secs_f64()),
                each: Some((answered.latency.quantile(0.5), answered.latency.quantile(0.99))),
                last: None,
                remark: troubles(&answered),
            }),
            Err(reason) => row.failure = Some(reason),
        }
    }

    /// A fresh server each, since what was freed does not go back to the system.
    fn memory(&mut self, transport: Transport) {
        let holds = self.plan.holds.iter().copied().max().unwrap_or(1_000);
        let table = self.table(
            format!("User memory of an idle {} hold, {holds} holds", describe_transport(transport)),
            "B/hold",
            Some(if transport == Transport::Encrypted { 4_096.0 } else { 1_024.0 }),
        );
        for kind in self.plan.servers.clone() {
            if !kind.holds(transport) {
                continue;
            }
            let outcome = self.hold_memory(kind, transport, holds);
            let row = self.tables[table].row(kind);
            match outcome {
                Ok(sample) => row.samples.push(sample),
                Err(reason) => row.failure = Some(reason),
            }
        }
    }

    fn hold_memory(&mut self, kind: Kind, transport: Transport, holds: usize) -> Result<Sample, String> {
        self.servers.remove(&kind);
        let server = Server::start(kind, self.setting)?;
        drop(Holds::open(&server, transport, 50, Channels::One, "warm")?);
        process::settle(server.pid(), Duration::from_secs(3));
        let before = process::memory(server.pid());
        let open = Holds::open(&server, transport, holds, Channels::One, "memory")?;
        process::settle(server.pid(), Duration::from_secs(3));
        std::thread::sleep(Duration::from_secs(2));
        let during = process::memory(server.pid());
        drop(open);
        process::settle(server.pid(), Duration::from_secs(3));
        std::thread::sleep(Duration::from_secs(2));
        let after = process::memory(server.pid());
        let per_hold = |bytes: u64| bytes.saturating_sub(before) as f64 / holds as f64;
        Ok(Sample {
            cost: per_hold(during),
            rate: None,
            each: None,
            last: None,
            remark: format!(
                "{} KB idle; {:.0} B/hold left 2 s after all disconnected",
                before / 1_024,
                per_hold(after)
            ),
        })
    }
}

fn describe(channels: Channels) -> &'static str {
    match channels {
        Channels::One => "one channel",
        Channels::Each => "a channel each",
    }
}

fn describe_transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Encrypted => "TLS stream",
        Transport::Stream => "stream",
        Transport::Socket => "WebSocket",
    }
}

/// What a reader of a run of requests should know.
fn troubles(answered: &Answered) -> String {
    let mut remarks = Vec::new();
    if answered.refused > 0 {
        remarks.push(format!("{} requests answered with 5xx", answered.refused));
    }
    if answered.repeated > 0 {
        remarks.push(format!("{} publishes repeated", answered.repeated));
    }
    remarks.join(", ")
}

/// What waft must keep to in a delivery workload; none where none was set.
fn budget(transport: Transport, holds: usize, channels: Channels, size: usize, window: usize) -> Option<f64> {
    match (channels, holds, size, window) {
        (Channels::One, 1_000, 64, 1) if transport == Transport::Socket => Some(6.0),
        (Channels::One, 1_000, 64, 1) => Some(5.8),
        (Channels::One, 10_000, 64, 1) => Some(7.5),
        (Channels::One, 1_000, 64, 8) => Some(2.0),
        (Channels::Each, 1_000, 64, 8) => Some(18.0),
        _ => None,
    }
}

fn opened(open: &Holds, holds: usize, kind: Kind) -> Sample {
    let mut remarks = Vec::new();
    if !kind.speaks_grip() {
        remarks.push("no backend asked".to_owned());
    }
    if open.retries > 0 {
        remarks.push(format!("{} opened again", open.retries));
    }
    Sample {
        cost: micros(open.cpu) / holds as f64,
        rate: Some(holds as f64 / open.took.as_secs_f64()),
        each: Some((open.latency.quantile(0.5), open.latency.quantile(0.99))),
        last: None,
        remark: remarks.join(", "),
    }
}

fn sample(delivered: &Delivered) -> Sample {
    let mut remarks = Vec::new();
    if delivered.closed > 0 {
        remarks.push(format!("{} listeners closed by the server", delivered.closed));
    }
    if delivered.disordered > 0 {
        remarks.push(format!("{} listeners saw another order", delivered.disordered));
    }
    Sample {
        cost: micros(delivered.cpu) / delivered.deliveries as f64,
        rate: Some(delivered.deliveries as f64 / delivered.took.as_secs_f64()),
        each: Some((delivered.each.quantile(0.5), delivered.each.quantile(0.99))),
        last: Some((delivered.last.quantile(0.5), delivered.last.quantile(0.99))),
        remark: remarks.join(", "),
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
