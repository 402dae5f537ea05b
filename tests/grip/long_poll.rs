use serde_json::json;
use waft_testkit::{Reply, Server, Setup, Target};

#[test]
fn a_published_item_answers_the_request() {
    let target = Target::start(|_| Reply::hold("response", "news"));
    let server = Server::start(Setup::to(&target));
    let mut client = server.get("/poll");
    server.publish_until_answered(&mut client, &json!([{"channel":"news","http-response":{"body":"hi\n"}}]));
    let answer = client.response();
    assert_eq!((answer.status(), answer.body_text().as_str()), (200, "hi\n"));
}
