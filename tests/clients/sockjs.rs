use waft_testkit::{Reply, Server, Setup, Target, node};

/// A backend that echoes and says goodbye, by events over HTTP.
fn backend() -> Target {
    Target::start(|request| {
        let body = request.body_text();
        let answer = match body.contains("bye") {
            true => "CLOSE 6\r\n\u{f}!done\r\n".to_owned(),
            false => body,
        };
        Reply::status("200 OK").header("Content-Type", "application/websocket-events").body(answer)
    })
}

fn check(transport: &str) {
    let target = backend();
    let server = Server::start(Setup::new().route(format!("*,sockjs=/chat {},over_http", target.address())));
    let script = node("tests/clients/sockjs.mjs").arg(format!("http://{}/chat", server.address())).arg(transport);
    let expected = format!("open {transport}\nmessage first\nmessage zwölf \"quoted\"\nclose 3873 done\n");
    assert_eq!(script.succeed(), expected);
}

#[test]
fn sockjs_client_talks_over_a_websocket() {
    check("websocket");
}

#[test]
fn sockjs_client_talks_by_polls() {
    check("xhr-polling");
}
