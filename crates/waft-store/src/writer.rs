//! The thread that appends for others: whatever comes while one commit is under way goes to disk with the next.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::error;

use crate::{Error, Log, Place, Room};

/// Bytes that are put together for one write, so that memory stays small when much waits.
const WRITE_MAX: usize = 4 << 20;

/// How long records that nobody waits for may be on their way to the disk. They survive the end of the process at once.
const LAZY_SYNC: Duration = Duration::from_secs(1);

/// How long after a commit the next one may wait for those who were answered: half of what a sync takes, within these.
const PATIENCE: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(2));

/// A record on its way to the log.
#[derive(Debug)]
pub struct Entry {
    /// Its content; an empty one is not written and only tells when everything before it is done.
    pub record: Vec<u8>,
    /// Whether it must be on the disk before it is done.
    pub durable: bool,
    /// The room it may take.
    pub room: Room,
    /// What its owner knows it by.
    pub token: u64,
}

/// What became of an entry, in the order of their coming.
#[derive(Debug)]
pub struct Done {
    /// Its token.
    pub token: u64,
    /// Where it lies; none for an empty one.
    pub result: Result<Option<Place>, Failure>,
}

/// Why an entry is not in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// No room.
    #[error("the disk, or what the queue may take of it, is full")]
    Full,
    /// Another failure, told in the log of the program.
    #[error("the disk cannot be written")]
    Io,
}

/// Appends what it is given, on a thread of its own. Dropping it writes what is left and ends the thread.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<Entry>,
    /// Those among them that somebody waits for.
    durable: usize,
    queued_bytes: usize,
    removals: Vec<u32>,
    done: Vec<Done>,
    usage: Usage,
    stop: bool,
}

/// What the log takes on disk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Bytes in all.
    pub bytes: u64,
    /// The oldest finished segment and its bytes.
    pub oldest: Option<(u32, u64)>,
    /// Syncs so far.
    pub syncs: u64,
}

impl Writer {
    /// Starts the thread. It calls `wake` whenever entries are done.
    pub fn start(log: Log, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.lock().usage = Usage { bytes: log.bytes(), oldest: log.oldest(), syncs: 0 };
        let theirs = Arc::clone(&shared);
        let thread = Thread { log, shared: theirs, dirty: false, syncs: 0, sync_time: Duration::ZERO, answered: 0 };
        let body = move || thread.run(&wake);
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(body)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Hands entries over, leaving `entries` empty.
    pub fn push(&self, entries: &mut Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        state.queued_bytes += entries.iter().map(|entry| entry.record.len()).sum::<usize>();
        state.durable += entries.iter().filter(|entry| entry.durable).count();
        state.entries.append(entries);
        drop(state);
        self.shared.work.notify_one();
    }

    /// Removes a segment when everything handed over before is done and on the disk.
    pub fn remove(&self, segment: u32) {
        self.shared.lock().removals.push(segment);
        self.shared.work.notify_one();
    }

    /// Puts what is done since the last call behind `into`.
    pub fn take_done(&self, into: &mut Vec<Done>) {
        into.append(&mut self.shared.lock().done);
    }

    /// Bytes that wait to be written. The owner bounds them: it stops taking new work when they are many.
    pub fn queued_bytes(&self) -> usize {
        self.shared.lock().queued_bytes
    }

    /// What the log takes on disk.
    pub fn usage(&self) -> Usage {
        self.shared.lock().usage
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("The thread of the store has panicked.");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Thread {
    log: Log,
    shared: Arc<Shared>,
    /// Something was appended since the last sync.
    dirty: bool,
    syncs: u64,
    /// How long the last sync took.
    sync_time: Duration,
    /// How many were answered by the last commit.
    answered: usize,
}

impl Thread {
    fn run(mut self, wake: &dyn Fn()) {
        loop {
            let (entries, removals, stop) = self.wait();
            if !entries.is_empty() {
                self.answered = entries.iter().filter(|entry| entry.durable).count();
                let done = self.commit(entries);
                self.report(done);
                wake();
            }
            if !removals.is_empty() {
                self.remove(&removals);
                self.report(Vec::new());
                wake();
            }
            if stop {
                self.sync();
                return;
            }
        }
    }

    /// Everything that came meanwhile. Records that nobody waits for are synced when nothing comes for a while.
    fn wait(&mut self) -> (Vec<Entry>, Vec<u32>, bool) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        // Whoever was answered just now, and whoever came meanwhile.
        let expected = self.answered + state.durable;
        let deadline = Instant::now() + (self.sync_time / 2).clamp(PATIENCE.0, PATIENCE.1);
        while state.entries.is_empty() && state.removals.is_empty() && !state.stop {
            if self.dirty {
                let (next, waited) = shared.work.wait_timeout(state, LAZY_SYNC).unwrap_or_else(PoisonError::into_inner);
                state = next;
                if waited.timed_out() {
                    drop(state);
                    self.sync();
                    state = shared.lock();
                }
            } else {
                state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        state = gather(&shared, state, expected, deadline);
        state.queued_bytes = 0;
        state.durable = 0;
        // Removals wait for the records that make up for what is removed, which may have come just now.
        let stop = state.stop;
        (std::mem::take(&mut state.entries), std::mem::take(&mut state.removals), stop)
    }

    fn commit(&mut self, entries: Vec<Entry>) -> Vec<Done> {
        let mut done = Vec::with_capacity(entries.len());
        let mut rest = entries.as_slice();
        while let Some(first) = rest.first() {
            let mut bytes = 0;
            let fits = |entry: &&Entry| {
                bytes += entry.record.len();
                entry.room == first.room && (bytes <= WRITE_MAX || bytes == entry.record.len())
            };
            let count = rest.iter().take_while(fits).count();
            let (batch, later) = rest.split_at(count);
            self.append(batch, first.room, &mut done);
            rest = later;
        }
        if entries.iter().any(|entry| entry.durable) && !self.sync() {
            for (done, entry) in done.iter_mut().zip(&entries) {
                if entry.durable {
                    done.result = Err(Failure::Io);
                }
            }
        }
        done
    }

    fn append(&mut self, batch: &[Entry], room: Room, done: &mut Vec<Done>) {
        let records: Vec<&[u8]> =
            batch.iter().map(|entry| entry.record.as_slice()).filter(|record| !record.is_empty()).collect();
        let places = if records.is_empty() { Ok(Vec::new()) } else { self.log.append(&records, room) };
        match places {
            Ok(places) => {
                self.dirty |= !places.is_empty();
                let mut places = places.into_iter();
                done.extend(batch.iter().map(|entry| {
                    let place = if entry.record.is_empty() { None } else { places.next() };
                    Done { token: entry.token, result: Ok(place) }
                }));
            }
            Err(error) => {
                let failure = if matches!(error, Error::Full { .. }) { Failure::Full } else { Failure::Io };
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                error!(%error, cause, records = batch.len(), "Records could not be stored.");
                done.extend(batch.iter().map(|entry| Done { token: entry.token, result: Err(failure) }));
            }
        }
    }

    /// Whether everything is on the disk now.
    fn sync(&mut self) -> bool {
        if !self.dirty {
            return true;
        }
        self.syncs += 1;
        self.dirty = false;
        let began = Instant::now();
        let synced = self.log.sync();
        self.sync_time = began.elapsed();
        match synced {
            Ok(()) => true,
            Err(error) => {
                error!(%error, "The disk did not take what was written; a new segment is begun.");
                false
            }
        }
    }

    fn remove(&mut self, removals: &[u32]) {
        if !self.sync() {
            return;
        }
        for segment in removals {
            if let Err(error) = self.log.remove(*segment) {
                error!(%error, "A segment could not be removed.");
            }
        }
    }

    fn report(&self, mut done: Vec<Done>) {
        let mut state = self.shared.lock();
        state.done.append(&mut done);
        state.usage = Usage { bytes: self.log.bytes(), oldest: self.log.oldest(), syncs: self.syncs };
    }
}

/// Waits a moment for company. Whoever was answered by the last commit is likely to come again with its next record; without
/// this, the first of them would begin a sync and the others wait for its end, so that each waits for two. A lone caller
/// never waits, as there is nobody else to come, nor does one who comes after a pause.
fn gather<'a>(
    shared: &'a Shared,
    mut state: MutexGuard<'a, State>,
    expected: usize,
    deadline: Instant,
) -> MutexGuard<'a, State> {
    while (1..expected).contains(&state.durable) && !state.stop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        state = shared.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    state
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::Options;

    fn entry(token: u64, record: &[u8], durable: bool) -> Entry {
        Entry { record: record.to_vec(), durable, room: Room::Ordinary, token }
    }

    fn directory(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("waft-store-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&path).ok();
        path
    }

    #[test]
    fn entries_are_done_in_their_order_and_are_there_after_the_end() {
        let directory = directory("writer");
        let log = Log::open(&directory, Options::default(), &mut |_, _| {}).unwrap();
        let (wake, woken) = mpsc::channel();
        let writer = Writer::start(log, move || wake.send(()).unwrap()).unwrap();
        let mut entries = vec![entry(1, b"a", true), entry(2, b"", true), entry(3, b"b", false)];
        writer.push(&mut entries);
        writer.push(&mut vec![entry(4, b"c", true)]);
        let mut done = Vec::new();
        while done.len() < 4 {
            woken.recv().unwrap();
            writer.take_done(&mut done);
        }
        let tokens: Vec<u64> = done.iter().map(|done| done.token).collect();
        assert_eq!(tokens, [1, 2, 3, 4]);
        assert_eq!(done[1].result, Ok(None));
        drop(writer);
        let mut seen = Vec::new();
        Log::open(&directory, Options::default(), &mut |_, record| seen.push(record.to_vec())).unwrap();
        assert_eq!(seen, [b"a", b"b", b"c"]);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_full_log_refuses_ordinary_records_and_takes_those_for_the_reserve() {
        let directory = directory("full");
        let options = Options { segment_bytes: 1_000, bytes_max: 2_000 };
        let log = Log::open(&directory, options, &mut |_, _| {}).unwrap();
        let (wake, woken) = mpsc::channel();
        let writer = Writer::start(log, move || wake.send(()).unwrap()).unwrap();
        let reserve = Entry { room: Room::Reserve, ..entry(3, &[3; 600], true) };
        writer.push(&mut vec![entry(1, &[1; 600], true), entry(2, &[2; 600], true), reserve]);
        woken.recv().unwrap();
        let mut done = Vec::new();
        writer.take_done(&mut done);
        let failures: Vec<_> = done.iter().map(|done| done.result.err()).collect();
        assert_eq!(failures, [Some(Failure::Full), Some(Failure::Full), None]);
        drop(writer);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
