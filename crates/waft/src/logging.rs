//! The log: to standard error, or to a file that is opened again on SIGHUP.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use waft_config::{Level, LogFormat, Logging};

/// Where the log goes.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    file: Option<(PathBuf, Arc<Mutex<File>>)>,
}

impl Log {
    /// Sets the log up for the process.
    pub(crate) fn start(logging: &Logging) -> Result<Self> {
        let file = match &logging.file {
            Some(path) => {
                let file = open(path).with_context(|| format!("the log file {} cannot be written", path.display()))?;
                Some((path.clone(), Arc::new(Mutex::new(file))))
            }
            None => None,
        };
        let log = Self { file };
        let level = match logging.level {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        };
        let terminal = log.file.is_none() && io::stderr().is_terminal();
        let builder = tracing_subscriber::fmt().with_max_level(level).with_ansi(terminal).with_writer(log.clone());
        match logging.format {
            LogFormat::Text => builder.init(),
            LogFormat::Json => builder.json().flatten_event(true).init(),
        }
        Ok(log)
    }

    /// Opens the log file again, after it was moved away.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        if let Some((path, file)) = &self.file {
            *file.lock().unwrap_or_else(PoisonError::into_inner) = open(path)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Writes one line of the log.
#[derive(Debug)]
pub(crate) enum Line {
    Error(io::Stderr),
    File(Arc<Mutex<File>>),
}

impl Write for Line {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Error(stderr) => stderr.write(data),
            Self::File(file) => file.lock().unwrap_or_else(PoisonError::into_inner).write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        match &self.file {
            Some((_, file)) => Line::File(Arc::clone(file)),
            None => Line::Error(io::stderr()),
        }
    }
}
