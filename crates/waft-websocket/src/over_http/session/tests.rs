use proptest::prelude::*;

use super::*;
use crate::control::GripExtension;
use crate::over_http::codec::decode;

const EVENTS: (&str, &str) = ("Content-Type", "application/websocket-events");

/// A session, its clock, and the request under way.
struct Bench {
    session: Session,
    now: Instant,
}

impl Bench {
    fn new(options: Options) -> Self {
        Self { session: Session::new(options.into()), now: Instant::now() }
    }

    /// A session whose OPEN was accepted with `fields` in the answer.
    fn open(options: Options, fields: &[(&str, &str)]) -> Self {
        let mut bench = Self::new(options);
        assert_eq!(bench.request(), "OPEN\\r\\n");
        bench.answer(fields, b"OPEN\r\n");
        assert!(matches!(bench.client()[..], [ToClient::Accept { .. }]));
        bench
    }

    fn plan(&mut self) -> Option<RequestPlan> {
        self.session.poll_request(self.now)
    }

    /// The body of the request that is due, printable, with `R=n ` in front if it replays; `-` if none is due.
    fn request(&mut self) -> String {
        let Some(plan) = self.plan() else { return "-".to_owned() };
        assert_eq!(self.plan(), None, "never two requests at once");
        let replayed = plan.replayed.map(|bytes| format!("R={bytes} ")).unwrap_or_default();
        format!("{replayed}{}", plan.body.escape_ascii())
    }

    fn answer(&mut self, fields: &[(&str, &str)], body: &'static [u8]) {
        self.respond(200, &[&[EVENTS], fields].concat(), body);
    }

    fn respond(&mut self, status: u16, fields: &[(&str, &str)], body: &'static [u8]) {
        let fields = fields.iter().map(|(name, value)| (*name, value.as_bytes()));
        self.session.handle_response(self.now, status, fields, body.into());
    }

    fn fail(&mut self, failure: Failure) {
        self.session.handle_failure(self.now, failure, 500);
    }

    fn client(&mut self) -> Vec<ToClient> {
        std::iter::from_fn(|| self.session.poll_client()).collect()
    }

    fn sends(&mut self, content: &'static str) {
        self.session.handle_client(Client::Sent(Kind::Text, content.into()));
    }

    fn closes(&mut self, code: u16, reason: &str) {
        self.session.handle_client(Client::Closed(Some(Close::new(code, reason))));
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }
}

fn text(content: &'static str) -> ToClient {
    ToClient::Message(Kind::Text, content.into())
}

fn close(code: u16, reason: &str) -> ToClient {
    ToClient::Close(Close::new(code, reason))
}

#[test]
fn an_open_that_is_accepted_delivers_what_follows_it() {
    let mut bench = Bench::new(Options::default());
    assert_eq!(bench.request(), "OPEN\\r\\n");
    bench.answer(&[("Sec-WebSocket-Extensions", "grip; message-prefix=\"\"")], b"OPEN\r\nTEXT 2\r\nhi\r\nPING\r\n");
    let grip = Some(GripExtension::with_prefix(""));
    let ping = ToClient::Message(Kind::Ping, Bytes::new());
    assert_eq!(bench.client(), [ToClient::Accept { grip }, text("hi"), ping]);
    assert_eq!((bench.request(), bench.session.poll_timeout()), ("-".to_owned(), None));
    assert!(bench.session.work.is_none(), "an idle session holds nothing");
}

#[test]
fn an_open_that_is_not_accepted_is_told_apart() {
    let check = |status: u16, fields: &[(&str, &str)], body: &'static [u8], expected: ToClient| {
        let mut bench = Bench::new(Options { reject_body_max: 3, body_max: 30, ..Options::default() });
        bench.request();
        bench.respond(status, fields, body);
        assert_eq!(bench.client(), [expected], "{status} {fields:?}");
        assert_eq!(bench.request(), "-");
        assert!(bench.session.is_over());
    };
    check(403, &[("Content-Type", "text/plain")], b"nope\n", ToClient::Reject { body: "nop".into() });
    check(200, &[("Content-Type", "text/plain")], b"ok", ToClient::Reject { body: "ok".into() });
    check(200, &[EVENTS], b"", ToClient::BadGateway(DropReason::BadEvents));
    check(200, &[EVENTS, ("Keep-Alive-Interval", "0")], b"", ToClient::BadGateway(DropReason::BadEvents));
    check(200, &[EVENTS], b"TEXT 1\r\na\r\n", ToClient::BadGateway(DropReason::BadEvents));
    check(200, &[EVENTS], b"OPEN\r\nbroken", ToClient::BadGateway(DropReason::BadEvents));
    check(200, &[EVENTS], b"OPEN\r\nOPEN\r\n", ToClient::BadGateway(DropReason::BadEvents));
    let large = b"OPEN\r\nTEXT 10\r\n0123456789abcdef\r\n";
    check(200, &[EVENTS], large, ToClient::BadGateway(DropReason::BodyTooLarge));
    let mut bench = Bench::new(Options::default());
    bench.request();
    bench.fail(Failure::NotReached);
    assert_eq!(bench.client(), [ToClient::BadGateway(DropReason::RequestFailed)]);
}

#[test]
fn an_undecided_open_is_asked_again() {
    let mut bench = Bench::new(Options::default());
    for _ in 0..2 {
        assert_eq!(bench.request(), "OPEN\\r\\n");
        bench.answer(&[("Keep-Alive-Interval", "5")], b"");
        assert_eq!((bench.client(), bench.request()), (vec![], "-".to_owned()));
        assert_eq!(bench.session.poll_timeout(), Some(bench.now + Duration::from_secs(20)));
        bench.pass(20_000);
    }
    assert_eq!(bench.request(), "OPEN\\r\\n");
    bench.answer(&[], b"OPEN\r\n");
    assert_eq!(bench.client(), [ToClient::Accept { grip: None }]);
}

#[test]
fn what_happens_during_a_request_goes_into_the_next() {
    let mut bench = Bench::open(Options::default(), &[]);
    bench.sends("a");
    assert_eq!(bench.request(), "TEXT 1\\r\\na\\r\\n");
    bench.sends("b");
    bench.session.handle_client(Client::Sent(Kind::Ping, Bytes::new()));
    assert_eq!(bench.request(), "-");
    bench.answer(&[], b"TEXT 1\r\nA\r\n");
    assert_eq!(bench.request(), "-", "the client comes first");
    assert_eq!(bench.client(), [text("A")]);
    assert_eq!(bench.request(), "TEXT 1\\r\\nb\\r\\nPING\\r\\n");
    bench.answer(&[], b"");
    assert_eq!(bench.client(), []);
    assert_eq!(bench.request(), "-");
}

#[test]
fn batches_keep_their_limits() {
    let mut bench = Bench::open(Options { batch_content_max: 3, ..Options::default() }, &[]);
    ["ab", "cd", "ef"].into_iter().for_each(|content| bench.sends(content));
    bench.closes(1000, "");
    assert_eq!(bench.request(), "TEXT 2\\r\\nab\\r\\nTEXT 2\\r\\ncd\\r\\n", "the last one may go beyond");
    bench.answer(&[], b"");
    bench.client();
    assert_eq!(bench.request(), "TEXT 2\\r\\nef\\r\\nCLOSE 2\\r\\n\\x03\\xe8\\r\\n");
    let mut bench = Bench::open(Options { one_event: true, ..Options::default() }, &[]);
    ["a", "b"].into_iter().for_each(|content| bench.sends(content));
    bench.closes(1000, "");
    for expected in ["TEXT 1\\r\\na\\r\\n", "TEXT 1\\r\\nb\\r\\n", "CLOSE 2\\r\\n\\x03\\xe8\\r\\n"] {
        assert_eq!(bench.request(), expected);
        bench.answer(&[], b"");
        bench.client();
    }
    let mut bench = Bench::open(Options { one_event: true, ..Options::default() }, &[]);
    ["a", "b"].into_iter().for_each(|content| bench.sends(content));
    bench.session.handle_client(Client::Gone);
    for expected in ["TEXT 1\\r\\na\\r\\n", "TEXT 1\\r\\nb\\r\\n", "DISCONNECT\\r\\n"] {
        assert_eq!(bench.request(), expected);
        bench.answer(&[], b"");
    }
    assert!(bench.session.is_over());
}

#[test]
fn partial_acceptance_follows_the_worked_example() {
    let mut bench = Bench::open(Options::default(), &[]);
    bench.sends("[foo][hello");
    assert_eq!(bench.request(), "TEXT b\\r\\n[foo][hello\\r\\n");
    bench.answer(&[("Content-Bytes-Accepted", "5")], b"");
    assert_eq!((bench.client(), bench.request()), (vec![], "-".to_owned()), "left-over data waits for more");
    bench.sends(" world]");
    assert_eq!(bench.request(), "R=6 TEXT 6\\r\\n[hello\\r\\nTEXT 7\\r\\n world]\\r\\n");
    bench.answer(&[], b"TEXT 4\r\n[ok]\r\n");
    assert_eq!(bench.client(), [text("[ok]")]);
    assert!(bench.session.work.is_none());
}

#[test]
fn acceptance_that_cannot_be_is_refused() {
    let check = |options: Options, closing: bool, accepted: &str, expected: &[ToClient], next: &str| {
        let mut bench = Bench::open(options, &[]);
        ["", "ab", "", "cd"].into_iter().for_each(|content| bench.sends(content));
        if closing {
            bench.closes(1000, "x");
        }
        bench.request();
        bench.answer(&[("Content-Bytes-Accepted", accepted), ("Keep-Alive-Interval", "30")], b"");
        assert_eq!(bench.client(), expected, "{accepted}");
        bench.session.refresh();
        assert_eq!(bench.request(), next, "{accepted}");
    };
    let wide = Options::default();
    let drop = |reason| [ToClient::Drop(reason)];
    check(wide.clone(), false, "0", &[], "R=4 TEXT 2\\r\\nab\\r\\nTEXT 0\\r\\n\\r\\nTEXT 2\\r\\ncd\\r\\n");
    check(wide.clone(), false, "2", &[], "R=2 TEXT 2\\r\\ncd\\r\\n");
    check(wide.clone(), false, "3", &[], "R=1 TEXT 1\\r\\nd\\r\\n");
    check(wide.clone(), false, "4", &[], "");
    check(wide.clone(), false, "many", &[], "");
    check(wide.clone(), false, "5", &drop(DropReason::AcceptedTooMuch), "-");
    check(wide.clone(), true, "7", &[], "");
    check(wide.clone(), true, "8", &drop(DropReason::AcceptedTooMuch), "-");
    check(wide.clone(), true, "4", &drop(DropReason::CloseNotAccepted), "-");
    check(wide.clone(), true, "3", &[], "R=1 TEXT 1\\r\\nd\\r\\nCLOSE 3\\r\\n\\x03\\xe8x\\r\\n");
    check(wide.clone(), true, "0", &drop(DropReason::NoProgress), "-");
    let narrow = Options { batch_content_max: 2, ..wide };
    check(narrow, false, "0", &drop(DropReason::NoProgress), "-");
}

#[test]
fn a_close_by_the_client_is_answered_by_the_target() {
    let check = |fields: &[(&str, &str)], body: &'static [u8], expected: &[ToClient]| {
        let mut bench = Bench::open(Options::default(), fields);
        bench.sends("last");
        bench.closes(1001, "bye");
        bench.sends("too late");
        assert_eq!(bench.request(), "TEXT 4\\r\\nlast\\r\\nCLOSE 5\\r\\n\\x03\\xe9bye\\r\\n");
        bench.answer(&[], body);
        assert_eq!(bench.client(), expected);
        assert_eq!(bench.request(), "-");
        bench
    };
    let mut bench =
        check(&[], b"TEXT 1\r\na\r\nCLOSE 4\r\n\x0f\xa0ok\r\n", &[text("a"), close(4000, "ok"), ToClient::Finish]);
    bench.session.handle_client(Client::Gone);
    assert_eq!(bench.request(), "-", "no DISCONNECT after a close");
    assert!(bench.session.is_over());
    check(&[], b"CLOSE\r\n", &[close(1000, ""), ToClient::Finish]);
    check(&[], b"", &[ToClient::Drop(DropReason::CloseUnanswered)]);
    // With a keep-alive the target may close later.
    let mut bench = check(&[("Keep-Alive-Interval", "20")], b"", &[]);
    bench.pass(20_000);
    assert_eq!(bench.request(), "");
    bench.answer(&[], b"CLOSE\r\n");
    assert_eq!(bench.client(), [close(1000, ""), ToClient::Finish]);
}

#[test]
fn a_close_by_the_target_is_answered_by_the_client() {
    let mut bench = Bench::open(Options::default(), &[("Keep-Alive-Interval", "20")]);
    bench.sends("a");
    bench.request();
    bench.answer(&[], b"CLOSE 2\r\n\x03\xe8\r\nTEXT 1\r\nb\r\n");
    assert_eq!(bench.client(), [close(1000, "")]);
    assert_eq!((bench.request(), bench.session.poll_timeout()), ("-".to_owned(), None));
    bench.closes(1000, "");
    assert_eq!(bench.request(), "CLOSE 2\\r\\n\\x03\\xe8\\r\\n");
    bench.answer(&[], b"TEXT 1\r\nc\r\n");
    assert_eq!(bench.client(), [ToClient::Finish], "nothing follows a close frame");
}

#[test]
fn a_close_from_our_side_goes_both_ways() {
    let mut bench = Bench::open(Options::default(), &[]);
    bench.session.close(Close::new(1001, "bye"));
    bench.session.close(Close::new(1002, "again"));
    assert_eq!(bench.client(), [close(1001, "bye")]);
    bench.closes(1001, "");
    assert_eq!(bench.request(), "CLOSE\\r\\n");
    bench.answer(&[], b"CLOSE\r\n");
    assert_eq!(bench.client(), [ToClient::Finish]);
}

#[test]
fn a_lost_client_is_reported_after_the_request_under_way() {
    let mut bench = Bench::new(Options::default());
    bench.session.handle_client(Client::Gone);
    assert_eq!(bench.request(), "-", "nobody heard of it");
    let mut bench = Bench::new(Options::default());
    bench.request();
    bench.session.handle_client(Client::Gone);
    bench.answer(&[], b"OPEN\r\nTEXT 1\r\na\r\n");
    assert_eq!((bench.client(), bench.request()), (vec![], "DISCONNECT\\r\\n".to_owned()));
    bench.fail(Failure::NotReached);
    bench.pass(1500);
    assert_eq!(bench.request(), "DISCONNECT\\r\\n");
    bench.respond(500, &[], b"");
    assert!(bench.session.is_over() && bench.client().is_empty());
    let mut bench = Bench::open(Options::default(), &[]);
    bench.sends("last words");
    bench.session.handle_client(Client::Gone);
    assert_eq!(bench.request(), "TEXT a\\r\\nlast words\\r\\nDISCONNECT\\r\\n");
}

#[test]
fn a_later_answer_that_is_wrong_drops_the_client() {
    let check = |status: u16, fields: &[(&str, &str)], body: &'static [u8], reason: DropReason| {
        let mut bench = Bench::open(Options { body_max: 10, ..Options::default() }, &[]);
        bench.sends("a");
        bench.request();
        bench.respond(status, fields, body);
        assert_eq!(bench.client(), [ToClient::Drop(reason)]);
        bench.session.handle_client(Client::Gone);
        assert!(bench.request() == "-" && bench.session.is_over());
    };
    check(500, &[EVENTS], b"", DropReason::BadResponse);
    check(200, &[("Content-Type", "application/websocket-events; a=b")], b"", DropReason::BadResponse);
    check(200, &[EVENTS], b"OPEN\r\n", DropReason::BadEvents);
    check(200, &[EVENTS], b"?", DropReason::BadEvents);
    check(200, &[EVENTS], b"TEXT 3\r\nabc", DropReason::BodyTooLarge);
    check(200, &[EVENTS], b"DISCONNECT", DropReason::BadEvents);
    let mut bench = Bench::open(Options::default(), &[]);
    bench.sends("a");
    bench.request();
    bench.answer(&[], b"TEXT 1\r\nb\r\nDISCONNECT\r\n");
    assert_eq!(bench.client(), [text("b"), ToClient::Drop(DropReason::Disconnected)]);
}

#[test]
fn requests_are_repeated_five_times_with_growing_delays() {
    let mut bench = Bench::open(Options::default(), &[]);
    bench.sends("a");
    for (attempt, seconds) in [1, 2, 4, 8, 16].into_iter().enumerate() {
        let plan = bench.plan().unwrap();
        assert_eq!((&plan.body[..], usize::from(plan.attempt)), (&b"TEXT 1\r\na\r\n"[..], attempt));
        bench.fail(Failure::NotReached);
        bench.sends("queued");
        assert_eq!(bench.session.poll_timeout(), Some(bench.now + Duration::from_millis(seconds * 1000 + 500)));
        bench.pass(seconds * 1000 + 499);
        assert_eq!(bench.request(), "-");
        bench.pass(1);
    }
    assert_eq!(bench.request(), "TEXT 1\\r\\na\\r\\n");
    bench.fail(Failure::NotReached);
    assert_eq!(bench.client(), [ToClient::Drop(DropReason::RequestFailed)]);
    for (failure, repeated) in [
        (Failure::Broken { body_sent: false }, true),
        (Failure::Broken { body_sent: true }, false),
        (Failure::Refused, false),
    ] {
        let mut bench = Bench::open(Options::default(), &[]);
        bench.sends("a");
        bench.request();
        bench.fail(failure);
        assert_eq!(bench.client().is_empty(), repeated, "{failure:?}");
    }
}

#[test]
fn keep_alives_and_refreshes_make_empty_requests() {
    let mut bench = Bench::open(Options::default(), &[("Keep-Alive-Interval", "7")]);
    bench.pass(19_999);
    assert_eq!(bench.request(), "-");
    bench.pass(1);
    assert_eq!(bench.request(), "");
    bench.session.refresh();
    bench.answer(&[], b"");
    bench.client();
    assert_eq!(bench.request(), "", "a refresh during a request makes another follow");
    bench.answer(&[("Keep-Alive-Interval", "0")], b"");
    bench.client();
    assert_eq!(bench.session.poll_timeout(), None);
    bench.session.handle_client_backlog(200_001);
    bench.session.refresh();
    assert_eq!(bench.request(), "-", "an answer could not be stored");
    bench.session.handle_client_backlog(200_000);
    assert_eq!(bench.request(), "");
    let mut closed = Bench::new(Options::default());
    closed.session.refresh();
    assert!(!closed.session.refresh, "not yet accepted");
}

#[test]
fn meta_is_repeated_until_deleted() {
    let mut bench = Bench::open(Options { meta_size_max: 10, ..Options::default() }, &[("Set-Meta-User", "bob")]);
    assert_eq!(bench.session.meta().collect::<Vec<_>>(), [("User", &b"bob"[..])]);
    bench.session.refresh();
    bench.request();
    bench.answer(&[("set-meta-user", "")], b"");
    assert_eq!(bench.session.meta().count(), 0);
    assert!(bench.session.meta.is_none() && bench.client().is_empty());
    bench.session.refresh();
    bench.request();
    bench.answer(&[("Set-Meta-User", "a long value")], b"");
    assert_eq!(bench.client(), [ToClient::Drop(DropReason::MetaTooLarge)]);
}

#[test]
fn a_detached_client_stays_without_its_target() {
    let mut bench = Bench::open(Options::default(), &[("Keep-Alive-Interval", "20")]);
    bench.sends("before");
    bench.session.detach();
    bench.sends("after");
    bench.closes(1000, "");
    assert_eq!(bench.request(), "TEXT 6\\r\\nbefore\\r\\nCLOSE\\r\\n");
    bench.answer(&[("Keep-Alive-Interval", "20")], b"TEXT 1\r\na\r\nCLOSE\r\n");
    assert_eq!(bench.client(), [text("a")], "what the target said before it knew still counts");
    assert!(bench.session.is_over() && bench.session.is_detached());
    let mut bench = Bench::open(Options::default(), &[]);
    bench.session.detach();
    bench.request();
    bench.fail(Failure::Refused);
    assert_eq!(bench.client(), [], "a failure of the forgotten target does not reach the client");
}

#[test]
fn the_queue_says_when_to_stop_reading() {
    let mut bench = Bench::open(Options { queue_max: 40, ..Options::default() }, &[]);
    assert_eq!(bench.session.client_room(), 40);
    bench.sends("12345678");
    assert_eq!(bench.session.client_room(), 16);
    bench.sends("");
    assert_eq!(bench.session.client_room(), 0);
    bench.request();
    bench.answer(&[("Content-Bytes-Accepted", "4")], b"");
    assert_eq!(bench.session.client_room(), 4);
}

/// A step of the model: the client acts, or the target answers.
#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u8>),
    Close,
    Gone,
    Accept(u64),
    AcceptAll,
    Fail,
    Refresh,
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..12).prop_map(Step::Send),
        1 => Just(Step::Close),
        1 => Just(Step::Gone),
        3 => any::<u64>().prop_map(Step::Accept),
        4 => Just(Step::AcceptAll),
        2 => Just(Step::Fail),
        1 => Just(Step::Refresh),
        4 => Just(Step::Wait),
    ]
}

/// Content bytes of a request: of its messages, and of its close if there is one.
fn contents(body: &Bytes) -> (Vec<u8>, Option<u64>, bool) {
    let (mut bytes, mut close, mut disconnect) = (Vec::new(), None, false);
    for event in decode(body.clone()).unwrap() {
        match event {
            Event::Text(content) | Event::Binary(content) => bytes.extend_from_slice(&content),
            Event::Close(content) => close = Some(content.map_or(0, |close| 2 + close.reason.len() as u64)),
            Event::Disconnect => disconnect = true,
            other => panic!("{other:?}"),
        }
    }
    (bytes, close, disconnect)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_target_gets_each_byte_once_and_in_order(steps in prop::collection::vec(step(), 1..60),
        one_event: bool, batch_content_max in 1u64..40) {
        let options = Options { one_event, batch_content_max, ..Options::default() };
        let mut bench = Bench::open(options, &[("Keep-Alive-Interval", "20")]);
        // What the client said while it was heard, what the target took, and how far it was offered.
        let (mut said, mut taken, mut offered) = (Vec::new(), 0_usize, 0_usize);
        let (mut heard, mut active, mut dropped) = (true, None::<RequestPlan>, false);
        for step in steps {
            if let Some(plan) = bench.plan() {
                prop_assert!(active.is_none(), "never two requests at once");
                let (bytes, _, _) = contents(&plan.body);
                let rest = &said[taken..];
                prop_assert!(rest.starts_with(&bytes), "the request continues where the target is");
                prop_assert_eq!(plan.replayed.unwrap_or(0) as usize, (offered - taken).min(bytes.len()));
                offered = offered.max(taken + bytes.len());
                active = Some(plan);
            }
            match step {
                Step::Send(content) => {
                    if heard && !dropped {
                        said.extend_from_slice(&content);
                    }
                    bench.session.handle_client(Client::Sent(Kind::Binary, content.into()));
                }
                Step::Close => {
                    bench.session.handle_client(Client::Closed(Some(Close::new(1000, "end"))));
                    heard = false;
                }
                Step::Gone => {
                    bench.session.handle_client(Client::Gone);
                    heard = false;
                }
                Step::Refresh => bench.session.refresh(),
                Step::Wait => bench.pass(20_000),
                Step::Fail => if active.take().is_some() {
                    bench.fail(Failure::NotReached);
                },
                Step::Accept(_) | Step::AcceptAll => if let Some(plan) = active.take() {
                    let (bytes, close, disconnect) = contents(&plan.body);
                    let all = bytes.len() as u64 + close.unwrap_or(0);
                    let accepted = if let Step::Accept(number) = step { number % (all + 1) } else { all };
                    bench.answer(&[("Content-Bytes-Accepted", &accepted.to_string())], b"");
                    if !disconnect {
                        taken += usize::try_from(accepted).unwrap().min(bytes.len());
                    }
                },
            }
            dropped |= bench.client().iter().any(|event| matches!(event, ToClient::Drop(_) | ToClient::Finish));
        }
        // In the end a willing target gets the rest.
        for _ in 0..200 {
            if active.is_none() {
                active = bench.plan();
            }
            let Some(plan) = active.take() else {
                // A failed request waits to be repeated.
                bench.pass(20_000);
                continue;
            };
            let (bytes, _, _) = contents(&plan.body);
            if !dropped && !bench.session.gone {
                prop_assert!(said[taken..].starts_with(&bytes));
            }
            bench.answer(&[], b"");
            taken += bytes.len();
            dropped |= bench.client().iter().any(|event| matches!(event, ToClient::Drop(_) | ToClient::Finish));
            bench.session.refresh();
            bench.pass(20_000);
            if bench.session.work.is_none() {
                break;
            }
        }
        if !dropped && heard {
            prop_assert_eq!(taken, said.len());
            prop_assert_eq!(bench.session.client_room(), Options::default().queue_max);
        }
    }
}
