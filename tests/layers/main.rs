//! The borders between the crates: who may depend on whom, who may do IO, who may be unsafe, who may read a clock.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use waft_testkit::workspace_root;

/// The crates from bottom to top. A crate may use what stands in an earlier row, and what stands before it in its own.
const ROWS: &[(&str, &[&str])] = &[
    ("base", &["waft-base"]),
    (
        "wire",
        &["waft-http1", "waft-grip", "waft-websocket", "waft-zhttp", "waft-mongrel2", "waft-bayeux", "waft-primus"],
    ),
    ("core", &["waft-route", "waft-hub", "waft-realm"]),
    ("io", &["waft-net", "waft-zmq", "waft-store"]),
    ("service", &["waft-http2", "waft-outbound", "waft-gateway", "waft-webhooks", "waft-control", "waft-doors"]),
    ("app", &["waft-config", "waft"]),
];

/// Crates beside the rows: they may use nothing of the product, and nothing of the product may use them.
const TESTS: &[&str] = &["waft-testkit", "waft-tests"];

/// Rows whose crates are without IO.
const PURE: &[&str] = &["base", "wire", "core"];

/// Packages that do IO.
const IO: &[&str] = &["tokio", "mio", "rustix", "socket2", "hyper"];

/// The only crate with unsafe code.
const UNSAFE: &str = "waft-net";

/// A way to read a clock, as it stands in code.
const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now", ".elapsed("];

/// Row and place in it.
fn place(name: &str) -> Option<(usize, usize)> {
    ROWS.iter().enumerate().find_map(|(row, (_, crates))| Some((row, crates.iter().position(|one| *one == name)?)))
}

fn is_pure(name: &str) -> bool {
    place(name).is_some_and(|(row, _)| PURE.contains(&ROWS[row].0))
}

/// Whether `user` may depend on `used`.
fn may_use(user: &str, used: &str) -> bool {
    match (place(user), place(used)) {
        (Some(user), Some(used)) => used < user,
        _ => TESTS.contains(&user) && TESTS.contains(&used),
    }
}

/// What cargo knows about the workspace and everything it depends on.
fn metadata() -> Value {
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host];
    let output = Command::new(cargo).args(arguments).current_dir(workspace_root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The packages by id.
fn names(metadata: &Value) -> BTreeMap<&str, &str> {
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages.map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap())).collect()
}

/// The direct dependencies of each package, by id; what only tests or build scripts use is left out.
fn edges(metadata: &Value) -> BTreeMap<&str, Vec<&str>> {
    let is_normal =
        |dependency: &&Value| dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
    let of = |node: &'_ Value| -> Vec<_> {
        let used = node["deps"].as_array().unwrap().iter().filter(is_normal);
        used.map(|dependency| dependency["pkg"].as_str().unwrap().to_owned()).collect()
    };
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let ids = names(metadata);
    nodes
        .iter()
        .map(|node| {
            let used = of(node);
            let used = used.iter().filter_map(|id| ids.get_key_value(id.as_str()).map(|(id, _)| *id)).collect();
            (node["id"].as_str().unwrap(), used)
        })
        .collect()
}

fn members(metadata: &Value) -> Vec<&str> {
    metadata["workspace_members"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect()
}

#[test]
fn every_crate_has_its_place() {
    let metadata = metadata();
    let names = names(&metadata);
    for member in members(&metadata) {
        let name = names[member];
        assert!(place(name).is_some() || TESTS.contains(&name), "{name} is new: give it a place in ROWS");
    }
}

#[test]
fn dependencies_point_downwards() {
    let metadata = metadata();
    let (names, edges) = (names(&metadata), edges(&metadata));
    let members: BTreeSet<_> = members(&metadata).into_iter().collect();
    for member in &members {
        for used in edges[member].iter().filter(|used| members.contains(*used)) {
            let (user, used) = (names[member], names[used]);
            assert!(may_use(user, used), "{user} must not depend on {used}");
        }
    }
}

#[test]
fn an_upward_edge_is_refused() {
    for (user, used, expected) in [
        ("waft-gateway", "waft-hub", true),
        ("waft-control", "waft-gateway", true),
        ("waft", "waft-config", true),
        ("waft-gateway", "waft-control", false),
        ("waft-hub", "waft-net", false),
        ("waft-http1", "waft-hub", false),
        ("waft-net", "waft-gateway", false),
        ("waft", "waft-testkit", false),
        ("waft-testkit", "waft-grip", false),
        ("waft-tests", "waft-testkit", true),
        ("waft-hub", "waft-hub", false),
    ] {
        assert_eq!(may_use(user, used), expected, "{user} -> {used}");
    }
}

#[test]
fn crates_without_io_reach_none_through_others_either() {
    let metadata = metadata();
    let (names, edges) = (names(&metadata), edges(&metadata));
    for member in members(&metadata).into_iter().filter(|member| is_pure(names[member])) {
        let mut seen = BTreeSet::new();
        let mut rest = vec![(member, names[member].to_owned())];
        while let Some((id, path)) = rest.pop() {
            assert!(!IO.contains(&names[id]), "{path}: this crate must do no IO");
            if seen.insert(id) {
                rest.extend(edges[id].iter().map(|used| (*used, format!("{path} -> {}", names[used]))));
            }
        }
    }
}

/// The sources of the product and its tests: the crate or directory they belong to, whether they are part of what is
/// shipped, and their text without comments, strings and unit tests.
fn sources() -> Vec<(String, bool, String, String)> {
    let root = workspace_root();
    let mut all = Vec::new();
    for directory in ["crates", "tests"] {
        for path in source::files(&root.join(directory)) {
            let shown = path.strip_prefix(&root).unwrap().display().to_string();
            let owner = shown.split('/').nth(usize::from(directory == "crates")).unwrap().to_owned();
            let file = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let shipped = shown.contains("/src/") && file != "tests" && !shown.contains("/tests/");
            let text = std::fs::read_to_string(Path::new(&path)).unwrap();
            all.push((owner, shipped, shown, text));
        }
    }
    assert!(all.len() > 100, "the sources were not found");
    all
}

#[test]
fn only_the_io_crate_has_unsafe_code() {
    let mut found = 0;
    for (owner, _, file, text) in sources() {
        let has = source::words(&source::code(&text)).any(|word| word == "unsafe");
        assert!(!has || owner == UNSAFE, "{file}: unsafe code may stand in {UNSAFE} alone");
        found += usize::from(has);
    }
    assert!(found > 0, "there is unsafe code in {UNSAFE}, and this test must see it");
}

#[test]
fn crates_without_io_are_told_the_time() {
    for (owner, shipped, file, text) in sources() {
        if shipped && is_pure(&owner) {
            let code = source::without_unit_tests(&source::code(&text));
            for clock in CLOCKS {
                assert!(!code.contains(clock), "{file}: `{clock}` reads a clock; time is an argument here");
            }
        }
    }
}
