//! Duplicates and the order that publishers ask for.

use std::time::Duration;

use waft_hub::{HubLimits, ITEM_OVERHEAD, Mode, Outcome, Publish};

use crate::desk::{Desk, assert_empty, item};

/// Publishes (id, prev-id) pairs on a subscribed channel and looks at what was delivered.
fn check(published: &[(&'static str, &str)], expected: &[&str]) {
    let mut desk = Desk::subscribed();
    for (id, prev_id) in published {
        desk.chain(id, prev_id);
    }
    assert_eq!(desk.take(), expected, "{published:?}");
}

#[test]
fn items_follow_the_chain_of_their_ids() {
    // In order, with a hole that is filled, backwards, and with two holes.
    check(&[("a", ""), ("b", "a"), ("c", "b")], &["a", "b", "c"]);
    check(&[("a", ""), ("c", "b"), ("b", "a")], &["a", "b", "c"]);
    check(&[("a", ""), ("d", "c"), ("c", "b"), ("b", "a")], &["a", "b", "c", "d"]);
    check(&[("a", ""), ("e", "d"), ("c", "b"), ("b", "a")], &["a", "b", "c"]);
    // The first item of a channel has nothing to follow, whatever it names.
    check(&[("b", "a"), ("c", "b")], &["b", "c"]);
    // An item that names no predecessor comes at once and becomes the last one, for which others may have waited.
    check(&[("a", ""), ("c", "b"), ("b", "")], &["a", "b", "c"]);
    // After an item without an id nothing is known, and whatever comes next is delivered.
    check(&[("a", ""), ("", ""), ("z", "y")], &["a", "", "z"]);
    // A parked item without an id ends the chain.
    check(&[("a", ""), ("", "b"), ("b", "a"), ("z", "y")], &["a", "b", "", "z"]);
}

#[test]
fn the_answer_tells_what_waits_and_what_was_released() {
    let mut desk = Desk::subscribed();
    desk.chain("a", "");
    let waits = desk.publish(item("c", "c", "b"));
    assert_eq!((waits.outcome, waits.position, waits.listeners), (Outcome::Parked, None, 0));
    let fills = desk.publish(item("c", "b", "a"));
    assert_eq!((fills.outcome, fills.listeners, fills.released), (Outcome::Delivered, 1, 1));
    assert_eq!(fills.position.map(|position| position.number), Some(2));
}

#[test]
fn an_id_seen_a_short_while_ago_is_discarded_even_if_nobody_listened() {
    let mut desk = Desk::new(HubLimits::default());
    assert_eq!(desk.chain("a", ""), Outcome::Delivered);
    assert_eq!(desk.chain("a", ""), Outcome::Duplicate);
    desk.hub.subscribe(desk.now, 1, "c", Mode::Stream);
    assert_eq!(desk.chain("a", ""), Outcome::Duplicate);
    assert_eq!(desk.publish(Publish { no_seq: true, ..item("c", "a", "") }).outcome, Outcome::Duplicate);
    assert_eq!(desk.publish(item("other", "a", "")).outcome, Outcome::Delivered);
    assert_eq!(desk.chain("", ""), Outcome::Delivered);
    assert_eq!(desk.chain("", ""), Outcome::Delivered);
    // The second copy did not prolong the time of the first.
    desk.pass(59.9);
    assert_eq!(desk.chain("a", ""), Outcome::Duplicate);
    desk.pass(0.1);
    assert_eq!(desk.chain("a", ""), Outcome::Delivered);
}

#[test]
fn an_id_passes_after_its_time_even_if_nothing_expired_it() {
    let mut desk = Desk::subscribed();
    desk.chain("a", "");
    desk.now += Duration::from_secs(60);
    assert_eq!(desk.chain("a", ""), Outcome::Delivered);
}

#[test]
fn without_an_id_cache_every_copy_passes() {
    let mut desk = Desk::subscribed_with(HubLimits { id_cache_ttl: Duration::ZERO, ..HubLimits::default() });
    assert_eq!([desk.chain("a", ""), desk.chain("a", "")], [Outcome::Delivered; 2]);
    assert_eq!(desk.hub.totals().seen_ids, 0);
}

#[test]
fn a_full_id_cache_forgets_its_oldest_id() {
    let mut desk = Desk::subscribed_with(HubLimits { id_cache_max: 2, ..HubLimits::default() });
    for id in ["a", "b", "c"] {
        desk.chain(id, "");
    }
    assert_eq!(desk.hub.totals().seen_ids, 2);
    assert_eq!([desk.chain("c", ""), desk.chain("b", "")], [Outcome::Duplicate; 2]);
    assert_eq!(desk.chain("a", ""), Outcome::Delivered);
}

#[test]
fn nothing_waits_on_a_channel_without_a_subscription() {
    let mut desk = Desk::new(HubLimits::default());
    assert_eq!([desk.chain("a", ""), desk.chain("c", "b")], [Outcome::Delivered; 2]);
    assert_eq!(desk.last_id("c"), None);
}

#[test]
fn an_item_out_of_sequence_comes_at_once_and_leaves_the_sequence_alone() {
    let mut desk = Desk::subscribed();
    desk.chain("a", "");
    assert_eq!(desk.publish(Publish { no_seq: true, ..item("c", "x", "w") }).outcome, Outcome::Delivered);
    assert_eq!(desk.last_id("c").as_deref(), Some("a"));
    assert_eq!(desk.chain("b", "a"), Outcome::Delivered);
    assert_eq!(desk.take(), ["a", "x", "b"]);
}

#[test]
fn a_second_item_for_the_same_predecessor_is_dropped() {
    let mut desk = Desk::subscribed();
    desk.chain("a", "");
    assert_eq!(desk.chain("c", "b"), Outcome::Parked);
    assert_eq!(desk.chain("x", "b"), Outcome::RivalParked);
    desk.chain("b", "a");
    assert_eq!(desk.take(), ["a", "b", "c"]);
}

#[test]
fn no_more_than_the_limit_waits_on_a_channel() {
    let mut desk = Desk::subscribed_with(HubLimits { parked_max: 2, ..HubLimits::default() });
    desk.chain("a", "");
    assert_eq!([desk.chain("c", "b"), desk.chain("e", "d")], [Outcome::Parked; 2]);
    assert_eq!(desk.chain("g", "f"), Outcome::ParkedFull);
    assert_eq!(desk.hub.totals().parked, 2);
}

#[test]
fn no_more_bytes_than_the_limit_wait_over_all_channels() {
    let one = ITEM_OVERHEAD + 10;
    let mut desk = Desk::subscribed_with(HubLimits { parked_total_bytes_max: 2 * one, ..HubLimits::default() });
    desk.hub.subscribe(desk.now, 1, "d", Mode::Stream);
    desk.chain("a", "");
    desk.publish(item("d", "a", ""));
    assert_eq!(desk.chain("c", "b"), Outcome::Parked);
    assert_eq!(desk.publish(item("d", "c", "b")).outcome, Outcome::Parked);
    assert_eq!(desk.publish(item("d", "e", "d")).outcome, Outcome::ParkedFull);
    assert_eq!(desk.hub.totals().parked_bytes, 2 * one);
    desk.publish(item("d", "b", "a"));
    assert_eq!(desk.publish(item("d", "x", "w")).outcome, Outcome::Parked);
}

#[test]
fn an_item_that_waited_long_enough_is_delivered_and_becomes_the_last_one() {
    let mut desk = Desk::subscribed();
    desk.chain("a", "");
    desk.chain("c", "b");
    let parked_at = desk.now;
    assert_eq!(desk.pass(1.0), Some(parked_at + Duration::from_secs(5)));
    desk.chain("d", "c");
    desk.pass(3.9);
    assert_eq!(desk.take(), ["a"]);
    desk.pass(0.1);
    assert_eq!(desk.take(), ["c", "d"]);
    assert_eq!(desk.last_id("c").as_deref(), Some("d"));
    assert_eq!(desk.chain("e", "d"), Outcome::Delivered);
}

#[test]
fn an_item_that_waited_goes_after_the_predecessor_that_came_later() {
    let mut desk = Desk::subscribed();
    desk.chain("a", "");
    desk.chain("d", "c");
    desk.pass(1.0);
    desk.chain("c", "b");
    desk.pass(4.0);
    assert_eq!(desk.take(), ["a", "c", "d"]);
}

#[test]
fn each_item_waits_its_own_time() {
    let mut desk = Desk::subscribed();
    desk.chain("a", "");
    desk.chain("c", "b");
    desk.pass(2.0);
    desk.chain("x", "w");
    desk.pass(3.0);
    assert_eq!(desk.take(), ["a", "c"]);
    desk.pass(2.0);
    assert_eq!(desk.take(), ["x"]);
}

#[test]
fn items_that_wait_for_each_other_in_a_ring_are_delivered_once() {
    let mut desk = Desk::subscribed();
    desk.chain("a", "");
    desk.chain("x", "y");
    desk.chain("y", "x");
    desk.chain("self", "self");
    desk.pass(5.0);
    let mut delivered = desk.take();
    delivered.sort_unstable();
    assert_eq!(delivered, ["a", "self", "x", "y"]);
    assert_eq!(desk.hub.totals().parked, 0);
}

#[test]
fn a_forgotten_last_id_lets_the_next_item_pass() {
    let mut desk = Desk::subscribed();
    desk.chain("a", "");
    desk.hub.forget_last_id("c");
    assert_eq!(desk.last_id("c"), None);
    assert_eq!(desk.chain("z", "y"), Outcome::Delivered);
    desk.hub.forget_all_last_ids();
    assert_eq!(desk.hub.totals().remembered_channels, 0);
    assert_eq!(desk.chain("q", "p"), Outcome::Delivered);
}

#[test]
fn forgetting_the_last_id_keeps_what_waits() {
    let mut desk = Desk::subscribed();
    desk.chain("a", "");
    desk.chain("c", "b");
    desk.hub.forget_last_id("c");
    desk.chain("b", "a");
    assert_eq!(desk.take(), ["a", "b", "c"]);
}

#[test]
fn the_last_id_goes_with_the_last_subscription_and_what_waited_goes_to_the_log() {
    let mut desk = Desk::subscribed();
    desk.hub.subscribe(desk.now, 2, "c", Mode::Ws);
    desk.chain("a", "");
    desk.chain("c", "b");
    desk.hub.unsubscribe(desk.now, 1, "c", Mode::Stream);
    assert_eq!(desk.hub.totals().parked, 1);
    desk.hub.unsubscribe(desk.now, 2, "c", Mode::Ws);
    let totals = desk.hub.totals();
    assert_eq!((totals.parked, totals.parked_bytes, totals.remembered_channels, totals.log_items), (0, 0, 0, 2));
    assert_eq!(desk.last_id("c"), None);
    assert_eq!(desk.take(), ["a"]);
}

#[test]
fn the_table_of_last_ids_forgets_the_oldest_channels() {
    let mut desk = Desk::new(HubLimits { remembered_channels_max: 1, ..HubLimits::default() });
    // Make room is looked for near the newest channel, so the bound holds but any channel may be the one that stays.
    for channel in ["a", "b", "c", "d"] {
        desk.hub.subscribe(desk.now, 1, channel, Mode::Stream);
        desk.publish(item(channel, "x", ""));
        assert_eq!(desk.hub.totals().remembered_channels, 1, "{channel}");
    }
}

#[test]
fn nothing_is_left_when_everybody_has_gone_and_time_has_passed() {
    let mut desk = Desk::subscribed();
    desk.chain("a", "");
    desk.chain("c", "b");
    desk.hub.unsubscribe(desk.now, 1, "c", Mode::Stream);
    desk.pass(61.0);
    assert_empty(&desk.hub);
}
