//! Who counts as subscribed, and for how long.

use std::time::Duration;

use waft_hub::{ChannelCounts, HubLimits, ListenerCounts, Mode};

use crate::desk::{Desk, assert_empty, item};

#[test]
fn an_item_is_handed_once_to_each_shard_that_listens() {
    let mut desk = Desk::new(HubLimits::default());
    for (shard, mode) in [(1, Mode::Stream), (1, Mode::Stream), (1, Mode::Ws), (3, Mode::Response)] {
        desk.hub.subscribe(desk.now, shard, "c", mode);
    }
    desk.hub.subscribe(desk.now, 2, "other", Mode::Ws);
    let published = desk.publish(item("c", "a", ""));
    assert_eq!(published.listeners, 4);
    desk.delivered.sort_unstable();
    assert_eq!(desk.delivered, [(1, "a"), (3, "a")]);
}

#[test]
fn a_shard_gets_items_until_its_last_listener_left() {
    let mut desk = Desk::subscribed();
    desk.hub.subscribe(desk.now, 1, "c", Mode::Ws);
    desk.hub.unsubscribe(desk.now, 1, "c", Mode::Stream);
    desk.chain("a", "");
    desk.hub.unsubscribe(desk.now, 1, "c", Mode::Ws);
    desk.chain("b", "");
    assert_eq!(desk.take(), ["a"]);
}

#[test]
fn one_who_never_came_cannot_leave() {
    let mut desk = Desk::subscribed();
    desk.hub.unsubscribe(desk.now, 2, "c", Mode::Stream);
    desk.hub.unsubscribe(desk.now, 1, "c", Mode::Response);
    desk.hub.unsubscribe(desk.now, 1, "nowhere", Mode::Stream);
    assert_eq!(desk.publish(item("c", "a", "")).listeners, 1);
}

#[test]
fn only_a_channel_without_any_subscription_is_subscribed_to_for_the_first_time() {
    let desk = Desk::new(HubLimits::default());
    let first = |shard, mode| desk.hub.subscribe(desk.now, shard, "c", mode).first_on_instance;
    assert!(first(1, Mode::Stream));
    assert!(!first(2, Mode::Stream));
    desk.hub.unsubscribe(desk.now, 1, "c", Mode::Stream);
    desk.hub.unsubscribe(desk.now, 2, "c", Mode::Stream);
    assert!(first(1, Mode::Response));
}

#[test]
fn after_a_response_hold_the_channel_stays_subscribed_for_a_while() {
    let mut desk = Desk::new(HubLimits::default());
    desk.hub.subscribe(desk.now, 1, "c", Mode::Response);
    desk.chain("a", "");
    desk.hub.unsubscribe(desk.now, 1, "c", Mode::Response);
    desk.pass(59.0);
    assert!(desk.hub.is_subscribed("c"));
    assert!(!desk.hub.subscribe(desk.now, 1, "c", Mode::Response).first_on_instance);
    assert_eq!(desk.last_id("c").as_deref(), Some("a"));
    // The time begins anew with each poll.
    desk.pass(30.0);
    desk.hub.unsubscribe(desk.now, 1, "c", Mode::Response);
    desk.pass(59.0);
    assert!(desk.hub.is_subscribed("c"));
    desk.pass(1.0);
    assert!(!desk.hub.is_subscribed("c"));
    assert_empty(&desk.hub);
}

#[test]
fn a_lingering_channel_has_an_order_but_nobody_to_deliver_to() {
    let mut desk = Desk::new(HubLimits::default());
    desk.hub.subscribe(desk.now, 1, "c", Mode::Response);
    desk.hub.unsubscribe(desk.now, 1, "c", Mode::Response);
    desk.chain("a", "");
    desk.chain("c", "b");
    assert_eq!((desk.take(), desk.hub.totals().parked), (vec![], 1));
}

#[test]
fn without_lingering_a_response_hold_leaves_like_any_other() {
    let desk = Desk::new(HubLimits { linger: Duration::ZERO, ..HubLimits::default() });
    desk.hub.subscribe(desk.now, 1, "c", Mode::Response);
    desk.hub.unsubscribe(desk.now, 1, "c", Mode::Response);
    assert_empty(&desk.hub);
}

#[test]
fn the_statistics_show_subscribed_channels_by_mode() {
    let mut desk = Desk::new(HubLimits::default());
    desk.publish(item("unheard", "a", ""));
    desk.hub.subscribe(desk.now, 1, "c", Mode::Stream);
    desk.hub.subscribe(desk.now, 2, "c", Mode::Ws);
    desk.hub.subscribe(desk.now, 1, "c", Mode::Response);
    desk.hub.unsubscribe(desk.now, 1, "c", Mode::Response);
    let listeners = ListenerCounts { response: 0, stream: 1, ws: 1 };
    let expected = ChannelCounts { name: "c".into(), listeners, lingering: true };
    assert_eq!(desk.hub.channels().collect::<Vec<_>>(), [expected]);
    assert_eq!(desk.hub.totals().channels, 2);
}

#[test]
fn much_that_is_due_at_once_is_done_in_bounded_steps() {
    let mut desk = Desk::new(HubLimits::default());
    for number in 0..10_000 {
        desk.publish(item(&format!("c{number}"), "a", ""));
    }
    let mut calls = 0;
    let mut seconds = 60.0;
    while let Some(next) = desk.pass(seconds) {
        assert!(next <= desk.now, "nothing new was set");
        seconds = 0.0;
        calls += 1;
        assert!(calls < 20);
    }
    // A log and an id for each of the channels.
    assert!(calls >= 4, "{calls}");
    assert_empty(&desk.hub);
}
