use crate::{Connection, Head};

/// A WebSocket as a test sees it: frames one by one, from the side of the client.
#[derive(Debug)]
pub struct WebSocket {
    connection: Connection,
    /// The head that accepted the handshake.
    pub head: Head,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether it ends its message.
    pub is_final: bool,
    /// What it is.
    pub opcode: Opcode,
    /// What it carries, unmasked.
    pub payload: Vec<u8>,
}

/// The kinds of frames of RFC 6455, section 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further part of a message.
    Continuation = 0x0,
    /// Text.
    Text = 0x1,
    /// Bytes.
    Binary = 0x2,
    /// The closing handshake.
    Close = 0x8,
    /// Are you there?
    Ping = 0x9,
    /// Yes.
    Pong = 0xa,
}

/// The key of the example in RFC 6455, section 1.3, and the answer that belongs to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

impl WebSocket {
    /// The request that opens a WebSocket, with further header lines.
    pub fn request(path: &str, more: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
        )
    }

    /// Makes the handshake on a fresh connection.
    pub fn open(mut connection: Connection, path: &str, more: &str) -> Self {
        connection.send(Self::request(path, more));
        let head = connection.expect_head(101);
        assert_eq!(head.header("Sec-WebSocket-Accept"), Some(ACCEPT), "{head:?}");
        Self { connection, head }
    }

    /// Sends a masked frame.
    pub fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut frame = vec![0x80 | opcode as u8];
        match payload.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length @ 126..=65_535 => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.connection.send(frame);
    }

    /// Sends bytes as they are, which need not be frames. The server may have closed already, at the first that was wrong.
    pub fn send_bytes(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.connection.try_send(bytes);
    }

    /// Sends a text message.
    pub fn send_text(&mut self, text: &str) {
        self.send(Opcode::Text, text.as_bytes());
    }

    /// Waits for another byte; false when none came in time, or the server closed.
    pub fn has_more(&mut self) -> bool {
        self.connection.has_more()
    }

    /// Reads the next frame, which a server must not mask.
    pub fn frame(&mut self) -> Frame {
        let start = self.connection.exactly(2);
        assert_eq!(start[0] & 0x70, 0, "reserved bits are set");
        assert_eq!(start[1] & 0x80, 0, "a server must not mask");
        let length = match start[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes(self.connection.exactly(2).try_into().unwrap())),
            127 => u64::from_be_bytes(self.connection.exactly(8).try_into().unwrap()),
            short => u64::from(short),
        };
        let opcode = match start[0] & 0x0f {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            other => panic!("unknown opcode {other}"),
        };
        let payload = self.connection.exactly(length as usize);
        Frame { is_final: start[0] & 0x80 != 0, opcode, payload }
    }

    /// Reads a whole message, joining its frames and passing over pings and pongs.
    pub fn message(&mut self) -> (Opcode, Vec<u8>) {
        let mut kind = None;
        let mut whole = Vec::new();
        loop {
            let frame = self.frame();
            if matches!(frame.opcode, Opcode::Ping | Opcode::Pong) {
                continue;
            }
            kind = kind.or(Some(frame.opcode));
            whole.extend(frame.payload);
            if frame.is_final {
                return (kind.unwrap_or(frame.opcode), whole);
            }
        }
    }

    /// Reads a text message and checks it.
    pub fn expect_text(&mut self, text: &str) {
        let (opcode, payload) = self.message();
        assert_eq!((opcode, String::from_utf8_lossy(&payload).as_ref()), (Opcode::Text, text));
    }

    /// Reads a close frame and returns its code, if it has one, and its reason.
    pub fn expect_close(&mut self) -> (Option<u16>, String) {
        let (opcode, payload) = self.message();
        assert_eq!(opcode, Opcode::Close, "expected a close frame, got {:?}", String::from_utf8_lossy(&payload));
        match payload.split_at_checked(2) {
            Some((code, reason)) => {
                let code = u16::from_be_bytes([code[0], code[1]]);
                (Some(code), String::from_utf8_lossy(reason).into_owned())
            }
            None => (None, String::new()),
        }
    }

    /// The connection below.
    pub fn into_connection(self) -> Connection {
        self.connection
    }
}
