//! `waft webhooks`: sends messages and looks after them, by calls to the control API of a running waft.

use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::publish::exchange;
use crate::say;

/// What to do, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    /// The control API.
    #[arg(long, env = "WAFT_CONTROL_URL", default_value = "http://localhost:5561", global = true, value_name = "URL")]
    url: String,
    /// The token of the control API, or of an application.
    #[arg(long, env = "WAFT_TOKEN", global = true, hide_env_values = true)]
    token: Option<String>,
    /// The application to act for.
    #[arg(long, global = true)]
    app: Option<String>,
    /// Print the answers as they come, in JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Hand a message over; its id is printed when it is on the disk.
    Send {
        /// The event type, such as `order.paid`.
        kind: String,
        /// The payload, JSON; `@file` reads it from a file.
        payload: String,
        /// A name by which the message is recognised if it is sent again.
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
        /// Messages with this key keep their order at endpoints that ask for order.
        #[arg(long, value_name = "KEY")]
        order_key: Option<String>,
    },
    /// List messages, the newest first.
    List {
        /// Those for this endpoint.
        #[arg(long)]
        endpoint: Option<String>,
        /// Those with a delivery that is `pending`, `delivered` or `dead`.
        #[arg(long)]
        status: Option<String>,
        /// Those before this message.
        #[arg(long, value_name = "ID")]
        before: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show the tries of a message.
    Attempts {
        /// The message.
        id: String,
    },
    /// Send a message again, or all dead letters of an endpoint.
    Resend {
        /// The message.
        #[arg(required_unless_present = "endpoint")]
        id: Option<String>,
        /// The endpoint: of the message, or whose dead letters are meant.
        #[arg(long)]
        endpoint: Option<String>,
    },
    /// List the endpoints.
    Endpoints,
}

pub(crate) fn command(args: Args) -> Result<ExitCode> {
    match &args.action {
        Action::Send { kind, payload, idempotency_key, order_key } => {
            let payload = match payload.strip_prefix('@') {
                Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?,
                None => payload.clone(),
            };
            let payload: Value = serde_json::from_str(&payload).context("the payload is not JSON")?;
            let message = json!({ "type": kind, "payload": payload, "app": args.app,
                "idempotency_key": idempotency_key, "order_key": order_key });
            let answer = args.call("POST", "messages", Some(&message))?;
            args.show(&answer, |answer| format!("{}\n", text(answer, "id")))
        }
        Action::List { endpoint, status, before, limit } => {
            let limit = limit.to_string();
            let named = [
                ("app", args.app.as_deref()),
                ("endpoint", endpoint.as_deref()),
                ("status", status.as_deref()),
                ("before", before.as_deref()),
                ("limit", Some(limit.as_str())),
            ];
            let query: Vec<String> =
                named.iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded((*value)?)))).collect();
            let answer = args.call("GET", &format!("messages?{}", query.join("&")), None)?;
            args.show(&answer, |answer| entries(answer, "messages").map(message_line).collect())
        }
        Action::Attempts { id } => {
            let answer = args.call("GET", &format!("messages/{}/attempts", encoded(id)), None)?;
            args.show(&answer, |answer| entries(answer, "attempts").map(attempt_line).collect())
        }
        Action::Resend { id, endpoint } => {
            let answer = match id {
                Some(id) => {
                    let path = format!("messages/{}/resend", encoded(id));
                    args.call("POST", &path, Some(&json!({ "endpoint": endpoint })))?
                }
                None => args.call("POST", "resend", Some(&json!({ "endpoint": endpoint, "app": args.app })))?,
            };
            args.show(&answer, |answer| format!("{} deliveries are sent again\n", answer["resent"]))
        }
        Action::Endpoints => {
            let query = args.app.as_deref().map(|app| format!("?app={}", encoded(app))).unwrap_or_default();
            let answer = args.call("GET", &format!("endpoints{query}"), None)?;
            args.show(&answer, |answer| entries(answer, "endpoints").map(endpoint_line).collect())
        }
    }
}

impl Args {
    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let Some(rest) = self.url.strip_prefix("http://") else {
            bail!("`{}` cannot be called: write http://host:port", self.url);
        };
        let (authority, base) = rest.split_once('/').unwrap_or((rest, ""));
        let base = base.trim_end_matches('/');
        let target = if base.is_empty() { format!("/webhooks/{path}") } else { format!("/{base}/webhooks/{path}") };
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let body = body.map(Value::to_string);
        let (status, answer) =
            exchange(method, authority, &target, authorization.as_deref(), body.as_ref().map(String::as_bytes))?;
        let value: Value = serde_json::from_str(&answer).unwrap_or(Value::Null);
        if status >= 400 {
            let reason = value.get("error").and_then(Value::as_str).unwrap_or(answer.trim());
            bail!("{reason} ({status}); are webhooks switched on (webhooks.dir)?");
        }
        ensure!(!value.is_null(), "the answer is no JSON; is this the control API of waft?");
        Ok(value)
    }

    fn show(&self, answer: &Value, lines: impl FnOnce(&Value) -> String) -> Result<ExitCode> {
        say(&if self.json { format!("{answer}\n") } else { lines(answer) });
        Ok(ExitCode::SUCCESS)
    }
}

fn message_line(message: &Value) -> String {
    let states: Vec<String> = entries(message, "deliveries")
        .map(|delivery| format!("{}={}", text(delivery, "endpoint"), text(delivery, "status")))
        .collect();
    format!("{}  {}  {}\n", text(message, "id"), text(message, "type"), states.join(" "))
}

fn attempt_line(attempt: &Value) -> String {
    let status =
        attempt["status"].as_u64().map_or_else(|| text(attempt, "error").to_owned(), |status| status.to_string());
    let (at, latency) = (&attempt["at_ms"], &attempt["latency_ms"]);
    format!("{at}  {}  {status}  {latency} ms  {}\n", text(attempt, "endpoint"), text(attempt, "result"))
}

fn endpoint_line(endpoint: &Value) -> String {
    let state = if endpoint["disabled"] == true {
        "disabled".to_owned()
    } else if let Some(reason) = endpoint.pointer("/stopped/reason").and_then(Value::as_str) {
        format!("stopped ({reason})")
    } else if endpoint["verified"] == false {
        "not verified".to_owned()
    } else {
        "open".to_owned()
    };
    format!("{}  {}  {}  {state}\n", text(endpoint, "id"), text(endpoint, "app"), text(endpoint, "url"))
}

fn entries<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("-")
}

/// A text as it may stand in a path or a query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
