//! A pushpin.conf and a waft.toml: any text gives a plan or mistakes, and a plan survives being written down.
#![no_main]

use std::io;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use waft_config::{Sources, load, pushpin, to_toml};

fuzz_target!(|input: &str| {
    let read = |path: &Path| match path.to_str() {
        Some("pushpin.conf" | "waft.toml") => Ok(input.to_owned()),
        Some(path) if path.ends_with("routes") => Ok("* localhost:8000\n".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let _ = pushpin::import(Path::new("pushpin.conf"), &read);
    let sources = Sources { file: Some("waft.toml".into()), ..Sources::default() };
    if let Ok(plan) = load(&sources, &read) {
        let written = to_toml(&plan);
        let again = load(&sources, &|_| Ok(written.clone()));
        assert_eq!(again.as_ref().ok(), Some(&plan), "{written}\n{:?}", again.as_ref().err());
    }
});
