use waft_testkit::python;

use crate::site::{Site, Which};

/// Runs the checks of the probe against both programs.
fn probe(name: &str, settings: &str, checks: &[&str]) {
    for which in [Which::Mongrel2, Which::Waft] {
        let site = Site::start(which, name, settings);
        let said = python("tests/mongrel2/probe.py")
            .args([which.name(), site.directory.to_str().unwrap()])
            .args([site.port.to_string(), site.base.to_string()])
            .args(checks)
            .succeed();
        let held = said.lines().filter(|line| line.starts_with("holds ")).count();
        assert!(held >= checks.len().max(2), "{said}");
    }
}

#[test]
fn handlers_and_their_clients_see_the_same_of_mongrel2_and_waft() {
    let settings = r#""upload.temp_store": "DIRECTORY/upload.XXXXXX", "upload.temp_store_mode": "0640""#;
    probe("whole", settings, &[]);
}

#[test]
fn long_bodies_come_in_pieces_and_answers_are_counted() {
    let settings = r#""upload.stream": 1, "download.flow_control": 1"#;
    probe("pieces", settings, &["uploads_in_pieces", "download_credits"]);
}
