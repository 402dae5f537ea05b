//! Response fields that steer a session.

use std::time::Duration;

/// What the fields of one response say.
#[derive(Debug, Default)]
pub(super) struct Steering {
    /// `Content-Type` is exactly the media type of events.
    pub(super) is_events: bool,
    /// `Keep-Alive-Interval`: absent, off, or seconds.
    pub(super) keep_alive_s: Option<u32>,
    /// `Content-Bytes-Accepted`, if it is a number.
    pub(super) accepted: Option<u64>,
}

impl Steering {
    pub(super) fn read<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>, keep_alive_min: Duration) -> Self {
        let mut steering = Self::default();
        for (name, value) in fields {
            let value = value.trim_ascii();
            if name.eq_ignore_ascii_case("content-type") {
                steering.is_events = value == super::codec::MEDIA_TYPE.as_bytes();
            } else if name.eq_ignore_ascii_case("keep-alive-interval") {
                let floor = u32::try_from(keep_alive_min.as_secs()).unwrap_or(u32::MAX);
                steering.keep_alive_s = Some(match number(value).unwrap_or(0) {
                    0 => 0,
                    seconds => u32::try_from(seconds).unwrap_or(u32::MAX).max(floor),
                });
            } else if name.eq_ignore_ascii_case("content-bytes-accepted") {
                steering.accepted = number(value);
            }
        }
        steering
    }
}

/// Values that a target has the session repeat with every request, as `Meta-NAME`.
#[derive(Debug, Default)]
pub(super) struct Meta {
    entries: Vec<(Box<str>, Box<[u8]>)>,
}

impl Meta {
    /// Takes the `Set-Meta-NAME` fields in. False when more than `size_max` bytes came together.
    pub(super) fn update<'a>(&mut self, fields: impl Iterator<Item = (&'a str, &'a [u8])>, size_max: usize) -> bool {
        for (name, value) in fields {
            let Some(name) = set_meta_name(name) else { continue };
            let value = value.trim_ascii();
            self.entries.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            if !value.is_empty() {
                self.entries.push((name.into(), value.into()));
            }
        }
        self.entries.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= size_max
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries.iter().map(|(name, value)| (&**name, &**value))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The NAME of a `Set-Meta-NAME` field.
pub(super) fn set_meta_name(name: &str) -> Option<&str> {
    const PREFIX: &str = "set-meta-";
    let (prefix, rest) = name.split_at_checked(PREFIX.len())?;
    (prefix.eq_ignore_ascii_case(PREFIX) && !rest.is_empty()).then_some(rest)
}

/// Whether a field of the target's answer to OPEN goes into the client's 101: all but those about the HTTP exchange
/// and those that the handshake makes itself.
#[must_use]
pub fn relayed_with_accept(name: &str) -> bool {
    const KEPT_BACK: [&str; 9] = [
        "connection",
        "content-bytes-accepted",
        "content-length",
        "content-type",
        "keep-alive-interval",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "transfer-encoding",
        "upgrade",
    ];
    set_meta_name(name).is_none() && !KEPT_BACK.iter().any(|kept| name.eq_ignore_ascii_case(kept))
}

fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fields: &[(&str, &str)]) -> Steering {
        Steering::read(fields.iter().map(|(name, value)| (*name, value.as_bytes())), Duration::from_secs(20))
    }

    #[test]
    fn the_media_type_is_compared_exactly() {
        assert!(read(&[("content-type", "application/websocket-events")]).is_events);
        for other in ["application/websocket-events; charset=utf-8", "Application/websocket-events", "text/plain", ""] {
            assert!(!read(&[("Content-Type", other)]).is_events, "{other}");
        }
        assert!(!read(&[]).is_events);
    }

    #[test]
    fn numbers_are_read_with_their_floor() {
        let interval = |value| read(&[("Keep-Alive-Interval", value)]).keep_alive_s;
        assert_eq!(
            [interval("30"), interval("5"), interval("0"), interval("x"), interval("-3")],
            [30, 20, 0, 0, 0].map(Some)
        );
        assert_eq!(read(&[]).keep_alive_s, None);
        let accepted = |value| read(&[("content-bytes-accepted", value)]).accepted;
        assert_eq!([accepted("0"), accepted("12"), accepted("+1"), accepted("")], [Some(0), Some(12), None, None]);
    }

    #[test]
    fn meta_is_set_replaced_and_deleted_whatever_the_case() {
        let mut meta = Meta::default();
        let mut update = |name: &str, value: &str| {
            let kept = meta.update([(name, value.as_bytes())].into_iter(), 20);
            let shown = meta.iter().map(|(name, value)| format!("{name}={} ", String::from_utf8_lossy(value)));
            (kept, shown.collect::<String>())
        };
        assert_eq!(update("Set-Meta-User", "bob"), (true, "User=bob ".to_owned()));
        assert_eq!(update("set-meta-room", "1"), (true, "User=bob room=1 ".to_owned()));
        assert_eq!(update("Set-Meta-USER", "eve"), (true, "room=1 USER=eve ".to_owned()));
        assert_eq!(update("Set-Meta-Room", ""), (true, "USER=eve ".to_owned()));
        assert_eq!(update("Set-Meta-", "x"), (true, "USER=eve ".to_owned()));
        assert!(!update("Set-Meta-long", "more than twenty bytes").0);
    }

    #[test]
    fn only_fields_for_the_client_are_relayed() {
        for name in ["X-Foo", "Set-Cookie", "Sec-WebSocket-Protocol", "Set-Meta"] {
            assert!(relayed_with_accept(name), "{name}");
        }
        for name in ["content-LENGTH", "Set-Meta-User", "Upgrade", "Sec-WebSocket-Extensions", "Keep-Alive-Interval"] {
            assert!(!relayed_with_accept(name), "{name}");
        }
    }
}
