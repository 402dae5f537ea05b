//! Classes of bytes, and small searches over them.

/// True for the bytes of which tokens (methods, field names, options) are made: RFC 9110 section 5.6.2.
#[inline]
pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

/// True if `bytes` is a token.
#[inline]
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// True if `bytes` holds a control byte other than a tab.
///
/// The fold has no early exit on purpose: it compiles to vector instructions, and a clean line is the rule.
#[inline]
pub(crate) fn has_control(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |seen, &byte| seen | is_control(byte))
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
    fn a_list_loses_its_white_space_and_empty_members() {
        let members: Vec<&[u8]> = list_members(b" a,\tb ,, c d ,").collect();
        assert_eq!(members, [b"a".as_slice(), b"b", b"c d"]);
    }
}
