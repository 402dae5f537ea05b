use std::net::SocketAddr;

use waft_testkit::{Connection, Process, Reply, Target, free_port, waft};

fn start(args: &[&str]) -> (Process, SocketAddr) {
    let port = free_port();
    let process = waft().args(["egress", "--listen", &format!("127.0.0.1:{port}")]).args(args).start();
    process.wait_for_output("The egress proxy is ready", 1);
    (process, ([127, 0, 0, 1], port).into())
}

fn connect(proxy: SocketAddr, place: &str, more: &str) -> (Connection, u16) {
    let mut client = Connection::tcp(proxy);
    client.send(format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{more}\r\n"));
    let status = client.head().status();
    (client, status)
}

#[test]
fn the_proxy_tunnels_to_what_is_allowed_and_to_nothing_else() {
    let target = Target::start(|_| Reply::text("through the tunnel"));
    let allowed = target.address().to_string();
    let (_proxy, proxy) = start(&["--allow", &allowed]);
    let (mut client, status) = connect(proxy, &allowed, "");
    assert_eq!(status, 200);
    assert_eq!(client.fetch("GET / HTTP/1.1\r\nHost: a\r\n\r\n").body_text(), "through the tunnel");
    for (place, expected) in [
        ("127.0.0.1:1", 403),
        ("127.0.0.2:8080", 403),
        ("localhost:8080", 403),
        ("0x7f.1:8080", 403),
        ("[::1]:8080", 403),
        ("[::ffff:169.254.169.254]:80", 403),
        ("metadata.google.internal:80", 403),
        ("10.0.0.1:443", 403),
        ("93.184.216.34:25", 403),
        (&proxy.to_string(), 403),
    ] {
        assert_eq!(connect(proxy, place, "").1, expected, "{place}");
    }
    let mut client = Connection::tcp(proxy);
    let answer = client.fetch(format!("GET http://{allowed}/ HTTP/1.1\r\nHost: {allowed}\r\n\r\n"));
    assert_eq!(answer.status(), 405);
    assert_eq!(target.request_count(), 1);
}

#[test]
fn the_proxy_asks_for_its_password() {
    let target = Target::start(|_| Reply::text("hello"));
    let allowed = target.address().to_string();
    let (_proxy, proxy) = start(&["--allow", &allowed, "--password", "secret"]);
    assert_eq!(connect(proxy, &allowed, "").1, 407);
    assert_eq!(connect(proxy, &allowed, "Proxy-Authorization: Basic YTpiYWQ=\r\n").1, 407);
    assert_eq!(connect(proxy, &allowed, "Proxy-Authorization: Basic YTpzZWNyZXQ=\r\n").1, 200);
}
