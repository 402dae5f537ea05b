//! Faye's transport for browsers without WebSockets: deliveries in a stream of events, all else in requests.

use serde_json::{Value, json};
use waft_testkit::{Connection, Server};

use crate::bayeux::{handshake, post};
use crate::{get, publish, serve};

/// Opens the stream of a client.
fn open(server: &Server, id: &str) -> Connection {
    let mut stream = get(server, &format!("/bayeux/{id}"), "Accept: text/event-stream\r\n");
    assert_eq!(stream.expect_head(200).header("Content-Type"), Some("text/event-stream"));
    stream.expect_stream("retry: 5000\r\n\r\n");
    stream
}

fn subscribe(client: &mut Connection, id: &str, name: &str) {
    let answer = post(client, &json!([{ "channel": "/meta/subscribe", "clientId": id, "subscription": name }]));
    assert_eq!(answer[0]["successful"], json!(true));
}

fn connect(id: &str, kind: &str) -> Value {
    json!([{ "channel": "/meta/connect", "clientId": id, "connectionType": kind, "id": "c" }])
}

#[test]
fn deliveries_come_in_the_stream_and_connects_are_signs_of_life() {
    let server = serve();
    let mut client = server.connect();
    let id = handshake(&mut client, json!({}));
    subscribe(&mut client, &id, "/open/a");
    let mut stream = open(&server, &id);
    let answer = post(&mut client, &connect(&id, "eventsource"));
    assert_eq!(answer[0]["successful"], json!(true));
    assert_eq!(answer[0]["advice"], json!({ "reconnect": "retry", "interval": 45_000, "timeout": 0 }));
    publish(&server, "open/a", &json!({ "n": 1 }));
    stream.expect_stream("data: [{\"channel\":\"/open/a\",\"data\":{\"n\":1}}]\r\n\r\n");
    // What is subscribed to later comes in the same stream, by whichever name, and once.
    subscribe(&mut client, &id, "/open/*");
    subscribe(&mut client, &id, "/open/b");
    publish(&server, "open/b", &json!("line\u{2028}end"));
    stream.expect_stream("data: [{\"channel\":\"/open/b\",\"data\":\"line\\u2028end\"}]\r\n\r\n");
    publish(&server, "open/c", &json!(3));
    stream.expect_stream("data: [{\"channel\":\"/open/c\",\"data\":3}]\r\n\r\n");
    post(&mut client, &json!([{ "channel": "/meta/disconnect", "clientId": id }]));
    stream.expect_stream_end();
}

#[test]
fn what_comes_while_the_stream_is_away_waits_for_it() {
    let server = serve();
    let mut client = server.connect();
    let id = handshake(&mut client, json!({}));
    subscribe(&mut client, &id, "/open/a");
    let mut stream = open(&server, &id);
    publish(&server, "open/a", &json!(1));
    stream.expect_stream("data: [{\"channel\":\"/open/a\",\"data\":1}]\r\n\r\n");
    drop(stream);
    waft_testkit::eventually("the end of the stream", || (server.metric("waft_holds") == Some(0.0)).then_some(()));
    publish(&server, "open/a", &json!(2));
    let mut stream = open(&server, &id);
    stream.expect_stream("data: [{\"channel\":\"/open/a\",\"data\":2}]\r\n\r\n");
    // A connect by another transport takes the client away from it.
    client.send({
        let body = connect(&id, "long-polling").to_string();
        format!(
            "POST /bayeux HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    });
    stream.expect_stream_end();
    publish(&server, "open/a", &json!(3));
    let answer: Value = serde_json::from_slice(&client.response().body).unwrap();
    assert_eq!(answer[1]["data"], json!(3));
}

#[test]
fn the_stream_of_nobody_is_not_there() {
    let server = serve();
    let answer = get(&server, "/bayeux/nobody", "Accept: text/event-stream\r\n").response();
    assert_eq!((answer.status(), answer.body_text().as_str()), (404, "There is no such Bayeux client.\n"));
    let mut client = server.connect();
    let id = handshake(&mut client, json!({}));
    subscribe(&mut client, &id, "/open/a");
    for number in 0..150 {
        publish(&server, "open/a", &json!(number));
    }
    // The log has moved on: the client is to know.
    let answer = get(&server, &format!("/bayeux/{id}"), "Accept: text/event-stream\r\n").response();
    assert_eq!(answer.status(), 404);
    assert_eq!(post(&mut client, &connect(&id, "eventsource"))[0]["advice"]["reconnect"], "handshake");
}
