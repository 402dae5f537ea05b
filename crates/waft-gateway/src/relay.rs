//! Response bodies on their way from a target.

use std::io;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use waft_http1::{BodyDecoder, Framing, LAST_CHUNK, chunk_header};
use waft_net::Stream;

use crate::body::BODY_BUFFER;
use crate::buffer::ReadBuffer;
use crate::pool::TargetConnection;
use crate::shard::Shard;
use crate::worker::CallBody;

/// What became of a response that went to the client as it came.
#[derive(Debug)]
pub(crate) struct Relayed {
    pub(crate) status: u16,
    /// Bytes of body.
    pub(crate) bytes: u64,
    pub(crate) client_reusable: bool,
    pub(crate) target_reusable: bool,
    /// The target or the client broke off before the end.
    pub(crate) cut_short: bool,
}

/// A response to be relayed: its head is written already.
pub(crate) struct Response<'a> {
    pub(crate) shard: &'a Shard,
    /// The head.
    pub(crate) out: Vec<u8>,
    pub(crate) decoder: BodyDecoder,
    pub(crate) from: &'a Stream,
    pub(crate) buffer: &'a mut ReadBuffer,
    pub(crate) to: &'a Stream,
    pub(crate) chunked: bool,
    pub(crate) idle_limit: Option<Duration>,
}

/// How relaying ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) bytes: u64,
    /// The whole body went to the client.
    pub(crate) complete: bool,
    /// Something of the response may have reached the client.
    pub(crate) begun: bool,
}

/// Pieces up to this size are copied together; larger ones are written from where they are.
const GATHERED: usize = 4096;

/// Relays a response: head and what is there of the body in one write, then piece by piece, no
/// faster than the client takes it.
pub(crate) async fn response(mut response: Response<'_>) -> Ended {
    let mut bytes = 0;
    let head = response.out.len();
    let complete = relay(&mut response, &mut bytes).await.is_ok();
    response.shard.metrics.bytes_sent.add(bytes);
    // The head stays where it was put until the first piece goes out with it.
    let begun = complete || bytes > 0 || response.out.len() < head;
    Ended { bytes, complete, begun }
}

async fn relay(response: &mut Response<'_>, bytes: &mut u64) -> io::Result<()> {
    let Response { shard, out, decoder, from, buffer, to, chunked, idle_limit } = response;
    let mut full_reads = 0;
    loop {
        while !decoder.is_done() {
            let decoded = decoder.decode(buffer.unread()).map_err(io::Error::other)?;
            let (consumed, data) = (decoded.consumed, decoded.data);
            if data.is_empty() && consumed == 0 {
                break;
            }
            *bytes += data.len() as u64;
            if data.len() > GATHERED {
                if *chunked {
                    shard.write(to, &[out, chunk_header(data.len()).as_bytes(), data, b"\r\n"]).await?;
                } else {
                    shard.write(to, &[out, data]).await?;
                }
                out.clear();
            } else {
                put_piece(out, data, *chunked);
            }
            buffer.consume(consumed);
        }
        let done = decoder.is_done();
        if done && *chunked {
            out.extend_from_slice(LAST_CHUNK);
        }
        if !out.is_empty() {
            shard.write(to, &[out]).await?;
            out.clear();
        }
        if done {
            return Ok(());
        }
        if full_reads >= 2 {
            buffer.enlarge(&shard.buffers);
        }
        let count = read_within(shard, from, buffer, *idle_limit).await?;
        full_reads += u32::from(buffer.is_full());
        if count == 0 {
            decoder.finish().map_err(io::Error::other)?;
        }
    }
}

/// Reads more, giving up when nothing comes for `limit`.
async fn read_within(
    shard: &Shard,
    from: &Stream,
    buffer: &mut ReadBuffer,
    limit: Option<Duration>,
) -> io::Result<usize> {
    let started = Instant::now();
    let count = loop {
        let sweep = shard.sweep.notified();
        let room = buffer.room(&shard.buffers, BODY_BUFFER);
        tokio::select! {
            biased;
            read = from.read(room) => break read?,
            () = sweep => if limit.is_some_and(|limit| started.elapsed() > limit) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    };
    buffer.filled(count);
    Ok(count)
}

/// Appends body data, as a chunk if the body is chunked.
pub(crate) fn put_piece(out: &mut Vec<u8>, data: &[u8], chunked: bool) {
    if data.is_empty() {
        return;
    }
    if chunked {
        out.extend_from_slice(chunk_header(data.len()).as_bytes());
    }
    out.extend_from_slice(data);
    if chunked {
        out.extend_from_slice(b"\r\n");
    }
}

/// The body of a response that this gateway works on itself.
#[derive(Debug)]
pub(crate) enum ResponseBody {
    /// All of it.
    Whole(Bytes),
    /// What is still to be read from a target.
    Wire(Box<WireBody>),
    /// What is still to be read from elsewhere; none once its end was seen.
    Outside(Option<Box<waft_outbound::ResponseBody>>),
    /// What a worker still has to send.
    Worker(Box<CallBody>),
}

/// A body that is still on its way.
#[derive(Debug)]
pub(crate) struct WireBody {
    connection: TargetConnection,
    decoder: BodyDecoder,
    reusable: bool,
}

/// Why a body could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the body was cut short: {0}")]
    Cut(#[from] io::Error),
}

impl ResponseBody {
    /// Bytes that came from a target just now: those of `piece`, unless they had been read before.
    pub(crate) fn count(&self, piece: &Bytes) -> u64 {
        match self {
            Self::Whole(_) => 0,
            Self::Wire(_) | Self::Outside(_) | Self::Worker(_) => piece.len() as u64,
        }
    }

    /// The body that follows on `connection`.
    pub(crate) fn wire(connection: TargetConnection, framing: Framing, keep_alive: bool) -> Self {
        let reusable = keep_alive && framing != Framing::UntilClose;
        Self::Wire(Box::new(WireBody { connection, decoder: BodyDecoder::new(framing), reusable }))
    }

    /// The next piece, none at the end. Pieces that are there already come without waiting.
    pub(crate) async fn next(&mut self, shard: &Shard) -> io::Result<Option<Bytes>> {
        let wire = match self {
            Self::Whole(body) if body.is_empty() => return Ok(None),
            Self::Whole(body) => return Ok(Some(std::mem::take(body))),
            Self::Outside(body) => return outside(body).await,
            Self::Wire(wire) => wire,
            Self::Worker(body) => return body.next(IDLE_LIMIT).await,
        };
        let mut out = BytesMut::new();
        loop {
            while !wire.decoder.is_done() {
                let decoded = wire.decoder.decode(wire.connection.buffer.unread()).map_err(io::Error::other)?;
                let consumed = decoded.consumed;
                if consumed == 0 {
                    break;
                }
                out.extend_from_slice(decoded.data);
                wire.connection.buffer.consume(consumed);
            }
            if !out.is_empty() {
                return Ok(Some(out.freeze()));
            }
            if wire.decoder.is_done() {
                return Ok(None);
            }
            let WireBody { connection: TargetConnection { stream, buffer, .. }, decoder, .. } = &mut **wire;
            if read_within(shard, stream, buffer, Some(IDLE_LIMIT)).await? == 0 {
                decoder.finish().map_err(io::Error::other)?;
            }
        }
    }

    /// Whether all that is left of the body is there and fits into `limit` bytes, so that reading
    /// it will not have to wait.
    pub(crate) fn is_at_hand(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Outside(body) => body.is_none(),
            Self::Wire(wire) => {
                let unread = wire.connection.buffer.unread().len() as u64;
                wire.decoder.is_done() || wire.decoder.remaining().is_some_and(|left| left <= unread)
            }
            Self::Worker(body) => body.is_at_hand(),
        }
    }

    /// The whole body.
    pub(crate) async fn read_all(&mut self, shard: &Shard, limit: usize) -> Result<Bytes, BodyError> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.next(shard).await? {
            if whole.len() + piece.len() > limit {
                return Err(BodyError::TooLong { limit });
            }
            if whole.is_empty() && self.is_at_end() {
                return Ok(piece);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Whether nothing of the body is left.
    pub(crate) fn is_at_end(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_empty(),
            Self::Outside(body) => body.is_none(),
            Self::Wire(wire) => wire.decoder.is_done(),
            Self::Worker(body) => body.is_at_end(),
        }
    }

    /// Gives the connection back if the body was read to its end, or ends it.
    pub(crate) fn release(self, shard: &Shard) {
        if let Self::Wire(wire) = self {
            if wire.decoder.is_done() && wire.reusable {
                wire.connection.keep(shard);
            } else {
                wire.connection.abandon(shard);
            }
        }
    }
}

/// The next piece of a body from elsewhere. Its connection is kept there once its end was seen.
async fn outside(body: &mut Option<Box<waft_outbound::ResponseBody>>) -> io::Result<Option<Bytes>> {
    let Some(reading) = body else { return Ok(None) };
    let piece = tokio::time::timeout(IDLE_LIMIT, reading.piece())
        .await
        .map_err(|_late| io::ErrorKind::TimedOut)?
        .map_err(io::Error::other)?;
    if piece.is_none() {
        *body = None;
    }
    Ok(piece)
}

/// How long a target may pause within a body that this gateway needs itself.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
