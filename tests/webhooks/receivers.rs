//! The examples, which check every signature with means of their own.

use serde_json::{Value, json};
use waft_testkit::{Process, free_port, program, python, workspace_root};

use crate::{Queue, SECRET};

pub(crate) fn python_receiver(secret: &str) -> (Process, u16) {
    let port = free_port();
    let receiver = python("examples/webhook-receiver/receiver.py").env("SECRET", secret).env("PORT", port.to_string());
    let mut process = receiver.start();
    process.wait_for_port(port);
    (process, port)
}

fn node_receiver(key: &str) -> (Process, u16) {
    let port = free_port();
    let script = workspace_root().join("examples/webhook-receiver/receiver.mjs");
    let mut process = program("node").arg(script).env("KEY", key).env("PORT", port.to_string()).start();
    process.wait_for_port(port);
    (process, port)
}

#[test]
fn the_library_of_standard_webhooks_verifies_what_it_gets() {
    let (receiver, port) = python_receiver(SECRET);
    let queue = Queue::new();
    let hooks = queue.serve("");
    hooks.endpoint(&format!("http://127.0.0.1:{port}/hook"), json!({ "challenge": "none" }));
    let id = hooks.send("order.paid", json!({ "type": "order.paid", "data": { "ä": 1.50 } }));
    receiver.wait_for_output(&format!("received {id}"), 1);
    hooks.wait_for(&id, "delivered");
    assert!(!receiver.output().contains("refused"));
    let attempts = hooks.attempts(&id, 1);
    assert_eq!((attempts.len(), &attempts[0]["status"]), (1, &json!(204)));
}

#[test]
fn old_and_new_secrets_both_sign_while_a_secret_is_rotated() {
    let queue = Queue::new();
    let hooks = queue.serve("");
    let (old, old_port) = python_receiver(SECRET);
    let endpoint = hooks.endpoint(&format!("http://127.0.0.1:{old_port}/"), json!({}));
    let shown = hooks.must("POST", &format!("endpoints/{endpoint}/rotate"), &json!({ "overlap_ms": 3_600_000 }));
    let new_secret = shown["secrets"][0]["key"].as_str().unwrap();
    assert_eq!(shown["secrets"].as_array().unwrap().len(), 2);
    let id = hooks.send("a", json!(1));
    old.wait_for_output(&format!("received {id}"), 1);
    let (new, new_port) = python_receiver(new_secret);
    let mut settings = shown.as_object().unwrap().clone();
    for name in ["id", "app", "created_ms", "verified", "stopped", "failing_since_ms", "configured", "secrets"] {
        settings.remove(name);
    }
    settings.insert("url".into(), format!("http://127.0.0.1:{new_port}/").into());
    hooks.must("PUT", &format!("endpoints/{endpoint}"), &Value::Object(settings));
    let id = hooks.send("a", json!(2));
    new.wait_for_output(&format!("received {id}"), 1);
    // Without an overlap the old secret signs no more.
    hooks.must("POST", &format!("endpoints/{endpoint}/rotate"), &json!({ "overlap_ms": 0 }));
    let id = hooks.send("a", json!(3));
    new.wait_for_output(&format!("refused {id}"), 1);
}

#[test]
fn public_keys_verify_in_node_and_are_published() {
    let queue = Queue::new();
    let hooks = queue.serve("");
    let made = hooks.must("POST", "endpoints", &json!({ "url": "http://127.0.0.1:1/", "signing": "v1a" }));
    let endpoint = made["id"].as_str().unwrap();
    let published = hooks.must("GET", &format!("keys/{endpoint}"), &Value::Null);
    let key = published["keys"][0].as_str().unwrap();
    assert!(key.starts_with("whpk_"), "{published}");
    assert_eq!(made["secrets"][0]["key"], json!(key), "the private key is shown to nobody");
    let (receiver, port) = node_receiver(key);
    hooks.must("PUT", &format!("endpoints/{endpoint}"), &json!({ "url": format!("http://127.0.0.1:{port}/") }));
    let id = hooks.send("a.b", json!({ "n": 1 }));
    receiver.wait_for_output(&format!("received {id} {{\"n\":1}}"), 1);
}

#[test]
fn node_verifies_shared_secrets_too() {
    let (receiver, port) = node_receiver(SECRET);
    let queue = Queue::new();
    let hooks = queue.serve("");
    hooks.endpoint(&format!("http://127.0.0.1:{port}/"), json!({ "style": "svix" }));
    let id = hooks.send("a.b", json!({ "n": 1 }));
    receiver.wait_for_output(&format!("received {id}"), 1);
}

#[test]
fn an_endpoint_can_be_asked_to_prove_that_it_wants_to_be_called() {
    let (receiver, port) = python_receiver(SECRET);
    let queue = Queue::new();
    let hooks = queue.serve("");
    let endpoint = hooks.endpoint(&format!("http://127.0.0.1:{port}/x"), json!({ "challenge": "echo" }));
    let id = hooks.send("a", json!(1));
    assert_eq!(hooks.statuses(&id), ["pending"]);
    let verified = hooks.must("POST", &format!("endpoints/{endpoint}/verify"), &Value::Null);
    assert_eq!(verified["verified"], json!(true));
    receiver.wait_for_output(&format!("received {id}"), 1);
    let closed = hooks.endpoint(&format!("http://127.0.0.1:{port}/"), json!({ "challenge": "options" }));
    let (status, answer) = hooks.call("POST", &format!("endpoints/{closed}/verify"), &Value::Null);
    assert_eq!(status, 422, "{answer}");
}
