//! Mongrel2's access log: a line for each request that found its route, in a file of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use waft_mongrel2::AccessLine;
use waft_net::PeerAddr;
use waft_route::HostPattern;

use crate::exchange::Exchange;
use crate::handler;

/// The file, which several shards write to.
#[derive(Debug)]
pub struct AccessLog {
    path: PathBuf,
    default_host: String,
    file: Mutex<File>,
}

impl AccessLog {
    /// Opens the file at `path`, to be written to at its end. `default_host` is what hosts are called that no route
    /// lists.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path, default_host: &str) -> io::Result<Self> {
        let file = Mutex::new(open(path)?);
        Ok(Self { path: path.to_owned(), default_host: default_host.to_owned(), file })
    }

    /// Opens the file anew, so that the old one can be moved aside.
    ///
    /// # Errors
    /// The system's; the old file is written on then.
    pub fn reopen(&self) -> io::Result<()> {
        let file = open(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    pub(crate) fn write(&self, exchange: &Exchange, status: u16, size: u64) {
        let head = &exchange.head;
        let (address, port) = match &exchange.peer {
            PeerAddr::Tcp(address) => (address.ip().to_canonical().to_string(), address.port()),
            PeerAddr::Unix => (String::new(), 0),
        };
        let host = match &exchange.route.condition.host {
            HostPattern::Domain(host) | HostPattern::Exact(host) | HostPattern::Matching(host) => host.as_str(),
            HostPattern::Wildcard(host) => host.as_str(),
            HostPattern::Any | HostPattern::None => &self.default_host,
        };
        let line = AccessLine {
            host,
            address: &address,
            port,
            time: crate::sign::unix_seconds(),
            method: head.method(),
            path: head.path(),
            version: handler::version(head.version()),
            status,
            size,
        };
        let mut out = Vec::with_capacity(192);
        line.write(&mut out);
        // A log on a full disk must not keep clients from being served.
        let _lost = self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&out);
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}
