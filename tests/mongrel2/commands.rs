use std::fs;

use rustix::process::Signal;
use waft_testkit::{Script, free_port, program, waft_binary};

use crate::site::{Site, Which, conf, free_base, make_directory};

/// The program under the name `m2sh`, in a directory.
fn m2sh(directory: &std::path::Path) -> Script {
    program("bash")
        .args(["-c", "exec -a m2sh \"$WAFT\" \"$@\"", "m2sh"])
        .env("WAFT", waft_binary())
        .env("LOGNAME", "test")
        .directory(directory.to_str().unwrap())
}

#[test]
fn both_programs_read_what_either_has_loaded() {
    let directory = make_directory("load");
    let text = conf(&directory, free_port(), free_port(), r#""zeromq.threads": 1"#);
    fs::write(directory.join("mongrel2.conf"), text).unwrap();
    let genuine = || program("m2sh").env("LOGNAME", "test").directory(directory.to_str().unwrap());
    let lines = |said: String| -> Vec<String> {
        let mut lines: Vec<String> = said
            .lines()
            .filter(|line| !line.contains("[WARN]"))
            // waft numbers routes and tells what hosts match, as the genuine program's manual says it does.
            .map(|line| line.split_once(": /").map_or(line.trim().to_owned(), |(_, path)| format!("/{path}")))
            .map(|line| line.split_once(": ").map_or(line.clone(), |(name, _)| name.to_owned()))
            .collect();
        lines.sort();
        lines
    };
    m2sh(&directory).args(["load", "-db", "ours.sqlite"]).succeed();
    genuine().args(["load", "-db", "theirs.sqlite", "-config", "mongrel2.conf"]).succeed();
    for database in ["ours.sqlite", "theirs.sqlite"] {
        for command in
            [["servers"].as_slice(), &["hosts", "-server", "main"], &["routes", "-server", "main", "-host", "one.test"]]
        {
            let theirs = genuine().args(command).args(["-db", database]).succeed();
            let ours = m2sh(&directory).args(command).args(["--db", database]).succeed();
            assert_eq!(lines(ours), lines(theirs), "{command:?} of {database}");
        }
    }
    let plan = |file: &str| {
        waft_testkit::waft().args(["import", file, "u-1"]).directory(directory.to_str().unwrap()).succeed()
    };
    let routes = |text: String| {
        let mut routes: Vec<String> = text.split("\n[[route]]\n").skip(1).map(ToOwned::to_owned).collect();
        routes.sort();
        routes
    };
    assert_eq!(routes(plan("ours.sqlite")), routes(plan("mongrel2.conf")));
    assert_eq!(routes(plan("ours.sqlite")).len(), 11);
    assert!(m2sh(&directory).args(["log", "-db", "ours.sqlite"]).succeed().contains("load"));
    m2sh(&directory).args(["commit", "-db", "theirs.sqlite", "-what", "x", "-why", "because"]).succeed();
    assert!(genuine().args(["log", "-db", "theirs.sqlite"]).succeed().contains("because"));
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_server_is_started_asked_and_stopped_by_command() {
    let directory = make_directory("start");
    let text =
        conf(&directory, free_port(), free_base(), "").replace("\"server.daemonize\": 0", "\"server.daemonize\": 1");
    fs::write(directory.join("mongrel2.conf"), text).unwrap();
    m2sh(&directory).arg("load").succeed();
    assert!(!m2sh(&directory).args(["running", "-every"]).run().status.success());
    m2sh(&directory).args(["start", "-every"]).succeed();
    assert!(m2sh(&directory).args(["running", "-name", "main"]).succeed().contains("running."));
    let control = program("bash")
        .args(["-c", "printf 'uuid\\nstatus what=net\\n' | exec -a m2sh \"$WAFT\" control -every"])
        .env("WAFT", waft_binary())
        .directory(directory.to_str().unwrap())
        .succeed();
    assert!(control.starts_with("uuid\nu-1\nid  fd  type"), "{control}");
    m2sh(&directory).args(["reload", "-uuid", "u-1"]).succeed();
    m2sh(&directory).args(["stop", "-host", "one.test"]).succeed();
    waft_testkit::eventually("the end of the server", || {
        (!m2sh(&directory).args(["running", "-every"]).run().status.success()).then_some(())
    });
    assert!(!directory.join("run/m2.pid").exists());
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn commands_that_fail_say_why_and_end_with_1() {
    let directory = make_directory("fail");
    fs::write(directory.join("bad.conf"), "a = 1\nb = ?\n").unwrap();
    for (args, expected) in [
        (["load", "-config", "bad.conf"].as_slice(), "bad.conf cannot be used: line 2: `?` has no meaning here"),
        (&["load", "-config", "none.conf"], "none.conf cannot be read"),
        (&["bogus"], "`bogus` is no command"),
        (&["start"], "just one of -every, -name, -host and -uuid"),
        (&["servers"], "config.sqlite cannot be read"),
        (&["route", "-match", "/a", "-pattern", "/b"], "'/a' does not match '/b'"),
    ] {
        let finished = m2sh(&directory).args(args).run();
        assert_eq!(finished.status.code(), Some(1), "{args:?}: {}", finished.output);
        assert!(finished.output.contains(expected), "{args:?}: {}", finished.output);
    }
    assert!(!directory.join("config.sqlite").exists());
    fs::remove_dir_all(directory).unwrap();
}

/// A hang-up brings a changed configuration and another log file; connections stay.
#[test]
fn a_hang_up_changes_routes_and_drops_no_connection() {
    let mut site = Site::start(Which::Waft, "reload", "");
    let mut client = waft_testkit::Connection::tcp(([127, 0, 0, 1], site.port).into());
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: one.test\r\n\r\n");
    assert_eq!(client.fetch(get("/files/a.txt")).status(), 200);
    assert_eq!(client.fetch(get("/more/a.txt")).status(), 502);
    let path = site.directory.join("mongrel2.conf");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("'/files/'", "'/more/'")).unwrap();
    fs::rename(site.directory.join("logs/access.log"), site.directory.join("logs/old.log")).unwrap();
    site.signal(Signal::HUP);
    waft_testkit::eventually("the new route", || (client.fetch(get("/more/a.txt")).status() == 200).then_some(()));
    // The routes may have been read again before the log was opened again.
    waft_testkit::eventually("the new log", || {
        client.fetch(get("/more/a.txt"));
        fs::read_to_string(site.directory.join("logs/access.log")).ok().filter(|text| text.contains("/more/a.txt"))
    });
    site.signal(Signal::INT);
    assert!(site.wait_for_exit().success());
}
