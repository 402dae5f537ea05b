//! Names of channels and patterns (section 3 of the protocol).

/// What a channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Messages for those who subscribe.
    Broadcast,
    /// Messages of the protocol: `/meta/...`.
    Meta,
    /// Messages for the server alone: `/service/...`.
    Service,
}

/// A channel that a message may be published to, or a name that may be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Its name without the slash at the beginning.
    pub name: &'a str,
    /// What it is for.
    pub kind: Kind,
    /// Whether its last segment is `*` or `**`.
    pub is_pattern: bool,
}

/// Bytes of a name.
const BYTES_MAX: usize = 255;
/// Segments of a name.
const SEGMENTS_MAX: usize = 16;

/// The channel that a publish names. None if it can be none.
#[must_use]
pub fn read_publish(text: &str) -> Option<Target<'_>> {
    read_subscription(text).filter(|target| !target.is_pattern)
}

/// The channel or pattern that a subscription names. None if it can be neither.
#[must_use]
pub fn read_subscription(text: &str) -> Option<Target<'_>> {
    let name = text.strip_prefix('/').filter(|_| text.len() <= BYTES_MAX)?;
    let last = name.rsplit('/').next()?;
    let is_pattern = matches!(last, "*" | "**");
    let plain = if is_pattern { name.strip_suffix(last)?.strip_suffix('/').unwrap_or_default() } else { name };
    let segments_are_fine = (is_pattern && name == last) || plain.split('/').all(is_segment);
    if !segments_are_fine || name.split('/').count() > SEGMENTS_MAX {
        return None;
    }
    let kind = match name.split('/').next() {
        Some("meta") => Kind::Meta,
        Some("service") => Kind::Service,
        _ => Kind::Broadcast,
    };
    Some(Target { name, kind, is_pattern })
}

/// The letters of Faye's names and of CometD's, but for `*`, which only patterns have.
fn is_segment(segment: &str) -> bool {
    !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_!~()$@ #+.{}".contains(&b))
}

/// The patterns that match a channel, both without the slash at the beginning: from the narrowest to the widest.
pub fn patterns_of(channel: &str) -> impl Iterator<Item = String> + '_ {
    let parent = channel.rfind('/').map_or("", |at| channel.get(..=at).unwrap_or_default());
    let ends = channel.rmatch_indices('/').map(|(at, _)| at + 1).chain([0]);
    let deep = ends.filter_map(|end| Some(format!("{}**", channel.get(..end)?)));
    std::iter::once(format!("{parent}*")).chain(deep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_segments_of_known_letters() {
        let check = |text: &str, expected: Option<(&str, Kind, bool)>| {
            let found = read_subscription(text).map(|target| (target.name, target.kind, target.is_pattern));
            assert_eq!(found, expected, "{text}");
            assert_eq!(read_publish(text).is_some(), matches!(expected, Some((_, _, false))), "{text}");
        };
        check("/a", Some(("a", Kind::Broadcast, false)));
        check("/a/b-_!~()$@ #+.{}", Some(("a/b-_!~()$@ #+.{}", Kind::Broadcast, false)));
        check("/a/*", Some(("a/*", Kind::Broadcast, true)));
        check("/**", Some(("**", Kind::Broadcast, true)));
        check("/meta/connect", Some(("meta/connect", Kind::Meta, false)));
        check("/service/x", Some(("service/x", Kind::Service, false)));
        for wrong in ["", "/", "a", "//a", "/a/", "/a//b", "/a/*/c", "/a*", "/a%20", "/é", "/a/***", "//*"] {
            check(wrong, None);
        }
        assert!(read_publish(&format!("/{}", "a".repeat(255))).is_none());
        assert!(read_publish(&"/a".repeat(17)).is_none());
        assert!(read_publish(&"/a".repeat(16)).is_some());
    }

    #[test]
    fn a_channel_is_seen_through_its_patterns() {
        let all = |channel| patterns_of(channel).collect::<Vec<_>>();
        assert_eq!(all("a/b/c"), ["a/b/*", "a/b/**", "a/**", "**"]);
        assert_eq!(all("a"), ["*", "**"]);
    }
}
