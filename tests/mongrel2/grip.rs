use std::fs;

use waft_testkit::{Connection, free_port, python, waft};

use crate::site::make_directory;

/// A handler of Mongrel2 that answers with GRIP; what is published reaches whoever it lets be held.
#[test]
fn a_handler_lets_clients_be_held_and_publishes_to_them() {
    let directory = make_directory("grip");
    let [clients, control, send, recv] = [(); 4].map(|()| free_port());
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:{clients}\"]\n[control]\nlisten = [\"127.0.0.1:{control}\"]\n\
         [[route]]\npath = \"/\"\n\
         targets = [{{ handler = \"tcp://127.0.0.1:{send}\", recv = \"tcp://127.0.0.1:{recv}\", ident = \"grip\" }}]\n"
    );
    fs::write(directory.join("waft.toml"), config).unwrap();
    let server = waft().args(["--config", "waft.toml"]).directory(directory.to_str().unwrap()).start();
    server.wait_for_output("waft is ready", 1);
    let handler = python("tests/mongrel2/grip_handler.py").args([send.to_string(), recv.to_string()]).start();
    handler.wait_for_output("connected", 1);

    let address = ([127, 0, 0, 1], clients).into();
    let mut stream = Connection::tcp(address);
    stream.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.expect_head(200);
    stream.expect_stream("opened\n");
    let mut poll = Connection::tcp(address);
    poll.send("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n");
    handler.wait_for_output("held /poll", 1);
    // The answer of the handler is on its way to the server while this is published: it is repeated until it counts.
    let publish = |text: &str| {
        let spec = format!("http://127.0.0.1:{control}");
        waft().args(["publish", "room", text, "--spec", &spec]).succeed()
    };
    waft_testkit::eventually("the holds", || {
        let request = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
        let metrics = Connection::tcp(([127, 0, 0, 1], control).into()).fetch(request).body_text();
        metrics.contains("waft_holds{mode=\"response\"} 1").then_some(())
    });
    publish("news");
    stream.expect_stream("news\n");
    let answer = poll.response();
    assert_eq!((answer.status(), answer.body_text().trim()), (200, "news"));
    // The connection goes on as any other, and its next request reaches the handler.
    poll.send("GET /plain HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(poll.response().body_text(), "plain");
    drop(server);
    fs::remove_dir_all(directory).unwrap();
}
