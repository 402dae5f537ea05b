//! Names of messages: short, in the order of time, and of this store alone.

/// Digits of names: no letters that are taken for digits.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Digits of a sequence number.
const SEQ_DIGITS: usize = 13;

/// Digits of a store's mark.
const MARK_DIGITS: usize = 7;

/// Bits of a sequence number below the milliseconds.
const SEQ_BITS: u32 = 20;

/// What tells the messages of this store from those of others: 35 random bits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mark(pub u64);

/// The next sequence number at `now`, in Unix milliseconds: above the last one, and in the order of time.
pub fn next_seq(last: u64, now: u64) -> u64 {
    (now << SEQ_BITS).max(last + 1)
}

/// The first sequence number of a time in Unix milliseconds.
pub const fn first_seq(at: u64) -> u64 {
    at << SEQ_BITS
}

/// When the message of a sequence number was taken, in Unix milliseconds.
pub const fn taken_at(seq: u64) -> u64 {
    seq >> SEQ_BITS
}

/// The name of a message, as receivers see it.
pub fn message_id(seq: u64, mark: Mark) -> String {
    let mut id = String::with_capacity(4 + SEQ_DIGITS + MARK_DIGITS);
    id.push_str("msg_");
    put(&mut id, seq, SEQ_DIGITS);
    put(&mut id, mark.0, MARK_DIGITS);
    id
}

/// The sequence number in a name; none if it is no name of this store.
pub fn parse_message_id(id: &str, mark: Mark) -> Option<u64> {
    let digits = id.strip_prefix("msg_")?;
    let (seq, tail) = digits.split_at_checked(SEQ_DIGITS)?;
    let seq = parse(seq)?;
    (tail.len() == MARK_DIGITS && message_id(seq, mark) == id).then_some(seq)
}

/// A name of random digits.
pub fn random_id(prefix: &str, random: [u8; 16]) -> String {
    let mut id = prefix.to_owned();
    for half in random.chunks(8) {
        let number = half.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        put(&mut id, number, 12);
    }
    id
}

fn put(out: &mut String, number: u64, digits: usize) {
    for place in (0..digits).rev() {
        let digit = (number >> (5 * place as u32).min(63)) & 31;
        out.push(char::from(DIGITS.get(digit as usize).copied().unwrap_or(b'0')));
    }
}

fn parse(text: &str) -> Option<u64> {
    text.bytes().try_fold(0u64, |number, byte| {
        let digit = DIGITS.iter().position(|known| *known == byte)?;
        Some(number.checked_mul(32)? | digit as u64)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_read_back_and_keep_the_order(seq: u64, other: u64, mark in 0u64..1 << 35) {
            let mark = Mark(mark);
            let id = message_id(seq, mark);
            prop_assert_eq!(parse_message_id(&id, mark), Some(seq));
            prop_assert_eq!(parse_message_id(&id, Mark(mark.0 ^ 1)), None);
            prop_assert_eq!(id.cmp(&message_id(other, mark)), seq.cmp(&other));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            parse_message_id(&text, Mark(0));
            parse_message_id(&format!("msg_{text}"), Mark(0));
        }
    }

    #[test]
    fn numbers_grow_when_the_clock_does_not() {
        let first = next_seq(0, 1_000);
        assert_eq!(taken_at(first), 1_000);
        assert_eq!(next_seq(first, 999), first + 1);
        assert!(next_seq(first, 1_001) >= first_seq(1_001));
    }
}
