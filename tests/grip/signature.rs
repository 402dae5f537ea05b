use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use waft_testkit::{Reply, Request, Server, Setup, Target, differs, waft_only};

use crate::serve;

/// The bytes of unpadded base64url.
fn decode(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes() {
        let value = ALPHABET.iter().position(|letter| *letter == byte).unwrap();
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// Header and claims of the signature of a request.
fn token(request: &Request) -> (Value, Value) {
    let parts: Vec<&str> = request.header("Grip-Sig").unwrap().split('.').collect();
    assert_eq!(parts.len(), 3);
    (serde_json::from_slice(&decode(parts[0])).unwrap(), serde_json::from_slice(&decode(parts[1])).unwrap())
}

#[test]
fn requests_to_the_backend_are_signed_for_an_hour() {
    let (target, server) = serve(|_| Reply::text(""));
    server.get("/").response();
    let (header, claims) = token(&target.next_request());
    assert_eq!((header["alg"].as_str(), header["typ"].as_str()), (Some("HS256"), Some("JWT")));
    assert_eq!(claims["iss"], "pushpin");
    assert_eq!(claims.as_object().unwrap().len(), 2);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let expires = claims["exp"].as_u64().unwrap();
    assert!((now + 3_590..=now + 3_610).contains(&expires), "{expires} is not an hour after {now}");
}

#[test]
fn a_route_may_have_its_own_issuer_and_key() {
    let target = Target::start(|_| Reply::text(""));
    let server = Server::start(Setup::new().route(format!("*,sig_iss=other,sig_key=k {}", target.address())));
    server.get("/").response();
    assert_eq!(token(&target.next_request()).1["iss"], "other");
}

#[test]
fn without_a_key_requests_are_not_signed() {
    waft_only!("Pushpin 1.36 signs with an empty key");
    let target = Target::start(|_| Reply::text(""));
    let server = Server::start(Setup::to(&target).proxy("sig_key="));
    server.get("/").response();
    assert_eq!(target.next_request().header("Grip-Sig"), None);
}

#[test]
fn the_backend_is_told_what_the_proxy_can_do() {
    let (target, server) = serve(|_| Reply::text(""));
    server.get("/").response();
    let request = target.next_request();
    let features: Vec<&str> = request.header("Grip-Feature").unwrap().split(", ").collect();
    let known = [
        "status",
        "session",
        "link:next",
        "filter:skip-self",
        "filter:skip-users",
        "filter:require-sub",
        "filter:build-id",
        "filter:var-subst",
    ];
    assert!(known.iter().all(|feature| features.contains(feature)), "{features:?}");
    let has_gone = differs("Pushpin 1.36 has no gone links", false, true);
    assert_eq!(features.contains(&"link:gone"), has_gone);
}

#[test]
fn grip_headers_of_a_client_do_not_reach_the_backend() {
    let (target, server) = serve(|_| Reply::text(""));
    server.fetch("GET / HTTP/1.1\r\nHost: a\r\nGrip-Sig: forged\r\ngrip-last: c; last-id=1\r\nGRIP-Foo: 1\r\n\r\n");
    let request = target.next_request();
    assert_ne!(request.header("Grip-Sig"), Some("forged"));
    assert_eq!((request.header("Grip-Last"), request.header("Grip-Foo")), (None, None));
    assert_eq!(request.head.headers("Grip-Sig").count(), 1);
}

#[test]
fn a_route_without_grip_neither_signs_nor_understands() {
    let target = Target::start(|_| Reply::hold("stream", "c").body("plain"));
    let server = Server::start(Setup::new().route(format!("*,no_grip {}", target.address())));
    let answer = server.get("/").response();
    assert_eq!((answer.body_text().as_str(), answer.head.header("Grip-Hold")), ("plain", Some("stream")));
    let request = target.next_request();
    assert_eq!((request.header("Grip-Sig"), request.header("Grip-Feature")), (None, None));
}

#[test]
fn a_signed_request_of_a_proxy_in_front_passes_through_with_its_instructions() {
    let target = Target::start(|_| Reply::hold("stream", "c").body("open\n"));
    let inner = Server::start(Setup::to(&target).proxy("upstream_key=shared").proxy("sig_key=other"));
    let outer = Server::start(Setup::new().route(format!("* {}", inner.address())).proxy("sig_key=shared"));
    let mut client = outer.get("/stream");
    client.expect_head(200);
    client.expect_stream("open\n");
    let request = target.next_request();
    assert_eq!(request.head.headers("Grip-Sig").count(), 1);
    // The hold is the outer one's.
    outer.publish_text("c", "from outside");
    client.expect_stream("from outside");
}

#[test]
fn a_signature_with_the_wrong_key_is_not_trusted() {
    let target = Target::start(|_| Reply::hold("stream", "c").body("open\n"));
    let inner = Server::start(Setup::to(&target).proxy("upstream_key=shared"));
    let outer = Server::start(Setup::new().route(format!("* {}", inner.address())).proxy("sig_key=forged"));
    let mut client = outer.get("/stream");
    let head = client.expect_head(200);
    client.expect_stream("open\n");
    assert!(head.is_chunked());
    // The hold is the inner one's.
    inner.publish_text("c", "from inside");
    client.expect_stream("from inside");
}
