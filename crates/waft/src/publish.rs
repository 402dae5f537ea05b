//! `waft publish`, also known as `pushpin-publish`: one item, over HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use waft_http1::{BodyDecoder, HeadLimits, HeadWriter, Parsed, parse_response};

use crate::say;

/// Publish an item over HTTP.
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
    /// Where to publish: the URL of a control API.
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
    let body = json!({ "items": [item(&args)?] }).to_string();
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
    let has_port =
        place.authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let address = if has_port { place.authority.clone() } else { format!("{}:80", place.authority) };
    let mut stream = TcpStream::connect(&address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut out = Vec::new();
    let target = match &place.query {
        Some(query) => format!("{}?{query}", place.path),
        None => place.path.clone(),
    };
    let mut writer = HeadWriter::new(&mut out);
    writer.request_line("POST", &target).field("Host", &place.authority).field("Content-Type", "application/json");
    if let Some(authorization) = authorization {
        writer.field("Authorization", authorization);
    }
    writer.field("Connection", "close").content_length(body.len() as u64).finish();
    out.extend_from_slice(body);
    stream.write_all(&out)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let Parsed::Complete { head, consumed } = parse_response(&answer, &HeadLimits::default())? else {
        return Err(anyhow!("the answer of {address} was cut short"));
    };
    let mut decoder = BodyDecoder::new(head.framing("POST")?);
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
