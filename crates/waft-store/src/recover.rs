//! Reading a segment after a start, whatever a crash has left of it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use tracing::warn;

use crate::Place;
use crate::record::{self, Found, HEADER, PREAMBLE, Salt};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// Shows the records of a segment to `visit`. Returns its salt and where its last record ends, after cutting off what a
/// crash has left behind that; none if there is nothing in it.
pub(crate) fn segment(
    mut file: &File,
    path: &Path,
    number: u32,
    visit: &mut dyn FnMut(Place, &[u8]),
) -> io::Result<Option<(Salt, u64)>> {
    let size = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut preamble = Vec::new();
    file.take(PREAMBLE as u64).read_to_end(&mut preamble)?;
    let Some(salt) = record::read_preamble(&preamble) else {
        warn!(segment = %path.display(), size, "Removed a segment that has no beginning.");
        return Ok(None);
    };
    let mut walk = Walk { file, buffer: Vec::new(), start: 0, at: PREAMBLE as u64, ended: false };
    loop {
        match record::next(walk.rest(), salt) {
            Found::Record(content) => {
                let length = content.len();
                if let Some(place) = place(number, walk.at, length) {
                    visit(place, content);
                }
                walk.skip(HEADER + length);
            }
            Found::Partial { need } if !walk.ended => walk.fill(need)?,
            Found::Partial { .. } if walk.rest().is_empty() => {
                return Ok((walk.at > PREAMBLE as u64).then_some((salt, walk.at)));
            }
            Found::Partial { .. } | Found::Broken => {
                walk.fill(usize::MAX)?;
                let Some(skipped) = record::resume(walk.rest(), salt) else {
                    let torn = size - walk.at;
                    warn!(segment = %path.display(), end = walk.at, torn, "Cut off a torn end.");
                    file.set_len(walk.at)?;
                    file.sync_data()?;
                    return Ok((walk.at > PREAMBLE as u64).then_some((salt, walk.at)));
                };
                warn!(segment = %path.display(), at = walk.at, skipped, "Passed over a damaged stretch.");
                walk.skip(skipped);
            }
        }
    }
}

/// A file on the way from its beginning to its end.
struct Walk<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    /// What of the buffer was used.
    start: usize,
    /// Where in the file the rest of the buffer begins.
    at: u64,
    ended: bool,
}

impl Walk<'_> {
    fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Reads until there are `need` bytes, or the file has ended.
    fn fill(&mut self, need: usize) -> io::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        while !self.ended && self.buffer.len() < need {
            let count = self.file.take(PIECE as u64).read_to_end(&mut self.buffer)?;
            self.ended = count == 0;
        }
        Ok(())
    }

    fn skip(&mut self, count: usize) {
        self.start = (self.start + count).min(self.buffer.len());
        self.at += count as u64;
    }
}

fn place(segment: u32, offset: u64, length: usize) -> Option<Place> {
    Some(Place { segment, offset: u32::try_from(offset).ok()?, length: u32::try_from(length).ok()? })
}
