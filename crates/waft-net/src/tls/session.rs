//! One TLS connection without its socket: encrypted bytes in and out on one side, plain ones on the other.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{ClientConfig, CommonState, ServerConfig};

use super::refusal::Failed;

/// The longest record: head, content, and what TLS 1.2 allows a cipher to add.
const RECORD_MAX: usize = 5 + 16_384 + 2048;
/// Encrypted bytes that are read at once, behind the begun record that there may be.
const READ_SIZE: usize = 64 << 10;
/// Plain bytes that are encrypted before the socket is asked whether it takes them.
const WRITE_SIZE: usize = 64 << 10;
/// Room for the encrypted form of [`WRITE_SIZE`] bytes, with other records (tickets, new keys) before them.
const SEALED_MAX: usize = WRITE_SIZE + 8 * 1024;

/// Memory that a session uses only while it works: it belongs to the thread.
struct Scratch {
    received: Box<[u8]>,
    sealed: Box<[u8]>,
    gathered: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        received: vec![0; RECORD_MAX + READ_SIZE].into(),
        sealed: vec![0; SEALED_MAX].into(),
        gathered: Vec::new(),
    });
}

/// The state of a TLS connection. Between two records it owns no buffer.
///
/// Its methods take functions that read from or write to the socket without waiting (`WouldBlock` when that
/// cannot be done now), so that the same session works inside of the runtime and in the held set.
pub(crate) struct Session {
    side: Side,
    /// The beginning of a record whose rest has not come yet.
    begun: Vec<u8>,
    /// What was decrypted and not yet read.
    unread: Vec<u8>,
    /// What was encrypted and not yet taken by the socket.
    unsent: Vec<u8>,
    /// The peer sends no more.
    ended: bool,
    /// The first byte that came, 0 before that: it tells what speaks TLS from what does not.
    first: u8,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("ended", &self.ended).finish_non_exhaustive()
    }
}

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// The two sides of a connection, where they do the same.
trait Engine {
    type Data;
    fn step<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Engine for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn step<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }
}

impl Engine for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn step<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }
}

/// Where what a session makes goes.
struct Sinks<'a> {
    /// The reader's memory, as far as it is not filled yet.
    into: &'a mut [u8],
    filled: usize,
    unread: &'a mut Vec<u8>,
    unsent: &'a mut Vec<u8>,
    ended: &'a mut bool,
}

impl Session {
    /// The session of a client that wants to speak with `name`.
    ///
    /// # Errors
    /// When the configuration allows no connection.
    pub(crate) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, rustls::Error> {
        Ok(Self::new(Side::Client(UnbufferedClientConnection::new(config, name)?)))
    }

    /// The session of a server.
    ///
    /// # Errors
    /// When the configuration allows no connection.
    pub(crate) fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self::new(Side::Server(UnbufferedServerConnection::new(config)?)))
    }

    const fn new(side: Side) -> Self {
        Self { side, begun: Vec::new(), unread: Vec::new(), unsent: Vec::new(), ended: false, first: 0 }
    }

    /// What both sides know about the connection.
    pub(crate) fn common(&self) -> &CommonState {
        match &self.side {
            Side::Client(connection) => connection,
            Side::Server(connection) => connection,
        }
    }

    /// The first byte that came.
    pub(crate) const fn first(&self) -> u8 {
        self.first
    }

    /// Whether the handshake goes on.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.common().is_handshaking()
    }

    /// Whether a read has something to give although the socket may have nothing.
    pub(crate) fn has_unread(&self) -> bool {
        self.ended || !self.unread.is_empty()
    }

    /// Encrypted bytes that the socket has not taken yet.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Bytes of memory that it has beside itself and its keys.
    #[cfg(test)]
    pub(crate) const fn buffered(&self) -> usize {
        self.begun.capacity() + self.unread.capacity() + self.unsent.capacity()
    }

    /// Does what can be done without more from the peer: a client's first message, an alert that is due.
    pub(crate) fn advance(&mut self) -> Result<(), rustls::Error> {
        // The library finds its place by what it has seen of a begun message, which it therefore has to get each time.
        let mut begun = std::mem::take(&mut self.begun);
        let (used, _filled) = self.process(&mut begun, &mut [])?;
        begun.drain(..used);
        self.begun = begun;
        Ok(())
    }

    /// Takes what the socket has, once. `Ok(false)` is the end of the stream.
    ///
    /// # Errors
    /// The socket's, and the peer's against the protocol.
    pub(crate) fn receive(&mut self, socket: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<bool> {
        let received = self.fill(&mut [], socket)?;
        Ok(!received.ended)
    }

    /// Reads plain bytes. What is short of `into` has emptied the socket; 0 is the end of the stream.
    ///
    /// A peer that closes its connection without having said so in TLS has ended its stream like one of plain TCP: many
    /// do that, and whatever is longer than what has come (a length, chunks) shows it as cut off.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, the socket's, and the peer's against the protocol.
    pub(crate) fn read(
        &mut self,
        into: &mut [u8],
        mut socket: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut filled = take_front(&mut self.unread, into);
        while filled < into.len() && !self.ended {
            let rest = into.get_mut(filled..).unwrap_or_default();
            match self.fill(rest, &mut socket) {
                Ok(got) => {
                    filled += got.filled;
                    if got.short && filled > 0 {
                        break;
                    }
                }
                Err(error) if filled > 0 && error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Reads once from the socket and decrypts what that completes.
    fn fill(
        &mut self,
        into: &mut [u8],
        mut socket: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Received> {
        SCRATCH.with_borrow_mut(|scratch| {
            let begun = self.begun.len();
            let room = scratch.received.split_at_mut_checked(begun).filter(|(_, room)| !room.is_empty());
            let Some((front, room)) = room else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of the handshake is too long"));
            };
            let count = socket(room)?;
            if count == 0 {
                self.ended = true;
                return Ok(Received { filled: 0, short: true, ended: true });
            }
            let short = count < room.len();
            if self.first == 0 {
                self.first = room.first().copied().unwrap_or_default();
            }
            front.copy_from_slice(&self.begun);
            let received = scratch.received.get_mut(..begun + count).unwrap_or_default();
            let (used, filled) = match self.process(received, into) {
                Ok(done) => done,
                Err(error) => {
                    // What was wrong is told to the peer, if it still listens.
                    let _told = self.advance();
                    return Err(io::Error::new(io::ErrorKind::InvalidData, Failed(error)));
                }
            };
            let rest = received.get(used..).unwrap_or_default();
            self.begun = if rest.is_empty() { Vec::new() } else { rest.to_vec() };
            Ok(Received { filled, short, ended: self.ended })
        })
    }

    /// Works on `received`; says how many of its bytes are done with, and how many plain ones are in `into`.
    fn process(&mut self, received: &mut [u8], into: &mut [u8]) -> Result<(usize, usize), rustls::Error> {
        let Self { side, unread, unsent, ended, .. } = self;
        let mut sinks = Sinks { into, filled: 0, unread, unsent, ended };
        let used = match side {
            Side::Client(connection) => drive(connection, received, &mut sinks),
            Side::Server(connection) => drive(connection, received, &mut sinks),
        }?;
        Ok((used, sinks.filled))
    }

    /// Encrypts some of `parts` and gives them to the socket; returns how many plain bytes were taken, of which the
    /// socket may not have all yet.
    ///
    /// # Errors
    /// `WouldBlock` when earlier bytes still wait for the socket, and the socket's.
    pub(crate) fn write(
        &mut self,
        parts: &[IoSlice<'_>],
        mut socket: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.flush(&mut socket)?;
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch { sealed, gathered, .. } = scratch;
            let plain = match parts {
                [part] => part.get(..WRITE_SIZE).unwrap_or(part),
                parts => gather(parts, gathered),
            };
            if plain.is_empty() {
                return Ok(0);
            }
            let length = self.seal(plain, sealed)?;
            let sealed = sealed.get(..length).unwrap_or_default();
            let sent = send(sealed, socket)?;
            self.unsent.extend_from_slice(sealed.get(sent..).unwrap_or_default());
            Ok(plain.len())
        })
    }

    /// Gives the socket what it has not taken yet.
    ///
    /// # Errors
    /// `WouldBlock` when some is left, and the socket's.
    pub(crate) fn flush(&mut self, socket: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let sent = send(&self.unsent, socket)?;
        if sent == self.unsent.len() {
            self.unsent = Vec::new();
            return Ok(());
        }
        self.unsent.drain(..sent);
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Tells the peer, with the next [`Session::flush`], that nothing more comes.
    pub(crate) fn close(&mut self) {
        let mut notice = [0; 512];
        let length = self.with_traffic(|mut traffic| match &mut traffic {
            Traffic::Client(traffic) => traffic.queue_close_notify(&mut notice),
            Traffic::Server(traffic) => traffic.queue_close_notify(&mut notice),
        });
        // Without keys, or with more to tell than fits, the connection ends without a word.
        if let Ok(length) = length {
            self.unsent.extend_from_slice(notice.get(..length).unwrap_or_default());
        }
    }

    fn seal(&mut self, plain: &[u8], sealed: &mut [u8]) -> io::Result<usize> {
        self.with_traffic(|mut traffic| match &mut traffic {
            Traffic::Client(traffic) => traffic.encrypt(plain, sealed),
            Traffic::Server(traffic) => traffic.encrypt(plain, sealed),
        })
    }

    /// Works up to where data can be sent, and lets `act` do that.
    fn with_traffic(&mut self, act: impl FnOnce(Traffic<'_>) -> Result<usize, EncryptError>) -> io::Result<usize> {
        self.advance().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, Failed(error)))?;
        let Self { side, begun, .. } = self;
        let acted = match side {
            Side::Client(connection) => match connection.step(begun).state {
                Ok(ConnectionState::WriteTraffic(traffic)) => act(Traffic::Client(traffic)),
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            },
            Side::Server(connection) => match connection.step(begun).state {
                Ok(ConnectionState::WriteTraffic(traffic)) => act(Traffic::Server(traffic)),
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            },
        };
        acted.map_err(io::Error::other)
    }
}

enum Traffic<'c> {
    Client(WriteTraffic<'c, ClientConnectionData>),
    Server(WriteTraffic<'c, ServerConnectionData>),
}

/// What one read from the socket came to.
struct Received {
    filled: usize,
    /// The socket had no more than this.
    short: bool,
    ended: bool,
}

/// Works on received records until more are needed; says how many bytes are done with.
fn drive<E: Engine>(engine: &mut E, mut received: &mut [u8], sinks: &mut Sinks<'_>) -> Result<usize, rustls::Error> {
    let mut used = 0;
    loop {
        let UnbufferedStatus { mut discard, state } = engine.step(received);
        let mut waits = false;
        match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    sinks.plain(record.payload);
                }
            }
            ConnectionState::EncodeTlsData(mut message) => {
                let start = sinks.unsent.len();
                let encoded = message.encode(&mut []);
                let needed = match encoded {
                    Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
                    Ok(_) | Err(EncodeError::AlreadyEncoded) => 0,
                };
                sinks.unsent.resize(start + needed, 0);
                let _fits = message.encode(sinks.unsent.get_mut(start..).unwrap_or_default());
            }
            ConnectionState::TransmitTlsData(transmit) => transmit.done(),
            ConnectionState::PeerClosed => *sinks.ended = true,
            ConnectionState::Closed => {
                *sinks.ended = true;
                waits = true;
            }
            // Early data is not asked for, so that none is taken.
            _ => waits = true,
        }
        used += discard;
        received = received.get_mut(discard..).unwrap_or_default();
        if waits {
            return Ok(used);
        }
    }
}

impl Sinks<'_> {
    /// Takes plain bytes: the reader's memory first, and in order.
    fn plain(&mut self, payload: &[u8]) {
        let room = self.into.get_mut(self.filled..).unwrap_or_default();
        let count = if self.unread.is_empty() { payload.len().min(room.len()) } else { 0 };
        if let (Some(room), Some(front)) = (room.get_mut(..count), payload.get(..count)) {
            room.copy_from_slice(front);
        }
        self.filled += count;
        self.unread.extend_from_slice(payload.get(count..).unwrap_or_default());
    }
}

/// Moves the front of `from` to `into`; gives the memory back when all of it was moved.
fn take_front(from: &mut Vec<u8>, into: &mut [u8]) -> usize {
    let count = from.len().min(into.len());
    if let (Some(place), Some(front)) = (into.get_mut(..count), from.get(..count)) {
        place.copy_from_slice(front);
    }
    if count == from.len() {
        *from = Vec::new();
    } else {
        from.drain(..count);
    }
    count
}

/// Copies parts together, as much as is encrypted at once.
fn gather<'a>(parts: &[IoSlice<'_>], gathered: &'a mut Vec<u8>) -> &'a [u8] {
    gathered.clear();
    for part in parts {
        let room = WRITE_SIZE - gathered.len();
        gathered.extend_from_slice(part.get(..room).unwrap_or(part));
        if gathered.len() == WRITE_SIZE {
            break;
        }
    }
    gathered
}

/// Bytes that the socket took before it would have made us wait.
fn send(data: &[u8], mut socket: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
    let mut sent = 0;
    while let Some(rest) = data.get(sent..).filter(|rest| !rest.is_empty()) {
        match socket(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
