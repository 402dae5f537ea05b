//! The answers that waft gives itself.

use waft_http1::{Fields, HeadWriter, Version, reason_phrase};

use crate::service::Answer;

/// The interim answer that lets a client send its body.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The bytes of an own answer.
pub(crate) fn own(to_head: bool, version: Version, answer: &Answer, keep_alive: bool) -> Vec<u8> {
    let reason = reason_phrase(answer.status);
    let body = if to_head { &[] } else { &*answer.body };
    let framing = Frame::Length(answer.body.len());
    let mut out = head(answer.status, reason, &answer.fields, framing, version, keep_alive);
    out.extend_from_slice(body);
    out
}

/// How the body of a response is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Length(usize),
    /// Chunks for HTTP/1.1; up to the end of the connection for HTTP/1.0.
    Stream,
    /// There is no body, and none is announced.
    None,
}

/// A response head from a list of fields.
pub(crate) fn head(
    status: u16,
    reason: &str,
    fields: &Fields,
    frame: Frame,
    version: Version,
    keep_alive: bool,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut writer = HeadWriter::new(&mut out);
    writer.status_line(status, reason).fields(fields.iter());
    finish(&mut writer, frame, version, keep_alive);
    writer.finish();
    out
}

/// Writes the fields that frame a response and say what becomes of the connection.
pub(crate) fn finish(writer: &mut HeadWriter<'_>, frame: Frame, version: Version, keep_alive: bool) {
    match frame {
        Frame::Length(length) => {
            writer.content_length(length as u64);
        }
        Frame::Stream if version == Version::Http11 => {
            writer.field("Transfer-Encoding", "chunked");
        }
        Frame::Stream | Frame::None => {}
    }
    connection(writer, frame, version, keep_alive);
}

/// Writes what becomes of the connection, where it is not what the version implies.
pub(crate) fn connection(writer: &mut HeadWriter<'_>, frame: Frame, version: Version, keep_alive: bool) {
    let ends = !keep_alive || (version == Version::Http10 && frame == Frame::Stream);
    match version {
        Version::Http11 if ends => writer.field("Connection", "close"),
        Version::Http10 if !ends => writer.field("Connection", "keep-alive"),
        Version::Http10 | Version::Http11 => writer,
    };
}

/// Why a request was answered with an error of waft's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    /// What every client may know.
    pub(crate) public: &'static str,
    /// What helps to find the cause: for debug mode and the log.
    pub(crate) detail: String,
}

/// What clients are told of anything that went wrong beyond this gateway.
pub(crate) const PROXY_ERROR: &str = "Error while proxying to origin.";

impl Failure {
    /// Something went wrong between this gateway and the target.
    pub(crate) fn target(status: u16, detail: impl Into<String>) -> Self {
        Self { status, public: PROXY_ERROR, detail: detail.into() }
    }

    /// The request itself cannot be served.
    pub(crate) fn request(status: u16, public: &'static str) -> Self {
        Self { status, public, detail: String::new() }
    }

    /// The answer, with the detail instead of the public text if `debug`.
    pub(crate) fn answer(&self, debug: bool) -> Answer {
        let text = if debug && !self.detail.is_empty() { &self.detail } else { self.public };
        let mut answer = Answer::text(self.status, format!("{text}\n"));
        if matches!(self.status, 503) {
            answer.fields.push("Retry-After", b"1");
        }
        answer
    }
}

/// Fields of a GRIP header list as fields of a response.
pub(crate) fn fields_from<'a>(list: impl Iterator<Item = (&'a str, &'a [u8])>) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in list {
        fields.push(name, value);
    }
    fields
}
