//! From the records of the store to what was known when they were written.

use std::collections::BTreeMap;

use waft_store::Place;

use super::record::Record;
use super::{Core, Delivery, Endpoint, Few, Message, State, StoredApp, StoredEndpoint};

impl Core {
    /// Takes in a record of the store, in the order in which they were written.
    pub fn replay(&mut self, place: Place, record: &Record<'_>) {
        match record {
            Record::App(json) => {
                if let Ok(stored) = serde_json::from_slice::<StoredApp>(json) {
                    self.put_app(stored, Some(place));
                }
            }
            Record::AppGone(number) => self.remove_app(*number),
            Record::Endpoint(json) => {
                if let Ok(stored) = serde_json::from_slice::<StoredEndpoint>(json)
                    && let Ok(endpoint) = Endpoint::new(stored, false)
                {
                    self.put_endpoint(Endpoint { place: Some(place), ..endpoint });
                }
            }
            Record::EndpointGone(number) => self.forget_endpoint(*number),
            Record::Mark(mark) => (self.mark, self.mark_place) = (*mark, Some(place)),
            Record::Message(message) => {
                self.last_seq = self.last_seq.max(message.seq);
                self.remember_key(message.app, message.idempotency, message.seq);
                let attempts = Few::None;
                let deliveries = message.deliveries.clone().into();
                let message_of = Message { place, app: message.app, order: message.order, deliveries, attempts };
                self.messages.insert(message.seq, message_of);
            }
            Record::Attempt(attempt) => {
                if let Some(message) = self.messages.get_mut(attempt.seq) {
                    if !attempt.moved {
                        message.put(attempt.delivery);
                        let good = attempt.delivery.state == State::Delivered;
                        if let Some(endpoint) = self.endpoints.get_mut(&attempt.delivery.endpoint) {
                            let since = &mut endpoint.stored.failing_since;
                            *since = if good { None } else { since.or(Some(attempt.at)) };
                        }
                    }
                    message.add_attempt(place);
                }
            }
            Record::Delivery { seq, delivery } => {
                if let Some(message) = self.messages.get_mut(*seq) {
                    message.put(*delivery);
                }
            }
        }
    }

    /// Puts everything that is to be delivered into its lane, after all records were taken in.
    pub fn start(&mut self, now: u64) {
        let unknown = |endpoints: &BTreeMap<u32, Endpoint>, delivery: &Delivery| {
            delivery.state.is_open() && !endpoints.contains_key(&delivery.endpoint)
        };
        for (seq, message) in self.messages.iter_mut() {
            for delivery in message.deliveries.iter_mut().filter(|delivery| unknown(&self.endpoints, delivery)) {
                delivery.state = State::Dead;
            }
            for delivery in message.deliveries.iter() {
                match delivery.state {
                    State::Pending | State::Sending => {
                        self.totals.open += 1;
                        self.lanes.put(delivery.endpoint, seq, delivery.due, message.order);
                    }
                    State::Dead => self.totals.dead += 1,
                    State::Delivered => {}
                }
            }
            if message.is_finished() {
                self.finished.push_back(seq);
            }
            self.totals.live_bytes += message.disk_bytes();
        }
        self.forget_keys(now);
    }
}
