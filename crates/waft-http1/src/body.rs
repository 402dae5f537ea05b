//! Finding the data within a body, in place.

use crate::error::BodyError;
use crate::head::Framing;
use crate::limits::{CHUNK_EXTENSIONS_BYTES_MAX, CHUNK_SIZE_DIGITS_MAX, TRAILERS_BYTES_MAX};
use crate::octets::{is_control, is_token_byte};

/// What one call of `BodyDecoder::decode` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// How many bytes of the input are used up; pass the rest again, or more.
    pub consumed: usize,
    /// The next piece of the body, a part of the input. May be empty.
    pub data: &'a [u8],
}

/// Follows the framing of one body (RFC 9112 sections 6 and 7).
///
/// Call `decode` with what has arrived until `is_done`; each call uses all of its input unless it stops behind a piece
/// of data or at the body's end. When the peer closes, call `finish`. Chunk extensions and trailers are checked,
/// bounded, and dropped. An error is final.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    /// Bytes of chunk extensions so far.
    extensions: usize,
    /// Bytes of trailers so far.
    trailers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Data of a body with a known length.
    Length {
        remaining: u64,
    },
    /// Data until the peer closes.
    UntilClose,
    /// Digits of a chunk size.
    Size {
        size: u64,
        digits: u8,
    },
    /// Behind the semicolon that follows a chunk size.
    Extension {
        size: u64,
    },
    /// Behind the carriage return of a chunk size line.
    SizeLineFeed {
        size: u64,
    },
    /// Data of a chunk.
    Data {
        remaining: u64,
    },
    /// Behind the data of a chunk.
    DataCarriageReturn,
    /// Behind the carriage return that follows the data of a chunk.
    DataLineFeed,
    /// At the start of a trailer line, or of the blank line that ends the body.
    TrailerStart,
    /// Within the name of a trailer.
    TrailerName,
    /// Behind the colon of a trailer.
    TrailerValue,
    /// Behind the carriage return of a trailer line.
    TrailerLineFeed,
    /// Behind the carriage return of the blank line that ends the body.
    EndLineFeed,
    Done,
    Failed(BodyError),
}

impl BodyDecoder {
    /// A decoder for a body with this framing.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(remaining) => State::Length { remaining },
            Framing::Chunked => SIZE_START,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, extensions: 0, trailers: 0 }
    }

    /// Finds the next piece of the body in `input`.
    ///
    /// Framing around the piece is consumed with it, so that the end of the body is known as early as it can be.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<'a>, BodyError> {
        let before = self.framing(input).inspect_err(|&error| self.state = State::Failed(error))?;
        let rest = input.get(before..).unwrap_or_default();
        let (data, rest) = self.data(rest);
        if data.is_empty() {
            return Ok(Decoded { consumed: before, data });
        }
        let consumed = before + data.len();
        // An error behind the piece must not hide it: it is found again by the next call.
        let mut ahead = self.clone();
        match ahead.framing(rest) {
            Ok(after) => {
                *self = ahead;
                Ok(Decoded { consumed: consumed + after, data })
            }
            Err(_) => Ok(Decoded { consumed, data }),
        }
    }

    /// True once the whole body was found; bytes behind it belong to the next message.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The bytes of data still to come, where the framing says so.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length { remaining } => Some(remaining),
            _ => None,
        }
    }

    /// The peer has closed its side: fine for a body that ends so or has ended, an error for one cut short.
    pub fn finish(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Failed(error) => Err(error),
            _ => {
                self.state = State::Failed(BodyError::CutShort);
                Err(BodyError::CutShort)
            }
        }
    }

    /// Splits `input` behind the data that may be taken from it in the current state.
    fn data<'a>(&mut self, input: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let (State::Length { remaining } | State::Data { remaining }) = self.state else {
            return if self.state == State::UntilClose { (input, &[]) } else { (&[], input) };
        };
        let len = usize::try_from(remaining).unwrap_or(usize::MAX).min(input.len());
        let left = remaining - len as u64;
        self.state = match self.state {
            State::Length { .. } if left == 0 => State::Done,
            State::Length { .. } => State::Length { remaining: left },
            _ if left == 0 => State::DataCarriageReturn,
            _ => State::Data { remaining: left },
        };
        input.split_at_checked(len).unwrap_or_default()
    }

    /// Steps over chunk framing until data begins, the body ends, or the input does; returns how far it came.
    fn framing(&mut self, input: &[u8]) -> Result<usize, BodyError> {
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            self.state = match self.state {
                State::Length { .. } | State::UntilClose | State::Data { .. } | State::Done => return Ok(at),
                State::Failed(error) => return Err(error),
                State::Extension { .. } | State::TrailerName | State::TrailerValue | State::TrailerStart => {
                    self.step_counted(byte)?
                }
                state => step(state, byte)?,
            };
            at += 1;
        }
        Ok(at)
    }

    /// A step through the parts of the framing whose length is bounded.
    fn step_counted(&mut self, byte: u8) -> Result<State, BodyError> {
        if let State::Extension { size } = self.state {
            self.extensions += 1;
            return match byte {
                b'\r' => Ok(State::SizeLineFeed { size }),
                b'\n' => Err(BodyError::BareLineEnd),
                byte if is_control(byte) => Err(BodyError::ControlByte),
                _ if self.extensions > CHUNK_EXTENSIONS_BYTES_MAX => {
                    Err(BodyError::ExtensionsTooLong { limit: CHUNK_EXTENSIONS_BYTES_MAX })
                }
                _ => Ok(self.state),
            };
        }
        self.trailers += 1;
        if self.trailers > TRAILERS_BYTES_MAX {
            return Err(BodyError::TrailersTooLong { limit: TRAILERS_BYTES_MAX });
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLineFeed),
            (_, b'\n') => Err(BodyError::BareLineEnd),
            (State::TrailerStart | State::TrailerName, byte) if is_token_byte(byte) => Ok(State::TrailerName),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLineFeed),
            (State::TrailerValue, byte) if is_control(byte) => Err(BodyError::ControlByte),
            (State::TrailerValue, _) => Ok(State::TrailerValue),
            _ => Err(BodyError::InvalidTrailer),
        }
    }
}

const SIZE_START: State = State::Size { size: 0, digits: 0 };

/// A step through the parts of the framing whose length is fixed.
fn step(state: State, byte: u8) -> Result<State, BodyError> {
    match (state, byte) {
        (State::Size { size, digits }, byte) => step_size(size, digits, byte),
        (State::SizeLineFeed { size: 0 }, b'\n') => Ok(State::TrailerStart),
        (State::SizeLineFeed { size }, b'\n') => Ok(State::Data { remaining: size }),
        (State::DataCarriageReturn, b'\r') => Ok(State::DataLineFeed),
        (State::DataLineFeed, b'\n') => Ok(SIZE_START),
        (State::DataCarriageReturn | State::DataLineFeed, _) => Err(BodyError::ChunkNotEnded),
        (State::TrailerLineFeed, b'\n') => Ok(State::TrailerStart),
        (State::EndLineFeed, b'\n') => Ok(State::Done),
        _ => Err(BodyError::BareLineEnd),
    }
}

fn step_size(size: u64, digits: u8, byte: u8) -> Result<State, BodyError> {
    let digit = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        b'\r' if digits > 0 => return Ok(State::SizeLineFeed { size }),
        b';' if digits > 0 => return Ok(State::Extension { size }),
        b'\n' if digits > 0 => return Err(BodyError::BareLineEnd),
        _ => return Err(BodyError::InvalidChunkSize),
    };
    if digits == CHUNK_SIZE_DIGITS_MAX {
        return Err(BodyError::SizeTooLong);
    }
    Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
}
