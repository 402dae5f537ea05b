//! The guide for users of Zurl: its programs run as they stand, against the daemon that its configuration starts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use waft_testkit::{Process, Reply, Target, eventually, program, waft_binary, waft_only, workspace_root};

use crate::page::blocks;
use crate::read;

/// A directory of its own, gone with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("waft-zurl-page-{}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn every_program_of_the_guide_for_users_of_zurl_writes_what_it_says() {
    waft_only!("it is about waft");
    let page = blocks(&read("docs/zurl.md"));
    let target = Target::start(|request| match request.path() {
        "/hello" => Reply::text("hello"),
        _ => Reply::status("204 No Content"),
    });
    let directory = Directory::new();
    let typed = |text: &str| {
        let here = directory.0.display().to_string();
        text.replace("/tmp/zurl", &here).replace("localhost:8000", &target.address().to_string())
    };
    let conf = directory.0.join("zurl.conf");
    let written = page.iter().find(|block| block.language == "ini").unwrap();
    fs::write(&conf, typed(&written.text)).unwrap();
    let _daemon = Process::start("zurl", Command::new(waft_binary()).arg("--config").arg(&conf));
    eventually("the daemon's sockets", || {
        ["in", "in-stream", "out", "req"].iter().all(|name| directory.0.join(name).exists()).then_some(())
    });
    let python = workspace_root().join("target/test-tools/python/bin/python");
    let mut run = 0;
    for (number, block) in page.iter().enumerate().filter(|(_, block)| block.language == "python") {
        let output = program(python.to_str().unwrap()).args(["-c", &typed(&block.text)]).succeed();
        assert_eq!(output, page[number + 1].text, "{}", block.text);
        run += 1;
    }
    assert_eq!(run, 4);
    let hook = eventually("the hook", || target.requests().into_iter().find(|request| request.path() == "/hook"));
    assert_eq!((hook.head.method(), hook.body_text().as_str()), ("POST", "it happened"));
}
