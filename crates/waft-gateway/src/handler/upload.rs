//! Request bodies that are too long for one message: stored in a file, or sent in pieces for which handlers give credits.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tracing::{debug, warn};
use waft_http1::Framing;
use waft_mongrel2::Command;

use super::book::Order;
use super::message::{self, Extra};
use super::talk::{Go, Talk};
use crate::body::{BODY_BUFFER, Piece, RequestBody};
use crate::exchange::Exchange;
use crate::respond::{self, CONTINUE};
use crate::service::Answer;
use crate::settings::UploadStore;
use crate::shard::Shard;

/// Bytes gathered before they are written to a file.
const STORED_AT_ONCE: usize = 256 << 10;

/// Bytes of one message of a body that comes in pieces.
const PIECE_MAX: usize = 100 << 10;

/// Reads the body of a request and takes it to its handler.
pub(super) async fn run(talk: &mut Talk, shard: &Rc<Shard>, mut exchange: Exchange) -> Go {
    // Nothing of the body is kept, so that the request cannot be held and made again.
    exchange.body = RequestBody::new(&exchange.head, 0);
    let settings = std::sync::Arc::clone(&exchange.settings);
    let announced = match exchange.head.framing() {
        Framing::Length(length) => length,
        _ => 0,
    };
    let store = settings.handlers.store.as_ref().filter(|store| announced <= store.max);
    if !settings.handlers.stream && store.is_none() {
        return refuse(talk, shard, 413).await;
    }
    if exchange.head.expects_continue() && talk.client.stream.write_all(CONTINUE).await.is_err() {
        return Go::End;
    }
    talk.logged(&exchange, usize::try_from(announced).unwrap_or(usize::MAX));
    let go = match store {
        Some(store) if !settings.handlers.stream => to_file(talk, shard, &mut exchange, store).await,
        _ => in_pieces(talk, shard, &mut exchange).await,
    };
    if matches!(go, Go::On) {
        talk.expect_answer(exchange);
    }
    go
}

async fn refuse(talk: &mut Talk, shard: &Shard, status: u16) -> Go {
    shard.metrics.requests_failed.add(1);
    let answer = Answer::text(status, format!("{}\n", waft_http1::reason_phrase(status)));
    let out = respond::own(false, waft_http1::Version::Http11, &answer, false);
    talk.write(shard, &out.into()).await;
    Go::End
}

/// What reading on came to.
enum Next {
    Data(Bytes),
    End,
    Stop(Go),
}

/// The next piece of the body, while what handlers send is done.
async fn next(talk: &mut Talk, shard: &Rc<Shard>, exchange: &mut Exchange, credits: &mut i64) -> Next {
    loop {
        if let Some(go) = orders(talk, shard, credits).await {
            return Next::Stop(go);
        }
        match exchange.body.next(&mut talk.client.buffer) {
            Ok(Piece::End) => return Next::End,
            Ok(Piece::Data { skip, len, consumed }) => {
                let unread = talk.client.buffer.unread();
                let data = Bytes::copy_from_slice(unread.get(skip..skip + len).unwrap_or_default());
                talk.client.buffer.consume(consumed);
                return Next::Data(data);
            }
            Ok(Piece::More) => {
                let inbox = Rc::clone(&talk.contact.inbox);
                let read = tokio::select! {
                    biased;
                    () = inbox.arrived() => continue,
                    read = talk.client.read_more(shard, BODY_BUFFER) => read,
                };
                match read {
                    Ok(count @ 1..) => inbox.read(count),
                    Ok(0) | Err(_) => return Next::Stop(Go::End),
                }
            }
            Err(text) => {
                shard.metrics.requests_malformed.add(1);
                debug!(client = %exchange.peer, text, "Refused a malformed request body.");
                return Next::Stop(refuse(talk, shard, 400).await);
            }
        }
    }
}

/// Does what handlers have sent; credits are added up.
async fn orders(talk: &mut Talk, shard: &Rc<Shard>, credits: &mut i64) -> Option<Go> {
    loop {
        if talk.contact.inbox.is_ended() {
            return Some(Go::End);
        }
        let order = talk.contact.inbox.take()?;
        if let Order::Command(Command::Ctl(ctl)) = &order {
            *credits = credits.saturating_add(i64::try_from(ctl.credits).unwrap_or(i64::MAX));
        }
        let go = talk.order(shard, order).await;
        if !matches!(go, Go::On) {
            return Some(go);
        }
    }
}

/// Sends the body in messages of its own, no more than the handler has given credits for.
async fn in_pieces(talk: &mut Talk, shard: &Rc<Shard>, exchange: &mut Exchange) -> Go {
    let is_chunked = exchange.head.framing() == Framing::Chunked;
    let (mut credits, mut offset) = (0_i64, 0_u64);
    let first = if is_chunked { Bytes::new() } else { at_hand(talk, exchange) };
    let signature = talk.signature(shard, exchange);
    let extra = Extra { starts_stream: true, signature: signature.as_deref(), ..talk.extra() };
    let start = message::request(&talk.contact, exchange, &extra, &first);
    offset += first.len() as u64;
    if let go @ (Go::End | Go::Close | Go::Hold(_)) = talk.send(shard, start).await {
        return go;
    }
    loop {
        let mut data = match next(talk, shard, exchange, &mut credits).await {
            Next::Data(data) => data,
            Next::End if is_chunked => {
                let last = message::piece(&talk.contact, exchange, offset, true, b"");
                return talk.send(shard, last).await;
            }
            Next::End => return Go::On,
            Next::Stop(go) => return go,
        };
        while !data.is_empty() {
            while credits <= 0 {
                // Nothing more is read from the client, so that it feels that its body has to wait.
                let inbox = Rc::clone(&talk.contact.inbox);
                tokio::select! {
                    biased;
                    () = inbox.arrived() => {}
                    () = gone(talk) => return Go::End,
                }
                if let Some(go) = orders(talk, shard, &mut credits).await {
                    return go;
                }
            }
            let granted = usize::try_from(credits).unwrap_or(usize::MAX).min(PIECE_MAX);
            let piece = data.split_to(granted.min(data.len()));
            credits = credits.saturating_sub(i64::try_from(piece.len()).unwrap_or(i64::MAX));
            let is_last = !is_chunked && data.is_empty() && exchange.body.is_done();
            let message = message::piece(&talk.contact, exchange, offset, is_last, &piece);
            offset += piece.len() as u64;
            if let go @ (Go::End | Go::Close | Go::Hold(_)) = talk.send(shard, message).await {
                return go;
            }
        }
    }
}

/// Waits until the client's connection is broken.
async fn gone(talk: &Talk) {
    const LOOK: std::time::Duration = std::time::Duration::from_secs(1);
    while !talk.client.stream.is_broken() {
        tokio::time::sleep(LOOK).await;
    }
}

/// What has been read of the body together with the head.
fn at_hand(talk: &mut Talk, exchange: &mut Exchange) -> Bytes {
    match exchange.body.next(&mut talk.client.buffer) {
        Ok(Piece::Data { skip, len, consumed }) => {
            let unread = talk.client.buffer.unread();
            let data = Bytes::copy_from_slice(unread.get(skip..skip + len).unwrap_or_default());
            talk.client.buffer.consume(consumed);
            data
        }
        // What is wrong is found again when the body is read on.
        Ok(Piece::End | Piece::More) | Err(_) => Bytes::new(),
    }
}

/// Stores the body in a file and tells the handler before and after.
async fn to_file(talk: &mut Talk, shard: &Rc<Shard>, exchange: &mut Exchange, store: &UploadStore) -> Go {
    let (file, path) = match create(store) {
        Ok(created) => created,
        Err(error) => {
            warn!(%error, store = %store.pattern.display(), "A file for an upload could not be made.");
            return refuse(talk, shard, 500).await;
        }
    };
    let name = path.display().to_string();
    let signature = talk.signature(shard, exchange);
    let extra = talk.extra();
    let extra = Extra { upload_file: Some(&name), signature: signature.as_deref(), ..extra };
    let start = message::request(&talk.contact, exchange, &extra, b"");
    if let go @ (Go::End | Go::Close | Go::Hold(_)) = talk.send(shard, start).await {
        return go;
    }
    match store_body(talk, shard, exchange, store, file).await {
        Ok(()) => {}
        Err(go) => {
            // Half a body is of use to nobody.
            let _gone = tokio::task::spawn_blocking(move || std::fs::remove_file(path)).await;
            return go;
        }
    }
    let done = Extra { is_stored: true, with_credits: false, ..extra };
    let message = message::request(&talk.contact, exchange, &done, b"");
    talk.send(shard, message).await
}

async fn store_body(
    talk: &mut Talk,
    shard: &Rc<Shard>,
    exchange: &mut Exchange,
    store: &UploadStore,
    mut file: File,
) -> Result<(), Go> {
    let (mut credits, mut stored) = (0, 0_u64);
    let mut gathered = BytesMut::new();
    loop {
        let is_end = match next(talk, shard, exchange, &mut credits).await {
            Next::Data(data) => {
                stored += data.len() as u64;
                gathered.extend_from_slice(&data);
                false
            }
            Next::End => true,
            Next::Stop(go) => return Err(go),
        };
        if stored > store.max {
            return Err(refuse(talk, shard, 413).await);
        }
        if gathered.len() < STORED_AT_ONCE && !is_end {
            continue;
        }
        let data = gathered.split();
        let written = tokio::task::spawn_blocking(move || file.write_all(&data).map(|()| file)).await;
        file = match written.map_err(std::io::Error::other).and_then(|written| written) {
            Ok(file) => file,
            Err(error) => {
                warn!(%error, "An upload could not be stored.");
                return Err(refuse(talk, shard, 507).await);
            }
        };
        if is_end {
            return Ok(());
        }
    }
}

/// Makes a file of the pattern's name, with six random characters for its X.
fn create(store: &UploadStore) -> std::io::Result<(File, PathBuf)> {
    const TRIES: usize = 16;
    let pattern = store.pattern.display().to_string();
    let stem = pattern.strip_suffix("XXXXXX").unwrap_or(&pattern);
    for _ in 0..TRIES {
        let path = PathBuf::from((0..6).fold(stem.to_owned(), |name, _| name + &fastrand::alphanumeric().to_string()));
        match OpenOptions::new().write(true).create_new(true).mode(store.mode).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(std::io::ErrorKind::AlreadyExists.into())
}
