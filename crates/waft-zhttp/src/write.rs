//! From [`Packet`] to bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::tnetstring::{put_bytes, put_integer, put_scalar};
use crate::{Durable, Encoding, Ids, Packet, Value};

/// Room for `T`, nine digits and the colon, which are known only when the map is complete.
const GAP: usize = 11;

impl Packet {
    /// The bytes of the packet, after `ADDRESS` and a blank if it is published to an address.
    pub fn encode(&self, encoding: Encoding, address: Option<&[u8]>) -> Bytes {
        match encoding {
            Encoding::Json => {
                let mut out = BytesMut::new();
                put_address(&mut out, address);
                out.put_u8(b'J');
                out.put_slice(self.to_json().to_string().as_bytes());
                out.freeze()
            }
            Encoding::Tnetstring => self.encode_tnetstring(address),
        }
    }

    fn encode_tnetstring(&self, address: Option<&[u8]>) -> Bytes {
        let gap = GAP + address.map_or(0, |address| address.len() + 1);
        let mut out = BytesMut::with_capacity(gap + self.size_hint());
        out.put_bytes(0, gap);
        self.visit(|field, value| {
            put_bytes(&mut out, field.as_bytes());
            value.put(&mut out);
        });
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(out.len() - gap);
        let mut prefix = BytesMut::with_capacity(gap);
        put_address(&mut prefix, address);
        prefix.put_u8(b'T');
        prefix.put_slice(digits.as_bytes());
        prefix.put_u8(b':');
        let skip = gap.saturating_sub(prefix.len());
        if let Some(room) = out.get_mut(skip..gap) {
            room.copy_from_slice(&prefix);
        }
        out.advance(skip);
        out.put_u8(b'}');
        out.freeze()
    }

    fn size_hint(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len() + 16).sum::<usize>();
        256 + self.body.len() + headers + self.uri.as_ref().map_or(0, Bytes::len)
    }

    fn to_json(&self) -> serde_json::Value {
        let mut fields = serde_json::Map::new();
        self.visit(|name, value| {
            fields.insert(name.to_owned(), value.to_json());
        });
        serde_json::Value::Object(fields)
    }

    /// Calls `put` for each field that differs from its default.
    fn visit(&self, mut put: impl FnMut(&'static str, Field<'_>)) {
        let bytes = |value: &Option<Bytes>, name, put: &mut dyn FnMut(&'static str, Field<'_>)| {
            if let Some(value) = value {
                put(name, Field::Bytes(value));
            }
        };
        let number = |value: Option<u64>, name, put: &mut dyn FnMut(&'static str, Field<'_>)| {
            if let Some(value) = value {
                put(name, Field::Number(value));
            }
        };
        let flag = |value: bool, name, put: &mut dyn FnMut(&'static str, Field<'_>)| {
            if value {
                put(name, Field::True);
            }
        };
        bytes(&self.from, "from", &mut put);
        match &self.ids {
            Ids::None => {}
            Ids::One(id) => {
                put("id", Field::Bytes(&id.id));
                number(id.seq, "seq", &mut put);
            }
            ids @ Ids::List(_) => put("id", Field::Ids(ids)),
        }
        if self.ext_multi || self.ext_quiet {
            put("ext", Field::Ext { multi: self.ext_multi, quiet: self.ext_quiet });
        }
        if let Some(kind) = self.kind.as_str() {
            put("type", Field::Bytes(kind.as_bytes()));
        }
        if let Some(condition) = self.condition {
            put("condition", Field::Bytes(condition.as_str().as_bytes()));
        }
        bytes(&self.method, "method", &mut put);
        bytes(&self.uri, "uri", &mut put);
        number(self.code.map(u64::from), "code", &mut put);
        bytes(&self.reason, "reason", &mut put);
        if !self.headers.is_empty() {
            put("headers", Field::Headers(&self.headers));
        }
        bytes(&self.content_type, "content-type", &mut put);
        if !self.body.is_empty() {
            put("body", Field::Bytes(&self.body));
        }
        number(Some(self.credits).filter(|credits| *credits > 0), "credits", &mut put);
        flag(self.more, "more", &mut put);
        flag(self.stream, "stream", &mut put);
        flag(self.router_resp, "router-resp", &mut put);
        number(self.max_size, "max-size", &mut put);
        number(self.timeout_ms, "timeout", &mut put);
        if let Some(value) = &self.user_data {
            put("user-data", Field::Value(value));
        }
        bytes(&self.peer_address, "peer-address", &mut put);
        number(self.peer_port.map(u64::from), "peer-port", &mut put);
        bytes(&self.connect_host, "connect-host", &mut put);
        number(self.connect_port.map(u64::from), "connect-port", &mut put);
        flag(self.ignore_policies, "ignore-policies", &mut put);
        flag(self.trust_connect_host, "trust-connect-host", &mut put);
        flag(self.ignore_tls_errors, "ignore-tls-errors", &mut put);
        bytes(&self.client_cert, "client-cert", &mut put);
        bytes(&self.client_key, "client-key", &mut put);
        flag(self.follow_redirects, "follow-redirects", &mut put);
        if let Some(durable) = &self.durable {
            let is_bare = durable.fields().iter().all(|(_, value)| value.is_none());
            put("durable", if is_bare { Field::True } else { Field::Durable(durable) });
        }
    }
}

fn put_address(out: &mut BytesMut, address: Option<&[u8]>) {
    if let Some(address) = address {
        out.put_slice(address);
        out.put_u8(b' ');
    }
}

/// A field's value, borrowed, so that it is written once.
enum Field<'a> {
    Bytes(&'a [u8]),
    Durable(&'a Durable),
    Ext { multi: bool, quiet: bool },
    Headers(&'a [(Bytes, Bytes)]),
    Ids(&'a Ids),
    Number(u64),
    True,
    Value(&'a Value),
}

impl Field<'_> {
    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Bytes(bytes) => put_bytes(out, bytes),
            Self::Number(number) => put_integer(out, i64::try_from(*number).unwrap_or(i64::MAX)),
            Self::True => out.put_slice(b"4:true!"),
            Self::Value(value) => value.encode(out),
            Self::Durable(durable) => {
                let mut inner = BytesMut::new();
                for (name, value) in durable.fields() {
                    if let Some(value) = value {
                        put_bytes(&mut inner, name.as_bytes());
                        put_bytes(&mut inner, value);
                    }
                }
                put_scalar(out, &inner, b'}');
            }
            Self::Ext { multi, quiet } => {
                let mut inner = BytesMut::new();
                for (name, set) in [("multi", multi), ("quiet", quiet)] {
                    if *set {
                        put_bytes(&mut inner, name.as_bytes());
                        inner.put_slice(b"4:true!");
                    }
                }
                put_scalar(out, &inner, b'}');
            }
            Self::Headers(headers) => {
                let mut list = BytesMut::with_capacity(64 * headers.len());
                let mut pair = BytesMut::with_capacity(64);
                for (name, value) in *headers {
                    pair.clear();
                    put_bytes(&mut pair, name);
                    put_bytes(&mut pair, value);
                    put_scalar(&mut list, &pair, b']');
                }
                put_scalar(out, &list, b']');
            }
            Self::Ids(ids) => {
                let mut list = BytesMut::new();
                let mut item = BytesMut::new();
                for id in ids.as_slice() {
                    item.clear();
                    put_bytes(&mut item, b"id");
                    put_bytes(&mut item, &id.id);
                    if let Some(seq) = id.seq {
                        put_bytes(&mut item, b"seq");
                        put_integer(&mut item, i64::try_from(seq).unwrap_or(i64::MAX));
                    }
                    put_scalar(&mut list, &item, b'}');
                }
                put_scalar(out, &list, b']');
            }
        }
    }

    fn to_json(&self) -> serde_json::Value {
        use serde_json::{Value, json};
        match self {
            Self::Bytes(bytes) => text(bytes),
            Self::Number(number) => json!(number),
            Self::True => Value::Bool(true),
            Self::Value(value) => value_to_json(value),
            Self::Durable(durable) => {
                let set = durable.fields().into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
                Value::Object(set.map(|(name, value)| (name.to_owned(), text(value))).collect())
            }
            Self::Ext { multi, quiet } => {
                let set = [("multi", multi), ("quiet", quiet)].into_iter().filter(|(_, set)| **set);
                Value::Object(set.map(|(name, _)| (name.to_owned(), Value::Bool(true))).collect())
            }
            Self::Headers(headers) => headers.iter().map(|(name, value)| json!([text(name), text(value)])).collect(),
            Self::Ids(ids) => {
                let item = |id: &crate::Id| match id.seq {
                    Some(seq) => json!({"id": text(&id.id), "seq": seq}),
                    None => json!({"id": text(&id.id)}),
                };
                ids.as_slice().iter().map(item).collect()
            }
        }
    }
}

/// JSON holds text alone: what is not UTF-8 becomes replacement characters, as Zurl does it.
fn text(bytes: &[u8]) -> serde_json::Value {
    serde_json::Value::String(String::from_utf8_lossy(bytes).into_owned())
}

fn value_to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(flag) => (*flag).into(),
        Value::Bytes(bytes) => text(bytes),
        Value::Float(number) => (*number).into(),
        Value::Integer(number) => (*number).into(),
        Value::List(items) => items.iter().map(value_to_json).collect(),
        Value::Map(fields) => serde_json::Value::Object(
            fields
                .iter()
                .map(|(key, value)| (String::from_utf8_lossy(key).into_owned(), value_to_json(value)))
                .collect(),
        ),
        Value::Null => serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::{Condition, Id, Kind};

    fn check(packet: &Packet, wire: &str) {
        let (address, payload) = wire.split_once(' ').map_or((None, wire), |(to, payload)| (Some(to), payload));
        let (decoded, encoding) = Packet::decode(&Bytes::copy_from_slice(payload.as_bytes())).unwrap();
        assert_eq!(&decoded, packet, "{wire}");
        let encoded = packet.encode(encoding, address.map(str::as_bytes));
        assert_eq!(encoded, wire.as_bytes(), "{}", encoded.escape_ascii());
    }

    fn id(id: &'static str, seq: u64) -> Id {
        Id { id: id.into(), seq: Some(seq) }
    }

    fn head(id: Id) -> Packet {
        Packet {
            code: Some(200),
            reason: Some("OK".into()),
            headers: vec![("Content-Type".into(), "text/plain".into())],
            ..Packet::new(Kind::Data, id)
        }
    }

    fn from_server(packet: Packet) -> Packet {
        Packet { from: Some("zurl1".into()), ..packet }
    }

    #[test]
    fn the_examples_of_the_protocol_are_written_byte_for_byte() {
        check(
            &Packet { body: "hi".into(), ..head(id("7", 0)) },
            "T106:2:id,1:7,3:seq,1:0#4:code,3:200#6:reason,2:OK,7:headers,34:30:12:Content-Type,10:text/plain,]]4:body,2:hi,}",
        );
        check(
            &Packet { body: "hi".into(), ..head(id("7", 0)) },
            r#"J{"body":"hi","code":200,"headers":[["Content-Type","text/plain"]],"id":"7","reason":"OK","seq":0}"#,
        );
        check(
            &from_server(Packet { ext_multi: true, credits: 200_000, ..Packet::new(Kind::Credit, id("7", 0)) }),
            "cli1 T94:4:from,5:zurl1,2:id,1:7,3:seq,1:0#3:ext,15:5:multi,4:true!}4:type,6:credit,7:credits,6:200000#}",
        );
        check(
            &from_server(Packet { body: "par".into(), more: true, ..head(id("7", 2)) }),
            "cli1 T136:4:from,5:zurl1,2:id,1:7,3:seq,1:2#4:code,3:200#6:reason,2:OK,7:headers,34:30:12:Content-Type,10:text/plain,]]4:body,3:par,4:more,4:true!}",
        );
        check(
            &Packet {
                from: Some("cli1".into()),
                kind: Kind::KeepAlive,
                ids: Ids::List(vec![id("7", 3), id("8", 1)]),
                ..Packet::default()
            },
            "T90:4:from,4:cli1,2:id,46:19:2:id,1:7,3:seq,1:3#}19:2:id,1:8,3:seq,1:1#}]4:type,10:keep-alive,}",
        );
        check(&Packet::cancel_unknown("7".into()), "cli1 T25:2:id,1:7,4:type,6:cancel,}");
        check(&Packet::bad_request(Some("7".into())), "cli1 T51:2:id,1:7,4:type,5:error,9:condition,11:bad-request,}");
        check(
            &from_server(Packet {
                condition: Some(Condition::PolicyViolation),
                ..Packet::new(Kind::Error, id("7", 1))
            }),
            "cli1 T81:4:from,5:zurl1,2:id,1:7,3:seq,1:1#4:type,5:error,9:condition,16:policy-violation,}",
        );
        check(
            &from_server(Packet { code: Some(1000), body: "bye".into(), ..Packet::new(Kind::Close, id("9", 3)) }),
            "cli1 T76:4:from,5:zurl1,2:id,1:9,3:seq,1:3#4:type,5:close,4:code,4:1000#4:body,3:bye,}",
        );
    }

    #[test]
    fn bytes_that_are_not_text_are_replaced_in_json() {
        let packet = Packet { body: Bytes::from_static(b"a\xff"), ..Packet::default() };
        assert_eq!(packet.encode(Encoding::Json, None), "J{\"body\":\"a\u{fffd}\"}".as_bytes());
    }

    fn packets() -> impl Strategy<Value = Packet> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from);
        let id = || (bytes(), proptest::option::of(0..i64::MAX as u64)).prop_map(|(id, seq)| Id { id, seq });
        let ids = prop_oneof![
            Just(Ids::None),
            id().prop_map(Ids::One),
            proptest::collection::vec(id(), 1..5).prop_map(Ids::List)
        ];
        let kinds = prop_oneof![Just(Kind::Data), Just(Kind::Error), Just(Kind::Close), Just(Kind::Unknown)];
        let headers = proptest::collection::vec(("[a-zA-Z-]{1,8}", "[ -~]{0,8}"), 0..4);
        let flags = proptest::collection::vec(any::<bool>(), 9);
        (
            (proptest::option::of(bytes()), ids, kinds, headers, bytes()),
            (flags, 0..1_000_000_u64, proptest::option::of(any::<u16>())),
        )
            .prop_map(|((from, ids, kind, headers, body), (flags, credits, code))| Packet {
                from,
                ids,
                kind,
                headers: headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
                user_data: flags[0].then(|| Arc::new(Value::List(vec![Value::Bytes(body.clone()), Value::Null]))),
                body,
                more: flags[1],
                stream: flags[2],
                ignore_policies: flags[3],
                trust_connect_host: flags[4],
                ignore_tls_errors: flags[5],
                follow_redirects: flags[6],
                ext_multi: flags[7],
                ext_quiet: flags[8],
                durable: flags[0].then(|| {
                    let app = flags[1].then(|| Bytes::from_static(b"a"));
                    Box::new(Durable { order_key: app.clone(), app, ..Durable::default() })
                }),
                credits,
                code,
                connect_port: code,
                condition: flags[1].then_some(Condition::TlsError),
                ..Packet::default()
            })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(packet in packets()) {
            let wire = packet.encode(Encoding::Tnetstring, None);
            prop_assert_eq!(Packet::decode(&wire), Ok((packet, Encoding::Tnetstring)));
        }

        #[test]
        fn json_is_stable_once_it_is_text(packet in packets()) {
            let first = packet.encode(Encoding::Json, None);
            if let Ok((again, _)) = Packet::decode(&first) {
                prop_assert_eq!(again.encode(Encoding::Json, None), first);
            }
        }

        #[test]
        fn no_bytes_panic(mut input in proptest::collection::vec(any::<u8>(), 1..200), json: bool) {
            input[0] = if json { b'J' } else { b'T' };
            Packet::decode(&input.into()).ok();
        }
    }
}
