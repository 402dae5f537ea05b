//! Classes of bytes, and small searches over them.

/// True for the bytes of which tokens (methods, field names, options) are made: RFC 9110 section 5.6.2.
#[inline]
pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

/// True if `bytes` is a token.
#[inline]
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    // Without an early exit there is one look-up a byte and no branch.
    !bytes.is_empty() & bytes.iter().fold(true, |token, &byte| token & is_token_byte(byte))
}

/// The length of the token at the start of `bytes`.
#[inline]
pub(crate) fn token_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(bytes.len())
}

/// True if `bytes` holds a control byte other than a tab.
///
/// Blocks of bytes compile to a few vector instructions each; the last block overlaps the one before it, so that bytes are
/// looked at singly in the shortest texts only.
#[inline]
pub(crate) fn has_control(bytes: &[u8]) -> bool {
    if let Some(last) = bytes.last_chunk::<16>() {
        let (blocks, _) = bytes.as_chunks::<16>();
        return blocks.iter().any(block_has_control) || block_has_control(last);
    }
    match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => block_has_control(first) | block_has_control(last),
        _ => bytes.iter().any(|&byte| is_control(byte)),
    }
}

#[inline]
fn block_has_control<const LEN: usize>(block: &[u8; LEN]) -> bool {
    block.iter().fold(0_u8, |seen, &byte| seen | u8::from(is_control(byte))) != 0
}

/// True for control bytes other than a tab.
#[inline]
pub(crate) fn is_control(byte: u8) -> bool {
    ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f)
}

/// `bytes` without spaces and tabs at both ends (OWS, RFC 9110 section 5.6.3).
#[inline]
pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The members of a comma-separated list, trimmed, empty ones left out.
pub(crate) fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    value.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty())
}

const TOKEN: [bool; 256] = token_table();

const fn token_table() -> [bool; 256] {
    let punctuation = b"!#$%&'*+-.^_`|~";
    let mut table = [false; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        let mut at = 0;
        while at < punctuation.len() {
            #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which would refuse a bad index")]
            if punctuation[at] as usize == byte {
                table[byte] = true;
            }
            at += 1;
        }
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which would refuse a bad index")]
        if byte < 128 && (byte as u8).is_ascii_alphanumeric() {
            table[byte] = true;
        }
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_bytes_are_those_of_the_standard() {
        let expected = b"!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~";
        let found: Vec<u8> = (0..=255).filter(|&byte| is_token_byte(byte)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_control_byte_is_seen_at_every_place() {
        for len in 0..50 {
            let clean = vec![b'\t'; len];
            assert!(!has_control(&clean));
            for at in 0..len {
                for control in (0..0x20).chain([0x7f]).filter(|&byte| byte != b'\t') {
                    let mut bytes = clean.clone();
                    bytes[at] = control;
                    assert!(has_control(&bytes), "{control:#04x} at {at} of {len}");
                }
            }
        }
        assert!((0x20..=0xff).filter(|&byte| byte != 0x7f).all(|byte| !has_control(&[byte; 40])));
    }

    #[test]
    fn a_list_loses_its_white_space_and_empty_members() {
        let members: Vec<&[u8]> = list_members(b" a,\tb ,, c d ,").collect();
        assert_eq!(members, [b"a".as_slice(), b"b", b"c d"]);
    }
}
