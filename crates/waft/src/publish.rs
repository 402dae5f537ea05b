//! `waft publish`, also known as `pushpin-publish`: one item, over HTTP or ZeroMQ.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use waft_grip::tnetstring::{self, TValue};
use waft_http1::{BodyDecoder, HeadLimits, HeadWriter, Parsed, parse_response};
use waft_zmq::{Engine, Kind, Message, SocketOptions};

use crate::say;

/// Publish an item over HTTP or ZeroMQ.
#[derive(Debug, clap::Parser)]
pub(crate) struct Args {
    /// Channel to publish to.
    channel: String,
    /// What to publish; `@FILE` takes the content of a file.
    content: Option<String>,
    /// Id of the item.
    #[arg(long)]
    id: Option<String>,
    /// Id of the item before it on the channel.
    #[arg(long)]
    prev_id: Option<String>,
    /// Sender, as the filter skip-self knows it.
    #[arg(long)]
    sender: Option<String>,
    /// Status code for long-polls.
    #[arg(long, default_value_t = 200)]
    code: u16,
    /// Header for long-polls, `Name: value`; may be repeated.
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// Metadata for filters, `name=value`; may be repeated.
    #[arg(short = 'M', long = "meta")]
    meta: Vec<String>,
    /// Publish a hint to ask the target again, instead of content.
    #[arg(long)]
    hint: bool,
    /// Close streams and WebSockets.
    #[arg(long)]
    close: bool,
    /// The content is a JSON patch for the bodies of long-polls.
    #[arg(long)]
    patch: bool,
    /// Deliver at once, whatever id came before.
    #[arg(long)]
    no_seq: bool,
    /// Add no line feed to the content.
    #[arg(long)]
    no_eol: bool,
    /// Where to publish: the URL of a control API, or the ZeroMQ address of a PULL socket such as `tcp://host:5560`.
    #[arg(long, env = "GRIP_URL", default_value = "http://localhost:5561")]
    spec: String,
    /// User and password, `user:password`.
    #[arg(short = 'u', long)]
    user: Option<String>,
    /// Bearer token.
    #[arg(short = 'B', long)]
    token: Option<String>,
}

/// How long the control API may take.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn command(args: Args) -> Result<ExitCode> {
    let item = item(&args)?;
    if let Some(address) = zeromq_address(&args.spec) {
        push(address, &item)?;
        say("Published\n");
        return Ok(ExitCode::SUCCESS);
    }
    let body = json!({ "items": [item] }).to_string();
    let place = Place::parse(&args.spec)?;
    let (status, text) = post(&place, &authorization(&args), body.as_bytes())?;
    ensure!(status == 200, "{}", text.trim());
    say("Published\n");
    Ok(ExitCode::SUCCESS)
}

fn item(args: &Args) -> Result<Value> {
    let mut item = Map::new();
    item.insert("channel".into(), args.channel.as_str().into());
    for (name, value) in [("id", &args.id), ("prev-id", &args.prev_id)] {
        if let Some(value) = value {
            item.insert(name.into(), value.as_str().into());
        }
    }
    if args.no_seq {
        item.insert("no-seq".into(), true.into());
    }
    let mut meta = Map::new();
    for entry in &args.meta {
        let (name, value) = entry.split_once('=').context("meta must be in the form \"name=value\"")?;
        meta.insert(name.into(), value.into());
    }
    if let Some(sender) = &args.sender {
        meta.insert("sender".into(), sender.as_str().into());
    }
    if !meta.is_empty() {
        item.insert("meta".into(), meta.into());
    }
    item.insert("formats".into(), formats(args)?);
    Ok(item.into())
}

fn formats(args: &Args) -> Result<Value> {
    if args.hint {
        let hint = json!({ "action": "hint" });
        return Ok(json!({ "http-response": hint, "http-stream": hint, "ws-message": hint }));
    }
    if args.close {
        let close = json!({ "action": "close" });
        return Ok(json!({ "http-stream": close, "ws-message": close }));
    }
    let content = args.content.as_deref().context("must specify content")?;
    let (content, from_file) = match content.strip_prefix('@') {
        Some(path) => (std::fs::read(path).with_context(|| format!("cannot read {path}"))?, true),
        None => (content.as_bytes().to_vec(), false),
    };
    ensure!(args.code <= 999, "code must be an integer between 0 and 999");
    let mut headers = Vec::new();
    for header in &args.headers {
        let (name, value) = header.split_once(':').context("header must be in the form \"name: value\"")?;
        headers.push(json!([name.trim(), value.trim()]));
    }
    let mut response = Map::new();
    response.insert("code".into(), args.code.into());
    if !headers.is_empty() {
        response.insert("headers".into(), headers.into());
    }
    if args.patch {
        let patch: Option<Value> = serde_json::from_slice(&content).ok().filter(Value::is_array);
        response.insert("body-patch".into(), patch.context("patch content must be a JSON array")?);
        return Ok(json!({ "http-response": response }));
    }
    let line = if args.no_eol || from_file { content.clone() } else { [&*content, b"\n"].concat() };
    response.extend([entry("body", &line)]);
    let stream = Map::from_iter([entry("content", &line)]);
    let message = Map::from_iter([entry("content", &content)]);
    Ok(json!({ "http-response": response, "http-stream": stream, "ws-message": message }))
}

/// Content as text if it is text.
fn entry(name: &str, content: &[u8]) -> (String, Value) {
    match str::from_utf8(content) {
        Ok(text) => (name.to_owned(), text.into()),
        Err(_) => (format!("{name}-bin"), BASE64.encode(content).into()),
    }
}

fn authorization(args: &Args) -> Option<String> {
    match (&args.token, &args.user) {
        (Some(token), _) => Some(format!("Bearer {token}")),
        (None, Some(user)) => Some(format!("Basic {}", BASE64.encode(user))),
        (None, None) => None,
    }
}

/// The address of a ZeroMQ socket, if that is what it is.
fn zeromq_address(spec: &str) -> Option<&str> {
    ["tcp://", "ipc://"].iter().any(|scheme| spec.starts_with(scheme)).then_some(spec)
}

/// Sends an item to a PULL socket.
fn push(address: &str, item: &Value) -> Result<()> {
    // ZeroMQ itself waits for whoever may bind some day, and says nothing.
    let reached = match address.split_once("://") {
        Some(("ipc", path)) => UnixStream::connect(path).map(drop),
        Some((_, host)) => TcpStream::connect(host).map(drop),
        None => Ok(()),
    };
    reached.with_context(|| format!("cannot connect to {address}"))?;
    let engine = Engine::start("zmq")?;
    let linger_ms = i32::try_from(LIMIT.as_millis())?;
    let connect = vec![address.to_owned()];
    let socket = engine.open(&SocketOptions { connect, linger_ms, ..SocketOptions::new(Kind::Push) })?;
    let mut frame = vec![b'T'];
    tnetstring::write(&as_tnetstring(item, false), &mut frame);
    socket.sender.send(Message::single(frame))?;
    // The end of the engine waits until the message has left.
    drop(socket);
    drop(engine);
    Ok(())
}

/// An item in JSON as a TNetString, in which content needs no base64. What a WebSocket message is depends on the name of
/// its content, so that one stays.
fn as_tnetstring(value: &Value, is_message: bool) -> TValue<'_> {
    match value {
        Value::Null => TValue::Null,
        Value::Bool(is) => TValue::Bool(*is),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => TValue::Int(whole.into()),
            None => TValue::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => TValue::str(text),
        Value::Array(values) => TValue::List(values.iter().map(|value| as_tnetstring(value, is_message)).collect()),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| {
                let encoded = name.strip_suffix("-bin").zip(value.as_str());
                match encoded.and_then(|(short, text)| Some((short, BASE64.decode(text).ok()?))) {
                    Some((short, content)) => {
                        let name = if is_message { name } else { short };
                        (name.as_bytes().into(), TValue::Str(content.into()))
                    }
                    None => (name.as_bytes().into(), as_tnetstring(value, name == "ws-message")),
                }
            });
            TValue::Map(members.collect())
        }
    }
}

/// Where a control API is.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    authority: String,
    path: String,
    query: Option<String>,
}

impl Place {
    fn parse(url: &str) -> Result<Self> {
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some((scheme, _)) => bail!("`{url}` cannot be published to: {scheme} is not spoken here, only http"),
            None => bail!("`{url}` is no URL; write http://host:port"),
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query.to_owned())),
            None => (rest, None),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        ensure!(!authority.is_empty(), "`{url}` names no host");
        let path = path.strip_suffix('/').unwrap_or(path);
        let path = if path.is_empty() { "/publish/".to_owned() } else { format!("/{path}/publish/") };
        Ok(Self { authority: authority.to_owned(), path, query })
    }
}

fn post(place: &Place, authorization: &Option<String>, body: &[u8]) -> Result<(u16, String)> {
    let target = match &place.query {
        Some(query) => format!("{}?{query}", place.path),
        None => place.path.clone(),
    };
    exchange("POST", &place.authority, &target, authorization.as_deref(), Some(body))
}

/// Calls a control API over HTTP. Returns the status and the body of its answer.
pub(crate) fn exchange(
    method: &str,
    authority: &str,
    target: &str,
    authorization: Option<&str>,
    body: Option<&[u8]>,
) -> Result<(u16, String)> {
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let address = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let mut stream = TcpStream::connect(&address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut out = Vec::new();
    let mut writer = HeadWriter::new(&mut out);
    writer.request_line(method, target).field("Host", authority);
    if let Some(authorization) = authorization {
        writer.field("Authorization", authorization);
    }
    writer.field("Connection", "close");
    if let Some(body) = body {
        writer.field("Content-Type", "application/json").content_length(body.len() as u64);
    }
    writer.finish();
    out.extend_from_slice(body.unwrap_or_default());
    stream.write_all(&out)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let Parsed::Complete { head, consumed } = parse_response(&answer, &HeadLimits::default())? else {
        return Err(anyhow!("the answer of {address} was cut short"));
    };
    let mut decoder = BodyDecoder::new(head.framing(method)?);
    let mut text = Vec::new();
    let mut rest = answer.get(consumed..).unwrap_or_default();
    while !rest.is_empty() && !decoder.is_done() {
        let decoded = decoder.decode(rest)?;
        text.extend_from_slice(decoded.data);
        rest = rest.get(decoded.consumed..).unwrap_or_default();
    }
    Ok((head.status(), String::from_utf8_lossy(&text).into_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn item_of(args: &[&str]) -> Value {
        let args = Args::parse_from([&["waft-publish"], args].concat());
        item(&args).unwrap()
    }

    #[test]
    fn content_goes_out_in_every_format() {
        let item = item_of(&["c", "hello", "--id", "2", "--prev-id", "1", "-M", "a=b", "--sender", "me"]);
        assert_eq!(item["formats"]["http-stream"]["content"], "hello\n");
        assert_eq!(item["formats"]["http-response"]["body"], "hello\n");
        assert_eq!(item["formats"]["ws-message"]["content"], "hello");
        assert_eq!((&item["id"], &item["prev-id"]), (&json!("2"), &json!("1")));
        assert_eq!(item["meta"], json!({ "a": "b", "sender": "me" }));
    }

    #[test]
    fn an_item_for_a_pull_socket_is_read_there_as_it_was_meant() {
        let content: &[u8] = b"\xff\x00";
        let file = std::env::temp_dir().join(format!("waft-publish-{}", std::process::id()));
        std::fs::write(&file, content).unwrap();
        let from_file = format!("@{}", file.display());
        let check = |args: &[&str], binary: bool, expected: &[u8]| {
            let json = item_of(args);
            let mut text = Vec::new();
            tnetstring::write(&as_tnetstring(&json, false), &mut text);
            let item = waft_grip::item::parse_item_tnetstring(&text).unwrap();
            let message = item.formats.ws_message.unwrap();
            assert_eq!((&*message.content, message.kind == waft_grip::item::WsKind::Binary), (expected, binary));
            assert_eq!(&*item.formats.http_stream.unwrap().content, expected);
            assert_eq!(item.id.as_deref(), Some("1"));
        };
        check(&["c", "h\u{e9}", "--id", "1", "--no-eol"], false, "h\u{e9}".as_bytes());
        check(&["c", &from_file, "--id", "1"], true, content);
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn places_are_read_with_and_without_path_and_query() {
        let check = |url: &str, path: &str, query: Option<&str>| {
            let place = Place::parse(url).unwrap();
            assert_eq!((place.path.as_str(), place.query.as_deref()), (path, query), "{url}");
        };
        check("http://localhost:5561", "/publish/", None);
        check("http://localhost:5561/", "/publish/", None);
        check("http://h/base/?key=a", "/base/publish/", Some("key=a"));
        assert!(Place::parse("tcp://localhost:5560").is_err());
        assert!(Place::parse("localhost").is_err());
    }
}
