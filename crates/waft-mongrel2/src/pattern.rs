//! Mongrel2's patterns: those of Lua with `\` in the place of `%`.

/// Items that one pattern may have. Matching goes as deep as that.
pub const PATTERN_ITEMS_MAX: usize = 256;

/// Steps after which a match is given up as failed: some patterns take a time that grows with a high power of the
/// input's length, and the input is the client's.
pub const STEPS_MAX: u32 = 100_000;

/// A compiled pattern. It is matched from the beginning of the input, not to its end unless it ends in `$`.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    items: Box<[Item]>,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It ends in a lone `\`.
    #[error("the pattern ends in `\\`; write the character that it stands before")]
    EndsInEscape,
    /// A `)` closes nothing.
    #[error("the pattern has a `)` without a `(`")]
    NotOpened,
    /// `\f` without a set.
    #[error("`\\f` needs a set behind it, as in `\\f[a-z]`")]
    NoFrontier,
    /// A set has no end.
    #[error("the pattern has a `[` without a `]`")]
    SetNotClosed,
    /// It has more than [`PATTERN_ITEMS_MAX`] items.
    #[error("the pattern has more than {PATTERN_ITEMS_MAX} parts; shorten it")]
    TooLong,
    /// `\b` without its two characters.
    #[error("`\\b` needs two characters behind it, as in `\\b()`")]
    Unbalanced,
}

/// One thing that is matched.
#[derive(Clone, Debug)]
enum Item {
    /// `\bxy`: from `x` to the `y` that closes it.
    Balanced(u8, u8),
    /// `$` at the end of the pattern.
    End,
    /// `\f[set]`: between a byte that is not in the set and one that is.
    Frontier(Set),
    One(Class),
    /// `?`
    Optional(Class),
    /// `*`, and `+` where `at_least` is 1: as many as there are.
    Greedy {
        class: Class,
        at_least: usize,
    },
    /// `-`: as few as will do.
    Lazy(Class),
}

/// Which bytes fit.
#[derive(Clone, Debug)]
enum Class {
    Any,
    Byte(u8),
    /// `\a` and its like.
    Named(u8),
    Set(Set),
}

/// A bit for each byte.
#[derive(Clone, Debug)]
struct Set([u64; 4]);

impl Set {
    fn has(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte >> 6)).is_some_and(|word| word >> (byte & 63) & 1 == 1)
    }

    fn add(&mut self, byte: u8) {
        if let Some(word) = self.0.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }
}

impl Class {
    fn fits(&self, byte: u8) -> bool {
        match self {
            Self::Any => true,
            Self::Byte(wanted) => *wanted == byte,
            Self::Named(name) => named(*name, byte),
            Self::Set(set) => set.has(byte),
        }
    }

    /// The class that `\` and `letter` mean.
    fn escaped(letter: u8) -> Self {
        if b"acdlpsuwxz".contains(&letter.to_ascii_lowercase()) { Self::Named(letter) } else { Self::Byte(letter) }
    }
}

/// Whether `byte` is in the class called `name`; in upper case it is the complement.
fn named(name: u8, byte: u8) -> bool {
    let within = match name.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, b' ' | b'\t'..=b'\r'),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        _ => byte == 0,
    };
    within != name.is_ascii_uppercase()
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let mut reader = Reader { rest: text.as_bytes() };
        let mut items = Vec::new();
        let mut open = 0_usize;
        while let Some(byte) = reader.next() {
            match byte {
                // Captures are allowed and mean nothing.
                b'(' => open += 1,
                b')' => open = open.checked_sub(1).ok_or(PatternError::NotOpened)?,
                b'$' if reader.rest.is_empty() => items.push(Item::End),
                _ => items.push(reader.item(byte)?),
            }
            if items.len() > PATTERN_ITEMS_MAX {
                return Err(PatternError::TooLong);
            }
        }
        Ok(Self { text: text.into(), items: items.into() })
    }

    /// Whether the beginning of `input` matches.
    pub fn matches(&self, input: &[u8]) -> bool {
        Matching { input, steps: 0 }.run(&self.items, 0)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl std::hash::Hash for Pattern {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// The item that begins with `byte`.
    fn item(&mut self, byte: u8) -> Result<Item, PatternError> {
        let class = match byte {
            b'\\' => match self.next().ok_or(PatternError::EndsInEscape)? {
                b'b' => {
                    let mut side = || self.next().ok_or(PatternError::Unbalanced);
                    return Ok(Item::Balanced(side()?, side()?));
                }
                b'f' => {
                    if self.next() != Some(b'[') {
                        return Err(PatternError::NoFrontier);
                    }
                    return Ok(Item::Frontier(self.set()?));
                }
                letter => Class::escaped(letter),
            },
            b'.' => Class::Any,
            b'[' => Class::Set(self.set()?),
            byte => Class::Byte(byte),
        };
        let repeat = self.rest.first().copied();
        if matches!(repeat, Some(b'*' | b'+' | b'-' | b'?')) {
            self.next();
        }
        Ok(match repeat {
            Some(b'*') => Item::Greedy { class, at_least: 0 },
            Some(b'+') => Item::Greedy { class, at_least: 1 },
            Some(b'-') => Item::Lazy(class),
            Some(b'?') => Item::Optional(class),
            _ => Item::One(class),
        })
    }

    /// The set whose `[` has been read.
    fn set(&mut self) -> Result<Set, PatternError> {
        let mut set = Set([0; 4]);
        let complement = self.rest.first() == Some(&b'^');
        if complement {
            self.next();
        }
        let mut first = true;
        loop {
            match self.next().ok_or(PatternError::SetNotClosed)? {
                // At the beginning of a set it stands for itself.
                b']' if !first => break,
                b'\\' => {
                    let class = Class::escaped(self.next().ok_or(PatternError::EndsInEscape)?);
                    (0..=u8::MAX).filter(|byte| class.fits(*byte)).for_each(|byte| set.add(byte));
                }
                from => match *self.rest {
                    [b'-', to, ..] if to != b']' => {
                        self.next();
                        self.next();
                        (from..=to).for_each(|byte| set.add(byte));
                    }
                    _ => set.add(from),
                },
            }
            first = false;
        }
        if complement {
            set.0.iter_mut().for_each(|word| *word = !*word);
        }
        Ok(set)
    }
}

struct Matching<'a> {
    input: &'a [u8],
    steps: u32,
}

impl Matching<'_> {
    /// Whether `items` match from `at` on.
    fn run(&mut self, items: &[Item], mut at: usize) -> bool {
        for (number, item) in items.iter().enumerate() {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return false;
            }
            let rest = items.get(number + 1..).unwrap_or_default();
            match item {
                Item::One(class) if self.fits(class, at) => at += 1,
                Item::One(_) => return false,
                Item::End => {
                    if at != self.input.len() {
                        return false;
                    }
                }
                Item::Balanced(open, close) => match self.balanced(*open, *close, at) {
                    Some(end) => at = end,
                    None => return false,
                },
                Item::Frontier(set) => {
                    let at_byte = |at: Option<usize>| at.and_then(|at| self.input.get(at)).copied().unwrap_or(0);
                    if set.has(at_byte(at.checked_sub(1))) || !set.has(at_byte(Some(at))) {
                        return false;
                    }
                }
                Item::Optional(class) => {
                    if self.fits(class, at) && self.run(rest, at + 1) {
                        return true;
                    }
                }
                Item::Greedy { class, at_least } => return self.greedy(class, *at_least, rest, at),
                Item::Lazy(class) => return self.lazy(class, rest, at),
            }
        }
        true
    }

    fn fits(&self, class: &Class, at: usize) -> bool {
        self.input.get(at).is_some_and(|byte| class.fits(*byte))
    }

    fn greedy(&mut self, class: &Class, at_least: usize, rest: &[Item], at: usize) -> bool {
        let tail = self.input.get(at..).unwrap_or_default();
        let count = tail.iter().take_while(|byte| class.fits(**byte)).count();
        self.steps = self.steps.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        (at_least..=count).rev().any(|taken| self.run(rest, at + taken))
    }

    fn lazy(&mut self, class: &Class, rest: &[Item], mut at: usize) -> bool {
        loop {
            if self.run(rest, at) {
                return true;
            }
            if self.steps > STEPS_MAX || !self.fits(class, at) {
                return false;
            }
            at += 1;
        }
    }

    fn balanced(&mut self, open: u8, close: u8, at: usize) -> Option<usize> {
        if self.input.get(at) != Some(&open) {
            return None;
        }
        let mut depth = 1_usize;
        for (number, byte) in self.input.iter().enumerate().skip(at + 1) {
            self.steps = self.steps.saturating_add(1);
            if *byte == close {
                depth -= 1;
                if depth == 0 {
                    return Some(number + 1);
                }
            } else if *byte == open {
                depth += 1;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pattern: &str, input: &str, expected: bool) {
        let compiled = Pattern::new(pattern).unwrap();
        assert_eq!(compiled.matches(input.as_bytes()), expected, "{pattern} against {input:?}");
    }

    #[test]
    fn a_pattern_is_matched_from_the_beginning_and_to_the_end_where_it_says_so() {
        check("abc", "abcd", true);
        check("abc$", "abcd", false);
        check("abc$", "abc", true);
        check("bc", "abc", false);
        check("a$b", "a$b", true);
        check("^a", "^a", true);
        check("", "x", true);
    }

    #[test]
    fn classes_and_sets_say_which_bytes_fit() {
        check(r"\d\d", "42", true);
        check(r"\D", "4", false);
        check(r"\a\l\u\w\x\p\s\c\z", "aaA9f! \u{1}\0", true);
        check("[a-c^-]", "-", true);
        check("[^a-c]", "b", false);
        check("[^a-c]", "d", true);
        check("[]x]", "]", true);
        check(r"[\d.]+$", "1.2.3", true);
        check(r"[\d.]+$", "1.2.x", false);
        check(r"\.", "x", false);
        check("v[12]/", "v2/", true);
        check("[z-a]", "m", false);
    }

    #[test]
    fn repeats_take_as_many_or_as_few_as_the_rest_lets_them() {
        check("a*b", "aaab", true);
        check("a*b", "b", true);
        check("a+b", "b", false);
        check("a-b$", "aab", true);
        check("a?b", "b", true);
        check("a?ab", "ab", true);
        check(".*x$", "abxcx", true);
        check("(.-)/(.*)$", "one/two/three", true);
        // A repeat belongs to one character, never to what is in parentheses.
        check("(ab)*", "ab*", true);
        check("(ab)*", "abab", false);
    }

    #[test]
    fn balanced_parts_and_frontiers() {
        check(r"\b()x", "(a(b)c)x", true);
        check(r"\b()x", "(a(bc)x", false);
        check(r"\f[a-z]abc", "abc", true);
        check(r"a\f[a-z]b", "ab", false);
        check(r"1\f[a-z]b", "1b", true);
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_its_reason() {
        let refused = |text: &str, why| assert_eq!(Pattern::new(text), Err(why), "{text}");
        refused(r"a\", PatternError::EndsInEscape);
        refused("[a", PatternError::SetNotClosed);
        refused("[]", PatternError::SetNotClosed);
        refused(r"\b(", PatternError::Unbalanced);
        refused(r"\fa", PatternError::NoFrontier);
        refused("a)", PatternError::NotOpened);
        refused(&"a".repeat(PATTERN_ITEMS_MAX + 1), PatternError::TooLong);
    }

    #[test]
    fn a_pattern_that_would_take_for_ever_is_given_up() {
        check(&format!("{}b", ".*".repeat(20)), &"a".repeat(5_000), false);
        check(&format!("{}b", "a-".repeat(20)), &"a".repeat(5_000), false);
    }

    proptest! {
        #[test]
        fn any_pattern_meets_any_input_without_panic(pattern in any::<String>(), input in any::<Vec<u8>>()) {
            if let Ok(pattern) = Pattern::new(&pattern) {
                pattern.matches(&input);
            }
        }

        #[test]
        fn a_literal_matches_what_it_is_the_beginning_of(text in "[a-z/]{0,20}", more in "[a-z]{0,5}") {
            let pattern = Pattern::new(&text).unwrap();
            let longer = format!("{text}{more}");
            prop_assert!(pattern.matches(longer.as_bytes()));
        }
    }
}
