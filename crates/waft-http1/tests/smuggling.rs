//! Messages on which two readers could disagree are refused, and for the right reason.

#![expect(clippy::panic, reason = "a helper of tests fails the test")]

use std::fmt::Debug;

use waft_http1::{BodyDecoder, BodyError, Framing, HeadError, HeadLimits, Parsed, parse_request, parse_response};

use HeadError::*;

/// The bytes, the error and the status with which a server answers it.
type Case = (&'static [u8], HeadError, u16);

#[test]
fn requests_with_a_doubtful_first_line_are_refused() {
    check_requests(&[
        (b"GET  / HTTP/1.1\r\n\r\n", InvalidTarget, 400),
        (b"GET /  HTTP/1.1\r\n\r\n", InvalidVersion, 400),
        (b" GET / HTTP/1.1\r\n\r\n", InvalidMethod, 400),
        (b"GET / HTTP/1.1 \r\n\r\n", InvalidVersion, 400),
        (b"GET /a b HTTP/1.1\r\n\r\n", InvalidVersion, 400),
        (b"GET\t/\tHTTP/1.1\r\n\r\n", MalformedRequestLine, 400),
        (b"GET /\tHTTP/1.1\r\n\r\n", MalformedRequestLine, 400),
        (b"GET /\r\n\r\n", MalformedRequestLine, 400),
        (b"GET\r\n\r\n", MalformedRequestLine, 400),
        (b"G(T / HTTP/1.1\r\n\r\n", InvalidMethod, 400),
        (b"G\xc3\xa9T / HTTP/1.1\r\n\r\n", InvalidMethod, 400),
        (b"GET: / HTTP/1.1\r\n\r\n", InvalidMethod, 400),
        (b"\x00GET / HTTP/1.1\r\n\r\n", ControlByte, 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", ControlByte, 400),
        (b"GET / http/1.1\r\n\r\n", InvalidVersion, 400),
        (b"GET / HTTP/1.10\r\n\r\n", InvalidVersion, 400),
        (b"GET / HTTP/01.1\r\n\r\n", InvalidVersion, 400),
        (b"GET / HTTP/1,1\r\n\r\n", InvalidVersion, 400),
        (b"GET / HTTP/1\r\n\r\n", InvalidVersion, 400),
        (b"GET / HTTP 1.1\r\n\r\n", InvalidVersion, 400),
        (b"GET / HTTP/1.2\r\n\r\n", UnsupportedVersion, 505),
        (b"GET / HTTP/0.9\r\n\r\n", UnsupportedVersion, 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", UnsupportedVersion, 505),
        (b"GET / HTTP/2.0\r\n\r\n", UnsupportedVersion, 505),
        (b"GET /\x01 HTTP/1.1\r\n\r\n", ControlByte, 400),
        (b"GET /\x7f HTTP/1.1\r\n\r\n", ControlByte, 400),
        (b"GET /\ta HTTP/1.1\r\n\r\n", InvalidTarget, 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", InvalidTarget, 400),
        (b"GET /a#b HTTP/1.1\r\n\r\n", InvalidTarget, 400),
        (b"GET a HTTP/1.1\r\n\r\n", InvalidTarget, 400),
        (b"GET * HTTP/1.1\r\n\r\n", InvalidTarget, 400),
        (b"GET ?a HTTP/1.1\r\n\r\n", InvalidTarget, 400),
        (b"GET http:/a HTTP/1.1\r\n\r\n", InvalidTarget, 400),
        (b"GET http:///a HTTP/1.1\r\n\r\n", InvalidTarget, 400),
        (b"GET http://user@host/ HTTP/1.1\r\n\r\n", InvalidTarget, 400),
        (b"GET http://host:99999/ HTTP/1.1\r\n\r\n", InvalidTarget, 400),
        (b"GET file://host/etc HTTP/1.1\r\n\r\n", InvalidTarget, 400),
        (b"CONNECT / HTTP/1.1\r\n\r\n", InvalidTarget, 400),
        (b"CONNECT host HTTP/1.1\r\n\r\n", InvalidTarget, 400),
        (b"\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", BlankLines, 400),
        (b"\nGET / HTTP/1.1\r\n\r\n", BareLineFeed, 400),
        (b"\rGET / HTTP/1.1\r\n\r\n", BareCarriageReturn, 400),
    ]);
}

#[test]
fn requests_with_doubtful_line_ends_or_names_are_refused() {
    check_requests(&[
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", BareLineFeed, 400),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", BareLineFeed, 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", BareLineFeed, 400),
        (b"GET / HTTP/1.1\r\nA: b\nTransfer-Encoding: chunked\r\n\r\n", BareLineFeed, 400),
        (b"GET / HTTP/1.1\r\nA: b\rTransfer-Encoding: chunked\r\n\r\n", BareCarriageReturn, 400),
        (b"GET / HTTP/1.1\r\nA: b\r\r\n\r\n", BareCarriageReturn, 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n\rB: c\r\n\r\n", BareCarriageReturn, 400),
        (b"GET / HTTP/1.1\r\r\nA: b\r\n\r\n", BareCarriageReturn, 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", FoldedField, 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n\tc: d\r\n\r\n", FoldedField, 400),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", FoldedField, 400),
        (b"GET / HTTP/1.1\r\n \r\n\r\n", FoldedField, 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", SpaceBeforeColon, 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding\t: chunked\r\n\r\n", SpaceBeforeColon, 400),
        (b"GET / HTTP/1.1\r\nContent-Length : 5\r\n\r\nhello", SpaceBeforeColon, 400),
        (b"GET / HTTP/1.1\r\n: a\r\n\r\n", InvalidFieldName, 400),
        (b"GET / HTTP/1.1\r\nHo st: a\r\n\r\n", InvalidFieldName, 400),
        (b"GET / HTTP/1.1\r\nA@b: c\r\n\r\n", InvalidFieldName, 400),
        (b"GET / HTTP/1.1\r\nContent-Length\xa0: 5\r\n\r\n", InvalidFieldName, 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding\x00: chunked\r\n\r\n", ControlByte, 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding\x0b: chunked\r\n\r\n", ControlByte, 400),
        (b"GET / HTTP/1.1\r\nHost\r\n\r\n", MissingColon, 400),
        (b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n", ControlByte, 400),
        (b"GET / HTTP/1.1\r\nA: b\x08\r\n\r\n", ControlByte, 400),
        (b"GET / HTTP/1.1\r\nA: b\x7f\r\n\r\n", ControlByte, 400),
    ]);
}

#[test]
fn requests_with_a_doubtful_host_are_refused() {
    check_requests(&[
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", DuplicateHost, 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", DuplicateHost, 400),
        (b"GET / HTTP/1.1\r\nHost:\r\nHost: b\r\n\r\n", DuplicateHost, 400),
        (b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", DuplicateHost, 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", InvalidHost, 400),
        (b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", InvalidHost, 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", InvalidHost, 400),
        (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", InvalidHost, 400),
        (b"GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n", InvalidHost, 400),
        (b"GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", InvalidHost, 400),
        (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", InvalidHost, 400),
        (b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", InvalidHost, 400),
        (b"GET / HTTP/1.1\r\nHost: a:000080\r\n\r\n", InvalidHost, 400),
        (b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", InvalidHost, 400),
        (b"GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", InvalidHost, 400),
        (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", InvalidHost, 400),
        (b"GET / HTTP/1.1\r\nHost: [::1]80\r\n\r\n", InvalidHost, 400),
        (b"GET / HTTP/1.1\r\nHost: [a]\r\n\r\n", InvalidHost, 400),
        (b"GET / HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n", InvalidHost, 400),
        (b"GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n", InvalidHost, 400),
    ]);
}

#[test]
fn requests_with_a_doubtful_length_are_refused() {
    let lengths: [&[u8]; 23] = [
        b"",
        b" ",
        b"+5",
        b"-5",
        b"-0",
        b"0x5",
        b"5 5",
        b"5, 5",
        b"5,5",
        b"5,",
        b",5",
        b"5;",
        b"5.0",
        b"5e0",
        b"five",
        b"a",
        b"\t5",
        b"5\t",
        b"\"5\"",
        b"5_0",
        b"18446744073709551616",
        b"000000000000000000005",
        b"\xd9\xa5",
    ];
    for length in lengths {
        let request = [b"POST / HTTP/1.1\r\nContent-Length: ", length, b"\r\n\r\nhello"].concat();
        check_request(&request, InvalidContentLength, 400);
        let response = [b"HTTP/1.1 200 OK\r\nContent-Length: ", length, b"\r\n\r\nhello"].concat();
        check_response(&response, InvalidContentLength);
    }
    check_requests(&[
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", InvalidContentLength, 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", InvalidContentLength, 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nA: b\r\ncontent-LENGTH: 5\r\n\r\n", InvalidContentLength, 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length:\r\n\r\n", InvalidContentLength, 400),
    ]);
}

#[test]
fn requests_with_a_doubtful_transfer_encoding_are_refused() {
    let encodings: [(&[u8], HeadError); 23] = [
        (b"", InvalidTransferEncoding),
        (b",", InvalidTransferEncoding),
        (b"chunked,", InvalidTransferEncoding),
        (b",chunked", InvalidTransferEncoding),
        (b"chunked, chunked", InvalidTransferEncoding),
        (b"chunked,CHUNKED", InvalidTransferEncoding),
        (b"\tchunked", InvalidTransferEncoding),
        (b"chunked\t", InvalidTransferEncoding),
        (b"chun ked", InvalidTransferEncoding),
        (b"chunked;q=1", InvalidTransferEncoding),
        (b"\"chunked\"", InvalidTransferEncoding),
        (b"[chunked]", InvalidTransferEncoding),
        (b"chunked\xa0", InvalidTransferEncoding),
        (b"\xef\xbb\xbfchunked", InvalidTransferEncoding),
        (b"chunked\x0b", ControlByte),
        (b"\x00chunked", ControlByte),
        (b"xchunked", UnsupportedTransferEncoding),
        (b"chunkedx", UnsupportedTransferEncoding),
        (b"'chunked'", UnsupportedTransferEncoding),
        (b"gzip", UnsupportedTransferEncoding),
        (b"identity", UnsupportedTransferEncoding),
        (b"gzip, chunked", UnsupportedTransferEncoding),
        (b"chunked, identity", UnsupportedTransferEncoding),
    ];
    for (encoding, error) in encodings {
        let status = if error == UnsupportedTransferEncoding { 501 } else { 400 };
        let request = [b"POST / HTTP/1.1\r\nTransfer-Encoding: ", encoding, b"\r\n\r\n0\r\n\r\n"].concat();
        check_request(&request, error, status);
        let response = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: ", encoding, b"\r\n\r\n0\r\n\r\n"].concat();
        check_response(&response, error);
    }
    check_requests(&[
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", LengthAndTransferEncoding, 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", LengthAndTransferEncoding, 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 0\r\ntransfer-encoding: gzip\r\n\r\n", LengthAndTransferEncoding, 400),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n", LengthAndTransferEncoding, 400),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            InvalidTransferEncoding,
            400,
        ),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n",
            InvalidTransferEncoding,
            400,
        ),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", TransferEncodingOnHttp10, 400),
    ]);
}

#[test]
fn doubtful_responses_are_refused() {
    let cases: [(&[u8], HeadError); 24] = [
        (b"HTTP/1.1 200 OK\nA: b\r\n\r\n", BareLineFeed),
        (b"HTTP/1.1 200 O\rK\r\n\r\n", BareCarriageReturn),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", FoldedField),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", SpaceBeforeColon),
        (b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n", ControlByte),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", MissingColon),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", InvalidVersion),
        (b" HTTP/1.1 200 OK\r\n\r\n", InvalidVersion),
        (b"ICY 200 OK\r\n\r\n", InvalidVersion),
        (b"HTTP/2.0 200 OK\r\n\r\n", UnsupportedVersion),
        (b"HTTP/1.10 200 OK\r\n\r\n", InvalidStatus),
        (b"HTTP/1.1  200 OK\r\n\r\n", InvalidStatus),
        (b"HTTP/1.1\t200 OK\r\n\r\n", InvalidStatus),
        (b"HTTP/1.1 20 OK\r\n\r\n", InvalidStatus),
        (b"HTTP/1.1 2000 OK\r\n\r\n", InvalidStatus),
        (b"HTTP/1.1 +20 OK\r\n\r\n", InvalidStatus),
        (b"HTTP/1.1 099 OK\r\n\r\n", InvalidStatus),
        (b"HTTP/1.1 200\tOK\r\n\r\n", InvalidStatus),
        (b"HTTP/1.1\r\n\r\n", InvalidStatus),
        (b"hello world, this is no response\r\n", InvalidVersion),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", LengthAndTransferEncoding),
        (b"HTTP/1.1 304 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", InvalidContentLength),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", TransferEncodingOnHttp10),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            InvalidTransferEncoding,
        ),
    ];
    for (input, error) in cases {
        check_response(input, error);
    }
}

#[test]
fn heads_beyond_a_limit_are_refused_as_soon_as_that_is_certain() {
    let limits = HeadLimits { bytes_max: 64, fields_max: 2, target_max: 10 };
    let fits = b"GET /123456789 HTTP/1.1\r\nA: b\r\nC: 67890123456789012345678901\r\n\r\n";
    assert_eq!(fits.len(), 64);
    assert!(matches!(parse_request(fits, &limits), Ok(Parsed::Complete { consumed: 64, .. })));

    let check = |input: &[u8], expected: HeadError, status: u16| {
        check_error(parse_request(input, &limits), input, expected);
        assert_eq!(expected.status(), status);
    };
    check(b"GET /1234567890 HTTP/1.1\r\n", TargetTooLong { limit: 10 }, 414);
    check(&[b'A'; 64], TargetTooLong { limit: 10 }, 414);
    check(b"GET / HTTP/1.1\r\nA: b\r\nC: d\r\nE: f\r\n", TooManyFields { limit: 2 }, 431);
    let mut long = b"GET / HTTP/1.1\r\nA: ".to_vec();
    long.resize(63, b'x');
    assert!(matches!(parse_request(&long, &limits), Ok(Parsed::Partial)));
    long.push(b'x');
    check(&long, HeadTooLong { limit: 64 }, 431);
    let response = [b"HTTP/1.1 200 OK\r\nA: ", [b'x'; 64].as_slice()].concat();
    check_error(parse_response(&response, &limits), &response, HeadTooLong { limit: 64 });
}

#[test]
fn doubtful_chunked_bodies_are_refused() {
    use BodyError::{BareLineEnd, ChunkNotEnded, ControlByte, InvalidChunkSize, InvalidTrailer, SizeTooLong};
    let cases: [(&[u8], BodyError); 36] = [
        (b"\r\n", InvalidChunkSize),
        (b"\n", InvalidChunkSize),
        (b";a\r\n", InvalidChunkSize),
        (b"+5\r\nhello\r\n", InvalidChunkSize),
        (b"-5\r\nhello\r\n", InvalidChunkSize),
        (b"0x5\r\nhello\r\n", InvalidChunkSize),
        (b" 5\r\nhello\r\n", InvalidChunkSize),
        (b"5 \r\nhello\r\n", InvalidChunkSize),
        (b"5\t\r\nhello\r\n", InvalidChunkSize),
        (b"5 ;a\r\nhello\r\n", InvalidChunkSize),
        (b"g\r\n", InvalidChunkSize),
        (b"5_0\r\n", InvalidChunkSize),
        (b"5,5\r\n", InvalidChunkSize),
        (b"5\x00\r\n", InvalidChunkSize),
        (b"\xef\xbc\x95\r\n", InvalidChunkSize),
        (b"10000000000000000\r\n", SizeTooLong),
        (b"00000000000000005\r\nhello\r\n", SizeTooLong),
        (b"fffffffffffffffff\r\n", SizeTooLong),
        (b"5\nhello\r\n", BareLineEnd),
        (b"5\rhello\r\n", BareLineEnd),
        (b"5;a\nhello\r\n", BareLineEnd),
        (b"5;a\rb\r\nhello\r\n", BareLineEnd),
        (b"5;a\x00\r\nhello\r\n", ControlByte),
        (b"5\r\nhello\n0\r\n\r\n", ChunkNotEnded),
        (b"5\r\nhello0\r\n\r\n", ChunkNotEnded),
        (b"5\r\nhello!\r\n0\r\n\r\n", ChunkNotEnded),
        (b"5\r\nhello\rX", ChunkNotEnded),
        (b"0\r\n\n", BareLineEnd),
        (b"0\r\n\rX", BareLineEnd),
        (b"0\n\n", BareLineEnd),
        (b"0\r\nGET / HTTP/1.1\r\n", InvalidTrailer),
        (b"0\r\nA : b\r\n\r\n", InvalidTrailer),
        (b"0\r\nA: b\r\n c\r\n\r\n", InvalidTrailer),
        (b"0\r\n: b\r\n\r\n", InvalidTrailer),
        (b"0\r\nA: b\n\r\n", BareLineEnd),
        (b"0\r\nA: b\x00\r\n\r\n", ControlByte),
    ];
    for (input, expected) in cases {
        assert_eq!(decode_error(input), Some(expected), "{}", input.escape_ascii());
    }
}

#[test]
fn chunk_extensions_and_trailers_are_bounded_over_the_whole_body() {
    let chunk_with_extension = |len: usize| [b"1;", vec![b'x'; len].as_slice(), b"\r\n-\r\n"].concat();
    // Each extension counts with the line end that follows it.
    let fits = [chunk_with_extension(2_047), chunk_with_extension(2_047), b"0\r\n\r\n".to_vec()].concat();
    assert_eq!(decode_error(&fits), None);
    let long = [chunk_with_extension(2_047), chunk_with_extension(2_050)].concat();
    assert_eq!(decode_error(&long), Some(BodyError::ExtensionsTooLong { limit: 4_096 }));

    let trailers = |len: usize| [b"0\r\nA:", vec![b'x'; len].as_slice(), b"\r\n\r\n"].concat();
    assert_eq!(decode_error(&trailers(8_000)), None);
    assert_eq!(decode_error(&trailers(8_192)), Some(BodyError::TrailersTooLong { limit: 8_192 }));
    let many = [b"0\r\n".as_slice(), &b"A:b\r\n".repeat(2_100)].concat();
    assert_eq!(decode_error(&many), Some(BodyError::TrailersTooLong { limit: 8_192 }));
}

fn check_requests(cases: &[Case]) {
    for &(input, error, status) in cases {
        check_request(input, error, status);
    }
}

fn check_request(input: &[u8], error: HeadError, status: u16) {
    check_error(parse_request(input, &HeadLimits::default()), input, error);
    assert_eq!(error.status(), status, "{}", input.escape_ascii());
    // The same head in pieces: no shorter part may pass as whole.
    for end in 0..input.len() {
        let part = input.get(..end).unwrap_or_default();
        let parsed = parse_request(part, &HeadLimits::default());
        assert!(matches!(parsed, Ok(Parsed::Partial) | Err(_)), "{}", part.escape_ascii());
    }
}

fn check_response(input: &[u8], error: HeadError) {
    match parse_response(input, &HeadLimits::default()) {
        Ok(Parsed::Complete { head, .. }) => check_error(head.framing("GET"), input, error),
        other => check_error(other, input, error),
    }
}

fn check_error<T: Debug>(result: Result<T, HeadError>, input: &[u8], expected: HeadError) {
    match result {
        Err(error) => assert_eq!(error, expected, "{}", input.escape_ascii()),
        Ok(found) => panic!("{} gave {found:?} instead of {expected:?}", input.escape_ascii()),
    }
}

/// The error that a chunked body ends in, if it does; asserts that feeding single bytes gives the same.
fn decode_error(input: &[u8]) -> Option<BodyError> {
    let whole = feed(input, input.len());
    assert_eq!(whole, feed(input, 1), "{}", input.escape_ascii());
    whole
}

fn feed(input: &[u8], piece_len: usize) -> Option<BodyError> {
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    for mut piece in input.chunks(piece_len.max(1)) {
        while !piece.is_empty() && !decoder.is_done() {
            match decoder.decode(piece) {
                Ok(decoded) => piece = piece.get(decoded.consumed..).unwrap_or_default(),
                Err(error) => return Some(error),
            }
        }
    }
    decoder.finish().err()
}
