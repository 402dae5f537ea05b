//! One stream of a client's connection, and the pipe it is served through.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Method;
use waft_http1::{BodyDecoder, Framing, HeadLimits, Parsed, ResponseHead, parse_response};
use waft_net::Pipe;

use crate::body::{Receiving, Sending, Stopped};
use crate::head::{Body, response_from};

/// Carries a stream's request into its pipe, and the answer out of it. Ends when both are over, or the client has gone.
#[derive(Debug)]
pub(crate) struct Bridge {
    pipe: Pipe,
    receiving: Option<Receiving>,
    answer: Answer,
}

/// The answer on its way out of a pipe.
#[derive(Debug)]
enum Answer {
    /// Its head has not come yet.
    Awaited {
        respond: SendResponse<Bytes>,
        head: Box<Head>,
    },
    Sending(Sending),
    Sent,
}

/// The head of an answer, and what is known of it before it comes.
#[derive(Debug)]
struct Head {
    method: Method,
    tunnel: bool,
    limits: HeadLimits,
    /// What has come of it.
    text: Vec<u8>,
}

impl Bridge {
    /// `method` is that of the request as it stands in the pipe, `body` how its body is written there.
    pub(crate) fn new(
        pipe: Pipe,
        request: RecvStream,
        body: Body,
        method: Method,
        respond: SendResponse<Bytes>,
        limits: HeadLimits,
    ) -> Self {
        let head = Box::new(Head { method, tunnel: body == Body::Tunnel, limits, text: Vec::new() });
        let receiving = (body != Body::None).then(|| Receiving::new(request, body));
        Self { pipe, receiving, answer: Answer::Awaited { respond, head } }
    }
}

impl Future for Bridge {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { pipe, receiving, answer } = &mut *self;
        if answer.poll_reset(cx).is_ready() {
            pipe.reset();
            return Poll::Ready(());
        }
        if let Some(body) = receiving {
            match body.poll(cx, pipe) {
                Poll::Ready(Err(Stopped::Stream)) => {
                    pipe.reset();
                    answer.break_off(Reason::CANCEL);
                    return Poll::Ready(());
                }
                // Whoever wants no more of the request may still answer it.
                Poll::Ready(Ok(()) | Err(Stopped::Pipe | Stopped::Message)) => *receiving = None,
                Poll::Pending => {}
            }
        }
        if ready!(answer.poll(cx, pipe)).is_err() {
            answer.break_off(Reason::INTERNAL_ERROR);
        }
        Poll::Ready(())
    }
}

impl Answer {
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Awaited { respond, .. } => respond.poll_reset(cx).map(|_reason| ()),
            Self::Sending(sending) => sending.poll_reset(cx),
            Self::Sent => Poll::Ready(()),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, pipe: &Pipe) -> Poll<Result<(), Stopped>> {
        loop {
            match self {
                Self::Awaited { respond, head } => {
                    let Some(piece) = ready!(pipe.poll_receive(cx)).map_err(|_reset| Stopped::Pipe)? else {
                        return Poll::Ready(Err(Stopped::Pipe));
                    };
                    if let Some(begun) = head.take(&piece, respond)? {
                        *self = begun;
                    }
                }
                Self::Sending(sending) => {
                    let sent = ready!(sending.poll(cx, pipe));
                    if sent.is_ok() {
                        *self = Self::Sent;
                    }
                    return Poll::Ready(sent);
                }
                Self::Sent => return Poll::Ready(Ok(())),
            }
        }
    }

    fn break_off(&mut self, reason: Reason) {
        match self {
            Self::Awaited { respond, .. } => respond.send_reset(reason),
            Self::Sending(sending) => sending.stream().send_reset(reason),
            Self::Sent => {}
        }
    }
}

impl Head {
    /// Takes in a piece; what the answer has become when its head is whole.
    fn take(&mut self, piece: &Bytes, respond: &mut SendResponse<Bytes>) -> Result<Option<Answer>, Stopped> {
        // Mostly the head is whole in the first piece, which then needs no copy.
        let mut rest: Bytes = if self.text.is_empty() {
            piece.clone()
        } else {
            self.text.extend_from_slice(piece);
            std::mem::take(&mut self.text).into()
        };
        loop {
            match parse_response(&rest, &self.limits).map_err(|_malformed| Stopped::Message)? {
                Parsed::Complete { head, consumed } => {
                    let behind = rest.slice(consumed..);
                    // The client of a stream sends its body without being asked to go on.
                    if (100..200).contains(&head.status()) && head.status() != 101 {
                        rest = behind;
                        continue;
                    }
                    return self.begin(&head, behind, respond).map(Some);
                }
                Parsed::Partial => {
                    self.text = rest.to_vec();
                    return Ok(None);
                }
            }
        }
    }

    fn begin(&self, head: &ResponseHead, behind: Bytes, respond: &mut SendResponse<Bytes>) -> Result<Answer, Stopped> {
        let tunnel = self.tunnel && head.status() == 101;
        if head.status() == 101 && !tunnel {
            return Err(Stopped::Message);
        }
        let framing = match tunnel {
            true => Framing::UntilClose,
            false => head.framing(self.method.as_str()).map_err(|_contradiction| Stopped::Message)?,
        };
        let empty = matches!(framing, Framing::None | Framing::Length(0));
        let stream = respond.send_response(response_from(head, tunnel), empty).map_err(|_gone| Stopped::Stream)?;
        if empty {
            return Ok(Answer::Sent);
        }
        let decoder = (!tunnel).then(|| BodyDecoder::new(framing));
        Ok(Answer::Sending(Sending::new(stream, decoder, behind)))
    }
}
