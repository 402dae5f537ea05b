use std::time::Duration;

use proptest::prelude::*;

use super::*;

const WINDOW: u64 = 100;

fn start(interface: Interface, more: bool) -> (Instant, Front, Packet) {
    let now = Instant::now();
    let request = Packet { method: Some("GET".into()), uri: Some("http://h/".into()), more, ..Packet::default() };
    let (front, first) = Front::start(now, interface, ("gw".into(), "1".into()), (WINDOW, Pace::default()), request);
    (now, front, first)
}

fn from_worker(packet: Packet) -> Packet {
    Packet { from: Some("w".into()), ..packet }
}

fn head(code: u16, body: &'static str, more: bool) -> Packet {
    from_worker(Packet { code: Some(code), body: body.into(), more, ..Packet::default() })
}

fn data(body: &'static str, more: bool) -> Packet {
    from_worker(Packet { body: body.into(), more, ..Packet::default() })
}

fn of(kind: Kind) -> Packet {
    from_worker(Packet { kind, ..Packet::default() })
}

fn events(front: &mut Front) -> Vec<FrontEvent> {
    std::iter::from_fn(|| front.poll_event()).collect()
}

/// What is sent, in short: worker, kind, number, credits.
fn sent(front: &mut Front) -> Vec<(String, Kind, Option<u64>, u64)> {
    std::iter::from_fn(|| front.poll_output())
        .map(|(worker, packet)| {
            let seq = packet.ids.as_slice().first().and_then(|id| id.seq);
            (String::from_utf8_lossy(&worker).into_owned(), packet.kind, seq, packet.credits)
        })
        .collect()
}

fn begun(code: u16, complete: bool) -> FrontEvent {
    FrontEvent::Head { code, reason: Bytes::new(), headers: Vec::new(), complete }
}

#[test]
fn the_first_packet_says_what_workers_need() {
    let (_, _, first) = start(Interface::Stream, true);
    assert_eq!((first.from, first.credits, first.stream, first.more), (Some("gw".into()), WINDOW, true, true));
    assert_eq!(first.ids, Ids::One(Id { id: "1".into(), seq: Some(0) }));
    let (_, _, first) = start(Interface::WebSocket, false);
    assert_eq!((first.credits, first.stream), (WINDOW, false));
    let (_, _, first) = start(Interface::Request, true);
    assert_eq!((first.from, first.credits, first.stream, first.more), (None, 0, false, false));
    assert_eq!(first.ids, Ids::One(Id { id: "1".into(), seq: None }));
}

#[test]
fn answers_come_in_one_packet_or_in_many() {
    let (now, mut front, _) = start(Interface::Stream, false);
    front.receive(now, Some(0), head(200, "all", false));
    assert_eq!(events(&mut front), [begun(200, true), FrontEvent::Body("all".into()), FrontEvent::End]);
    assert!(front.is_over() && sent(&mut front).is_empty());

    let (now, mut front, _) = start(Interface::Stream, false);
    for (seq, packet) in
        [of(Kind::KeepAlive), head(200, "a", true), data("b", true), data("", false)].iter().enumerate()
    {
        front.receive(now, Some(seq as u64), packet.clone());
        front.consumed(now, packet.body.len());
    }
    let body = |text: &'static str| FrontEvent::Body(text.into());
    assert_eq!(events(&mut front), [begun(200, false), body("a"), body("b"), FrontEvent::End]);
    let credit = |seq| ("w".to_owned(), Kind::Credit, Some(seq), 1);
    assert_eq!(sent(&mut front), [credit(1), credit(2)]);

    let (now, mut front, _) = start(Interface::Stream, false);
    assert!(front.receive(now, None, Packet { from: None, ..head(204, "", false) }), "a worker that says no more");
    assert_eq!(events(&mut front), [begun(204, true), FrontEvent::End]);
}

#[test]
fn what_breaks_the_rules_ends_the_exchange_and_is_cancelled() {
    let first_data = Failure::Protocol("the first data has no status code");
    type Numbered = (Option<u64>, Packet);
    let cases: [(&[Numbered], Failure); 5] = [
        (&[(Some(1), head(200, "", true))], Violation::Sequence { expected: 0, seen: Some(1) }.into()),
        (&[(Some(0), data("x", true))], first_data),
        (&[(Some(0), head(101, "", true))], Failure::Protocol("a status code that no response has")),
        (
            &[(Some(0), head(200, "", true)), (Some(0), data("", true))],
            Violation::Sequence { expected: 1, seen: Some(0) }.into(),
        ),
        (
            &[(Some(0), of(Kind::KeepAlive)), (Some(3), of(Kind::KeepAlive))],
            Violation::Sequence { expected: 1, seen: Some(3) }.into(),
        ),
    ];
    for (packets, expected) in cases {
        let (now, mut front, _) = start(Interface::Stream, false);
        for (seq, packet) in packets {
            front.receive(now, *seq, packet.clone());
        }
        assert_eq!(events(&mut front).last(), Some(&FrontEvent::Failed(expected)));
        assert!(front.is_over());
        assert_eq!(sent(&mut front), [("w".to_owned(), Kind::Cancel, Some(1), 0)]);
    }
}

#[test]
fn nothing_is_told_behind_the_end() {
    let (now, mut front, _) = start(Interface::Stream, false);
    front.unreadable(now);
    front.unreadable(now);
    front.undeliverable(&"w".into());
    front.receive(now, Some(0), head(200, "late", false));
    assert_eq!(front.handle_timeout(now + Duration::from_secs(99)), None);
    assert_eq!(events(&mut front), [FrontEvent::Failed(Failure::Unreadable)]);
}

#[test]
fn an_end_by_the_worker_is_believed_whatever_its_number() {
    for (packet, expected) in [
        (of(Kind::Cancel), Failure::Cancelled),
        (of(Kind::Error), Failure::Condition(Condition::Undefined)),
        (
            Packet { condition: Some(Condition::SessionTimeout), ..of(Kind::Error) },
            Failure::Condition(Condition::SessionTimeout),
        ),
    ] {
        let (now, mut front, _) = start(Interface::Stream, false);
        front.receive(now, Some(9), packet);
        assert_eq!(events(&mut front), [FrontEvent::Failed(expected)]);
        assert!(sent(&mut front).is_empty(), "an end is not answered");
    }
}

#[test]
fn a_body_is_sent_as_far_as_the_credits_of_a_known_worker() {
    let (now, mut front, _) = start(Interface::Stream, true);
    assert_eq!(front.room(), 0);
    front.receive(now, Some(0), Packet { credits: 7, ..of(Kind::Credit) });
    assert_eq!((events(&mut front), front.room()), (vec![FrontEvent::Room], 7));
    front.send_body(now, "12345".into(), true);
    assert_eq!(front.room(), 2);
    front.send_body(now, "67".into(), false);
    front.send_body(now, "nothing goes behind the end".into(), true);
    let kinds: Vec<_> = sent(&mut front).into_iter().map(|(_, kind, seq, _)| (kind, seq)).collect();
    assert_eq!(kinds, [(Kind::Data, Some(1)), (Kind::Data, Some(2))]);
}

#[test]
fn a_websocket_is_accepted_used_and_closed() {
    let (now, mut front, _) = start(Interface::WebSocket, false);
    front.receive(now, Some(0), of(Kind::KeepAlive));
    front.receive(now, Some(1), head(101, "", false));
    assert_eq!(events(&mut front), [begun(101, true)]);
    assert_eq!(front.room(), WINDOW, "a worker that grants nothing is taken to grant a window");
    let binary = Packet { content_type: Some("binary".into()), ..data("x", true) };
    front.receive(now, Some(2), binary);
    front.receive(now, Some(3), Packet { body: "p".into(), ..of(Kind::Ping) });
    front.receive(now, Some(4), Packet { code: Some(1000), body: "bye".into(), ..of(Kind::Close) });
    let message = FrontEvent::Message { binary: true, body: "x".into(), more: true };
    let close = FrontEvent::Close { code: Some(1000), reason: "bye".into() };
    assert_eq!(events(&mut front), [message, FrontEvent::Ping("p".into()), close]);
    front.send_message(now, false, "hi".into(), false);
    front.send_control(now, Kind::Pong, "p".into());
    front.send_close(now, Some(1000), Bytes::new());
    assert_eq!(front.room(), WINDOW - 3);
    let kinds: Vec<_> = sent(&mut front).into_iter().map(|(_, kind, ..)| kind).collect();
    assert_eq!(kinds, [Kind::Data, Kind::Pong, Kind::Close]);
}

#[test]
fn a_refusal_of_a_websocket_brings_its_response() {
    let refused = |kind, condition, code| Packet {
        kind,
        condition,
        code: Some(code),
        body: "no".into(),
        from: Some("w".into()),
        ..Packet::default()
    };
    for packet in [refused(Kind::Error, Some(Condition::Rejected), 403), refused(Kind::Data, None, 403)] {
        let (now, mut front, _) = start(Interface::WebSocket, false);
        front.receive(now, Some(0), packet);
        let Some(FrontEvent::Failed(Failure::Rejected(rejection))) = front.poll_event() else { panic!() };
        assert_eq!((rejection.code, &*rejection.body), (403, &b"no"[..]));
    }
}

#[test]
fn another_worker_takes_over_only_when_the_first_one_says_so() {
    let (now, mut front, _) = start(Interface::Stream, true);
    front.receive(now, Some(0), of(Kind::KeepAlive));
    let stranger = |packet| Packet { from: Some("w2".into()), ..packet };
    assert!(!front.receive(now, Some(1), stranger(head(200, "x", false))), "a stranger is not listened to");
    front.receive(now, Some(1), of(Kind::HandoffStart));
    assert_eq!(sent(&mut front), [("w".to_owned(), Kind::HandoffProceed, Some(1), 0)]);
    assert_eq!(front.room(), 0);
    front.receive(now, Some(2), stranger(Packet { credits: 5, ..of(Kind::Credit) }));
    front.send_body(now, "x".into(), true);
    assert_eq!(sent(&mut front), [("w2".to_owned(), Kind::Data, Some(2), 0)]);
}

#[test]
fn silence_brings_keep_alives_and_then_the_end() {
    let (now, mut front, _) = start(Interface::Stream, false);
    let at = |seconds| now + Duration::from_secs(seconds);
    assert_eq!(front.poll_timeout(), at(30));
    assert_eq!(front.handle_timeout(at(30)), None, "nobody is known who could be told");
    front.receive(at(40), Some(0), of(Kind::KeepAlive));
    assert_eq!(front.handle_timeout(at(40)), Some(Id { id: "1".into(), seq: Some(1) }));
    assert_eq!(front.handle_timeout(at(69)), None);
    assert_eq!(front.handle_timeout(at(100)), None);
    assert_eq!(events(&mut front), [FrontEvent::Failed(Failure::Expired { heard: true })]);
    assert_eq!(sent(&mut front), [("w".to_owned(), Kind::Cancel, Some(2), 0)]);

    let (_, mut front, _) = start(Interface::Stream, false);
    front.handle_timeout(at(61));
    assert_eq!(events(&mut front), [FrontEvent::Failed(Failure::Expired { heard: false })]);
}

#[test]
fn a_reply_is_one_whole_response() {
    let reply = |packet| {
        let (now, mut front, _) = start(Interface::Request, false);
        front.receive(now, None, packet);
        events(&mut front)
    };
    assert_eq!(reply(head(200, "x", false)).last(), Some(&FrontEvent::End));
    for packet in [head(200, "x", true), data("x", false), of(Kind::KeepAlive), of(Kind::Error), of(Kind::Cancel)] {
        assert!(matches!(*reply(packet), [FrontEvent::Failed(_)]));
    }
}

/// Any packet that a worker may send.
fn any_packet() -> impl Strategy<Value = (Option<u64>, Packet)> {
    use Kind::*;
    const KINDS: &[Kind] =
        &[Cancel, Close, Credit, Data, Data, Data, Error, HandoffStart, KeepAlive, Ping, Pong, Unknown];
    let from = prop_oneof![4 => Just(Some("w")), 1 => Just(Some("w2")), 1 => Just(None)];
    let fields = (prop::sample::select(KINDS), from, 0..160_usize, any::<bool>(), any::<bool>());
    (
        fields,
        prop::option::of(0..12_u64),
        prop::option::of(prop::sample::select(&[0, 101, 200, 404, 65_535][..])),
        0..200_u64,
    )
        .prop_map(|((kind, from, body, more, next), seq, code, credits)| {
            let from = from.map(Bytes::from);
            let body = vec![b'x'; body].into();
            // Some are numbered rightly by whoever plays them.
            let seq = if next { Some(u64::MAX) } else { seq };
            (seq, Packet { kind, from, body, more, code, credits, ..Packet::default() })
        })
}

proptest! {
    #[test]
    fn packets_in_any_order_keep_the_books_right(
        interface in prop::sample::select(&[Interface::Request, Interface::Stream, Interface::WebSocket][..]),
        packets in prop::collection::vec(any_packet(), 0..40),
    ) {
        let (now, mut front, _) = start(interface, true);
        let (mut due, mut granted, mut spent, mut ended, mut numbers) = (0, 0_u64, 0_u64, false, 1);
        let (mut outstanding, mut held) = (WINDOW, 0_usize);
        for (seq, packet) in packets {
            let seq = if seq == Some(u64::MAX) { Some(due) } else { seq };
            let body = packet.body.len();
            let credits = packet.credits;
            let was_over = front.is_over();
            let ours = front.receive(now, seq, packet);
            due += u64::from(ours && !was_over);
            granted += if ours { credits } else { 0 };
            for event in events(&mut front) {
                prop_assert!(!ended, "nothing comes behind the end");
                match event {
                    FrontEvent::Body(body) | FrontEvent::Message { body, .. } => {
                        prop_assert!(body.len() as u64 <= outstanding + crate::OVERRUN_TOLERATED);
                        outstanding = outstanding.saturating_sub(body.len() as u64);
                        held += body.len();
                    }
                    FrontEvent::End | FrontEvent::Failed(_) => ended = true,
                    _ => {}
                }
            }
            prop_assert_eq!(ended, front.is_over());
            let room = usize::try_from(front.room()).unwrap().min(body);
            if room > 0 {
                front.send_message(now, true, vec![0; room].into(), true);
                spent += room as u64;
                let assumed = if interface == Interface::WebSocket { WINDOW } else { 0 };
                prop_assert!(spent <= granted + assumed, "more was sent than granted");
            }
            front.consumed(now, std::mem::take(&mut held));
            while let Some((_, packet)) = front.poll_output() {
                outstanding += packet.credits;
                prop_assert!(outstanding <= WINDOW, "never more is granted than can be held");
                let number = packet.ids.as_slice()[0].seq;
                prop_assert_eq!(number, Some(numbers), "every packet has the next number");
                numbers += 1;
            }
        }
    }

    #[test]
    fn a_download_is_never_stuck(pieces in prop::collection::vec(1..400_usize, 1..40), window in 1..300_u64) {
        let now = Instant::now();
        let ids = ("gw".into(), "1".into());
        let (mut front, first) = Front::start(now, Interface::Stream, ids, (window, Pace::default()), Packet::default());
        let (mut credits, mut seq, mut arrived) = (first.credits, 0, 0);
        let mut send = |front: &mut Front, packet: Packet| {
            front.receive(now, Some(seq), packet);
            seq += 1;
        };
        send(&mut front, head(200, "", true));
        let total: usize = pieces.iter().sum();
        for mut piece in pieces {
            while piece > 0 {
                prop_assert!(credits > 0, "the worker waits for credits that never come");
                let part = piece.min(usize::try_from(credits).unwrap());
                credits -= part as u64;
                piece -= part;
                send(&mut front, from_worker(Packet { body: vec![b'x'; part].into(), more: true, ..Packet::default() }));
                for event in events(&mut front) {
                    if let FrontEvent::Body(body) = event {
                        arrived += body.len();
                        front.consumed(now, body.len());
                    }
                }
                while let Some((_, packet)) = front.poll_output() {
                    credits += packet.credits;
                }
            }
        }
        prop_assert_eq!(arrived, total);
    }
}
