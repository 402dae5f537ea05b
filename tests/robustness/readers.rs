use std::time::{Duration, Instant};

use serde_json::json;
use waft_testkit::{Connection, Reply, Server, Setup, Target, eventually, waft_only};

/// How long another client may wait for an item while somebody misbehaves. Generous: the machine may be busy.
const BOUND: Duration = Duration::from_millis(1_000);

fn serve() -> (Target, Server) {
    let target = Target::start(|request| match request.path() {
        "/poll" => Reply::hold("response", "c"),
        _ => Reply::hold("stream", "c").body("open\n"),
    });
    let server = Server::start(Setup::to(&target));
    (target, server)
}

fn stream(server: &Server) -> Connection {
    let mut client = server.get("/stream");
    client.expect_head(200);
    client.expect_stream("open\n");
    client
}

/// Publishes and checks that a well-behaved client has the item within the bound.
fn deliver(server: &Server, client: &mut Connection, text: &str) {
    let start = Instant::now();
    server.publish(json!([{ "channel": "c", "http-stream": { "content": text } }]));
    client.expect_stream(text);
    let took = start.elapsed();
    assert!(took < BOUND, "an item of {} bytes took {took:?}", text.len());
}

#[test]
fn a_client_that_never_reads_delays_nobody_and_is_cut_off_or_skipped() {
    let (_target, server) = serve();
    let stuck = server.get("/stream");
    stuck.set_receive_buffer(4_096);
    let mut client = stream(&server);
    server.wait_for_holds(2);
    let text = "x".repeat(100_000);
    for _ in 0..60 {
        deliver(&server, &mut client, &text);
    }
    drop(stuck);
    deliver(&server, &mut client, "end");
}

#[test]
fn memory_for_clients_that_never_read_is_bounded() {
    waft_only!("Pushpin's memory is spread over its processes");
    let (_target, server) = serve();
    let stuck: Vec<_> = (0..20)
        .map(|_| {
            let client = server.get("/stream");
            client.set_receive_buffer(4_096);
            client
        })
        .collect();
    let mut client = stream(&server);
    server.wait_for_holds(21);
    let before = server.resident_bytes();
    let text = "x".repeat(200_000);
    for _ in 0..100 {
        deliver(&server, &mut client, &text);
    }
    let grown = server.resident_bytes().saturating_sub(before);
    // A megabyte for each queue, and what the allocator keeps.
    assert!(grown < 80 << 20, "20 stuck clients cost {} MiB", grown >> 20);
    drop(stuck);
}

#[test]
fn a_client_that_stops_reading_an_ordinary_response_gives_its_target_back() {
    waft_only!("Pushpin waits for such clients for ever");
    let target = Target::start(|_request| Reply::text("x".repeat(32 << 20)));
    let server = Server::start(Setup::native(format!(
        "[server]\nlisten = [\"FRONT\"]\n[control]\nlisten = [\"CONTROL\"]\n\
         [limits]\nwrite_stall_timeout = \"1s\"\n\
         [[route]]\nhost = \"*\"\ntargets = [\"{}\"]\n",
        target.address()
    )));
    let stuck = server.get("/large");
    stuck.set_receive_buffer(4_096);
    eventually("the client is cut off", || (server.metric("waft_slow_disconnects_total") == Some(1.0)).then_some(()));
    drop(stuck);
}

#[test]
fn a_slow_reader_gets_every_item_it_was_promised_in_order() {
    let (_target, server) = serve();
    let mut slow = server.get("/stream");
    slow.set_receive_buffer(8_192);
    slow.expect_head(200);
    slow.expect_stream("open\n");
    let mut client = stream(&server);
    for number in 0..60 {
        let text = format!("{number:03}:{}\n", "x".repeat(8_000));
        deliver(&server, &mut client, &text);
    }
    for number in 0..60 {
        let line = slow.stream_until("\n");
        assert!(line.starts_with(&format!("{number:03}:")), "{:.10}", line);
    }
}

#[test]
fn clients_that_leave_in_the_middle_of_a_delivery_disturb_nobody() {
    let (_target, server) = serve();
    let mut client = stream(&server);
    for round in 0..10 {
        let mut leaving: Vec<_> = (0..5).map(|_| stream(&server)).collect();
        let text = format!("{round}:{}", "x".repeat(100_000));
        server.publish(json!([{ "channel": "c", "http-stream": { "content": &text } }]));
        for (number, mut one) in leaving.drain(..).enumerate() {
            if number % 2 == 0 {
                one.expect_stream(format!("{round}:xxx"));
            }
            one.reset();
        }
        client.expect_stream(&text);
    }
    deliver(&server, &mut client, "end");
}

#[test]
fn held_clients_that_vanish_leave_no_descriptor_behind() {
    waft_only!("Pushpin's descriptors are spread over its processes");
    let (_target, server) = serve();
    let _first = stream(&server);
    let before = waft_testkit::descriptors(server.id());
    let crowd: Vec<_> = (0..100).map(|_| stream(&server)).collect();
    assert!(waft_testkit::descriptors(server.id()) >= before + 100);
    for (number, client) in crowd.into_iter().enumerate() {
        if number % 2 == 0 { client.reset() } else { drop(client) }
    }
    // Some pooled connections to the target may come and go.
    eventually("all descriptors are given back", || {
        (waft_testkit::descriptors(server.id()) <= before + 4).then_some(())
    });
}

#[test]
fn a_backend_that_never_answers_delays_no_other_request() {
    let target = Target::raw(|mut backend, arrivals| {
        while let Some(head) = backend.head_or_end() {
            arrivals.record(&head, b"");
            if head.path() == "/never" {
                backend.head_or_end();
                return;
            }
            backend.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let server = Server::start(Setup::to(&target));
    let waiting: Vec<_> = (0..50).map(|_| server.get("/never")).collect();
    for _ in 0..50 {
        target.next_request();
    }
    let start = Instant::now();
    assert_eq!(server.get("/").response().body_text(), "ok");
    assert!(start.elapsed() < BOUND, "{:?}", start.elapsed());
    drop(waiting);
}

#[test]
fn a_client_that_sends_its_request_very_slowly_delays_no_other() {
    let (_target, server) = serve();
    let mut slow: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for client in &mut slow {
        client.send("GET /stream HTTP/1.1\r\nHost: a\r\nX-");
    }
    let mut client = stream(&server);
    deliver(&server, &mut client, "quick");
    for client in &mut slow {
        client.send("A: 1\r\n\r\n");
        client.expect_head(200);
    }
}

#[test]
fn a_backend_that_dies_in_the_middle_of_a_body_harms_no_other_client() {
    let target = Target::raw(|mut backend, _| {
        while let Some(head) = backend.head_or_end() {
            if head.path() == "/dies" {
                backend.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\npart");
                backend.reset();
                return;
            }
            backend.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let server = Server::start(Setup::to(&target));
    let dying: Vec<_> = (0..20).map(|_| server.get("/dies")).collect();
    for _ in 0..20 {
        assert_eq!(server.get("/fine").response().body_text(), "ok");
    }
    drop(dying);
    assert_eq!(server.get("/fine").response().body_text(), "ok");
}

#[test]
fn where_deliveries_have_a_rate_what_does_not_fit_is_counted_and_logged_with_its_channel() {
    waft_only!("Pushpin counts nothing");
    let target = Target::start(|_| Reply::hold("stream", "c").body("open\n"));
    let setup = Setup::new().route(format!("*,id=main {}", target.address()));
    let server = Server::start(setup.handler("message_rate=40").handler("message_hwm=5"));
    let mut client = stream(&server);
    let items: Vec<_> = (0..50).map(|_| json!({ "channel": "c", "http-stream": { "content": "x" } })).collect();
    server.publish(json!(items));
    eventually("dropped deliveries", || (server.metric("waft_drops_total")? >= 40.0).then_some(()));
    server.wait_for_log("The queue of deliveries is full");
    assert!(server.log().contains("channel=c") && server.log().contains("main"), "{}", server.log());
    // What did fit has come, and so does what is published later.
    client.expect_stream("xxxxx");
    server.publish(json!([{ "channel": "c", "http-stream": { "content": "." } }]));
    eventually("all that was left", || server.metric("waft_deliveries_total").filter(|count| *count >= 6.0));
}
