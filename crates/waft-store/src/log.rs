//! The files of a log: one that grows, and older ones that are only read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::record::{self, Found, HEADER, PREAMBLE, RECORD_MAX, Salt};
use crate::{Error, Place, recover};

/// Most bytes of one batch of records: 256 MiB, so that every offset has 32 bits.
const BATCH_MAX: usize = 256 << 20;

/// How often the lock of a directory is asked for: a process that was just killed may hold it for a moment yet.
const LOCK_TRIES: u32 = 50;

/// The pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size in bytes at which a segment is full. Default 64 MiB: few files, and room comes back in small steps.
    pub segment_bytes: u32,
    /// Bytes that the log may take on disk. Default 10 GiB. What is above `bytes_max` less one segment is for
    /// [`Room::Reserve`] alone.
    pub bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, bytes_max: 10 << 30 }
    }
}

/// Which part of the allowed size records may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Room {
    /// What everyone may take.
    Ordinary,
    /// The last segment too: for what gives room back or must not be lost.
    Reserve,
}

/// A log, open for appending. One process has it at a time.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    options: Options,
    segments: Reader,
    /// Finished segments and their sizes.
    sizes: BTreeMap<u32, u64>,
    head: Head,
    /// Locked as long as the log is open.
    _lock: File,
}

/// The segment that grows.
#[derive(Debug)]
struct Head {
    number: u32,
    file: Arc<File>,
    salt: Salt,
    end: u64,
    /// A write or sync failed in a way that leaves doubt about what is in the file.
    doubtful: bool,
}

/// Reads records, from any thread.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    segments: Arc<Mutex<Segments>>,
}

/// Open segments by number.
type Segments = BTreeMap<u32, (Arc<File>, Salt)>;

impl Log {
    /// Opens the log in a directory, which is made if it is not there, and shows every record to `visit` in the order of
    /// their appending. A torn end is cut off, a damaged stretch is passed over; both are told in the log of the program.
    pub fn open(directory: &Path, options: Options, visit: &mut dyn FnMut(Place, &[u8])) -> Result<Self, Error> {
        fs::create_dir_all(directory).map_err(|cause| io_error(directory, cause))?;
        let lock = lock(directory)?;
        let segments = Reader::default();
        let mut sizes = BTreeMap::new();
        for number in numbers(directory)? {
            let path = path_of(directory, number);
            let file = File::options().read(true).write(true).open(&path).map_err(|cause| io_error(&path, cause))?;
            let recovered = recover::segment(&file, &path, number, visit).map_err(|cause| io_error(&path, cause))?;
            match recovered {
                Some((salt, end)) => {
                    sizes.insert(number, end);
                    segments.lock().insert(number, (Arc::new(file), salt));
                }
                None => fs::remove_file(&path).map_err(|cause| io_error(&path, cause))?,
            }
        }
        let number = sizes.keys().next_back().map_or(1, |last| last + 1);
        // A new segment at each start: nothing is ever written behind what a crash has left.
        let head = Head::create(directory, number, &segments)?;
        Ok(Self { directory: directory.to_owned(), options, segments, sizes, head, _lock: lock })
    }

    /// Appends records, all or none. They are safe from the end of the process at once, and from the end of the machine
    /// after [`Log::sync`].
    pub fn append(&mut self, records: &[impl AsRef<[u8]>], room: Room) -> Result<Vec<Place>, Error> {
        let mut bytes = 0;
        for record in records {
            let length = record.as_ref().len();
            if length == 0 || length > RECORD_MAX {
                return Err(Error::Length { length });
            }
            bytes += HEADER + length;
        }
        if bytes > BATCH_MAX {
            return Err(Error::Length { length: bytes });
        }
        self.check_room(bytes as u64, room)?;
        if self.head.doubtful || self.head.end + bytes as u64 > u64::from(self.options.segment_bytes) {
            self.rotate()?;
        }
        let mut out = Vec::with_capacity(bytes);
        let mut places = Vec::with_capacity(records.len());
        for record in records {
            let record = record.as_ref();
            let offset = u32::try_from(self.head.end + out.len() as u64).unwrap_or(u32::MAX);
            let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
            places.push(Place { segment: self.head.number, offset, length });
            record::put(&mut out, self.head.salt, record);
        }
        match self.head.file.write_all_at(&out, self.head.end) {
            Ok(()) => {
                self.head.end += out.len() as u64;
                Ok(places)
            }
            Err(cause) => {
                // What was written of it must not come back at the next start.
                self.head.doubtful |= self.head.file.set_len(self.head.end).is_err();
                Err(self.write_error(cause))
            }
        }
    }

    /// Waits until everything that was appended is on the disk. After an error a new segment is begun, since nothing can be
    /// said about the old one.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.head.file.sync_data().map_err(|cause| {
            self.head.doubtful = true;
            self.write_error(cause)
        })
    }

    /// Bytes that the log takes on disk.
    pub fn bytes(&self) -> u64 {
        self.sizes.values().sum::<u64>() + self.head.end
    }

    /// The oldest segment and its size in bytes; none if there is only the one that grows.
    pub fn oldest(&self) -> Option<(u32, u64)> {
        self.sizes.iter().next().map(|(number, size)| (*number, *size))
    }

    /// The segment that grows.
    pub fn head(&self) -> u32 {
        self.head.number
    }

    /// Removes a segment and everything in it; the one that grows stays.
    pub fn remove(&mut self, number: u32) -> Result<(), Error> {
        if self.sizes.remove(&number).is_some() {
            self.segments.lock().remove(&number);
            let path = path_of(&self.directory, number);
            fs::remove_file(&path).map_err(|cause| io_error(&path, cause))?;
        }
        Ok(())
    }

    /// Something that reads the records of this log.
    pub fn reader(&self) -> Reader {
        self.segments.clone()
    }

    fn check_room(&self, bytes: u64, room: Room) -> Result<(), Error> {
        let kept_back = if room == Room::Ordinary { u64::from(self.options.segment_bytes) } else { 0 };
        let bytes_max = self.options.bytes_max;
        if self.bytes() + bytes > bytes_max.saturating_sub(kept_back) { Err(Error::Full { bytes_max }) } else { Ok(()) }
    }

    /// Begins a new segment, unless this one has nothing in it.
    fn rotate(&mut self) -> Result<(), Error> {
        if self.head.end == PREAMBLE as u64 && !self.head.doubtful {
            return Ok(());
        }
        if !self.head.doubtful {
            self.sync()?;
        }
        let head = match Head::create(&self.directory, self.head.number + 1, &self.segments) {
            Ok(head) => head,
            Err(Error::Io { cause, .. }) => return Err(self.write_error(cause)),
            Err(error) => return Err(error),
        };
        let old = std::mem::replace(&mut self.head, head);
        self.sizes.insert(old.number, old.end);
        Ok(())
    }

    fn write_error(&self, cause: io::Error) -> Error {
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Error::Full { bytes_max: self.options.bytes_max }
            }
            _ => io_error(&path_of(&self.directory, self.head.number), cause),
        }
    }
}

impl Head {
    fn create(directory: &Path, number: u32, segments: &Reader) -> Result<Self, Error> {
        let path = path_of(directory, number);
        let failed = |cause| io_error(&path, cause);
        let mut file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path).map_err(failed)?;
        let salt = random_salt().map_err(failed)?;
        file.write_all(&record::preamble(salt)).and_then(|()| file.sync_data()).map_err(failed)?;
        // The name of the file must survive as well.
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        let file = Arc::new(file);
        segments.lock().insert(number, (Arc::clone(&file), salt));
        Ok(Self { number, file, salt, end: PREAMBLE as u64, doubtful: false })
    }
}

impl Reader {
    /// The record at a place.
    pub fn read(&self, place: Place) -> Result<Vec<u8>, Error> {
        let damaged = Error::Damaged { place };
        let found = self.lock().get(&place.segment).map(|(file, salt)| (Arc::clone(file), *salt));
        let Some((file, salt)) = found else { return Err(damaged) };
        let mut bytes = vec![0; HEADER + place.length as usize];
        if file.read_exact_at(&mut bytes, u64::from(place.offset)).is_err() {
            return Err(damaged);
        }
        match record::next(&bytes, salt) {
            Found::Record(content) if content.len() == place.length as usize => {
                bytes.drain(..HEADER);
                Ok(bytes)
            }
            Found::Record(_) | Found::Broken | Found::Partial { .. } => Err(damaged),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that nobody outside can know: of the system, or of the time and addresses where there is no such device.
fn random_salt() -> io::Result<Salt> {
    let mut bytes = [0; 8];
    match File::open("/dev/urandom").and_then(|mut device| io::Read::read_exact(&mut device, &mut bytes)) {
        Ok(()) => Ok(Salt(u64::from_le_bytes(bytes))),
        Err(_) => {
            use std::hash::{BuildHasher, RandomState};
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Ok(Salt(RandomState::new().hash_one(since)))
        }
    }
}

fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join("lock");
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|cause| io_error(&path, cause))?;
    let mut patience = LOCK_TRIES;
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if patience > 0 => {
                patience -= 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Error::Locked { path: directory.display().to_string() });
            }
            Err(error) => return Err(io_error(&path, error.into())),
        }
    }
}

/// The segments that are there, the oldest first.
fn numbers(directory: &Path) -> Result<Vec<u32>, Error> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory).map_err(|cause| io_error(directory, cause))? {
        let name = entry.map_err(|cause| io_error(directory, cause))?.file_name();
        let number: Option<u32> =
            name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|name| name.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn path_of(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("{number:010}.log"))
}

fn io_error(path: &Path, cause: io::Error) -> Error {
    Error::Io { path: path.display().to_string(), cause }
}

#[cfg(test)]
mod tests;
