//! Log lines in Zurl's form: `[INFO] 2026-01-02 03:04:05.678 text`, in UTC.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// Where log lines go; cloned into the subscriber.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    path: Option<PathBuf>,
    file: Arc<Mutex<Option<File>>>,
}

impl Output {
    /// Opens the file, or stands for standard output.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(append).transpose()?;
        Ok(Self { path: path.map(Path::to_path_buf), file: Arc::new(Mutex::new(file)) })
    }

    /// Opens the file again, after it was moved away.
    pub(crate) fn reopen(&self) {
        if let Some(path) = &self.path {
            match append(path) {
                Ok(file) => *self.lock() = Some(file),
                Err(error) => {
                    tracing::error!(%error, "Cannot open the log file again, so the old one is still written.")
                }
            }
        }
    }

    /// Sends everything up to a level here, for the whole program.
    pub(crate) fn install(&self, level: Level) -> bool {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(self.clone())
            .event_format(Format);
        tracing::subscriber::set_global_default(subscriber.finish()).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Option<File>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// Writes one line.
#[derive(Debug)]
pub(crate) struct Line<'a>(&'a Output);

impl io::Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0.lock().as_mut() {
            Some(file) => file.write(line),
            None => io::stdout().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.lock().as_mut() {
            Some(file) => file.flush(),
            None => io::stdout().flush(),
        }
    }
}

#[derive(Debug)]
struct Format;

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "ERR",
            Level::WARN => "WARN",
            Level::INFO => "INFO",
            _ => "DEBUG",
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        write!(writer, "[{level}] ")?;
        write_time(&mut writer, since.as_secs(), since.subsec_millis())?;
        writer.write_char(' ')?;
        context.format_fields(writer.by_ref(), event)?;
        writer.write_char('\n')
    }
}

/// Writes seconds since 1970 as a date; leap years by the Gregorian rule.
fn write_time(writer: &mut impl fmt::Write, seconds: u64, millis: u32) -> fmt::Result {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years are counted from March, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    write!(writer, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        let check = |seconds, expected: &str| {
            let mut text = String::new();
            write_time(&mut text, seconds, 7).unwrap();
            assert_eq!(text, expected);
        };
        check(0, "1970-01-01 00:00:00.007");
        check(951_782_399, "2000-02-28 23:59:59.007");
        check(951_782_400, "2000-02-29 00:00:00.007");
        check(1_709_251_199, "2024-02-29 23:59:59.007");
        check(1_767_323_045, "2026-01-02 03:04:05.007");
        check(4_107_542_400, "2100-03-01 00:00:00.007");
    }
}
