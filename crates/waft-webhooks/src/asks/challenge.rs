//! Whether an endpoint wants to be called: asked by a challenge before anything is delivered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::oneshot;
use waft_gateway::Answer;
use waft_outbound::{Call, Client};
use waft_store::Room;

use crate::answers::{json_answer, refuse};
use crate::core::record::Record;
use crate::core::{Challenge, Endpoint, id};
use crate::engine::{Command, Engine, Then, answer_with, random};
use crate::send;

/// How long an endpoint may take to answer a challenge.
const PATIENCE: Duration = Duration::from_secs(15);

/// Who asks, in the words of CloudEvents.
const ORIGIN: &str = "waft";

impl Engine {
    /// Asks an endpoint; the caller is answered when it has answered.
    pub(super) fn challenge(&self, endpoint: &Endpoint, reply: oneshot::Sender<Answer>) {
        let (client, shared) = (self.client.clone(), Arc::clone(&self.shared));
        let name = endpoint.stored.id.clone();
        let kind = endpoint.stored.settings.challenge;
        let text = id::random_id("", random());
        let mut call = send::to(endpoint, if kind == Challenge::Options { "OPTIONS" } else { "GET" }, &self.rules);
        if kind == Challenge::Options {
            call.headers.push((Bytes::from_static(b"WebHook-Request-Origin"), Bytes::from_static(ORIGIN.as_bytes())));
        } else {
            let joint = if call.target.path.contains('?') { '&' } else { '?' };
            call.target.path = format!("{}{joint}challenge={text}", call.target.path);
        }
        tokio::task::spawn_local(async move {
            let asked = tokio::time::timeout(PATIENCE, ask(&client, call, kind, &text)).await;
            let result = asked.unwrap_or_else(|_elapsed| Err(format!("no answer within {} s", PATIENCE.as_secs())));
            shared.mailbox.send(Command::Challenged { endpoint: name, result, reply });
        });
    }

    pub(crate) fn challenged(&mut self, name: &str, result: Result<(), String>, reply: oneshot::Sender<Answer>) {
        let Some(endpoint) = self.core.endpoint(name) else {
            return answer_with(reply, refuse(404, "the endpoint has gone"));
        };
        let mut stored = endpoint.stored.clone();
        stored.verified = result.is_ok();
        if let Err(error) = result {
            let text = format!("the endpoint did not prove that it wants to be called: {error}");
            return answer_with(reply, refuse(422, &text));
        }
        let record = Record::Endpoint(&serde_json::to_vec(&stored).unwrap_or_default()).encode();
        match Endpoint::new(stored, self.config.limits.https_only) {
            Ok(endpoint) => {
                let answer = json_answer(200, &json!({ "id": name, "verified": true }));
                self.store(record, true, Room::Ordinary, Then::Endpoint(Box::new(endpoint), reply, answer));
            }
            Err(error) => answer_with(reply, refuse(400, &error.to_string())),
        }
    }
}

async fn ask(client: &Client, call: Box<Call>, kind: Challenge, text: &str) -> Result<(), String> {
    let mut response = client.call(call).await.map_err(|error| send::reason(&error))?;
    if !(200..=299).contains(&response.status) {
        return Err(format!("it answered {}", response.status));
    }
    if kind == Challenge::Options {
        let allowed = response.header("webhook-allowed-origin").map(|value| value.trim_ascii().to_vec());
        return match allowed.as_deref() {
            Some(allowed) if allowed == b"*" || allowed == ORIGIN.as_bytes() => Ok(()),
            Some(_) | None => Err(format!("it did not answer `WebHook-Allowed-Origin: {ORIGIN}`")),
        };
    }
    let mut body = Vec::new();
    send::read(&mut response, &mut body).await.map_err(|error| send::reason(&error))?;
    if body.trim_ascii() == text.as_bytes() {
        Ok(())
    } else {
        Err("its answer was not the text it was asked for".into())
    }
}
