//! Requests that programs hand over by ZHTTP: the door of `waft_outbound::zurl` asks for a queue, and this is one.
//!
//! Such programs have URLs, not endpoints. A URL's origin becomes an endpoint of its own when the first request for it comes,
//! so that rate, breaker and fairness are those of the place it goes to. The request keeps its method, path and headers.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;
use waft_outbound::target::Target;
use waft_outbound::zurl::{Kept, NotKept, Queue, Receipt};
use waft_store::Room;

use crate::core::filter::{is_event_type, is_own};
use crate::core::record::Record;
use crate::core::{Endpoint, EndpointSettings, StoredEndpoint, id};
use crate::engine::{COMMANDS_MAX, Command, DEFAULT_APP, Engine, Reply, Then, now_ms, random};
use crate::service::Webhooks;
use crate::submit::{NewMessage, NewRequest, hash_key};

/// The event type of requests that say nothing else.
const KIND: &str = "zhttp.request";

/// Most header lines of a request.
const HEADERS_MAX: usize = 256;

impl Queue for Webhooks {
    fn keep(&self, request: Kept) -> oneshot::Receiver<Result<Receipt, NotKept>> {
        let (reply, answer) = oneshot::channel();
        if self.shared.waiting.fetch_add(1, Ordering::Relaxed) >= COMMANDS_MAX {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            // Whoever asked has the other half.
            let _told = reply.send(Err(NotKept::Full));
        } else {
            self.shared.mailbox.send(Command::Keep(Box::new((request, reply))));
        }
        answer
    }

    fn metrics(&self, out: &mut String) {
        self.shared.metrics.write(out);
    }

    fn stop(&self) {
        Self::stop(self);
    }
}

impl Engine {
    pub(crate) fn keep(&mut self, request: Kept, reply: oneshot::Sender<Result<Receipt, NotKept>>) {
        match self.kept(request) {
            Ok((app, message, only)) => self.submit_one(app, &message, only.as_deref(), Reply::Receipt(reply)),
            Err(refused) => drop(reply.send(Err(refused))),
        }
    }

    /// The application, the message, and the endpoints it is meant for if that is said.
    fn kept(&mut self, request: Kept) -> Result<(u32, NewMessage, Option<Vec<u32>>), NotKept> {
        let text = |bytes: &[u8]| str::from_utf8(bytes).map(ToOwned::to_owned).map_err(|_not_text| NotKept::Wrong);
        let key = |bytes: Option<&[u8]>| bytes.map_or(Ok(0), |bytes| hash_key(bytes).map_err(|_wrong| NotKept::Wrong));
        if self.is_behind() {
            return Err(NotKept::Full);
        }
        let Kept { call, content_type, body, wishes } = request;
        let name = wishes.app.as_deref().map_or(Ok(DEFAULT_APP.to_owned()), text)?;
        let app = self.core.app(&name).ok_or(NotKept::Wrong)?.stored.number;
        if body.len() > self.config.body_max {
            return Err(NotKept::Wrong);
        }
        let kind = match (&wishes.event_type, &wishes.endpoint, &call) {
            (Some(kind), _, None) => text(kind)?,
            (None, Some(_), None) | (None, None, Some(_)) => KIND.to_owned(),
            // An event type is for those who registered; and one of the two must say where it goes.
            _ => return Err(NotKept::Wrong),
        };
        if !is_event_type(&kind) || is_own(&kind) {
            return Err(NotKept::Wrong);
        }
        let (only, new_request) = match (call, &wishes.endpoint) {
            (Some(call), _) => {
                if call.headers.len() > HEADERS_MAX {
                    return Err(NotKept::Wrong);
                }
                let number = self.endpoint_of(app, &call.target)?;
                let new_request = NewRequest {
                    method: call.method,
                    url: call.target.to_string(),
                    headers: call.headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
                    ignore_tls_errors: call.ignore_tls_errors,
                };
                (Some(vec![number]), Some(new_request))
            }
            (None, Some(endpoint)) => {
                let known = self.core.endpoint(&text(endpoint)?).filter(|known| known.stored.app == app);
                (Some(vec![known.ok_or(NotKept::Wrong)?.stored.number]), None)
            }
            (None, None) => (None, None),
        };
        let message = NewMessage {
            app: None,
            kind,
            content_type: content_type.as_deref().map_or(Ok("application/octet-stream".to_owned()), text)?,
            order: key(wishes.order_key.as_deref())?,
            idempotency: key(wishes.idempotency_key.as_deref())?,
            endpoints: None,
            body: body.to_vec(),
            request: new_request,
        };
        Ok((app, message, only))
    }

    /// The endpoint for the origin of a URL, made if there is none.
    fn endpoint_of(&mut self, app: u32, target: &Target) -> Result<u32, NotKept> {
        let url = format!("{}://{}/", target.scheme.as_str(), target.authority());
        let now = now_ms();
        let known = self.core.origin(app, &url).and_then(|number| self.core.endpoints.get_mut(&number));
        let endpoint = match known {
            Some(known) => {
                known.used = now;
                if known.place.is_some() {
                    return Ok(known.stored.number);
                }
                // It is on its way to the disk, or did not get there: either way it stands before its message.
                known.stored.clone()
            }
            None => self.new_origin(app, url, now)?,
        };
        let record = Record::Endpoint(&serde_json::to_vec(&endpoint).unwrap_or_default()).encode();
        self.store(record, true, Room::Ordinary, Then::EndpointMoved(endpoint.number, false));
        Ok(endpoint.number)
    }

    fn new_origin(&mut self, app: u32, url: String, now: u64) -> Result<StoredEndpoint, NotKept> {
        let count = self.core.apps.get(&app).map_or(0, |app| app.endpoints.len());
        if count >= self.config.limits.endpoints_max {
            let gone = self.core.forget_unused_origin(app, now).ok_or(NotKept::Full)?;
            self.store(Record::EndpointGone(gone).encode(), false, Room::Reserve, Then::Nothing);
        }
        let stored = StoredEndpoint {
            number: self.core.new_number(),
            id: id::random_id("ep_", random()),
            app,
            created: now,
            settings: EndpointSettings { url, ..EndpointSettings::default() },
            secrets: Vec::new(),
            stopped: None,
            verified: true,
            failing_since: None,
            configured: false,
            origin: true,
        };
        let endpoint =
            Endpoint::new(stored.clone(), self.config.limits.https_only).map_err(|_unusable| NotKept::Wrong)?;
        self.core.put_endpoint(Endpoint { used: now, ..endpoint });
        Ok(stored)
    }
}
