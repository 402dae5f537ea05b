use serde_json::{Value, json};
use waft_testkit::{Reply, Server, Setup, Target, eventually};

use crate::Queue;

#[test]
fn without_a_directory_there_are_no_webhooks_and_no_file() {
    let native = "[server]\nlisten = [\"FRONT\"]\n[control]\nlisten = [\"CONTROL\"]\n";
    let server = Server::start(Setup::native(native));
    let answer = server.post_control("/webhooks/messages", r#"{"type":"a","payload":1}"#);
    assert_eq!(answer.status(), 404);
    assert_eq!(server.metric("waft_webhooks_pending"), None);
    let files: Vec<_> = std::fs::read_dir(server.directory()).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
}

#[test]
fn calls_that_cannot_be_understood_are_refused_with_a_reason() {
    let queue = Queue::new();
    let hooks = queue.serve("body_max = 1000");
    let long = json!({ "type": "a", "payload": "x".repeat(1_001) });
    for (method, path, body, status, reason) in [
        ("POST", "messages", json!({ "payload": 1 }), 400, "`type` must be"),
        ("POST", "messages", json!({ "type": "a" }), 400, "a message needs either"),
        ("POST", "messages", json!({ "type": "a", "payload": 1, "app": "x" }), 404, "there is no application `x`"),
        ("POST", "messages", json!({ "type": "a", "payload": 1, "endpoints": ["x"] }), 404, "there is no endpoint `x`"),
        ("POST", "messages", long, 400, "the body of a message has 1 to 1000 bytes"),
        ("POST", "endpoints", json!({ "url": "ftp://a/" }), 400, "the url cannot be used"),
        ("POST", "endpoints", json!({ "url": "http://10.0.0.1/" }), 400, "the address policy refuses the url"),
        ("POST", "endpoints", json!({ "url": "http://127.0.0.1/", "secrets": ["x"] }), 400, "the key of a"),
        ("POST", "endpoints", json!({ "url": "http://127.0.0.1/", "tpyes": [] }), 400, "the settings cannot be read"),
        ("GET", "messages/msg_x", Value::Null, 404, "there is no message"),
        ("GET", "messages?status=lost", Value::Null, 400, "a status is"),
        ("GET", "messages?before=x", Value::Null, 400, "`before` must be"),
        ("DELETE", "messages", Value::Null, 405, "this method"),
        ("GET", "elsewhere", Value::Null, 404, "there is nothing here"),
        ("POST", "apps", json!({ "id": "a b" }), 400, "the id of an application"),
        ("POST", "apps", json!({ "id": "default" }), 409, "there is an application"),
    ] {
        let (seen, answer) = hooks.call(method, path, &body);
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(seen == status && error.starts_with(reason), "{method} {path} {body}: {seen} {answer}");
    }
}

#[test]
fn a_message_sent_twice_with_its_key_is_delivered_once() {
    let target = Target::start(|_| Reply::status("200 OK"));
    let queue = Queue::new();
    let mut hooks = queue.serve("");
    hooks.endpoint(&format!("http://{}/", target.address()), json!({}));
    let message = json!({ "type": "a", "payload": 1, "idempotency_key": "k" });
    let first = hooks.must("POST", "messages", &message);
    let again = hooks.must("POST", "messages", &message);
    assert_eq!((&first["id"], &again["duplicate"]), (&again["id"], &json!(true)));
    hooks.wait_for(first["id"].as_str().unwrap(), "delivered");
    // The key is known after a restart, and so is what was delivered.
    hooks.0.terminate();
    hooks.0.wait_for_exit();
    drop(hooks);
    let hooks = queue.serve("");
    let again = hooks.must("POST", "messages", &message);
    assert_eq!(first["id"], again["id"]);
    assert_eq!(hooks.statuses(first["id"].as_str().unwrap()), ["delivered"]);
    let list = json!({ "messages": [message, { "type": "b", "text": "hello" }] });
    let answer = hooks.must("POST", "messages", &list);
    assert_eq!((&answer["messages"][0]["duplicate"], &answer["messages"][1]["deliveries"]), (&json!(true), &json!(1)));
    assert_eq!(target.next_request().body_text(), "1");
    let second = target.next_request();
    assert_eq!((second.body_text().as_str(), second.header("Content-Type")), ("hello", Some("text/plain")));
}

#[test]
fn a_full_queue_refuses_more_and_says_so() {
    let queue = Queue::new();
    let hooks = queue.serve("queue_max = 3");
    hooks.endpoint("http://127.0.0.1:1024/", json!({ "disabled": true }));
    (0..3).for_each(|n| drop(hooks.send("a", json!(n))));
    let (status, answer) = hooks.call("POST", "messages", &json!({ "type": "a", "payload": 4 }));
    assert_eq!(status, 507, "{answer}");
    eventually("the metric", || (hooks.0.metric("waft_webhooks_refused_total") == Some(1.0)).then_some(()));
}

/// More goes through the queue than it may take on disk: what was delivered makes room for what comes.
#[test]
fn a_disk_limit_is_kept_while_old_messages_make_room() {
    let target = Target::start(|_| Reply::status("200 OK"));
    let queue = Queue::new();
    let hooks = queue.serve("disk_max = \"200 MiB\"\nbody_max = \"900 kB\"");
    hooks.endpoint(&format!("http://{}/", target.address()), json!({}));
    hooks.endpoint("http://127.0.0.1:1024/", json!({ "disabled": true, "types": ["kept"] }));
    let kept = hooks.send("kept", json!("kept"));
    let payload = "x".repeat(800_000);
    let mut refused = 0;
    for n in 0..330 {
        let message = json!({ "type": "a", "payload": { "n": n, "text": payload } });
        eventually("room for a message", || {
            let (status, answer) = hooks.call("POST", "messages", &message);
            refused += usize::from(status == 507);
            assert!(matches!(status, 202 | 507), "{status} {answer}");
            (status == 202).then_some(())
        });
    }
    let size: u64 = std::fs::read_dir(&queue.0).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(size <= 200 << 20, "{size} bytes");
    // What waits was moved out of the segments that went.
    assert_eq!(hooks.must("GET", &format!("messages/{kept}"), &Value::Null)["payload"], json!("kept"));
    drop(hooks);
    let hooks = queue.serve("");
    assert!(hooks.statuses(&kept).contains(&"pending".to_owned()));
}

#[test]
fn endpoints_and_applications_of_the_configuration_are_there() {
    let target = Target::start(|_| Reply::status("200 OK"));
    let queue = Queue::new();
    let more = format!(
        "[[webhooks.apps]]\nid = \"shop\"\ntoken = \"a-long-token\"\n[[webhooks.endpoints]]\nid = \"ep_shop\"\napp = \"shop\"\n\
         url = \"http://{}/\"\nsecrets = [\"{}\"]\ntypes = [\"order.*\"]\n",
        target.address(),
        crate::SECRET
    );
    let hooks = queue.serve(&more);
    let (status, answer) =
        hooks.call_as("a-long-token", "POST", "messages", &json!({ "type": "order.paid", "payload": 1 }));
    assert_eq!((status, &answer["deliveries"]), (202, &json!(1)));
    target.next_request();
    assert_eq!(hooks.call("DELETE", "endpoints/ep_shop", &Value::Null).0, 409);
    drop(hooks);
    // What is taken out of the configuration goes.
    let hooks = queue.serve("");
    assert_eq!(hooks.call("GET", "endpoints/ep_shop", &Value::Null).0, 404);
}
