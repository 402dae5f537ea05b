//! What a reader who comes back is told.

use std::time::Duration;

use waft_hub::{HubLimits, ITEM_OVERHEAD, Mode, Outcome, Position, Publish, Replay, Since};

use crate::desk::{Desk, EPOCH, assert_empty, at, item, said};

fn with_items(limits: HubLimits, ids: &[&'static str]) -> Desk {
    let mut desk = Desk::new(limits);
    for id in ids {
        desk.chain(id, "");
    }
    desk
}

#[test]
fn a_reader_gets_exactly_what_came_after_its_position() {
    let desk = with_items(HubLimits::default(), &["a", "b", "c"]);
    let check = |number, expected| assert_eq!(said(desk.hub.since_position("c", at(number))), expected, "{number}");
    check(0, ("items", vec!["a", "b", "c"]));
    check(2, ("items", vec!["c"]));
    check(3, ("items", vec![]));
    // A position that nobody was ever given.
    check(4, ("unknown", vec![]));
}

#[test]
fn a_reader_gets_exactly_what_came_after_its_id() {
    let desk = with_items(HubLimits::default(), &["a", "b", "c"]);
    let check = |id, expected| assert_eq!(said(desk.hub.since_id("c", id)), expected, "{id}");
    check("a", ("items", vec!["b", "c"]));
    check("c", ("items", vec![]));
    check("z", ("gap", vec!["a", "b", "c"]));
    assert_eq!(said(desk.hub.since_id("other", "a")), ("unknown", vec![]));
}

#[test]
fn a_position_of_an_earlier_run_is_a_gap() {
    let desk = with_items(HubLimits::default(), &["a", "b"]);
    let earlier = Position { epoch: EPOCH - 1, number: 2 };
    assert_eq!(said(desk.hub.since_position("c", earlier)), ("gap", vec!["a", "b"]));
    assert_eq!(said(desk.hub.since_position("quiet", earlier)), ("gap", vec![]));
}

#[test]
fn the_log_keeps_the_newest_items_up_to_its_count() {
    let desk = with_items(HubLimits { log_items_max: 2, ..HubLimits::default() }, &["a", "b", "c"]);
    assert_eq!(said(desk.hub.since_position("c", at(1))), ("items", vec!["b", "c"]));
    let Replay::Gap { available, oldest } = desk.hub.since_position("c", at(0)) else { panic!("a is gone") };
    assert_eq!((available.len(), oldest), (2, at(2)));
    assert_eq!(said(desk.hub.since_id("c", "a")), ("gap", vec!["b", "c"]));
}

#[test]
fn the_log_keeps_the_newest_items_up_to_its_bytes() {
    let mut desk =
        with_items(HubLimits { log_bytes_max: 2 * (ITEM_OVERHEAD + 10), ..HubLimits::default() }, &["a", "b", "c"]);
    assert_eq!(said(desk.hub.since_position("c", at(0))), ("gap", vec!["b", "c"]));
    // An item that fits in no log empties it: there is no hole that nobody is told of.
    desk.publish(Publish { size: 1_000, ..item("c", "large", "") });
    assert_eq!(said(desk.hub.since_position("c", at(3))), ("gap", vec![]));
    assert_eq!(said(desk.hub.since_position("c", at(4))).0, "items");
}

#[test]
fn the_log_keeps_items_up_to_their_age() {
    let mut desk = with_items(HubLimits::default(), &["a"]);
    desk.pass(30.0);
    desk.chain("b", "");
    desk.pass(29.9);
    assert_eq!(said(desk.hub.since_position("c", at(0))), ("items", vec!["a", "b"]));
    desk.pass(0.1);
    assert_eq!(said(desk.hub.since_position("c", at(0))), ("gap", vec!["b"]));
    assert_eq!(said(desk.hub.since_position("c", at(1))), ("items", vec!["b"]));
    desk.pass(30.0);
    assert_empty(&desk.hub);
}

#[test]
fn the_logs_of_all_channels_keep_within_their_bytes() {
    let one = ITEM_OVERHEAD + 10;
    let mut desk = Desk::new(HubLimits { log_total_bytes_max: 3 * one, ..HubLimits::default() });
    for channel in ["a", "b", "c", "d", "e", "f"] {
        for id in ["1", "2"] {
            desk.publish(item(channel, id, ""));
            assert!(desk.hub.totals().log_bytes <= 3 * one, "{:?}", desk.hub.totals());
        }
    }
    assert_eq!(desk.hub.totals().log_bytes, desk.hub.totals().log_items * one);
}

#[test]
fn within_one_channel_the_oldest_items_make_room() {
    let one = ITEM_OVERHEAD + 10;
    let desk = with_items(HubLimits { log_total_bytes_max: 2 * one, ..HubLimits::default() }, &["a", "b", "c"]);
    assert_eq!(said(desk.hub.since_position("c", at(1))), ("items", vec!["b", "c"]));
}

#[test]
fn without_logs_a_reader_is_told_of_the_gap() {
    let mut desk = Desk::new(HubLimits { log_items_max: 0, id_cache_ttl: Duration::ZERO, ..HubLimits::default() });
    assert_eq!(desk.chain("a", ""), Outcome::Delivered);
    assert_empty(&desk.hub);
    assert_eq!(said(desk.hub.since_position("c", at(0))), ("gap", vec![]));
    assert_eq!(said(desk.hub.since_position("c", at(1))), ("items", vec![]));
}

#[test]
fn a_channel_that_was_gone_gives_no_position_twice() {
    let mut desk = with_items(HubLimits::default(), &["a", "b"]);
    desk.pass(60.0);
    assert_empty(&desk.hub);
    let subscribed = desk.hub.subscribe(desk.now, 1, "c", Mode::Ws);
    assert_eq!(subscribed.position, at(2));
    assert_eq!(said(desk.hub.since_position("c", at(2))), ("items", vec![]));
    assert_eq!(said(desk.hub.since_position("c", at(1))), ("gap", vec![]));
    assert_eq!(desk.publish(item("c", "n", "")).position, Some(at(3)));
}

#[test]
fn a_subscription_with_a_replay_joins_the_past_to_the_future() {
    let mut desk = with_items(HubLimits::default(), &["a", "b"]);
    let (subscribed, replay) = desk.hub.subscribe_since(desk.now, 1, "c", Mode::Stream, Since::Id("a"));
    assert_eq!((subscribed.position, said(replay)), (at(2), ("items", vec!["b"])));
    desk.chain("n", "");
    assert_eq!(desk.take(), ["n"]);
    let (subscribed, replay) = desk.hub.subscribe_since(desk.now, 1, "c", Mode::Stream, Since::Position(at(1)));
    assert_eq!((subscribed.position, said(replay)), (at(3), ("items", vec!["b", "n"])));
}
