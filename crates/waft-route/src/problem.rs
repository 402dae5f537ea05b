//! What is wrong with a route, and where it was written.

use std::fmt;
use std::sync::Arc;

/// Where a route was written.
///
/// Two sources are always equal: where a route was written is no part of what it means, so a moved
/// line is no change at a reload.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file, as it is to be shown. Empty for a route that came from no file.
    pub file: Arc<str>,
    /// The line, from 1. Zero if there is none.
    pub line: u32,
}

impl PartialEq for Source {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Source {}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.as_ref(), self.line) {
            ("", _) => f.write_str("route"),
            (file, 0) => f.write_str(file),
            (file, line) => write!(f, "{file}:{line}"),
        }
    }
}

/// How much a [`Problem`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The route is used; a part of what was written has no effect.
    Notice,
    /// The route is left out.
    Skipped,
}

/// Something wrong with one route. Shown as `file:line: text`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_at}: {text}")]
pub struct Problem {
    /// Where the route was written.
    pub source_at: Source,
    /// What became of the route.
    pub severity: Severity,
    /// What is wrong, one clause.
    pub text: String,
}

impl Problem {
    pub(crate) fn skipped(source_at: &Source, text: impl Into<String>) -> Self {
        Self { source_at: source_at.clone(), severity: Severity::Skipped, text: text.into() }
    }

    pub(crate) fn notice(source_at: &Source, text: impl Into<String>) -> Self {
        Self { source_at: source_at.clone(), severity: Severity::Notice, text: text.into() }
    }
}
