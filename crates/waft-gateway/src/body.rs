//! Request bodies on their way from a client.

use waft_http1::{BodyDecoder, Framing, RequestHead};
use waft_net::Stream;

use crate::buffer::ReadBuffer;
use crate::client::Client;
use crate::shard::Shard;

/// The body of a request: decoded as it arrives, with its beginning kept in case the request has
/// to be sent again.
#[derive(Debug)]
pub(crate) struct RequestBody {
    decoder: BodyDecoder,
    saved: Vec<u8>,
    saved_max: usize,
    overflowed: bool,
    received: u64,
}

/// What reading a body to its end came to.
#[derive(Debug)]
pub(crate) enum BodyEnd {
    Complete,
    TooLong,
    Malformed(String),
    Gone,
}

/// A step of reading a body.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Bytes of body, the first so many of the unread ones of the client's buffer.
    Data { skip: usize, len: usize, consumed: usize },
    /// More has to be read first.
    More,
    /// There is no more.
    End,
}

impl RequestBody {
    /// The body that `head` announces, of which up to `saved_max` bytes are kept.
    pub(crate) fn new(head: &RequestHead, saved_max: usize) -> Self {
        Self { decoder: BodyDecoder::new(head.framing()), saved: Vec::new(), saved_max, overflowed: false, received: 0 }
    }

    /// A body that was read before, for a request that is made again.
    pub(crate) fn replay(saved: Vec<u8>) -> Self {
        Self { decoder: BodyDecoder::new(Framing::None), saved_max: saved.len(), saved, overflowed: false, received: 0 }
    }

    /// Whether the whole body has been read.
    pub(crate) fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// What has been read of it, if it is not more than may be kept.
    pub(crate) fn saved(&self) -> &[u8] {
        &self.saved
    }

    /// Whether all that was read is still there to be sent again.
    pub(crate) fn is_replayable(&self) -> bool {
        !self.overflowed
    }

    /// Whether the body is longer than what may be kept.
    pub(crate) fn is_too_long(&self) -> bool {
        self.overflowed
    }

    /// Bytes received since the last call.
    pub(crate) fn take_received(&mut self) -> u64 {
        std::mem::take(&mut self.received)
    }

    /// Takes what is kept.
    pub(crate) fn into_saved(self) -> Vec<u8> {
        self.saved
    }

    /// The next piece of body in the client's unread bytes.
    ///
    /// # Errors
    /// A text that names the rule the client broke.
    pub(crate) fn next(&mut self, buffer: &mut ReadBuffer) -> Result<Piece, String> {
        loop {
            if self.decoder.is_done() {
                return Ok(Piece::End);
            }
            let unread = buffer.unread();
            let before = unread.as_ptr() as usize;
            let decoded = self.decoder.decode(unread).map_err(|error| error.to_string())?;
            let (consumed, len) = (decoded.consumed, decoded.data.len());
            if len > 0 {
                let skip = (decoded.data.as_ptr() as usize).saturating_sub(before);
                self.received += len as u64;
                self.save(decoded.data);
                return Ok(Piece::Data { skip, len, consumed });
            }
            if consumed == 0 && !self.decoder.is_done() {
                return Ok(Piece::More);
            }
            buffer.consume(consumed);
        }
    }

    fn save(&mut self, data: &[u8]) {
        if self.overflowed {
            return;
        }
        if self.saved.len() + data.len() > self.saved_max {
            self.overflowed = true;
            self.saved = Vec::new();
        } else {
            self.saved.extend_from_slice(data);
        }
    }

    /// Reads the whole body into what is kept.
    pub(crate) async fn read_all(&mut self, shard: &Shard, client: &mut Client) -> BodyEnd {
        loop {
            match self.next(&mut client.buffer) {
                Ok(Piece::End) => return BodyEnd::Complete,
                Ok(Piece::Data { consumed, .. }) => client.buffer.consume(consumed),
                Ok(Piece::More) => match client.read_more(shard, BODY_BUFFER).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return BodyEnd::Gone,
                },
                Err(text) => return BodyEnd::Malformed(text),
            }
            if self.overflowed {
                return BodyEnd::TooLong;
            }
        }
    }
}

/// What the read buffer may grow to while a body passes, beyond which reads do not get cheaper.
pub(crate) const BODY_BUFFER: usize = 64 << 10;

/// Reads more from a client into `buffer`. 0 is the end of the stream, or a full buffer.
pub(crate) async fn read_into(
    shard: &Shard,
    from: &Stream,
    buffer: &mut ReadBuffer,
    max: usize,
) -> std::io::Result<usize> {
    let room = buffer.room(&shard.buffers, max);
    if room.is_empty() {
        return Ok(0);
    }
    let count = from.read(room).await?;
    buffer.filled(count);
    shard.metrics.bytes_received.add(count as u64);
    Ok(count)
}
