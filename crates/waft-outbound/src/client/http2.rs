//! Exchanges over HTTP/2, through hyper.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::RequestBody;
use super::stream::Stream;
use crate::CallError;

/// A connection that carries many exchanges.
pub(crate) type Sender = SendRequest<Upload>;

/// Speaks HTTP/2 on a connection; a task of its own drives it.
pub(crate) async fn start(stream: Stream, head_size_max: usize) -> Result<Sender, CallError> {
    let head_size_max = u32::try_from(head_size_max).unwrap_or(u32::MAX);
    let (sender, connection) = http2::Builder::new(Local)
        .max_header_list_size(head_size_max)
        .handshake(Io(stream))
        .await
        .map_err(CallError::Http2)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "An HTTP/2 connection ended.");
        }
    });
    Ok(sender)
}

/// The next piece of a response body.
pub(crate) fn poll_piece(body: &mut Incoming, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, CallError>> {
    loop {
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => return Poll::Ready(Ok(None)),
            Some(Err(error)) => return Poll::Ready(Err(CallError::Http2(error))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Ok(Some(data))),
                // Trailers are not passed on.
                Err(_trailers) => {}
            },
        }
    }
}

/// A request body as hyper wants it.
#[derive(Debug)]
pub(crate) struct Upload(pub(crate) RequestBody);

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut self.0 {
            RequestBody::Whole(body) => Some(std::mem::take(body)).filter(|body| !body.is_empty()),
            RequestBody::Stream(source, _) => ready!(source.poll_piece(cx)),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, RequestBody::Whole(body) if body.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            RequestBody::Whole(body) => SizeHint::with_exact(body.len() as u64),
            RequestBody::Stream(_, Some(length)) => SizeHint::with_exact(*length),
            RequestBody::Stream(_, None) => SizeHint::default(),
        }
    }
}

/// Runs hyper's futures on this thread.
#[derive(Clone, Debug)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// A connection as hyper wants it.
#[derive(Debug)]
struct Io(Stream);

/// Bytes that hyper reads at once.
const READ_SIZE: usize = 16_384;

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        // hyper's cursor can only be filled without a copy by unsafe code; a copy of what was read is cheap
        // beside the decryption before it.
        let mut buffer = [0_u8; READ_SIZE];
        let room = cursor.remaining().min(READ_SIZE);
        let mut buffer = ReadBuf::new(buffer.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        cursor.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
