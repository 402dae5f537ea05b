//! The paths of the API on the control port, and the channels whose items are sent on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use waft_gateway::{Answer, Extension, Reply, Request, Tap};
use waft_grip::item::Item;

use crate::answers::refuse;
use crate::config::{StartError, WebhooksConfig};
use crate::engine::{self, Ask, COMMANDS_MAX, Caller, Command, Shared, token_hash};
use crate::metrics::add;
use crate::submit;

/// What all paths begin with.
const PREFIX: &str = "/webhooks";

/// The page for people.
const PAGE: &str = include_str!("page.html");

/// The sender of webhooks, running. [`Webhooks::stop`] ends it.
#[derive(Debug)]
pub struct Webhooks {
    pub(crate) shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    body_max: usize,
}

impl Webhooks {
    /// Opens the queue and starts to deliver what it has.
    pub fn start(config: WebhooksConfig) -> Result<Arc<Self>, StartError> {
        let shared = Arc::new(Shared::default());
        let body_max = config.body_max;
        let thread = engine::start(config, &shared)?;
        Ok(Arc::new(Self { shared, thread: Mutex::new(Some(thread)), body_max }))
    }

    /// Takes nothing more, gives tries that are under way a moment, and closes the queue.
    pub fn stop(&self) {
        self.shared.mailbox.send(Command::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            engine::join(thread);
        }
    }

    /// Hands a command over, unless too many wait.
    fn send(&self, command: impl FnOnce(oneshot::Sender<Answer>) -> Command) -> Reply {
        if self.shared.waiting.fetch_add(1, Ordering::Relaxed) >= COMMANDS_MAX {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return Reply::Now(refuse(503, "too many calls wait; call again later"));
        }
        let (reply, answer) = oneshot::channel();
        self.shared.mailbox.send(command(reply));
        Reply::Later(answer)
    }
}

impl Extension for Webhooks {
    fn prefix(&self) -> &'static str {
        PREFIX
    }

    fn reply(&self, request: &Request<'_>, trusted: bool) -> Reply {
        let head = request.head;
        let path = head.path().strip_prefix(PREFIX).unwrap_or_default().trim_matches('/');
        if path.is_empty() && matches!(head.method(), "GET" | "HEAD") {
            // The page has nothing in it: it asks for everything with the token that its reader gives it.
            return Reply::Now(page());
        }
        let caller = Caller { trusted, token: bearer(head.field("Authorization")) };
        if path == "messages" && head.method() == "POST" {
            return match submit::parse(request.body, head.field("Idempotency-Key"), self.body_max) {
                Ok((messages, list)) => self.send(|reply| Command::Submit { caller, messages, list, reply }),
                // Whoever may not send is told that first.
                Err(_) if !trusted && caller.token.is_none() => Reply::Now(refuse(401, "show a bearer token")),
                Err(error) => Reply::Now(refuse(400, &error.to_string())),
            };
        }
        self.send(|reply| {
            Command::Ask(Box::new(Ask {
                caller,
                method: head.method().to_owned(),
                path: path.to_owned(),
                query: head.query().unwrap_or_default().to_owned(),
                body: request.body.to_vec(),
                reply,
            }))
        })
    }

    fn metrics(&self, out: &mut String) {
        self.shared.metrics.write(out);
    }
}

impl Tap for Webhooks {
    fn wants(&self, channel: &str) -> bool {
        self.shared.channels.load().contains(channel)
    }

    fn published(&self, item: Item) {
        if self.shared.waiting.fetch_add(1, Ordering::Relaxed) >= COMMANDS_MAX {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            add(&self.shared.metrics.tap_dropped, 1);
            return;
        }
        self.shared.mailbox.send(Command::Item(Box::new(item)));
    }
}

fn page() -> Answer {
    let mut answer = Answer::new(200, "text/html; charset=utf-8", PAGE);
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    answer.fields.push("Content-Security-Policy", policy);
    answer.fields.push("X-Content-Type-Options", "nosniff");
    answer.fields.push("X-Frame-Options", "DENY");
    answer
}

/// The SHA-256 of a bearer token.
fn bearer(authorization: Option<&[u8]>) -> Option<[u8; 32]> {
    let (scheme, token) = authorization?.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token_hash(token.trim_ascii()))
}
