//! A line of the access log: a TNetString list.

use std::fmt;

use bytes::Bytes;
use waft_zhttp::Value;

use crate::request::put_netstring;

/// One request, as the access log tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLine<'a> {
    /// The entry of the configuration that the host belongs to.
    pub host: &'a str,
    /// Address of the client.
    pub address: &'a str,
    /// Port of the client.
    pub port: u16,
    /// When it was served, in seconds of Unix time.
    pub time: u64,
    /// Its method.
    pub method: &'a str,
    /// Its path without the query.
    pub path: &'a str,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: &'a str,
    /// Status of the answer; 200 for one that went to a handler.
    pub status: u16,
    /// Bytes of the answer's body; of the request's body for one that went to a handler.
    pub size: u64,
}

/// A line is not one of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a line of an access log: a TNetString list of nine values is expected")]
pub struct AccessLineError;

impl AccessLine<'_> {
    /// Appends the line to `out`, with the line end.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut list = Vec::with_capacity(128);
        let mut number = itoa::Buffer::new();
        put_netstring(&mut list, self.host.as_bytes(), b',');
        put_netstring(&mut list, self.address.as_bytes(), b',');
        put_netstring(&mut list, number.format(self.port).as_bytes(), b'#');
        put_netstring(&mut list, number.format(self.time).as_bytes(), b'#');
        for text in [self.method, self.path, self.version] {
            put_netstring(&mut list, text.as_bytes(), b',');
        }
        put_netstring(&mut list, number.format(self.status).as_bytes(), b'#');
        put_netstring(&mut list, number.format(self.size).as_bytes(), b'#');
        put_netstring(out, &list, b']');
        out.push(b'\n');
    }

    /// Reads a line, without its end, and shows it to `with`.
    ///
    /// # Errors
    /// The line is something else.
    pub fn read<T>(line: &Bytes, with: impl FnOnce(&AccessLine<'_>) -> T) -> Result<T, AccessLineError> {
        let Ok(Value::List(items)) = Value::decode(line) else { return Err(AccessLineError) };
        let text = |at: usize| match items.get(at) {
            Some(Value::Bytes(bytes)) => std::str::from_utf8(bytes).map_err(|_| AccessLineError),
            _ => Err(AccessLineError),
        };
        let number = |at: usize| match items.get(at) {
            Some(Value::Integer(number)) => u64::try_from(*number).map_err(|_| AccessLineError),
            _ => Err(AccessLineError),
        };
        let small = |at: usize| u16::try_from(number(at)?).map_err(|_| AccessLineError);
        Ok(with(&AccessLine {
            host: text(0)?,
            address: text(1)?,
            port: small(2)?,
            time: number(3)?,
            method: text(4)?,
            path: text(5)?,
            version: text(6)?,
            status: small(7)?,
            size: number(8)?,
        }))
    }
}

/// The line for people: `[time] address:port host "METHOD path version" status size`.
impl fmt::Display for AccessLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, address, port, time, method, path, version, status, size } = self;
        write!(f, "[{time}] {address}:{port} {host} \"{method} {path} {version}\" {status} {size}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_and_read() {
        let line = AccessLine {
            host: "ex.test",
            address: "192.0.2.7",
            port: 50123,
            time: 1_700_000_000,
            method: "GET",
            path: "/a.txt",
            version: "HTTP/1.1",
            status: 200,
            size: 7,
        };
        let mut out = Vec::new();
        line.write(&mut out);
        let expected = "80:7:ex.test,9:192.0.2.7,5:50123#10:1700000000#3:GET,6:/a.txt,8:HTTP/1.1,3:200#1:7#]\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
        let read = Bytes::from(expected.trim_end().to_owned());
        assert!(AccessLine::read(&read, |again| assert_eq!(*again, line)).is_ok());
        assert_eq!(line.to_string(), "[1700000000] 192.0.2.7:50123 ex.test \"GET /a.txt HTTP/1.1\" 200 7");
        assert_eq!(AccessLine::read(&"1:x,".into(), |_| ()), Err(AccessLineError));
        assert_eq!(AccessLine::read(&"4:1:x,]".into(), |_| ()), Err(AccessLineError));
    }
}
