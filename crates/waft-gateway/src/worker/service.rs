//! The sockets of ZHTTP targets, and who gets what comes by them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tracing::{debug, info, warn};
use waft_route::{Target, TargetAddress};
use waft_zhttp::{Encoding, Packet, PacketError};
use waft_zmq::{Engine, Error, Handler, Kind, Message, Opened, SendError, SocketOptions};

use super::{Content, Delivery, is_worker};
use crate::gateway::{Gateway, Message as ShardMessage};
use crate::metrics::WorkerMetrics;
use crate::settings::Settings;

/// Requests that wait for a worker to take them, beyond those that libzmq has handed to connections.
const WAITING_MAX: usize = 10_000;
/// Packets handed to one connection of a worker before others get some.
const CONNECTION_MAX: i32 = 100;
/// Packets on their way from or to known workers.
const PACKETS_MAX: usize = 200_000;
/// Bytes of packets that may wait for a shard; beyond that no worker is read until it has caught up.
const BACKLOG_MAX: usize = 32 << 20;
/// Largest packet that is taken from a worker, in bytes; one that sends more is disconnected.
const PACKET_SIZE_MAX: i64 = 16 << 20;

/// The sockets of all ZHTTP targets of a gateway.
#[derive(Debug)]
pub(crate) struct Workers {
    /// What workers answer to: an address for each shard.
    addresses: Vec<Bytes>,
    services: ArcSwap<HashMap<ServiceKey, Arc<Service>>>,
    engine: Mutex<Option<Engine>>,
    backlogs: Vec<Backlog>,
    pub(crate) metrics: WorkerMetrics,
}

/// What of a target decides about its sockets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ServiceKey {
    address: TargetAddress,
    connect: bool,
    ipc_file_mode: Option<u32>,
}

/// Packets on their way to one shard.
#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    /// Reading stopped for it.
    stalled: AtomicBool,
}

/// The sockets of one target.
#[derive(Debug)]
pub(crate) struct Service {
    key: ServiceKey,
    /// Requests: PUSH, or DEALER on the request/reply interface.
    requests: Opened,
    /// Later packets to a known worker, and what workers send: ROUTER and SUB of the stream interface.
    stream: Option<(Opened, Opened)>,
}

impl Workers {
    pub(crate) fn new(shards: usize, name: &str) -> Self {
        // Blanks end an address, and what a restarted gateway calls itself must differ from what it was called.
        let name: String = name.chars().filter(|c| c.is_ascii_graphic()).take(32).collect();
        let random = fastrand::u32(..);
        Self {
            addresses: (0..shards).map(|shard| format!("{name}-{random:08x}-{shard}").into()).collect(),
            services: ArcSwap::default(),
            engine: Mutex::new(None),
            backlogs: (0..shards).map(|_| Backlog::default()).collect(),
            metrics: WorkerMetrics::default(),
        }
    }

    /// The address that workers answer to for a shard.
    pub(crate) fn address(&self, shard: u16) -> Bytes {
        self.addresses.get(usize::from(shard)).cloned().unwrap_or_default()
    }

    /// The sockets of a target, if they are open.
    pub(crate) fn service(&self, target: &Target) -> Option<Arc<Service>> {
        self.services.load().get(&key_of(target)).cloned()
    }

    /// Opens the sockets that `settings` need. Those that are no longer needed close with their last exchange.
    pub(crate) fn open(&self, gateway: &Arc<Gateway>, settings: &Settings) -> Result<(), Error> {
        let routes = settings.table.routes();
        let wanted = routes.iter().flat_map(|route| &route.targets).filter(|target| is_worker(target)).map(key_of);
        let wanted: Vec<ServiceKey> = wanted.collect();
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.is_empty() && engine.is_none() {
            return Ok(());
        }
        let running = match &*engine {
            Some(running) => running,
            None => engine.insert(Engine::start("waft-workers")?),
        };
        let before = self.services.load_full();
        let mut services = HashMap::new();
        for key in wanted {
            if services.contains_key(&key) {
                continue;
            }
            let service = match before.get(&key) {
                Some(open) => Arc::clone(open),
                None => {
                    let opened = Service::open(running, gateway, &self.addresses, key.clone())?;
                    info!(target = %key.address, connect = key.connect, "Waiting for ZHTTP workers.");
                    opened
                }
            };
            services.insert(key, service);
        }
        self.services.store(Arc::new(services));
        Ok(())
    }

    /// Hands what came over to a shard. False if the shard has to catch up first.
    fn deliver(&self, gateway: &Gateway, shard: u16, delivery: Delivery) -> bool {
        let Some(backlog) = self.backlogs.get(usize::from(shard)) else { return true };
        let waiting = backlog.bytes.fetch_add(delivery.size, Ordering::AcqRel) + delivery.size;
        gateway.send(shard, ShardMessage::Worker(Box::new(delivery)));
        if waiting <= BACKLOG_MAX {
            return true;
        }
        backlog.stalled.store(true, Ordering::Release);
        false
    }

    /// A shard has dealt with `size` bytes of packets.
    pub(crate) fn dealt_with(&self, shard: u16, size: usize) {
        let Some(backlog) = self.backlogs.get(usize::from(shard)) else { return };
        let left = backlog.bytes.fetch_sub(size, Ordering::AcqRel).saturating_sub(size);
        if left <= BACKLOG_MAX / 2 && backlog.stalled.load(Ordering::Acquire) {
            backlog.stalled.store(false, Ordering::Release);
            self.resume();
        }
    }

    /// Reads on from all workers, unless a shard is behind. To be called now and then, too: a socket may have stopped in
    /// the moment in which its shard caught up.
    pub(crate) fn resume(&self) {
        if self.backlogs.iter().any(|backlog| backlog.stalled.load(Ordering::Acquire)) {
            return;
        }
        for service in self.services.load().values() {
            service.requests.receiver.pause(false);
            if let Some((router, sub)) = &service.stream {
                router.receiver.pause(false);
                sub.receiver.pause(false);
            }
        }
    }
}

fn key_of(target: &Target) -> ServiceKey {
    ServiceKey { address: target.address.clone(), connect: target.connect, ipc_file_mode: target.ipc_file_mode }
}

impl Service {
    fn open(engine: &Engine, gateway: &Arc<Gateway>, addresses: &[Bytes], key: ServiceKey) -> Result<Arc<Self>, Error> {
        let options = |kind, endpoint: String| {
            let (bind, connect) = if key.connect { (vec![], vec![endpoint]) } else { (vec![endpoint], vec![]) };
            SocketOptions {
                bind,
                connect,
                immediate: true,
                ipc_file_mode: key.ipc_file_mode,
                frame_size_max: PACKET_SIZE_MAX,
                ..SocketOptions::new(kind)
            }
        };
        // The sockets must know whom they are of, which is made of them.
        let place: Arc<Mutex<Weak<Self>>> = Arc::default();
        let sorter = || {
            let addresses = addresses.to_vec();
            Box::new(Sorter { gateway: Arc::downgrade(gateway), service: Arc::clone(&place), addresses, said: None })
        };
        let (requests, stream) = match &key.address {
            TargetAddress::ZhttpReq(spec) => {
                let options = SocketOptions {
                    send_hwm: CONNECTION_MAX,
                    queue_max: WAITING_MAX,
                    ..options(Kind::Dealer, spec.clone())
                };
                (engine.open_handled(&options, sorter())?, None)
            }
            address => {
                let spec = match address {
                    TargetAddress::Zhttp(spec) => spec.as_str(),
                    _ => "",
                };
                let [out, out_stream, incoming] = endpoints(spec);
                let push =
                    SocketOptions { send_hwm: CONNECTION_MAX, queue_max: WAITING_MAX, ..options(Kind::Push, out) };
                let router = SocketOptions {
                    router_mandatory: true,
                    send_hwm: 0,
                    queue_max: PACKETS_MAX,
                    ..options(Kind::Router, out_stream)
                };
                let subscriptions = addresses.iter().map(|address| [address, &b" "[..]].concat().into()).collect();
                let sub = SocketOptions { receive_hwm: 0, subscriptions, ..options(Kind::Sub, incoming) };
                let push = engine.open(&push)?;
                let router = engine.open_handled(&router, sorter())?;
                (push, Some((router, engine.open_handled(&sub, sorter())?)))
            }
        };
        let service = Arc::new(Self { key, requests, stream });
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&service);
        Ok(service)
    }

    /// Whether its workers answer with whole messages.
    pub(crate) fn is_request(&self) -> bool {
        self.stream.is_none()
    }

    /// Sends a first packet; any worker may take it.
    pub(crate) fn request(&self, packet: &Bytes) -> Result<(), SendError> {
        let frames = if self.is_request() { vec![Bytes::new(), packet.clone()] } else { vec![packet.clone()] };
        self.requests.sender.send(Message { frames })
    }

    /// Takes a first packet back. False if a worker has it already, or nearly so.
    pub(crate) fn withdraw(&self, packet: &Bytes) -> bool {
        self.requests.sender.withdraw(packet)
    }

    /// Sends a packet to a worker that is known.
    pub(crate) fn send(&self, worker: &Bytes, packet: &Packet) -> Result<(), SendError> {
        let Some((router, _)) = &self.stream else { return Ok(()) };
        let payload = packet.encode(Encoding::Tnetstring, None);
        router.sender.send(Message { frames: vec![worker.clone(), Bytes::new(), payload] })
    }
}

/// The endpoints of the stream interface: requests, later packets, answers.
fn endpoints(spec: &str) -> [String; 3] {
    if let Some((host, port)) = spec.rsplit_once(':')
        && spec.starts_with("tcp://")
        && let Ok(port) = port.parse::<u16>()
    {
        return [0, 1, 2].map(|offset| format!("{host}:{}", u32::from(port) + offset));
    }
    ["out", "out-stream", "in"].map(|name| format!("{spec}-{name}"))
}

/// Sorts what comes by a socket, on the thread of the sockets.
struct Sorter {
    gateway: Weak<Gateway>,
    service: Arc<Mutex<Weak<Service>>>,
    addresses: Vec<Bytes>,
    /// When a bad packet was last told of above debug level.
    said: Option<Instant>,
}

impl Handler for Sorter {
    fn arrived(&mut self, batch: Vec<Message>) -> bool {
        let (Some(gateway), Some(service)) = (self.gateway.upgrade(), self.service()) else { return true };
        let mut go_on = true;
        for message in batch {
            if let Some((shard, delivery)) = self.sort(&gateway, &service, &message) {
                go_on &= gateway.workers.deliver(&gateway, shard, delivery);
            }
        }
        go_on
    }

    fn undeliverable(&mut self, message: Message) {
        let (Some(gateway), Some(service)) = (self.gateway.upgrade(), self.service()) else { return };
        let (Some(worker), Some(payload)) = (message.frames.first(), message.frames.last()) else { return };
        // It is our own packet, so it can be read and has an address.
        if let Ok((packet, _)) = Packet::decode(payload)
            && let Some(shard) = packet.from.as_ref().and_then(|from| self.shard_at(from))
        {
            let content = Content::Undeliverable(worker.clone(), packet.ids.as_slice().to_vec());
            gateway.workers.deliver(&gateway, shard, Delivery { service, content, size: payload.len() });
        }
    }
}

impl Sorter {
    fn service(&self) -> Option<Arc<Service>> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    fn shard_at(&self, address: &[u8]) -> Option<u16> {
        self.addresses.iter().position(|known| **known == *address).and_then(|shard| u16::try_from(shard).ok())
    }

    fn sort(&mut self, gateway: &Gateway, service: &Arc<Service>, message: &Message) -> Option<(u16, Delivery)> {
        let metrics = &gateway.workers.metrics;
        let frame = message.frames.last()?;
        // On the stream interface the address stands before the packet, on the other one the id leads to the shard.
        let (address, payload) = if service.is_request() {
            (None, frame.clone())
        } else {
            let Some(blank) = frame.iter().position(|byte| *byte == b' ') else {
                self.malformed(gateway, service, &"no address before the packet");
                return None;
            };
            (Some(frame.slice(..blank)), frame.slice(blank + 1..))
        };
        let shard_of = |id: Option<&Bytes>| match &address {
            Some(address) => self.shard_at(address),
            None => id.and_then(|id| super::call::shard_of(id)),
        };
        metrics.packets_received.add(1);
        let (shard, content) = match Packet::decode(&payload) {
            Ok((_, Encoding::Json)) => {
                self.malformed(gateway, service, &"JSON, which no gateway understands");
                return None;
            }
            Ok((packet, Encoding::Tnetstring)) => {
                let shard = shard_of(packet.ids.as_slice().first().map(|id| &id.id));
                (shard, Content::Packet(Box::new(packet)))
            }
            Err(error) => {
                let id = match &error {
                    PacketError::Field { salvage, .. } => salvage.id.clone(),
                    _ => None,
                };
                let shard = shard_of(id.as_ref());
                self.malformed(gateway, service, &error);
                (shard, Content::Unreadable(id?))
            }
        };
        let Some(shard) = shard else {
            metrics.packets_unknown.add(1);
            debug!(target = %service.key.address, "A packet of a worker is for nobody here.");
            return None;
        };
        Some((shard, Delivery { service: Arc::clone(service), content, size: frame.len() }))
    }

    /// Counts and tells of a packet that cannot be read; not each one, as a worker may send many.
    fn malformed(&mut self, gateway: &Gateway, service: &Service, why: &dyn std::fmt::Display) {
        const PAUSE: Duration = Duration::from_secs(1);
        gateway.workers.metrics.packets_malformed.add(1);
        let now = Instant::now();
        let target = &service.key.address;
        if self.said.is_none_or(|said| now.saturating_duration_since(said) >= PAUSE) {
            self.said = Some(now);
            warn!(%target, error = %why, "A packet of a worker cannot be read and was dropped.");
        } else {
            debug!(%target, error = %why, "A packet of a worker cannot be read and was dropped.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoints_of_a_spec_follow_its_kind() {
        assert_eq!(endpoints("tcp://127.0.0.1:80"), ["tcp://127.0.0.1:80", "tcp://127.0.0.1:81", "tcp://127.0.0.1:82"]);
        assert_eq!(endpoints("ipc:///run/x"), ["ipc:///run/x-out", "ipc:///run/x-out-stream", "ipc:///run/x-in"]);
        assert_eq!(endpoints("ipc://x:1"), ["ipc://x:1-out", "ipc://x:1-out-stream", "ipc://x:1-in"]);
    }
}
