//! The format of a segment, without IO.
//!
//! A segment begins with [`MAGIC`] and a random salt of 8 bytes; records follow. A record has a header of 12 bytes in
//! little-endian order: the checksum of the length, the length, and the checksum of the content. Both are CRC-32 and begin
//! with the salt, so that nobody who can choose the content of a record can make it look like records of its own.
//!
//! A write that was cut short leaves a record that is not whole. [`next`] tells it from a whole one, and [`resume`] finds
//! the next whole one behind a damaged stretch, for the case that a disk has lost something in the middle.

use crc32fast::Hasher;

/// The first bytes of a segment.
pub const MAGIC: &[u8; 8] = b"WAFTLOG1";

/// Bytes in front of the first record: magic and salt.
pub const PREAMBLE: usize = 16;

/// Bytes in front of each record.
pub const HEADER: usize = 12;

/// Longest record in bytes: 16 MiB, far above any message, far below memory.
pub const RECORD_MAX: usize = 16 << 20;

/// The random number of a segment that all its checksums depend on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Salt(pub u64);

/// What stands at the beginning of some bytes.
#[derive(Debug, Eq, PartialEq)]
pub enum Found<'a> {
    /// No record: its length or content is not what was written.
    Broken,
    /// A record whose end is not there yet; none of it is known to be wrong. So many bytes are needed.
    Partial {
        /// Bytes from the beginning of the header to the end of the record, or to the end of the header.
        need: usize,
    },
    /// A whole record.
    Record(&'a [u8]),
}

/// The first bytes of a new segment.
pub fn preamble(salt: Salt) -> [u8; PREAMBLE] {
    let mut bytes = [0; PREAMBLE];
    let (magic, rest) = bytes.split_at_mut(MAGIC.len());
    magic.copy_from_slice(MAGIC);
    rest.copy_from_slice(&salt.0.to_le_bytes());
    bytes
}

/// The salt of a segment; none if it does not begin as a segment does.
pub fn read_preamble(bytes: &[u8]) -> Option<Salt> {
    let rest = bytes.strip_prefix(MAGIC)?;
    Some(Salt(u64::from_le_bytes(*rest.first_chunk()?)))
}

/// Appends a record with its header.
pub fn put(out: &mut Vec<u8>, salt: Salt, content: &[u8]) {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes();
    out.extend_from_slice(&checksum(salt, &length).to_le_bytes());
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(salt, content).to_le_bytes());
    out.extend_from_slice(content);
}

/// What stands at the beginning of `bytes`.
pub fn next(bytes: &[u8], salt: Salt) -> Found<'_> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else { return Found::Partial { need: HEADER } };
    let [a, b, c, d, length @ .., e, f, g, h] = *header;
    let length_bytes: [u8; 4] = length;
    let size = u32::from_le_bytes(length_bytes) as usize;
    if size == 0 || size > RECORD_MAX || checksum(salt, &length_bytes) != u32::from_le_bytes([a, b, c, d]) {
        return Found::Broken;
    }
    match rest.get(..size) {
        None => Found::Partial { need: HEADER + size },
        Some(content) if checksum(salt, content) == u32::from_le_bytes([e, f, g, h]) => Found::Record(content),
        Some(_) => Found::Broken,
    }
}

/// Where the first whole record begins in bytes that begin with none; none if there is no whole one.
pub fn resume(bytes: &[u8], salt: Salt) -> Option<usize> {
    (1..bytes.len()).find(|at| matches!(bytes.get(*at..).map(|rest| next(rest, salt)), Some(Found::Record(_))))
}

fn checksum(salt: Salt, content: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&salt.0.to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SALT: Salt = Salt(7);

    fn written(records: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for record in records {
            put(&mut out, SALT, record);
        }
        out
    }

    /// All whole records from the beginning, and behind damaged stretches.
    fn read(mut bytes: &[u8], salt: Salt) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let skip = match next(bytes, salt) {
                Found::Record(record) => {
                    found.push(record.to_vec());
                    HEADER + record.len()
                }
                Found::Broken | Found::Partial { .. } => match resume(bytes, salt) {
                    Some(at) => at,
                    None => break,
                },
            };
            bytes = &bytes[skip..];
        }
        found
    }

    #[test]
    fn a_record_of_another_salt_is_none() {
        assert_eq!(next(&written(&[b"a".to_vec()]), Salt(8)), Found::Broken);
        assert_eq!(read_preamble(&preamble(SALT)), Some(SALT));
        for bytes in [&b""[..], b"WAFTLOG1", b"WAFTLOG2aaaaaaaa"] {
            assert_eq!(read_preamble(bytes), None);
        }
    }

    #[test]
    fn content_that_looks_like_a_record_does_not_become_one() {
        let mut inner = Vec::new();
        put(&mut inner, Salt(0), b"forged");
        let mut bytes = written(&[inner, b"next".to_vec()]);
        bytes[HEADER] ^= 1;
        assert_eq!(read(&bytes, SALT), [b"next"]);
    }

    fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 1..12)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(records in records()) {
            prop_assert_eq!(read(&written(&records), SALT), records);
        }

        #[test]
        fn a_torn_end_costs_only_what_was_torn(records in records(), cut: prop::sample::Index) {
            let bytes = written(&records);
            let cut = cut.index(bytes.len() + 1);
            let mut whole = 0;
            let mut end = 0;
            for record in &records {
                end += HEADER + record.len();
                whole += usize::from(end <= cut);
            }
            prop_assert_eq!(read(&bytes[..cut], SALT), &records[..whole]);
        }

        #[test]
        fn a_changed_byte_costs_only_its_record(records in records(), at: prop::sample::Index, change in 1u8..) {
            let mut bytes = written(&records);
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            let mut expected = records.clone();
            let mut begin = 0;
            for (n, record) in records.iter().enumerate() {
                if (begin..begin + HEADER + record.len()).contains(&at) {
                    expected.remove(n);
                }
                begin += HEADER + record.len();
            }
            prop_assert_eq!(read(&bytes, SALT), expected);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), salt: u64) {
            read(&bytes, Salt(salt));
            read_preamble(&bytes);
        }
    }
}
