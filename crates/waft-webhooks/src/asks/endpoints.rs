//! Endpoints: made, shown, changed, tried out, and gone.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use url::form_urlencoded;
use waft_gateway::Answer;
use waft_store::Room;

use super::{Actor, parse};
use crate::answers::{json_answer, ok, refuse};
use crate::core::record::Record;
use crate::core::sign::{Style, new_secret};
use crate::core::{Challenge, Endpoint, EndpointSettings, SECRETS_MAX, Secret, StoredEndpoint, id};
use crate::engine::{Engine, Then, now_ms, random};

/// How long an old secret signs beside its successor if nothing is said: a day.
const OVERLAP_MS: u64 = 86_400_000;

type Replied = Result<(), (oneshot::Sender<Answer>, Answer)>;

/// What a rotation says.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rotate {
    /// The new secret; one is made if it is absent.
    secret: Option<String>,
    /// `v1` or `v1a`, for a secret that is made.
    signing: Option<String>,
    /// How long the old ones sign on.
    overlap_ms: Option<u64>,
}

impl Engine {
    pub(super) fn list_endpoints(&self, actor: Actor, query: &str) -> Result<Answer, Answer> {
        let mut app = self.own(actor);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "app" => app = Some(self.app_for(actor, Some(&value))?),
                other => return Err(refuse(400, &format!("the query parameter `{other}` is unknown"))),
            }
        }
        let endpoints =
            self.core.endpoints.values().filter(|endpoint| app.is_none_or(|app| endpoint.stored.app == app));
        let shown: Vec<Value> = endpoints.map(|endpoint| self.shown(endpoint, false)).collect();
        Ok(ok(&json!({ "endpoints": shown })))
    }

    pub(super) fn show_endpoint(&self, actor: Actor, id: &str) -> Result<Answer, Answer> {
        let number = self.known_endpoint(actor, id)?;
        let endpoint = self.core.endpoints.get(&number).ok_or_else(|| refuse(404, "the endpoint has gone"))?;
        Ok(ok(&self.shown(endpoint, true)))
    }

    /// The public keys of an endpoint, for everyone.
    pub(super) fn published_keys(&self, id: &str) -> Answer {
        let Some(endpoint) = self.core.endpoint(id) else {
            return refuse(404, "there is no such endpoint");
        };
        let now = now_ms();
        let keys: Vec<String> = endpoint.signing_keys(now).iter().filter_map(|key| key.public()).collect();
        ok(&json!({ "endpoint": id, "keys": keys }))
    }

    /// An endpoint as callers see it; `with_secrets` shows what receivers need to check signatures.
    fn shown(&self, endpoint: &Endpoint, with_secrets: bool) -> Value {
        let stored = &endpoint.stored;
        let mut shown = match serde_json::to_value(&stored.settings) {
            Ok(Value::Object(settings)) => settings,
            _ => Map::new(),
        };
        if let Some(tls) = shown.get_mut("tls").and_then(Value::as_object_mut) {
            // A private key is never shown.
            tls.remove("key");
        }
        let app = self.core.apps.get(&stored.app).map(|app| app.stored.id.clone());
        shown.insert("id".into(), stored.id.as_str().into());
        shown.insert("app".into(), app.into());
        shown.insert("created_ms".into(), stored.created.into());
        shown.insert("verified".into(), stored.verified.into());
        shown.insert("stopped".into(), json!(stored.stopped));
        shown.insert("failing_since_ms".into(), json!(stored.failing_since));
        shown.insert("configured".into(), stored.configured.into());
        if stored.origin {
            shown.insert("origin".into(), true.into());
        }
        if with_secrets {
            let now = now_ms();
            let secrets = stored
                .secrets
                .iter()
                .zip(&endpoint.keys)
                .filter(|(secret, _)| secret.until.is_none_or(|until| until > now));
            let secrets: Vec<Value> = secrets
                .map(|(secret, key)| {
                    // Of an asymmetric secret receivers get the public half.
                    let text = key.public().unwrap_or_else(|| secret.text.clone());
                    json!({ "key": text, "until_ms": secret.until })
                })
                .collect();
            shown.insert("secrets".into(), secrets.into());
        }
        shown.into()
    }

    pub(super) fn create_endpoint(&mut self, actor: Actor, body: &[u8], reply: oneshot::Sender<Answer>) -> Replied {
        match self.new_endpoint(actor, body) {
            Ok(endpoint) => {
                self.store_endpoint(endpoint, 201, reply);
                Ok(())
            }
            Err(answer) => Err((reply, answer)),
        }
    }

    fn new_endpoint(&mut self, actor: Actor, body: &[u8]) -> Result<Endpoint, Answer> {
        let mut call: Map<String, Value> = parse(body)?;
        let app = self.app_for(actor, taken_text(&mut call, "app")?.as_deref())?;
        let signing = taken_text(&mut call, "signing")?;
        let secrets = match call.remove("secrets") {
            Some(secrets) => serde_json::from_value::<Vec<String>>(secrets)
                .map_err(|_cause| refuse(400, "`secrets` must be a list of texts"))?,
            None => vec![made_secret(signing.as_deref())?],
        };
        let settings = settings_of(call)?;
        let full = self.core.apps.get(&app).is_some_and(|app| app.endpoints.len() >= self.config.limits.endpoints_max);
        if full {
            return Err(refuse(409, "the application has as many endpoints as it may have; remove some"));
        }
        let stored = StoredEndpoint {
            number: self.core.new_number(),
            id: id::random_id("ep_", random()),
            app,
            created: now_ms(),
            verified: settings.challenge == Challenge::None,
            secrets: secrets.into_iter().map(|text| Secret { text, until: None }).collect(),
            settings,
            stopped: None,
            failing_since: None,
            configured: false,
            origin: false,
        };
        self.judged(stored)
    }

    /// An endpoint that can be served. What the address policy says without a look-up is said at once.
    fn judged(&self, stored: StoredEndpoint) -> Result<Endpoint, Answer> {
        let endpoint =
            Endpoint::new(stored, self.config.limits.https_only).map_err(|error| refuse(400, &error.to_string()))?;
        self.rules.check(&endpoint.stored.settings).map_err(|error| refuse(400, &error))?;
        if let Err(denial) = self.rules.policy.check_target(&endpoint.target) {
            return Err(refuse(400, &format!("the address policy refuses the url: {}", denial.rule)));
        }
        Ok(endpoint)
    }

    fn store_endpoint(&mut self, endpoint: Endpoint, status: u16, reply: oneshot::Sender<Answer>) {
        let answer = json_answer(status, &self.shown(&endpoint, true));
        let record = Record::Endpoint(&serde_json::to_vec(&endpoint.stored).unwrap_or_default()).encode();
        self.store(record, true, Room::Ordinary, Then::Endpoint(Box::new(endpoint), reply, answer));
    }

    /// An endpoint that calls may change.
    fn changeable(&self, actor: Actor, id: &str) -> Result<StoredEndpoint, Answer> {
        let number = self.known_endpoint(actor, id)?;
        let endpoint = self.core.endpoints.get(&number).ok_or_else(|| refuse(404, "the endpoint has gone"))?;
        if endpoint.stored.configured {
            return Err(refuse(409, "this endpoint stands in the configuration; change it there"));
        }
        Ok(endpoint.stored.clone())
    }

    /// Puts other settings in the place of those that were.
    pub(super) fn change_endpoint(
        &mut self,
        actor: Actor,
        id: &str,
        body: &[u8],
        reply: oneshot::Sender<Answer>,
    ) -> Replied {
        let changed = self.changeable(actor, id).and_then(|stored| {
            let mut settings = settings_of(parse(body)?)?;
            if settings.tls.key.is_none() && settings.tls.certificate == stored.settings.tls.certificate {
                // It is not shown, so whoever sends back what was shown has not got it.
                settings.tls.key.clone_from(&stored.settings.tls.key);
            }
            if stored.origin && settings.url != stored.settings.url {
                return Err(refuse(409, "this endpoint was made for an origin, whose url it keeps"));
            }
            let same_place = settings.url == stored.settings.url && settings.challenge == stored.settings.challenge;
            let verified = settings.challenge == Challenge::None || (same_place && stored.verified);
            self.judged(StoredEndpoint { settings, verified, ..stored })
        });
        match changed {
            Ok(endpoint) => {
                self.store_endpoint(endpoint, 200, reply);
                Ok(())
            }
            Err(answer) => Err((reply, answer)),
        }
    }

    pub(super) fn delete_endpoint(&mut self, actor: Actor, id: &str, reply: oneshot::Sender<Answer>) -> Replied {
        match self.changeable(actor, id) {
            Ok(stored) => {
                let record = Record::EndpointGone(stored.number).encode();
                self.store(record, true, Room::Reserve, Then::EndpointGone(stored.number, reply));
                Ok(())
            }
            Err(answer) => Err((reply, answer)),
        }
    }

    pub(super) fn act_on_endpoint(
        &mut self,
        actor: Actor,
        id: &str,
        action: &str,
        body: &[u8],
        reply: oneshot::Sender<Answer>,
    ) -> Replied {
        let result = match action {
            "rotate" => self.changeable(actor, id).and_then(|stored| self.judged(rotated(stored, body)?)),
            // A stopped endpoint of the configuration can be started again, too.
            "enable" => self.known_endpoint(actor, id).and_then(|number| {
                let known = self.core.endpoints.get(&number).ok_or_else(|| refuse(404, "the endpoint has gone"))?;
                let mut stored = known.stored.clone();
                (stored.stopped, stored.failing_since) = (None, None);
                self.judged(stored)
            }),
            "verify" | "test" => match self.known_endpoint(actor, id) {
                Ok(number) => {
                    match (action, self.core.endpoints.get(&number)) {
                        ("verify", Some(endpoint)) if endpoint.stored.settings.challenge != Challenge::None => {
                            self.challenge(endpoint, reply);
                        }
                        ("test", Some(endpoint)) => {
                            let app = endpoint.stored.app;
                            self.submit_test(app, number, reply);
                        }
                        _ => return Err((reply, refuse(409, "this endpoint has no `challenge`; set one first"))),
                    }
                    return Ok(());
                }
                Err(answer) => Err(answer),
            },
            _ => Err(refuse(404, "an endpoint can be told to `rotate`, `enable`, `verify`, `test` or `replay`")),
        };
        match result {
            Ok(endpoint) => {
                self.store_endpoint(endpoint, 200, reply);
                Ok(())
            }
            Err(answer) => Err((reply, answer)),
        }
    }
}

fn settings_of(call: Map<String, Value>) -> Result<EndpointSettings, Answer> {
    serde_json::from_value(Value::Object(call))
        .map_err(|error| refuse(400, &format!("the settings cannot be read: {error}")))
}

fn taken_text(call: &mut Map<String, Value>, key: &str) -> Result<Option<String>, Answer> {
    match call.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(refuse(400, &format!("`{key}` must be a text"))),
    }
}

fn made_secret(signing: Option<&str>) -> Result<String, Answer> {
    match signing {
        None | Some("v1") => Ok(new_secret(false, random())),
        Some("v1a") => Ok(new_secret(true, random())),
        Some(_) => Err(refuse(400, "`signing` is `v1` or `v1a`")),
    }
}

/// An endpoint with a new secret in front; the old ones sign on for a while.
fn rotated(mut stored: StoredEndpoint, body: &[u8]) -> Result<StoredEndpoint, Answer> {
    let Rotate { secret, signing, overlap_ms } = parse(body)?;
    let text = match secret {
        Some(secret) => secret,
        None if matches!(stored.settings.style, Style::Github | Style::Stripe) => made_secret(None)?,
        None => {
            let same = stored.secrets.first().is_some_and(|secret| secret.text.starts_with("whsk_"));
            made_secret(signing.as_deref().or(Some(if same { "v1a" } else { "v1" })))?
        }
    };
    let now = now_ms();
    let until = now.saturating_add(overlap_ms.unwrap_or(OVERLAP_MS));
    stored.secrets.retain(|secret| secret.until.is_none_or(|until| until > now));
    for secret in &mut stored.secrets {
        secret.until = Some(secret.until.map_or(until, |earlier| earlier.min(until)));
    }
    stored.secrets.insert(0, Secret { text, until: None });
    stored.secrets.truncate(SECRETS_MAX);
    Ok(stored)
}
