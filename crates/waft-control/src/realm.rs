//! The publish API of realms: that of the Fanout cloud, and Fastly's.

mod items;
pub(crate) mod occupancy;

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use waft_gateway::{Answer, Gateway, Request, Tenant};
use waft_http1::RequestHead;
use waft_realm::Verdict;

/// What a path of the API names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    realm: &'a str,
    /// The channel, where it stands in the path, still percent-encoded.
    channel: Option<&'a str>,
}

/// What a path names, if it is one of the publish API: `/realm/NAME/publish`, `/realm/NAME/publish/CHANNEL` or
/// `/service/NAME/publish`, without the slash at the end.
pub(crate) fn place(path: &str) -> Option<Place<'_>> {
    let (rest, is_realm) = match path.strip_prefix("/realm/") {
        Some(rest) => (rest, true),
        None => (path.strip_prefix("/service/")?, false),
    };
    let (realm, what) = rest.split_once('/')?;
    match what.split_once('/') {
        None if what == "publish" => Some(Place { realm, channel: None }),
        Some(("publish", channel)) if is_realm && !channel.contains('/') => {
            Some(Place { realm, channel: Some(channel) })
        }
        _ => None,
    }
}

/// Answers a call of the publish API. Browsers may call it too: the token protects it.
pub(crate) fn answer(gateway: &Gateway, request: &Request<'_>, place: &Place<'_>) -> Answer {
    let head = request.head;
    let mut answer = match head.method() {
        "POST" => publish(gateway, request, place),
        "OPTIONS" => {
            let mut answer = Answer::text(200, Bytes::new());
            for (name, value) in [
                ("Access-Control-Allow-Methods", "POST, OPTIONS"),
                ("Access-Control-Allow-Headers", "Authorization, Content-Type, Fastly-Key"),
                ("Access-Control-Max-Age", "3600"),
            ] {
                answer.fields.push(name, value);
            }
            answer
        }
        method => {
            let mut answer = Answer::text(405, format!("Method not allowed: {method}.\n"));
            answer.fields.push("Allow", "POST, OPTIONS");
            answer
        }
    };
    answer.fields.push("Access-Control-Allow-Origin", "*");
    answer
}

/// What a caller is told who is no publisher of the realm.
fn refusal(tenant: &Tenant, head: &RequestHead) -> Option<Answer> {
    let verdict = tenant.realm().judge_publisher(head.field("authorization"), head.field("fastly-key"), now_unix_s());
    match verdict {
        Verdict::Admitted => None,
        Verdict::Forbidden => Some(Answer::text(403, &b"Forbidden\n"[..])),
        Verdict::Unauthorized => {
            let mut answer = Answer::text(401, &b"Unauthorized\n"[..]);
            answer.fields.push("WWW-Authenticate", "Bearer realm=\"waft\"");
            Some(answer)
        }
    }
}

/// Publishes all items of a body in their order, or none if one is malformed.
fn publish(gateway: &Gateway, request: &Request<'_>, place: &Place<'_>) -> Answer {
    let Some(tenant) = gateway.realms().get(place.realm) else { return Answer::text(404, &b"Not Found\n"[..]) };
    let head = request.head;
    if let Some(refused) = refusal(&tenant, head) {
        return refused;
    }
    if gateway.is_overloaded() {
        gateway.publish_metrics().overloads.add(1);
        let mut answer = Answer::text(503, &b"Too much waits for its delivery. Publish again in a second.\n"[..]);
        answer.fields.push("Retry-After", b"1");
        return answer;
    }
    let channel = place.channel.map(percent_decoded);
    let items = match items::read(request.body, channel.as_deref()) {
        Ok(items) => items,
        Err(error) => return Answer::text(400, format!("{error}\n")),
    };
    for item in items {
        gateway.publish_in(&tenant, request.now, item);
    }
    Answer::text(200, &b"Published\n"[..])
}

/// One segment of a path as it is meant. What is not UTF-8 then cannot be a channel, and is refused as one.
fn percent_decoded(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8().map(Cow::into_owned).unwrap_or_default()
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use waft_realm::{Key, Realm};

    use super::*;
    use crate::harness::{ask, field, gateway, text};
    use crate::{ControlApi, ControlConfig};

    #[test]
    fn paths_name_a_realm_and_perhaps_a_channel() {
        let check = |path, expected: Option<(&str, Option<&str>)>| {
            let found = place(path).map(|place| (place.realm, place.channel));
            assert_eq!(found, expected, "{path}");
        };
        check("/realm/r/publish", Some(("r", None)));
        check("/realm/r/publish/a%2Fb", Some(("r", Some("a%2Fb"))));
        check("/service/s/publish", Some(("s", None)));
        for other in
            ["/service/s/publish/a", "/realm/r", "/realm/r/other", "/realm/publish", "/publish", "/realm/r/publish/a/b"]
        {
            check(other, None);
        }
        assert_eq!(percent_decoded("a%2Fb%"), "a/b%");
        assert_eq!(percent_decoded("%ff"), "");
    }

    #[test]
    fn the_api_publishes_for_those_who_show_a_token_of_the_realm() {
        let gateway = gateway();
        let mut realm = Realm::new("r");
        realm.publish_tokens = vec!["t".to_owned()];
        realm.keys = vec![Key::parse("k").unwrap()];
        gateway.realms().replace(&[realm]);
        // The token of the control API is another matter.
        let api = ControlApi::new(ControlConfig { token: Some("operator".to_owned()), ..ControlConfig::default() });
        let body = json!({ "items": [{ "channel": "c", "json-object": null }] }).to_string();
        let post = |path: &str, fields: &[&str], body: &str| {
            let answer = ask(&api, &gateway, &format!("POST {path}"), fields, body.as_bytes());
            assert_eq!(field(&answer, "Access-Control-Allow-Origin"), "*");
            (answer.status, text(&answer).to_owned())
        };
        let fine = (200, "Published\n".to_owned());
        assert_eq!(post("/realm/r/publish/", &["Authorization: Bearer t"], &body), fine);
        assert_eq!(post("/realm/r/publish?x=1", &["Authorization: Bearer t"], &body), fine);
        assert_eq!(post("/service/r/publish/", &["Fastly-Key: t"], &body), fine);
        assert_eq!(post("/realm/r/publish/", &[], &body).0, 401);
        assert_eq!(post("/realm/r/publish/", &["Authorization: Bearer operator"], &body).0, 401);
        assert_eq!(post("/realm/x/publish/", &["Authorization: Bearer t"], &body).0, 404);
        let (status, said) =
            post("/realm/r/publish/", &["Authorization: Bearer t"], "{\"items\":[{\"channel\":\"c\"}]}");
        assert_eq!((status, said.as_str()), (400, "item has no format\n"));
        let tenant = gateway.realms().get("r").unwrap();
        assert_eq!(gateway.hub().position(&tenant.hub_name("c")).number, 3);
        let options = ask(&api, &gateway, "OPTIONS /realm/r/publish/", &[], b"");
        assert_eq!((options.status, field(&options, "Access-Control-Max-Age")), (200, "3600"));
    }
}
