//! ZHTTP without sockets: TNetStrings, packets in both encodings, and the sequence, credit and
//! keep-alive state of one exchange.
//!
//! What it deliberately lacks: ZeroMQ, HTTP, clocks. Time is an argument, packets come in and go out
//! as bytes. The protocol is the one that Zurl, Condure, Pushpin and m2adapter speak.
//!
//! Start with [`Packet`], which reads and writes both directions and both encodings, and
//! [`Exchange`], which says whether a packet is in order, how many bytes may be sent, how many
//! credits are to be given back, and when a sign of life is due. [`Front`] is the whole of the client's side, for a
//! gateway that has its requests performed by workers.
//!
//! ```
//! use bytes::Bytes;
//! use waft_zhttp::{Encoding, Packet};
//!
//! let wire = Bytes::from_static(b"T54:2:id,1:7,6:method,3:GET,3:uri,20:http://example.com/a,}");
//! let (packet, encoding) = Packet::decode(&wire).unwrap();
//! assert_eq!(encoding, Encoding::Tnetstring);
//! assert_eq!(packet.uri.as_deref(), Some(&b"http://example.com/a"[..]));
//! assert_eq!(packet.encode(encoding, None), wire);
//! ```

mod exchange;
mod front;
mod limits;
mod packet;
mod read;
mod tnetstring;
mod write;

pub use exchange::{Due, Exchange, Pace, Role, Violation};
pub use front::{Failure, Front, FrontEvent, Interface, Rejection};
pub use limits::{HEADERS_SIZE_MAX, IDS_MAX, NESTING_MAX, OVERRUN_TOLERATED, VALUES_MAX};
pub use packet::{Condition, Durable, Encoding, Id, Ids, Kind, Packet};
pub use read::{PacketError, Salvage};
pub use tnetstring::{TnetError, Value};
