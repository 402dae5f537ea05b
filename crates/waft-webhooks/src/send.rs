//! One try: sign, call, read the beginning of the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use waft_outbound::policy::Policy;
use waft_outbound::target::Target;
use waft_outbound::{Call, CallError, Client, RequestBody, Response};

use crate::core::record::{StoredMessage, StoredRequest};
use crate::core::sign::{self, Signed};
use crate::core::{Endpoint, EndpointSettings, Outcome, schedule};

/// Bytes of an answer that are kept.
pub(crate) const ANSWER_MAX: usize = 20_000;

/// What stands in the place of secrets.
const REDACTED: &[u8] = b"[redacted]";

/// Secrets shorter than this are not looked for in answers: they would be found everywhere.
const SECRET_MIN: usize = 8;

/// A try that is ready to be made.
pub(crate) struct Try {
    pub(crate) call: Box<Call>,
    pub(crate) timeout: Duration,
    /// What must not stand in the log of tries.
    secrets: Vec<Vec<u8>>,
}

impl Try {
    /// A try to deliver a message; none if what is stored cannot be called.
    pub(crate) fn new(
        endpoint: &Endpoint,
        message: &StoredMessage<'_>,
        id: &str,
        rules: &Rules,
        now: u64,
    ) -> Option<Self> {
        let timeout = endpoint.stored.settings.timeout_s.map_or(rules.timeout, |s| Duration::from_secs(s.into()));
        if let Some(request) = &message.request {
            return Self::again(endpoint, message, request, id, rules, timeout);
        }
        let mut call = to(endpoint, "POST", rules);
        call.body = RequestBody::Whole(Bytes::copy_from_slice(message.body));
        let signed = Signed { id, kind: message.kind, timestamp: now / 1_000, body: message.body };
        let headers = sign::headers(endpoint.stored.settings.style, &endpoint.signing_keys(now), &signed);
        let named = |name: &'static str, value: String| (Bytes::from_static(name.as_bytes()), Bytes::from(value));
        call.headers.extend(headers.into_iter().map(|(name, value)| named(name, value)));
        call.headers.push(named("Content-Type", message.content_type.to_owned()));
        Some(Self { call, timeout, secrets: secrets(endpoint) })
    }

    /// A try of a request as it came. Its receiver gets the id, too, by which it knows it if it comes again.
    fn again(
        endpoint: &Endpoint,
        message: &StoredMessage<'_>,
        request: &StoredRequest<'_>,
        id: &str,
        rules: &Rules,
        timeout: Duration,
    ) -> Option<Self> {
        let target = Target::parse(request.url.as_bytes()).ok()?;
        let mut call = plain(endpoint, request.method, target, rules);
        call.ignore_tls_errors |= request.ignore_tls_errors;
        call.body = RequestBody::Whole(Bytes::copy_from_slice(message.body));
        call.headers.extend(
            request.headers.iter().map(|(name, value)| (Bytes::copy_from_slice(name), Bytes::copy_from_slice(value))),
        );
        let has_id = call.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"webhook-id"));
        if !has_id {
            call.headers.push((Bytes::from_static(b"webhook-id"), Bytes::copy_from_slice(id.as_bytes())));
        }
        let mut secrets = secrets(endpoint);
        let kept = request.headers.iter().filter(|(name, value)| value.len() >= SECRET_MIN && is_secret(name));
        secrets.extend(kept.map(|(_, value)| value.to_vec()));
        Some(Self { call, timeout, secrets })
    }

    /// Makes the try. `now` is its time in Unix milliseconds.
    pub(crate) async fn run(self, client: Client, now: u64) -> Outcome {
        let began = Instant::now();
        let mut outcome = Outcome { at: now, ..Outcome::default() };
        match tokio::time::timeout(self.timeout, exchange(&client, self.call, now, &mut outcome)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                outcome.denied = matches!(error, CallError::Denied(_));
                outcome.cause = reason(&error);
            }
            // A status that came before the body stalled still counts.
            Err(_elapsed) if outcome.status != 0 => {}
            Err(_elapsed) => outcome.cause = format!("no answer within {} s", self.timeout.as_secs()),
        }
        outcome.latency_ms = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX);
        outcome.answer = redacted(std::mem::take(&mut outcome.answer), &self.secrets);
        outcome
    }
}

/// What every try keeps to.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// What may be called.
    pub(crate) policy: Arc<Policy>,
    /// Whether an endpoint may have any certificate.
    pub(crate) allow_insecure: bool,
    /// How long a try may take if its endpoint says nothing.
    pub(crate) timeout: Duration,
}

impl Rules {
    /// Whether settings ask for what the configuration does not allow.
    pub(crate) fn check(&self, settings: &EndpointSettings) -> Result<(), String> {
        if settings.tls.insecure && !self.allow_insecure {
            return Err("tls.insecure is not allowed here; set webhooks.allow_insecure, or give tls.ca".to_owned());
        }
        Ok(())
    }
}

/// A call with the TLS of an endpoint and its headers.
fn plain(endpoint: &Endpoint, method: &str, target: Target, rules: &Rules) -> Box<Call> {
    let settings = &endpoint.stored.settings;
    let mut call = Box::new(Call::new(method, target, Arc::clone(&rules.policy)));
    call.who = Bytes::copy_from_slice(endpoint.stored.id.as_bytes());
    // What is stored may be older than the configuration.
    call.ignore_tls_errors = settings.tls.insecure && rules.allow_insecure;
    call.authorities = settings.tls.authorities();
    call.identity = settings.tls.identity();
    call.headers.reserve(6 + settings.headers.len());
    let header =
        |name: &str, value: &str| (Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    call.headers.extend(settings.headers.iter().map(|(name, value)| header(name, value)));
    call
}

/// A call to an endpoint, without body and signature.
pub(crate) fn to(endpoint: &Endpoint, method: &str, rules: &Rules) -> Box<Call> {
    let settings = &endpoint.stored.settings;
    let mut call = plain(endpoint, method, endpoint.target.clone(), rules);
    if !settings.headers.keys().any(|name| name.eq_ignore_ascii_case("user-agent")) {
        let agent = Bytes::from_static(concat!("waft/", env!("CARGO_PKG_VERSION")).as_bytes());
        call.headers.push((Bytes::from_static(b"User-Agent"), agent));
    }
    call
}

async fn exchange(client: &Client, call: Box<Call>, now: u64, outcome: &mut Outcome) -> Result<(), CallError> {
    let mut response = client.call(call).await?;
    outcome.status = response.status;
    outcome.retry_after = response.header("retry-after").and_then(|value| schedule::retry_after(value, now));
    // What is behind the status does not change it.
    if let Err(error) = read(&mut response, &mut outcome.answer).await {
        outcome.cause = reason(&error);
    }
    Ok(())
}

/// Reads the beginning of a body. If that was all, the connection can be used again.
pub(crate) async fn read(response: &mut Response, into: &mut Vec<u8>) -> Result<(), CallError> {
    while let Some(piece) = response.body.piece().await? {
        let room = ANSWER_MAX.saturating_sub(into.len());
        into.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
        if piece.len() > room {
            break;
        }
    }
    Ok(())
}

/// Why a call failed, with its causes.
pub(crate) fn reason(error: &CallError) -> String {
    // Which inner address a name leads to is for the log of the operator.
    if let CallError::Denied(denial) = error {
        return denial.rule.to_string();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

/// Whether the value of a header opens something.
fn is_secret(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    let has = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
    [&b"authorization"[..], b"cookie", b"key", b"secret", b"signature", b"token"].into_iter().any(has)
}

/// What is known to the endpoint and to nobody else.
fn secrets(endpoint: &Endpoint) -> Vec<Vec<u8>> {
    let stored = &endpoint.stored;
    let secrets = stored.secrets.iter().map(|secret| secret.text.as_str());
    let all = secrets.chain(stored.settings.headers.values().map(String::as_str));
    all.filter(|text| text.len() >= SECRET_MIN).map(|text| text.as_bytes().to_vec()).collect()
}

/// An answer without secrets that it repeats.
fn redacted(mut answer: Vec<u8>, secrets: &[Vec<u8>]) -> Vec<u8> {
    for secret in secrets {
        let mut at = 0;
        while let Some(found) =
            answer.get(at..).and_then(|rest| rest.windows(secret.len()).position(|window| window == secret))
        {
            answer.splice(at + found..at + found + secret.len(), REDACTED.iter().copied());
            at += found + REDACTED.len();
        }
    }
    answer.truncate(ANSWER_MAX);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_of_answers() {
        let secrets = vec![b"whsec_abc".to_vec(), b"Bearer token".to_vec()];
        let check = |answer: &str, expected: &str| {
            assert_eq!(redacted(answer.as_bytes().to_vec(), &secrets), expected.as_bytes());
        };
        check("ok", "ok");
        check("whsec_abcwhsec_abc", "[redacted][redacted]");
        check("got Bearer token and whsec_ab", "got [redacted] and whsec_ab");
    }
}
