//! Connections to targets, kept for the next request.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use waft_net::{ClientConfig, ClientIdentity, Stream, TlsConnectError, TlsError, client_config};
use waft_route::{Target, TargetAddress};

use crate::buffer::ReadBuffer;
use crate::shard::Shard;

/// Addresses of one name that are tried in turn.
const ADDRESSES_MAX: usize = 16;
/// How long a kept connection is trusted without asking whether its peer has closed it.
const TRUSTED: Duration = Duration::from_secs(1);
/// How long the tickets of an encrypted target are kept after its last connection was asked for.
const TICKETS_KEPT: Duration = Duration::from_secs(600);

/// The connections of one shard to all its targets.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    sites: RefCell<HashMap<TargetAddress, Rc<Site>>>,
    /// Those of targets marked `untrusted`, which may not use what others opened to places they must not reach.
    untrusted: RefCell<HashMap<TargetAddress, Rc<Site>>>,
    /// Those of targets that are spoken to by TLS, for each address as many as there are ways to do that.
    encrypted: RefCell<HashMap<TargetAddress, Vec<Rc<Site>>>>,
}

/// The connections to one target.
#[derive(Debug, Default)]
struct Site {
    idle: RefCell<Vec<Idle>>,
    /// Connections in use and idle.
    open: Cell<usize>,
    freed: Notify,
    tls: Option<Encryption>,
}

/// How the connections of a site are encrypted.
#[derive(Debug)]
struct Encryption {
    config: Arc<ClientConfig>,
    untrusted: bool,
    insecure: bool,
    identity: Option<(PathBuf, PathBuf)>,
    /// The state of the settings it was made in.
    reloads: u64,
    asked_for: Cell<Instant>,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    since: Instant,
    name: Option<Box<str>>,
}

/// A connection to a target while a request uses it.
#[derive(Debug)]
pub(crate) struct TargetConnection {
    pub(crate) stream: Stream,
    pub(crate) buffer: ReadBuffer,
    /// Whether an earlier request used it, so that the target may just have closed it.
    pub(crate) reused: bool,
    /// What the target has proved to be, if it was spoken to by TLS.
    name: Option<Box<str>>,
    slot: Slot,
}

/// A place among the connections of a target, given back when the connection ends.
#[derive(Debug)]
struct Slot(Rc<Site>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
        self.0.freed.notify_one();
    }
}

/// Why there is no connection to a target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{target}: the name has no address ({error})")]
    Name { target: String, error: io::Error },
    #[error("{target}: {error}")]
    Refused { target: String, error: io::Error },
    #[error("{target}: no connection within {limit:?}")]
    TimedOut { target: String, limit: Duration },
    #[error("{target}: this kind of target is not reached by HTTP")]
    Kind { target: String },
    #[error("{target}: it is marked untrusted and has an address of this network")]
    Blocked { target: String },
    #[error("{target}: {error}")]
    Tls { target: String, error: TlsConnectError },
    #[error("{target}: {error}")]
    TlsSetUp { target: String, error: TlsError },
}

impl Pool {
    /// A connection to `target`: a kept one unless `fresh` is asked for, else a new one, waiting
    /// for its turn when as many as allowed are open. A target with `ssl` has to prove that it is `name`.
    pub(crate) async fn connect(
        &self,
        shard: &Shard,
        target: &Target,
        name: Option<&str>,
        fresh: bool,
        limit: Duration,
        open_max: usize,
    ) -> Result<TargetConnection, ConnectError> {
        let site = self.site(shard, target)?;
        loop {
            if let Some(connection) = if fresh { None } else { site.reuse(name) } {
                return Ok(connection);
            }
            if site.open.get() < open_max.max(1) {
                break;
            }
            // A new connection is wanted where only kept ones are left, or those for other names: one of them makes room.
            if (fresh || name.is_some()) && site.idle.borrow_mut().pop().is_some() {
                site.open.set(site.open.get().saturating_sub(1));
                continue;
            }
            site.freed.notified().await;
        }
        site.open.set(site.open.get() + 1);
        let slot = Slot(site);
        shard.metrics.target_connections.add(1);
        let connecting = tokio::time::timeout(limit, slot.0.open(target, name));
        let stream = match connecting.await {
            Ok(opened) => opened?,
            Err(_late) => return Err(ConnectError::TimedOut { target: target.address.to_string(), limit }),
        };
        let name = name.map(Into::into);
        Ok(TargetConnection { stream, buffer: ReadBuffer::default(), reused: false, name, slot })
    }

    /// A new connection to `target` that is not shared, and counts nowhere.
    pub(crate) async fn connect_alone(
        &self,
        shard: &Shard,
        target: &Target,
        name: Option<&str>,
        limit: Duration,
    ) -> Result<TargetConnection, ConnectError> {
        let site = self.site(shard, target)?;
        let stream = match tokio::time::timeout(limit, site.open(target, name)).await {
            Ok(opened) => opened?,
            Err(_late) => return Err(ConnectError::TimedOut { target: target.address.to_string(), limit }),
        };
        shard.metrics.target_connections.add(1);
        let slot = Slot(Rc::new(Site { open: Cell::new(1), ..Site::default() }));
        Ok(TargetConnection { stream, buffer: ReadBuffer::default(), reused: false, name: None, slot })
    }

    fn site(&self, shard: &Shard, target: &Target) -> Result<Rc<Site>, ConnectError> {
        if target.ssl {
            let failed = |error| ConnectError::TlsSetUp { target: target.address.to_string(), error };
            return self.encrypted_site(shard.gateway.reloads(), target).map_err(failed);
        }
        let address = &target.address;
        let mut sites = if target.untrusted { self.untrusted.borrow_mut() } else { self.sites.borrow_mut() };
        if let Some(site) = sites.get(address) {
            return Ok(Rc::clone(site));
        }
        Ok(Rc::clone(sites.entry(address.clone()).or_default()))
    }

    /// The site of a target with `ssl`. Certificates are read when the first connection after a start or reload needs
    /// them, so that a renewed one is taken with a reload.
    fn encrypted_site(&self, reloads: u64, target: &Target) -> Result<Rc<Site>, TlsError> {
        let mut encrypted = self.encrypted.borrow_mut();
        let sites = encrypted.entry(target.address.clone()).or_default();
        let known = sites.iter().find(|site| site.tls.as_ref().is_some_and(|tls| tls.is_for(target, reloads)));
        if let Some(site) = known {
            if let Some(tls) = &site.tls {
                tls.asked_for.set(Instant::now());
            }
            return Ok(Rc::clone(site));
        }
        let site = Rc::new(Site { tls: Some(Encryption::new(target, reloads)?), ..Site::default() });
        sites.push(Rc::clone(&site));
        Ok(site)
    }

    /// Closes connections that have not been used for `limit`, and those their target has closed.
    pub(crate) fn sweep(&self, now: Instant, limit: Duration) {
        let mut all = [self.sites.borrow_mut(), self.untrusted.borrow_mut()];
        all.iter_mut().for_each(|sites| {
            sites.retain(|_, site| {
                site.sweep(now, limit);
                site.open.get() > 0
            })
        });
        self.encrypted.borrow_mut().retain(|_, sites| {
            sites.retain(|site| {
                site.sweep(now, limit);
                let asked_for = site.tls.as_ref().map_or(now, |tls| tls.asked_for.get());
                site.open.get() > 0 || now.saturating_duration_since(asked_for) < TICKETS_KEPT
            });
            !sites.is_empty()
        });
    }
}

impl Encryption {
    fn new(target: &Target, reloads: u64) -> Result<Self, TlsError> {
        let identity = target.client_cert.clone().zip(target.client_key.clone());
        let shown = identity.as_ref().map(|(cert, key)| ClientIdentity::from_files(cert, key)).transpose()?;
        let config = client_config(target.insecure, shown.as_ref(), &[b"http/1.1"])?;
        Ok(Self {
            config,
            untrusted: target.untrusted,
            insecure: target.insecure,
            identity,
            reloads,
            asked_for: Cell::new(Instant::now()),
        })
    }

    fn is_for(&self, target: &Target, reloads: u64) -> bool {
        let identity = self.identity.as_ref();
        self.reloads == reloads
            && (self.untrusted, self.insecure) == (target.untrusted, target.insecure)
            && identity.map(|(cert, _)| cert) == target.client_cert.as_ref()
            && identity.map(|(_, key)| key) == target.client_key.as_ref()
    }
}

impl Site {
    /// A kept connection, if there is one to a target that has proved to be `name`.
    fn reuse(self: &Rc<Self>, name: Option<&str>) -> Option<TargetConnection> {
        loop {
            let Idle { stream, since, name } = {
                let mut idle = self.idle.borrow_mut();
                match name {
                    None => idle.pop()?,
                    Some(name) => {
                        let place = idle.iter().rposition(|kept| kept.name.as_deref() == Some(name))?;
                        idle.remove(place)
                    }
                }
            };
            let slot = Slot(Rc::clone(self));
            if since.elapsed() < TRUSTED || stream.is_idle() {
                return Some(TargetConnection { stream, buffer: ReadBuffer::default(), reused: true, name, slot });
            }
        }
    }

    async fn open(&self, target: &Target, name: Option<&str>) -> Result<Stream, ConnectError> {
        let stream = open(target).await?;
        let Some(tls) = &self.tls else { return Ok(stream) };
        let encrypted = stream.connect_tls(&tls.config, name.unwrap_or_default()).await;
        encrypted.map_err(|error| ConnectError::Tls { target: target.address.to_string(), error })
    }

    fn sweep(&self, now: Instant, limit: Duration) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain(|kept| now.saturating_duration_since(kept.since) < limit && kept.stream.is_idle());
        self.open.set(self.open.get().saturating_sub(before - idle.len()));
        for _closed in idle.len()..before {
            self.freed.notify_one();
        }
    }
}

impl TargetConnection {
    /// The connection itself, for a use that ends it for others.
    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Keeps the connection for the next request. Only for one whose response has been read to its
    /// end; what came after it makes the connection unusable.
    pub(crate) fn keep(mut self, shard: &Shard) {
        let clean = self.buffer.is_empty();
        self.buffer.release(&shard.buffers);
        let Self { stream, name, slot, .. } = self;
        if clean {
            let site = Rc::clone(&slot.0);
            // The place stays taken: it goes over from the request to the kept connection.
            site.open.set(site.open.get() + 1);
            drop(slot);
            site.idle.borrow_mut().push(Idle { stream, since: Instant::now(), name });
        }
    }

    /// Reads more into the buffer. 0 is the end of the stream, or a full buffer.
    pub(crate) async fn read_more(&mut self, shard: &Shard, max: usize) -> io::Result<usize> {
        let room = self.buffer.room(&shard.buffers, max);
        if room.is_empty() {
            return Ok(0);
        }
        let count = self.stream.read(room).await?;
        self.buffer.filled(count);
        Ok(count)
    }

    /// Ends the connection.
    pub(crate) fn abandon(mut self, shard: &Shard) {
        self.buffer.release(&shard.buffers);
    }
}

/// A new connection to the address of `target`, not encrypted yet.
async fn open(target: &Target) -> Result<Stream, ConnectError> {
    let refused = |error| ConnectError::Refused { target: target.address.to_string(), error };
    let blocked = || ConnectError::Blocked { target: target.address.to_string() };
    let may_be_called = |address: IpAddr| !target.untrusted || !is_inside(address);
    match &target.address {
        TargetAddress::Unix(_) if target.untrusted => Err(blocked()),
        TargetAddress::Unix(path) => Stream::connect_unix(path).await.map_err(refused),
        TargetAddress::Http { host, port } => {
            if let Ok(address) = host.parse::<IpAddr>() {
                if !may_be_called(address) {
                    return Err(blocked());
                }
                return Stream::connect_tcp(SocketAddr::new(address, *port)).await.map_err(refused);
            }
            let found = tokio::net::lookup_host((host.as_str(), *port)).await;
            let found = found.map_err(|error| ConnectError::Name { target: target.address.to_string(), error })?;
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for address in found.take(ADDRESSES_MAX) {
                if !may_be_called(address.ip()) {
                    return Err(blocked());
                }
                match Stream::connect_tcp(address).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(refused(last))
        }
        TargetAddress::Demo
        | TargetAddress::Dir(_)
        | TargetAddress::Handler(_)
        | TargetAddress::Test
        | TargetAddress::Zhttp(_)
        | TargetAddress::ZhttpReq(_) => Err(ConnectError::Kind { target: target.address.to_string() }),
    }
}

/// Whether an address leads into this machine or a network that is nobody else's (the targets marked `untrusted` are
/// kept out of these).
fn is_inside(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            let shared = first == 100 && (64..128).contains(&second);
            address.is_private() || address.is_loopback() || address.is_link_local() || first == 0 || shared
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_network_are_known() {
        let inside = "127.0.0.1 10.1.2.3 172.16.0.1 172.31.9.9 192.168.0.1 169.254.1.1 0.0.0.0 100.64.0.1 ::1 :: fc00::1 \
                      fd12::1 fe80::1 ::ffff:10.0.0.1";
        for address in inside.split_whitespace() {
            assert!(is_inside(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(!is_inside(address.parse().unwrap()), "{address}");
        }
    }
}
