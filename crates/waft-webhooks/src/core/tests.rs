use std::collections::BTreeMap;

use proptest::prelude::*;

use super::record::StoredMessage;
use super::*;

const DAY: u64 = 86_400_000;
/// Some day in 2023.
const NOW: u64 = 1_700_000_000_000;

/// A core with a log in memory, which can be started again from it.
struct World {
    core: Core,
    log: Vec<(Place, Vec<u8>)>,
    now: u64,
}

impl World {
    fn new(limits: CoreLimits) -> Self {
        let mut world = Self { core: Core::new(limits), log: Vec::new(), now: NOW };
        let app = StoredApp { number: 1, id: "a".into(), created: 0, token: None, configured: false };
        let place = world.write(Record::App(&serde_json::to_vec(&app).unwrap()).encode());
        world.core.put_app(app, Some(place));
        world
    }

    fn write(&mut self, record: Vec<u8>) -> Place {
        let place = Place { segment: 1, offset: self.log.len() as u32, length: record.len() as u32 };
        self.log.push((place, record));
        place
    }

    fn endpoint(&mut self, number: u32, change: impl FnOnce(&mut EndpointSettings)) {
        let mut settings = EndpointSettings { url: format!("http://host{number}.example/"), ..Default::default() };
        change(&mut settings);
        let stored = StoredEndpoint {
            number,
            id: format!("ep_{number}"),
            app: 1,
            created: 0,
            settings,
            secrets: Vec::new(),
            stopped: None,
            verified: true,
            failing_since: None,
            configured: false,
            origin: false,
        };
        let place = self.write(Record::Endpoint(&serde_json::to_vec(&stored).unwrap()).encode());
        self.core.put_endpoint(Endpoint { place: Some(place), ..Endpoint::new(stored, false).unwrap() });
    }

    fn submit(&mut self, kind: &str, order: u64) -> u64 {
        let Prepared::New { seq, deliveries } = self.core.prepare(self.now, 1, kind, 0, None).unwrap() else {
            panic!("known")
        };
        let message = StoredMessage {
            seq,
            app: 1,
            order,
            idempotency: 0,
            kind,
            content_type: "",
            deliveries: deliveries.clone(),
            request: None,
            body: b"{}",
        };
        let place = self.write(Record::Message(message).encode());
        self.core.accept(seq, place, 1, order, deliveries, self.now);
        seq
    }

    fn finish(&mut self, turn: Turn, outcome: Outcome) -> Vec<Notice> {
        let host = format!("host{}.example", turn.endpoint);
        let outcome = Outcome { at: self.now, ..outcome };
        let consequence = self.core.finish(turn, &host, &outcome, self.now, 0.5);
        if let Some(record) = consequence.record {
            let place = self.write(record);
            self.core.attempt_stored(turn.seq, place);
        }
        consequence.notices
    }

    /// What a process that starts after a crash makes of the log.
    fn restart(&mut self) {
        let mut core = Core::new(self.core.limits.clone());
        for (place, record) in &self.log {
            core.replay(*place, &Record::decode(record).unwrap());
        }
        core.start(self.now);
        self.core = core;
    }

    fn state(&self, seq: u64, endpoint: u32) -> State {
        self.core.messages.get(seq).unwrap().delivery(endpoint).unwrap().state
    }
}

fn answer(status: u16) -> Outcome {
    Outcome { status, ..Outcome::default() }
}

#[test]
fn a_message_goes_to_those_who_want_its_type() {
    let mut world = World::new(CoreLimits::default());
    world.endpoint(2, |settings| settings.types = vec!["order.*".into()]);
    world.endpoint(3, |settings| settings.types = vec!["user".into()]);
    world.endpoint(4, |_| {});
    let seq = world.submit("order.paid", 0);
    let mut endpoints: Vec<u32> = std::iter::from_fn(|| world.core.next(NOW)).map(|(turn, _)| turn.endpoint).collect();
    endpoints.sort_unstable();
    assert_eq!(endpoints, [2, 4]);
    assert_eq!(world.core.messages.get(seq).unwrap().deliveries.len(), 2);
}

#[test]
fn failures_follow_the_schedule_and_end_with_the_dead_letters() {
    let mut world = World::new(CoreLimits::default());
    world.endpoint(2, |settings| settings.retry_s = Some(vec![0, 5, 60]));
    let seq = world.submit("a", 0);
    for pause in [5_000, 60_000] {
        let (turn, _) = world.core.next(world.now).unwrap();
        assert!(world.finish(turn, answer(500)).is_empty());
        assert_eq!(world.core.next(world.now + pause - 1), None);
        world.now += pause;
    }
    let (turn, _) = world.core.next(world.now).unwrap();
    assert_eq!(world.finish(turn, answer(500)), [Notice::Dead { endpoint: 2, seq }]);
    assert_eq!((world.state(seq, 2), world.core.totals().dead), (State::Dead, 1));
    world.restart();
    assert_eq!((world.core.next(world.now + DAY), world.state(seq, 2)), (None, State::Dead));
    assert!(world.core.resend(seq, 2, world.now).is_some());
    assert!(world.core.resend(seq, 2, world.now).is_none(), "it waits already");
    let (turn, _) = world.core.next(world.now).unwrap();
    world.finish(turn, answer(204));
    assert_eq!((world.state(seq, 2), world.core.totals().dead), (State::Delivered, 0));
}

#[test]
fn a_receiver_that_asks_for_a_pause_gets_it() {
    let mut world = World::new(CoreLimits::default());
    world.endpoint(2, |settings| settings.retry_s = Some(vec![0, 5, 5]));
    world.submit("a", 0);
    world.submit("a", 0);
    let (turn, _) = world.core.next(world.now).unwrap();
    world.finish(turn, Outcome { retry_after: Some(20_000), ..answer(429) });
    assert_eq!(world.core.next(world.now + 19_999), None, "the whole endpoint waits");
    assert!(world.core.next(world.now + 20_000).is_some());
}

#[test]
fn gone_and_failing_endpoints_are_stopped() {
    for (status, reason) in [(410, "gone"), (500, "failing")] {
        let mut world = World::new(CoreLimits { disable_after_ms: 5 * DAY, ..CoreLimits::default() });
        world.endpoint(2, |settings| settings.retry_s = Some(vec![0, 5 * 86_400, 5]));
        let seq = world.submit("a", 0);
        let (turn, _) = world.core.next(world.now).unwrap();
        let mut notices = world.finish(turn, answer(status));
        if status == 500 {
            assert!(notices.is_empty());
            world.restart();
            world.now += 5 * DAY;
            let (turn, _) = world.core.next(world.now).unwrap();
            notices = world.finish(turn, answer(500));
        } else {
            assert!(notices.contains(&Notice::Dead { endpoint: 2, seq }));
        }
        assert!(notices.contains(&Notice::Stopped { endpoint: 2, reason }), "{notices:?}");
        assert_eq!(world.core.next(world.now + DAY), None);
        assert_eq!(
            world.core.prepare(world.now, 1, "a", 0, None),
            Ok(Prepared::New { seq: id::next_seq(seq, world.now), deliveries: vec![] })
        );
    }
}

#[test]
fn a_message_with_a_known_key_is_not_taken_twice() {
    let mut world = World::new(CoreLimits::default());
    let Ok(Prepared::New { seq, .. }) = world.core.prepare(NOW, 1, "a", 7, None) else { panic!("known") };
    assert_eq!(world.core.prepare(NOW, 1, "a", 7, None), Ok(Prepared::Known(seq)));
    assert!(matches!(world.core.prepare(NOW, 2, "a", 7, None), Ok(Prepared::New { .. })));
    world.core.give_up(seq, 1, 7, 0);
    assert!(matches!(world.core.prepare(NOW, 1, "a", 7, None), Ok(Prepared::New { .. })));
    world.core.forget(NOW + 2 * DAY, false);
    assert!(matches!(world.core.prepare(NOW, 1, "a", 7, None), Ok(Prepared::New { .. })));
}

#[test]
fn what_is_finished_and_old_is_forgotten_and_dead_letters_stay_longer() {
    let limits = CoreLimits { keep_ms: 3 * DAY, queue_age_ms: 30 * DAY, ..CoreLimits::default() };
    let mut world = World::new(limits);
    world.endpoint(2, |settings| settings.retry_s = Some(vec![0]));
    let (dead, good, open) = (world.submit("a", 0), world.submit("a", 0), world.submit("a", 0));
    for status in [500, 200] {
        let (turn, _) = world.core.next(world.now).unwrap();
        world.finish(turn, answer(status));
    }
    assert_eq!(world.core.forget(NOW + DAY, false), (0, 0));
    assert_eq!(world.core.forget(NOW + 4 * DAY, false), (1, 0));
    let left: Vec<u64> = world.core.messages.iter().map(|(seq, _)| seq).collect();
    assert_eq!(left, [dead, open]);
    assert!(!left.contains(&good));
    assert_eq!(world.core.forget(NOW + 31 * DAY, false), (2, 1));
    assert_eq!(world.core.totals(), Totals::default());
}

#[test]
fn a_disk_that_fills_lets_finished_messages_go_and_no_others() {
    let mut world = World::new(CoreLimits::default());
    world.endpoint(2, |_| {});
    world.submit("a", 0);
    let open = world.submit("a", 0);
    let (turn, _) = world.core.next(world.now).unwrap();
    world.finish(turn, answer(200));
    assert_eq!(world.core.forget(NOW, true), (1, 0));
    assert_eq!(world.core.messages.iter().map(|(seq, _)| seq).collect::<Vec<_>>(), [open]);
}

#[test]
fn an_endpoint_that_goes_leaves_dead_letters() {
    let mut world = World::new(CoreLimits::default());
    world.endpoint(2, |_| {});
    let (first, second) = (world.submit("a", 0), world.submit("a", 0));
    let (turn, _) = world.core.next(world.now).unwrap();
    world.core.remove_endpoint(2, world.now);
    world.write(Record::EndpointGone(2).encode());
    assert!(world.finish(turn, answer(200)).is_empty());
    assert_eq!((world.state(first, 2), world.state(second, 2)), (State::Dead, State::Dead));
    let totals = world.core.totals();
    world.restart();
    assert_eq!((world.core.totals().open, world.core.totals().dead), (totals.open, totals.dead));
}

#[test]
fn the_queue_has_a_limit() {
    let mut world = World::new(CoreLimits { queue_max: 2, ..CoreLimits::default() });
    world.endpoint(2, |_| {});
    world.submit("a", 0);
    world.submit("a", 0);
    assert_eq!(world.core.prepare(NOW, 1, "a", 0, None), Err(Refused::QueueFull));
}

proptest! {
    /// Any receivers, any crashes, and moves of messages in the log: every message is delivered at least once or lies
    /// with the dead letters, nothing is delivered after that, and the totals are right.
    #[test]
    fn nothing_is_lost(
        steps in proptest::collection::vec((0u8..10, any::<u8>()), 1..120),
        ordered: bool,
    ) {
        let mut world = World::new(CoreLimits::default());
        for number in 2..5 {
            world.endpoint(number, |settings| {
                settings.ordered = ordered;
                settings.retry_s = Some(vec![0, 1, 2, 3]);
            });
        }
        let mut flying: Vec<Turn> = Vec::new();
        let mut delivered: BTreeMap<(u64, u32), u32> = BTreeMap::new();
        let mut all = Vec::new();
        for (step, detail) in steps {
            match step {
                0..=2 => all.push(world.submit("a", u64::from(detail % 3))),
                3..=5 => flying.extend(world.core.next(world.now).map(|(turn, _)| turn)),
                6 | 7 => if !flying.is_empty() {
                    let turn = flying.remove(usize::from(detail) % flying.len());
                    let status = [200, 500, 429, 0][usize::from(detail) % 4];
                    if status == 200 {
                        *delivered.entry((turn.seq, turn.endpoint)).or_default() += 1;
                    }
                    world.finish(turn, answer(status));
                },
                8 => world.now += u64::from(detail) * 100,
                _ => {
                    // A message moves to the end of the log, then the process ends.
                    if let Some(seq) = all.get(usize::from(detail) % all.len().max(1)).copied() {
                        let place = world.core.messages.get(seq).unwrap().place;
                        let record = world.log[place.offset as usize].1.clone();
                        let Record::Message(stored) = Record::decode(&record).unwrap() else { panic!("no message") };
                        let renewed = world.core.renew(&stored).unwrap();
                        let to = world.write(renewed);
                        world.core.moved(seq, to);
                        // What lay at its old place goes with its segment.
                        world.log[place.offset as usize].1 = Record::AppGone(99).encode();
                    }
                    flying.clear();
                    world.restart();
                }
            }
        }
        // From now on every receiver answers.
        for _ in 0..10_000 {
            while let Some((turn, _)) = world.core.next(world.now) {
                flying.push(turn);
            }
            match flying.pop() {
                Some(turn) => {
                    *delivered.entry((turn.seq, turn.endpoint)).or_default() += 1;
                    world.finish(turn, answer(200));
                }
                None => match world.core.deadline() {
                    Some(at) => world.now = world.now.max(at),
                    None => break,
                },
            }
        }
        let mut dead = 0;
        for seq in all {
            for endpoint in 2..5 {
                match world.state(seq, endpoint) {
                    State::Delivered => prop_assert!(delivered.contains_key(&(seq, endpoint))),
                    State::Dead => dead += 1,
                    state => prop_assert!(false, "{seq} is {state:?} for {endpoint}"),
                }
            }
        }
        prop_assert_eq!((world.core.totals().open, world.core.totals().dead), (0, dead));
    }
}
