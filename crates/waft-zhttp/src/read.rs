//! From bytes to [`Packet`].

use std::sync::Arc;

use bytes::Bytes;

use crate::limits::{HEADERS_SIZE_MAX, IDS_MAX, VALUES_MAX};
use crate::{Condition, Durable, Encoding, Id, Ids, Kind, Packet, TnetError, Value};

/// Why bytes are not a packet.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// No byte at all.
    #[error("the packet is empty")]
    Empty,
    /// A field has the wrong type or a forbidden value. What could be read of the address is kept
    /// for the answer.
    #[error("the field `{name}` is not valid")]
    Field {
        /// Which field.
        name: &'static str,
        /// Whom to answer.
        salvage: Box<Salvage>,
    },
    /// After `J` there is no JSON.
    #[error("the packet is not JSON: {message}")]
    Json {
        /// What the parser said.
        message: String,
    },
    /// The value is not a map.
    #[error("the packet is not a map")]
    NotMap,
    /// Neither `T` nor `J`.
    #[error("unknown encoding {prefix:#04x}")]
    Prefix {
        /// The first byte.
        prefix: u8,
    },
    /// After `T` there is no TNetString.
    #[error("the packet is not a tnetstring")]
    Tnetstring(#[from] TnetError),
}

/// What of a refused packet could be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Salvage {
    /// The sender's address.
    pub from: Option<Bytes>,
    /// The id, unless it was a list.
    pub id: Option<Bytes>,
    /// Whether the packet was an error or a cancel, which are never answered.
    pub is_end: bool,
}

impl Packet {
    /// Reads a packet; the strings of the result share the memory of `wire`.
    pub fn decode(wire: &Bytes) -> Result<(Self, Encoding), PacketError> {
        let (value, encoding) = match wire.first() {
            None => return Err(PacketError::Empty),
            Some(b'T') => (Value::decode(&wire.slice(1..))?, Encoding::Tnetstring),
            Some(b'J') => (decode_json(wire.get(1..).unwrap_or_default())?, Encoding::Json),
            Some(&prefix) => return Err(PacketError::Prefix { prefix }),
        };
        let Value::Map(fields) = value else { return Err(PacketError::NotMap) };
        Ok((Self::from_fields(fields)?, encoding))
    }

    fn from_fields(fields: Vec<(Bytes, Value)>) -> Result<Self, PacketError> {
        let mut packet = Self::default();
        let mut seq = None;
        let mut bad = None;
        for (key, value) in fields {
            if let Err(name) = packet.set(&key, value, &mut seq) {
                bad.get_or_insert(name);
            }
        }
        match &mut packet.ids {
            Ids::One(id) => id.seq = seq,
            Ids::List(_) | Ids::None => {}
        }
        match bad {
            None => Ok(packet),
            Some(name) => Err(PacketError::Field { name, salvage: Box::new(packet.salvage()) }),
        }
    }

    fn salvage(self) -> Salvage {
        let id = match self.ids {
            Ids::One(id) => Some(id.id),
            Ids::List(_) | Ids::None => None,
        };
        Salvage { from: self.from, id, is_end: self.kind.is_end() }
    }

    /// Takes one field; the error is its name.
    fn set(&mut self, key: &[u8], value: Value, seq: &mut Option<u64>) -> Result<(), &'static str> {
        match key {
            b"from" => self.from = Some(bytes(value).ok_or("from")?),
            b"id" => self.ids = ids(value).ok_or("id")?,
            b"seq" => *seq = Some(number(&value).ok_or("seq")?),
            b"type" => self.kind = Kind::parse(&bytes(value).ok_or("type")?),
            b"condition" => self.condition = Some(Condition::parse(&bytes(value).ok_or("condition")?)),
            b"credits" => self.credits = number(&value).ok_or("credits")?,
            b"more" => self.more = flag(&value).ok_or("more")?,
            b"stream" => self.stream = flag(&value).ok_or("stream")?,
            b"router-resp" => self.router_resp = flag(&value).ok_or("router-resp")?,
            b"max-size" => self.max_size = Some(number(&value).ok_or("max-size")?),
            b"timeout" => self.timeout_ms = Some(number(&value).ok_or("timeout")?),
            b"method" => self.method = Some(bytes(value).filter(|word| is_token(word)).ok_or("method")?),
            b"uri" => self.uri = Some(bytes(value).ok_or("uri")?),
            b"headers" => self.headers = headers(value).ok_or("headers")?,
            b"body" => self.body = bytes(value).ok_or("body")?,
            b"content-type" => self.content_type = Some(bytes(value).ok_or("content-type")?),
            b"code" => self.code = Some(short(&value).ok_or("code")?),
            b"reason" => self.reason = Some(bytes(value).ok_or("reason")?),
            b"user-data" => self.user_data = Some(Arc::new(value)),
            b"peer-address" => self.peer_address = Some(bytes(value).ok_or("peer-address")?),
            b"peer-port" => self.peer_port = Some(short(&value).ok_or("peer-port")?),
            b"connect-host" => self.connect_host = Some(bytes(value).ok_or("connect-host")?),
            b"connect-port" => self.connect_port = Some(short(&value).ok_or("connect-port")?),
            b"ignore-policies" => self.ignore_policies = flag(&value).ok_or("ignore-policies")?,
            b"trust-connect-host" => self.trust_connect_host = flag(&value).ok_or("trust-connect-host")?,
            b"ignore-tls-errors" => self.ignore_tls_errors = flag(&value).ok_or("ignore-tls-errors")?,
            b"client-cert" => self.client_cert = Some(bytes(value).ok_or("client-cert")?),
            b"client-key" => self.client_key = Some(bytes(value).ok_or("client-key")?),
            b"follow-redirects" => self.follow_redirects = flag(&value).ok_or("follow-redirects")?,
            b"durable" => self.durable = durable(value).ok_or("durable")?,
            b"ext" => {
                let Value::Map(_) = value else { return Err("ext") };
                // Zurl ignores extensions that are not booleans, and so do we.
                self.ext_multi = value.field("multi") == Some(&Value::Bool(true));
                self.ext_quiet = value.field("quiet") == Some(&Value::Bool(true));
            }
            _ => {}
        }
        Ok(())
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// A header value that cannot end its line.
fn is_value(value: &[u8]) -> bool {
    !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        _ => None,
    }
}

/// Integers, and what Qt converts to them: digit strings and whole floats.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Bytes(digits) => {
            let digits = std::str::from_utf8(digits).ok()?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
        }
        Value::Float(number) if number.fract() == 0.0 && (0.0..9e15).contains(number) => {
            format!("{number:.0}").parse().ok()
        }
        _ => None,
    }
}

fn short(value: &Value) -> Option<u16> {
    number(value).and_then(|number| u16::try_from(number).ok())
}

fn ids(value: Value) -> Option<Ids> {
    match value {
        Value::Bytes(id) => Some(Ids::One(Id { id, seq: None })),
        Value::List(items) if (1..=IDS_MAX).contains(&items.len()) => {
            let id = |item: Value| {
                let Some(Value::Bytes(id)) = item.field("id") else { return None };
                let seq = match item.field("seq") {
                    None => None,
                    Some(seq) => Some(number(seq)?),
                };
                Some(Id { id: id.clone(), seq })
            };
            items.into_iter().map(id).collect::<Option<Vec<_>>>().map(Ids::List)
        }
        _ => None,
    }
}

/// `true`, `false`, or a map of texts. What is not known in it is refused: it would be kept without.
#[expect(clippy::option_option, reason = "wrong, absent, or there")]
fn durable(value: Value) -> Option<Option<Box<Durable>>> {
    let fields = match value {
        Value::Bool(set) => return Some(set.then(Box::default)),
        Value::Map(fields) => fields,
        _ => return None,
    };
    let mut durable = Box::<Durable>::default();
    for (name, value) in fields {
        let slot = match &*name {
            b"app" => &mut durable.app,
            b"endpoint" => &mut durable.endpoint,
            b"idempotency-key" => &mut durable.idempotency_key,
            b"order-key" => &mut durable.order_key,
            b"type" => &mut durable.event_type,
            _ => return None,
        };
        *slot = Some(bytes(value)?);
    }
    Some(Some(durable))
}

fn headers(value: Value) -> Option<Vec<(Bytes, Bytes)>> {
    let Value::List(items) = value else { return None };
    let mut left = HEADERS_SIZE_MAX;
    let mut headers = Vec::with_capacity(items.len());
    for item in items {
        let Value::List(pair) = item else { return None };
        let [Value::Bytes(name), Value::Bytes(value)]: [Value; 2] = pair.try_into().ok()? else { return None };
        left = left.checked_sub(name.len() + value.len())?;
        if !is_token(&name) || !is_value(&value) {
            return None;
        }
        headers.push((name, value));
    }
    Some(headers)
}

fn decode_json(text: &[u8]) -> Result<Value, PacketError> {
    let value = serde_json::from_slice(text).map_err(|error| PacketError::Json { message: error.to_string() })?;
    from_json(value, &mut 0)
}

fn from_json(value: serde_json::Value, values: &mut usize) -> Result<Value, PacketError> {
    *values += 1;
    if *values > VALUES_MAX {
        return Err(TnetError::TooMany.into());
    }
    Ok(match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Bool(flag),
        serde_json::Value::Number(number) => {
            number.as_i64().map(Value::Integer).or_else(|| number.as_f64().map(Value::Float)).unwrap_or(Value::Null)
        }
        serde_json::Value::String(text) => Value::Bytes(text.into()),
        serde_json::Value::Array(items) => {
            Value::List(items.into_iter().map(|item| from_json(item, values)).collect::<Result<_, _>>()?)
        }
        serde_json::Value::Object(fields) => Value::Map(
            fields
                .into_iter()
                .map(|(key, value)| Ok((key.into(), from_json(value, values)?)))
                .collect::<Result<_, PacketError>>()?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &'static str, input: &str) {
        let wire = format!(r#"J{{"from":"c","id":"7",{input}}}"#);
        let salvage = Salvage { from: Some("c".into()), id: Some("7".into()), is_end: false };
        assert_eq!(
            Packet::decode(&wire.into()).map(|(packet, _)| packet),
            Err(PacketError::Field { name, salvage: Box::new(salvage) }),
            "{input}"
        );
    }

    #[test]
    fn fields_of_the_wrong_type_name_whom_to_answer() {
        field("method", r#""method":5"#);
        field("method", r#""method":"GE T""#);
        field("method", r#""method":"GET\r\nX: y""#);
        field("method", r#""method":"""#);
        field("uri", r#""uri":["x"]"#);
        field("headers", r#""headers":{"a":"b"}"#);
        field("headers", r#""headers":[["a"]]"#);
        field("headers", r#""headers":[["a","b","c"]]"#);
        field("headers", r#""headers":[["a","b\r\nc: d"]]"#);
        field("headers", r#""headers":[["a","b\u0000"]]"#);
        field("headers", r#""headers":[["a b","c"]]"#);
        field("headers", r#""headers":[["","c"]]"#);
        field("more", r#""more":1"#);
        field("stream", r#""stream":"true""#);
        field("credits", r#""credits":-1"#);
        field("credits", r#""credits":"x""#);
        field("seq", r#""seq":-1"#);
        field("seq", r#""seq":1.5"#);
        field("connect-port", r#""connect-port":65536"#);
        field("ext", r#""ext":true"#);
        field("durable", r#""durable":1"#);
        field("durable", r#""durable":{"endpoint":1}"#);
        field("durable", r#""durable":{"endpiont":"a"}"#);
    }

    #[test]
    fn an_id_that_is_not_text_leaves_nobody_to_answer() {
        for id in ["5", "[]", "[{}]", r#"[{"id":1}]"#, r#"[{"id":"a","seq":-1}]"#] {
            let error = Packet::decode(&format!(r#"J{{"from":"c","id":{id}}}"#).into()).unwrap_err();
            let salvage = Salvage { from: Some("c".into()), id: None, is_end: false };
            assert_eq!(error, PacketError::Field { name: "id", salvage: Box::new(salvage) });
        }
    }

    #[test]
    fn an_end_is_known_as_one_even_if_a_field_is_wrong() {
        let error = Packet::decode(&Bytes::from_static(br#"J{"id":"7","type":"cancel","more":1}"#)).unwrap_err();
        assert!(matches!(error, PacketError::Field { salvage, .. } if salvage.is_end));
    }

    #[test]
    fn what_is_no_packet_is_told_apart() {
        let check = |input: &'static [u8], expected: fn(&PacketError) -> bool| {
            let error = Packet::decode(&Bytes::from_static(input)).unwrap_err();
            assert!(expected(&error), "{error}");
        };
        check(b"", |error| *error == PacketError::Empty);
        check(b"X1:a,", |error| *error == PacketError::Prefix { prefix: b'X' });
        check(b"T1:a,", |error| *error == PacketError::NotMap);
        check(b"J[]", |error| *error == PacketError::NotMap);
        check(b"J{", |error| matches!(error, PacketError::Json { .. }));
        check(b"T9:a,", |error| matches!(error, PacketError::Tnetstring(_)));
        check(b"T0:}x", |error| matches!(error, PacketError::Tnetstring(TnetError::Trailing { bytes: 1 })));
    }

    #[test]
    fn numbers_may_be_digit_strings() {
        let wire = Bytes::from_static(br#"J{"id":"a","seq":"3","timeout":"3000","max-size":10.0,"connect-port":"80"}"#);
        let (packet, _) = Packet::decode(&wire).unwrap();
        assert_eq!(packet.ids, Ids::One(Id { id: "a".into(), seq: Some(3) }));
        assert_eq!((packet.timeout_ms, packet.max_size, packet.connect_port), (Some(3000), Some(10), Some(80)));
    }

    #[test]
    fn unknown_fields_and_odd_extensions_are_ignored() {
        let wire = Bytes::from_static(br#"J{"id":"a","x":[1],"passthrough":{"y":1},"ext":{"multi":1,"quiet":true}}"#);
        let (packet, _) = Packet::decode(&wire).unwrap();
        assert_eq!((packet.ext_multi, packet.ext_quiet), (false, true));
    }

    #[test]
    fn headers_are_bounded_by_bytes() {
        let wire = format!(r#"J{{"headers":[["a","{}"]]}}"#, "x".repeat(HEADERS_SIZE_MAX));
        assert!(matches!(Packet::decode(&wire.into()), Err(PacketError::Field { name: "headers", .. })));
    }
}
