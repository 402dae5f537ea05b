//! Every limit of the crate, with its reason.

/// Lists and maps inside each other. ZHTTP needs three levels; user data may bring a few more.
pub const NESTING_MAX: usize = 32;

/// Values in one packet. A packet with a hundred ids or a thousand headers stays far below; the bound
/// keeps a packet of empty values from costing fifty times its size in memory.
pub const VALUES_MAX: usize = 65_536;

/// Entries of an id list. The protocol allows no more.
pub const IDS_MAX: usize = 128;

/// Bytes of all header names and values of one packet.
pub const HEADERS_SIZE_MAX: usize = 262_144;

/// Body bytes beyond its credits that a front accepts from a worker, once in an exchange: simple workers
/// answer in one packet, whatever its size.
pub const OVERRUN_TOLERATED: u64 = 1_048_576;
