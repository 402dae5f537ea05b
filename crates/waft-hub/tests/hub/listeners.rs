//! The index of who listens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use waft_hub::{Listeners, Subscription};

fn all(listeners: &Listeners<u64>, channel: &str, class: u8) -> Vec<u64> {
    let Some(channel) = listeners.channel(channel) else { return Vec::new() };
    let mut keys: Vec<u64> = listeners.walk(channel, class, 0, listeners.slots(channel, class)).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn listeners_are_found_by_channel_and_class() {
    let mut listeners = Listeners::new();
    let (red, blue): (Arc<str>, Arc<str>) = ("red".into(), "blue".into());
    listeners.add(&red, 0, 1);
    listeners.add(&red, 7, 2);
    let third = listeners.add(&red, 7, 3);
    listeners.add(&blue, 0, 4);
    assert_eq!(all(&listeners, "red", 0), [1]);
    assert_eq!(all(&listeners, "red", 7), [2, 3]);
    assert_eq!(all(&listeners, "red", 1), []);
    assert_eq!(all(&listeners, "blue", 0), [4]);
    let channel = listeners.channel("red").unwrap();
    assert_eq!(listeners.classes(channel).collect::<Vec<_>>(), [(0, 1), (7, 2)]);
    assert_eq!((listeners.len_of(channel, 7), listeners.len(), listeners.channels_len()), (2, 4, 2));
    assert_eq!(listeners.name_of(third).map(|name| &**name), Some("red"));
    assert_eq!((listeners.channel_of(third), listeners.class_of(third)), (Some(channel), Some(7)));
}

#[test]
fn a_subscription_is_removed_once() {
    let mut listeners = Listeners::new();
    let channel: Arc<str> = "c".into();
    let first = listeners.add(&channel, 0, 1);
    assert_eq!(listeners.remove(first), Some(1));
    assert_eq!(listeners.channel("c"), None);
    let second = listeners.add(&channel, 0, 2);
    assert_eq!(listeners.remove(first), None);
    assert_eq!(listeners.name_of(first), None);
    assert_eq!(listeners.remove(second), Some(2));
    assert!(listeners.is_empty() && listeners.channels_len() == 0);
}

#[test]
fn a_channel_whose_last_listener_leaves_stays_until_its_walk_ends() {
    let mut listeners = Listeners::new();
    let only = listeners.add(&"c".into(), 0, 1);
    let channel = listeners.channel("c").unwrap();
    assert_eq!(listeners.pin(channel, 0), Some(1));
    assert_eq!(listeners.pin(channel, 1), None);
    listeners.remove(only);
    assert_eq!((listeners.walk(channel, 0, 0, 1).count(), listeners.len_of(channel, 0)), (0, 0));
    assert_eq!(listeners.classes(channel).count(), 0);
    assert_eq!(listeners.name(channel).map(|name| &**name), Some("c"));
    listeners.unpin(channel, 0);
    assert_eq!((listeners.name(channel), listeners.channels_len()), (None, 0));
}

#[test]
fn a_walk_beyond_the_end_meets_nobody() {
    let mut listeners = Listeners::new();
    listeners.add(&"c".into(), 0, 1);
    let channel = listeners.channel("c").unwrap();
    assert_eq!(listeners.walk(channel, 0, 1, 10).count(), 0);
    assert_eq!(listeners.walk(channel, 0, usize::MAX, usize::MAX).count(), 0);
    assert_eq!(listeners.walk(channel, 0, 0, usize::MAX).count(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Add { channel: u8, class: u8 },
    Remove { which: usize },
    Walk { channel: u8, class: u8 },
    WalkOn { which: usize, count: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u8, 0..3_u8).prop_map(|(channel, class)| Step::Add { channel, class }),
        3 => any::<usize>().prop_map(|which| Step::Remove { which }),
        1 => (0..6_u8, 0..3_u8).prop_map(|(channel, class)| Step::Walk { channel, class }),
        2 => (any::<usize>(), 0..4_usize).prop_map(|(which, count)| Step::WalkOn { which, count }),
    ]
}

/// A walk under way: who was there at its begin, who of them left, and whom it met.
struct Walk {
    channel: u8,
    class: u8,
    index: waft_hub::ChannelIndex,
    next: usize,
    end: usize,
    expected: BTreeSet<u64>,
    left: BTreeSet<u64>,
    met: BTreeSet<u64>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn the_index_agrees_with_a_model_and_a_pinned_walk_meets_all_who_stay_once(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut listeners = Listeners::new();
        let mut model: BTreeMap<(u8, u8), BTreeSet<u64>> = BTreeMap::new();
        let mut subscriptions: Vec<(Subscription, u8, u8, u64)> = Vec::new();
        let mut walks: Vec<Walk> = Vec::new();
        let end = steps.len() as u64;
        // At the end everybody leaves and every walk is walked on to its end.
        let clean_up = (0..end * 2).flat_map(|_| {
            [Step::Remove { which: 0 }, Step::WalkOn { which: 0, count: 1_000 }]
        });
        for (key, step) in (0_u64..).zip(steps.into_iter().chain(clean_up)) {
            match step {
                Step::Add { channel, class } => {
                    let name: Arc<str> = format!("channel {channel}").into();
                    let subscription = listeners.add(&name, class, key);
                    prop_assert_eq!(listeners.name_of(subscription), Some(&name));
                    subscriptions.push((subscription, channel, class, key));
                    model.entry((channel, class)).or_default().insert(key);
                }
                Step::Remove { which } if !subscriptions.is_empty() => {
                    let place = which % subscriptions.len();
                    let (subscription, channel, class, key) = subscriptions.swap_remove(place);
                    prop_assert_eq!(listeners.remove(subscription), Some(key));
                    prop_assert_eq!(listeners.remove(subscription), None);
                    model.entry((channel, class)).or_default().remove(&key);
                    for walk in walks.iter_mut().filter(|walk| (walk.channel, walk.class) == (channel, class)) {
                        walk.left.insert(key);
                    }
                }
                Step::Walk { channel, class } => {
                    let Some(index) = listeners.channel(&format!("channel {channel}")) else { continue };
                    let Some(end) = listeners.pin(index, class) else { continue };
                    let expected = model.entry((channel, class)).or_default().clone();
                    let (left, met) = (BTreeSet::new(), BTreeSet::new());
                    walks.push(Walk { channel, class, index, next: 0, end, expected, left, met });
                }
                Step::WalkOn { which, count } if !walks.is_empty() => {
                    let place = which % walks.len();
                    let walk = &mut walks[place];
                    let count = count.min(walk.end - walk.next);
                    for key in listeners.walk(walk.index, walk.class, walk.next, count) {
                        prop_assert!(walk.met.insert(key), "{} was met twice", key);
                        prop_assert!(walk.expected.contains(&key) && !walk.left.contains(&key));
                    }
                    walk.next += count;
                    if walk.next == walk.end {
                        let walk = walks.swap_remove(place);
                        prop_assert!(walk.expected.iter().all(|key| walk.met.contains(key) || walk.left.contains(key)));
                        listeners.unpin(walk.index, walk.class);
                    }
                }
                Step::Remove { .. } | Step::WalkOn { .. } => {}
            }
            prop_assert_eq!(listeners.len(), subscriptions.len());
            if subscriptions.is_empty() && walks.is_empty() && key > end {
                break;
            }
            if key % 4 != 0 {
                continue;
            }
            for ((channel, class), keys) in &model {
                let found = all(&listeners, &format!("channel {channel}"), *class);
                prop_assert!(found.iter().eq(keys), "{:?} is not {:?}", found, keys);
            }
        }
        prop_assert_eq!((listeners.len(), listeners.channels_len(), walks.len()), (0, 0, 0));
    }
}
