use serde_json::json;
use waft_testkit::{Reply, Server, Setup, Target, program};

fn serve() -> (Target, Server) {
    let target = Target::start(|request| match request.path() {
        "/stream" => Reply::hold("stream", "c").body("open\n"),
        "/poll" => Reply::hold("response", "c"),
        _ => Reply::text(&request.body),
    });
    let server = Server::start(Setup::to(&target));
    (target, server)
}

#[test]
fn curl_prints_items_as_they_come_and_ends_with_the_stream() {
    let (_target, server) = serve();
    let mut curl = program("curl").args(["-sSN", &format!("http://{}/stream", server.address())]).start();
    curl.wait_for_output("open\n", 1);
    server.publish_text("c", "one\n");
    curl.wait_for_output("one\n", 1);
    server.publish(json!([{ "channel": "c", "http-stream": { "action": "close" } }]));
    assert!(curl.wait_for_exit().success(), "{}", curl.output());
}

#[test]
fn curl_gets_the_answer_to_its_poll() {
    let (_target, server) = serve();
    let mut curl = program("curl").args(["-sSi", &format!("http://{}/poll", server.address())]).start();
    server.wait_for_holds(1);
    server.publish_text("c", "answer\n");
    assert!(curl.wait_for_exit().success());
    curl.wait_for_output("answer\n", 1);
    curl.wait_for_output("200 OK", 1);
}

#[test]
fn curl_uploads_with_expect_and_in_chunks() {
    let (_target, server) = serve();
    let url = format!("http://{}/echo", server.address());
    let file = server.directory().join("upload");
    std::fs::write(&file, "0123456789".repeat(200_000)).unwrap();
    let data = format!("@{}", file.display());
    for header in ["Expect: 100-continue", "Transfer-Encoding: chunked"] {
        let out = server.directory().join("download");
        program("curl")
            .args(["-sSf", "-H", header, "--data-binary", &data, "-o", out.to_str().unwrap(), &url])
            .succeed();
        assert!(
            std::fs::read(&out).unwrap() == std::fs::read(&file).unwrap(),
            "{header}: the upload came back changed"
        );
    }
}

#[test]
fn curl_publishes() {
    let (_target, server) = serve();
    let mut client = server.get("/stream");
    client.expect_head(200);
    client.expect_stream("open\n");
    let body = json!({ "items": [{ "channel": "c", "http-stream": { "content": "by curl\n" } }] }).to_string();
    let said =
        program("curl").args(["-sS", "-d", &body, &format!("http://{}/publish/", server.control_address())]).succeed();
    assert_eq!(said, "Published\n");
    client.expect_stream("by curl\n");
}
