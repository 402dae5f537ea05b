//! What an observer of the hub hears, and when.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use waft_hub::{Hub, HubLimits, ListenerCounts, Mode, Observer, Ordered};

use crate::desk::{Desk, EPOCH, item};

/// Writes down what it hears.
#[derive(Default)]
struct Diary(Mutex<Vec<String>>);

impl Diary {
    fn note(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer<&'static str> for Diary {
    fn subscribed(&self, channel: &Arc<str>, subscribed: bool) {
        self.note(format!("{}{channel}", if subscribed { '+' } else { '-' }));
    }

    fn counted(&self, channel: &Arc<str>, mode: Mode, listeners: u32, lingering: bool) {
        self.note(format!("{channel} {mode:?} {listeners}{}", if lingering { " lingering" } else { "" }));
    }

    fn ordered(&self, item: &Arc<Ordered<&'static str>>, listeners: ListenerCounts) {
        self.note(format!("{} to {}", item.payload, listeners.total()));
    }
}

fn observed(limits: HubLimits) -> (Desk, Arc<Diary>) {
    let diary = Arc::new(Diary::default());
    let hub = Hub::new(limits, EPOCH).observed_by(Arc::clone(&diary) as Arc<dyn Observer<_>>);
    (Desk { hub, now: Instant::now(), delivered: Vec::new() }, diary)
}

#[test]
fn the_first_and_the_last_subscription_of_a_channel_are_told() {
    let (desk, diary) = observed(HubLimits::default());
    desk.hub.subscribe(desk.now, 1, "c", Mode::Stream);
    desk.hub.subscribe(desk.now, 2, "c", Mode::Stream);
    desk.hub.subscribe(desk.now, 2, "c", Mode::Ws);
    assert_eq!(diary.take(), ["+c", "c Stream 1", "c Stream 2", "c Ws 1"]);
    desk.hub.unsubscribe(desk.now, 1, "c", Mode::Stream);
    desk.hub.unsubscribe(desk.now, 2, "c", Mode::Ws);
    desk.hub.unsubscribe(desk.now, 2, "c", Mode::Stream);
    assert_eq!(diary.take(), ["c Stream 1", "c Ws 0", "c Stream 0", "-c"]);
    desk.hub.unsubscribe(desk.now, 2, "c", Mode::Stream);
    assert_eq!(diary.take(), [""; 0]);
}

#[test]
fn a_long_poll_lingers_before_its_channel_counts_as_left() {
    let (mut desk, diary) = observed(HubLimits { linger: Duration::from_secs(60), ..HubLimits::default() });
    desk.hub.subscribe(desk.now, 1, "c", Mode::Response);
    desk.hub.unsubscribe(desk.now, 1, "c", Mode::Response);
    desk.pass(30.0);
    assert_eq!(diary.take(), ["+c", "c Response 1", "c Response 0 lingering"]);
    // Whoever comes back in time is no news.
    desk.hub.subscribe(desk.now, 1, "c", Mode::Response);
    desk.hub.unsubscribe(desk.now, 1, "c", Mode::Response);
    desk.hub.subscribe(desk.now, 1, "c", Mode::Stream);
    assert_eq!(diary.take(), ["c Response 1", "c Response 0 lingering", "c Stream 1"]);
    desk.pass(61.0);
    assert_eq!(diary.take(), ["c Response 0"]);
    desk.hub.unsubscribe(desk.now, 1, "c", Mode::Stream);
    assert_eq!(diary.take(), ["c Stream 0", "-c"]);
}

#[test]
fn items_are_told_with_their_listeners_be_there_any_or_none() {
    let (mut desk, diary) = observed(HubLimits::default());
    desk.publish(item("c", "a", ""));
    assert_eq!(diary.take(), ["a to 0"]);
    desk.hub.subscribe(desk.now, 1, "c", Mode::Stream);
    desk.hub.subscribe(desk.now, 1, "c", Mode::Ws);
    diary.take();
    desk.publish(item("c", "b", ""));
    desk.publish(item("c", "d", "c"));
    // The item that waits is told when its predecessor has come.
    assert_eq!(diary.take(), ["b to 2"]);
    desk.publish(item("c", "c", "b"));
    assert_eq!(diary.take(), ["c to 2", "d to 2"]);
}
