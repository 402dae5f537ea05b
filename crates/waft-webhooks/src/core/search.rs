//! Finding messages.

use super::{Core, Delivery, Message, State};

/// Messages that are looked at for one answer, so that a search cannot stop the deliveries.
const LOOKED_AT_MAX: usize = 200_000;

/// What is searched for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Search {
    /// The application; none is all.
    pub app: Option<u32>,
    /// An endpoint.
    pub endpoint: Option<u32>,
    /// A state of a delivery.
    pub state: Option<State>,
    /// Messages before this number alone.
    pub before: Option<u64>,
    /// Messages from this number on alone.
    pub since: u64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The messages, the newest first.
    pub seqs: Vec<u64>,
    /// Where to go on; none if that was all.
    pub next: Option<u64>,
}

impl Search {
    /// Whether a delivery is meant.
    pub fn means(&self, delivery: &Delivery) -> bool {
        let is_state = |state: State| delivery.state == state || (state.is_open() && delivery.state.is_open());
        self.endpoint.is_none_or(|endpoint| delivery.endpoint == endpoint) && self.state.is_none_or(is_state)
    }

    fn fits(&self, message: &Message) -> bool {
        let any = self.endpoint.is_none() && self.state.is_none();
        self.app.is_none_or(|app| message.app == app)
            && (any || message.deliveries.iter().any(|delivery| self.means(delivery)))
    }
}

impl Core {
    /// Up to `limit` messages, the newest first.
    pub fn search(&self, search: &Search, limit: usize) -> Found {
        let mut found = Found::default();
        let end = search.before.unwrap_or(u64::MAX).max(search.since);
        for (looked_at, (seq, message)) in self.messages.newest_first(search.since, end).enumerate() {
            if found.seqs.len() >= limit || looked_at >= LOOKED_AT_MAX {
                found.next = Some(seq + 1);
                break;
            }
            if search.fits(message) {
                found.seqs.push(seq);
            }
        }
        found
    }

    /// A message of this number.
    pub fn message(&self, seq: u64) -> Option<&Message> {
        self.messages.get(seq)
    }
}
