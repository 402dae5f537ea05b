use waft_testkit::{Server, Setup, waft_only};

use crate::page::rows;
use crate::read;

/// Requests to the client port that are refused, and the route they need.
const REFUSED: &[(&str, &str)] = &[
    ("GET / HTTP/2.0\r\n\r\n", "* test"),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "* test"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", "* test"),
    ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", "* test"),
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "* test"),
    ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", "* test"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "* test"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", "* test"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", "* test"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "* test"),
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "other.example test"),
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "* 127.0.0.1:1"),
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "*,debug=true 127.0.0.1:1"),
    ("GET /x HTTP/1.1\r\nHost: a\r\n\r\n", "* test"),
    ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "* test"),
];

/// Requests to the control API that are refused.
const CONTROL: &[&str] = &[
    "GET /publish/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /publish/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /publish/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n{",
    "POST /publish/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n[]",
    "POST /publish/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
    "POST /publish/ HTTP/1.1\r\nHost: a\r\nContent-Length: 27\r\n\r\n{\"items\":[{\"channel\":\"a\"}]}",
    "POST /publish/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n",
    "POST /publish/ HTTP/1.1\r\nHost: a\r\nAccept: image/png\r\nContent-Length: 2\r\n\r\n{}",
    "GET /other HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /channels?limit=x HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// Whether a text of the page, in which `...` stands for anything, is this one.
fn is_meant(told: &str, text: &str) -> bool {
    let mut rest = text;
    let mut parts = told.split("...").enumerate().peekable();
    while let Some((number, part)) = parts.next() {
        let at = match (number, parts.peek()) {
            (0, _) => rest.starts_with(part).then_some(0),
            (_, None) => rest.ends_with(part).then(|| rest.len() - part.len()),
            _ => rest.find(part),
        };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

fn check(page: &str, status: u16, text: &str) {
    let found = rows(page).any(|row| row[0] == status.to_string() && is_meant(row[1].trim_matches('`'), text));
    assert!(found, "docs/errors.md does not tell of: {status} {text}");
}

#[test]
fn every_refusal_that_clients_can_get_is_on_the_page() {
    waft_only!("the texts are waft's");
    let page = read("docs/errors.md");
    for (request, route) in REFUSED {
        let server = Server::start(Setup::new().route(*route));
        let answer = server.fetch(request);
        assert!(answer.status() >= 400, "{request}");
        check(&page, answer.status(), answer.body_text().trim_end());
    }
}

#[test]
fn every_refusal_of_the_control_api_is_on_the_page() {
    waft_only!("the texts are waft's");
    let page = read("docs/errors.md");
    let server = Server::start(Setup::new().route("* test"));
    for request in CONTROL {
        let answer = server.control(request);
        assert!(answer.status() >= 400, "{request}");
        check(&page, answer.status(), answer.body_text().trim_end());
    }
}

/// Every text in the sources with which the wire crates refuse a message is on the page.
#[test]
fn every_rule_of_http_that_can_be_broken_is_on_the_page() {
    let page = read("docs/errors.md");
    let source = read("crates/waft-http1/src/error.rs");
    let texts: Vec<&str> = source.split("#[error(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(texts.len() > 20, "the texts were not found");
    for text in texts {
        let text = text.replace("{limit}", "...");
        assert!(page.contains(&format!("`{text}`")), "docs/errors.md does not tell of: {text}");
    }
}

#[test]
fn dots_stand_for_anything() {
    for (told, text, expected) in
        [("a", "a", true), ("a", "ab", false), ("a ... c", "a b c", true), ("...", "x", true), ("a ...", "b", false)]
    {
        assert_eq!(is_meant(told, text), expected, "{told} {text}");
    }
}
