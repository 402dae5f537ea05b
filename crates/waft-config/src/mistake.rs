//! What is wrong with a configuration.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where: `file:line:column`, the name of a variable of the environment, or the option.
    pub place: String,
    /// What, and what to write instead.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Everything that is wrong with a configuration, one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(n, mistake)| {
            if n > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)
        })
    }
}

impl Mistakes {
    pub(crate) fn one(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self(vec![Mistake { place: place.into(), text: text.into() }])
    }
}
