//! Channels whose items waft makes itself.

use crate::is_channel;

/// The channel of a realm that tells which channels are occupied, and who connects.
pub const LIFECYCLE_CHANNEL: &str = "@lifecycle";

/// What stands behind the name of a channel in the name of the one that tells who enters and leaves it. Bayeux names may
/// have it, and no shell minds it.
const PRESENCE_SUFFIX: &str = "/@presence";

/// What a channel is by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind<'a> {
    /// [`LIFECYCLE_CHANNEL`].
    Lifecycle,
    /// For whoever may publish.
    Ordinary,
    /// It tells who enters and leaves this channel.
    Presence(&'a str),
}

impl<'a> ChannelKind<'a> {
    /// The kind of the channel with this name.
    #[must_use]
    pub fn of(channel: &'a str) -> Self {
        if channel == LIFECYCLE_CHANNEL {
            return Self::Lifecycle;
        }
        match channel.strip_suffix(PRESENCE_SUFFIX) {
            Some(watched) if !watched.is_empty() => Self::Presence(watched),
            _ => Self::Ordinary,
        }
    }

    /// Whether only waft publishes to it.
    #[must_use]
    pub fn is_reserved(self) -> bool {
        self != Self::Ordinary
    }
}

/// The channel that tells who enters and leaves `channel`; none for one that nobody can enter, which is a reserved one or
/// has too long a name.
#[must_use]
pub fn presence_channel(channel: &str) -> Option<String> {
    let name = [channel, PRESENCE_SUFFIX].concat();
    let can_be_entered = is_channel(channel) && !ChannelKind::of(channel).is_reserved() && is_channel(&name);
    can_be_entered.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_channel_is() {
        let check = |name, expected| assert_eq!(ChannelKind::of(name), expected, "{name}");
        check("chat", ChannelKind::Ordinary);
        check("chat/@presence", ChannelKind::Presence("chat"));
        check("a/b/@presence", ChannelKind::Presence("a/b"));
        check("/@presence", ChannelKind::Ordinary);
        check("@presence", ChannelKind::Ordinary);
        check("@lifecycle", ChannelKind::Lifecycle);
        check("a/@lifecycle", ChannelKind::Ordinary);
    }

    #[test]
    fn what_can_be_entered_has_a_channel_for_that() {
        assert_eq!(presence_channel("a/b").as_deref(), Some("a/b/@presence"));
        for other in ["", "a/@presence", "@lifecycle", "a\n", &"a".repeat(250)] {
            assert_eq!(presence_channel(other), None, "{other}");
        }
    }
}
