//! Giving disk space back: what is still wanted of the oldest segment is written again, then the segment goes.

use waft_store::{Failure, Place, Room, Usage};

use super::{Engine, Then};
use crate::core::Survivor;
use crate::core::record::Record;

/// Survivors that are moved in one turn.
const MOVED_MAX: usize = 128;

/// Records that may be on their way before more are moved.
const UNDER_WAY_MAX: usize = 4_096;

/// Disk space below which nothing is cleaned.
const SMALL: u64 = 192 << 20;

/// A segment that is being emptied.
pub(super) struct Cleaning {
    segment: u32,
    /// What is still to be moved, the last first.
    survivors: Vec<Survivor>,
    /// Records on their way to their new place.
    under_way: usize,
    /// Something could not be moved, so the segment must stay.
    failed: bool,
}

impl Engine {
    /// Begins to empty the oldest segment if more than half of the disk space is waste, or it is scarce.
    pub(super) fn begin_cleaning(&mut self, usage: &Usage, pressed: bool) {
        if self.cleaning.is_some() {
            return;
        }
        let Some((segment, _)) = usage.oldest else { return };
        let live = self.core.totals().live_bytes;
        let wasteful = usage.bytes > SMALL && usage.bytes / 2 > live;
        let scarce = pressed && usage.bytes / 10 * 9 > live;
        if wasteful || scarce {
            let mut survivors = self.core.survivors(segment);
            survivors.reverse();
            self.cleaning = Some(Cleaning { segment, survivors, under_way: 0, failed: false });
        }
    }

    /// Whether there is something to move at once.
    pub(super) fn is_cleaning_now(&self) -> bool {
        self.cleaning
            .as_ref()
            .is_some_and(|cleaning| !cleaning.survivors.is_empty() && cleaning.under_way < UNDER_WAY_MAX)
    }

    /// Moves some of what is to be moved, and removes the segment after the last.
    pub(super) fn clean(&mut self) {
        for _ in 0..MOVED_MAX {
            let Some(cleaning) = &mut self.cleaning else { return };
            if cleaning.under_way >= UNDER_WAY_MAX {
                return;
            }
            let Some(survivor) = cleaning.survivors.pop() else {
                if cleaning.under_way == 0 {
                    if !cleaning.failed {
                        self.writer.remove(cleaning.segment);
                    }
                    self.cleaning = None;
                }
                return;
            };
            self.move_one(survivor);
        }
    }

    fn move_one(&mut self, survivor: Survivor) {
        match survivor {
            Survivor::Mark => self.move_record(Record::Mark(self.core.mark).encode(), Then::MarkMoved),
            Survivor::App(number) => {
                let Some(app) = self.core.apps.get(&number) else { return };
                let json = serde_json::to_vec(&app.stored).unwrap_or_default();
                self.move_record(Record::App(&json).encode(), Then::AppMoved(number, true));
            }
            Survivor::Endpoint(number) => {
                let Some(endpoint) = self.core.endpoints.get(&number) else { return };
                let json = serde_json::to_vec(&endpoint.stored).unwrap_or_default();
                self.move_record(Record::Endpoint(&json).encode(), Then::EndpointMoved(number, true));
            }
            Survivor::Message(seq) => self.move_message(seq),
        }
    }

    fn move_message(&mut self, seq: u64) {
        let Some(message) = self.core.message(seq) else { return };
        let (place, attempts) = (message.place, message.attempts.to_vec());
        // What is damaged cannot be kept.
        let Ok(bytes) = self.reader.read(place) else { return };
        let Ok(Record::Message(stored)) = Record::decode(&bytes) else { return };
        let Some(renewed) = self.core.renew(&stored) else { return };
        self.move_record(renewed, Then::Moved(seq));
        for from in attempts {
            let Ok(bytes) = self.reader.read(from) else { continue };
            let Ok(Record::Attempt(stored)) = Record::decode(&bytes) else { continue };
            let renewed = self.core.renew_attempt(&stored);
            self.move_record(renewed, Then::AttemptMoved(seq, from));
        }
    }

    fn move_record(&mut self, record: Vec<u8>, then: Then) {
        if let Some(cleaning) = &mut self.cleaning {
            cleaning.under_way += 1;
        }
        self.store(record, false, Room::Reserve, then);
    }

    pub(super) fn one_cleaned(&mut self, cleaned: bool, result: Result<Option<Place>, Failure>) {
        if let Some(cleaning) = self.cleaning.as_mut().filter(|_| cleaned) {
            cleaning.under_way = cleaning.under_way.saturating_sub(1);
            cleaning.failed |= result.is_err();
        }
    }
}
