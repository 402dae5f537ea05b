use std::fs;
use std::path::PathBuf;

use waft_testkit::{Finished, Reply, Server, Setup, Target, free_port, waft, waft_only};

/// Runs a command of waft on a configuration file with this text.
fn command(name: &str, arguments: &[&str], text: &str) -> Finished {
    let path: PathBuf = std::env::temp_dir().join(format!("waft-config-{}-{}.toml", std::process::id(), free_port()));
    fs::write(&path, text).unwrap();
    let finished = waft().args(arguments).arg("--config").arg(&path).run();
    fs::remove_file(&path).unwrap();
    assert!(!finished.output.contains("panicked"), "{name}: {}", finished.output);
    finished
}

#[test]
fn a_native_configuration_serves() {
    waft_only!("Pushpin has no waft.toml");
    let target = Target::start(|_| Reply::hold("stream", "c").body("open\n"));
    let server = Server::start(Setup::native(format!(
        "[server]\nlisten = [\"FRONT\"]\n[control]\nlisten = [\"CONTROL\"]\n\
         [[route]]\nhost = \"*\"\npath = \"/x\"\ntargets = [\"{}\"]\n",
        target.address()
    )));
    let mut client = server.get("/x/y");
    client.expect_head(200);
    client.expect_stream("open\n");
    server.publish_text("c", "item");
    client.expect_stream("item");
    assert_eq!(server.get("/y").response().status(), 502);
}

#[test]
fn check_accepts_a_right_configuration_and_reports_its_routes() {
    waft_only!("Pushpin has no such command");
    let checked = command("check", &["check"], "[[route]]\nhost = \"a.example\"\ntargets = [\"127.0.0.1:8000\"]\n");
    assert!(checked.status.success(), "{}", checked.output);
    assert!(checked.output.contains("a.example") && checked.output.contains("127.0.0.1:8000"), "{}", checked.output);
}

#[test]
fn check_names_each_mistake_with_its_place_and_the_nearest_key() {
    waft_only!("Pushpin has no such command");
    let checked = command("check", &["check"], "[server]\nlisten = [\"7999\"]\n\n[limits]\nqueue_item = 5\n");
    assert!(!checked.status.success());
    assert!(checked.output.contains("queue_items") && checked.output.contains(":5"), "{}", checked.output);
}

#[test]
fn an_unknown_key_keeps_waft_from_starting() {
    waft_only!("Pushpin takes any key");
    let started = command("start", &[], "[server]\nlistn = [\"7999\"]\n");
    assert!(!started.status.success());
    assert!(started.output.contains("listen"), "{}", started.output);
}

#[test]
fn a_port_that_is_taken_is_told() {
    waft_only!("Pushpin's text is its own");
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!("[server]\nlisten = [\"{address}\"]\n[control]\nlisten = []\n[[route]]\ntargets = [\"test\"]\n");
    let started = command("start", &[], &text);
    assert!(!started.status.success());
    assert!(started.output.contains(&address.port().to_string()), "{}", started.output);
}

#[test]
fn a_second_waft_on_the_same_address_is_refused() {
    waft_only!("Pushpin's text is its own");
    let server = Server::start(Setup::new().route("* test"));
    let path = server.directory().join("clients.sock");
    let own = |listen: &str| format!("[server]\nlisten = [\"{listen}\"]\nshards = 2\n[control]\nlisten = []\n");
    let started = command("start", &[], &own(&server.address().to_string()));
    assert!(!started.status.success() && started.output.contains("another program"), "{}", started.output);
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let started = command("start", &[], &own(&format!("unix:{}", path.display())));
    assert!(!started.status.success() && started.output.contains("another program"), "{}", started.output);
}

#[test]
fn the_printed_defaults_are_a_right_configuration() {
    waft_only!("Pushpin has no such command");
    let printed = waft().args(["config", "--print-defaults"]).succeed();
    assert!(printed.contains("[server]") && printed.contains("[[route]]"), "{printed}");
    let checked = command("check", &["check"], &printed);
    assert!(checked.status.success(), "{}", checked.output);
}

#[test]
fn the_version_is_told() {
    waft_only!("a command of waft");
    assert!(waft().arg("--version").succeed().starts_with("waft "));
}

#[test]
fn the_publish_command_publishes() {
    waft_only!("Pushpin has a program of its own for this");
    let target = Target::start(|_| Reply::hold("stream", "c"));
    let server = Server::start(Setup::to(&target));
    let mut client = server.get("/");
    client.expect_head(200);
    let control = format!("http://{}", server.control_address());
    waft().args(["publish", "c", "hello", "--spec", &control]).succeed();
    client.expect_stream("hello\n");
}
