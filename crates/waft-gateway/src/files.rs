//! Files of a directory as a target: whole or in a range, if they have changed, compressed if a compressed copy lies
//! beside them.
//!
//! Everything that may wait for a disk runs on other threads than the shards. A file is read in pieces, no faster than
//! its client takes it.

mod condition;
mod find;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tracing::warn;
use waft_http1::{Fields, reason_phrase};
use waft_net::Stream;
use waft_route::Directory;

use crate::body::BodyEnd;
use crate::client::Client;
use crate::exchange::Exchange;
use crate::relay::Relayed;
use crate::respond::{self, Frame};
use crate::service::Answer;
use crate::shard::Shard;
use condition::{Judged, Wanted, judge};
use find::{Found, Search, find};

/// Bytes of a file read at once, and kept in memory for each client that is being sent one.
const PIECE: usize = 128 << 10;

/// What serving a file came to.
pub(crate) enum Served {
    /// Something went to the client.
    Sent(Relayed),
    /// The client broke a rule within its body.
    Malformed(String),
    /// The client has gone.
    Gone,
}

/// Serves a request from a directory.
pub(crate) async fn serve(
    shard: &Rc<Shard>,
    client: &mut Client,
    exchange: &mut Exchange,
    directory: &Arc<Directory>,
) -> Served {
    let is_whole = match exchange.body.read_all(shard, client).await {
        BodyEnd::Complete => true,
        // Nobody wants it, and reading all of it away could take for ever.
        BodyEnd::TooLong => false,
        BodyEnd::Malformed(text) => return Served::Malformed(text),
        BodyEnd::Gone => return Served::Gone,
    };
    let out = Out { shard, stream: &client.stream, exchange, keep: is_whole };
    if !matches!(exchange.head.method(), "GET" | "HEAD") {
        let mut answer = plain(405);
        answer.fields.push("Allow", "GET, HEAD");
        return out.own(answer).await;
    }
    let prefix = exchange.route.condition.path_beg.as_deref().unwrap_or_default();
    let path = exchange.head.path();
    let Some(search) = Search::new(path.strip_prefix(prefix).unwrap_or(path), path, directory) else {
        return out.own(plain(404)).await;
    };
    let encodings = exchange.head.fields_named("accept-encoding").map(<[u8]>::to_vec).collect::<Vec<_>>();
    let wanted = Wanted::of(&exchange.head);
    let own = Arc::clone(directory);
    let found = spawn_blocking(move || {
        let found = find(&own, &search, &encodings)?;
        Ok(prepare(found, &wanted))
    });
    match found.await.map_err(std::io::Error::other).and_then(|found: std::io::Result<Prepared>| found) {
        Ok(prepared) => out.prepared(prepared).await,
        Err(error) if is_absence(&error) => out.own(plain(404)).await,
        Err(error) => {
            warn!(directory = %directory.path.display(), %error, "A file could not be read.");
            out.own(plain(500)).await
        }
    }
}

/// Whether an error of the system means that there is nothing for clients.
fn is_absence(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    // `XDEV`: a link leads out of the directory.
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidFilename
            | ErrorKind::CrossesDevices
    ) || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

fn plain(status: u16) -> Answer {
    Answer::text(status, format!("{}\n", reason_phrase(status)))
}

/// What is to be sent.
enum Prepared {
    /// Part of a file, with its first piece.
    Content {
        status: u16,
        fields: Fields,
        file: File,
        from: u64,
        length: u64,
        first: Vec<u8>,
    },
    /// An answer without content of a file.
    Head {
        status: u16,
        fields: Fields,
    },
    Redirect(String),
}

/// Judges what was found, and reads its first piece.
fn prepare(found: Found, wanted: &Wanted) -> Prepared {
    let found = match found {
        Found::Directory(location) => return Prepared::Redirect(location),
        Found::File(found) => found,
    };
    let mut fields = Fields::new();
    let judged = judge(wanted, &found.etag, found.modified, found.size);
    if let Some(date) = found.date() {
        fields.push("Last-Modified", date);
    }
    fields.push("ETag", &found.etag);
    if let Some(encoding) = found.encoding {
        fields.push("Content-Encoding", encoding);
    }
    if found.varies {
        fields.push("Vary", "Accept-Encoding");
    }
    let (status, from, length) = match judged {
        Judged::Unchanged => return Prepared::Head { status: 304, fields },
        Judged::Failed => return Prepared::Head { status: 412, fields: Fields::new() },
        Judged::Unsatisfiable => {
            let mut fields = Fields::new();
            fields.push("Content-Range", format!("bytes */{}", found.size));
            return Prepared::Head { status: 416, fields };
        }
        Judged::Whole => (200, 0, found.size),
        Judged::Range(from, last) => {
            fields.push("Content-Range", format!("bytes {from}-{last}/{}", found.size));
            (206, from, last - from + 1)
        }
    };
    fields.push("Content-Type", &found.kind);
    fields.push("Accept-Ranges", "bytes");
    let first = if wanted.is_head { Ok(Vec::new()) } else { piece(&found.file, from, length) };
    match first {
        Ok(first) => Prepared::Content { status, fields, file: found.file, from, length, first },
        Err(_) => Prepared::Head { status: 500, fields: Fields::new() },
    }
}

/// Reads a piece of a file, never more than `left`.
fn piece(file: &File, from: u64, left: u64) -> std::io::Result<Vec<u8>> {
    let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
    let mut bytes = vec![0; length];
    let count = file.read_at(&mut bytes, from)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Where answers go.
struct Out<'a> {
    shard: &'a Shard,
    stream: &'a Stream,
    exchange: &'a Exchange,
    /// The connection can be used again.
    keep: bool,
}

impl Out<'_> {
    fn keeps(&self) -> bool {
        self.keep && self.exchange.head.keep_alive() && !self.shard.is_draining()
    }

    fn head(&self, status: u16, mut fields: Fields, frame: Frame) -> Vec<u8> {
        fields.push("Date", httpdate::fmt_http_date(std::time::SystemTime::now()));
        if let Some(dress) = &self.exchange.dress {
            dress.apply(&mut fields);
        }
        respond::head(status, reason_phrase(status), &fields, frame, self.exchange.head.version(), self.keeps())
    }

    fn sent(&self, status: u16, bytes: u64, is_whole: bool) -> Served {
        self.shard.metrics.bytes_sent.add(bytes);
        Served::Sent(Relayed {
            status,
            bytes,
            client_reusable: self.keeps() && is_whole,
            target_reusable: true,
            cut_short: !is_whole,
        })
    }

    async fn own(&self, answer: Answer) -> Served {
        let Answer { status, fields, body } = answer;
        let mut out = self.head(status, fields, Frame::Length(body.len()));
        if !self.exchange.head.is_head() {
            out.extend_from_slice(&body);
        }
        match self.shard.write(self.stream, &[&out]).await {
            Ok(()) => self.sent(status, body.len() as u64, true),
            Err(_) => Served::Gone,
        }
    }

    async fn prepared(&self, prepared: Prepared) -> Served {
        match prepared {
            Prepared::Redirect(location) => {
                let mut answer = plain(301);
                let query = self.exchange.head.query().map(|query| format!("?{query}")).unwrap_or_default();
                answer.fields.push("Location", format!("{location}{query}"));
                self.own(answer).await
            }
            Prepared::Head { status: 304, fields } => {
                let out = self.head(304, fields, Frame::None);
                match self.shard.write(self.stream, &[&out]).await {
                    Ok(()) => self.sent(304, 0, true),
                    Err(_) => Served::Gone,
                }
            }
            Prepared::Head { status, fields } => {
                let mut answer = plain(status);
                fields.iter().for_each(|(name, value)| answer.fields.push(name, value));
                self.own(answer).await
            }
            Prepared::Content { status, fields, file, from, length, first } => {
                let head = self.head(status, fields, Frame::Length(usize::try_from(length).unwrap_or(usize::MAX)));
                self.content(status, head, file, (from, length), first).await
            }
        }
    }

    /// Sends part of a file. One that became shorter meanwhile ends the connection, so that the client knows.
    async fn content(
        &self,
        status: u16,
        head: Vec<u8>,
        file: File,
        (mut from, length): (u64, u64),
        first: Vec<u8>,
    ) -> Served {
        if self.exchange.head.is_head() {
            return match self.shard.write(self.stream, &[&head]).await {
                Ok(()) => self.sent(status, 0, true),
                Err(_) => Served::Gone,
            };
        }
        let mut left = length - (first.len() as u64).min(length);
        from += first.len() as u64;
        if self.shard.write(self.stream, &[&head, &first]).await.is_err() {
            return Served::Gone;
        }
        let file = Arc::new(file);
        let mut is_cut = first.is_empty() && length > 0;
        while left > 0 && !is_cut {
            let (own, at, rest) = (Arc::clone(&file), from, left);
            let bytes = match spawn_blocking(move || piece(&own, at, rest)).await {
                Ok(Ok(bytes)) if !bytes.is_empty() => bytes,
                Ok(Ok(_) | Err(_)) | Err(_) => {
                    is_cut = true;
                    continue;
                }
            };
            if self.shard.write(self.stream, &[&bytes]).await.is_err() {
                return Served::Gone;
            }
            from += bytes.len() as u64;
            left -= (bytes.len() as u64).min(left);
        }
        self.sent(status, length - left, !is_cut)
    }
}
