//! What answers a held request (GRIP section 6.1): the published payload over the response the origin prepared.

use bytes::Bytes;

use crate::header::{HeaderList, is_framing, is_grip, split_commas};
use crate::instruct::ResponseParts;
use crate::item::{HttpResponse, ResponseBody};
use crate::patch::PatchError;

/// Status code, reason, headers and body of the answer to a response hold. `timeout_response` and `timeout_body` are
/// what the origin gave for the case that nothing is published.
///
/// Headers are inherited by name: an item's header replaces all inherited ones of its name. `Content-Length` and the
/// rest of the framing are left to the writer. A `Grip-Expose-Headers` header of the *item* removes the headers it
/// names, the reverse of its meaning in an instruct; publishers rely on it.
///
/// # Errors
/// [`PatchError`] if the item patches the body and that fails.
pub fn answer(
    timeout_response: &ResponseParts,
    timeout_body: &[u8],
    item: &HttpResponse,
) -> Result<(u16, String, HeaderList, Bytes), PatchError> {
    let body = match &item.body {
        ResponseBody::Bytes(body) => body.clone(),
        ResponseBody::Patch(patch) => patch.apply(timeout_body)?.into(),
    };
    let mut headers = timeout_response.headers.clone();
    for (name, _) in item.headers.iter() {
        headers.remove(name);
    }
    for (name, value) in item.headers.iter() {
        headers.push(name, value);
    }
    for (name, value) in item.headers.iter() {
        if name.eq_ignore_ascii_case("grip-expose-headers") {
            for hidden in split_commas(value) {
                headers.remove(&String::from_utf8_lossy(hidden));
            }
        }
    }
    headers.retain(|name| !is_grip(name) && !is_framing(name));
    Ok((item.code, item.reason.clone(), headers, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::parse_item_json;

    fn check(payload: &str, expected: (u16, &str, &[(&str, &str)], &str)) {
        let timeout = ResponseParts {
            code: 200,
            reason: "OK".to_owned(),
            headers: [("Content-Type", "text/plain"), ("X-A", "b"), ("x-a", "c")].into_iter().collect(),
            body: None,
        };
        let item = parse_item_json(format!(r#"{{"channel":"c","http-response":{payload}}}"#).as_bytes()).unwrap();
        let found = answer(&timeout, b"[1]\n", &item.formats.http_response.unwrap()).unwrap();
        let (code, reason, headers, body) = expected;
        let headers: HeaderList = headers.iter().copied().collect();
        let wanted = (code, reason.to_owned(), headers, Bytes::copy_from_slice(body.as_bytes()));
        assert_eq!(found, wanted, "{payload}");
    }

    #[test]
    fn headers_of_the_item_replace_inherited_ones_of_their_name() {
        let inherited = [("Content-Type", "text/plain"), ("X-A", "b"), ("x-a", "c")];
        let [kind, a, a2] = inherited;
        check(r#"{"body":"x"}"#, (200, "OK", &inherited, "x"));
        check(
            r#"{"code":201,"headers":{"X-Z":"1"},"body":"pushed\n"}"#,
            (201, "Created", &[kind, a, a2, ("X-Z", "1")], "pushed\n"),
        );
        check(
            r#"{"headers":[["X-a","1"],["x-A","2"]],"body":""}"#,
            (200, "OK", &[kind, ("X-a", "1"), ("x-A", "2")], ""),
        );
        check(r#"{"code":799,"reason":"Odd","body":""}"#, (799, "Odd", &inherited, ""));
        check(r#"{"code":799,"body":""}"#, (799, "", &inherited, ""));
    }

    #[test]
    fn grip_headers_and_framing_of_the_item_stay_inside() {
        check(
            r#"{"headers":{"Grip-X":"1","Content-Length":"99","transfer-encoding":"chunked","X-A":"1"},"body":"x"}"#,
            (200, "OK", &[("Content-Type", "text/plain"), ("X-A", "1")], "x"),
        );
    }

    #[test]
    fn exposed_headers_of_an_item_are_removed() {
        check(
            r#"{"headers":{"Grip-Expose-Headers":"x-a, X-Own","X-Own":"1"},"body":"x"}"#,
            (200, "OK", &[("Content-Type", "text/plain")], "x"),
        );
    }

    #[test]
    fn a_patch_changes_the_timeout_body() {
        let inherited = [("Content-Type", "text/plain"), ("X-A", "b"), ("x-a", "c")];
        check(r#"{"body-patch":[{"op":"add","path":"/-","value":2}]}"#, (200, "OK", &inherited, "[1,2]\n"));
    }

    #[test]
    fn a_patch_that_fails_is_an_error() {
        let item = br#"{"channel":"c","http-response":{"body-patch":[{"op":"test","path":"/0","value":2}]}}"#;
        let item = parse_item_json(item).unwrap().formats.http_response.unwrap();
        assert!(answer(&ResponseParts::default(), b"[1]", &item).is_err());
        assert!(answer(&ResponseParts::default(), b"text", &item).is_err());
    }
}
