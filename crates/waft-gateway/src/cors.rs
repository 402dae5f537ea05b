//! Headers that let scripts of other sites read a response (the route option `aco`).

use waft_http1::{Fields, RequestHead};

use crate::forward::begins_with;

/// What a request says about the script that makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    origin: Option<Box<[u8]>>,
    method: Option<Box<[u8]>>,
    headers: Option<Box<[u8]>>,
}

/// Methods that are allowed when a request does not name one.
const METHODS: &[u8] = b"OPTIONS, HEAD, GET, POST, PUT, DELETE";

/// Response headers that scripts may always read (the safelist of the Fetch standard, and `Content-Length`).
const ALWAYS_EXPOSED: [&str; 7] =
    ["Cache-Control", "Content-Language", "Content-Length", "Content-Type", "Expires", "Last-Modified", "Pragma"];

impl Asked {
    /// What `head` says.
    pub(crate) fn of(head: &RequestHead) -> Self {
        let asked: Vec<&[u8]> = head.fields_named("access-control-request-headers").collect();
        Self {
            origin: head.field("origin").map(Box::from),
            method: head.field("access-control-request-method").map(Box::from),
            headers: (!asked.is_empty()).then(|| asked.join(b", ".as_slice()).into()),
        }
    }

    /// Adds to the fields of a response what its target has not set itself.
    pub(crate) fn apply(&self, fields: &mut Fields) {
        let exposed: Vec<&str> = {
            let mut names: Vec<&str> = Vec::new();
            for (name, _) in fields.iter().filter(|(name, _)| needs_exposure(name)) {
                if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                    names.push(name);
                }
            }
            names
        };
        let exposed = exposed.join(", ");
        let mut add = |name: &str, value: &[u8]| {
            if !value.is_empty() && !fields.contains(name) {
                fields.push(name, value);
            }
        };
        add("Access-Control-Allow-Methods", self.method.as_deref().unwrap_or(METHODS));
        add("Access-Control-Allow-Headers", self.headers.as_deref().unwrap_or_default());
        add("Access-Control-Expose-Headers", exposed.as_bytes());
        add("Access-Control-Allow-Credentials", b"true");
        add("Access-Control-Allow-Origin", self.origin.as_deref().unwrap_or(b"*"));
        add("Access-Control-Max-Age", b"3600");
    }
}

fn needs_exposure(name: &str) -> bool {
    !ALWAYS_EXPOSED.iter().any(|known| known.eq_ignore_ascii_case(name))
        && !begins_with(name, "access-control-")
        && !begins_with(name, "grip-")
}

#[cfg(test)]
mod tests {
    use waft_http1::{HeadLimits, Parsed, parse_request};

    use super::*;

    fn check(request: &str, response: &[(&str, &str)], added: &[(&str, &str)]) {
        let text = format!("GET / HTTP/1.1\r\n{request}\r\n");
        let Ok(Parsed::Complete { head, .. }) = parse_request(text.as_bytes(), &HeadLimits::default()) else {
            panic!("no request: {text}");
        };
        let mut fields: Fields = response.iter().copied().collect();
        Asked::of(&head).apply(&mut fields);
        let expected: Fields = response.iter().chain(added).copied().collect();
        assert_eq!(fields, expected);
    }

    const ALLOW_ALL: [(&str, &str); 4] = [
        ("Access-Control-Allow-Methods", "OPTIONS, HEAD, GET, POST, PUT, DELETE"),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Max-Age", "3600"),
    ];

    #[test]
    fn a_request_that_asks_for_nothing_is_allowed_the_usual() {
        check("", &[], &ALLOW_ALL);
        check("", &[("content-type", "a"), ("Grip-Hold", "b"), ("Access-Control-Foo", "c")], &ALLOW_ALL);
    }

    #[test]
    fn what_a_request_asks_for_is_allowed() {
        let request = "Origin: http://o\r\nAccess-Control-Request-Headers: X-A\r\nAccess-Control-Request-Headers: X-B\r\n\
                       Access-Control-Request-Method: PATCH\r\n";
        let response = [("X-One", "1"), ("Content-Type", "a"), ("ETag", "2"), ("x-one", "3")];
        let added = [
            ("Access-Control-Allow-Methods", "PATCH"),
            ("Access-Control-Allow-Headers", "X-A, X-B"),
            ("Access-Control-Expose-Headers", "X-One, ETag"),
            ("Access-Control-Allow-Credentials", "true"),
            ("Access-Control-Allow-Origin", "http://o"),
            ("Access-Control-Max-Age", "3600"),
        ];
        check(request, &response, &added);
    }

    #[test]
    fn what_the_target_set_stays() {
        let response = [
            ("access-control-allow-origin", "https://only.example"),
            ("Access-Control-Allow-Credentials", "false"),
            ("Access-Control-Expose-Headers", "X-Two"),
            ("X-One", "1"),
        ];
        let added = [
            ("Access-Control-Allow-Methods", "OPTIONS, HEAD, GET, POST, PUT, DELETE"),
            ("Access-Control-Max-Age", "3600"),
        ];
        check("Origin: http://o\r\n", &response, &added);
    }
}
