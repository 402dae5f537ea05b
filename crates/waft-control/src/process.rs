//! What the system knows of this process, read from `/proc` when it is asked for.

use std::fs;

/// What the system knows of this process. What cannot be read is absent, as on systems without `/proc`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Process {
    /// Memory that is really there, in bytes.
    pub(crate) resident_bytes: Option<u64>,
    /// Open descriptors.
    pub(crate) open_fds: Option<u64>,
    /// Descriptors that may be open at once.
    pub(crate) max_fds: Option<u64>,
}

impl Process {
    pub(crate) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self { resident_bytes: resident_bytes(&status), open_fds: open_fds(), max_fds: max_fds(&limits) }
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Since Linux 6.2 the directory's size is the number of descriptors; before, they have to be counted.
fn open_fds() -> Option<u64> {
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return Some(size);
    }
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    // The directory that is being read is one of them.
    Some(count.saturating_sub(1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_descriptors_are_found_in_what_the_system_says() {
        assert_eq!(resident_bytes("VmHWM:\t 9 kB\nVmRSS:\t    5320 kB\nx: 1\n"), Some(5320 * 1024));
        assert_eq!(max_fds("Limit  Soft  Hard\nMax open files            1024    524288     files\n"), Some(1024));
        assert_eq!(max_fds("Max open files            unlimited    unlimited     files\n"), None);
        for text in ["", "VmRSS:", "VmRSS: x kB", "VmRSS: 99999999999999999999 kB", "VmRSS: 18446744073709551615 kB"] {
            assert_eq!(resident_bytes(text), None, "{text}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_further_descriptor_is_counted() {
        let files: Vec<_> = (0..40).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        let process = Process::read();
        assert!(process.open_fds.unwrap() >= files.len() as u64, "{process:?}");
        assert!(process.resident_bytes.unwrap() > 100_000, "{process:?}");
    }
}
