//! Writing heads and chunks.

use bytes::{BufMut, Bytes, BytesMut};

use crate::octets::{has_control, is_control, is_token, is_token_byte};

/// The chunk that ends a chunked body, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends a head to a buffer: a first line, fields, and `finish`.
///
/// Whatever is passed in, the head that comes out has the lines that were asked for and no others: control bytes in
/// values become spaces (RFC 9110 section 5.5), fields whose name is not a token are left out, and bytes which a target
/// may not hold are percent-encoded.
#[derive(Debug)]
pub struct HeadWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> HeadWriter<'a> {
    /// Writes at the end of `out`, which the caller clears and uses again.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Writes `METHOD target HTTP/1.1`. An empty target becomes `/`.
    pub fn request_line(&mut self, method: &str, target: &str) -> &mut Self {
        self.out.extend(method.bytes().filter(|&byte| is_token_byte(byte)));
        self.out.push(b' ');
        if target.is_empty() {
            self.out.push(b'/');
        }
        let clean = target.bytes().fold(true, |clean, byte| clean & is_target_byte(byte));
        if clean {
            self.out.extend_from_slice(target.as_bytes());
        } else {
            for byte in target.bytes() {
                match is_target_byte(byte) {
                    true => self.out.push(byte),
                    false => self.out.extend_from_slice(&[b'%', hex_digit(byte >> 4), hex_digit(byte & 0x0f)]),
                }
            }
        }
        self.out.extend_from_slice(b" HTTP/1.1\r\n");
        self
    }

    /// Writes `HTTP/1.1 code reason`. The code is brought into the range of three digits.
    pub fn status_line(&mut self, code: u16, reason: &str) -> &mut Self {
        self.out.extend_from_slice(b"HTTP/1.1 ");
        self.out.extend_from_slice(itoa::Buffer::new().format(code.clamp(100, 999)).as_bytes());
        self.out.push(b' ');
        self.text(reason.as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Writes one field.
    #[inline]
    pub fn field(&mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> &mut Self {
        let (name, value) = (name.as_ref().as_bytes(), value.as_ref());
        if !is_token(name) {
            return self;
        }
        self.out.reserve(name.len() + value.len() + 4);
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        self.text(value);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Writes several fields.
    pub fn fields<'f>(&mut self, fields: impl IntoIterator<Item = (&'f str, &'f [u8])>) -> &mut Self {
        for (name, value) in fields {
            self.field(name, value);
        }
        self
    }

    /// Writes Content-Length.
    pub fn content_length(&mut self, length: u64) -> &mut Self {
        self.field("Content-Length", itoa::Buffer::new().format(length))
    }

    /// Writes the blank line that ends the head.
    pub fn finish(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }

    #[inline]
    fn text(&mut self, value: &[u8]) {
        if has_control(value) {
            self.out.extend(value.iter().map(|&byte| if is_control(byte) { b' ' } else { byte }));
        } else {
            self.out.extend_from_slice(value);
        }
    }
}

fn is_target_byte(byte: u8) -> bool {
    (byte > b' ') & (byte < 0x7f) & (byte != b'#')
}

fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'A' + nibble - 10,
    }
}

/// One complete chunk: size, data, line end. Nothing for empty data, because an empty chunk would end the body.
pub fn chunk(data: &[u8]) -> Bytes {
    if data.is_empty() {
        return Bytes::new();
    }
    let header = chunk_header(data.len());
    let mut out = BytesMut::with_capacity(header.as_bytes().len() + data.len() + 2);
    out.put_slice(header.as_bytes());
    out.put_slice(data);
    out.put_slice(b"\r\n");
    out.freeze()
}

/// The size line of a chunk with `len` bytes of data, which a line end must follow. A length of 0 starts the last chunk.
pub fn chunk_header(len: usize) -> ChunkHeader {
    let mut header = ChunkHeader { bytes: [0; HEADER_MAX], start: HEADER_MAX as u8 };
    let mut rest = len as u64;
    header.put_before(b'\n');
    header.put_before(b'\r');
    loop {
        header.put_before(hex_digit((rest & 0x0f) as u8));
        rest >>= 4;
        if rest == 0 {
            return header;
        }
    }
}

/// A chunk's size line, held inline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    bytes: [u8; HEADER_MAX],
    start: u8,
}

/// Sixteen digits, carriage return and line feed.
const HEADER_MAX: usize = 18;

impl ChunkHeader {
    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(usize::from(self.start)..).unwrap_or_default()
    }

    fn put_before(&mut self, byte: u8) {
        self.start = self.start.saturating_sub(1);
        if let Some(place) = self.bytes.get_mut(usize::from(self.start)) {
            *place = byte;
        }
    }
}

impl AsRef<[u8]> for ChunkHeader {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut HeadWriter<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut HeadWriter::new(&mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_is_written_line_by_line() {
        let head = written(|head| {
            head.request_line("POST", "/a?b").field("Host", "h").content_length(12).finish();
        });
        assert_eq!(head, "POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n");
    }

    #[test]
    fn nothing_can_be_injected() {
        type Write = fn(&mut HeadWriter<'_>);
        let cases: [(Write, &str); 8] = [
            (
                |head| {
                    head.field("A", "1\r\nB: 2\0");
                },
                "A: 1  B: 2 \r\n",
            ),
            (
                |head| {
                    head.field("A\r\nB", "1");
                },
                "",
            ),
            (
                |head| {
                    head.field("", "1");
                },
                "",
            ),
            (
                |head| {
                    head.field("A:", "1");
                },
                "",
            ),
            (
                |head| {
                    head.status_line(200, "OK\r\nB: 2");
                },
                "HTTP/1.1 200 OK  B: 2\r\n",
            ),
            (
                |head| {
                    head.status_line(7, "");
                },
                "HTTP/1.1 100 \r\n",
            ),
            (
                |head| {
                    head.request_line("GE T\r\n", "/a b\r\n\u{e9}#");
                },
                "GET /a%20b%0D%0A%C3%A9%23 HTTP/1.1\r\n",
            ),
            (
                |head| {
                    head.request_line("GET", "");
                },
                "GET / HTTP/1.1\r\n",
            ),
        ];
        for (write, expected) in cases {
            assert_eq!(written(write), expected);
        }
    }

    #[test]
    fn chunks_have_hexadecimal_sizes() {
        assert_eq!(chunk(b"hello"), b"5\r\nhello\r\n".as_slice());
        assert_eq!(chunk(&[b'x'; 26]).get(..4), Some(b"1A\r\n".as_slice()));
        assert_eq!(chunk(b""), b"".as_slice());
        assert_eq!(chunk_header(0).as_bytes(), b"0\r\n");
        assert_eq!(chunk_header(usize::MAX).as_bytes(), b"FFFFFFFFFFFFFFFF\r\n");
    }
}
