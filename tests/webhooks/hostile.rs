//! Addresses that must never be called, in every form in which they are written: as endpoints, by names, by redirects.

use serde_json::json;
use waft_testkit::{Reply, Target};

use crate::Queue;

/// The hosts of the tables of the address policy, which stand beside its rules.
fn rows(table: &str) -> Vec<String> {
    let source =
        std::fs::read_to_string(waft_testkit::workspace_root().join("crates/waft-outbound/src/policy/tests.rs"));
    let source = source.unwrap();
    let begin = source.find(&format!("const {table}:")).unwrap_or_else(|| panic!("there is no table {table}"));
    let table = &source[begin..];
    let table = &table[table.find("= [").unwrap()..table.find("];").unwrap()];
    let rows = table.lines().filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix("\","));
    rows.map(|row| serde_json::from_str(&format!("\"{row}\"")).unwrap()).collect()
}

#[test]
fn no_row_of_the_address_policy_can_become_an_endpoint() {
    let queue = Queue::new();
    let hooks = queue.serve("");
    // The one address that this test allows.
    let (mut addresses, names, malformed) = (rows("HOSTILE_ADDRESSES"), rows("HOSTILE_NAMES"), rows("MALFORMED"));
    assert!(addresses.len() > 70 && names.len() > 15 && malformed.len() > 20, "the tables were not found");
    let allowed = [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0X7F000001",
        "017700000001",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f.1",
        "00000177.0.0.1",
        "127.0.0.1.",
        "１２７.０.０.１",
        "127。0。0。1",
        "①②⑦.⓪.⓪.①",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
    ];
    addresses.retain(|host| !allowed.contains(&host.as_str()));
    let mut urls: Vec<String> = addresses
        .iter()
        .chain(&names)
        .flat_map(|host| [format!("http://{host}/"), format!("https://{host}:8443/x?y")])
        .collect();
    urls.extend(malformed);
    urls.push("http://user:password@example.com/".into());
    urls.push("http://example.com:22/".into());
    for url in urls {
        let (status, answer) = hooks.call("POST", "endpoints", &json!({ "url": url }));
        assert_eq!(status, 400, "{url}: {answer}");
    }
}

/// What is allowed when an endpoint is made may lead elsewhere when it is called: every try is judged.
#[test]
fn every_try_is_judged_and_redirects_lead_nowhere() {
    let inner = Target::start(|_| Reply::text("secret of an inner service"));
    let redirect = format!("http://{}/inner", inner.address());
    let target = Target::start(move |_| Reply::status("307 Temporary Redirect").header("Location", &redirect));
    let queue = Queue::new();
    let hooks = queue.serve("retry = [\"0s\"]");
    hooks.endpoint(&format!("http://{}/", target.address()), json!({ "types": ["redirect"] }));
    let id = hooks.send("redirect", json!(1));
    hooks.wait_for(&id, "dead");
    assert_eq!((inner.request_count(), hooks.attempts(&id, 1)[0]["status"].as_u64()), (0, Some(307)));
    hooks.endpoint(&format!("http://{}/", inner.address()), json!({ "types": ["later"], "disabled": true }));
    let later = hooks.send("later", json!(2));
    drop(hooks);
    // The same queue, where nothing inner is allowed any more.
    let text = queue.toml("retry = [\"0s\"]").replace("allow = [\"127.0.0.1\"]\n", "");
    let hooks = crate::Hooks(waft_testkit::Server::start(waft_testkit::Setup::native(text)));
    let endpoints = hooks.must("GET", "endpoints", &serde_json::Value::Null);
    let closed =
        endpoints["endpoints"].as_array().unwrap().iter().find(|one| one["types"] == json!(["later"])).unwrap();
    // It may not be changed into an open one either.
    let path = format!("endpoints/{}", closed["id"].as_str().unwrap());
    assert_eq!(hooks.call("PUT", &path, &json!({ "url": closed["url"] })).0, 400);
    assert_eq!(hooks.statuses(&later), ["pending"]);
    let id = hooks.send("redirect", json!(3));
    hooks.wait_for(&id, "dead");
    let attempts = hooks.attempts(&id, 1);
    let error = attempts[0]["error"].as_str().unwrap();
    assert!(["egress-address-refused", "egress-port-refused"].contains(&error), "{error}");
    assert_eq!((target.request_count(), inner.request_count()), (1, 0));
}
