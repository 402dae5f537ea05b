//! What the server says (sections 2.2, 2.4 and 6 of the protocol).

use std::borrow::Cow;
use std::time::Duration;

use crate::Message;

/// The connection types that a server has, in the order in which it names them. `in-process` means nothing on a network
/// and is treated as long-polling; Faye's clients offer it.
pub const CONNECTION_TYPES: [&str; 6] =
    ["long-polling", "cross-origin-long-polling", "callback-polling", "websocket", "eventsource", "in-process"];

/// What a client is to do when it has got a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// Begin anew.
    Handshake,
    /// Stop.
    None,
    /// Connect again.
    Retry,
}

/// Advice. All members are sent always, since CometD's clients replace all by what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What to do.
    pub reconnect: Reconnect,
    /// How long to wait before that.
    pub interval: Duration,
    /// How long a connect is held.
    pub timeout: Duration,
}

/// The answer to one message.
#[derive(Clone, Debug)]
pub struct Reply<'a> {
    id: Option<&'a str>,
    client_id: Option<Cow<'a, str>>,
    channel: Option<&'a str>,
    error: Option<Cow<'a, str>>,
    subscription: Option<&'a str>,
    is_handshake: bool,
    advice: Option<Advice>,
    ack: Option<Ack>,
    timesync: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug)]
enum Ack {
    Batch(u64),
    On,
}

impl<'a> Reply<'a> {
    /// A reply that says yes.
    #[must_use]
    pub fn to(message: &'a Message<'_>) -> Self {
        Self {
            id: message.id,
            client_id: message.client_id.as_deref().map(Cow::Borrowed),
            channel: message.channel.as_deref(),
            error: None,
            subscription: None,
            is_handshake: false,
            advice: None,
            ack: None,
            timesync: None,
        }
    }

    /// It says no, and why. Connects and disconnects then name no client.
    #[must_use]
    pub fn failed(mut self, error: impl Into<Cow<'a, str>>) -> Self {
        if matches!(self.channel, Some("/meta/connect" | "/meta/disconnect" | "/meta/handshake")) {
            self.client_id = None;
        }
        self.error = Some(error.into());
        self
    }

    /// With what was (un)subscribed, as JSON text.
    #[must_use]
    pub fn subscription(mut self, text: &'a str) -> Self {
        self.subscription = Some(text);
        self
    }

    /// With what a handshake's reply has: version and connection types, and a client id if there is one now.
    #[must_use]
    pub fn handshake(mut self, client_id: Option<&'a str>) -> Self {
        self.is_handshake = true;
        self.client_id = client_id.map(Cow::Borrowed);
        self
    }

    /// With advice.
    #[must_use]
    pub fn advice(mut self, advice: Advice) -> Self {
        self.advice = Some(advice);
        self
    }

    /// Tells that the acknowledgement extension is on.
    #[must_use]
    pub fn acks(mut self) -> Self {
        self.ack = Some(Ack::On);
        self
    }

    /// With the number of the batch that has come with it, or came last.
    #[must_use]
    pub fn ack(mut self, batch: Option<u64>) -> Self {
        self.ack = batch.map(Ack::Batch);
        self
    }

    /// With the answer of the extension `timesync`: the client's clock as it said it and ours, in milliseconds.
    #[must_use]
    pub fn timesync(mut self, clocks: Option<(u64, u64)>) -> Self {
        self.timesync = clocks;
        self
    }

    /// Appends it as JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut members = Members { out, first: true };
        members.raw("id", self.id);
        members.text("clientId", self.client_id.as_deref());
        members.text("channel", self.channel);
        members.raw("successful", Some(if self.error.is_none() { "true" } else { "false" }));
        members.text("error", self.error.as_deref());
        if self.is_handshake {
            members.raw("version", Some("\"1.0\""));
            let types = CONNECTION_TYPES.map(|name| format!("\"{name}\"")).join(",");
            members.raw("supportedConnectionTypes", Some(&format!("[{types}]")));
        }
        members.raw("subscription", self.subscription);
        members.raw("advice", self.advice.map(|advice| advice.to_json()).as_deref());
        members.raw("ext", self.ext().as_deref());
        out.push(b'}');
    }

    fn ext(&self) -> Option<String> {
        let ack = self.ack.map(|ack| match ack {
            Ack::On => "\"ack\":true".to_owned(),
            Ack::Batch(number) => format!("\"ack\":{number}"),
        });
        let sync = self.timesync.map(|(tc, ts)| format!("\"timesync\":{{\"tc\":{tc},\"ts\":{ts},\"p\":0,\"a\":0}}"));
        let parts: Vec<String> = ack.into_iter().chain(sync).collect();
        (!parts.is_empty()).then(|| format!("{{{}}}", parts.join(",")))
    }
}

impl Advice {
    fn to_json(self) -> String {
        let reconnect = match self.reconnect {
            Reconnect::Handshake => "handshake",
            Reconnect::None => "none",
            Reconnect::Retry => "retry",
        };
        let (interval, timeout) = (self.interval.as_millis(), self.timeout.as_millis());
        format!("{{\"reconnect\":\"{reconnect}\",\"interval\":{interval},\"timeout\":{timeout}}}")
    }
}

/// The members of an object that is being written.
struct Members<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl Members<'_> {
    fn raw(&mut self, name: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        self.out.push(if std::mem::replace(&mut self.first, false) { b'{' } else { b',' });
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out.extend_from_slice(value.as_bytes());
    }

    fn text(&mut self, name: &str, value: Option<&str>) {
        self.raw(name, value.map(|value| serde_json::Value::from(value).to_string()).as_deref());
    }
}

/// Appends a message for subscribers: the channel, given without the slash at its beginning, and the data as JSON text.
/// Nothing that its publisher sent beside them goes along.
pub fn write_delivery(channel: &str, data: &[u8], out: &mut Vec<u8>) {
    let name = serde_json::Value::from(format!("/{channel}")).to_string();
    out.reserve(name.len() + data.len() + 24);
    for part in [&b"{\"channel\":"[..], name.as_bytes(), b",\"data\":", data, b"}"] {
        out.extend_from_slice(part);
    }
}

/// JSON text without the white space between its parts, as a published item has it.
#[must_use]
pub fn compact(json: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.bytes() {
        if in_text || !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            out.push(byte);
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ => {}
        }
    }
    out
}

/// A batch as a server-sent event (section 10).
#[must_use]
pub fn event(batch: &[u8]) -> Vec<u8> {
    [b"data: ", &escape_separators(batch)[..], b"\r\n\r\n"].concat()
}

/// Two characters may stand in JSON, and end a line for some who read it as something else.
fn escape_separators(batch: &[u8]) -> Cow<'_, [u8]> {
    let has_any = batch.windows(3).any(|bytes| matches!(bytes, [0xe2, 0x80, 0xa8 | 0xa9]));
    if !has_any {
        return Cow::Borrowed(batch);
    }
    let text = String::from_utf8_lossy(batch).replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    Cow::Owned(text.into_bytes())
}

/// A batch as a call of a function, for clients that load it as a script. None if the name could be anything else than
/// the name of a function.
#[must_use]
pub fn script(callback: &str, batch: &[u8]) -> Option<Vec<u8>> {
    let is_identifier = |name: &str| {
        let mut bytes = name.bytes();
        let is_start = |b: u8| b.is_ascii_alphabetic() || matches!(b, b'_' | b'$');
        bytes.next().is_some_and(is_start) && bytes.all(|b| is_start(b) || b.is_ascii_digit())
    };
    if callback.len() > 64 || !callback.split('.').all(is_identifier) {
        return None;
    }
    Some([b"/**/", callback.as_bytes(), b"(", &escape_separators(batch), b");"].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::parse_batch;

    fn check(message: &str, reply: impl Fn(Reply<'_>) -> Reply<'_>, expected: &str) {
        let batch = parse_batch(message.as_bytes()).unwrap();
        let mut out = b"[".to_vec();
        reply(Reply::to(&batch[0])).write(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("[{expected}"));
    }

    #[test]
    fn replies_have_what_their_messages_need() {
        let advice = Advice { reconnect: Reconnect::Retry, interval: Duration::ZERO, timeout: Duration::from_secs(45) };
        check(
            r#"{"channel":"/meta/handshake","id":"1"}"#,
            |reply| reply.handshake(Some("c")).advice(advice).acks(),
            r#"{"id":"1","clientId":"c","channel":"/meta/handshake","successful":true,"version":"1.0","supportedConnectionTypes":["long-polling","cross-origin-long-polling","callback-polling","websocket","eventsource","in-process"],"advice":{"reconnect":"retry","interval":0,"timeout":45000},"ext":{"ack":true}}"#,
        );
        check(
            r#"{"channel":"/meta/connect","clientId":"c","id":5}"#,
            |reply| reply.ack(Some(3)).timesync(Some((1, 2))),
            r#"{"id":5,"clientId":"c","channel":"/meta/connect","successful":true,"ext":{"ack":3,"timesync":{"tc":1,"ts":2,"p":0,"a":0}}}"#,
        );
        check(
            r#"{"channel":"/meta/subscribe","clientId":"c","subscription":"/a"}"#,
            |reply| reply.subscription("\"/a\"").failed("403:/a:Forbidden channel"),
            r#"{"clientId":"c","channel":"/meta/subscribe","successful":false,"error":"403:/a:Forbidden channel","subscription":"/a"}"#,
        );
        check("{}", |reply| reply, r#"{"successful":true}"#);
    }

    #[test]
    fn deliveries_carry_channel_and_data_alone() {
        let mut out = Vec::new();
        write_delivery("news/eu", br#"{"t":"hi"}"#, &mut out);
        assert_eq!(out, br#"{"channel":"/news/eu","data":{"t":"hi"}}"#);
    }

    #[test]
    fn scripts_call_functions_and_nothing_else() {
        let text = |callback| script(callback, "[\"\u{2028}\"]".as_bytes()).map(|out| String::from_utf8(out).unwrap());
        assert_eq!(text("__jsonp12__").as_deref(), Some("/**/__jsonp12__([\"\\u2028\"]);"));
        assert!(text("org.cometd._1").is_some());
        for wrong in ["", "1a", "a..b", "a(b)", "a;b", "a\"", "alert(1)//", &"a".repeat(65)] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn compact_json_means_the_same(text in "[a-z\"\\\\ \n\t]{0,20}", number: i32) {
            let value = serde_json::json!({ "text": text, "list": [number, null, { "a b": true }] });
            let spread = serde_json::to_string_pretty(&value).unwrap();
            let compacted = compact(&spread);
            let written = serde_json::to_vec(&value).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Value>(&compacted).unwrap(), value);
            prop_assert_eq!(compacted, written);
        }

        #[test]
        fn replies_are_json_whatever_they_echo(channel in ".*", client in ".*", error in ".*") {
            let message = serde_json::json!({ "channel": channel, "clientId": client }).to_string();
            let batch = parse_batch(message.as_bytes()).unwrap();
            let mut out = Vec::new();
            Reply::to(&batch[0]).failed(error.clone()).write(&mut out);
            let value: Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(&value["error"], &Value::from(error));
            prop_assert_eq!(&value["channel"], &Value::from(channel));
        }
    }
}
