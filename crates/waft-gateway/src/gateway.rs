//! What all shards share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use waft_grip::item::Item;
use waft_hub::{Hub, HubLimits, Observer, Ordered, Outcome, Publish, Published};
use waft_net::{Key, Mailbox};

use crate::ask::Pace;
use crate::handler::{Handed, HandlerConnection, Handlers, HandlersError, Opened};
use crate::metrics::{PublishMetrics, RealmMetrics, ShardMetrics, WorkerMetrics};
use crate::pace::Allowance;
use crate::payload::{Payload, payload_size};
use crate::realm::{BayeuxClient, Realms, Tenant, Watch};
use crate::record::Recorder;
use crate::service::{Service, Tap};
use crate::settings::Settings;
use crate::sockjs::Sessions;
use crate::worker::{Delivery, Workers};

/// What one shard is told by others.
#[derive(Debug)]
pub(crate) enum Message {
    /// An item for the listeners of this shard.
    Deliver(Arc<Ordered<Payload>>),
    /// Every held request is to be sent to its target again.
    Recover,
    /// The WebSockets of a channel are to hear from their targets now.
    RefreshChannel(Arc<str>),
    /// The WebSocket of this name is to hear from its target now.
    RefreshSocket(Arc<str>),
    /// A channel got its first listener a second ago.
    Update(Arc<str>),
    /// A response of a handler for connections of several shards.
    Handed(Arc<Handed>),
    /// What there is to be seen of the connections that handlers have heard of is wanted.
    Handled(mpsc::UnboundedSender<Vec<HandlerConnection>>),
    /// A connection that handlers have heard of is to end.
    EndHandled(u64, oneshot::Sender<bool>),
    /// A socket for the responses of a handler, to be read from now on.
    Handlers(Opened),
    /// What a Bayeux client listens to has changed, or another connection has taken its place.
    Bayeux(Key, Arc<BayeuxClient>),
    /// What came by the sockets of a ZHTTP target.
    Worker(Box<Delivery>),
    /// Accept nothing more, and end what can be ended.
    Drain,
    /// Let go of everything now.
    Stop,
}

/// The gateway: channels, settings, and a way to every shard.
#[derive(Debug)]
pub struct Gateway {
    pub(crate) hub: Hub<Payload>,
    settings: ArcSwap<Settings>,
    reloads: AtomicU64,
    pub(crate) mailboxes: Vec<Mailbox<Message>>,
    metrics: Vec<Arc<ShardMetrics>>,
    publish_metrics: PublishMetrics,
    realm_metrics: RealmMetrics,
    outbound_metrics: Arc<waft_outbound::Metrics>,
    pub(crate) filter_pace: Pace,
    pub(crate) recorder: Option<Arc<Recorder>>,
    pub(crate) allowance: Allowance,
    tap: Option<Arc<dyn Tap>>,
    pub(crate) demo: Arc<dyn Service>,
    pub(crate) sockjs: Sessions,
    pub(crate) handlers: Handlers,
    realms: Arc<Realms>,
    watch: Arc<Watch>,
    pub(crate) workers: Workers,
    draining: AtomicBool,
}

impl Gateway {
    /// A gateway of `shards` shards. `epoch` marks the positions of this run: any number that the
    /// last run did not use. `demo` answers the requests of routes with the target `demo`.
    pub fn new(shards: usize, epoch: u64, limits: HubLimits, settings: Settings, demo: Arc<dyn Service>) -> Self {
        let realms = Arc::new(Realms::default());
        let realm_list = settings.realms.clone();
        let workers = Workers::new(shards, &settings.workers.name);
        let gateway = Self {
            watch: Arc::new(Watch::new(Arc::clone(&realms))),
            realms,
            hub: Hub::new(limits, epoch),
            settings: ArcSwap::from_pointee(settings),
            reloads: AtomicU64::new(0),
            mailboxes: (0..shards).map(|_| Mailbox::default()).collect(),
            metrics: (0..shards).map(|_| Arc::default()).collect(),
            publish_metrics: PublishMetrics::default(),
            realm_metrics: RealmMetrics::default(),
            outbound_metrics: Arc::default(),
            filter_pace: Pace::default(),
            recorder: None,
            allowance: Allowance::default(),
            tap: None,
            demo,
            sockjs: Sessions::default(),
            handlers: Handlers::default(),
            workers,
            draining: AtomicBool::new(false),
        };
        gateway.set_realms(&realm_list);
        gateway
    }

    /// The same gateway, with someone who hears what happens to its channels.
    #[must_use]
    pub fn observed_by(self, observer: Arc<dyn Observer<Payload>>) -> Self {
        self.watch.pass_on_to(observer);
        self.hub.observe(Arc::clone(&self.watch) as _);
        self
    }

    /// The same gateway, with someone who hears what is published to some of its channels.
    #[must_use]
    pub fn tapped_by(mut self, tap: Arc<dyn Tap>) -> Self {
        self.tap = Some(tap);
        self
    }

    /// The same gateway, recording its visits and the traffic of its routes, which [`Gateway::recorder`] has to be rid
    /// of. With `block_size` in bytes, items are counted in blocks too.
    #[must_use]
    pub fn recording(mut self, block_size: Option<u64>) -> Self {
        self.recorder = Some(Arc::new(Recorder::new(self.shards(), block_size)));
        self
    }

    /// What was recorded, if anything is.
    pub fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.recorder.as_ref()
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.mailboxes.len()
    }

    /// The settings now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Opens the sockets of all of Mongrel2's handlers that these settings name and that are not open yet: to be called
    /// before the settings are used. Sockets that are named no more stay open as long as the gateway.
    ///
    /// # Errors
    /// [`HandlersError`], when an address cannot be used.
    pub fn open_handlers(&self, settings: &Settings) -> Result<(), HandlersError> {
        for (number, opened) in self.handlers.open(settings)?.into_iter().enumerate() {
            self.send((number % self.shards().max(1)) as u16, Message::Handlers(opened));
        }
        Ok(())
    }

    /// The connections that handlers have heard of, of all shards.
    pub async fn handler_connections(&self) -> Vec<HandlerConnection> {
        let (tell, mut told) = mpsc::unbounded_channel();
        for mailbox in &self.mailboxes {
            mailbox.send(Message::Handled(tell.clone()));
        }
        // A shard that has ended lets go of what it was sent.
        drop(tell);
        let mut all = Vec::new();
        while let Some(some) = told.recv().await {
            all.extend(some);
        }
        all.sort_unstable_by_key(|connection: &HandlerConnection| connection.id);
        all
    }

    /// Ends a connection that handlers have heard of, without a notice to them. False if there is none of this id.
    pub async fn end_handler_connection(&self, id: u64) -> bool {
        let Some(number) = id.checked_sub(1).map(|number| number % self.shards().max(1) as u64) else { return false };
        let (tell, told) = oneshot::channel();
        self.send(number as u16, Message::EndHandled(id, tell));
        told.await.unwrap_or(false)
    }

    /// Puts other settings in the place of those that were. What began under the old ones ends
    /// under them; no held connection is touched.
    pub fn reload(&self, settings: Settings) {
        self.set_realms(&settings.realms);
        self.settings.store(Arc::new(settings));
        self.renew();
    }

    /// Lets certificates that targets are shown be read again. What is connected stays so.
    pub fn renew(&self) {
        self.reloads.fetch_add(1, Ordering::Release);
    }

    /// How often certificates were to be read again.
    pub(crate) fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Acquire)
    }

    /// Opens the ZeroMQ sockets that `settings` need for ZHTTP workers: before the first request, and before a reload
    /// of these settings. Those that they do not need close when their last exchange has ended.
    ///
    /// # Errors
    /// An endpoint that cannot be bound or connected to.
    pub fn open_workers(self: &Arc<Self>, settings: &Settings) -> Result<(), waft_zmq::Error> {
        self.workers.open(self, settings)
    }

    /// What came by the sockets of ZHTTP workers.
    pub fn worker_metrics(&self) -> &WorkerMetrics {
        &self.workers.metrics
    }

    /// The counters of each shard.
    pub fn metrics(&self) -> &[Arc<ShardMetrics>] {
        &self.metrics
    }

    /// What came of the items that were published.
    pub fn publish_metrics(&self) -> &PublishMetrics {
        &self.publish_metrics
    }

    /// What happened to the members of channels, and what was told of the life of realms.
    pub fn realm_metrics(&self) -> &RealmMetrics {
        &self.realm_metrics
    }

    /// What calls to other places than the targets are counted by.
    pub fn outbound_metrics(&self) -> &Arc<waft_outbound::Metrics> {
        &self.outbound_metrics
    }

    /// The channels.
    pub fn hub(&self) -> &Hub<Payload> {
        &self.hub
    }

    /// Publishes an item: gives it its place in the order of its channel and hands it to the
    /// shards that have listeners. The delivery itself happens a moment later, on those shards.
    pub fn publish(&self, now: Instant, item: Item) -> Published {
        let size = payload_size(&item);
        let tap = self.tap.as_ref().filter(|tap| tap.wants(&item.channel)).map(|tap| (tap, item.clone()));
        let publish = Publish {
            channel: item.channel.as_str().into(),
            id: item.id.as_deref().map(Into::into),
            prev_id: item.prev_id.as_deref().map(Into::into),
            no_seq: item.no_seq,
            size,
            payload: Payload::new(item),
        };
        if let Some(recorder) = &self.recorder {
            recorder.received(&publish.payload);
        }
        let published = self.hub.publish(now, publish, &mut |shard, item| self.deliver(shard, item));
        self.publish_metrics.count(size, published.outcome);
        if let Some((tap, item)) = tap
            && matches!(published.outcome, Outcome::Delivered | Outcome::Parked)
        {
            tap.published(item);
        }
        self.show_views(now);
        published
    }

    /// Whether so much waits for its delivery that publishers should wait, too. Who does not ask is not stopped.
    pub fn is_overloaded(&self) -> bool {
        let limit = self.settings.load().limits.undelivered_bytes_max;
        self.mailboxes.iter().any(|mailbox| mailbox.weight() > limit)
    }

    /// Puts these realms in the place of those that were.
    fn set_realms(&self, realms: &[waft_realm::Realm]) {
        self.realms.replace(realms);
        if !realms.is_empty() {
            // A gateway without realms has nobody who looks at each item.
            self.hub.observe(Arc::clone(&self.watch) as _);
        }
    }

    /// The realms of the push service.
    pub fn realms(&self) -> &Realms {
        &self.realms
    }

    /// Publishes an item to a channel of a realm.
    pub fn publish_in(&self, tenant: &Tenant, now: Instant, mut item: Item) -> Published {
        item.channel = tenant.hub_name(&item.channel);
        self.publish(now, item)
    }

    /// Publishes what was ordered to the patterns of channels that somebody listens to.
    pub(crate) fn show_views(&self, now: Instant) {
        self.watch.show(|channel, payload| {
            let view = Publish { channel, id: None, prev_id: None, no_seq: true, size: 0, payload };
            self.hub.publish(now, view, &mut |shard, item| self.deliver(shard, item));
        });
    }

    pub(crate) fn deliver(&self, shard: u16, item: &Arc<Ordered<Payload>>) {
        /// What an item costs beside its contents, about.
        const OVERHEAD: usize = 256;
        if let Some(mailbox) = self.mailboxes.get(usize::from(shard)) {
            mailbox.send_heavy(Message::Deliver(Arc::clone(item)), item.size + OVERHEAD);
        }
    }

    pub(crate) fn send(&self, shard: u16, message: Message) {
        if let Some(mailbox) = self.mailboxes.get(usize::from(shard)) {
            mailbox.send(message);
        }
    }

    /// Sends every held request to its target again, as after a time in which items may have been
    /// lost on their way to this gateway.
    pub fn recover(&self) {
        self.hub.forget_all_last_ids();
        for mailbox in &self.mailboxes {
            mailbox.send(Message::Recover);
        }
    }

    /// Lets the WebSockets of a channel that reach their targets by HTTP ask them now.
    pub fn refresh_channel(&self, channel: &Arc<str>) {
        for mailbox in &self.mailboxes {
            mailbox.send(Message::RefreshChannel(Arc::clone(channel)));
        }
    }

    /// Lets the WebSocket of this name, if it reaches its target by HTTP, ask it now. Names are known only to a gateway
    /// that records.
    pub fn refresh_socket(&self, id: &Arc<str>) {
        for mailbox in &self.mailboxes {
            mailbox.send(Message::RefreshSocket(Arc::clone(id)));
        }
    }

    /// Stops accepting connections and ends what can be ended without loss.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        for mailbox in &self.mailboxes {
            mailbox.send(Message::Drain);
        }
    }

    /// Ends every shard, whatever is still open.
    pub fn stop(&self) {
        for mailbox in &self.mailboxes {
            mailbox.send(Message::Stop);
        }
    }

    /// Whether the gateway has been told to drain.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}
