use serde_json::{Value, json};
use waft_testkit::{Authority, Server, Setup};

use crate::{Hooks, Queue};

#[test]
fn an_application_sees_and_changes_only_what_is_its_own() {
    let queue = Queue::new();
    let text = queue.toml("").replace("[webhooks]", "token = \"op\"\n[webhooks]");
    let hooks = Hooks(Server::start(Setup::native(text)));
    let make = |id: &str| {
        let (status, app) = hooks.call_as("op", "POST", "apps", &json!({ "id": id }));
        assert_eq!(status, 201, "{app}");
        app["token"].as_str().unwrap().to_owned()
    };
    let (one, other) = (make("one"), make("other"));
    let settings = json!({ "url": "http://127.0.0.1:1024/", "disabled": true });
    let endpoint = hooks.call_as(&one, "POST", "endpoints", &settings).1["id"].as_str().unwrap().to_owned();
    let message = hooks.call_as(&one, "POST", "messages", &json!({ "type": "a", "payload": 1 })).1;
    let message = message["id"].as_str().unwrap();
    for (method, path) in [
        ("GET", format!("endpoints/{endpoint}")),
        ("PUT", format!("endpoints/{endpoint}")),
        ("DELETE", format!("endpoints/{endpoint}")),
        ("POST", format!("endpoints/{endpoint}/rotate")),
        ("GET", format!("messages/{message}")),
        ("GET", format!("messages/{message}/attempts")),
        ("POST", format!("messages/{message}/resend")),
    ] {
        assert_eq!(hooks.call_as(&other, method, &path, &settings).0, 404, "{method} {path}");
        assert_eq!(hooks.call_as("wrong", method, &path, &settings).0, 401, "{method} {path}");
        assert_eq!(hooks.call(method, &path, &settings).0, 401, "{method} {path}");
    }
    assert_eq!(hooks.call_as(&other, "GET", "messages", &Value::Null).1["messages"], json!([]));
    assert_eq!(hooks.call_as(&other, "GET", "endpoints", &Value::Null).1["endpoints"], json!([]));
    assert_eq!(hooks.call_as(&other, "GET", "messages?app=one", &Value::Null).0, 404);
    assert_eq!(hooks.call_as(&other, "POST", "messages", &json!({ "type": "a", "payload": 1, "app": "one" })).0, 404);
    for (method, path) in [("GET", "apps"), ("POST", "apps"), ("DELETE", "apps/one"), ("POST", "apps/one/token")] {
        assert_eq!(hooks.call_as(&other, method, path, &json!({ "id": "x" })).0, 403, "{method} {path}");
    }
    assert_eq!(hooks.call_as("op", "GET", "messages?app=one", &Value::Null).1["messages"][0]["id"], json!(message));
    // A token that was renewed works no more, and an application that has gone has none.
    assert_eq!(hooks.call_as("op", "POST", "apps/one/token", &Value::Null).0, 200);
    assert_eq!(hooks.call_as(&one, "GET", "messages", &Value::Null).0, 401);
    assert_eq!(hooks.call_as("op", "DELETE", "apps/other", &Value::Null).0, 204);
    assert_eq!(hooks.call_as(&other, "GET", "messages", &Value::Null).0, 401);
}

#[test]
fn a_private_key_is_shown_to_nobody() {
    let queue = Queue::new();
    let hooks = queue.serve("");
    let authority = Authority::new();
    let shown = authority.issue_for_client("waft");
    let read = |path| std::fs::read_to_string(path).unwrap();
    let key = read(&shown.key);
    let tls = json!({ "certificate": read(&shown.cert), "key": key });
    let settings = json!({ "url": "http://127.0.0.1:1024/", "tls": tls, "signing": "v1a" });
    let made = hooks.must("POST", "endpoints", &settings);
    let shown = hooks.must("GET", &format!("endpoints/{}", made["id"].as_str().unwrap()), &Value::Null);
    for answer in [made, shown] {
        assert!(!answer.to_string().contains(key.lines().nth(1).unwrap()), "{answer}");
        assert!(!answer.to_string().contains("PRIVATE KEY"), "{answer}");
        assert!(!answer.to_string().contains("whsk_"), "{answer}");
    }
}
