//! From the path of a request to an open file.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use waft_route::Directory;

/// A path below a directory, judged.
#[derive(Debug)]
pub(super) struct Search {
    /// Relative, without any part that leads elsewhere. Empty for the directory itself.
    path: PathBuf,
    /// The request named a directory: its path ended in a slash.
    names_directory: bool,
    /// Where the request would have to go to name the same as a directory.
    location: String,
}

impl Search {
    /// Reads the part of a path behind that of its route, and the path as it was sent. None for what no file can be
    /// called, and for names that are not to be served.
    pub(super) fn new(below: &str, path: &str, directory: &Directory) -> Option<Self> {
        let mut out = PathBuf::new();
        for part in below.split('/') {
            let part = percent_encoding::percent_decode_str(part).decode_utf8().ok()?;
            match part.as_ref() {
                "" | "." => {}
                ".." => return None,
                part if part.contains(['/', '\\', '\0']) => return None,
                part if part.starts_with('.') && !directory.dotfiles => return None,
                part => out.push(part),
            }
        }
        // Two slashes at the beginning would lead to another host.
        let location = format!("/{}/", path.trim_start_matches('/'));
        Some(Self { path: out, names_directory: below.is_empty() || below.ends_with('/'), location })
    }
}

/// What there is.
pub(super) enum Found {
    /// A directory whose name lacks its slash: where that is right.
    Directory(String),
    File(FoundFile),
}

/// An open file.
pub(super) struct FoundFile {
    pub(super) file: File,
    pub(super) size: u64,
    pub(super) modified: Option<SystemTime>,
    pub(super) etag: String,
    pub(super) kind: String,
    /// The file is a compressed copy of what was asked for.
    pub(super) encoding: Option<&'static str>,
    /// What is sent depends on the encodings that the client takes.
    pub(super) varies: bool,
}

impl FoundFile {
    /// When it was changed, for a header.
    pub(super) fn date(&self) -> Option<String> {
        self.modified.map(httpdate::fmt_http_date)
    }
}

/// Copies that may lie beside a file: the extension and the encoding, the best first.
const COPIES: [(&str, &str); 3] = [("br", "br"), ("zst", "zstd"), ("gz", "gzip")];

/// Finds what a search means. For worker threads: it asks the file system.
pub(super) fn find(directory: &Directory, search: &Search, encodings: &[Vec<u8>]) -> io::Result<Found> {
    let root = openat(CWD, &directory.path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut path = search.path.clone();
    let mut file = open(&root, directory, &path)?;
    let mut metadata = file.metadata()?;
    if metadata.is_dir() {
        if directory.index.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !search.names_directory {
            return Ok(Found::Directory(search.location.clone()));
        }
        path.push(&directory.index);
        file = open(&root, directory, &path)?;
        metadata = file.metadata()?;
    } else if search.names_directory {
        return Err(io::ErrorKind::NotFound.into());
    }
    if !metadata.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let kind = kind_of(&path, directory);
    let (mut encoding, mut varies) = (None, false);
    for (extension, name) in COPIES {
        let mut copy = path.clone().into_os_string();
        copy.push(".");
        copy.push(extension);
        let Ok(other) = open(&root, directory, Path::new(&copy)) else { continue };
        let Ok(about) = other.metadata() else { continue };
        // A copy that is older than what it is made from is none any more.
        let is_older = about.modified().ok() < metadata.modified().ok();
        if !about.is_file() || is_older {
            continue;
        }
        varies = true;
        if encoding.is_none() && accepts(encodings, name) {
            encoding = Some((name, other, about));
        }
    }
    let encoding = encoding.map(|(name, other, about)| {
        file = other;
        metadata = about;
        name
    });
    let modified = metadata.modified().ok();
    let nanos = modified
        .and_then(|modified| modified.duration_since(SystemTime::UNIX_EPOCH).ok())
        .map_or(0, |since| since.as_nanos());
    let etag = match encoding {
        None => format!("\"{nanos:x}-{:x}\"", metadata.len()),
        Some(encoding) => format!("\"{nanos:x}-{:x}-{encoding}\"", metadata.len()),
    };
    Ok(Found::File(FoundFile { file, size: metadata.len(), modified, etag, kind, encoding, varies }))
}

/// Opens a path below a directory. Links may lead out of it only where that is allowed; the kernel sees to it while it
/// follows the path, so that nothing can be changed in between.
fn open(root: &OwnedFd, directory: &Directory, path: &Path) -> io::Result<File> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // A pipe that nobody writes to must not be waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    if directory.links {
        return Ok(File::from(openat(root, path, flags, Mode::empty())?));
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(file) => Ok(File::from(file)),
        // An old kernel: the path is followed without links at all.
        Err(rustix::io::Errno::NOSYS) => open_without_links(root, path, flags),
        Err(error) => Err(error.into()),
    }
}

fn open_without_links(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<File> {
    let mut at = openat(root, ".", OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        let kind = if parts.peek().is_some() { OFlags::DIRECTORY } else { OFlags::empty() };
        at = openat(&at, part.as_os_str(), flags | kind | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(File::from(at))
}

/// The content type of a file, by its extension.
fn kind_of(path: &Path, directory: &Directory) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((_, extension)) = name.rsplit_once('.') else { return directory.default_type.clone() };
    let own = directory.types.iter().find(|(known, _)| {
        let is_end = name.len() > known.len() && name.as_bytes().get(name.len() - known.len() - 1) == Some(&b'.');
        is_end && name.ends_with(known.as_str())
    });
    let known = || mime_guess::from_ext(extension).first_raw().map(ToOwned::to_owned);
    own.map(|(_, kind)| kind.clone()).or_else(known).unwrap_or_else(|| directory.default_type.clone())
}

/// Whether a client takes an encoding, as its Accept-Encoding says.
fn accepts(encodings: &[Vec<u8>], name: &str) -> bool {
    encodings.iter().flat_map(|line| line.split(|byte| *byte == b',')).any(|item| {
        let item = String::from_utf8_lossy(item);
        let mut parts = item.split(';').map(str::trim);
        let is_meant = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case(name));
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        is_meant && weight.is_none_or(|weight| weight.trim().parse::<f32>().is_ok_and(|weight| weight > 0.0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_never_lead_out() {
        let hidden = Directory::new("/srv");
        let check = |below: &str, expected: Option<&str>| {
            let search = Search::new(below, below, &hidden);
            assert_eq!(search.map(|search| search.path), expected.map(PathBuf::from), "{below}");
        };
        check("/a/b.txt", Some("a/b.txt"));
        check("a//./b%20c", Some("a/b c"));
        check("", Some(""));
        for path in ["/..", "/a/../b", "/%2e%2e/b", "/%2E./b", "/a%2fb", "/a%00", "/a%5cb", "/.git/x", "/%ff"] {
            check(path, None);
        }
        let open = Directory { dotfiles: true, ..Directory::new("/srv") };
        assert!(Search::new("/.well-known/x", "/.well-known/x", &open).is_some());
    }

    #[test]
    fn a_directory_is_never_looked_for_on_another_host() {
        let directory = Directory::new("/srv");
        let location = Search::new("//evil.test", "//evil.test", &directory).map(|search| search.location);
        assert_eq!(location.as_deref(), Some("/evil.test/"));
    }

    #[test]
    fn types_go_by_the_longest_extension_that_is_configured() {
        let types = vec![("wf".to_owned(), "application/x-waft".to_owned()), ("tar.gz".to_owned(), "x/tgz".to_owned())];
        let directory = Directory { types, default_type: "x/default".to_owned(), ..Directory::new("/srv") };
        let check = |path: &str, expected: &str| assert_eq!(kind_of(Path::new(path), &directory), expected, "{path}");
        check("a.html", "text/html");
        check("a.wf", "application/x-waft");
        check("a.tar.gz", "x/tgz");
        check("wf", "x/default");
        check("a.unknown-thing", "x/default");
    }

    #[test]
    fn encodings_are_taken_as_the_client_weighs_them() {
        let check = |line: &str, name: &str, expected: bool| {
            assert_eq!(accepts(&[line.as_bytes().to_vec()], name), expected, "{line} for {name}");
        };
        check("gzip, br", "br", true);
        check("gzip;q=0, br", "gzip", false);
        check("GZIP;q=0.5", "gzip", true);
        check("deflate", "gzip", false);
    }
}
