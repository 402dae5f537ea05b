//! What a client of a realm is for as long as it is connected.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use waft_realm::{Grant, Reason};

use super::lifecycle::Told;
use super::presence::Membership;
use super::tenant::Tenant;

/// Counts a connection of a realm for as long as it is held, and has what else ends with it.
#[derive(Debug)]
pub(crate) struct Guest {
    connections: Arc<AtomicUsize>,
    /// Only for those who have one.
    stay: Option<Box<Stay>>,
}

/// The memberships of a client, and that it was told of.
#[derive(Debug, Default)]
pub(super) struct Stay {
    memberships: Vec<Membership>,
    told: Option<Told>,
}

impl Guest {
    /// A connection that was counted in already.
    pub(super) fn counted(connections: &Arc<AtomicUsize>) -> Self {
        Self { connections: Arc::clone(connections), stay: None }
    }

    /// The channels that it is a member of.
    pub(super) fn memberships(&self) -> impl Iterator<Item = &Membership> {
        self.stay.iter().flat_map(|stay| &stay.memberships)
    }

    /// One membership more. That of the same channel comes back.
    pub(super) fn keep(&mut self, membership: Membership) -> Option<Membership> {
        self.stay.get_or_insert_default().keep(membership)
    }

    /// Keeps what a request has made its client a member of.
    pub(super) fn keep_all(&mut self, memberships: impl IntoIterator<Item = Membership>) {
        for membership in memberships {
            // Another one of the same channel is lost, which nobody sees.
            let _before = self.keep(membership);
        }
    }

    /// Takes the membership of a channel out.
    pub(super) fn give_back(&mut self, channel: &str) -> Option<Membership> {
        self.stay.as_mut()?.give_back(channel)
    }

    /// Tells of the connection and its end, if the realm does that.
    pub(super) fn tell(&mut self, tenant: &Arc<Tenant>, transport: &'static str, grant: Option<&Grant>) {
        if let Some(told) = Told::begin(tenant, transport, grant) {
            self.stay.get_or_insert_default().told = Some(told);
        }
    }

    /// Says why the connection ends. What was said first counts.
    pub(crate) fn set_reason(&mut self, reason: Reason) {
        if let Some(stay) = &mut self.stay {
            stay.set_reason(reason);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stay {
    /// That of a client which is told of.
    pub(super) fn told(told: Option<Told>) -> Self {
        Self { memberships: Vec::new(), told }
    }

    /// One membership more. That of the same channel comes back.
    pub(super) fn keep(&mut self, membership: Membership) -> Option<Membership> {
        let before = self.give_back(membership.channel());
        self.memberships.push(membership);
        before
    }

    /// Takes the membership of a channel out.
    pub(super) fn give_back(&mut self, channel: &str) -> Option<Membership> {
        let place = self.memberships.iter().position(|membership| membership.channel() == channel)?;
        Some(self.memberships.swap_remove(place))
    }

    /// Takes all memberships out.
    pub(super) fn give_back_all(&mut self) -> Vec<Membership> {
        std::mem::take(&mut self.memberships)
    }

    pub(super) fn set_reason(&mut self, reason: Reason) {
        if let Some(told) = &mut self.told {
            told.set_reason(reason);
        }
    }
}
