use crate::{client, serve, serve_with, start};

#[test]
fn whoever_opens_and_resets_streams_without_end_is_sent_away() {
    let (_target, server) = serve();
    let output = client(&server, "rapid_reset", &["/a", "2000"]).succeed();
    assert!(output.contains("goodbye") || output.contains("closed"), "{output}");
    // Everyone else is served.
    let output = client(&server, "get", &["/b"]).succeed();
    assert!(output.contains("/b 200"), "{output}");
    server.wait_for_holds(0);
}

#[test]
fn a_client_that_never_opens_its_window_pins_no_memory() {
    let (_target, server) = serve();
    let before = server.resident_bytes();
    let stalled: Vec<_> = (0..20).map(|_| client(&server, "stall", &["/huge"]).start()).collect();
    for client in &stalled {
        client.wait_for_output("status 200", 1);
    }
    // The whole of the answers would be 80 MB.
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 30 << 20, "{grown} bytes more for 20 clients that take nothing");
    let output = client(&server, "get", &["/b"]).succeed();
    assert!(output.contains("/b 200"), "{output}");
}

#[test]
fn more_streams_than_allowed_wait_for_their_turn() {
    let (_target, server) = serve_with("[limits]\nhttp2_streams_max = 2\n");
    let held = client(&server, "stream", &["/hold/c"]).start();
    held.wait_for_output("data 'open\\n'", 1);
    let output = client(&server, "get", &["/1"]).succeed();
    assert!(output.contains("/1 200"), "{output}");
    server.publish_text("c", "still here");
    held.wait_for_output("still here", 1);
}

#[test]
fn http2_can_be_switched_off() {
    let (_target, server) = start("http2 = false\n", "");
    let output = client(&server, "get", &["/a"]).run();
    assert!(!output.status.success() || !output.output.contains("200"), "{}", output.output);
}
