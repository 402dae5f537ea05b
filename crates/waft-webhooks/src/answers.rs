//! The forms of answers: JSON, errors too.

use serde_json::{Value, json};
use waft_gateway::Answer;

/// An answer with a body of JSON.
pub(crate) fn json_answer(status: u16, value: &Value) -> Answer {
    Answer::new(status, "application/json", format!("{value}\n"))
}

/// What was asked for.
pub(crate) fn ok(value: &Value) -> Answer {
    json_answer(200, value)
}

/// An error, whose text says what to do.
pub(crate) fn refuse(status: u16, text: &str) -> Answer {
    let mut answer = json_answer(status, &json!({ "error": text }));
    if status == 401 {
        answer.fields.push("WWW-Authenticate", "Bearer realm=\"waft webhooks\"");
    }
    if matches!(status, 503 | 507) {
        answer.fields.push("Retry-After", "5");
    }
    answer
}
