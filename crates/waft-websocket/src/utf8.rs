//! Checking of UTF-8 that arrives in pieces, failing at the first byte that cannot belong to it.

/// The bytes were not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotUtf8;

/// The state between two pieces: the beginning of a character whose rest is still to come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Utf8 {
    begun: [u8; 4],
    len: u8,
}

impl Utf8 {
    /// Checks the next piece.
    pub(crate) fn push(&mut self, mut piece: &[u8]) -> Result<(), NotUtf8> {
        while self.len > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            let Some(slot) = self.begun.get_mut(usize::from(self.len)) else { return Err(NotUtf8) };
            *slot = byte;
            self.len += 1;
            piece = rest;
            let begun = self.begun.get(..usize::from(self.len)).unwrap_or_default();
            match std::str::from_utf8(begun) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return Err(NotUtf8),
                Err(_) => {}
            }
        }
        let Err(error) = std::str::from_utf8(piece) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(NotUtf8);
        }
        let tail = piece.get(error.valid_up_to()..).unwrap_or_default();
        for (slot, &byte) in self.begun.iter_mut().zip(tail) {
            *slot = byte;
            self.len += 1;
        }
        Ok(())
    }

    /// Says whether the text may end here.
    pub(crate) const fn finish(&self) -> Result<(), NotUtf8> {
        if self.len == 0 { Ok(()) } else { Err(NotUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(pieces: &[&[u8]]) -> Result<(), NotUtf8> {
        let mut utf8 = Utf8::default();
        for piece in pieces {
            utf8.push(piece)?;
        }
        utf8.finish()
    }

    #[test]
    fn the_first_impossible_byte_is_refused_at_once() {
        for begun in
            [&b"\xc0"[..], b"\xe0\x80", b"\xed\xa0", b"\xf4\x90", b"\xf5", b"a\xff", b"\xf0\x80", b"\xce\xbaa\x80"]
        {
            for at in 0..=begun.len() {
                let mut utf8 = Utf8::default();
                let (first, second) = begun.split_at(at);
                let result = utf8.push(first).and_then(|()| utf8.push(second));
                assert_eq!(result, Err(NotUtf8), "{begun:?} split at {at}");
            }
        }
    }

    #[test]
    fn a_character_may_not_end_half_way() {
        assert_eq!(whole(&[b"\xf0\x9f", b"\x98"]), Err(NotUtf8));
        assert_eq!(whole(&[b"\xf0\x9f", b"\x98", b"\x80"]), Ok(()));
    }

    proptest! {
        #[test]
        fn pieces_are_judged_like_the_whole(text in "\\PC{0,20}", noise in any::<Option<(usize, u8)>>(), at in any::<[usize; 3]>()) {
            let mut bytes = text.into_bytes();
            if let Some((index, byte)) = noise && !bytes.is_empty() {
                let index = index % bytes.len();
                bytes[index] = byte;
            }
            let mut cuts: Vec<usize> = at.iter().map(|at| at % (bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let pieces = [&bytes[..cuts[0]], &bytes[cuts[0]..cuts[1]], &bytes[cuts[1]..cuts[2]], &bytes[cuts[2]..]];
            prop_assert_eq!(whole(&pieces).is_ok(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
