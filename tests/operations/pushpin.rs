//! Files made for Pushpin, and what the guide says of them.

use std::fs;
use std::path::{Path, PathBuf};

use waft_testkit::{Connection, Process, Response, Server, Setup, free_port, waft, waft_only, workspace_root};

/// A directory for one test.
fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("waft-pushpin-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

fn import(path: &Path) -> String {
    let printed = waft().arg("import").arg(path).run();
    assert!(printed.status.success(), "{}", printed.output);
    printed.output
}

/// The rows of the guide below a heading: the first cell without its quotes, and the state.
fn rows(heading: &str) -> Vec<(String, String)> {
    let guide = fs::read_to_string(workspace_root().join("docs/pushpin.md")).unwrap();
    let section = guide.split(&format!("\n{heading}\n")).nth(1).unwrap_or_else(|| panic!("no {heading}"));
    let section = section.split("\n#").next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    cells.map(|(key, rest)| (key.to_owned(), rest.split(" | ").next().unwrap().to_owned())).collect()
}

/// A value that suits a key.
fn sample(key: &str) -> &'static str {
    match key {
        "include" => "internal.conf",
        "http_port" => "7999",
        "https_ports" | "local_ports" | "prometheus_port" | "state_spec" => "",
        "log_level" | "workers" | "port_offset" => "2",
        "routesfile" => "routes",
        "x_forwarded_for" | "x_forwarded_for_trusted" => "append",
        "push_in_http_addr" => "127.0.0.1",
        "stats_format" => "json",
        "ipc_file_mode" => "660",
        "debug"
        | "auto_cross_origin"
        | "accept_x_forwarded_protocol"
        | "accept_pushpin_route"
        | "log_from"
        | "log_user_agent"
        | "allow_compression"
        | "push_in_sub_connect"
        | "update_on_first_subscription"
        | "stats_connection_send"
        | "set_x_forwarded_protocol" => "true",
        "push_in_spec" | "push_in_sub_specs" | "stats_spec" | "command_spec" => "tcp://127.0.0.1:5560",
        _ => "5561",
    }
}

#[test]
fn the_guide_tells_of_every_key_what_waft_makes_of_it() {
    waft_only!("the guide is waft's");
    let directory = directory("keys");
    let path = directory.join("pushpin.conf");
    fs::write(directory.join("routes"), "* test\n").unwrap();
    for section in ["global", "runner", "proxy", "handler"] {
        let rows = rows(&format!("### [{section}]"));
        assert!(rows.len() > 5, "{section}");
        for (key, state) in rows {
            // Keys of which one value has no effect stand with it.
            let line = match (&*key, key.contains('=')) {
                ("state_spec", _) => "state_spec=tcp://127.0.0.1:1".to_owned(),
                ("prometheus_port", _) if section == "proxy" => "prometheus_port=1".to_owned(),
                (_, true) => key.clone(),
                (_, false) => format!("{key}={}", sample(&key)),
            };
            let port = if section == "runner" { "" } else { "[runner]\nhttp_port=7999\n" };
            let more = if section == "runner" && key != "http_port" { "http_port=7999\n" } else { "" };
            fs::write(&path, format!("{port}[{section}]\n{more}{line}\n")).unwrap();
            let printed = import(&path);
            let name = line.split('=').next().unwrap();
            let told = printed.contains(&format!("{section}/{name} has no effect"));
            assert_eq!(told, state == "no effect", "{section}/{line}: {printed}");
            assert!(!printed.contains("the key is unknown"), "{section}/{line}: {printed}");
        }
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_guide_tells_of_parameters_that_routes_have() {
    waft_only!("the guide is waft's");
    let guide = rows("## Routes");
    assert!(guide.len() > 25);
    for (parameter, _state) in guide {
        // What stands on a route stands before its target, what stands on a target behind it.
        let base = if parameter.starts_with("replace_beg") { "*,path_beg=/p" } else { "*" };
        let more = if parameter.starts_with("client_cert") { ",client_key=k.pem" } else { "" };
        let accepts = |line: String| {
            let checked = waft().args(["check", "--route", line.as_str()]).run();
            checked.status.success() && checked.output.contains("127.0.0.1:8000")
        };
        let on_route = accepts(format!("{base},{parameter} 127.0.0.1:8000"));
        let on_target = accepts(format!("{base} 127.0.0.1:8000,{parameter}{more}"));
        assert!(on_route || on_target, "{parameter}");
    }
}

#[test]
fn the_guide_tells_of_every_key_of_the_package() {
    waft_only!("the guide is waft's");
    let Some((conf, _)) = packaged() else {
        eprintln!("skipped: pushpin is not installed, so there is no file to compare with");
        return;
    };
    let mut section = String::new();
    let mut keys = 0;
    for line in conf.lines().map(str::trim) {
        if line.starts_with('[') {
            section = format!("### {line}");
        } else if let Some((key, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            let told = rows(&section);
            // A value that has no effect stands with its key.
            assert!(told.iter().any(|(row, _)| row.split('=').next() == Some(key)), "{section} {key}");
            keys += 1;
        }
    }
    assert!(keys > 40, "{keys}");
}

/// What each message of the statistics has (the fields that collectors read), beside `from`.
const STATISTICS: [(&str, &str); 6] = [
    ("activity", "route count"),
    ("message", "channel item-id count blocks transport"),
    ("conn", "route id type peer-address ssl ttl unavailable"),
    ("sub", "mode channel ttl subscribers unavailable"),
    (
        "report",
        "route connections minutes received sent http-response-sent blocks-received blocks-sent duration \
         client-header-bytes-received client-header-bytes-sent client-content-bytes-received \
         client-content-bytes-sent client-messages-received client-messages-sent server-header-bytes-received \
         server-header-bytes-sent server-content-bytes-received server-content-bytes-sent server-messages-received \
         server-messages-sent",
    ),
    ("counts", "requests-received"),
];

#[test]
fn the_guide_tells_of_every_field_of_the_statistics() {
    waft_only!("the guide is waft's");
    let told = rows("## Statistics");
    let wanted: Vec<String> = STATISTICS
        .iter()
        .flat_map(|(kind, fields)| fields.split_whitespace().map(move |field| format!("{kind} {field}")))
        .collect();
    assert_eq!(told.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>(), wanted);
    assert!(told.iter().all(|(_, state)| ["same", "better"].contains(&state.as_str())), "{told:?}");
}

#[test]
fn user_agents_are_logged_where_that_is_asked_for() {
    let server = Server::start(Setup::new().route("* test").proxy("log_user_agent=true"));
    server.fetch("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: browser/9\r\n\r\n");
    server.wait_for_log("browser/9");
}

/// The files that the package of Pushpin installs, where it is installed.
fn packaged() -> Option<(String, String)> {
    let read = |name: &str| fs::read_to_string(Path::new("/etc/pushpin").join(name)).ok();
    Some((read("pushpin.conf")?, read("routes")?))
}

#[test]
fn the_files_of_the_package_serve_as_they_are_but_for_the_ports() {
    waft_only!("it is Pushpin's own");
    let Some((conf, routes)) = packaged() else {
        eprintln!("pushpin is not installed: there are no files to read");
        return;
    };
    let directory = directory("package");
    let path = directory.join("pushpin.conf");
    let front = free_port();
    let control = free_port();
    let mut conf = conf;
    for (port, free) in [(7999, front), (5560, free_port()), (5561, control), (5562, free_port()), (5563, free_port())]
    {
        assert!(conf.contains(&port.to_string()), "the package has no port {port}");
        conf = conf.replace(&port.to_string(), &free.to_string());
    }
    conf = conf.replace("/var/run/pushpin", &directory.join("run").display().to_string());
    conf = conf.replace("/var/log/pushpin", &directory.join("log").display().to_string());
    fs::write(&path, &conf).unwrap();
    fs::write(directory.join("routes"), routes).unwrap();
    let imported = import(&path);
    assert!(imported.contains(&format!("{front}")) && !imported.contains("the key is unknown"), "{imported}");
    let server: Process = waft().arg("--config").arg(&path).start();
    let get = |port: u16, path: &str| -> Response {
        let address = (std::net::Ipv4Addr::LOCALHOST, port).into();
        waft_testkit::eventually("a listener", || std::net::TcpStream::connect(address).ok());
        Connection::tcp(address).fetch(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
    };
    assert_eq!(get(front, "/").body_text(), "Hello from the Pushpin test handler!\n");
    assert_eq!(get(control, "/").status(), 200);
    drop(server);
    fs::remove_dir_all(directory).unwrap();
}
