//! One worker thread with everything it needs: its connections, held set, listeners and pools.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::spawn_local;
use tracing::{debug, error, warn};
use waft_hub::Listeners;
use waft_net::{Accepted, HeldSet, Key, Listener, PeerAddr, Readiness, Stream, TlsAcceptError, TlsAcceptor, Watch};

use crate::ask::Asking;
use crate::buffer::Buffers;
use crate::client::{self, Client};
use crate::deliver;
use crate::errand::{Exit, Places};
use crate::gateway::{Gateway, Message};
use crate::handler::{self, Book};
use crate::hold::{self, Hold, Member, Templates};
use crate::metrics::ShardMetrics;
use crate::pace;
use crate::pool::Pool;
use crate::realm;
use crate::record::ShardRecord;
use crate::respond;
use crate::service::{Answer, Door};
use crate::sign::Signatures;
use crate::update::{self, Updates};
use crate::worker;
use crate::ws;

/// A socket that a shard accepts connections from, and what for.
#[derive(Debug)]
pub struct Entrance {
    /// The socket.
    pub listener: Listener,
    /// What its connections are for.
    pub door: Door,
    /// Encryption, if the socket is for TLS.
    pub tls: Option<TlsAcceptor>,
}

/// Everything one shard owns. Used by the tasks of its thread alone.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) number: u16,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) metrics: Arc<ShardMetrics>,
    pub(crate) held: RefCell<HeldSet<Hold>>,
    pub(crate) listeners: RefCell<Listeners<Member>>,
    pub(crate) templates: Templates,
    pub(crate) pool: Pool,
    pub(crate) buffers: Buffers,
    pub(crate) signatures: Signatures,
    pub(crate) updates: Updates,
    pub(crate) pace: pace::Queues,
    pub(crate) ws: ws::State,
    /// The way to other places than the targets.
    pub(crate) exit: Exit,
    /// Questions of filters.
    pub(crate) asking: Asking,
    /// Turns of links.
    pub(crate) link_places: Places,
    pub(crate) realm: realm::State,
    pub(crate) calls: worker::Calls,
    /// Only in a gateway that records.
    pub(crate) record: Option<Rc<ShardRecord>>,
    /// The connections that handlers know.
    pub(crate) book: Rc<Book>,
    /// Told once a second, for whatever waits with a coarse deadline.
    pub(crate) sweep: Notify,
    /// Held connections with bytes that wait for the client.
    pub(crate) slow: RefCell<HashSet<Key>>,
    /// Told when a slow client has taken what waited.
    pub(crate) drained: Notify,
    pub(crate) connections: Rc<Connections>,
    /// When it was last told that a client speaks plain HTTP to a TLS port.
    told_plain: Cell<Option<Instant>>,
    draining: Cell<bool>,
    stop: Notify,
}

/// How many client connections a shard has.
#[derive(Debug)]
pub(crate) struct Connections {
    metrics: Arc<ShardMetrics>,
    count: Cell<usize>,
    /// The most there were since memory was last given back.
    peak: Cell<usize>,
    /// How many there were when memory was last given back.
    settled: Cell<usize>,
    /// Sweeps in which memory is still to be given back.
    to_give_back: Cell<u8>,
    changed: Notify,
}

/// Counts a connection for as long as it exists.
#[derive(Debug)]
pub(crate) struct Presence(Rc<Connections>);

impl Connections {
    /// After a crowd has left, gives its memory back; after one has come, that of its requests.
    fn give_back(&self) {
        const CROWD: usize = 256;
        const SWEEPS: u8 = 5;
        let (count, peak) = (self.count.get(), self.peak.get());
        if count > peak {
            self.peak.set(count);
        } else if peak > CROWD && count < peak / 2 {
            self.peak.set(count);
            self.settled.set(count);
            // Some of it is only let go of in the seconds that follow.
            self.to_give_back.set(SWEEPS);
        } else if count > CROWD + self.settled.get() / 4 * 5 {
            // Nobody has come since the last sweep.
            self.settled.set(count);
            self.to_give_back.set(self.to_give_back.get().max(1));
        }
        let left = self.to_give_back.get();
        if left > 0 {
            self.to_give_back.set(left - 1);
            waft_net::give_memory_back();
        }
    }
}

impl Presence {
    fn new(connections: &Rc<Connections>) -> Self {
        connections.count.set(connections.count.get() + 1);
        connections.metrics.connections.add(1);
        Self(Rc::clone(connections))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get().saturating_sub(1));
        self.0.metrics.connections.add(-1);
        self.0.changed.notify_waiters();
    }
}

/// Bytes read at once from held connections.
const SCRATCH: usize = 64 << 10;

/// Runs shard `number` until the gateway is told to stop, or has drained.
///
/// # Errors
/// The system's, when the shard cannot be set up.
pub async fn run(number: u16, gateway: Arc<Gateway>, entrances: Vec<Entrance>) -> io::Result<()> {
    let Some(metrics) = gateway.metrics().get(usize::from(number)).map(Arc::clone) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such shard"));
    };
    let mut queue = gateway.settings().limits.queue;
    // What all clients together may have waiting is shared out among the shards.
    queue.total_bytes_max = queue.total_bytes_max.div_ceil(gateway.shards().max(1));
    let held = HeldSet::new(Instant::now(), queue)?;
    let watch = held.watch()?;
    let connections = Rc::new(Connections {
        metrics: Arc::clone(&metrics),
        count: Cell::new(0),
        peak: Cell::new(0),
        settled: Cell::new(0),
        to_give_back: Cell::new(0),
        changed: Notify::new(),
    });
    let record = gateway.recorder().map(|recorder| Rc::new(ShardRecord::new(Arc::clone(recorder), number)));
    let book = Rc::new(Book::new(number, gateway.shards()));
    let shard = Rc::new(Shard {
        number,
        book,
        gateway,
        metrics,
        held: RefCell::new(held),
        listeners: RefCell::new(Listeners::default()),
        templates: Templates::default(),
        pool: Pool::default(),
        buffers: Buffers::default(),
        signatures: Signatures::default(),
        updates: Updates::default(),
        pace: pace::Queues::default(),
        ws: ws::State::default(),
        exit: Exit::default(),
        asking: Asking::default(),
        link_places: Places::default(),
        realm: realm::State::default(),
        calls: worker::Calls::default(),
        record,
        sweep: Notify::new(),
        slow: RefCell::default(),
        drained: Notify::new(),
        connections,
        told_plain: Cell::new(None),
        draining: Cell::new(false),
        stop: Notify::new(),
    });
    for entrance in entrances {
        let accepted = Accepted::new(entrance.listener)?;
        spawn_local(accept(Rc::clone(&shard), accepted, entrance.door, entrance.tls));
    }
    spawn_local(watch_held(Rc::clone(&shard), watch));
    spawn_local(keep_time(Rc::clone(&shard)));
    spawn_local(update::run(Rc::clone(&shard)));
    spawn_local(pace::run(Rc::clone(&shard)));
    // A task of its own: waking the future that the runtime itself runs costs a look at the kernel each time.
    let ended = spawn_local(read_mailbox(shard)).await;
    ended.map_err(io::Error::other)
}

impl Shard {
    /// Whether this shard accepts nothing more.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Waits for the beginning of the end. For ever, if that has been.
    pub(crate) async fn drain_begun(&self) {
        if self.is_draining() {
            return std::future::pending().await;
        }
        self.stop.notified().await;
    }

    /// Waits until this shard accepts nothing more.
    pub(crate) async fn told_to_drain(&self) {
        loop {
            let stop = self.stop.notified();
            if self.is_draining() {
                return;
            }
            stop.await;
        }
    }

    /// Writes to a client, who may pause for as long as clients may that are held.
    pub(crate) async fn write(&self, to: &Stream, parts: &[&[u8]]) -> io::Result<()> {
        let patience = self.gateway.settings().limits.write_stall_timeout;
        let written = to.write_parts_within(parts, patience).await;
        if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            self.metrics.slow_disconnects.add(1);
            debug!("A client took nothing of its response for too long and was cut off.");
        }
        written
    }

    /// Starts the task of a connection.
    pub(crate) fn serve(self: &Rc<Self>, client: Client) {
        spawn_local(client::serve(Rc::clone(self), client));
    }

    /// Counts one more connection of this shard.
    pub(crate) fn presence(&self) -> Presence {
        Presence::new(&self.connections)
    }

    pub(crate) fn may_accept(&self) -> bool {
        self.connections.count.get() < self.connections_max()
    }

    /// Client connections this shard may have.
    pub(crate) fn connections_max(&self) -> usize {
        self.share_of(self.gateway.settings().limits.connections_max)
    }

    /// This shard's share of a limit that is for all of them.
    pub(crate) fn share_of(&self, limit: usize) -> usize {
        limit.div_ceil(self.gateway.shards().max(1))
    }
}

async fn accept(shard: Rc<Shard>, accepted: Accepted, door: Door, tls: Option<TlsAcceptor>) {
    /// How long accepting pauses when the system has no descriptor left.
    const PAUSE: Duration = Duration::from_millis(100);
    let mut said_full = false;
    loop {
        // A full shard leaves new connections in the kernel's queue until one of its own ends.
        while !shard.may_accept() && !shard.is_draining() {
            if !std::mem::replace(&mut said_full, true) {
                let limit = shard.gateway.settings().limits.connections_max;
                warn!(
                    limit,
                    "No more connections are accepted until some end; raise server.client_max if there is memory and descriptors for more."
                );
            }
            shard.connections.changed.notified().await;
        }
        if shard.is_draining() {
            return;
        }
        let arrived = tokio::select! {
            biased;
            () = shard.stop.notified() => return,
            arrived = accepted.accept() => arrived,
        };
        match arrived {
            Ok((plain, peer)) => {
                said_full = false;
                shard.metrics.connections_accepted.add(1);
                let presence = shard.presence();
                let door = door.clone();
                match &tls {
                    None => shard.serve(Client::new(plain.into(), peer, door, presence)),
                    Some(acceptor) => {
                        let arrived = Arrived { stream: plain.into(), peer, door, presence };
                        spawn_local(shake_hands(Rc::clone(&shard), acceptor.clone(), arrived));
                    }
                }
            }
            Err(error) => {
                shard.metrics.connections_refused.add(1);
                if !std::mem::replace(&mut said_full, true) {
                    warn!(%error, "A connection could not be accepted; if it is for want of descriptors, raise the limit (ulimit -n) or lower server.client_max.");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// A connection before its TLS handshake.
struct Arrived {
    stream: Stream,
    peer: PeerAddr,
    door: Door,
    presence: Presence,
}

/// Performs the handshake of a connection, and serves it.
async fn shake_hands(shard: Rc<Shard>, acceptor: TlsAcceptor, arrived: Arrived) {
    let Arrived { stream, peer, door, presence } = arrived;
    let limit = shard.gateway.settings().limits.handshake_timeout;
    let accepted = tokio::time::timeout(limit, acceptor.accept(stream)).await;
    match accepted {
        Ok(Ok(stream)) => {
            shard.metrics.handshakes.add(1);
            shard.metrics.handshakes_resumed.add(u64::from(stream.is_resumed()));
            return shard.serve(Client::new(stream, peer, door, presence));
        }
        Ok(Err(TlsAcceptError::PlainHttp(stream))) => refuse_plain(&shard, &peer, stream).await,
        Ok(Err(TlsAcceptError::Failed(error))) => debug!(client = %peer, %error, "A TLS handshake failed."),
        Ok(Err(error)) => debug!(client = %peer, ?error, "A TLS handshake failed."),
        Err(_late) => debug!(client = %peer, ?limit, "A TLS handshake took too long."),
    }
    shard.metrics.handshakes_failed.add(1);
}

/// Tells a client, and whoever reads the log, that a port speaks TLS.
async fn refuse_plain(shard: &Shard, peer: &PeerAddr, stream: Stream) {
    /// How long nothing more is said about such clients.
    const SILENCE: Duration = Duration::from_secs(10);
    let now = Instant::now();
    if shard.told_plain.get().is_none_or(|told| now.saturating_duration_since(told) > SILENCE) {
        shard.told_plain.set(Some(now));
        warn!(
            client = %peer,
            "A client speaks plain HTTP to a TLS port; its address must begin with https:// or wss://, or the port must lose `?tls`."
        );
    }
    let answer = Answer::text(400, "This port speaks TLS: use https.\n");
    let out = respond::own(false, waft_http1::Version::Http11, &answer, false);
    if stream.write_all(&out).await.is_ok() {
        stream.close(client::LINGER).await;
    }
}

/// Acts on what happens to connections in the held set.
async fn watch_held(shard: Rc<Shard>, watch: Watch) {
    /// Connections looked after before other work gets its turn.
    const AT_ONCE: usize = 256;
    let mut events: Vec<(Key, Readiness)> = Vec::new();
    let mut scratch = vec![0; SCRATCH];
    loop {
        let happened = match watch.happened().await {
            Ok(happened) => happened,
            Err(error) => {
                error!(%error, "Held connections can no longer be watched; restart the process.");
                return;
            }
        };
        if let Err(error) = shard.held.borrow_mut().poll(&mut events) {
            error!(%error, "Asking for events of held connections failed.");
        }
        happened.seen();
        for (number, (key, readiness)) in events.drain(..).enumerate() {
            hold::on_ready(&shard, key, readiness, &mut scratch);
            if number % AT_ONCE == AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
        if events.capacity() > 4096 {
            events.shrink_to(1024);
        }
    }
}

/// Moves the timers on, and once a second looks after everything with a coarse deadline.
async fn keep_time(shard: Rc<Shard>) {
    const SWEEP_TICKS: u32 = 10;
    let mut due = Vec::new();
    let mut ticks = 0_u32;
    let mut counted = Instant::now();
    let mut interval = tokio::time::interval(HeldSet::<Hold>::tick_length());
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        interval.tick().await;
        let now = Instant::now();
        counted += count_open_time(&shard, now.saturating_duration_since(counted));
        shard.held.borrow_mut().expired(now, &mut due);
        for (number, key) in due.drain(..).enumerate() {
            hold::on_deadline(&shard, key, now);
            if number % 256 == 255 {
                tokio::task::yield_now().await;
            }
        }
        due.shrink_to(1024);
        if shard.number == 0 {
            shard.gateway.hub.expire(now, &mut |to, item| shard.gateway.deliver(to, item));
            shard.gateway.show_views(now);
            realm::tick(&shard.gateway, now);
        }
        ticks += 1;
        if ticks.is_multiple_of(SWEEP_TICKS) {
            sweep(&shard, now);
        }
    }
}

/// Counts the time that connections have been open; says how much of `passed` was counted, in
/// whole milliseconds, so that the rest is not lost.
fn count_open_time(shard: &Shard, passed: Duration) -> Duration {
    let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
    shard.metrics.connection_ms.add(passed_ms.saturating_mul(shard.connections.count.get() as u64));
    Duration::from_millis(passed_ms)
}

fn sweep(shard: &Rc<Shard>, now: Instant) {
    let settings = shard.gateway.settings();
    shard.sweep.notify_waiters();
    if shard.number == 0 {
        realm::sweep(shard, now);
    }
    shard.buffers.sweep();
    shard.connections.give_back();
    shard.pool.sweep(now, settings.limits.target_idle_timeout);
    shard.exit.sweep(now);
    worker::sweep(shard, now);
    if shard.number == 0 {
        shard.gateway.workers.resume();
    }
    hold::cut_off_stalled(shard, settings.limits.write_stall_timeout);
    let held = shard.held.borrow();
    shard.metrics.queue_total_full.set(held.refused_for_all());
    let queued = held.queued_bytes();
    shard.metrics.queued_bytes.set(i64::try_from(queued).unwrap_or(i64::MAX));
}

/// Takes what other shards and publishers sent, until the gateway stops.
async fn read_mailbox(shard: Rc<Shard>) {
    let shard = &shard;
    let mut messages = Vec::new();
    let mut items = Vec::new();
    loop {
        let Some(mailbox) = shard.gateway.mailboxes.get(usize::from(shard.number)) else { return };
        tokio::select! {
            biased;
            () = mailbox.receive(&mut messages) => {}
            () = drained(shard), if shard.is_draining() => return,
        }
        for message in messages.drain(..) {
            match message {
                Message::Deliver(item) => items.push(item),
                Message::Recover => update::recover_all(shard),
                Message::RefreshChannel(channel) => ws::refresh_channel(shard, &channel),
                Message::RefreshSocket(id) => ws::refresh_socket(shard, &id),
                Message::Update(channel) => update::channel(shard, &channel),
                Message::Handed(handed) => handler::hand_over(shard, &handed),
                Message::Handled(tell) => {
                    // Who asked may have gone.
                    let _told = tell.send(shard.book.connections());
                }
                Message::EndHandled(id, tell) => {
                    let _told = tell.send(shard.book.kill(id));
                }
                Message::Handlers(opened) => {
                    spawn_local(handler::run(Rc::clone(shard), opened));
                }
                Message::Bayeux(key, client) => realm::on_change(shard, key, &client),
                Message::Worker(delivery) => worker::receive(shard, *delivery),
                Message::Drain => drain(shard),
                Message::Stop => return,
            }
        }
        // All items that arrived in this turn are delivered together: one write a listener.
        if deliver::deliver(shard, &items).await > deliver::AT_ONCE {
            // What was published while a crowd was served goes to it with one more write, not with several.
            tokio::task::yield_now().await;
        }
        items.clear();
        if items.capacity() > 4096 {
            items.shrink_to(256);
            messages.shrink_to(256);
        }
    }
}

/// Stops accepting and ends every hold in the way its client expects least trouble from.
fn drain(shard: &Rc<Shard>) {
    shard.draining.set(true);
    shard.stop.notify_waiters();
    shard.connections.changed.notify_waiters();
    shard.sweep.notify_waiters();
    hold::end_all(shard);
}

/// Waits until the last connection has gone.
async fn drained(shard: &Rc<Shard>) {
    loop {
        let changed = shard.connections.changed.notified();
        if shard.connections.count.get() == 0 {
            return;
        }
        changed.await;
    }
}
