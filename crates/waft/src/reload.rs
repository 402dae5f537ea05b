//! Noticing that configuration files have changed.

use std::path::{Path, PathBuf};

use anyhow::Result;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Tells when one of some files may have changed.
#[derive(Debug)]
pub(crate) struct Watch {
    changes: mpsc::Receiver<()>,
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches `files`, and all files in `whole`. The directories of files are what is watched, since editors put a new
    /// file in the place of the old one.
    pub(crate) fn new(files: Vec<PathBuf>, whole: Vec<PathBuf>) -> Result<Self> {
        let (tell, changes) = mpsc::channel(1);
        if files.is_empty() && whole.is_empty() {
            // Keeps the channel open, so that waiting never ends.
            return Ok(Self { changes, _watcher: None });
        }
        let names: Vec<_> = files.iter().filter_map(|file| file.file_name().map(ToOwned::to_owned)).collect();
        // Events tell paths as the system has them.
        let whole: Vec<_> = whole.into_iter().filter_map(|directory| directory.canonicalize().ok()).collect();
        let all_of = whole.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let concerns = |path: &PathBuf| {
                path.file_name().is_some_and(|name| names.iter().any(|known| known == name))
                    || path.parent().is_some_and(|parent| all_of.iter().any(|known| known == parent))
            };
            if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(concerns)) {
                // A full channel has a change in it that was not looked at yet.
                let _told = tell.try_send(());
            }
        })?;
        let mut directories: Vec<&Path> = files.iter().map(|file| directory(file)).collect();
        directories.extend(whole.iter().map(PathBuf::as_path));
        directories.sort_unstable();
        directories.dedup();
        for directory in directories {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { changes, _watcher: Some(watcher) })
    }

    /// Waits for a change.
    pub(crate) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending().await
        }
    }

    /// Forgets changes that are known already.
    pub(crate) fn forget(&mut self) {
        while self.changes.try_recv().is_ok() {}
    }
}

fn directory(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
