//! ZHTTP workers behind the gateway and behind the front, as pyzmq speaks to them, that is libzmq: the same cases for the
//! genuine programs and for waft.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use waft_testkit::{
    Connection, Subject, eventually, free_port, python, subject, waft, waft_binary, waft_only, workspace_root,
};

/// Runs the cases of a role, all of which have to hold.
fn run(role: &str, genuine: &str, transport: &str, only: &str) {
    let program = match subject() {
        Subject::Pushpin => genuine.to_owned(),
        Subject::Waft => waft_binary().display().to_string(),
    };
    let arguments = ["--program", &program, "--role", role, "--transport", transport, "--only", only];
    let report = python("tests/zhttp/suite.py").args(arguments).succeed();
    assert!(report.contains(" passed, 0 failed, "), "{report}");
    assert!(!report.starts_with("0 passed"), "{report}");
}

#[test]
fn workers_behind_the_gateway_serve_requests() {
    run("gateway", "/usr/bin/pushpin", "ipc", "");
}

#[test]
fn workers_of_condure_are_served_by_its_namesake() {
    run("front", "/usr/bin/condure", "ipc", "");
}

#[test]
fn workers_are_reached_by_tcp() {
    run("gateway", "/usr/bin/pushpin", "tcp", "answer_comes");
    run("front", "/usr/bin/condure", "tcp", "messages_go");
}

#[test]
fn sockets_may_connect_and_change_with_the_routes() {
    waft_only!("Pushpin binds the sockets of its routes");
    let report = python("tests/zhttp/connect.py").args(["--program", &waft_binary().display().to_string()]).succeed();
    assert!(report.contains("all is well"), "{report}");
}

/// A file of the guide, which has to stand there as it is.
fn example(name: &str) -> String {
    let path = format!("examples/zhttp/{name}");
    let text = std::fs::read_to_string(workspace_root().join(&path)).unwrap();
    let guide = std::fs::read_to_string(workspace_root().join("docs/zhttp.md")).unwrap();
    assert!(guide.contains(text.trim_end()), "docs/zhttp.md does not show {path} as it is");
    path
}

#[test]
fn the_workers_of_the_guide_serve() {
    waft_only!("the guide is of waft");
    let (front, control, directory) = (free_port(), free_port(), std::env::temp_dir());
    let spec = |name: &str| format!("ipc://{}/waft-guide-{}-{name}", directory.display(), std::process::id());
    let (held, streamed) = (spec("held"), spec("streamed"));
    let _server = waft()
        .args([&format!("--set=server.listen=127.0.0.1:{front}"), &format!("--set=control.listen=127.0.0.1:{control}")])
        .args([&format!("--route=held.example zhttpreq/{held}"), &format!("--route=* zhttp/{streamed}")])
        .start();
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    eventually("a listener", || TcpStream::connect(address(front)).ok());
    let _hold = python(&example("hold.py")).args([&held]).start();
    let _stream = python(&example("stream.py")).args([&streamed]).start();
    let answer = Connection::tcp(address(front)).fetch("GET /path HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer.body_text(), "GET http://a/path\n");
    let mut client = Connection::tcp(address(front));
    client.send("GET / HTTP/1.1\r\nHost: held.example\r\n\r\n");
    let item = r#"{"items": [{"channel": "test", "formats": {"http-response": {"body": "hello\n"}}}]}"#;
    eventually("the item that was published", || {
        let publish = format!("POST /publish/ HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{item}", item.len());
        Connection::tcp(address(control)).fetch(publish);
        client.is_readable_within(Duration::from_millis(200)).then_some(())
    });
    assert_eq!(client.response().body_text(), "hello\n");
    for name in [held, format!("{streamed}-out"), format!("{streamed}-out-stream"), format!("{streamed}-in")] {
        std::fs::remove_file(name.trim_start_matches("ipc://")).unwrap();
    }
}
