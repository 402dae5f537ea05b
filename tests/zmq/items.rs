use std::fs;

use waft_testkit::{Reply, Server, Setup, Subject, Target, program, python, subject, waft, waft_only};

/// A server with a stream on channel `c`, open.
fn with_stream(setup: impl FnOnce(Setup) -> Setup) -> (Target, Server, waft_testkit::Connection) {
    let target = Target::start(|_| Reply::hold("stream", "c"));
    let server = Server::start(setup(Setup::to(&target)));
    let mut stream = server.get("/");
    stream.expect_head(200);
    server.wait_for_holds(1);
    (target, server, stream)
}

fn push(server: &Server, messages: &[&str]) {
    assert_eq!(python("tests/zmq/push.py").arg(server.pull_address()).args(messages).succeed(), "pushed\n");
}

#[test]
fn items_are_taken_in_all_three_encodings() {
    let (_target, server, mut stream) = with_stream(|setup| setup);
    push(
        &server,
        &[
            r"48:7:channel,1:c,11:http-stream,15:7:content,2:1\n,}}",
            r"T48:7:channel,1:c,11:http-stream,15:7:content,2:2\n,}}",
            r#"J{"channel":"c","http-stream":{"content":"3"}}"#,
            r#"J{"channel":"c","formats":{"http-stream":{"content-bin":"NAo="}}}"#,
        ],
    );
    stream.expect_stream("1\n2\n34\n");
}

#[test]
fn messages_that_are_no_items_are_skipped() {
    let (_target, server, mut stream) = with_stream(|setup| setup);
    push(
        &server,
        &[
            "J{",
            "J[]",
            r#"J{"channel":"c"}"#,
            "T2:ab,",
            "0:}",
            r#"J{"channel":"c","http-stream":{"content":"still here"}}"#,
        ],
    );
    stream.expect_stream("still here");
}

#[test]
fn what_is_cut_short_or_has_many_frames_ends_nothing_and_is_counted() {
    waft_only!("a TNetString that is cut short ends Pushpin 1.36");
    let (_target, server, mut stream) = with_stream(|setup| setup);
    let good = r#"J{"channel":"c","http-stream":{"content":"still here"}}"#;
    push(&server, &["5:abc", "T99999999999:x,", "", "|", r"\xff\xfe", "1:a,|1:b,", good]);
    stream.expect_stream("still here");
    assert_eq!(server.metric("waft_publish_malformed_total"), Some(6.0));
    server.wait_for_log("Skipped a message that is no item");
}

#[test]
fn the_publishing_command_pushes_to_a_zeromq_address() {
    let (_target, server, mut stream) = with_stream(|setup| setup);
    let command = match subject() {
        Subject::Pushpin => program("pushpin-publish"),
        Subject::Waft => waft().arg("publish"),
    };
    let said = command.args(["c", "by h\u{e4}nd", "--spec", &server.pull_address()]).succeed();
    assert_eq!(said, "Published\n");
    stream.expect_stream("by h\u{e4}nd\n");
}

#[test]
fn the_publishing_command_says_when_nobody_listens() {
    waft_only!("Pushpin's command waits for ever for someone to listen");
    let address = format!("tcp://127.0.0.1:{}", waft_testkit::free_port());
    let finished = waft().args(["publish", "c", "x", "--spec", &address]).run();
    assert!(!finished.status.success());
    assert!(finished.output.contains("cannot connect to tcp://"), "{}", finished.output);
}

#[test]
fn an_ipc_socket_is_bound_with_the_mode_that_is_asked_for() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let (_target, server, mut stream) =
        with_stream(|setup| setup.handler("push_in_spec=ipc://{rundir}/{ipc_prefix}in").handler("ipc_file_mode=640"));
    let path = server.directory().join("run/pushpin-in");
    let data = fs::metadata(&path).unwrap();
    assert!(data.file_type().is_socket());
    assert_eq!(data.permissions().mode() & 0o777, 0o640);
    let item = r#"J{"channel":"c","http-stream":{"content":"by ipc"}}"#;
    python("tests/zmq/push.py").args([&format!("ipc://{}", path.display()), item]).succeed();
    stream.expect_stream("by ipc");
}

/// The names of a server's threads.
fn threads(server: &Server) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
    tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok()).collect()
}

#[test]
fn without_an_address_no_thread_of_zeromq_runs() {
    waft_only!("Pushpin's processes talk by ZeroMQ");
    let of_zeromq = |name: &String| name.to_lowercase().contains("zmq");
    let config = "[server]\nlisten = [\"FRONT\"]\n[control]\nlisten = [\"CONTROL\"]\n";
    let without = threads(&Server::start(Setup::native(config)));
    assert_eq!(without.iter().filter(|name| of_zeromq(name)).count(), 0, "{without:?}");
    let with = threads(&Server::start(Setup::new()));
    assert!(with.iter().any(of_zeromq), "{with:?}");
}
