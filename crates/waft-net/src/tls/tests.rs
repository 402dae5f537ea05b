use std::io::{self, IoSlice};
use std::sync::Arc;

use proptest::prelude::*;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, ServerName};

use super::session::Session;
use super::*;

/// Both ends of a connection, and the bytes under way between them.
struct Pair {
    client: Session,
    server: Session,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

fn server_config(versions: &[&'static rustls::SupportedProtocolVersion]) -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap())
}

/// Takes at most `piece` bytes at a time.
fn take(from: &mut Vec<u8>, into: &mut [u8], piece: usize) -> io::Result<usize> {
    let count = from.len().min(into.len()).min(piece);
    if count == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    into[..count].copy_from_slice(&from[..count]);
    from.drain(..count);
    Ok(count)
}

fn put(into: &mut Vec<u8>, data: &[u8], piece: usize) -> io::Result<usize> {
    let count = data.len().min(piece);
    into.extend_from_slice(&data[..count]);
    Ok(count)
}

/// Reads all that is there.
fn read_all(session: &mut Session, from: &mut Vec<u8>, piece: usize, room: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut into = vec![0; room];
    loop {
        match session.read(&mut into, |room| take(from, room, piece)) {
            Ok(0) => return all,
            Ok(count) => all.extend_from_slice(&into[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Pair {
    /// After the handshake, in pieces of this size.
    fn new(version: &'static rustls::SupportedProtocolVersion, piece: usize) -> Self {
        let config = client_config(true, None, &[]).unwrap();
        let client = Session::client(config, ServerName::try_from("a.example").unwrap()).unwrap();
        let server = Session::server(server_config(&[version])).unwrap();
        let mut pair = Self { client, server, to_server: Vec::new(), to_client: Vec::new() };
        pair.client.advance().unwrap();
        while pair.client.is_handshaking() || pair.server.is_handshaking() {
            let Self { client, server, to_server, to_client } = &mut pair;
            client.flush(|data| put(to_server, data, piece)).unwrap();
            let _blocked = server.receive(|room| take(to_server, room, piece));
            server.flush(|data| put(to_client, data, piece)).unwrap();
            let _blocked = client.receive(|room| take(to_client, room, piece));
        }
        pair.client.flush(|data| put(&mut pair.to_server, data, piece)).unwrap();
        pair
    }

    fn write(&mut self, data: &[u8]) {
        let mut rest = data;
        while !rest.is_empty() {
            let (front, back) = rest.split_at(rest.len() / 2);
            let parts = [IoSlice::new(front), IoSlice::new(back)];
            let taken = self.server.write(&parts, |data| put(&mut self.to_client, data, 4096)).unwrap();
            rest = &rest[taken..];
        }
    }
}

#[test]
fn what_one_end_writes_the_other_reads_however_it_is_cut() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for piece in [1, 7, 1000, usize::MAX] {
            let mut pair = Pair::new(version, piece);
            for length in [1, 16_384, 16_385, 200_000] {
                let data: Vec<u8> = (0..length).map(|number| (number % 251) as u8).collect();
                pair.write(&data);
                let got = read_all(&mut pair.client, &mut pair.to_client, piece, 5000);
                assert!(got == data, "{version:?}, pieces of {piece}, {length} bytes");
                assert!(!pair.client.has_unread());
            }
        }
    }
}

#[test]
fn what_the_socket_does_not_take_goes_first_the_next_time() {
    let mut pair = Pair::new(&rustls::version::TLS13, usize::MAX);
    let mut room = 10;
    let mut limited = |data: &[u8], into: &mut Vec<u8>| {
        let count = data.len().min(room);
        room -= count;
        into.extend_from_slice(&data[..count]);
        if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
    };
    let taken = pair.server.write(&[IoSlice::new(b"first")], |data| limited(data, &mut pair.to_client)).unwrap();
    assert_eq!(taken, 5);
    assert!(pair.server.unsent() > 0);
    let again = pair.server.write(&[IoSlice::new(b"second")], |data| limited(data, &mut pair.to_client));
    assert_eq!(again.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    pair.write(b"second");
    assert_eq!(read_all(&mut pair.client, &mut pair.to_client, usize::MAX, 100), b"firstsecond");
}

#[test]
fn an_end_is_told_and_data_before_it_is_read() {
    let mut pair = Pair::new(&rustls::version::TLS13, usize::MAX);
    pair.write(b"last words");
    pair.server.close();
    pair.server.flush(|data| put(&mut pair.to_client, data, usize::MAX)).unwrap();
    let mut into = [0; 100];
    let count = pair.client.read(&mut into, |room| take(&mut pair.to_client, room, usize::MAX)).unwrap();
    assert_eq!(&into[..count], b"last words");
    assert!(pair.client.has_unread(), "the end was not read yet");
    assert_eq!(pair.client.read(&mut into, |_| Err(io::ErrorKind::WouldBlock.into())).unwrap(), 0);
}

#[test]
fn what_is_written_between_the_pieces_of_a_record_arrives() {
    let mut pair = Pair::new(&rustls::version::TLS13, usize::MAX);
    pair.write(b"a record");
    let mut got = Vec::new();
    let pieces = std::mem::take(&mut pair.to_client);
    for byte in &pieces {
        let mut one = vec![*byte];
        got.extend(read_all(&mut pair.client, &mut one, 1, 10));
        pair.client.write(&[IoSlice::new(b"x")], |data| put(&mut pair.to_server, data, usize::MAX)).unwrap();
    }
    assert_eq!(got, b"a record");
    let written = read_all(&mut pair.server, &mut pair.to_server, usize::MAX, 10_000);
    assert_eq!(written, vec![b'x'; pieces.len()]);
}

#[test]
fn an_idle_session_owns_no_buffer() {
    let mut pair = Pair::new(&rustls::version::TLS13, usize::MAX);
    pair.write(&[1; 50_000]);
    read_all(&mut pair.client, &mut pair.to_client, usize::MAX, 1000);
    assert_eq!((pair.client.buffered(), pair.server.buffered()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_make_a_session_panic(bytes: Vec<u8>, piece in 1..50_usize) {
        let mut server = Session::server(server_config(&[&rustls::version::TLS13])).unwrap();
        let mut rest = bytes.clone();
        while let Ok(true) = server.receive(|room| take(&mut rest, room, piece)) {}
        let mut pair = Pair::new(&rustls::version::TLS13, usize::MAX);
        let mut rest = bytes;
        let mut into = [0; 64];
        while let Ok(1..) = pair.server.read(&mut into, |room| take(&mut rest, room, piece)) {}
        let _broken = pair.server.write(&[IoSlice::new(b"x")], |data| Ok(data.len()));
    }
}
