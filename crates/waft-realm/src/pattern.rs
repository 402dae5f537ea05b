//! Names of channels by rule.

use std::fmt;

/// A channel, or a rule that names many.
///
/// Written as a channel name, in which a last segment `*` stands for one segment, a last segment `**` for one or more,
/// and a `*` at the end of any other text for whatever follows it. One slash at the beginning is no part of the name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// One channel.
    Exact(String),
    /// One segment behind this beginning, which ends with a slash or is empty: `a/*`.
    Segment(String),
    /// Whatever begins so and is longer than a beginning that ends with a slash: `a/**`, `a*`, `**`.
    Beginning(String),
}

impl Pattern {
    /// Reads a pattern. Every text is one.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('/').unwrap_or(text);
        if let Some(beginning) = text.strip_suffix("**").filter(|rest| rest.is_empty() || rest.ends_with('/')) {
            return Self::Beginning(beginning.to_owned());
        }
        match text.strip_suffix('*') {
            Some(beginning) if beginning.is_empty() || beginning.ends_with('/') => Self::Segment(beginning.to_owned()),
            Some(beginning) => Self::Beginning(beginning.to_owned()),
            None => Self::Exact(text.to_owned()),
        }
    }

    /// Whether it names this channel.
    #[must_use]
    pub fn matches(&self, channel: &str) -> bool {
        match self {
            Self::Exact(name) => name == channel,
            Self::Segment(beginning) => {
                channel.strip_prefix(beginning.as_str()).is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
            }
            Self::Beginning(beginning) => channel
                .strip_prefix(beginning.as_str())
                .is_some_and(|rest| !rest.is_empty() || !(beginning.is_empty() || beginning.ends_with('/'))),
        }
    }

    /// Whether it names every channel that `other` names.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(name)) => self.matches(name),
            (Self::Exact(_), _) | (Self::Segment(_), Self::Beginning(_)) => false,
            (Self::Segment(beginning), Self::Segment(narrower)) => beginning == narrower,
            (Self::Beginning(beginning), Self::Segment(narrower) | Self::Beginning(narrower)) => {
                narrower.starts_with(beginning.as_str())
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Segment(beginning) => write!(f, "{beginning}*"),
            Self::Beginning(beginning) if beginning.is_empty() || beginning.ends_with('/') => {
                write!(f, "{beginning}**")
            }
            Self::Beginning(beginning) => write!(f, "{beginning}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pattern: &str, channel: &str, expected: bool) {
        assert_eq!(Pattern::parse(pattern).matches(channel), expected, "{pattern} on {channel}");
    }

    #[test]
    fn channels_are_named_one_by_one_or_by_rule() {
        check("a", "a", true);
        check("/a", "a", true);
        check("a", "ab", false);
        check("a/*", "a/b", true);
        check("a/*", "a", false);
        check("a/*", "a/", false);
        check("a/*", "a/b/c", false);
        check("a/**", "a/b", true);
        check("a/**", "a/b/c", true);
        check("a/**", "a/", false);
        check("a/**", "ab", false);
        check("*", "a", true);
        check("*", "a/b", false);
        check("**", "a/b", true);
        check("b*", "b", true);
        check("b*", "bc/d", true);
        check("b*", "a", false);
    }

    #[test]
    fn a_wider_pattern_covers_a_narrower_one() {
        for (wide, narrow, expected) in [
            ("**", "a/*", true),
            ("**", "**", true),
            ("a/**", "a/b/*", true),
            ("a/**", "a/b", true),
            ("a/*", "a/*", true),
            ("a/*", "a/**", false),
            ("a/*", "b/*", false),
            ("a", "a/*", false),
            ("a*", "ab/**", true),
            ("a/**", "**", false),
        ] {
            assert_eq!(Pattern::parse(wide).covers(&Pattern::parse(narrow)), expected, "{wide} covers {narrow}");
        }
    }

    proptest! {
        #[test]
        fn a_written_pattern_reads_back(text in "[ab/*]{0,8}") {
            let pattern = Pattern::parse(&text);
            // A leading slash is dropped in reading, so a name that still has one is not written back alike.
            prop_assume!(!pattern.to_string().starts_with('/'));
            prop_assert_eq!(Pattern::parse(&pattern.to_string()), pattern);
        }

        #[test]
        fn what_a_covered_pattern_matches_the_wider_one_matches(
            wide in "[ab/]{0,3}[*]{0,2}", narrow in "[ab/]{0,4}[*]{0,2}", channel in "[ab/]{1,6}",
        ) {
            let (wide, narrow) = (Pattern::parse(&wide), Pattern::parse(&narrow));
            prop_assert!(!(wide.covers(&narrow) && narrow.matches(&channel)) || wide.matches(&channel));
        }
    }
}
