use serde_json::{Value, json};
use waft_testkit::{Reply, Target, eventually};

use crate::Queue;

#[test]
fn the_items_of_a_channel_reach_an_endpoint_that_is_subscribed() {
    let target = Target::start(|_| Reply::status("200 OK"));
    let queue = Queue::new();
    let hooks = queue.serve("");
    hooks.endpoint(&format!("http://{}/", target.address()), json!({ "channels": ["news"], "types": ["none"] }));
    hooks.0.publish(json!([
        { "channel": "other", "formats": { "http-stream": { "content": "no" } } },
        { "channel": "news", "id": "1", "formats": { "http-stream": { "content": "hello\n" } } },
        { "channel": "news", "id": "1", "formats": { "http-stream": { "content": "a duplicate" } } },
        { "channel": "news", "id": "2", "formats": { "json-object": { "a": 1 } } },
    ]));
    let mut got: Vec<Value> = (0..2).map(|_| serde_json::from_slice(&target.next_request().body).unwrap()).collect();
    got.sort_by_key(|item| item["data"]["id"].as_str().map(ToOwned::to_owned));
    assert_eq!(got[0]["type"], json!("item.published"));
    assert_eq!(got[0]["data"], json!({ "channel": "news", "id": "1", "content": "hello\n" }));
    assert_eq!(got[1]["data"], json!({ "channel": "news", "id": "2", "content": { "a": 1 } }));
    eventually("nothing that waits", || {
        (hooks.must("GET", "status", &Value::Null)["pending"] == json!(0)).then_some(())
    });
    assert_eq!(target.request_count(), 2);
}

#[test]
fn a_backend_hears_of_the_life_of_a_realm() {
    let target = Target::start(|_| Reply::status("200 OK"));
    let queue = Queue::new();
    let hooks = queue.serve(
        "[[realm]]\nname = \"demo\"\nkeys = [\"base64:c2VjcmV0\"]\nlifecycle = [\"channels\"]\n\
         access = [{ channels = [\"a\"], allow = [\"read\"], to = \"everyone\" }]\n[[route]]\nrealm = \"demo\"\n",
    );
    let channels = json!(["realm:demo:@lifecycle"]);
    hooks.endpoint(&format!("http://{}/", target.address()), json!({ "channels": channels, "types": ["none"] }));
    let mut client = hooks.0.connect();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    client.expect_head(200);
    let heard: Value = serde_json::from_slice(&target.next_request().body).unwrap();
    assert_eq!(heard["data"]["content"], json!({ "event": "occupied", "channel": "a" }));
}
