//! TLS towards endpoints: authorities of their own, certificates to present, and what is not allowed.

use serde_json::{Value, json};
use waft_testkit::{Authority, Certificate, Reply, Target, TlsRelay, eventually};

use crate::{Hooks, Queue};

/// Tries that follow each other quickly.
const QUICK: &str = "retry = [\"0s\", \"50ms\"]";

fn text(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn taker() -> Target {
    Target::start(|_| Reply::status("204 No Content"))
}

fn presented(certificate: &Certificate) -> Value {
    json!({ "certificate": text(&certificate.cert), "key": text(&certificate.key) })
}

/// What the tries of a message failed by.
fn error(hooks: &Hooks, id: &str) -> String {
    hooks.wait_for(id, "dead");
    hooks.attempts(id, 2)[0]["error"].as_str().unwrap().to_owned()
}

#[test]
fn an_endpoint_may_have_an_authority_of_its_own() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let target = taker();
    let relay = TlsRelay::before(&target, &authority.issue(&["127.0.0.1"]));
    let url = format!("https://{}/", relay.address());
    let queue = Queue::new();
    let hooks = queue.serve(QUICK);
    hooks.endpoint(&url, json!({ "types": ["own"], "tls": { "ca": text(&authority.file()) } }));
    hooks.endpoint(&url, json!({ "types": ["system"] }));
    hooks.endpoint(&url, json!({ "types": ["other"], "tls": { "ca": text(&stranger.file()) } }));
    let own = hooks.send("own", json!(1));
    hooks.wait_for(&own, "delivered");
    // A connection that one endpoint trusts does not serve one that would not.
    for kind in ["system", "other"] {
        let id = hooks.send(kind, json!(1));
        let error = error(&hooks, &id);
        assert!(error.contains("certificate"), "{kind}: {error}");
    }
    assert_eq!(target.request_count(), 1);
}

#[test]
fn an_endpoint_is_shown_the_certificate_that_it_asks_for() {
    let authority = Authority::new();
    let target = taker();
    let relay = TlsRelay::demanding(&target, &authority.issue(&["127.0.0.1"]), &authority);
    let url = format!("https://{}/", relay.address());
    let queue = Queue::new();
    let hooks = queue.serve(QUICK);
    let ca = text(&authority.file());
    let mut tls = presented(&authority.issue_for_client("waft"));
    tls["ca"] = json!(ca);
    let endpoint = hooks.endpoint(&url, json!({ "types": ["shown"], "tls": tls }));
    hooks.endpoint(&url, json!({ "types": ["bare"], "tls": { "ca": ca } }));
    let shown = hooks.send("shown", json!(1));
    hooks.wait_for(&shown, "delivered");
    let bare = hooks.send("bare", json!(1));
    hooks.wait_for(&bare, "dead");
    let known = hooks.must("GET", &format!("endpoints/{endpoint}"), &Value::Null);
    assert_eq!((&known["tls"]["key"], known["tls"]["ca"].as_str()), (&Value::Null, Some(ca.as_str())));
    // What comes back as it was shown keeps its key.
    let settings = json!({ "url": url, "types": ["shown"], "tls": known["tls"] });
    hooks.must("PUT", &format!("endpoints/{endpoint}"), &settings);
    let again = hooks.send("shown", json!(2));
    hooks.wait_for(&again, "delivered");
}

#[test]
fn certificates_go_unverified_only_where_the_configuration_allows_it() {
    let authority = Authority::new();
    let target = taker();
    let relay = TlsRelay::before(&target, &authority.issue(&["127.0.0.1"]));
    let insecure = json!({ "url": format!("https://{}/", relay.address()), "tls": { "insecure": true } });
    let queue = Queue::new();
    let endpoint = {
        let hooks = queue.serve("");
        let (status, answer) = hooks.call("POST", "endpoints", &insecure);
        assert_eq!(status, 400);
        assert!(answer["error"].as_str().unwrap().contains("webhooks.allow_insecure"), "{answer}");
        drop(hooks);
        let hooks = queue.serve("allow_insecure = true");
        let endpoint = hooks.must("POST", "endpoints", &insecure)["id"].as_str().unwrap().to_owned();
        let id = hooks.send("a", json!(1));
        hooks.wait_for(&id, "delivered");
        endpoint
    };
    // What is stored does not count against a configuration that is stricter now.
    let hooks = queue.serve(QUICK);
    let known = hooks.must("GET", &format!("endpoints/{endpoint}"), &Value::Null);
    assert_eq!(known["tls"]["insecure"], json!(true));
    let id = hooks.send("a", json!(2));
    assert!(error(&hooks, &id).contains("certificate"));
}

#[test]
fn certificates_that_cannot_be_read_are_refused_at_once() {
    let queue = Queue::new();
    let hooks = queue.serve("");
    let authority = Authority::new();
    let (one, other) = (authority.issue(&["one.example"]), authority.issue(&["other.example"]));
    for tls in [
        json!({ "ca": "nonsense" }),
        json!({ "ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" }),
        json!({ "certificate": text(&one.cert) }),
        json!({ "certificate": text(&one.cert), "key": "nonsense" }),
        json!({ "certificate": text(&one.cert), "key": text(&other.key) }),
    ] {
        let (status, answer) = hooks.call("POST", "endpoints", &json!({ "url": "https://example.com/", "tls": tls }));
        assert_eq!(status, 400, "{answer}");
    }
}

#[test]
fn endpoints_of_the_configuration_have_the_same() {
    let authority = Authority::new();
    let target = taker();
    let relay = TlsRelay::before(&target, &authority.issue(&["127.0.0.1"]));
    let queue = Queue::new();
    let hooks = queue.serve(&format!(
        "[[webhooks.endpoints]]\nid = \"partner\"\nurl = \"https://{}/\"\nsecrets = [\"{}\"]\ntls.ca = \"\"\"\n{}\"\"\"",
        relay.address(),
        crate::SECRET,
        text(&authority.file())
    ));
    let id = hooks.send("a", json!(1));
    hooks.wait_for(&id, "delivered");
    eventually("the receiver has it", || (target.request_count() == 1).then_some(()));
}
