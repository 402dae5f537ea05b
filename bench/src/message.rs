//! The messages that are published: numbered, of one size, and checked byte by byte where they arrive.

/// Digits of the number at the front.
const DIGITS: usize = 10;

/// What all messages of one run look like.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
}

impl Template {
    /// Messages of `size` bytes, at least the digits and a line feed.
    pub fn new(size: usize) -> Self {
        let mut bytes = vec![b'0'; DIGITS];
        bytes.extend((DIGITS..size.max(DIGITS + 1) - 1).map(|at| b'a' + (at % 26) as u8));
        bytes.push(b'\n');
        Self { bytes }
    }

    /// Bytes of each message.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Message `number`.
    pub fn render(&self, number: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[..DIGITS].copy_from_slice(format!("{number:010}").as_bytes());
        bytes
    }

    /// The number of a message that arrived, if it is one of ours and whole.
    pub fn number(&self, bytes: &[u8]) -> Option<u32> {
        if bytes.len() != self.bytes.len() || bytes[DIGITS..] != self.bytes[DIGITS..] {
            return None;
        }
        bytes[..DIGITS].iter().try_fold(0u32, |number, digit| {
            let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
            number.checked_mul(10)?.checked_add(u32::from(digit))
        })
    }
}

/// Cuts a stream of bytes into messages of the template's size.
#[derive(Debug, Default)]
pub struct Assembler {
    partial: Vec<u8>,
}

impl Assembler {
    /// Takes bytes and hands on each whole message's number. An error is a message that is not ours.
    pub fn feed(&mut self, template: &Template, mut input: &[u8], mut each: impl FnMut(u32)) -> Result<(), String> {
        let mut take = |bytes: &[u8]| match template.number(bytes) {
            Some(number) => {
                each(number);
                Ok(())
            }
            None => Err(format!("a message arrived damaged: {:?}", String::from_utf8_lossy(bytes))),
        };
        if !self.partial.is_empty() {
            let missing = (template.size() - self.partial.len()).min(input.len());
            let (part, rest) = input.split_at(missing);
            self.partial.extend_from_slice(part);
            input = rest;
            if self.partial.len() == template.size() {
                take(&std::mem::take(&mut self.partial))?;
            }
        }
        let mut messages = input.chunks_exact(template.size());
        for message in &mut messages {
            take(message)?;
        }
        self.partial.extend_from_slice(messages.remainder());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_out_of_any_split_and_damage_is_seen() {
        let template = Template::new(64);
        let bytes = [template.render(7), template.render(4_000_000_000)].concat();
        for split in 0..bytes.len() {
            let (mut assembler, mut seen) = (Assembler::default(), Vec::new());
            for part in [&bytes[..split], &bytes[split..]] {
                assembler.feed(&template, part, |number| seen.push(number)).expect("whole messages");
            }
            assert_eq!(seen, [7, 4_000_000_000]);
        }
        let mut damaged = template.render(1);
        damaged[30] ^= 1;
        assert!(Assembler::default().feed(&template, &damaged, |_| ()).is_err());
    }
}
