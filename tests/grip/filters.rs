use serde_json::{Value, json};
use waft_testkit::{Connection, Reply, Server, Target, differs, waft_only};

use crate::serve;

/// A stream on the channels of `channel`, with this meta.
fn stream(channel: &'static str, meta: &'static str) -> (Target, Server, Connection) {
    let (target, server) = serve(move |_| {
        let reply = Reply::hold("stream", channel);
        if meta.is_empty() { reply } else { reply.header("Grip-Set-Meta", meta) }
    });
    let mut client = server.get("/stream");
    client.expect_head(200);
    (target, server, client)
}

fn item(channel: &str, meta: Value, text: &str) -> Value {
    json!({ "channel": channel, "meta": meta, "http-stream": { "content": text } })
}

#[test]
fn skip_self_drops_what_the_listener_itself_sent() {
    let (_target, server, mut client) = stream("c; filter=skip-self", "user=alice");
    server.publish(json!([
        item("c", json!({ "sender": "alice" }), "own"),
        item("c", json!({ "sender": "bob" }), "bob;"),
        item("c", json!({}), "nobody;"),
        item("c", json!({ "sender": "" }), "empty;"),
    ]));
    client.expect_stream("bob;nobody;empty;");
}

#[test]
fn skip_self_needs_to_know_the_user() {
    let (_target, server, mut client) = stream("c; filter=skip-self", "");
    server.publish(json!([item("c", json!({ "sender": "alice" }), "all")]));
    client.expect_stream("all");
}

#[test]
fn skip_users_drops_for_the_users_that_are_listed() {
    let (_target, server, mut client) = stream("c; filter=skip-users", "user=alice");
    server.publish(json!([
        item("c", json!({ "skip_users": "bob, alice" }), "no"),
        item("c", json!({ "skip_users": "bob,alice2" }), "yes;"),
        item("c", json!({}), "end"),
    ]));
    client.expect_stream("yes;end");
}

#[test]
fn require_sub_wants_a_subscription_to_another_channel() {
    let (_target, server, mut client) = stream("c; filter=require-sub, vip", "");
    server.publish(json!([
        item("c", json!({ "require_sub": "staff" }), "no"),
        item("c", json!({ "require_sub": "vip" }), "vip;"),
        item("c", json!({}), "all"),
    ]));
    client.expect_stream("vip;all");
}

#[test]
fn a_filter_acts_on_its_own_channel_alone() {
    let (_target, server, mut client) = stream("a; filter=skip-self, b", "user=alice");
    server.publish(json!([
        item("a", json!({ "sender": "alice" }), "no"),
        item("b", json!({ "sender": "alice" }), "yes"),
    ]));
    client.expect_stream("yes");
}

#[test]
fn var_subst_puts_meta_into_the_content() {
    let (_target, server, mut client) = stream("c; filter=var-subst", "user=\"alice b\", n=1");
    server.publish(json!([item("c", json!({}), "hello %(user)s: 100%% %(n)s")]));
    let expected = differs(
        "only the first pair of a Grip-Set-Meta piece counts, yet both programs take comma-separated pieces",
        "hello alice b: 100% 1",
        "hello alice b: 100% 1",
    );
    client.expect_stream(expected);
}

#[test]
fn var_subst_leaves_the_first_body_alone() {
    let (_target, server) = serve(|_| Reply::hold("stream", "c; filter=var-subst").body("%(user)s %%\n"));
    let mut client = server.get("/stream");
    client.expect_head(200);
    client.expect_stream("%(user)s %%\n");
}

#[test]
fn build_id_puts_the_positions_of_the_channels_into_items() {
    let (_target, server) = serve(|_| {
        Reply::hold("stream", "room; prev-id=7; filter=build-id, user; prev-id=a")
            .header("Grip-Set-Meta", "id_format=\"%(room)s:%(user)s\"")
            .header("Grip-Link", "</next>; rel=next")
            .body("id: %(first)I 50%%\n")
    });
    let mut client = server.get("/stream");
    client.expect_head(200);
    client.expect_stream("id: first 50%\n");
    server.publish(json!([
        { "channel": "room", "id": "8", "prev-id": "7", "http-stream": { "content": "id: %I %(x)I\n" } },
        { "channel": "room", "id": "9", "prev-id": "8", "http-stream": { "content": "id: %I\n" } },
    ]));
    client.expect_stream("id: 8:a x\nid: 9:a\n");
}

#[test]
fn build_id_puts_the_positions_of_the_channels_into_the_first_body() {
    waft_only!("Pushpin 1.36 has no id for the first body and ends the stream");
    let (_target, server) = serve(|_| {
        Reply::hold("stream", "room; prev-id=7; filter=build-id")
            .header("Grip-Set-Meta", "id_format=%(room)s:%%")
            .header("Grip-Set-Meta", "id_encoding=hex")
            .header("Grip-Link", "</next>; rel=next")
            .body("%I\n")
    });
    let mut client = server.get("/stream");
    client.expect_head(200);
    client.expect_stream("373a25\n");
}

#[test]
fn filters_act_on_held_requests_too() {
    let (_target, server) = serve(|_| {
        Reply::hold("response", "c; filter=skip-self; filter=var-subst").header("Grip-Set-Meta", "user=alice")
    });
    let mut client = server.get("/poll");
    let items = json!([
        { "channel": "c", "meta": { "sender": "alice" }, "http-response": { "body": "own" } },
        { "channel": "c", "meta": { "sender": "bob" }, "http-response": { "body": "for %(user)s" } },
    ]);
    server.publish_until_answered(&mut client, &items);
    assert_eq!(client.response().body_text(), "for alice");
}

#[test]
fn an_unknown_filter_is_passed_over() {
    let (_target, server, mut client) = stream("c; filter=from-the-future", "");
    server.publish_text("c", "all");
    client.expect_stream("all");
}

#[test]
fn content_filters_that_agree_with_the_subscription_let_an_item_pass() {
    let (_target, server, mut client) = stream("c; filter=var-subst; filter=skip-self", "user=alice");
    let content = json!({ "content": "%(user)s", "content-filters": ["var-subst"] });
    server.publish(json!([{ "channel": "c", "http-stream": content }]));
    client.expect_stream("alice");
}
