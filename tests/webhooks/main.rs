//! Webhooks: taken, stored, signed, delivered, tried again, found, and never sent where they must not go.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, in its helpers too"
)]

mod access;
mod channels;
mod command;
mod crash;
mod delivery;
mod egress;
mod hostile;
mod queue;
mod receivers;
mod tls;
mod zhttp;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use waft_testkit::{Server, Setup, eventually};

/// A shared secret.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1u";

/// A directory for a queue, which goes away with the test.
struct Queue(PathBuf);

impl Queue {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("waft-webhooks-{}-{number}", std::process::id()));
        std::fs::remove_dir_all(&path).ok();
        Self(path)
    }

    /// A configuration with this queue; receivers on this machine are allowed.
    fn toml(&self, more: &str) -> String {
        format!(
            "[server]\nlisten = [\"FRONT\"]\nshards = 1\n[control]\nlisten = [\"CONTROL\"]\n\
             [webhooks]\ndir = \"{}\"\nallow = [\"127.0.0.1\"]\n{more}\n",
            self.0.display()
        )
    }

    fn serve(&self, more: &str) -> Hooks {
        Hooks(Server::start(Setup::native(self.toml(more))))
    }

    /// The newest segment with records.
    fn last_segment(&self) -> PathBuf {
        let files = std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let full = files.filter(|path| path.extension().is_some_and(|kind| kind == "log"));
        full.filter(|path| path.metadata().unwrap().len() > 16).max().unwrap()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }
}

/// A server with webhooks.
struct Hooks(Server);

impl Hooks {
    /// Calls the API without a token.
    fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.call_as("", method, path, body)
    }

    /// Calls the API with a bearer token.
    fn call_as(&self, token: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let authorization = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        let length = text.len();
        let answer = self.0.control(format!(
            "{method} /webhooks/{path} HTTP/1.1\r\nHost: control\r\n{authorization}Content-Length: {length}\r\n\r\n{text}"
        ));
        (answer.status(), serde_json::from_str(&answer.body_text()).unwrap_or(Value::Null))
    }

    /// Calls the API and expects that it does what it is told.
    fn must(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.call(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// Makes an endpoint and returns its id.
    fn endpoint(&self, url: &str, more: Value) -> String {
        let mut settings = json!({ "url": url, "secrets": [SECRET] });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.must("POST", "endpoints", &settings)["id"].as_str().unwrap().to_owned()
    }

    /// Hands a message over and returns its id.
    fn send(&self, kind: &str, payload: Value) -> String {
        let answer = self.must("POST", "messages", &json!({ "type": kind, "payload": payload }));
        answer["id"].as_str().unwrap().to_owned()
    }

    fn statuses(&self, id: &str) -> Vec<String> {
        let message = self.must("GET", &format!("messages/{id}"), &Value::Null);
        let deliveries = message["deliveries"].as_array().unwrap().iter();
        deliveries.map(|delivery| delivery["status"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until all deliveries of a message have this status.
    fn wait_for(&self, id: &str, status: &str) {
        eventually(&format!("{id} {status}"), || self.statuses(id).iter().all(|one| one == status).then_some(()));
    }

    /// The tries of a message, once there are `count`: a try is listed when it is on disk, which is a moment after its
    /// outcome is known.
    fn attempts(&self, id: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} tries of {id}"), || {
            let answer = self.must("GET", &format!("messages/{id}/attempts"), &Value::Null);
            Some(answer["attempts"].as_array().unwrap().clone()).filter(|attempts| attempts.len() >= count)
        })
    }
}
