//! Properties that hold for all bytes and all ways to split them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use waft_http1::{
    BodyDecoder, BodyError, Fields, Framing, HeadError, HeadLimits, HeadWriter, LAST_CHUNK, Parsed, RequestHead, chunk,
    chunk_header, parse_request, parse_response,
};

/// Pieces of which heads are made, sound and unsound, so that random joins reach deep into the parser.
const HEAD_PARTS: &[&str] = &[
    "GET ",
    "POST ",
    "CONNECT ",
    "OPTIONS ",
    "/",
    "/a?b",
    "*",
    "http://a",
    "?q",
    "a:1",
    " HTTP/1.1",
    " HTTP/1.0",
    " HTTP/2.0",
    "\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "Host: a",
    "Host: b c",
    "Content-Length: 5",
    "Content-Length: x",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip",
    "Connection: close, upgrade",
    "Upgrade: websocket",
    ": ",
    "X-A: b",
    " ",
    "\t",
    "\0",
    "\u{e9}",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 ",
    "304",
    "#",
    "0",
    "\r\nA: b\r\n\r\n",
];

/// Pieces of which chunked bodies are made, sound and unsound.
const BODY_PARTS: &[&str] = &[
    "0",
    "1",
    "5",
    "a",
    "F",
    "\r\n",
    "\r\n",
    "\r\n\r\n",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "1;x\r\n-\r\n",
    ";",
    ";a=b",
    "\n",
    "\r",
    "hello",
    "A: b",
    "A: b\r\n",
    " ",
    "\t",
    "\0",
    ":",
    "g",
    "0000000000000000",
    "\u{e9}",
];

fn joined(parts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    vec(select(parts), 0..14).prop_map(|parts| parts.concat().into_bytes())
}

fn small_limits() -> HeadLimits {
    HeadLimits { bytes_max: 80, fields_max: 3, target_max: 8 }
}

/// Feeds ever longer beginnings, as a reader does that keeps what was not complete.
fn parse_growing<T>(
    input: &[u8],
    parse: impl Fn(&[u8]) -> Result<Parsed<T>, HeadError>,
) -> Result<Parsed<T>, HeadError> {
    for end in 0..input.len() {
        match parse(input.get(..end).unwrap_or_default()) {
            Ok(Parsed::Partial) => {}
            settled => return settled,
        }
    }
    parse(input)
}

#[derive(Debug, PartialEq)]
struct Outcome {
    data: Vec<u8>,
    consumed: usize,
    done: bool,
    error: Option<BodyError>,
}

/// Decodes pieces of the given lengths in turn.
fn decode_in_pieces(framing: Framing, input: &[u8], lens: &[usize]) -> Outcome {
    let mut decoder = BodyDecoder::new(framing);
    let mut outcome = Outcome { data: Vec::new(), consumed: 0, done: false, error: None };
    let mut arrived = 0;
    let mut lens = lens.iter().cycle();
    while arrived < input.len() && !decoder.is_done() {
        arrived = (arrived + lens.next().copied().unwrap_or(1)).min(input.len());
        while outcome.consumed < arrived && !decoder.is_done() {
            match decoder.decode(input.get(outcome.consumed..arrived).unwrap_or_default()) {
                Ok(decoded) => {
                    assert!(decoded.consumed > 0, "no progress with bytes at hand");
                    outcome.data.extend_from_slice(decoded.data);
                    outcome.consumed += decoded.consumed;
                }
                Err(error) => return Outcome { error: Some(error), consumed: 0, ..outcome },
            }
        }
    }
    Outcome { done: decoder.is_done(), ..outcome }
}

fn built(method: &str, target: &str, fields: &Fields) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = HeadWriter::new(&mut out);
    writer.request_line(method, target).fields(fields.iter()).finish();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_request_head_is_the_same_however_its_bytes_arrive(input in joined(HEAD_PARTS)) {
        for limits in [HeadLimits::default(), small_limits()] {
            let whole = parse_request(&input, &limits);
            prop_assert_eq!(parse_growing(&input, |part| parse_request(part, &limits)), whole);
        }
    }

    #[test]
    fn a_response_head_is_the_same_however_its_bytes_arrive(input in joined(HEAD_PARTS)) {
        for limits in [HeadLimits::default(), small_limits()] {
            let whole = parse_response(&input, &limits);
            prop_assert_eq!(parse_growing(&input, |part| parse_response(part, &limits)), whole);
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(mut input in vec(any::<u8>(), 0..200), first in select(HEAD_PARTS)) {
        input.splice(0..0, first.bytes());
        let _ = parse_response(&input, &HeadLimits::default());
        if let Ok(Parsed::Complete { head, consumed }) = parse_request(&input, &HeadLimits::default()) {
            prop_assert!(consumed <= input.len());
            look_at_everything(&head);
        }
    }

    #[test]
    fn a_head_that_was_read_can_be_written_and_read_again(input in joined(HEAD_PARTS)) {
        if let Ok(Parsed::Complete { head, .. }) = parse_request(&input, &HeadLimits::default()) {
            look_at_everything(&head);
            let fields: Fields = head.fields().collect();
            let written = built(head.method(), head.target(), &fields);
            let again = parse_request(&written, &HeadLimits::default());
            let Ok(Parsed::Complete { head: again, consumed }) = again else {
                return Err(TestCaseError::fail(format!("{again:?}")));
            };
            prop_assert_eq!(consumed, written.len());
            prop_assert_eq!(again.fields().collect::<Fields>(), fields);
            // An HTTP/1.0 head is written as 1.1, which changes neither its body nor its authority.
            prop_assert_eq!(again.framing(), head.framing());
            prop_assert_eq!(again.authority(), head.authority());
        }
    }

    #[test]
    fn whatever_is_written_has_the_lines_that_were_asked_for(
        method in "[A-Z]{1,8}",
        target in any::<String>(),
        fields in vec((any::<String>(), vec(any::<u8>(), 0..20)), 0..5),
    ) {
        let fields: Fields = fields.into_iter().collect();
        let written = built(&method, &format!("/{target}"), &fields);
        prop_assert!(written.ends_with(b"\r\n\r\n"));
        let text = String::from_utf8_lossy(&written);
        let lines: Vec<&str> = text.split("\r\n").collect();
        prop_assert!(lines.len() <= fields.len() + 3);
        prop_assert!(lines.iter().all(|line| !line.contains(['\r', '\n', '\0'])));
        prop_assert_eq!(lines.iter().filter(|line| line.is_empty()).count(), 2);
    }

    #[test]
    fn a_chunked_body_is_the_same_in_any_split(input in joined(BODY_PARTS), lens in vec(1_usize..9, 1..6)) {
        let whole = decode_in_pieces(Framing::Chunked, &input, &[input.len().max(1)]);
        prop_assert_eq!(&decode_in_pieces(Framing::Chunked, &input, &lens), &whole);
        prop_assert_eq!(&decode_in_pieces(Framing::Chunked, &input, &[1]), &whole);
    }

    #[test]
    fn any_bytes_are_decoded_without_panic(
        input in vec(any::<u8>(), 0..100),
        length in any::<u64>(),
        lens in vec(1_usize..9, 1..6),
    ) {
        for framing in [Framing::None, Framing::Length(length), Framing::Chunked, Framing::UntilClose] {
            let whole = decode_in_pieces(framing, &input, &[input.len().max(1)]);
            prop_assert_eq!(decode_in_pieces(framing, &input, &lens), whole);
        }
    }

    #[test]
    fn chunks_that_were_encoded_decode_to_their_data(
        pieces in vec(vec(any::<u8>(), 0..300), 0..6),
        lens in vec(1_usize..200, 1..6),
        next in vec(any::<u8>(), 0..10),
    ) {
        let mut encoded: Vec<u8> = pieces.iter().flat_map(|piece| chunk(piece)).collect();
        encoded.extend_from_slice(LAST_CHUNK);
        let len = encoded.len();
        encoded.extend_from_slice(&next);
        let expected = Outcome { data: pieces.concat(), consumed: len, done: true, error: None };
        prop_assert_eq!(decode_in_pieces(Framing::Chunked, &encoded, &lens), expected);
    }

    #[test]
    fn a_chunk_header_is_the_length_in_hexadecimal(len in any::<usize>()) {
        let header = chunk_header(len);
        prop_assert_eq!(header.as_bytes().escape_ascii().to_string(), format!("{len:X}\\r\\n"));
    }
}

/// Calls every accessor; those of the target must fit together.
fn look_at_everything(head: &RequestHead) {
    let rejoined = match head.query() {
        Some(query) => format!("{}?{query}", head.path()),
        None => head.path().to_owned(),
    };
    assert_eq!(head.path_and_query(), rejoined);
    assert!(head.target().ends_with(head.path_and_query()) || head.target().contains("://"));
    assert!(head.host().unwrap_or_default().len() <= head.authority().unwrap_or_default().len());
    assert!(head.end_to_end_fields().count() <= head.fields().count());
    assert_ne!(head.framing(), Framing::UntilClose);
    let _ = (head.keep_alive(), head.expects_continue(), head.upgrade(), head.is_head(), format!("{head:?}"));
}
