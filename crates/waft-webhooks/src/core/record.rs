//! What is written into the store, and read at the next start.
//!
//! Numbers are little-endian. A message that was moved stands in the log again with the states it has now, and everything
//! that was read of it before does not count any more.

use super::id::Mark;
use super::message::{Delivery, State};

/// One record of the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Record<'a> {
    /// An application, in JSON.
    App(&'a [u8]),
    /// The application of this number has gone.
    AppGone(u32),
    /// A try, and what the delivery is after it.
    Attempt(Attempt<'a>),
    /// A delivery was given another state by hand.
    Delivery {
        /// The message.
        seq: u64,
        /// Its delivery to one endpoint, which may be new.
        delivery: Delivery,
    },
    /// An endpoint, in JSON.
    Endpoint(&'a [u8]),
    /// The endpoint of this number has gone.
    EndpointGone(u32),
    /// The mark of this store.
    Mark(Mark),
    /// A message with its deliveries as they were when this was written.
    Message(StoredMessage<'a>),
}

/// A message as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredMessage<'a> {
    /// Its sequence number, which tells its time too.
    pub seq: u64,
    /// Its application.
    pub app: u32,
    /// What its order is kept by; 0 is nothing.
    pub order: u64,
    /// What it is recognised by if it comes again; 0 is nothing.
    pub idempotency: u64,
    /// The event type.
    pub kind: &'a str,
    /// The media type of the body.
    pub content_type: &'a str,
    /// The endpoints it goes to.
    pub deliveries: Vec<Delivery>,
    /// The request that it is; none for what is posted to registered endpoints.
    pub request: Option<StoredRequest<'a>>,
    /// The body.
    pub body: &'a [u8],
}

/// A request that is delivered as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// Where to.
    pub url: &'a str,
    /// Any certificate will do.
    pub ignore_tls_errors: bool,
    /// Header lines.
    pub headers: Vec<(&'a [u8], &'a [u8])>,
}

/// One try of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt<'a> {
    /// The message.
    pub seq: u64,
    /// What the delivery is after it.
    pub delivery: Delivery,
    /// It was only moved: `delivery` does not count.
    pub moved: bool,
    /// When it began, in Unix milliseconds.
    pub at: u64,
    /// The status of the answer; 0 if there was none.
    pub status: u16,
    /// How long it took, in milliseconds.
    pub latency_ms: u32,
    /// Why it failed; empty if it did not.
    pub cause: &'a str,
    /// The beginning of the answer's body.
    pub answer: &'a [u8],
}

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a stored record has an unknown form; it may come from a newer version")]
pub struct Unknown;

impl<'a> Record<'a> {
    /// The bytes of this record.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            Self::App(json) => put_kind(&mut out, 1, json),
            Self::AppGone(number) => put_kind(&mut out, 2, &number.to_le_bytes()),
            Self::Attempt(attempt) => attempt.encode(&mut out),
            Self::Delivery { seq, delivery } => {
                put_kind(&mut out, 4, &seq.to_le_bytes());
                put_delivery(&mut out, delivery);
            }
            Self::Endpoint(json) => put_kind(&mut out, 5, json),
            Self::EndpointGone(number) => put_kind(&mut out, 6, &number.to_le_bytes()),
            Self::Mark(mark) => put_kind(&mut out, 7, &mark.0.to_le_bytes()),
            Self::Message(message) => message.encode(&mut out),
        }
        out
    }

    /// The record that these bytes are.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Unknown> {
        let (kind, rest) = bytes.split_first().ok_or(Unknown)?;
        let mut rest = Cursor(rest);
        let record = match kind {
            1 => Self::App(rest.all()),
            2 => Self::AppGone(rest.u32()?),
            3 => Self::Attempt(Attempt::decode(&mut rest)?),
            4 => Self::Delivery { seq: rest.u64()?, delivery: rest.delivery()? },
            5 => Self::Endpoint(rest.all()),
            6 => Self::EndpointGone(rest.u32()?),
            7 => Self::Mark(Mark(rest.u64()?)),
            8 => Self::Message(StoredMessage::decode(&mut rest, false)?),
            9 => Self::Message(StoredMessage::decode(&mut rest, true)?),
            _ => return Err(Unknown),
        };
        if rest.0.is_empty() { Ok(record) } else { Err(Unknown) }
    }
}

impl<'a> StoredMessage<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(64 + self.kind.len() + 16 * self.deliveries.len() + self.body.len());
        put_kind(out, if self.request.is_some() { 9 } else { 8 }, &self.seq.to_le_bytes());
        out.extend_from_slice(&self.app.to_le_bytes());
        out.extend_from_slice(&self.order.to_le_bytes());
        out.extend_from_slice(&self.idempotency.to_le_bytes());
        put_text(out, self.kind);
        put_text(out, self.content_type);
        let count = u16::try_from(self.deliveries.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        self.deliveries.iter().take(usize::from(count)).for_each(|delivery| put_delivery(out, delivery));
        if let Some(request) = &self.request {
            request.encode(out);
        }
        out.extend_from_slice(self.body);
    }

    fn decode(bytes: &mut Cursor<'a>, is_request: bool) -> Result<Self, Unknown> {
        Ok(Self {
            seq: bytes.u64()?,
            app: bytes.u32()?,
            order: bytes.u64()?,
            idempotency: bytes.u64()?,
            kind: bytes.text()?,
            content_type: bytes.text()?,
            deliveries: (0..bytes.u16()?).map(|_| bytes.delivery()).collect::<Result<_, _>>()?,
            request: is_request.then(|| StoredRequest::decode(bytes)).transpose()?,
            body: bytes.all(),
        })
    }
}

impl<'a> StoredRequest<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_text(out, self.method);
        put_bytes(out, self.url.as_bytes());
        out.push(u8::from(self.ignore_tls_errors));
        let count = u16::try_from(self.headers.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        for (name, value) in self.headers.iter().take(usize::from(count)) {
            put_bytes(out, name);
            put_bytes(out, value);
        }
    }

    fn decode(bytes: &mut Cursor<'a>) -> Result<Self, Unknown> {
        Ok(Self {
            method: bytes.text()?,
            url: str::from_utf8(bytes.bytes()?).map_err(|_cause| Unknown)?,
            ignore_tls_errors: bytes.u8()? != 0,
            headers: (0..bytes.u16()?).map(|_| Ok((bytes.bytes()?, bytes.bytes()?))).collect::<Result<_, Unknown>>()?,
        })
    }
}

impl<'a> Attempt<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_kind(out, 3, &self.seq.to_le_bytes());
        put_delivery(out, &self.delivery);
        out.push(u8::from(self.moved));
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(&self.status.to_le_bytes());
        out.extend_from_slice(&self.latency_ms.to_le_bytes());
        put_text(out, self.cause);
        out.extend_from_slice(self.answer);
    }

    fn decode(bytes: &mut Cursor<'a>) -> Result<Self, Unknown> {
        Ok(Self {
            seq: bytes.u64()?,
            delivery: bytes.delivery()?,
            moved: bytes.u8()? != 0,
            at: bytes.u64()?,
            status: bytes.u16()?,
            latency_ms: bytes.u32()?,
            cause: bytes.text()?,
            answer: bytes.all(),
        })
    }
}

fn put_kind(out: &mut Vec<u8>, kind: u8, content: &[u8]) {
    out.push(kind);
    out.extend_from_slice(content);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut length = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    out.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(text.as_bytes().get(..length).unwrap_or_default());
}

/// Bytes of any length that a record can have.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_delivery(out: &mut Vec<u8>, delivery: &Delivery) {
    out.extend_from_slice(&delivery.endpoint.to_le_bytes());
    out.extend_from_slice(&delivery.attempts.to_le_bytes());
    out.push(delivery.state.code());
    out.extend_from_slice(&delivery.due.to_le_bytes());
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Unknown> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Unknown)?;
        self.0 = rest;
        Ok(*first)
    }

    fn u8(&mut self) -> Result<u8, Unknown> {
        self.take().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, Unknown> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Unknown> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Unknown> {
        self.take().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<&'a str, Unknown> {
        let length = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(length).ok_or(Unknown)?;
        self.0 = rest;
        str::from_utf8(text).map_err(|_cause| Unknown)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Unknown> {
        let length = usize::try_from(self.u32()?).map_err(|_cause| Unknown)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Unknown)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn delivery(&mut self) -> Result<Delivery, Unknown> {
        Ok(Delivery {
            endpoint: self.u32()?,
            attempts: self.u16()?,
            state: State::from_code(self.u8()?).ok_or(Unknown)?,
            due: self.u64()?,
        })
    }

    fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delivery() -> impl Strategy<Value = Delivery> {
        (any::<u32>(), any::<u16>(), 0u8..3, any::<u64>()).prop_map(|(endpoint, attempts, state, due)| Delivery {
            endpoint,
            attempts,
            state: State::from_code(state).unwrap(),
            due,
        })
    }

    proptest! {
        #[test]
        fn messages_are_read_as_they_were_written(
            seq: u64, app: u32, order: u64, idempotency: u64, kind in "\\PC{0,20}", content_type in "\\PC{0,20}",
            deliveries in proptest::collection::vec(delivery(), 0..5), body: Vec<u8>,
            request in proptest::option::of(("\\PC{0,20}", "\\PC{0,20}", any::<bool>(), any::<Vec<(Vec<u8>, Vec<u8>)>>())),
        ) {
            let request = request.as_ref().map(|(method, url, ignore_tls_errors, headers)| StoredRequest {
                method, url, ignore_tls_errors: *ignore_tls_errors,
                headers: headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect(),
            });
            let message =
                StoredMessage { seq, app, order, idempotency, kind: &kind, content_type: &content_type, deliveries, request, body: &body };
            let record = Record::Message(message);
            let written = record.encode();
            prop_assert_eq!(Record::decode(&written), Ok(record.clone()));
        }

        #[test]
        fn attempts_are_read_as_they_were_written(
            seq: u64, delivery in delivery(), moved: bool, at: u64, status: u16, latency_ms: u32, cause in "\\PC{0,20}", answer: Vec<u8>,
        ) {
            let attempt = Record::Attempt(Attempt { seq, delivery, moved, at, status, latency_ms, cause: &cause, answer: &answer });
            let written = attempt.encode();
            prop_assert_eq!(Record::decode(&written), Ok(attempt.clone()));
            let by_hand = Record::Delivery { seq, delivery };
            let written = by_hand.encode();
            prop_assert_eq!(Record::decode(&written), Ok(by_hand.clone()));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(record) = Record::decode(&bytes) {
                let written = record.encode();
                prop_assert_eq!(Record::decode(&written), Ok(record.clone()));
            }
        }
    }

    #[test]
    fn small_records_are_read_as_they_were_written() {
        for record in [
            Record::App(b"{}"),
            Record::AppGone(1),
            Record::Endpoint(b"{}"),
            Record::EndpointGone(2),
            Record::Mark(Mark(3)),
        ] {
            assert_eq!(Record::decode(&record.encode()), Ok(record.clone()));
        }
    }
}
