use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use waft_testkit::{Reply, Server, Setup, Target, node};

#[test]
fn an_event_source_comes_back_and_says_what_it_saw_last() {
    let visits = AtomicUsize::new(0);
    let target = Target::start(move |request| {
        let hold = Reply::status("200 OK")
            .header("Content-Type", "text/event-stream")
            .header("Grip-Hold", "stream")
            .header("Grip-Channel", "c");
        match (visits.fetch_add(1, Ordering::AcqRel), request.header("Last-Event-ID")) {
            (0, None) => hold.body("retry: 10\n\n"),
            (_, Some(id)) => hold.body(format!("event: note\ndata: back after {id}\n\n")),
            (_, None) => hold.body("event: note\ndata: lost my place\n\n"),
        }
    });
    let server = Server::start(Setup::to(&target));
    let url = format!("http://{}/events", server.address());
    let mut client = node("tests/clients/events.mjs").args([&url, "2"]).start();
    client.wait_for_output("open", 1);
    server.wait_for_holds(1);
    server.publish(json!([
        { "channel": "c", "http-stream": { "content": "id: 7\ndata: first\n\n" } },
        { "channel": "c", "http-stream": { "action": "close" } },
    ]));
    client.wait_for_output("message id=7 data=first", 1);
    client.wait_for_output("data=back after 7", 1);
    assert!(client.wait_for_exit().success());
}
