//! As much HTTP/1.1 as a load generator needs: heads, framing of bodies, and a reader for one response after the other.

use memchr::memmem;

/// Where a head ends: the index behind its empty line.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The value of the first header called `name` (ASCII, any case) in a whole head.
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut rest = head;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let (line, tail) = rest.split_at(end + 1);
        rest = tail;
        if let Some((key, value)) = line.split_at_checked(name.len())
            && key.eq_ignore_ascii_case(name.as_bytes())
            && let Some(value) = value.strip_prefix(b":")
        {
            return Some(value.trim_ascii());
        }
    }
    None
}

/// The status code of a response head.
pub fn status(head: &[u8]) -> Option<u16> {
    let digits = head.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The value of a query parameter in the request line of `head`.
pub fn query<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let line = head.split(|&byte| byte == b'\r').next()?;
    let target = line.split(|&byte| byte == b' ').nth(1)?;
    let (_, query) = target.split_at(memchr::memchr(b'?', target)? + 1);
    query.split(|&byte| byte == b'&').find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// A declared length of a body, zero without one.
pub fn content_length(head: &[u8]) -> usize {
    header(head, "content-length").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()).unwrap_or(0)
}

/// Whether the sender of this head closes the connection afterwards.
pub fn closes(head: &[u8]) -> bool {
    header(head, "connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"))
}

/// How far the reader of a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Head,
    Length(u64),
    /// A chunk size is being read; the digits so far.
    Size(u64),
    /// The rest of a size line, behind an extension or before its line feed.
    SizeEnd(u64),
    Chunk(u64),
    /// Bytes to skip behind a chunk or behind the last one.
    Skip(u8),
    LastSkip(u8),
    UntilClose,
    Done,
}

/// Reads one response; reset it for the next.
#[derive(Debug)]
pub struct Response {
    place: Place,
    /// Bytes of a head that came in pieces.
    partial: Vec<u8>,
    /// The status, once the head was read.
    pub status: Option<u16>,
    /// Whether the server said it would close.
    pub closes: bool,
}

impl Response {
    /// A reader that expects a head.
    pub const fn new() -> Self {
        Self { place: Place::Head, partial: Vec::new(), status: None, closes: false }
    }

    /// Whether the response is complete.
    pub fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    /// The connection ended. True if that completes the response.
    pub fn end(&mut self) -> bool {
        if self.place == Place::UntilClose {
            self.place = Place::Done;
        }
        self.is_done()
    }

    /// Takes bytes and hands parts of the body on. An error is a response that breaks the rules.
    pub fn feed(&mut self, mut input: &[u8], mut body: impl FnMut(&[u8])) -> Result<(), String> {
        while let Some(&first) = input.first() {
            match self.place {
                Place::Head => {
                    let Some(rest) = self.feed_head(input)? else { return Ok(()) };
                    input = rest;
                }
                Place::Length(left) | Place::Chunk(left) => {
                    let take = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let (part, rest) = input.split_at(take);
                    body(part);
                    input = rest;
                    let left = left - take as u64;
                    self.place = match (self.place, left) {
                        (Place::Length(_), 0) => Place::Done,
                        (Place::Length(_), left) => Place::Length(left),
                        (_, 0) => Place::Skip(2),
                        (_, left) => Place::Chunk(left),
                    };
                }
                Place::Size(size) => {
                    input = &input[1..];
                    self.place = match first {
                        b'\n' if size == 0 => Place::LastSkip(2),
                        b'\n' => Place::Chunk(size),
                        b'\r' | b';' => Place::SizeEnd(size),
                        _ => match char::from(first).to_digit(16) {
                            Some(digit) => Place::Size(size.wrapping_mul(16).wrapping_add(u64::from(digit))),
                            None => return Err(format!("byte {first:#x} in a chunk size")),
                        },
                    };
                }
                Place::SizeEnd(size) => {
                    input = &input[1..];
                    if first == b'\n' {
                        self.place = if size == 0 { Place::LastSkip(2) } else { Place::Chunk(size) };
                    }
                }
                Place::Skip(left) => {
                    input = &input[1..];
                    self.place = if left == 1 { Place::Size(0) } else { Place::Skip(left - 1) };
                }
                Place::LastSkip(left) => {
                    input = &input[1..];
                    self.place = if left == 1 { Place::Done } else { Place::LastSkip(left - 1) };
                }
                Place::UntilClose => {
                    body(input);
                    return Ok(());
                }
                Place::Done => return Err(format!("{} bytes behind a response", input.len())),
            }
        }
        Ok(())
    }

    /// Looks for the end of the head; `None` means that more is needed.
    fn feed_head<'a>(&mut self, input: &'a [u8]) -> Result<Option<&'a [u8]>, String> {
        let whole;
        let (head, rest) = if self.partial.is_empty() {
            let Some(end) = head_end(input) else {
                self.partial.extend_from_slice(input);
                return Ok(None);
            };
            input.split_at(end)
        } else {
            let before = self.partial.len();
            self.partial.extend_from_slice(input);
            let Some(end) = head_end(&self.partial) else { return Ok(None) };
            whole = std::mem::take(&mut self.partial);
            (&whole[..end], &input[end - before..])
        };
        let status = status(head).ok_or_else(|| "no status line".to_owned())?;
        self.status = Some(status);
        self.closes = closes(head);
        let chunked = header(head, "transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"));
        self.place = if status == 204 || status == 304 {
            Place::Done
        } else if status == 101 {
            // What follows belongs to another protocol and is handed on as it comes.
            Place::UntilClose
        } else if chunked {
            Place::Size(0)
        } else if header(head, "content-length").is_some() {
            match content_length(head) {
                0 => Place::Done,
                length => Place::Length(length as u64),
            }
        } else {
            Place::UntilClose
        };
        Ok(Some(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], body: &[u8], done: bool) {
        for split in 0..=bytes.len() {
            let (mut response, mut seen) = (Response::new(), Vec::new());
            for part in [&bytes[..split], &bytes[split..]] {
                response.feed(part, |part| seen.extend_from_slice(part)).expect("a fair response");
            }
            assert_eq!((seen.as_slice(), response.is_done()), (body, done), "split at {split}");
        }
    }

    #[test]
    fn a_response_is_read_the_same_in_any_split() {
        check(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", true);
        check(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\na;x=y\r\n0123456789\r\n",
            b"hello0123456789",
            false,
        );
        check(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"hi", true);
        check(b"HTTP/1.0 200 OK\r\n\r\nall", b"all", false);
    }

    #[test]
    fn headers_and_queries_are_found_by_name() {
        let head = b"GET /stream?x=1&channel=c7 HTTP/1.1\r\nHost: a\r\ncontent-LENGTH:  12 \r\n\r\n";
        assert_eq!(query(head, "channel"), Some(&b"c7"[..]));
        assert_eq!(content_length(head), 12);
        assert_eq!(header(head, "hos"), None);
    }
}
