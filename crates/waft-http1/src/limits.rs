//! Every limit this crate enforces, with its default and the reason for it.

/// The most blank lines skipped before a request line.
///
/// RFC 9112 section 2.2 asks for tolerance of one empty line that old clients send after a body; a second is harmless
/// and more is refused.
pub const LEADING_BLANK_LINES_MAX: usize = 2;

/// The most bytes of chunk extensions, summed over a whole body.
///
/// Extensions are read and dropped. Nobody sends more than a few bytes of them, so a long run is an attack on the
/// reader's time.
pub const CHUNK_EXTENSIONS_BYTES_MAX: usize = 4_096;

/// The most bytes of trailer fields after the last chunk, line ends included.
///
/// Trailers are checked and dropped.
pub const TRAILERS_BYTES_MAX: usize = 8_192;

/// The most hexadecimal digits in a chunk size: exactly as many as fit a 64-bit number.
pub const CHUNK_SIZE_DIGITS_MAX: u8 = 16;

/// Limits on one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of a whole head, from its first byte to the blank line that ends it. Default 65,536: cookies of several
    /// applications on one host fit, and a client that never ends its head costs no more than this.
    pub bytes_max: usize,
    /// Fields in one head. Default 128, about four times what browsers send.
    pub fields_max: usize,
    /// Bytes of a request target. Default 16,384.
    pub target_max: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { bytes_max: 65_536, fields_max: 128, target_max: 16_384 }
    }
}
