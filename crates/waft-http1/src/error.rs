//! What can be wrong with a head or a body; each variant names the rule that was broken.

use thiserror::Error;

/// A head that is refused. The connection cannot be used any further, because where the next message begins is unknown.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadError {
    /// A carriage return that no line feed follows.
    #[error("bare carriage return")]
    BareCarriageReturn,
    /// A line feed without a carriage return before it.
    #[error("bare line feed")]
    BareLineFeed,
    /// More blank lines before the request line than `LEADING_BLANK_LINES_MAX`.
    #[error("too many blank lines before the request line")]
    BlankLines,
    /// A control byte (NUL and DEL among them) in the head.
    #[error("control character in header")]
    ControlByte,
    /// More than one Host field.
    #[error("more than one host header")]
    DuplicateHost,
    /// A field continued on a second line (obs-fold).
    #[error("folded header line")]
    FoldedField,
    /// The head is longer than the limit.
    #[error("header size exceeded limit of {limit} bytes")]
    HeadTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// Content-Length that is repeated, a list, or not a plain decimal number of 64 bits.
    #[error("invalid content length")]
    InvalidContentLength,
    /// A field name that is empty or holds a byte which no name may hold.
    #[error("invalid header name")]
    InvalidFieldName,
    /// A Host field that is not a host with an optional port.
    #[error("invalid host header")]
    InvalidHost,
    /// A method that is not a token.
    #[error("invalid method")]
    InvalidMethod,
    /// A status that is not three digits between 100 and 999.
    #[error("invalid status code")]
    InvalidStatus,
    /// A request target in none of the four forms, or with a byte that no target may hold.
    #[error("invalid request target")]
    InvalidTarget,
    /// Transfer-Encoding that is malformed, repeated, or names `chunked` more than once.
    #[error("unsupported transfer encoding: malformed or repeated")]
    InvalidTransferEncoding,
    /// The version text is not `HTTP/` with two digits.
    #[error("invalid http version")]
    InvalidVersion,
    /// Both Content-Length and Transfer-Encoding: the two ends could see different messages.
    #[error("both content length and transfer encoding")]
    LengthAndTransferEncoding,
    /// A request line that is not a method, a target and a version with one space between each.
    #[error("malformed request line")]
    MalformedRequestLine,
    /// A field line without a colon.
    #[error("header line without a colon")]
    MissingColon,
    /// No Host field in a request of HTTP/1.1 (RFC 9112 section 3.2).
    #[error("missing host header")]
    MissingHost,
    /// White space between a field's name and its colon.
    #[error("space before the colon of a header")]
    SpaceBeforeColon,
    /// The request target is longer than the limit.
    #[error("request target exceeded limit of {limit} bytes")]
    TargetTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// More fields than the limit.
    #[error("number of headers exceeded limit of {limit}")]
    TooManyFields {
        /// The limit in fields.
        limit: usize,
    },
    /// Transfer-Encoding in an HTTP/1.0 message, which does not know it.
    #[error("transfer encoding in an http/1.0 message")]
    TransferEncodingOnHttp10,
    /// A well-formed transfer coding other than exactly `chunked`.
    #[error("unsupported transfer encoding")]
    UnsupportedTransferEncoding,
    /// A version other than 1.0 and 1.1.
    #[error("unsupported http version")]
    UnsupportedVersion,
}

impl HeadError {
    /// The status with which a server answers a request that is refused for this reason.
    ///
    /// A gateway that meets the error in a response answers 502 to its own client instead.
    pub fn status(&self) -> u16 {
        match self {
            Self::TargetTooLong { .. } => 414,
            Self::HeadTooLong { .. } | Self::TooManyFields { .. } => 431,
            Self::UnsupportedTransferEncoding => 501,
            Self::UnsupportedVersion => 505,
            Self::BareCarriageReturn
            | Self::BareLineFeed
            | Self::BlankLines
            | Self::ControlByte
            | Self::DuplicateHost
            | Self::FoldedField
            | Self::InvalidContentLength
            | Self::InvalidFieldName
            | Self::InvalidHost
            | Self::InvalidMethod
            | Self::InvalidStatus
            | Self::InvalidTarget
            | Self::InvalidTransferEncoding
            | Self::InvalidVersion
            | Self::LengthAndTransferEncoding
            | Self::MalformedRequestLine
            | Self::MissingColon
            | Self::MissingHost
            | Self::SpaceBeforeColon
            | Self::TransferEncodingOnHttp10 => 400,
        }
    }
}

/// A body that is refused or was cut short. The connection cannot be used any further.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyError {
    /// A line feed without a carriage return before it, or a carriage return without a line feed.
    #[error("bare line end in chunked body")]
    BareLineEnd,
    /// The bytes after a chunk's data are not a line end, so its size was wrong.
    #[error("chunk data not followed by a line end")]
    ChunkNotEnded,
    /// Control byte in a chunk extension or trailer.
    #[error("control character in chunked body framing")]
    ControlByte,
    /// The peer closed before the body's end.
    #[error("body cut short by the end of the connection")]
    CutShort,
    /// Chunk extensions longer than the limit.
    #[error("chunk extensions exceeded limit of {limit} bytes")]
    ExtensionsTooLong {
        /// The limit in bytes over the whole body.
        limit: usize,
    },
    /// A chunk size that is empty, not hexadecimal, or followed by something else than an extension or a line end.
    #[error("invalid chunk size")]
    InvalidChunkSize,
    /// A trailer line that is not a field.
    #[error("invalid trailer")]
    InvalidTrailer,
    /// A chunk size with more digits than a 64-bit number has.
    #[error("chunk size too large")]
    SizeTooLong,
    /// Trailers longer than the limit.
    #[error("trailers exceeded limit of {limit} bytes")]
    TrailersTooLong {
        /// The limit in bytes.
        limit: usize,
    },
}

impl BodyError {
    /// The status with which a server answers a request whose body is refused for this reason, if it still can.
    pub fn status(&self) -> u16 {
        400
    }
}
