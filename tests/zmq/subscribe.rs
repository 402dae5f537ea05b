use waft_testkit::{Process, Reply, Server, Setup, Target, free_port, python, waft_only};

/// Holds every request as its path says: `/stream/c` or `/response/c`.
fn target() -> Target {
    Target::start(|request| {
        let (mode, channel) = request.path().trim_start_matches('/').split_once('/').unwrap();
        Reply::hold(mode, channel)
    })
}

fn publisher(how: &str, port: u16, encoding: &str) -> Process {
    python("tests/zmq/xpub.py").args([how, &format!("tcp://127.0.0.1:{port}"), encoding]).start()
}

fn bound(target: &Target, linger_s: u32) -> (Server, u16) {
    let port = free_port();
    let setup = Setup::to(target)
        .handler(format!("push_in_sub_spec=tcp://127.0.0.1:{port}"))
        .handler(format!("subscription_linger={linger_s}"));
    (Server::start(setup), port)
}

#[test]
fn a_publisher_sees_the_first_and_the_last_subscription_of_a_channel() {
    let target = target();
    let (server, port) = bound(&target, 60);
    for encoding in ["plain", "T", "json"] {
        let publisher = publisher("connect", port, encoding);
        let channel = format!("c-{encoding}");
        let mut first = server.get(&format!("/stream/{channel}"));
        first.expect_head(200);
        first.expect_stream(format!("hello {channel}\n"));
        let mut second = server.get(&format!("/stream/{channel}"));
        second.expect_head(200);
        server.publish_text(&channel, "to both");
        first.expect_stream("to both");
        second.expect_stream("to both");
        drop(first);
        // A channel of its own, whose end can only come after that of the first client.
        let mut third = server.get(&format!("/stream/after-{encoding}"));
        third.expect_head(200);
        publisher.wait_for_output(&format!("+after-{encoding}"), 1);
        assert!(!publisher.output().contains(&format!("-{channel}\n-")));
        drop(second);
        publisher.wait_for_output(&format!("-{channel}\n"), 1);
        assert_eq!(publisher.output().matches(&format!("+{channel}\n")).count(), 1);
    }
}

#[test]
fn the_channel_of_a_long_poll_lingers() {
    let target = target();
    let (server, port) = bound(&target, 2);
    let publisher = publisher("connect", port, "T");
    let mut marker = server.get("/stream/marker");
    marker.expect_head(200);
    publisher.wait_for_output("+marker", 1);
    let mut poll = server.get("/response/polled");
    assert_eq!(poll.response().body_text(), "hello polled\n");
    // The answered client is back in time, and its publisher notices nothing of it.
    let mut again = server.get("/response/polled");
    server.publish_until_answered(
        &mut again,
        &serde_json::json!([{ "channel": "polled", "http-response": { "body": "x" } }]),
    );
    publisher.wait_for_output("-polled\n", 1);
    assert_eq!(publisher.output().matches("+polled\n").count(), 1);
}

#[test]
fn subscriptions_go_to_every_publisher_that_waft_connects_to() {
    let target = target();
    let ports = [free_port(), free_port()];
    let publishers = ports.map(|port| publisher("bind", port, "T"));
    let specs = ports.map(|port| format!("tcp://127.0.0.1:{port}")).join(",");
    let setup = Setup::to(&target).handler(format!("push_in_sub_specs={specs}")).handler("push_in_sub_connect=true");
    let server = Server::start(setup);
    let mut stream = server.get("/stream/c");
    stream.expect_head(200);
    for publisher in &publishers {
        publisher.wait_for_output("+c\n", 1);
    }
    // One item of each.
    stream.expect_stream("hello c\nhello c\n");
    drop(stream);
    for publisher in &publishers {
        publisher.wait_for_output("-c\n", 1);
    }
}

#[test]
fn a_publisher_that_comes_late_hears_of_all_channels() {
    waft_only!("Pushpin's socket has a mark of 1,000 subscriptions");
    const CHANNELS: usize = 30 * 50;
    let channels = |path: &str| (0..50).map(|number| format!("{path}-{number}")).collect::<Vec<_>>().join(", ");
    let target = Target::start(move |request| Reply::hold("stream", &channels(request.path().trim_start_matches('/'))));
    let port = free_port();
    let setup = Setup::to(&target)
        .handler(format!("push_in_sub_spec=tcp://127.0.0.1:{port}"))
        .handler("connection_subscription_max=50");
    let server = Server::start(setup);
    let streams: Vec<_> = (0..30).map(|number| server.get(&format!("/{number}"))).collect();
    server.wait_for_holds(30);
    let publisher = publisher("connect", port, "T");
    publisher.wait_for_output("+", CHANNELS);
    drop(streams);
    publisher.wait_for_output("-", CHANNELS + CHANNELS);
}

#[test]
fn pubcontrol_finds_the_sockets_and_publishes_either_way() {
    let target = target();
    let (server, _port) = bound(&target, 60);
    for way in ["push", "pub"] {
        let mut stream = server.get(&format!("/stream/{way}"));
        stream.expect_head(200);
        let script = python("tests/zmq/pubcontrol_publish.py");
        let publisher = script.args([&server.command_address(), way, way, "from pubcontrol"]).start();
        stream.expect_stream("from pubcontrol");
        publisher.wait_for_output("published", 1);
    }
}
