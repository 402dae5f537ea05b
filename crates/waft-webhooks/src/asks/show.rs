//! Messages and tries as callers see them.

use serde_json::value::RawValue;
use serde_json::{Value, json};
use waft_gateway::Answer;

use super::Actor;
use crate::answers::{ok, refuse};
use crate::core::record::{Record, StoredMessage};
use crate::core::{Delivery, Message, State, id};
use crate::engine::Engine;

impl Engine {
    /// A message without its body.
    pub(super) fn message_in_short(&self, seq: u64) -> Option<Value> {
        let message = self.core.message(seq)?;
        let bytes = self.reader.read(message.place).ok()?;
        match Record::decode(&bytes) {
            Ok(Record::Message(stored)) => Some(self.described(message, &stored)),
            _ => None,
        }
    }

    fn described(&self, message: &Message, stored: &StoredMessage<'_>) -> Value {
        let app = self.core.apps.get(&message.app).map(|app| app.stored.id.as_str());
        let deliveries: Vec<Value> = message.deliveries.iter().map(|delivery| self.delivery(delivery)).collect();
        let mut described = json!({
            "id": id::message_id(stored.seq, self.core.mark),
            "app": app,
            "type": stored.kind,
            "created_ms": id::taken_at(stored.seq),
            "bytes": stored.body.len(),
            "deliveries": deliveries,
        });
        if let (Some(request), Some(described)) = (&stored.request, described.as_object_mut()) {
            described.insert("request".into(), json!({ "method": request.method, "url": request.url }));
        }
        described
    }

    fn delivery(&self, delivery: &Delivery) -> Value {
        let endpoint = self.core.endpoints.get(&delivery.endpoint).map(|endpoint| endpoint.stored.id.as_str());
        let time = match delivery.state {
            State::Pending | State::Sending => "due_ms",
            State::Delivered | State::Dead => "ended_ms",
        };
        json!({
            "endpoint": endpoint, "status": delivery.state.as_str(), "failed_attempts": delivery.attempts, time: delivery.due,
        })
    }

    pub(super) fn show_message(&self, actor: Actor, id: &str) -> Result<Answer, Answer> {
        let seq = self.known_message(actor, id)?;
        let message = self.core.message(seq).ok_or_else(|| refuse(404, "the message has just gone"))?;
        let bytes = self.reader.read(message.place).map_err(|error| refuse(500, &error.to_string()))?;
        let Ok(Record::Message(stored)) = Record::decode(&bytes) else {
            return Err(refuse(500, "the message is damaged"));
        };
        let mut shown = self.described(message, &stored);
        if let Some(shown) = shown.as_object_mut() {
            shown.insert("content_type".into(), stored.content_type.into());
            let text = str::from_utf8(stored.body).ok();
            match text {
                Some(text) if stored.content_type == "application/json" => {
                    let raw = RawValue::from_string(text.to_owned()).ok();
                    let value = raw.and_then(|raw| serde_json::from_str(raw.get()).ok());
                    shown.insert("payload".into(), value.unwrap_or_else(|| text.into()));
                }
                Some(text) => drop(shown.insert("text".into(), text.into())),
                None => {}
            }
        }
        Ok(ok(&shown))
    }

    pub(super) fn show_attempts(&self, actor: Actor, id: &str) -> Result<Answer, Answer> {
        let seq = self.known_message(actor, id)?;
        let places = self.core.message(seq).map(|message| message.attempts.to_vec()).unwrap_or_default();
        let mut attempts = Vec::with_capacity(places.len());
        for place in places {
            // A try that was moved away at this moment is missing rather than the whole answer.
            let Ok(bytes) = self.reader.read(place) else { continue };
            let Ok(Record::Attempt(attempt)) = Record::decode(&bytes) else { continue };
            let endpoint = self.core.endpoints.get(&attempt.delivery.endpoint).map(|known| known.stored.id.as_str());
            attempts.push(json!({
                "endpoint": endpoint,
                "at_ms": attempt.at,
                "status": (attempt.status != 0).then_some(attempt.status),
                "latency_ms": attempt.latency_ms,
                "error": (!attempt.cause.is_empty()).then_some(attempt.cause),
                "answer": String::from_utf8_lossy(attempt.answer),
                "result": attempt.delivery.state.as_str(),
            }));
        }
        Ok(ok(&json!({ "attempts": attempts })))
    }
}
