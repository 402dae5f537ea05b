//! Pushpin's `pushpin.conf`, routes file and command line.
//!
//! Every key of Pushpin has a meaning here or is noted in the plan with the reason why it has none.

mod args;
mod conf;
mod ini;

use std::path::{Path, PathBuf};

pub use args::{Args, ArgsError, USAGE, args};

use crate::mistake::Mistakes;
use crate::native::ReadFile;
use crate::plan::Plan;
use crate::reference::to_toml;

/// Where Pushpin looks for its configuration when it is given none, in this order.
pub const SEARCHED: [&str; 4] =
    ["./config/pushpin.conf", "./pushpin.conf", "./examples/config/pushpin.conf", "/etc/pushpin/pushpin.conf"];

/// Reads what `pushpin` with these arguments would run with.
///
/// # Errors
/// A file that cannot be read, or a value that cannot be understood.
pub fn load(args: &Args, read: ReadFile<'_>) -> Result<Plan, Mistakes> {
    let (path, text) = find(args, read)?;
    conf::plan(&path, &text, args, read)
}

/// `pushpin.conf` at `path`, with what it includes and its routes, as the text of a `waft.toml` that
/// means the same. What has no meaning here stands in comments at its head.
///
/// # Errors
/// As [`load`].
pub fn import(path: &Path, read: ReadFile<'_>) -> Result<String, Mistakes> {
    let args = Args { config: Some(path.to_owned()), merge_output: true, ..Args::default() };
    let mut plan = load(&args, read)?;
    // The text stands alone: it holds the routes themselves.
    plan.routes_file = None;
    let notes: String = plan.notes.iter().map(|note| format!("# {}\n", note.replace(['\r', '\n'], " "))).collect();
    let gap = if notes.is_empty() { "" } else { "\n" };
    Ok(format!("{notes}{gap}{}", to_toml(&plan)))
}

fn find(args: &Args, read: ReadFile<'_>) -> Result<(PathBuf, String), Mistakes> {
    if let Some(path) = &args.config {
        let refused = |error| Mistakes::one(path.display().to_string(), format!("cannot be read: {error}"));
        return read(path).map(|text| (path.clone(), text)).map_err(refused);
    }
    let found = SEARCHED.iter().find_map(|path| Some((PathBuf::from(path), read(Path::new(path)).ok()?)));
    found.ok_or_else(|| {
        Mistakes::one("pushpin.conf", format!("no configuration file found. Tried: {}", SEARCHED.join(" ")))
    })
}

#[cfg(test)]
mod tests;
