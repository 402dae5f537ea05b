//! How many listeners and members the channels of a realm have.

use serde::Serialize;
use waft_gateway::{Answer, Gateway, Request, Tenant};
use waft_hub::ListenerCounts;
use waft_realm::{ChannelKind, is_channel};

use super::{percent_decoded, refusal};
use crate::stats::{self, CHANNELS_DEFAULT, CHANNELS_MAX};

/// What a path names: a realm, and perhaps one of its channels, still percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    realm: &'a str,
    channel: Option<&'a str>,
}

/// What a path names, if it is `/realm/NAME/channels` or `/realm/NAME/channels/CHANNEL`. The name of a channel may have
/// slashes.
pub(crate) fn place(path: &str) -> Option<Place<'_>> {
    let (realm, what) = path.strip_prefix("/realm/")?.split_once('/')?;
    match what.strip_prefix("channels")? {
        "" => Some(Place { realm, channel: None }),
        rest => Some(Place { realm, channel: Some(rest.strip_prefix('/')?) }),
    }
}

#[derive(Debug, Serialize)]
struct Occupied {
    /// Channels that have listeners, those left out included.
    total: usize,
    channels: Vec<Channel>,
}

#[derive(Debug, Serialize)]
struct Channel {
    name: String,
    listeners: usize,
    response: u32,
    stream: u32,
    ws: u32,
    members: usize,
}

impl Channel {
    fn new(tenant: &Tenant, name: &str, counts: ListenerCounts) -> Self {
        let ListenerCounts { response, stream, ws } = counts;
        let members = tenant.members_of(name);
        Self { name: name.to_owned(), listeners: counts.total(), response, stream, ws, members }
    }
}

/// Answers publishers of the realm, and callers whom the control API trusts.
pub(crate) fn answer(gateway: &Gateway, request: &Request<'_>, place: Place<'_>, is_trusted: bool) -> Answer {
    let head = request.head;
    let Some(tenant) = gateway.realms().get(place.realm) else { return Answer::text(404, &b"Not Found\n"[..]) };
    if !is_trusted && let Some(refused) = refusal(&tenant, head) {
        return refused;
    }
    if !matches!(head.method(), "GET" | "HEAD") {
        let mut answer = Answer::text(405, format!("Method not allowed: {}.\n", head.method()));
        answer.fields.push("Allow", "GET, HEAD");
        return answer;
    }
    match place.channel {
        None => list(gateway, &tenant, head.query().unwrap_or_default()),
        Some(channel) => {
            let channel = percent_decoded(channel);
            if !is_channel(&channel) || ChannelKind::of(&channel).is_reserved() {
                return Answer::text(404, &b"Not Found\n"[..]);
            }
            stats::json(&Channel::new(&tenant, &channel, gateway.hub().counts(&tenant.hub_name(&channel))))
        }
    }
}

fn list(gateway: &Gateway, tenant: &Tenant, query: &str) -> Answer {
    let (mut prefix, mut limit) = (String::new(), CHANNELS_DEFAULT);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match (&*name, value.parse::<usize>()) {
            ("prefix", _) => prefix = value.into_owned(),
            ("limit", Ok(asked)) => limit = asked.min(CHANNELS_MAX),
            ("limit", Err(_not_a_number)) => {
                return Answer::text(400, &b"Invalid limit: give a whole number.\n"[..]);
            }
            _ => {}
        }
    }
    let own = tenant.hub_name("");
    let (mut total, mut channels) = (0, Vec::new());
    for channel in gateway.hub().channels().filter(|channel| channel.listeners.total() > 0) {
        let Some(name) = channel.name.strip_prefix(&own).filter(|name| name.starts_with(&prefix)) else { continue };
        // What is no name of a channel stands for a pattern.
        if !is_channel(name) || ChannelKind::of(name).is_reserved() {
            continue;
        }
        total += 1;
        if channels.len() < limit {
            channels.push(Channel::new(tenant, name, channel.listeners));
        }
    }
    channels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    stats::json(&Occupied { total, channels })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::{Value, json};
    use waft_hub::Mode;
    use waft_realm::Realm;

    use super::*;
    use crate::harness::{ask, gateway, text};
    use crate::{ControlApi, ControlConfig};

    #[test]
    fn paths_name_a_realm_and_perhaps_a_channel() {
        let check = |path, expected: Option<(&str, Option<&str>)>| {
            assert_eq!(place(path).map(|place| (place.realm, place.channel)), expected, "{path}");
        };
        check("/realm/r/channels", Some(("r", None)));
        check("/realm/r/channels/a/b", Some(("r", Some("a/b"))));
        for other in ["/realm/r/channelsx", "/realm/channels", "/service/r/channels", "/channels"] {
            check(other, None);
        }
    }

    #[test]
    fn listeners_of_all_shards_are_counted() {
        let gateway = gateway();
        let mut realm = Realm::new("r");
        realm.publish_tokens = vec!["t".to_owned()];
        gateway.realms().replace(&[realm]);
        let api = ControlApi::new(ControlConfig { token: Some("operator".to_owned()), ..ControlConfig::default() });
        let now = Instant::now();
        for (shard, name, mode) in [
            (0, "realm:r:a/b", Mode::Ws),
            (1, "realm:r:a/b", Mode::Stream),
            (1, "realm:r:c", Mode::Response),
            (0, "realm:r:c/@presence", Mode::Ws),
            (0, "realm:other:a", Mode::Ws),
        ] {
            gateway.hub().subscribe(now, shard, name, mode);
        }
        let get = |path: &str, fields: &[&str]| {
            let answer = ask(&api, &gateway, &format!("GET {path}"), fields, b"");
            (answer.status, serde_json::from_str::<Value>(text(&answer)).unwrap_or_default())
        };
        let publisher = ["Authorization: Bearer t"];
        let a = json!({ "name": "a/b", "listeners": 2, "response": 0, "stream": 1, "ws": 1, "members": 0 });
        let c = json!({ "name": "c", "listeners": 1, "response": 1, "stream": 0, "ws": 0, "members": 0 });
        assert_eq!(get("/realm/r/channels", &publisher), (200, json!({ "total": 2, "channels": [a, c] })));
        assert_eq!(
            get("/realm/r/channels/?prefix=c&limit=5", &publisher),
            (200, json!({ "total": 1, "channels": [c] }))
        );
        assert_eq!(get("/realm/r/channels/a%2Fb", &["Authorization: Bearer operator"]), (200, a.clone()));
        assert_eq!(get("/realm/r/channels/a/b", &publisher), (200, a));
        assert_eq!(get("/realm/r/channels/nobody", &publisher).1["listeners"], json!(0));
        assert_eq!(get("/realm/r/channels/c/@presence", &publisher).0, 404);
        assert_eq!(get("/realm/r/channels?limit=x", &publisher).0, 400);
        assert_eq!(get("/realm/r/channels", &[]).0, 401);
        assert_eq!(get("/realm/x/channels", &publisher).0, 404);
        assert_eq!(ask(&api, &gateway, "POST /realm/r/channels", &publisher, b"").status, 405);
    }
}
