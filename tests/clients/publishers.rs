use std::fs;

use waft_testkit::{Finished, Reply, Server, Setup, Target, free_port, python, waft_only};

fn publish(server: &Server, channel: &str, text: &str) {
    let uri = format!("http://{}", server.control_address());
    let said = python("tests/clients/publish.py").args([&uri, channel, text]).succeed();
    assert_eq!(said, "published\n");
}

#[test]
fn gripcontrol_publishes_to_streams_and_polls() {
    let target = Target::start(|request| Reply::hold(request.path().trim_start_matches('/'), "c"));
    let server = Server::start(Setup::to(&target));
    let mut stream = server.get("/stream");
    stream.expect_head(200);
    let mut poll = server.get("/response");
    server.wait_for_holds(2);
    publish(&server, "c", "h\u{e9}llo");
    stream.expect_stream("h\u{e9}llo");
    let answer = poll.response();
    assert_eq!((answer.status(), answer.body_text().as_str()), (202, "h\u{e9}llo"));
    assert_eq!(answer.head.header("X-From"), Some("gripcontrol"));
}

/// The signature a backend gets with this `sig_key`.
fn signature(key: &str, file: Option<&str>) -> String {
    let target = Target::start(|_| Reply::text(""));
    let directory = std::env::temp_dir().join(format!("waft-key-{}-{}", std::process::id(), free_port()));
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("key");
    if let Some(text) = file {
        fs::write(&path, text).unwrap();
    }
    let key = key.replace("FILE", &path.display().to_string());
    let server = Server::start(Setup::to(&target).proxy(format!("sig_key={key}")));
    server.get("/").response();
    fs::remove_dir_all(directory).unwrap();
    target.next_request().header("Grip-Sig").unwrap().to_owned()
}

fn verify(token: &str, key: &str) -> Finished {
    python("tests/clients/verify_signature.py").args([token, key, "HS256"]).run()
}

#[test]
fn a_backend_verifies_the_signature_with_its_own_library() {
    let token = signature("changeme", None);
    assert_eq!(verify(&token, "changeme").output, "pushpin\n");
    assert!(!verify(&token, "other").status.success());
}

#[test]
fn a_key_may_be_given_in_base64() {
    let token = signature("base64:Y2hhbmdlbWU=", None);
    assert_eq!(verify(&token, "changeme").output, "pushpin\n");
}

#[test]
fn a_key_may_be_in_a_file_as_hexadecimal_digits() {
    waft_only!("Pushpin 1.36 as packaged reads no keys from files");
    let token = signature("file:FILE", Some("6368616e67656d65\n"));
    assert_eq!(verify(&token, "changeme").output, "pushpin\n");
}
