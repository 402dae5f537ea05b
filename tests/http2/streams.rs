use serde_json::json;
use waft_testkit::program;

use crate::{client, serve};

#[test]
fn many_requests_share_a_connection() {
    let (target, server) = serve();
    let paths: Vec<String> = (0..50).map(|number| format!("/{number}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let output = client(&server, "get", &paths).succeed();
    for path in paths {
        assert!(output.contains(&format!("{path} 200 'answer to {path}' StreamEnded")), "{output}");
    }
    assert_eq!(target.request_count(), 50);
}

#[test]
fn a_stream_is_held_and_gets_what_is_published_in_order() {
    let (_target, server) = serve();
    let mut held = client(&server, "stream", &["/hold/c"]).start();
    held.wait_for_output("data 'open\\n'", 1);
    for number in 0..5 {
        server.publish_text("c", &format!("item {number}\n"));
        held.wait_for_output(&format!("item {number}"), 1);
    }
    server.publish(json!([{ "channel": "c", "http-stream": { "action": "close" } }]));
    assert!(held.wait_for_exit().success());
    held.wait_for_output("ended", 1);
}

#[test]
fn a_poll_is_answered() {
    let (_target, server) = serve();
    let mut held = client(&server, "get", &["/poll"]).start();
    server.wait_for_holds(1);
    server.publish_text("c", "answer");
    assert!(held.wait_for_exit().success());
    held.wait_for_output("/poll 200 'answer' StreamEnded", 1);
}

#[test]
fn the_authority_is_the_host_and_cookies_are_one_field() {
    let (_target, server) = serve();
    let mut seen = client(&server, "stream", &["/seen", "cookie:a=1", "cookie:b=2"]).start();
    assert!(seen.wait_for_exit().success());
    let host = format!("{}", server.address());
    seen.wait_for_output(&format!(r#"Some("{host}") Some("a=1; b=2")"#), 1);
}

#[test]
fn a_stream_that_its_client_breaks_off_is_held_no_longer_and_the_connection_goes_on() {
    let (_target, server) = serve();
    let output = client(&server, "leave", &["/hold/c"]).succeed();
    assert!(output.contains("/after 200 'answer to /after' StreamEnded"), "{output}");
    server.wait_for_holds(0);
}

#[test]
fn a_body_without_a_length_is_passed_on_as_the_windows_allow() {
    let (target, server) = serve();
    let output = client(&server, "upload", &["/echo", "3000000"]).succeed();
    assert!(output.contains("status 200") && output.contains("got 3000000"), "{output}");
    assert_eq!(target.next_request().body.len(), 3_000_000);
}

#[test]
fn a_held_stream_is_ended_when_the_server_is_told_to_stop() {
    let (_target, mut server) = serve();
    // The library h2 takes a first goodbye for the last word; curl does as RFC 9113 section 6.8 says.
    let url = format!("http://{}/hold/c", server.address());
    let mut held = program("curl").args(["-sSN", "--http2-prior-knowledge", &url]).start();
    held.wait_for_output("open\n", 1);
    server.terminate();
    assert!(held.wait_for_exit().success(), "{}", held.output());
    assert!(server.wait_for_exit().success());
}
