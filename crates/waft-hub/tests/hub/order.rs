//! One order for everybody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use waft_hub::{Hub, HubLimits, Mode, Ordered, Position, Publish, Replay, Since};

use crate::desk::assert_empty;

const CHANNELS: [&str; 3] = ["red", "green", "blue"];
const MODES: [Mode; 3] = [Mode::Response, Mode::Stream, Mode::Ws];

#[derive(Clone, Debug)]
enum Step {
    Come { shard: u16, channel: usize, mode: usize, resume: bool },
    Forget { channel: usize },
    Leave { shard: u16, channel: usize, mode: usize },
    Pass { millis: u64 },
    Publish { channel: usize, id: Option<u8>, prev_id: Option<u8>, no_seq: bool, size: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let publish = (0..3_usize, prop::option::of(0..12_u8), prop::option::of(0..12_u8), any::<bool>(), 0..300_usize);
    prop_oneof![
        2 => (0..4_u16, 0..3_usize, 0..3_usize, any::<bool>())
            .prop_map(|(shard, channel, mode, resume)| Step::Come { shard, channel, mode, resume }),
        1 => (0..3_usize).prop_map(|channel| Step::Forget { channel }),
        2 => (0..4_u16, 0..3_usize, 0..3_usize).prop_map(|(shard, channel, mode)| Step::Leave { shard, channel, mode }),
        2 => (0..9_000_u64).prop_map(|millis| Step::Pass { millis }),
        6 => publish
            .prop_map(|(channel, id, prev_id, no_seq, size)| Step::Publish { channel, id, prev_id, no_seq, size }),
    ]
}

/// What a shard saw of a channel: it checks that each item follows the one before.
#[derive(Default)]
struct Reader {
    listeners: [u32; 3],
    last: Option<Position>,
}

#[derive(Default)]
struct Readers {
    by_place: HashMap<(u16, usize), Reader>,
    /// The payload of every position ever given out.
    items: HashMap<(usize, u64), u32>,
    wrong: Option<String>,
}

impl Readers {
    fn deliver(&mut self, shard: u16, item: &Ordered<u32>) {
        let channel = CHANNELS.iter().position(|name| **name == *item.channel).unwrap_or(CHANNELS.len());
        let first = *self.items.entry((channel, item.position.number)).or_insert(item.payload);
        let reader = self.by_place.entry((shard, channel)).or_default();
        let follows = reader.last.is_some_and(|last| last.number + 1 == item.position.number);
        let listens = reader.listeners.iter().sum::<u32>() > 0;
        if first != item.payload || !follows || !listens {
            self.wrong = Some(format!("shard {shard} after {:?} was handed {item:?}", reader.last));
        }
        reader.last = Some(item.position);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn each_shard_sees_one_order_without_a_hole_or_is_told(steps in prop::collection::vec(step(), 1..200)) {
        let limits = HubLimits {
            log_items_max: 5,
            log_bytes_max: 1_500,
            log_age_max: Duration::from_secs(20),
            log_total_bytes_max: 2_500,
            id_cache_ttl: Duration::from_secs(3),
            id_cache_max: 6,
            parked_max: 3,
            remembered_channels_max: 2,
            linger: Duration::from_secs(7),
            ..HubLimits::default()
        };
        let hub = Hub::new(limits.clone(), 5);
        let mut now = Instant::now();
        let mut readers = Readers::default();
        for (number, step) in (0_u32..).zip(steps) {
            match step {
                Step::Come { shard, channel, mode, resume } => {
                    let reader = readers.by_place.entry((shard, channel)).or_default();
                    let subscribed = match reader.last.filter(|_| resume) {
                        Some(last) => {
                            let since = Since::Position(last);
                            let (subscribed, replay) =
                                hub.subscribe_since(now, shard, CHANNELS[channel], MODES[mode], since);
                            let (is_gap, items) = match replay {
                                Replay::Items(items) => (false, items),
                                Replay::Gap { available, .. } => (true, available),
                                Replay::Unknown => panic!("the hub gave this position out"),
                            };
                            let first = subscribed.position.number - items.len() as u64;
                            let joins = if is_gap { first > last.number } else { first == last.number };
                            prop_assert!(joins, "{:?} after {:?}, gap: {}", items, last, is_gap);
                            for (item, expected) in items.iter().zip(first + 1..) {
                                prop_assert_eq!(item.position.number, expected);
                                if let Some(payload) = readers.items.get(&(channel, expected)) {
                                    prop_assert_eq!(*payload, item.payload);
                                }
                            }
                            subscribed
                        }
                        None => hub.subscribe(now, shard, CHANNELS[channel], MODES[mode]),
                    };
                    if reader.listeners.iter().sum::<u32>() > 0 {
                        prop_assert_eq!(reader.last, Some(subscribed.position));
                    }
                    reader.last = Some(subscribed.position);
                    reader.listeners[mode] += 1;
                }
                Step::Forget { channel } => hub.forget_last_id(CHANNELS[channel]),
                Step::Leave { shard, channel, mode } => {
                    hub.unsubscribe(now, shard, CHANNELS[channel], MODES[mode]);
                    if let Some(reader) = readers.by_place.get_mut(&(shard, channel)) {
                        reader.listeners[mode] = reader.listeners[mode].saturating_sub(1);
                    }
                }
                Step::Pass { millis } => {
                    now += Duration::from_millis(millis);
                    let next = hub.expire(now, &mut |shard, item| readers.deliver(shard, item));
                    prop_assert!(next.is_none_or(|next| next > now));
                }
                Step::Publish { channel, id, prev_id, no_seq, size } => {
                    let name = |id: Option<u8>| id.map(|id| Arc::from(id.to_string()));
                    let channel = CHANNELS[channel].into();
                    let item =
                        Publish { channel, id: name(id), prev_id: name(prev_id), no_seq, size, payload: number };
                    hub.publish(now, item, &mut |shard, item| readers.deliver(shard, item));
                }
            }
            prop_assert!(readers.wrong.is_none(), "{:?}", readers.wrong);
            let totals = hub.totals();
            prop_assert!(totals.log_bytes <= limits.log_total_bytes_max, "{:?}", totals);
            prop_assert!(totals.seen_ids <= limits.id_cache_max, "{:?}", totals);
            prop_assert!(totals.remembered_channels <= limits.remembered_channels_max, "{:?}", totals);
        }
        for ((shard, channel), reader) in &readers.by_place {
            for (mode, count) in MODES.into_iter().zip(reader.listeners) {
                (0..count).for_each(|_| hub.unsubscribe(now, *shard, CHANNELS[*channel], mode));
            }
        }
        // Lingering ends first; what waited until then goes to the log, and ages from when it was published.
        hub.expire(now + Duration::from_secs(100), &mut |shard, item| readers.deliver(shard, item));
        hub.expire(now + Duration::from_secs(200), &mut |_, _| {});
        assert_empty(&hub);
    }
}

#[test]
fn publishers_on_many_threads_reach_every_shard_in_one_order() {
    const PUBLISHERS: u32 = 4;
    const ITEMS: u32 = 3_000;
    let hub = Hub::new(HubLimits::default(), 5);
    let seen: [Mutex<Vec<(u64, u32)>>; 4] = Default::default();
    let deliver = |shard: u16, item: &Arc<Ordered<u32>>| {
        seen[usize::from(shard)].lock().unwrap().push((item.position.number, item.payload));
    };
    let now = Instant::now();
    for shard in 0..3 {
        hub.subscribe(now, shard, "busy", Mode::Stream);
    }
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let (hub, deliver) = (&hub, &deliver);
            scope.spawn(move || {
                for number in 0..ITEMS {
                    let payload = publisher * ITEMS + number;
                    let id = Some(Arc::from(payload.to_string()));
                    let item = Publish { channel: "busy".into(), id, prev_id: None, no_seq: false, size: 4, payload };
                    hub.publish(now, item, &mut |shard, item| deliver(shard, item));
                }
            });
        }
        // A shard whose listener comes and goes: from its position on until it leaves, nothing is missing.
        scope.spawn(|| {
            for _ in 0..500 {
                let from = hub.subscribe(now, 3, "busy", Mode::Ws).position.number;
                thread::yield_now();
                hub.unsubscribe(now, 3, "busy", Mode::Ws);
                let visit = std::mem::take(&mut *seen[3].lock().unwrap());
                assert!(visit.iter().map(|(number, _)| *number).eq(from + 1..=from + visit.len() as u64));
            }
        });
    });
    let first = seen[0].lock().unwrap();
    assert!(first.iter().map(|(number, _)| *number).eq(1..=u64::from(PUBLISHERS * ITEMS)));
    for shard in &seen[1..3] {
        assert_eq!(*shard.lock().unwrap(), *first);
    }
    for publisher in 0..PUBLISHERS {
        let own = first.iter().map(|(_, payload)| *payload).filter(|payload| payload / ITEMS == publisher);
        assert!(own.eq(publisher * ITEMS..(publisher + 1) * ITEMS));
    }
}

#[test]
fn chains_published_on_many_threads_arrive_in_the_order_of_their_ids() {
    const ITEMS: u32 = 400;
    let limits = HubLimits { parked_max: 1_000, ..HubLimits::default() };
    let hub = Hub::new(limits, 5);
    let seen = Mutex::new(Vec::new());
    let now = Instant::now();
    hub.subscribe(now, 0, "busy", Mode::Stream);
    let publish = |number: u32| {
        let (id, prev_id) =
            (Some(Arc::from(number.to_string())), number.checked_sub(1).map(|id| id.to_string().into()));
        let item = Publish { channel: "busy".into(), id, prev_id, no_seq: false, size: 4, payload: number };
        hub.publish(now, item, &mut |_, item: &Arc<Ordered<u32>>| seen.lock().unwrap().push(item.payload));
    };
    publish(0);
    thread::scope(|scope| {
        for thread in 0..4 {
            let publish = &publish;
            scope.spawn(move || (1..ITEMS).filter(|number| number % 4 == thread).for_each(publish));
        }
    });
    assert!(seen.lock().unwrap().iter().copied().eq(0..ITEMS));
}
