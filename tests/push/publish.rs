//! The publish API, as the libraries of its users call it.

use serde_json::json;
use waft_testkit::{Reply, Server, Setup, Target, node, python};

use crate::{event, events, serve};

/// A token whose signature is written as `TOKEN`: HS256 with the older of the two keys, made elsewhere.
pub(crate) fn signed(unsigned: &str) -> String {
    unsigned.replace("TOKEN", "8cUrsNHc6vVSa9PM2CMgsPXU5NI1BlaIgGMXFn1WTYU")
}

#[test]
fn the_python_library_of_the_fanout_cloud_publishes_unchanged() {
    let server = serve();
    let mut client = events(&server, "/open/py", "");
    let script = python("tests/clients/fanout_publish.py").arg(server.control_address().to_string());
    assert_eq!(script.succeed(), "refused: True\n");
    assert_eq!(event(&mut client).1, json!({ "from": "python" }));
}

#[test]
fn the_node_library_of_the_fanout_cloud_publishes_unchanged() {
    let server = serve();
    let mut client = events(&server, "/open/node", "");
    let script = node("tests/clients/fanout_publish.mjs").arg(server.control_address().to_string());
    assert_eq!(script.succeed(), "published: true\nother realm: false\n");
    assert_eq!(event(&mut client).1, json!({ "from": "node" }));
}

/// A backend that was written for Fastly holds its clients on channels of its service.
#[test]
fn a_backend_of_fastly_publishes_with_another_host_in_its_url() {
    let target = Target::start(|_| Reply::hold("stream", "news").body("welcome\n"));
    let server = Server::start(Setup::native(format!(
        "[server]\nlisten = [\"FRONT\"]\n[control]\nlisten = [\"CONTROL\"]\n[[realm]]\nname = \"svc1\"\n\
         publish_tokens = [\"opaque\"]\n[[route]]\nrealm = \"svc1\"\ntargets = [\"{}\"]\n",
        target.address()
    )));
    let mut client = server.get("/anything");
    client.expect_head(200);
    client.expect_stream("welcome\n");
    let url = format!("http://{}/service/svc1?key=opaque&verify-iss=fastly:svc1", server.control_address());
    python("tests/clients/grip_url_publish.py").args([&url, "news", "hello"]).succeed();
    client.expect_stream("hello");
}

#[test]
fn what_is_published_to_a_realm_stays_in_it() {
    let server = serve();
    let mut client = events(&server, "/open/a", "");
    // The same name in the channels that GRIP has.
    server.publish(json!([{ "channel": "open/a", "json-object": 1, "http-stream": { "content": "x" } }]));
    crate::publish(&server, "open/a", &json!(2));
    assert_eq!(event(&mut client).1, json!(2));
}
