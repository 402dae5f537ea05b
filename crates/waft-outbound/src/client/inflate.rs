//! Responses in gzip and deflate, decoded piece by piece within a bound on their growth.

use bytes::{Buf, Bytes};
use flate2::{Decompress, FlushDecompress, Status};

use crate::CallError;

/// Decoded bytes handed out at once.
const PIECE_SIZE: usize = 16_384;

/// Growth is judged beyond this many decoded bytes: small documents of blanks are harmless.
const RATIO_FREE: u64 = 1_048_576;

/// Decodes one response body.
#[derive(Debug)]
pub(crate) struct Inflate {
    decompress: Option<Decompress>,
    format: Format,
    waiting: Bytes,
    ratio_max: u64,
    ended: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    /// zlib, or raw deflate as some servers send it.
    Deflate,
    Gzip,
}

impl Format {
    /// The format of a Content-Encoding, if it is one that can be decoded.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        match value.trim_ascii().to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            _ => None,
        }
    }
}

impl Inflate {
    pub(crate) fn new(format: Format, ratio_max: u64) -> Self {
        Self { decompress: None, format, waiting: Bytes::new(), ratio_max, ended: false }
    }

    /// Gives the next encoded bytes, after [`Inflate::next`] had nothing left.
    pub(crate) fn push(&mut self, encoded: Bytes) {
        if self.decompress.is_none() {
            let first = encoded.first().copied().unwrap_or_default();
            self.decompress = Some(match self.format {
                Format::Gzip => Decompress::new_gzip(15),
                // The first byte of zlib names method 8 and a window of at most 32 KiB.
                Format::Deflate => Decompress::new(first & 0x0f == 8 && first >> 4 <= 7),
            });
        }
        self.waiting = encoded;
    }

    /// The next decoded bytes, `None` when more encoded ones are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        let Some(decompress) = self.decompress.as_mut() else { return Ok(None) };
        if self.ended || self.waiting.is_empty() {
            return Ok(None);
        }
        let mut decoded = Vec::with_capacity((self.waiting.len() * 4).clamp(64, PIECE_SIZE));
        let before = decompress.total_in();
        let status = decompress
            .decompress_vec(&self.waiting, &mut decoded, FlushDecompress::None)
            .map_err(|_cause| CallError::Encoding)?;
        let used = usize::try_from(decompress.total_in() - before).unwrap_or(usize::MAX);
        self.waiting.advance(used.min(self.waiting.len()));
        self.ended = status == Status::StreamEnd;
        let (encoded, total) = (decompress.total_in(), decompress.total_out());
        if total > RATIO_FREE && total / encoded.max(1) > self.ratio_max {
            return Err(CallError::Encoding);
        }
        if decoded.is_empty() {
            // Headers were read, or what is left is the start of something longer.
            return if used > 0 && !self.waiting.is_empty() { self.next() } else { Ok(None) };
        }
        Ok(Some(decoded.into()))
    }

    /// Whether the encoded body ended where the format says, or was empty.
    pub(crate) fn is_complete(&self) -> bool {
        self.ended || self.decompress.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn decode(format: Format, encoded: &[u8], step: usize) -> Result<Vec<u8>, CallError> {
        let mut inflate = Inflate::new(format, 100);
        let mut decoded = Vec::new();
        for piece in encoded.chunks(step) {
            inflate.push(Bytes::copy_from_slice(piece));
            while let Some(piece) = inflate.next()? {
                decoded.extend_from_slice(&piece);
            }
        }
        assert!(inflate.is_complete());
        Ok(decoded)
    }

    #[test]
    fn every_format_is_decoded_however_it_is_split() {
        let text: Vec<u8> = (0..6_000_u32).flat_map(|number| number.to_string().into_bytes()).collect();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&text).unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(&text).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
        raw.write_all(&text).unwrap();
        let (gzip, zlib, raw) = (gzip.finish().unwrap(), zlib.finish().unwrap(), raw.finish().unwrap());
        for step in [1, 7, 1_000, usize::MAX] {
            assert!(decode(Format::Gzip, &gzip, step).unwrap() == text);
            assert!(decode(Format::Deflate, &zlib, step).unwrap() == text);
            assert!(decode(Format::Deflate, &raw, step).unwrap() == text);
        }
    }

    #[test]
    fn a_bomb_is_stopped_early() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&vec![0; 6_000_000]).unwrap();
        let mut inflate = Inflate::new(Format::Gzip, 100);
        inflate.push(gzip.finish().unwrap().into());
        let mut decoded = 0;
        let error = loop {
            match inflate.next() {
                Ok(piece) => decoded += piece.unwrap().len(),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, CallError::Encoding));
        assert!(decoded < 2_000_000, "{decoded}");
    }

    #[test]
    fn garbage_is_an_error() {
        let mut inflate = Inflate::new(Format::Gzip, 100);
        inflate.push(Bytes::from_static(b"not gzip at all"));
        assert!(matches!(inflate.next(), Err(CallError::Encoding)));
    }
}
