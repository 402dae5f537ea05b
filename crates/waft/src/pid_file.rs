//! The file that tells others the number of the process.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, test_kill_process};

/// The file of a process. It is removed with this.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    is_written: bool,
}

impl PidFile {
    /// Makes sure that no other process stands in the file.
    pub(crate) fn claim(path: &Path) -> Result<Self> {
        if let Some(pid) = living(path) {
            bail!("the process {pid} stands in {} and is running; stop it first", path.display());
        }
        Ok(Self { path: path.to_owned(), is_written: false })
    }

    /// Writes the number of this process.
    pub(crate) fn write(mut self) -> Result<Self> {
        fs::write(&self.path, std::process::id().to_string())
            .with_context(|| format!("{} cannot be written", self.path.display()))?;
        self.is_written = true;
        Ok(self)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if self.is_written {
            // Somebody may have removed it already.
            let _gone = fs::remove_file(&self.path);
        }
    }
}

/// The process that stands in a file, if it is alive and not this one.
pub(crate) fn living(path: &Path) -> Option<i32> {
    let pid: i32 = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    let is_other = u32::try_from(pid).ok() != Some(std::process::id());
    let pid = Pid::from_raw(pid).filter(|_| is_other && pid > 0)?;
    // One that may not be signalled is there as well.
    let is_alive = match test_kill_process(pid) {
        Ok(()) | Err(rustix::io::Errno::PERM) => true,
        Err(_) => false,
    };
    is_alive.then(|| pid.as_raw_nonzero().get())
}
