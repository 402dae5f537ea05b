//! The command `sendfile`: a handler names a file, and its bytes go to the client as they are.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use tracing::warn;

use super::talk::{Go, Talk};
use crate::shard::Shard;

/// Bytes read at once.
const READ_AT_ONCE: usize = 256 << 10;

impl Talk {
    /// Writes the bytes of a file to the client.
    pub(super) async fn send_file(&mut self, shard: &Rc<Shard>, path: &Bytes) -> Go {
        let allowed = shard.gateway.settings().handlers.send_file.clone();
        let name = String::from_utf8_lossy(path).into_owned();
        let opened = tokio::task::spawn_blocking(move || open(&allowed, Path::new(&name))).await;
        let mut file = match opened.map_err(std::io::Error::other).and_then(|opened| opened) {
            Ok(file) => file,
            Err(error) => {
                warn!(%error, path = %String::from_utf8_lossy(path), "A file that a handler named is not sent; its directory must be among mongrel2.sendfile.");
                return Go::End;
            }
        };
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; READ_AT_ONCE];
                let count = file.read(&mut piece)?;
                piece.truncate(count);
                Ok((file, Bytes::from(piece)))
            });
            let piece = match read.await.map_err(std::io::Error::other).and_then(|read| read) {
                Ok((_, piece)) if piece.is_empty() => return Go::On,
                Ok((again, piece)) => {
                    file = again;
                    piece
                }
                Err(error) => {
                    warn!(%error, "A file that a handler named could not be read on.");
                    return Go::End;
                }
            };
            if !self.write(shard, &piece).await {
                return Go::End;
            }
        }
    }
}

/// Opens a file below one of the directories, wherever links lead.
fn open(allowed: &[PathBuf], path: &Path) -> std::io::Result<std::fs::File> {
    let path = path.canonicalize()?;
    let is_allowed = allowed
        .iter()
        .filter_map(|directory| directory.canonicalize().ok())
        .any(|directory| path.starts_with(directory));
    if is_allowed && path.is_file() {
        std::fs::File::open(path)
    } else {
        Err(std::io::ErrorKind::PermissionDenied.into())
    }
}
