//! Close codes and the content of close frames (RFC 6455 sections 5.5.1 and 7.4).

use bytes::Bytes;

/// The peer is done; nothing is wrong.
pub const NORMAL: u16 = 1000;
/// The endpoint goes away: a server shuts down, a page is left.
pub const GOING_AWAY: u16 = 1001;
/// The peer broke the protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// The endpoint cannot take this kind of message.
pub const UNSUPPORTED: u16 = 1003;
/// The content of a message does not fit its type, such as text that is not UTF-8.
pub const INVALID_PAYLOAD: u16 = 1007;
/// The message breaks a rule of the endpoint.
pub const POLICY: u16 = 1008;
/// The message is larger than the endpoint takes.
pub const TOO_BIG: u16 = 1009;
/// The endpoint failed on its own side.
pub const INTERNAL_ERROR: u16 = 1011;

/// The longest reason in bytes: a control frame carries 125, two of them are the code.
pub const REASON_MAX: usize = 123;

/// Code and reason of a close frame that carries them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The close code.
    pub code: u16,
    /// The reason: UTF-8, at most [`REASON_MAX`] bytes when it came from a frame.
    pub reason: Bytes,
}

impl Close {
    /// A close with `code` and `reason`, the reason cut to [`REASON_MAX`] bytes at a character's border.
    #[must_use]
    pub fn new(code: u16, reason: &str) -> Self {
        let kept = reason.get(..reason.floor_char_boundary(REASON_MAX)).unwrap_or_default();
        Self { code, reason: Bytes::copy_from_slice(kept.as_bytes()) }
    }

    /// The content of the close frame: the code in network order, then the reason.
    #[must_use]
    pub fn to_content(&self) -> Vec<u8> {
        let mut content = Vec::with_capacity(2 + self.reason.len());
        content.extend_from_slice(&self.code.to_be_bytes());
        content.extend_from_slice(&self.reason);
        content
    }
}

/// Whether `code` may stand in a close frame: those the protocol and its registry define, and the ranges for
/// libraries (3000 and up) and applications (4000 and up). 1005, 1006 and 1015 only describe events locally.
#[must_use]
pub const fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_that_may_cross_the_wire_are_valid() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert!(may_be_sent(code), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
            assert!(!may_be_sent(code), "{code}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let close = Close::new(NORMAL, &"é".repeat(100));
        assert_eq!(close.reason.len(), 122);
        assert!(std::str::from_utf8(&close.reason).is_ok());
        assert_eq!(Close::new(1000, "done").to_content(), b"\x03\xe8done");
    }
}
