//! Commands, as REQ and DEALER sockets ask for them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tracing::debug;
use waft_gateway::{Gateway, VisitKind};
use waft_grip::item::items_from_value;
use waft_grip::shape::Encoding;
use waft_grip::tnetstring::{self, TValue};
use waft_zmq::{Message, Opened};

use crate::config::DoorsConfig;
use crate::stats::Stats;

/// Answers commands for as long as the engine lives.
pub(crate) async fn run(opened: Opened, commands: Commands) {
    let Opened { sender, mut receiver, .. } = opened;
    let mut batch = Vec::new();
    while receiver.receive(&mut batch).await {
        for Message { mut frames } in batch.drain(..) {
            // Whatever stands before the last frame is the way back.
            let Some(request) = frames.pop().filter(|_| !frames.is_empty()) else { continue };
            frames.push(commands.answer(Instant::now(), &request));
            if let Err(error) = sender.send(Message { frames }) {
                debug!(%error, "The answer to a command could not be sent.");
            }
        }
        tokio::task::yield_now().await;
    }
}

/// What commands work on.
#[derive(Debug)]
pub(crate) struct Commands {
    gateway: Arc<Gateway>,
    stats: Rc<RefCell<Stats>>,
    uris: Vec<(&'static str, String)>,
}

/// Why a command was not done.
struct Refusal {
    condition: &'static str,
    text: Option<String>,
}

impl Refusal {
    const fn new(condition: &'static str) -> Self {
        Self { condition, text: None }
    }

    fn bad_request(text: impl Into<String>) -> Self {
        Self { condition: "bad-request", text: Some(text.into()) }
    }
}

impl Commands {
    pub(crate) fn new(gateway: Arc<Gateway>, stats: Rc<RefCell<Stats>>, config: &DoorsConfig) -> Self {
        let sub = config.sub.first().filter(|_| !config.sub_connect);
        let uris = [("command", config.command.as_ref()), ("publish-pull", config.pull.as_ref()), ("publish-sub", sub)];
        let uris = uris.into_iter().filter_map(|(name, uri)| Some((name, uri?.clone()))).collect();
        Self { gateway, stats, uris }
    }

    /// The answer to a request: every request gets one, since a REQ socket would wait for it for ever.
    fn answer(&self, now: Instant, request: &[u8]) -> Bytes {
        let parsed = tnetstring::parse_all(request);
        let id = match parsed.as_ref().map(|value| value.member("id")) {
            Ok(Some(TValue::Str(id))) => Some(id.clone()),
            _ => None,
        };
        let outcome = match &parsed {
            Ok(value @ TValue::Map(_)) => self.perform(now, value),
            Ok(_) => Err(Refusal::bad_request("The request is not a map.")),
            Err(error) => Err(Refusal::bad_request(format!("The request cannot be read: {error}."))),
        };
        let mut members = Vec::with_capacity(4);
        let mut member = |name: &'static str, value| members.push((Cow::Borrowed(name.as_bytes()), value));
        if let Some(id) = id {
            member("id", TValue::Str(id));
        }
        let text;
        match outcome {
            Ok(value) => {
                member("success", TValue::Bool(true));
                member("value", value);
            }
            Err(refusal) => {
                member("condition", TValue::str(refusal.condition));
                member("success", TValue::Bool(false));
                text = refusal.text;
                if let Some(text) = &text {
                    member("value", TValue::str(text));
                }
            }
        }
        let mut out = Vec::with_capacity(128);
        tnetstring::write(&TValue::Map(members), &mut out);
        out.into()
    }

    fn perform<'a>(&'a self, now: Instant, request: &'a TValue<'_>) -> Result<TValue<'a>, Refusal> {
        let method = match request.member("method") {
            Some(TValue::Str(method)) => &**method,
            Some(_) => return Err(Refusal::bad_request("'method' has a wrong type.")),
            None => return Err(Refusal::bad_request("There is no 'method'.")),
        };
        let nothing = &TValue::Null;
        let args = match request.member("args") {
            Some(args @ TValue::Map(_)) => args,
            None => nothing,
            Some(_) => return Err(Refusal::bad_request("'args' has a wrong type.")),
        };
        match method {
            b"conncheck" => self.conncheck(now, args),
            b"get-zmq-uris" => Ok(TValue::Map(
                self.uris.iter().map(|(name, uri)| (Cow::Borrowed(name.as_bytes()), TValue::str(uri))).collect(),
            )),
            b"publish" => self.publish(now, args),
            b"recover" => {
                self.gateway.recover();
                Ok(TValue::Null)
            }
            b"refresh" => self.refresh(now, args),
            _ => Err(Refusal::new("method-not-found")),
        }
    }

    fn publish(&self, now: Instant, args: &TValue<'_>) -> Result<TValue<'static>, Refusal> {
        let nothing = TValue::Map(Vec::new());
        let args = if matches!(args, TValue::Null) { &nothing } else { args };
        let items = items_from_value(args, Encoding::TNetString)
            .map_err(|error| Refusal::bad_request(format!("Invalid format: {error}")))?;
        if self.gateway.is_overloaded() {
            self.gateway.publish_metrics().overloads.add(1);
            return Err(Refusal::new("overloaded"));
        }
        for item in items {
            self.gateway.publish(now, item);
        }
        Ok(TValue::Null)
    }

    /// Says which of some connections are there.
    fn conncheck<'a>(&self, now: Instant, args: &'a TValue<'_>) -> Result<TValue<'a>, Refusal> {
        let Some(TValue::List(ids)) = args.member("ids") else { return Err(Refusal::new("bad-request")) };
        let mut stats = self.stats.borrow_mut();
        let mut present = Vec::new();
        for id in ids {
            let TValue::Str(id) = id else { return Err(Refusal::new("bad-request")) };
            if str::from_utf8(id).is_ok_and(|id| stats.find(now, id).is_some()) {
                present.push(TValue::Str(Cow::Borrowed(&**id)));
            }
        }
        Ok(TValue::List(present))
    }

    /// Lets WebSockets hear from their targets: that of a name, or those of a channel.
    fn refresh(&self, now: Instant, args: &TValue<'_>) -> Result<TValue<'static>, Refusal> {
        match (args.member("cid"), args.member("channel")) {
            (Some(TValue::Str(id)), _) => {
                let not_found = || Refusal::new("item-not-found");
                let id = str::from_utf8(id).map_err(|_| not_found())?;
                let mut stats = self.stats.borrow_mut();
                let visit = stats.find(now, id).filter(|visit| visit.kind == VisitKind::Ws).ok_or_else(not_found)?;
                self.gateway.refresh_socket(&Arc::from(&*visit.id));
                Ok(TValue::Null)
            }
            (None, Some(TValue::Str(channel))) => {
                self.gateway.refresh_channel(&String::from_utf8_lossy(channel).into());
                Ok(TValue::Null)
            }
            _ => Err(Refusal::new("bad-request")),
        }
    }
}
