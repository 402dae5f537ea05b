//! Where in a channel a reader stands.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// A place in the order of one channel: the epoch of the run that gave it out, and the number of the item in that run.
///
/// Written `epoch-number` in decimal. Positions of different epochs have no order: whether one is older cannot be told.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Position {
    /// Tells one run of the process from another.
    pub epoch: u64,
    /// The number of the last item seen. Each item of a channel has the number of the one before it plus one.
    pub number: u64,
}

/// A text is not a position.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a position is written as two decimal numbers with a hyphen between them")]
pub struct PositionError;

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.epoch == other.epoch).then(|| self.number.cmp(&other.number))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.number)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (epoch, number) = text.split_once('-').ok_or(PositionError)?;
        Ok(Self { epoch: decimal(epoch)?, number: decimal(number)? })
    }
}

/// Digits only: the standard parser would take a plus sign as well.
fn decimal(text: &str) -> Result<u64, PositionError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PositionError);
    }
    text.parse().map_err(|_| PositionError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_two_decimal_numbers_with_a_hyphen_are_a_position() {
        let check = |text: &str, expected: Option<(u64, u64)>| {
            let read = text.parse::<Position>().ok().map(|position| (position.epoch, position.number));
            assert_eq!(read, expected, "{text}");
        };
        check("7-12", Some((7, 12)));
        check("18446744073709551615-0", Some((u64::MAX, 0)));
        for wrong in ["", "-", "7", "7-", "-12", "+7-12", "7-+12", "7--12", "7-12-1", " 7-12", "18446744073709551616-0"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn positions_of_two_epochs_have_no_order() {
        let at = |epoch, number| Position { epoch, number };
        assert!(at(1, 4) < at(1, 5));
        assert_eq!(at(1, 4).partial_cmp(&at(2, 5)), None);
    }

    proptest! {
        #[test]
        fn a_written_position_reads_back(epoch: u64, number: u64) {
            let position = Position { epoch, number };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".*") {
            let _: Result<Position, _> = text.parse();
        }
    }
}
