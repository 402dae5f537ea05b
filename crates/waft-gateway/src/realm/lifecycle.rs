//! What a realm tells of its life in the channel `@lifecycle`: which channels are occupied, and who connects.
//!
//! Whatever happens is only noted where it happens, which may be under the lock of a channel; ten times a second the notes
//! are published. A realm that tells nothing has no notes.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use waft_realm::{ChannelKind, Grant, LIFECYCLE_CHANNEL, Lifecycle, Occupancy, Reason, Visitor};
use waft_websocket::close::{self, Close};

use super::tenant::{PATTERN_MARK, Tenant};
use super::{door, forms};
use crate::gateway::Gateway;
use crate::ws::TRY_AGAIN_LATER;

/// What is to be told of a realm.
#[derive(Debug, Default)]
pub(super) struct Life {
    notes: Mutex<Notes>,
    is_noted: AtomicBool,
    occupancy: Mutex<Occupancy>,
    /// Whether the channels are known that had listeners before anything was told.
    is_seeded: AtomicBool,
    /// Connections that were told.
    serial: AtomicU64,
}

#[derive(Debug, Default)]
struct Notes {
    /// What happened last to each channel.
    channels: HashMap<Arc<str>, bool>,
    events: VecDeque<String>,
    /// Events that had no room.
    dropped: u64,
}

/// Events that wait at most. They are published ten times a second, so that only a storm has more.
const EVENTS_MAX: usize = 10_000;

/// A connection that was told; its end is told when this is dropped.
#[derive(Debug)]
pub(crate) struct Told {
    tenant: Arc<Tenant>,
    visitor: Visitor,
    since: Instant,
    reason: Option<Reason>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks leaves a half-done change behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a connection ends that is closed like this from our side.
pub(crate) fn reason_of(close: &Close) -> Reason {
    match close.code {
        close::NORMAL => Reason::Closed,
        close::GOING_AWAY => Reason::GoingAway,
        TRY_AGAIN_LATER => Reason::Slow,
        _ => Reason::Refused,
    }
}

impl Life {
    /// A channel of the realm, by its own name, has its first listener or has lost the last one.
    pub(super) fn note(&self, channel: &str, is_occupied: bool) {
        if ChannelKind::of(channel).is_reserved() || channel.starts_with(PATTERN_MARK) {
            return;
        }
        lock(&self.notes).channels.insert(Arc::from(channel), is_occupied);
        self.is_noted.store(true, Ordering::Release);
    }

    fn push(&self, event: &Lifecycle<'_>) {
        let mut notes = lock(&self.notes);
        if notes.events.len() < EVENTS_MAX {
            notes.events.push_back(event.to_json());
        } else {
            notes.dropped += 1;
        }
        self.is_noted.store(true, Ordering::Release);
    }
}

impl Told {
    /// Tells of a connection, if its realm does that.
    pub(super) fn begin(tenant: &Arc<Tenant>, transport: &'static str, grant: Option<&Grant>) -> Option<Self> {
        if !tenant.realm().tells.connections {
            return None;
        }
        let serial = tenant.life().serial.fetch_add(1, Ordering::Relaxed);
        let user = grant.and_then(|grant| grant.subject.clone());
        let visitor = Visitor { id: format!("{:x}-{serial}", tenant.run()), transport, user };
        tenant.life().push(&Lifecycle::Connected(&visitor));
        Some(Self { tenant: Arc::clone(tenant), visitor, since: Instant::now(), reason: None })
    }

    /// Says why it ends. What was said first counts.
    pub(super) fn set_reason(&mut self, reason: Reason) {
        self.reason.get_or_insert(reason);
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let seconds = self.since.elapsed().as_secs();
        let reason = self.reason.unwrap_or(Reason::Lost);
        self.tenant.life().push(&Lifecycle::Disconnected(&self.visitor, reason, seconds));
    }
}

/// Publishes what was noted, and the channels that have been without listeners for long enough.
pub(super) fn tick(gateway: &Gateway, tenant: &Tenant, now: Instant) {
    let (realm, life) = (tenant.realm(), tenant.life());
    if realm.tells.channels {
        if !life.is_seeded.swap(true, Ordering::Relaxed) {
            seed(gateway, tenant);
        }
    } else if life.is_seeded.swap(false, Ordering::Relaxed) {
        *lock(&life.occupancy) = Occupancy::default();
    }
    let noted = if life.is_noted.swap(false, Ordering::Acquire) {
        std::mem::take(&mut *lock(&life.notes))
    } else {
        Notes::default()
    };
    let metrics = gateway.realm_metrics();
    if noted.dropped > 0 {
        metrics.lifecycle_dropped.add(noted.dropped);
    }
    let tell = |event: String| {
        metrics.lifecycle_told.add(1);
        gateway.publish_in(tenant, now, door::item(LIFECYCLE_CHANNEL, event));
    };
    noted.events.into_iter().for_each(tell);
    if !realm.tells.channels {
        return;
    }
    let mut occupancy = lock(&life.occupancy);
    for (channel, is_occupied) in &noted.channels {
        if occupancy.note(now, realm.limits.presence_grace, channel, *is_occupied) {
            tell(Lifecycle::Occupied(channel).to_json());
        }
    }
    while let Some(channel) = occupancy.expire(now) {
        tell(Lifecycle::Vacated(&channel).to_json());
    }
}

/// Notes the channels that have listeners already.
fn seed(gateway: &Gateway, tenant: &Tenant) {
    let prefix = tenant.hub_name("");
    for channel in gateway.hub.channels().filter(|channel| channel.name.starts_with(&prefix)) {
        let own = forms::own_name(&channel.name);
        if !ChannelKind::of(own).is_reserved() && !own.starts_with(PATTERN_MARK) {
            // What was noted since is newer.
            lock(&tenant.life().notes).channels.entry(Arc::from(own)).or_insert(true);
        }
    }
    tenant.life().is_noted.store(true, Ordering::Release);
}
