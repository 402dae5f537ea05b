//! Values of the rules for calls to the outside.

use std::fmt;
use std::str::FromStr;

use waft_outbound::policy::Exception;

use crate::value::{NotAValue, as_text};

as_text! {
    EgressException => "a host, an address or a network such as \"hooks.internal\", \"10.0.0.7:8080\" or \"10.0.0.0/8\"",
}

/// A place that may be called although it is not public, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressException {
    text: String,
    exception: Exception,
}

impl EgressException {
    /// As the policy takes it.
    pub fn exception(&self) -> &Exception {
        &self.exception
    }
}

impl FromStr for EgressException {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        Ok(Self { text: text.to_owned(), exception: Exception::parse(text).ok_or(NotAValue)? })
    }
}

impl fmt::Display for EgressException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_written_and_nonsense_is_not() {
        for text in ["hooks.internal", "10.0.0.7:8080", "10.0.0.0/8", "[fd00::/8]:80", "::1"] {
            assert_eq!(text.parse::<EgressException>().unwrap().to_string(), text);
        }
        for text in ["", "a b", "10.0.0.0/99", "host:port"] {
            assert!(text.parse::<EgressException>().is_err(), "{text}");
        }
    }
}
