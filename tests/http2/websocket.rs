use serde_json::json;

use crate::{client, serve};

#[test]
fn an_extended_connect_is_a_websocket() {
    let (_target, server) = serve();
    let mut socket = client(&server, "websocket", &["/ws", "one", "two"]).start();
    socket.wait_for_output("allowed 1\n", 1);
    socket.wait_for_output("status 200\n", 1);
    socket.wait_for_output("frame 1 b'one'\nframe 1 b'two'\n", 1);
    server.publish(json!([{ "channel": "room", "ws-message": { "content": "to all" } }]));
    socket.wait_for_output("frame 1 b'to all'\n", 1);
    server.publish(json!([{ "channel": "room", "ws-message": { "action": "close", "code": 4001 } }]));
    assert!(socket.wait_for_exit().success());
    socket.wait_for_output("frame 8 b'\\x0f\\xa1'\nended\n", 1);
}
