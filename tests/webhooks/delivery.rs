use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use waft_testkit::{Gate, Reply, Target, eventually};

use crate::{Queue, SECRET};

fn url(target: &Target) -> String {
    format!("http://{}/hook", target.address())
}

#[test]
fn a_delivery_that_fails_is_tried_again_with_the_same_id_and_body() {
    let count = AtomicUsize::new(0);
    let target = Target::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::status("500 No").body("broken: whsec_MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1u"),
        1 => Reply::status("302 Found").header("Location", "/elsewhere"),
        _ => Reply::status("200 OK"),
    });
    let queue = Queue::new();
    let hooks = queue.serve("retry = [\"0s\", \"50ms\", \"50ms\", \"1h\"]");
    hooks.endpoint(&url(&target), json!({ "headers": { "X-Own": "1" } }));
    let id = hooks.send("order.paid", json!({ "n": 1 }));
    let requests = [target.next_request(), target.next_request(), target.next_request()];
    for request in &requests {
        assert_eq!((request.head.method(), request.path()), ("POST", "/hook"));
        assert_eq!(request.header("webhook-id"), Some(id.as_str()));
        assert_eq!(request.header("X-Own"), Some("1"));
        assert_eq!(request.header("Content-Type"), Some("application/json"));
        assert_eq!(request.body, br#"{"n":1}"#);
    }
    hooks.wait_for(&id, "delivered");
    let attempts = hooks.attempts(&id, 3);
    let statuses: Vec<&Value> = attempts.iter().map(|attempt| &attempt["status"]).collect();
    assert_eq!(statuses, [&json!(500), &json!(302), &json!(200)]);
    assert_eq!(attempts[0]["answer"], json!("broken: [redacted]"));
}

#[test]
fn a_delivery_that_fails_to_the_end_is_a_dead_letter_and_can_be_resent() {
    let good = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&good);
    let target =
        Target::start(move |_| Reply::status(if told.load(Ordering::Relaxed) == 0 { "500 No" } else { "200 OK" }));
    let queue = Queue::new();
    let hooks = queue.serve("retry = [\"0s\", \"20ms\"]");
    let endpoint = hooks.endpoint(&url(&target), json!({}));
    let ids = [hooks.send("a", json!(1)), hooks.send("a", json!(2)), hooks.send("a", json!(3))];
    ids.iter().for_each(|id| hooks.wait_for(id, "dead"));
    let dead = hooks.must("GET", &format!("dead?endpoint={endpoint}"), &Value::Null);
    assert_eq!(dead["messages"].as_array().unwrap().len(), 3);
    let page = hooks.must("GET", "messages?status=dead&limit=2", &Value::Null);
    let next = page["next"].as_str().unwrap();
    let rest = hooks.must("GET", &format!("messages?status=dead&before={next}"), &Value::Null);
    assert_eq!(
        (page["messages"][0]["id"].as_str(), rest["messages"][0]["id"].as_str()),
        (Some(&*ids[2]), Some(&*ids[0]))
    );
    good.store(1, Ordering::Relaxed);
    assert_eq!(hooks.must("POST", &format!("messages/{}/resend", ids[0]), &Value::Null)["resent"], json!(1));
    hooks.wait_for(&ids[0], "delivered");
    assert_eq!(hooks.must("POST", "resend", &json!({ "endpoint": endpoint }))["resent"], json!(2));
    ids.iter().for_each(|id| hooks.wait_for(id, "delivered"));
    let events = hooks.must("GET", "events", &Value::Null);
    assert_eq!(events["events"][0]["type"], json!("webhooks.message.dead"));
}

#[test]
fn a_replay_brings_everything_since_a_time_even_to_a_new_endpoint() {
    let target = Target::start(|_| Reply::status("200 OK"));
    let queue = Queue::new();
    let hooks = queue.serve("");
    let ids =
        [hooks.send("order.paid", json!(1)), hooks.send("user.born", json!(2)), hooks.send("order.sent", json!(3))];
    let taken = hooks.must("GET", &format!("messages/{}", ids[1]), &Value::Null)["created_ms"].as_u64().unwrap();
    let endpoint = hooks.endpoint(&url(&target), json!({ "types": ["order.*"] }));
    let replay = format!("endpoints/{endpoint}/replay");
    assert_eq!(hooks.call("POST", &replay, &Value::Null).0, 400);
    assert_eq!(hooks.must("POST", &replay, &json!({ "since_ms": taken + 60_000 }))["resent"], json!(0));
    assert_eq!(hooks.must("POST", &replay, &json!({ "since_ms": taken - 60_000 }))["resent"], json!(2));
    let mut got =
        [target.next_request(), target.next_request()].map(|request| request.header("webhook-id").unwrap().to_owned());
    got.sort();
    assert_eq!(got, [ids[0].clone(), ids[2].clone()]);
}

#[test]
fn an_endpoint_that_is_gone_is_stopped_and_its_owner_is_told() {
    let gone = Target::start(|_| Reply::status("410 Gone"));
    let owner = Target::start(|_| Reply::status("200 OK"));
    let queue = Queue::new();
    let hooks = queue.serve("");
    let endpoint = hooks.endpoint(&url(&gone), json!({ "types": ["order.paid"] }));
    hooks.endpoint(&url(&owner), json!({ "types": ["webhooks.endpoint.stopped"] }));
    let id = hooks.send("order.paid", json!(1));
    let notice: Value = serde_json::from_slice(&owner.next_request().body).unwrap();
    assert_eq!((&notice["type"], &notice["data"]["endpoint"]), (&json!("webhooks.endpoint.stopped"), &json!(endpoint)));
    hooks.wait_for(&id, "dead");
    let shown = hooks.must("GET", &format!("endpoints/{endpoint}"), &Value::Null);
    assert_eq!(shown["stopped"]["reason"], json!("gone"));
    // Nothing new is taken for it until it is started again.
    assert_eq!(hooks.must("POST", "messages", &json!({ "type": "order.paid", "payload": 2 }))["deliveries"], json!(0));
    hooks.must("POST", &format!("endpoints/{endpoint}/enable"), &Value::Null);
    assert_eq!(hooks.must("POST", "messages", &json!({ "type": "order.paid", "payload": 3 }))["deliveries"], json!(1));
}

#[test]
fn retry_after_is_kept() {
    let count = AtomicUsize::new(0);
    let target = Target::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::status("429 Slow").header("Retry-After", "1"),
        _ => Reply::status("200 OK"),
    });
    let queue = Queue::new();
    let hooks = queue.serve("retry = [\"0s\", \"10ms\", \"10ms\"]");
    hooks.endpoint(&url(&target), json!({}));
    hooks.send("a", json!(1));
    target.next_request();
    let begun = Instant::now();
    target.next_request();
    assert!(begun.elapsed().as_millis() > 900, "{:?}", begun.elapsed());
}

#[test]
fn a_dead_endpoint_with_much_queued_slows_nobody_else() {
    let gate = Arc::new(Gate::new());
    let closed = Arc::clone(&gate);
    let slow = Target::start(move |_| {
        closed.wait();
        Reply::status("200 OK")
    });
    let quick = Target::start(|_| Reply::status("200 OK"));
    let queue = Queue::new();
    let hooks = queue.serve("in_flight_max = 50");
    hooks.endpoint(&url(&slow), json!({ "types": ["slow"] }));
    let nowhere = hooks.endpoint("http://127.0.0.1:1024/", json!({ "types": ["slow"] }));
    hooks.endpoint(&url(&quick), json!({ "types": ["quick"] }));
    for _ in 0..5 {
        let messages: Vec<Value> = (0..1_000).map(|n| json!({ "type": "slow", "payload": n })).collect();
        hooks.must("POST", "messages", &json!({ "messages": messages }));
    }
    let begun = Instant::now();
    let id = hooks.send("quick", json!(1));
    quick.next_request();
    hooks.wait_for(&id, "delivered");
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    eventually("a breaker that opens", || {
        (hooks.must("GET", "status", &Value::Null)["hosts_down"].as_u64() > Some(0)).then_some(())
    });
    assert!(!hooks.must("GET", &format!("endpoints/{nowhere}"), &Value::Null)["failing_since_ms"].is_null());
    gate.open();
}

#[test]
fn messages_with_an_order_key_arrive_in_their_order() {
    let count = AtomicUsize::new(0);
    let target = Target::start(move |_| {
        Reply::status(if count.fetch_add(1, Ordering::Relaxed) % 3 == 1 { "500 No" } else { "200 OK" })
    });
    let queue = Queue::new();
    let hooks = queue.serve("retry = [\"0s\", \"20ms\", \"20ms\", \"20ms\", \"20ms\"]");
    hooks.endpoint(&url(&target), json!({ "ordered": true }));
    let messages: Vec<Value> = (0..20).map(|n| json!({ "type": "a", "payload": n, "order_key": "one" })).collect();
    let sent = hooks.must("POST", "messages", &json!({ "messages": messages }));
    for message in sent["messages"].as_array().unwrap() {
        hooks.wait_for(message["id"].as_str().unwrap(), "delivered");
    }
    let mut bodies: Vec<u64> = target.requests().iter().map(|request| request.body_text().parse().unwrap()).collect();
    bodies.dedup();
    assert_eq!(bodies, (0..20).collect::<Vec<u64>>());
}

#[test]
fn other_styles_of_headers_are_there() {
    let target = Target::start(|_| Reply::status("200 OK"));
    let queue = Queue::new();
    let hooks = queue.serve("");
    for (style, wanted) in [
        ("svix", &["svix-id", "svix-timestamp", "svix-signature", "webhook-id"][..]),
        ("github", &["X-GitHub-Delivery", "X-GitHub-Event", "X-Hub-Signature-256"]),
        ("stripe", &["Stripe-Signature"]),
    ] {
        let endpoint = hooks.endpoint(&url(&target), json!({ "style": style }));
        hooks.send("a", json!(1));
        let request = target.next_request();
        for name in wanted {
            assert!(request.header(name).is_some(), "{style} {name}");
        }
        let (status, _) = hooks.call("DELETE", &format!("endpoints/{endpoint}"), &Value::Null);
        assert_eq!(status, 204);
    }
}

#[test]
fn an_endpoint_that_is_disabled_keeps_what_waits() {
    let target = Target::start(|_| Reply::status("200 OK"));
    let queue = Queue::new();
    let hooks = queue.serve("");
    let endpoint = hooks.endpoint(&url(&target), json!({ "disabled": true }));
    let id = hooks.send("a", json!(1));
    assert_eq!(hooks.statuses(&id), ["pending"]);
    hooks.must("PUT", &format!("endpoints/{endpoint}"), &json!({ "url": url(&target) }));
    hooks.wait_for(&id, "delivered");
    assert_eq!(target.request_count(), 1);
    let shown = hooks.must("GET", &format!("endpoints/{endpoint}"), &Value::Null);
    assert_eq!(shown["secrets"][0]["key"], json!(SECRET));
}

#[test]
fn a_test_message_tries_an_endpoint_out() {
    let target = Target::start(|_| Reply::status("200 OK"));
    let queue = Queue::new();
    let hooks = queue.serve("");
    let endpoint = hooks.endpoint(&url(&target), json!({ "types": ["order.paid"] }));
    hooks.must("POST", &format!("endpoints/{endpoint}/test"), &Value::Null);
    let body: Value = serde_json::from_slice(&target.next_request().body).unwrap();
    assert_eq!(body["type"], json!("webhooks.test"));
}
