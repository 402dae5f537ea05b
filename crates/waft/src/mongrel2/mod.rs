//! Mongrel2's configuration, as text or as database, and the commands that Mongrel2's users know.

mod database;
pub(crate) mod m2sh;
pub(crate) mod server;

use std::path::Path;

use anyhow::{Context, Result};
use waft_mongrel2::conf::{Conf, parse};

/// Reads a configuration of Mongrel2. None if the file is something else.
pub(crate) fn read(path: &Path) -> Result<Option<Conf>> {
    let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    if bytes.starts_with(b"SQLite format 3\0") {
        return database::read(path).map(Some);
    }
    let text = String::from_utf8_lossy(&bytes);
    if !text
        .lines()
        .any(|line| line.trim_start().strip_prefix("servers").is_some_and(|rest| rest.trim_start().starts_with('=')))
    {
        return Ok(None);
    }
    parse(&text).map(Some).with_context(|| format!("{} cannot be used", path.display()))
}
