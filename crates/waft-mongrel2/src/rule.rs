//! How Mongrel2 writes hosts and paths of its routes.

use crate::pattern::{Pattern, PatternError};

/// The path of a route: a literal beginning, then perhaps a pattern for the rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathRule {
    /// What the path begins with.
    pub prefix: String,
    /// What the rest of the path must match. None: anything may follow.
    pub pattern: Option<Pattern>,
}

impl PathRule {
    /// Reads the text of a route: up to its first `(` it is literal.
    ///
    /// # Errors
    /// What is wrong with its pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (prefix, pattern) = match text.find('(').and_then(|at| text.split_at_checked(at)) {
            Some((prefix, pattern)) => (prefix, Some(Pattern::new(pattern)?)),
            None => (text, None),
        };
        Ok(Self { prefix: prefix.to_owned(), pattern })
    }

    /// Whether a path, as it was sent, is one of this route.
    pub fn matches(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix(&self.prefix) else { return false };
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(rest.as_bytes()))
    }
}

/// Which hosts a host entry is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostRule {
    /// This host and all below it, in lower case. Mongrel2 itself compares bytes, so that `evil-one.test` finds
    /// `one.test` there; here only whole labels count.
    Domain(String),
    /// A pattern, and the literal text that the host ends in besides.
    Pattern {
        /// What the host must match, from its beginning.
        pattern: Pattern,
        /// What it must end in, in lower case: all behind the last parenthesis of the pattern.
        suffix: String,
    },
}

impl HostRule {
    /// Reads the `matching` of a host: with a parenthesis it is a pattern, of which all behind the last `)` must be found
    /// literally, too. So a `\.` there never matches.
    ///
    /// # Errors
    /// What is wrong with its pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let end = if text.contains('(') { text.rfind(')') } else { None };
        match end.and_then(|at| text.split_at_checked(at + 1)) {
            Some((pattern, suffix)) => {
                // Letters within the parentheses have meanings that depend on their case.
                let suffix = suffix.to_ascii_lowercase();
                Ok(Self::Pattern { pattern: Pattern::new(&format!("{pattern}{suffix}"))?, suffix })
            }
            None => Ok(Self::Domain(text.to_ascii_lowercase())),
        }
    }

    /// Whether `host`, in lower case and without port, is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Domain(domain) => host
                .strip_suffix(domain.as_str())
                .is_some_and(|before| before.is_empty() || before.ends_with('.') || domain.is_empty()),
            Self::Pattern { pattern, suffix } => host.ends_with(suffix.as_str()) && pattern.matches(host.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_begins_literally_and_goes_on_as_a_pattern() {
        let check = |rule: &str, path: &str, expected: bool| {
            assert_eq!(PathRule::parse(rule).unwrap().matches(path), expected, "{rule} against {path}");
        };
        check("/j", "/jxyz", true);
        check("/j", "/", false);
        check("/api/(v[12])/.*$", "/api/v1/users", true);
        check("/api/(v[12])/.*$", "/api/v3/users", false);
        check(r"/user/(\d+)$", "/user/42", true);
        check(r"/user/(\d+)$", "/user/42x", false);
        // What stands before the parenthesis is no pattern.
        check("/a.c/(x)", "/abc/x", false);
    }

    #[test]
    fn a_host_is_meant_with_all_below_it_unless_it_is_a_pattern() {
        let check = |rule: &str, host: &str, expected: bool| {
            assert_eq!(HostRule::parse(rule).unwrap().matches(host), expected, "{rule} against {host}");
        };
        check("One.test", "one.test", true);
        check("one.test", "x.one.test", true);
        check("one.test", "evil-one.test", false);
        check("one.test", "test", false);
        check("(.*).wild.test", "a.wild.test", true);
        check("(.*).wild.test", "a.b.wild.test", true);
        check("(.*).wild.test", "wild.test", false);
        check(r"(.*)\.wild.test", "a.wild.test", false);
        check(r"(\d+).num.test", "12.num.test", true);
        check(r"(\d+).num.test", "12x.num.test", false);
        check(r"(\d+$).num.test", "12.num.test", false);
    }
}
