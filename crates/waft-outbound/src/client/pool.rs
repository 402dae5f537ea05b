//! Connections that can serve another call.

use std::collections::HashMap;
use std::time::Instant;

use super::http2::Sender;
use super::stream::Stream;
use super::tls::TlsChoice;
use crate::Limits;
use crate::target::Host;

/// What two calls must have in common to share a connection.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Place {
    /// Where the connection leads.
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// The name in TLS; none for plain connections.
    pub(crate) tls: Option<(Host, TlsChoice)>,
    /// A connection made without a policy is never given to a call that has one.
    pub(crate) policy: u8,
}

/// A connection at rest, with the address that is judged again before it is used.
#[derive(Debug)]
pub(crate) struct Resting {
    pub(crate) stream: Stream,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) opened: Instant,
    pub(crate) since: Instant,
}

/// A connection that is shared.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) sender: Sender,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) opened: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Pool {
    resting: HashMap<Place, Vec<Resting>>,
    shared: HashMap<Place, Shared>,
    count: usize,
    swept: Option<Instant>,
}

impl Pool {
    /// The connection that rested least and is still good.
    pub(crate) fn take(&mut self, place: &Place, limits: &Limits, now: Instant) -> Option<Resting> {
        let list = self.resting.get_mut(place)?;
        while let Some(resting) = list.pop() {
            self.count -= 1;
            let fresh = now.duration_since(resting.since) < limits.idle_timeout
                && now.duration_since(resting.opened) < limits.connection_age_max;
            if fresh && resting.stream.is_quiet() {
                return Some(resting);
            }
        }
        None
    }

    pub(crate) fn put(&mut self, place: Place, resting: Resting, limits: &Limits) {
        self.sweep(limits, resting.since);
        let list = self.resting.entry(place).or_default();
        if self.count < limits.idle_max && list.len() < limits.idle_per_place_max {
            list.push(resting);
            self.count += 1;
        }
    }

    pub(crate) fn shared(&mut self, place: &Place, limits: &Limits, now: Instant) -> Option<Shared> {
        let shared = self.shared.get(place)?;
        if shared.sender.is_closed() || now.duration_since(shared.opened) >= limits.connection_age_max {
            self.shared.remove(place);
            return None;
        }
        Some(shared.clone())
    }

    pub(crate) fn share(&mut self, place: Place, shared: Shared) {
        self.shared.insert(place, shared);
    }

    /// Closes what has rested for too long; does so at most once a second.
    pub(crate) fn sweep(&mut self, limits: &Limits, now: Instant) {
        if self.swept.is_some_and(|swept| now.duration_since(swept).as_secs() < 1) {
            return;
        }
        self.swept = Some(now);
        self.resting.retain(|_, list| {
            list.retain(|resting| now.duration_since(resting.since) < limits.idle_timeout);
            !list.is_empty()
        });
        self.shared.retain(|_, shared| !shared.sender.is_closed());
        self.count = self.resting.values().map(Vec::len).sum();
    }

    /// How many connections rest.
    pub(crate) fn len(&self) -> usize {
        self.count
    }
}
