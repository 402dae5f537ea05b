//! Statistics for subscribers of the PUB socket.

use std::cell::RefCell;
use std::collections::HashMap;
use std::process;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tracing::warn;
use waft_gateway::{Flow, Gateway, Payload, Recorder, Traffic, TrafficByRoute, Visit, VisitEvent, VisitKind};
use waft_hub::Mode;
use waft_zmq::{Message, Opened};

use crate::census::{Census, News, Presence};
use crate::config::StatsConfig;
use crate::packet::Packet;
use crate::watch::{Count, Heard, Watch};

/// Between two looks at what was recorded: what happens within that is told together.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two looks for what is to be told again.
const TICKS_A_SECOND: u32 = 10;

/// Everything the statistics are made of. Used by the tasks of one thread.
#[derive(Debug)]
pub(crate) struct Stats {
    config: StatsConfig,
    from: String,
    /// Without it nothing is told, but it is known who is there.
    socket: Option<Opened>,
    recorder: Arc<Recorder>,
    watch: Option<Arc<Watch>>,
    gateway: Arc<Gateway>,
    census: Census,
    subscriptions: HashMap<(Arc<str>, Mode), Told>,
    /// Since the last report.
    traffic: TrafficByRoute,
    /// Requests since they were last told, by route.
    requests: HashMap<Option<Arc<str>>, u64>,
    published: u64,
    /// The same of blocks.
    blocks_published: u64,
    reported: Instant,
    /// Routes that the last report was about.
    told_routes: Vec<Option<Arc<str>>>,
    lost: u64,
}

/// A subscription that was told of.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// As it is now.
    listeners: u32,
    /// As it was told.
    told: u32,
    tell: Instant,
}

/// Tells of what happens, for as long as the doors are open.
pub(crate) async fn run(stats: Rc<RefCell<Stats>>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticks = 0_u32;
    loop {
        interval.tick().await;
        let now = Instant::now();
        let mut stats = stats.borrow_mut();
        stats.look(now);
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(TICKS_A_SECOND) {
            stats.tell_again(now);
        }
        stats.report_if_due(now);
    }
}

impl Stats {
    pub(crate) fn shared(
        config: &StatsConfig,
        socket: Option<Opened>,
        recorder: Arc<Recorder>,
        watch: Option<Arc<Watch>>,
        gateway: Arc<Gateway>,
    ) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            config: config.clone(),
            // The name by which collectors know who sends statistics of this kind.
            from: format!("pushpin-handler_{}", process::id()),
            socket,
            recorder,
            watch,
            gateway,
            census: Census::default(),
            subscriptions: HashMap::new(),
            traffic: TrafficByRoute::new(),
            requests: HashMap::new(),
            published: 0,
            blocks_published: 0,
            reported: Instant::now(),
            told_routes: Vec::new(),
            lost: 0,
        }))
    }

    /// The visit of this name, if it is there at this moment.
    pub(crate) fn find(&mut self, now: Instant, id: &str) -> Option<&Arc<Visit>> {
        self.take_in(now);
        self.census.find(id)
    }

    /// Takes in what was recorded and tells of it.
    pub(crate) fn look(&mut self, now: Instant) {
        self.take_in(now);
        let Some(watch) = self.watch.clone() else { return };
        // Subscriptions come first: they were there before the items.
        for ((channel, mode), count) in watch.take_counts() {
            self.subscribed(now, channel, mode, count);
        }
        let (items, untold) = watch.take_items();
        self.lost += untold;
        for item in &items {
            self.tell_item(item);
        }
        self.tell_requests();
    }

    fn take_in(&mut self, now: Instant) {
        let (mut events, mut traffic): (Vec<VisitEvent>, _) = (Vec::new(), TrafficByRoute::new());
        self.recorder.take(&mut events, &mut traffic);
        for (route, counted) in traffic {
            *self.requests.entry(route.clone()).or_default() += counted.requests;
            self.traffic.entry(route).or_default().add(&counted);
        }
        let mut news = Vec::new();
        let repeat = repeat(self.config.connection_ttl);
        for event in events {
            self.census.take_in(now, event, repeat, &mut news);
        }
        self.tell_news(&news);
    }

    fn tell_news(&mut self, news: &[News]) {
        if !self.config.connection_send {
            return;
        }
        for news in news {
            let packet = match news {
                News::Present(visit) => self.present(visit),
                News::Gone(visit) => Packet::new("conn", &self.from)
                    .with_some("route", visit.route.as_deref())
                    .with("id", &*visit.id)
                    .with("unavailable", true),
            };
            let frame = packet.write(self.config.format);
            self.send(frame);
        }
    }

    fn present<'a>(&'a self, visit: &'a Visit) -> Packet<'a> {
        let kind = match visit.kind {
            VisitKind::Http => "http",
            VisitKind::Ws => "ws",
        };
        Packet::new("conn", &self.from)
            .with_some("route", visit.route.as_deref())
            .with("id", &*visit.id)
            .with("type", kind)
            .with_some("peer-address", visit.peer.map(|peer| peer.to_string()))
            .with_some("ssl", visit.secure.then_some(true))
            .with("ttl", self.config.connection_ttl.as_secs())
    }

    /// The listeners of a channel have changed.
    fn subscribed(&mut self, now: Instant, channel: Arc<str>, mode: Mode, count: Count) {
        let tell = now + repeat(self.config.subscription_ttl);
        if count.listeners == 0 && !count.lingering {
            if self.subscriptions.remove(&(Arc::clone(&channel), mode)).is_some() {
                let packet = Packet::new("sub", &self.from)
                    .with("mode", mode_name(mode))
                    .with("channel", &*channel)
                    .with("unavailable", true);
                self.send(packet.write(self.config.format));
            }
            return;
        }
        let listeners = count.listeners;
        let known = self.subscriptions.get_mut(&(Arc::clone(&channel), mode));
        if let Some(known) = known {
            // How many there are is told within a second, where it ends.
            known.listeners = listeners;
            return;
        }
        self.tell_subscription(&channel, mode, listeners);
        self.subscriptions.insert((channel, mode), Told { listeners, told: listeners, tell });
    }

    fn tell_subscription(&mut self, channel: &str, mode: Mode, listeners: u32) {
        let packet = Packet::new("sub", &self.from)
            .with("mode", mode_name(mode))
            .with("channel", channel)
            .with("ttl", self.config.subscription_ttl.as_secs())
            .with("subscribers", u64::from(listeners));
        self.send(packet.write(self.config.format));
    }

    /// Tells of the receivers of an item, format by format.
    fn tell_item(&mut self, (item, listeners): &Heard) {
        let formats = &item.payload.formats;
        let blocks = |of: fn(&Payload, u64) -> u64| self.config.block_size.map(|block| of(&item.payload, block));
        let transports = [
            ("http-response", formats.http_response.is_some(), listeners.response, blocks(Payload::response_blocks)),
            ("http-stream", formats.http_stream.is_some(), listeners.stream, blocks(Payload::stream_blocks)),
            ("ws-message", formats.ws_message.is_some(), listeners.ws, blocks(Payload::ws_blocks)),
        ];
        for (transport, _, count, blocks) in
            transports.into_iter().filter(|(_, present, count, _)| *present && *count > 0)
        {
            let packet = Packet::new("message", &self.from)
                .with("channel", &*item.channel)
                .with_some("item-id", item.id.as_deref())
                .with("count", u64::from(count))
                .with_some("blocks", blocks.map(|blocks| blocks * u64::from(count)))
                .with("transport", transport);
            self.send(packet.write(self.config.format));
        }
    }

    fn tell_requests(&mut self) {
        let mut sum = 0;
        let mut activity = std::mem::take(&mut self.requests);
        sum += activity.values().sum::<u64>();
        for (route, presence) in &mut self.census.routes {
            let minutes = std::mem::take(&mut presence.ws_minutes);
            if minutes > 0 {
                *activity.entry(route.clone()).or_default() += minutes;
            }
        }
        for (route, count) in activity.into_iter().filter(|(_, count)| *count > 0) {
            let packet = Packet::new("activity", &self.from).with_some("route", route.as_deref()).with("count", count);
            self.send(packet.write(self.config.format));
        }
        if sum > 0 && self.config.report_interval.is_some() {
            let packet = Packet::new("counts", &self.from).with("requests-received", sum);
            self.send(packet.write(self.config.format));
        }
    }

    /// Tells again of what would otherwise count as gone, and of subscriptions that have another number of listeners.
    fn tell_again(&mut self, now: Instant) {
        let mut news = Vec::new();
        self.census.tick(now, repeat(self.config.connection_ttl), &mut news);
        self.tell_news(&news);
        let next = now + repeat(self.config.subscription_ttl);
        let mut due = Vec::new();
        for ((channel, mode), told) in &mut self.subscriptions {
            // A long-poll that was answered is expected back: that there are none for a moment is no news.
            let changed = told.listeners != told.told && told.listeners > 0;
            if changed || told.tell <= now {
                told.told = told.listeners;
                told.tell = next;
                due.push((Arc::clone(channel), *mode, told.listeners));
            }
        }
        for (channel, mode, listeners) in due {
            self.tell_subscription(&channel, mode, listeners);
        }
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            warn!(lost, "Some statistics were not sent: there was more to tell than the socket takes.");
        }
    }

    fn report_if_due(&mut self, now: Instant) {
        let Some(interval) = self.config.report_interval else {
            self.traffic.clear();
            return;
        };
        let duration = now.saturating_duration_since(self.reported);
        if duration >= interval {
            self.reported = now;
            self.report(duration);
        }
    }

    /// Reports on every route that did something, or had done so before the last report.
    fn report(&mut self, duration: Duration) {
        let published = self.gateway.publish_metrics().items.value();
        let received = published.wrapping_sub(std::mem::replace(&mut self.published, published));
        let blocks = self.recorder.blocks_received();
        let blocks_received = blocks.wrapping_sub(std::mem::replace(&mut self.blocks_published, blocks));
        let in_blocks = self.config.block_size.is_some();
        let traffic = std::mem::take(&mut self.traffic);
        let mut routes: Vec<_> = traffic.keys().chain(self.census.routes.keys()).cloned().collect();
        if received > 0 {
            routes.push(None);
        }
        routes.append(&mut self.told_routes);
        routes.sort_unstable();
        routes.dedup();
        for route in routes {
            let presence = self.census.routes.get(&route).copied().unwrap_or_default();
            let counted = traffic.get(&route).copied().unwrap_or_default();
            let (received, blocks_received) = if route.is_none() { (received, blocks_received) } else { (0, 0) };
            let idle = presence == Presence::default() && counted == Traffic::default() && received == 0;
            let packet = Packet::new("report", &self.from)
                .with_some("route", route.as_deref())
                .with("connections", presence.peak)
                .with("minutes", presence.minutes)
                .with("received", received)
                .with("sent", counted.deliveries)
                .with("http-response-sent", counted.polls_answered)
                .with_some("blocks-received", in_blocks.then_some(blocks_received))
                .with_some("blocks-sent", in_blocks.then_some(counted.blocks))
                .with("duration", u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
            let frame = with_flows(packet, &counted).write(self.config.format);
            self.send(frame);
            if idle {
                self.census.routes.remove(&route);
            } else {
                self.told_routes.push(route);
            }
        }
        for presence in self.census.routes.values_mut() {
            presence.peak = presence.now;
            presence.minutes = 0;
        }
    }

    fn send(&mut self, frame: bytes::Bytes) {
        if let Some(socket) = &self.socket
            && socket.sender.send(Message::single(frame)).is_err()
        {
            self.lost += 1;
        }
    }
}

/// Adds the twelve counters of what went to and fro.
fn with_flows<'a>(packet: Packet<'a>, traffic: &Traffic) -> Packet<'a> {
    const NAMES: [[&str; 3]; 4] = [
        ["client-header-bytes-received", "client-content-bytes-received", "client-messages-received"],
        ["client-header-bytes-sent", "client-content-bytes-sent", "client-messages-sent"],
        ["server-header-bytes-received", "server-content-bytes-received", "server-messages-received"],
        ["server-header-bytes-sent", "server-content-bytes-sent", "server-messages-sent"],
    ];
    let flows = [traffic.client_received, traffic.client_sent, traffic.target_received, traffic.target_sent];
    NAMES.into_iter().zip(flows).fold(packet, |packet, ([header, content, messages], flow)| {
        let Flow { header_bytes, content_bytes, messages: count } = flow;
        packet.with(header, header_bytes).with(content, content_bytes).with(messages, count)
    })
}

/// After how much of its time to live something is told again.
fn repeat(ttl: Duration) -> Duration {
    ttl.mul_f64(0.75)
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Response => "response",
        Mode::Stream => "stream",
        Mode::Ws => "ws",
    }
}
