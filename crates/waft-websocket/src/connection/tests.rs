use flate2::Compression;
use proptest::prelude::*;

use super::*;
use crate::deflate::Compressor;
use crate::frame::{encode, encode_with};

const MASK: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);
const DEFLATE: Params = Params {
    server_no_context_takeover: true,
    client_no_context_takeover: true,
    server_max_window_bits: 15,
    client_max_window_bits: 15,
};

/// The events of `input` cut at `cuts`, pieces of one message joined again, and how it ended.
fn run(mut receiver: Receiver, input: &[u8], cuts: &[usize]) -> (Vec<Event>, Option<Error>) {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.push(input.len());
    cuts.sort_unstable();
    let (mut events, mut at) = (Vec::new(), 0);
    for cut in cuts {
        let mut piece = BytesMut::from(&input[at..cut]);
        at = cut;
        loop {
            match receiver.receive(&mut piece) {
                Ok(Some(event)) => join(&mut events, event),
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
        assert!(piece.is_empty(), "everything is taken");
    }
    (events, None)
}

fn join(events: &mut Vec<Event>, event: Event) {
    // Control frames may stand between the pieces; only pieces are compared with each other.
    let open = events.iter_mut().rev().find_map(|event| match event {
        Event::Fragment(fragment) if !fragment.fin => Some(fragment),
        _ => None,
    });
    match (event, open) {
        (Event::Fragment(next), Some(open)) if !next.first => {
            open.content = [&open.content[..], &next.content[..]].concat().into();
            open.fin = next.fin;
        }
        (event, _) => events.push(event),
    }
}

fn server(limits: Limits, deflate: Option<&Params>) -> Receiver {
    Receiver::new(Role::Server, Arc::new(limits), deflate)
}

fn frame(opcode: Opcode, fin: bool, content: &[u8]) -> Vec<u8> {
    encode(opcode, fin, content, MASK).to_vec()
}

fn compressed_frame(opcode: Opcode, fin: bool, rsv1: bool, content: &[u8]) -> Vec<u8> {
    encode_with(Header { fin, rsv1, opcode, mask: MASK, len: 0 }, content).to_vec()
}

/// Checks `frames` as a whole and byte by byte.
fn check(frames: &[Vec<u8>], events: &[Event], error: Option<Error>) {
    let input = frames.concat();
    let every: Vec<usize> = (0..input.len()).collect();
    for cuts in [&[][..], &every] {
        let got = run(server(Limits::default(), None), &input, cuts);
        assert_eq!(got, (events.to_vec(), error), "{input:02x?}");
    }
}

fn text(content: &'static str) -> Event {
    Event::Text(content.into())
}

#[test]
fn messages_of_every_length_form_are_received() {
    for len in [0, 1, 125, 126, 127, 128, 4095, 4096, 65_535, 65_536] {
        let content = vec![0xfe; len];
        let (events, error) = run(server(Limits::default(), None), &frame(Opcode::Binary, true, &content), &[1, 5, 70]);
        assert_eq!((events, error), (vec![Event::Binary(content.into())], None), "{len}");
    }
}

#[test]
fn control_frames_may_stand_between_fragments() {
    use Opcode::{Continuation, Ping, Pong, Text};
    check(&[frame(Ping, true, b"")], &[Event::Ping(Bytes::new())], None);
    check(&[frame(Ping, true, &[1; 125])], &[Event::Ping(vec![1; 125].into())], None);
    check(
        &[
            frame(Text, false, b"frag"),
            frame(Ping, true, b"p"),
            frame(Continuation, false, b""),
            frame(Pong, true, b"q"),
            frame(Continuation, true, b"ments"),
            frame(Text, true, b"next"),
        ],
        &[Event::Ping("p".into()), Event::Pong("q".into()), text("fragments"), text("next")],
        None,
    );
}

#[test]
fn framing_violations_fail_with_1002() {
    use Opcode::{Binary, Continuation, Text};
    let broken = |frames: &[Vec<u8>], events: &[Event], error: FrameError| {
        check(frames, events, Some(Error::Frame(error)));
        assert_eq!(Error::Frame(error).close_code(), 1002);
    };
    let hello = || frame(Text, true, b"hi");
    broken(&[hello(), vec![0xb1, 0x80]], &[text("hi")], FrameError::ReservedBits { bits: 0x30 });
    broken(&[vec![0xc1, 0x80]], &[], FrameError::ReservedBits { bits: 0x40 });
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        broken(&[hello(), vec![0x80 | opcode, 0x80]], &[text("hi")], FrameError::ReservedOpcode { opcode });
    }
    broken(&[vec![0x89, 0xfe, 0, 126]], &[], FrameError::ControlTooLong);
    broken(&[vec![0x09, 0x80]], &[], FrameError::ControlFragmented);
    broken(&[frame(Continuation, true, b"x")], &[], FrameError::ContinuationWithoutStart);
    broken(&[frame(Text, false, b"x"), frame(Binary, true, b"y")], &[], FrameError::MessageInterrupted);
    let done = [frame(Text, false, b"x"), frame(Continuation, true, b""), frame(Continuation, false, b"")];
    broken(&done, &[text("x")], FrameError::ContinuationWithoutStart);
    broken(&[encode(Text, true, b"bare", None).to_vec()], &[], FrameError::Unmasked);
    let limits = Arc::new(Limits::default());
    let (_, error) = run(Receiver::new(Role::Client, limits, None), &frame(Text, true, b"masked"), &[]);
    assert_eq!(error, Some(Error::Frame(FrameError::Masked)));
}

#[test]
fn text_that_is_not_utf8_fails_with_1007_as_soon_as_it_shows() {
    use Opcode::{Continuation, Text};
    check(&[frame(Text, true, "κόσμε".as_bytes())], &[text("κόσμε")], None);
    check(&[frame(Text, true, b"\xce\xba\xed\xa0\x80")], &[], Some(Error::Utf8));
    check(&[frame(Text, true, b"\xf0\x9f")], &[], Some(Error::Utf8));
    check(&[frame(Text, false, b"\xf0\x9f"), frame(Continuation, true, b"\x98\x80")], &[text("😀")], None);
    check(&[frame(Text, false, b"\xf4"), frame(Continuation, false, b"\x90")], &[], Some(Error::Utf8));
    check(&[frame(Text, false, b"\xf0\x9f"), frame(Continuation, true, b"")], &[], Some(Error::Utf8));
    // Six bytes of a frame that announced a thousand are enough to see it.
    let mut begun = frame(Text, true, &[&b"ab\xff"[..], &[b'c'; 997]].concat());
    begun.truncate(8 + 3);
    check(&[begun], &[], Some(Error::Utf8));
    assert_eq!(Error::Utf8.close_code(), 1007);
}

#[test]
fn close_frames_are_read_strictly_and_end_the_stream() {
    let close = |content: &[u8]| frame(Opcode::Close, true, content);
    let event = |code, reason: &'static str| Event::Close(Some(Close { code, reason: reason.into() }));
    check(&[close(b""), frame(Opcode::Text, true, b"late")], &[Event::Close(None)], None);
    check(&[close(b"\x03\xe8done")], &[event(1000, "done")], None);
    check(&[close(b"\x0f\xa0")], &[event(4000, "")], None);
    check(&[close(b"\x03")], &[], Some(Error::CloseTooShort));
    check(&[close(b"\x03\xe8\xff")], &[], Some(Error::CloseReason));
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        check(&[close(&code.to_be_bytes())], &[], Some(Error::CloseCode { code }));
    }
    check(&[frame(Opcode::Text, false, b"half"), close(b"\x03\xe9")], &[event(1001, "")], None);
    let mut receiver = server(Limits::default(), None);
    let mut bad = BytesMut::from(&close(b"\x03")[..]);
    assert!(receiver.receive(&mut bad).is_err());
    let mut more = BytesMut::from(&frame(Opcode::Text, true, b"x")[..]);
    assert_eq!(receiver.receive(&mut more), Ok(None), "an error is final");
    assert!(more.is_empty());
}

#[test]
fn limits_are_judged_by_the_header() {
    let limits = Limits { frame_max: 10, message_max: 15, delivery: Delivery::Messages };
    let check = |frames: &[Vec<u8>], error: Option<Error>| {
        let mut input = frames.concat();
        assert_eq!(run(server(limits, None), &input, &[]).1, error);
        if error.is_some() {
            // Without a single byte of the last frame's content.
            input.truncate(input.len() - 1);
            assert_eq!(run(server(limits, None), &input, &[]).1, error);
        }
    };
    check(&[frame(Opcode::Binary, true, &[0; 10])], None);
    check(&[frame(Opcode::Binary, true, &[0; 11])], Some(Error::FrameTooLarge { limit: 10, seen: 11 }));
    let begun = frame(Opcode::Binary, false, &[0; 10]);
    check(&[begun.clone(), frame(Opcode::Continuation, true, &[0; 5])], None);
    check(&[begun, frame(Opcode::Continuation, true, &[0; 6])], Some(Error::MessageTooLarge { limit: 15 }));
    assert_eq!(Error::MessageTooLarge { limit: 15 }.close_code(), 1009);
    let huge = b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0x".to_vec();
    check(&[huge], Some(Error::FrameTooLarge { limit: 10, seen: u64::MAX >> 1 }));
}

#[test]
fn compressed_messages_are_decompressed_within_the_limit() {
    let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    let whole = compressed_frame(Opcode::Text, true, true, hello);
    // RFC 7692 section 7.2.3.1: the same message in two frames.
    let first = compressed_frame(Opcode::Text, false, true, &hello[..3]);
    let second = compressed_frame(Opcode::Continuation, true, false, &hello[3..]);
    let plain = frame(Opcode::Text, true, b"plain");
    let input = [whole, first, second, plain].concat();
    let every: Vec<usize> = (0..input.len()).collect();
    for delivery in [Delivery::Messages, Delivery::Relay] {
        let limits = Limits { delivery, ..Limits::default() };
        let (events, error) = run(server(limits, Some(&DEFLATE)), &input, &every);
        let contents: Vec<&[u8]> = events
            .iter()
            .map(|event| match event {
                Event::Text(content) | Event::Fragment(Fragment { fin: true, content, .. }) => &content[..],
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!((contents, error), (vec![&b"Hello"[..], b"Hello", b"plain"], None));
    }
    let small = Limits { message_max: 4, ..Limits::default() };
    let (_, error) = run(server(small, Some(&DEFLATE)), &compressed_frame(Opcode::Text, true, true, hello), &[]);
    assert_eq!(error, Some(Error::MessageTooLarge { limit: 4 }));
    let (_, error) = run(server(small, Some(&DEFLATE)), &compressed_frame(Opcode::Text, true, true, b"\x07"), &[]);
    assert_eq!(error, Some(Error::Inflate));
}

#[test]
fn a_window_that_both_sides_keep_serves_the_next_message() {
    let keeping = Params { client_no_context_takeover: false, ..DEFLATE };
    let mut compressor = Compressor::new(15, Compression::new(6), true).unwrap();
    let mut input = Vec::new();
    for _ in 0..2 {
        let mut out = Vec::new();
        assert!(compressor.compress(b"a sentence to be found again", &mut out));
        input.extend(compressed_frame(Opcode::Text, true, true, &out));
    }
    let expected = text("a sentence to be found again");
    let (events, error) = run(server(Limits::default(), Some(&keeping)), &input, &[]);
    assert_eq!((events, error), (vec![expected.clone(), expected.clone()], None));
    let (events, error) = run(server(Limits::default(), Some(&DEFLATE)), &input, &[]);
    assert_eq!((events, error), (vec![expected], Some(Error::Inflate)), "a window nobody announced is not there");
}

#[test]
fn between_messages_nothing_is_kept() {
    let mut receiver = server(Limits::default(), Some(&DEFLATE));
    let message = compressed_frame(Opcode::Text, true, true, b"\xf2\x48\xcd\xc9\xc9\x07\x00");
    let (begun, rest) = message.split_at(9);
    assert_eq!(receiver.receive(&mut BytesMut::from(begun)), Ok(None));
    assert!(!receiver.is_idle() && receiver.decompressor.is_some());
    assert_eq!(receiver.receive(&mut BytesMut::from(rest)), Ok(Some(text("Hello"))));
    assert!(receiver.is_idle() && receiver.decompressor.is_none() && receiver.buffered() == 0);
}

#[test]
fn relayed_pieces_say_where_their_message_begins_and_ends() {
    let limits = Limits { delivery: Delivery::Relay, ..Limits::default() };
    let mut receiver = server(limits, None);
    let mut input = BytesMut::from(&frame(Opcode::Text, false, "aé".as_bytes())[..8]);
    let piece = |first, fin, content: &'static [u8]| {
        Ok(Some(Event::Fragment(Fragment { opcode: Opcode::Text, first, fin, content: content.into() })))
    };
    assert_eq!(receiver.receive(&mut input), piece(true, false, b"a\xc3"));
    assert_eq!(receiver.receive(&mut input), Ok(None));
    input.extend_from_slice(&frame(Opcode::Text, false, "aé".as_bytes())[8..]);
    input.extend_from_slice(&frame(Opcode::Continuation, false, b""));
    input.extend_from_slice(&frame(Opcode::Continuation, true, b""));
    assert_eq!(receiver.receive(&mut input), piece(false, false, b"\xa9"));
    assert_eq!(receiver.receive(&mut input), piece(false, true, b""));
    assert_eq!(receiver.receive(&mut input), Ok(None));
}

/// A message and how to send it.
#[derive(Clone, Debug)]
struct Sent {
    text: bool,
    compressed: bool,
    content: Vec<u8>,
    cuts: Vec<usize>,
    controls: Vec<(bool, Vec<u8>)>,
}

prop_compose! {
    fn sent()(text: bool, compressed: bool, letters in "[a-cé😀]{0,60}", times in 1usize..40,
        cuts in prop::collection::vec(any::<usize>(), 0..4),
        controls in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..126)), 0..4)) -> Sent {
        Sent { text, compressed, content: letters.repeat(times).into_bytes(), cuts, controls }
    }
}

/// The frames of `sent`, control frames between its fragments, and the events they stand for.
fn write(sent: &Sent, out: &mut Vec<u8>, messages: &mut Vec<Event>, controls: &mut Vec<Event>) {
    let mut wire = sent.content.clone();
    if sent.compressed {
        wire.clear();
        assert!(Compressor::new(15, Compression::new(6), false).unwrap().compress(&sent.content, &mut wire));
    }
    let mut cuts: Vec<usize> = sent.cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
    cuts.push(wire.len());
    cuts.sort_unstable();
    let kind = if sent.text { Opcode::Text } else { Opcode::Binary };
    let (mut at, last) = (0, cuts.len() - 1);
    let mut pending = sent.controls.iter();
    for (index, cut) in cuts.into_iter().enumerate() {
        let opcode = if index == 0 { kind } else { Opcode::Continuation };
        out.extend(compressed_frame(opcode, index == last, sent.compressed && index == 0, &wire[at..cut]));
        at = cut;
        if let Some((ping, content)) = pending.next() {
            let opcode = if *ping { Opcode::Ping } else { Opcode::Pong };
            out.extend(frame(opcode, true, content));
            let content = Bytes::from(content.clone());
            controls.push(if *ping { Event::Ping(content) } else { Event::Pong(content) });
        }
    }
    messages.push(whole(kind, sent.content.clone().into()));
}

fn is_control(event: &Event) -> bool {
    matches!(event, Event::Ping(_) | Event::Pong(_) | Event::Close(_))
}

proptest! {
    #[test]
    fn any_split_gives_the_same_events(stream in prop::collection::vec(sent(), 1..5),
        cuts in prop::collection::vec(any::<usize>(), 0..30), relay: bool) {
        let (mut input, mut messages, mut controls) = (Vec::new(), Vec::new(), Vec::new());
        for sent in &stream {
            write(sent, &mut input, &mut messages, &mut controls);
        }
        let delivery = if relay { Delivery::Relay } else { Delivery::Messages };
        let limits = Limits { delivery, ..Limits::default() };
        let (events, error) = run(server(limits, Some(&DEFLATE)), &input, &cuts);
        prop_assert_eq!(error, None);
        let events = events.into_iter().map(|event| match event {
            Event::Fragment(Fragment { opcode, first: true, fin: true, content }) => whole(opcode, content),
            other => other,
        });
        let (got_controls, got_messages): (Vec<Event>, Vec<Event>) = events.partition(is_control);
        prop_assert_eq!(got_messages, messages);
        prop_assert_eq!(got_controls, controls);
        if !relay {
            let whole = run(server(limits, Some(&DEFLATE)), &input, &[]).0;
            prop_assert_eq!(run(server(limits, Some(&DEFLATE)), &input, &cuts).0, whole, "order included");
        }
    }

    #[test]
    fn any_bytes_are_judged_alike_however_they_are_split(noise in prop::collection::vec(any::<u8>(), 0..200),
        start in prop::sample::select(vec![&b""[..], b"\x01\x80\0\0\0\0", b"\x82\xfe", b"\xc1\x8a\0\0\0\0", b"\x81\xfe\x00\x90\0\0\0\0"]),
        cuts in prop::collection::vec(any::<usize>(), 0..10), relay: bool) {
        let input = [start, &noise[..]].concat();
        let delivery = if relay { Delivery::Relay } else { Delivery::Messages };
        let limits = Limits { delivery, frame_max: 300, message_max: 500 };
        let outcome = |cuts: &[usize]| {
            let (events, error) = run(server(limits, Some(&DEFLATE)), &input, cuts);
            // A message that failed half-way was relayed as far as it came, which depends on arrival.
            let whole: Vec<Event> = events
                .into_iter()
                .filter(|event| !matches!(event, Event::Fragment(Fragment { fin: false, .. })))
                .collect();
            (whole, error.map(|error| error.close_code()))
        };
        prop_assert_eq!(outcome(&cuts), outcome(&[]));
    }

    #[test]
    fn memory_follows_what_arrived(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        let limits = Limits { frame_max: 1 << 40, message_max: 1000, delivery: Delivery::Messages };
        let mut receiver = server(limits, Some(&DEFLATE));
        for byte in noise {
            let mut input = BytesMut::from(&[byte][..]);
            let _outcome = receiver.receive(&mut input);
            prop_assert!(receiver.buffered() < 4096 + 64 + size_of::<Partial>());
        }
    }
}
