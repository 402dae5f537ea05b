//! Durable logs: records appended to segment files, found again by their place after any crash.
//!
//! What it deliberately lacks: any idea of what a record means, and so any rule about which ones may go. Its user keeps an
//! index in memory, rebuilds it from the records at start, and removes the oldest segment after it has appended again what
//! is still wanted of it.
//!
//! Start with [`Log`], the files, and [`Writer`], the thread that appends for others: everything that comes while one
//! commit is under way goes to disk with the next one. [`record`] is the format, without IO.
//!
//! ```
//! use waft_store::{Log, Options, Room};
//!
//! let dir = std::env::temp_dir().join(format!("waft-store-doc-{}", std::process::id()));
//! let mut log = Log::open(&dir, Options::default(), &mut |_, _| {}).unwrap();
//! let place = log.append(&[b"hello".to_vec()], Room::Ordinary).unwrap()[0];
//! log.sync().unwrap();
//! drop(log);
//! let mut seen = Vec::new();
//! let log = Log::open(&dir, Options::default(), &mut |_, record| seen.push(record.to_vec())).unwrap();
//! assert_eq!(seen, [b"hello"]);
//! assert_eq!(log.reader().read(place).unwrap(), b"hello");
//! # drop(log);
//! # std::fs::remove_dir_all(dir).unwrap();
//! ```

mod log;
pub mod record;
mod recover;
mod writer;

pub use log::{Log, Options, Reader, Room};
pub use writer::{Done, Entry, Failure, Usage, Writer};

/// Where a record lies.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Place {
    /// The number of its segment; later segments have higher numbers.
    pub segment: u32,
    /// Where its header begins, in bytes from the beginning of the file.
    pub offset: u32,
    /// The length of the record, in bytes, without its header.
    pub length: u32,
}

impl Place {
    /// Bytes that the record takes on disk.
    pub const fn disk_bytes(self) -> u64 {
        record::HEADER as u64 + self.length as u64
    }
}

/// Why a log cannot do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A record at that place is not what was written, or the segment has gone.
    #[error("the record at {place:?} is damaged or gone")]
    Damaged {
        /// The place.
        place: Place,
    },
    /// The disk, or what the log may take of it, is full.
    #[error("the disk or the allowed {bytes_max} bytes are full; make room or allow more")]
    Full {
        /// What the log may take.
        bytes_max: u64,
    },
    /// The directory or a file cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// Which one.
        path: String,
        /// What the system says.
        #[source]
        cause: std::io::Error,
    },
    /// Another process has the log open.
    #[error("{path} is in use by another process; give each its own directory")]
    Locked {
        /// The directory.
        path: String,
    },
    /// The record is empty or longer than [`record::RECORD_MAX`].
    #[error("a record of {length} bytes cannot be stored")]
    Length {
        /// Its length.
        length: usize,
    },
}
