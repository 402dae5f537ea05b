//! HTTP/1.1 heads and bodies without IO.
//!
//! Bytes in, heads and pieces of bodies out, for both sides: requests from clients, responses from targets. There are
//! no sockets, no clock and no connection state here; who reads, how long to wait and what to answer is the caller's
//! business. Everything on which two readers of the same bytes could disagree is an error: bare line ends, folded
//! lines, repeated or contradictory lengths, any transfer coding but `chunked`. Messages are never copied through;
//! what leaves is built anew with [`HeadWriter`].
//!
//! Start with [`parse_request`] and [`BodyDecoder`]. The standards are RFC 9110 and RFC 9112.
//!
//! ```
//! use waft_http1::{BodyDecoder, HeadLimits, HeadWriter, Parsed, parse_request};
//!
//! let input = b"POST /chat?room=1 HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n\
//!               5\r\nhello\r\n0\r\n\r\n";
//! let Parsed::Complete { head, consumed } = parse_request(input, &HeadLimits::default())? else {
//!     panic!("the head is complete");
//! };
//! assert_eq!((head.method(), head.path(), head.query()), ("POST", "/chat", Some("room=1")));
//!
//! let mut body = BodyDecoder::new(head.framing());
//! let piece = body.decode(&input[consumed..])?;
//! assert_eq!(piece.data, b"hello");
//! assert!(body.is_done());
//!
//! let mut out = Vec::new();
//! let mut writer = HeadWriter::new(&mut out);
//! writer.request_line(head.method(), head.path_and_query()).fields(head.end_to_end_fields()).content_length(5);
//! writer.finish();
//! assert_eq!(out, b"POST /chat?room=1 HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod body;
mod error;
mod fields;
mod head;
mod hop;
mod limits;
mod octets;
mod reason;
mod request;
mod response;
mod write;

pub use body::{BodyDecoder, Decoded};
pub use error::{BodyError, HeadError};
pub use fields::Fields;
pub use head::{Framing, Parsed, Version};
pub use hop::{connection_options, is_hop_by_hop};
pub use limits::{
    CHUNK_EXTENSIONS_BYTES_MAX, CHUNK_SIZE_DIGITS_MAX, HeadLimits, LEADING_BLANK_LINES_MAX, TRAILERS_BYTES_MAX,
};
pub use reason::reason_phrase;
pub use request::{RequestHead, parse_request};
pub use response::{ResponseHead, parse_response};
pub use write::{ChunkHeader, HeadWriter, LAST_CHUNK, chunk, chunk_header};
