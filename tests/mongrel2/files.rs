use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use waft_testkit::{Connection, Process, Response, free_port, waft};

use crate::site::make_directory;

/// A server whose route `/s` leads to a directory.
struct Files {
    directory: PathBuf,
    port: u16,
    _server: Process,
}

impl Files {
    fn start(name: &str, target: &str) -> Self {
        let directory = make_directory(name);
        let port = free_port();
        let target = target.replace("DIRECTORY", &directory.display().to_string());
        let config = format!(
            "[server]\nlisten = [\"127.0.0.1:{port}\"]\n[control]\nlisten = []\n[[route]]\npath = \"/s\"\ntargets = [{target}]\n"
        );
        fs::write(directory.join("waft.toml"), config).unwrap();
        let server = waft().args(["--config", "waft.toml"]).directory(directory.to_str().unwrap()).start();
        server.wait_for_output("waft is ready", 1);
        Self { directory, port, _server: server }
    }

    fn get(&self, path: &str, more: &str) -> Response {
        let mut client = Connection::tcp(([127, 0, 0, 1], self.port).into());
        client.fetch(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n"))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn files_are_served_whole_in_ranges_and_only_when_they_changed() {
    let files = Files::start("native", "\"dir:DIRECTORY/files\"");
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    fs::write(files.directory.join("files/large.bin"), &large).unwrap();
    let whole = files.get("/s/large.bin", "");
    assert!(whole.body == large, "{} bytes came", whole.body.len());
    assert_eq!(whole.head.header("Content-Type"), Some("application/octet-stream"));
    assert_eq!(whole.head.header("Accept-Ranges"), Some("bytes"));
    let etag = whole.head.header("ETag").unwrap().to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    let part = files.get("/s/large.bin", "Range: bytes=1000000-2499999\r\n");
    assert_eq!(part.status(), 206);
    assert_eq!(part.head.header("Content-Range"), Some("bytes 1000000-2499999/3000000"));
    assert!(part.body == large[1_000_000..2_500_000]);
    let beyond = files.get("/s/large.bin", "Range: bytes=3000000-\r\n");
    assert_eq!((beyond.status(), beyond.head.header("Content-Range")), (416, Some("bytes */3000000")));
    assert_eq!(files.get("/s/large.bin", &format!("If-None-Match: {etag}\r\n")).status(), 304);
    assert_eq!(files.get("/s/large.bin", &format!("If-None-Match: {}\r\n", etag.trim_matches('"'))).status(), 304);
    assert_eq!(files.get("/s/large.bin", "If-Match: \"other\"\r\n").status(), 412);
    assert_eq!(files.get("/s/sub/", "").body_text(), "index of sub\n");
    let redirect = files.get("/s/sub?a=1", "");
    assert_eq!((redirect.status(), redirect.head.header("Location")), (301, Some("/s/sub/?a=1")));
}

#[test]
fn nothing_outside_of_the_directory_is_served() {
    let files = Files::start("outside", "\"dir:DIRECTORY/files\"");
    fs::write(files.directory.join("files/.hidden"), "hidden").unwrap();
    symlink(files.directory.join("secret"), files.directory.join("files/out")).unwrap();
    symlink("/etc", files.directory.join("files/etc")).unwrap();
    symlink("a.txt", files.directory.join("files/within")).unwrap();
    for path in [
        "/s/../secret",
        "/s/%2e%2e/secret",
        "/s/sub/..%2f..%2fsecret",
        "/s/.hidden",
        "/s/out",
        "/s/etc/passwd",
        "/s/etc/../../secret",
        "/s/a.txt/",
        "/s/none",
        "/s/a.txt%00",
    ] {
        assert_eq!(files.get(path, "").status(), 404, "{path}");
    }
    assert_eq!(files.get("/s/within", "").body_text(), "file a\n");
}

#[test]
fn links_and_hidden_files_are_served_where_that_is_configured() {
    let target = "{ dir = \"DIRECTORY/files\", dotfiles = true, links = true, types = { txt = \"text/x-own\" } }";
    let files = Files::start("links", target);
    fs::write(files.directory.join("files/.hidden"), "hidden").unwrap();
    symlink(files.directory.join("secret"), files.directory.join("files/out")).unwrap();
    assert_eq!(files.get("/s/.hidden", "").body_text(), "hidden");
    assert_eq!(files.get("/s/out", "").body_text(), "secret\n");
    assert_eq!(files.get("/s/a.txt", "").head.header("Content-Type"), Some("text/x-own"));
    assert_eq!(files.get("/s/../secret", "").status(), 404);
}

#[test]
fn a_compressed_copy_is_sent_to_whoever_takes_it() {
    let files = Files::start("copies", "\"dir:DIRECTORY/files\"");
    fs::write(files.directory.join("files/a.txt.gz"), "compressed").unwrap();
    let plain = files.get("/s/a.txt", "");
    assert_eq!((plain.body_text().as_str(), plain.head.header("Vary")), ("file a\n", Some("Accept-Encoding")));
    let packed = files.get("/s/a.txt", "Accept-Encoding: br, gzip\r\n");
    assert_eq!(packed.body_text(), "compressed");
    assert_eq!(packed.head.header("Content-Encoding"), Some("gzip"));
    assert_eq!(packed.head.header("Content-Type"), Some("text/plain"));
    assert_ne!(packed.head.header("ETag"), plain.head.header("ETag"));
    assert_eq!(files.get("/s/a.txt", "Accept-Encoding: gzip;q=0\r\n").body_text(), "file a\n");
}
