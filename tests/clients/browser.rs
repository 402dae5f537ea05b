use serde_json::json;
use waft_testkit::{Reply, Server, Setup, Target, chromium};

/// Reads events, sends each to the backend, and says when the stream is open; then polls and sends that too.
const PAGE: &str = r#"<!doctype html><title>test</title><script>
const report = (text) => fetch('/report', { method: 'POST', body: text });
const events = new EventSource('/events');
events.onopen = () => report('open');
events.onmessage = async (event) => {
  await report(event.lastEventId + ':' + event.data);
  const poll = await fetch('/poll');
  await report('poll ' + poll.status + ' ' + await poll.text());
};
</script>"#;

#[test]
fn a_browser_reads_events_and_polls() {
    let target = Target::start(|request| match request.path() {
        "/page" => Reply::status("200 OK").header("Content-Type", "text/html").body(PAGE),
        "/events" => Reply::status("200 OK")
            .header("Content-Type", "text/event-stream")
            .header("Grip-Hold", "stream")
            .header("Grip-Channel", "events"),
        "/poll" => Reply::hold("response", "poll"),
        _ => Reply::text(""),
    });
    let server = Server::start(Setup::to(&target));
    let profile = server.directory().join("profile");
    let _browser = chromium(&format!("http://{}/page", server.address()), &profile).start();
    let reported = || {
        loop {
            let request = target.next_request();
            if request.path() == "/report" {
                return request.body_text();
            }
        }
    };
    assert_eq!(reported(), "open");
    server.publish(json!([{ "channel": "events", "http-stream": { "content": "id: 5\ndata: hi\n\n" } }]));
    assert_eq!(reported(), "5:hi");
    server.wait_for_holds(2);
    server.publish(json!([{ "channel": "poll", "http-response": { "code": 201, "body": "answer" } }]));
    assert_eq!(reported(), "poll 201 answer");
}
