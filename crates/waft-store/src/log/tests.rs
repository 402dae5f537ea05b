use std::path::PathBuf;
use std::process::Command;

use super::*;

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("waft-store-{name}-{}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        Self(path)
    }

    fn open(&self, options: Options) -> (Log, Vec<Vec<u8>>) {
        let mut seen = Vec::new();
        let log = Log::open(&self.0, options, &mut |_, record| seen.push(record.to_vec())).unwrap();
        (log, seen)
    }

    /// The segment files that have records, the oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let files = numbers(&self.0).unwrap().into_iter().map(|number| path_of(&self.0, number));
        files.filter(|path| fs::metadata(path).unwrap().len() > PREAMBLE as u64).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn small() -> Options {
    Options { segment_bytes: 200, bytes_max: 1 << 20 }
}

#[test]
fn records_come_back_in_their_order_over_many_segments_and_starts() {
    let scratch = Scratch::new("order");
    let mut expected = Vec::new();
    for start in 0..3u8 {
        let (mut log, seen) = scratch.open(small());
        assert_eq!(seen, expected);
        for n in 0..20u8 {
            let record = vec![start, n, 0, 0, 0, 0, 0];
            let place = log.append(&[&record], Room::Ordinary).unwrap()[0];
            assert_eq!(log.reader().read(place).unwrap(), record);
            expected.push(record);
        }
        log.sync().unwrap();
    }
    assert!(scratch.files().len() > 3);
}

#[test]
fn an_end_torn_anywhere_is_cut_off_and_the_log_goes_on() {
    let scratch = Scratch::new("torn");
    let whole = HEADER + 10;
    for cut in 1..2 * whole {
        fs::remove_dir_all(&scratch.0).ok();
        let (mut log, _) = scratch.open(Options::default());
        log.append(&[[1; 10], [2; 10], [3; 10]], Room::Ordinary).unwrap();
        drop(log);
        let path = scratch.files().pop().unwrap();
        let size = fs::metadata(&path).unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(size - cut as u64).unwrap();
        let left = 3 - cut.div_ceil(whole);
        let (mut log, seen) = scratch.open(Options::default());
        assert_eq!(seen.len(), left, "{cut} bytes are missing");
        log.append(&[[4; 10]], Room::Ordinary).unwrap();
        drop(log);
        let (_, seen) = scratch.open(Options::default());
        assert_eq!(seen.last().map(Vec::as_slice), Some(&[4; 10][..]), "{cut} bytes are missing");
        assert_eq!(seen.len(), left + 1);
    }
}

#[test]
fn garbage_and_damage_cost_only_what_they_touch() {
    let scratch = Scratch::new("damage");
    let (mut log, _) = scratch.open(Options::default());
    let places = log.append(&[[1; 10], [2; 10], [3; 10]], Room::Ordinary).unwrap();
    drop(log);
    let path = scratch.files().pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[places[1].offset as usize + HEADER] ^= 0xff;
    bytes.extend([0xa5; 333]);
    fs::write(&path, bytes).unwrap();
    // A segment whose first bytes never came.
    fs::write(path_of(&scratch.0, 99), b"WAFT").unwrap();
    let (log, seen) = scratch.open(Options::default());
    assert_eq!(seen, [[1; 10], [3; 10]]);
    assert!(matches!(log.reader().read(places[1]), Err(Error::Damaged { .. })));
    assert_eq!(log.reader().read(places[2]).unwrap(), [3; 10]);
}

#[test]
fn a_segment_is_removed_with_its_records() {
    let scratch = Scratch::new("remove");
    let (mut log, _) = scratch.open(small());
    let first = log.append(&[[1; 150]], Room::Ordinary).unwrap()[0];
    log.append(&[[2; 150]], Room::Ordinary).unwrap();
    let before = log.bytes();
    assert_eq!(log.oldest(), Some((first.segment, 178)));
    log.remove(first.segment).unwrap();
    assert_eq!(log.bytes(), before - 178);
    assert!(matches!(log.reader().read(first), Err(Error::Damaged { .. })));
    drop(log);
    assert_eq!(scratch.open(small()).1, [[2; 150]]);
}

#[test]
fn the_allowed_size_is_kept_with_a_reserve() {
    let scratch = Scratch::new("size");
    let options = Options { segment_bytes: 200, bytes_max: 480 };
    let (mut log, _) = scratch.open(options);
    log.append(&[[1; 100]], Room::Ordinary).unwrap();
    log.append(&[[1; 100]], Room::Ordinary).unwrap();
    assert!(matches!(log.append(&[[1; 100]], Room::Ordinary), Err(Error::Full { bytes_max: 480 })));
    log.append(&[[1; 100]], Room::Reserve).unwrap();
    assert!(matches!(log.append(&[[1; 100]], Room::Reserve), Err(Error::Full { .. })));
    let oldest = log.oldest().unwrap().0;
    log.remove(oldest).unwrap();
    assert!(log.bytes() <= 300);
}

#[test]
fn a_full_disk_leaves_nothing_of_the_batch() {
    let scratch = Scratch::new("disk");
    let (mut log, _) = scratch.open(Options::default());
    log.append(&[[1; 10]], Room::Ordinary).unwrap();
    // The system refuses the write, as it does when a disk is full or a file may not grow.
    let file = File::open(path_of(&scratch.0, log.head())).unwrap();
    let writable = std::mem::replace(&mut log.head.file, Arc::new(file));
    assert!(log.append(&[[2; 10]], Room::Ordinary).is_err());
    drop(writable);
    log.append(&[[3; 10]], Room::Ordinary).unwrap();
    drop(log);
    assert_eq!(scratch.open(Options::default()).1, [[1; 10], [3; 10]]);
}

#[test]
fn two_processes_cannot_have_the_log() {
    let scratch = Scratch::new("lock");
    let (log, _) = scratch.open(Options::default());
    assert!(matches!(Log::open(&scratch.0, Options::default(), &mut |_, _| {}), Err(Error::Locked { .. })));
    drop(log);
    scratch.open(Options::default());
}

#[test]
fn records_without_content_or_too_long_are_refused() {
    let scratch = Scratch::new("length");
    let (mut log, _) = scratch.open(Options::default());
    assert!(matches!(log.append(&[b""], Room::Ordinary), Err(Error::Length { length: 0 })));
    assert!(matches!(log.append(&[vec![0; RECORD_MAX + 1]], Room::Ordinary), Err(Error::Length { .. })));
}

/// Appends until it is killed, printing each number once it is synced. Not a test of its own: the one below runs it.
#[test]
fn writes_until_killed() {
    let Some(directory) = std::env::var_os("WAFT_STORE_CRASH_DIR") else { return };
    let mut next = 0u32;
    let mut log =
        Log::open(Path::new(&directory), Options { segment_bytes: 50_000, ..Options::default() }, &mut |_, record| {
            next = next.max(u32::from_le_bytes(record[..4].try_into().unwrap()) + 1);
        })
        .unwrap();
    for number in next.. {
        let mut record = number.to_le_bytes().to_vec();
        record.resize(4 + number as usize * 37 % 3_000, 7);
        log.append(&[record], Room::Ordinary).unwrap();
        log.sync().unwrap();
        println!("synced {number}");
    }
}

#[test]
fn nothing_synced_is_lost_when_the_process_is_killed() {
    use std::io::{BufRead, BufReader};
    let scratch = Scratch::new("kill");
    let mut last = 0;
    for round in 0..8u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::tests::writes_until_killed", "--nocapture"])
            .env("WAFT_STORE_CRASH_DIR", &scratch.0)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // The line may stand behind the name of the test.
        let synced = lines.filter_map(|line| line.split_once("synced ")?.1.parse::<u32>().ok());
        let mut seen = 0;
        for number in synced {
            last = number;
            seen += 1;
            if seen == 20 + round * 7 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let (_, records) = scratch.open(Options::default());
        let numbers: Vec<u32> =
            records.iter().map(|record| u32::from_le_bytes(record[..4].try_into().unwrap())).collect();
        let expected: Vec<u32> = (0..numbers.len() as u32).collect();
        assert_eq!(numbers, expected, "a hole or a wrong order");
        assert!(numbers.len() as u32 > last, "number {last} was synced and is lost");
    }
}
