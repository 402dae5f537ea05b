//! From a first packet to the call that it asks for.

use std::sync::Arc;

use waft_zhttp::{Condition, Packet};

use super::conf::Config;
use crate::policy::Policy;
use crate::target::{Host, Target, TargetError};
use crate::{Call, CallError, ClientIdentity, Redirects};

/// Hops of a call that follows redirects, as in Zurl.
const REDIRECTS_MAX: u8 = 8;

/// Header lines that are dropped from requests: they concern the connection, or Zurl drops them.
const DROPPED_HEADERS: [&str; 5] =
    ["accept-encoding", "content-encoding", "proxy-authenticate", "proxy-authorization", "proxy-connection"];

/// Header lines that a hardened door never sends: they speak to inner services.
const INNER_HEADERS: [&str; 10] = [
    "forwarded",
    "metadata-flavor",
    "x-aws-ec2-metadata-token",
    "x-aws-ec2-metadata-token-ttl-seconds",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-google-metadata-request",
    "x-real-ip",
];

/// What of a configuration a call depends on.
#[derive(Clone, Debug)]
pub struct Rules {
    policy: Arc<Policy>,
    /// For packets that may skip the policy.
    open_policy: Arc<Policy>,
    allow_ignore_policies: bool,
    allow_ignore_tls_errors: bool,
}

impl Rules {
    /// The rules of a configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            policy: Arc::new(config.policy.clone()),
            // An address family that is off stays off.
            open_policy: Arc::new(Policy { allow_ipv6: config.policy.allow_ipv6, ..Policy::open() }),
            allow_ignore_policies: config.allow_ignore_policies,
            allow_ignore_tls_errors: config.allow_ignore_tls_errors,
        }
    }

    /// The call that the payload of a first packet asks for, without its body; no policy has judged it yet.
    ///
    /// # Errors
    /// The condition that its client is told.
    pub fn read_call(&self, payload: &[u8]) -> Result<Call, Condition> {
        let (packet, _) =
            Packet::decode(&bytes::Bytes::copy_from_slice(payload)).map_err(|_unreadable| Condition::BadRequest)?;
        call_of(self, &packet)
    }
}

/// The call that a first packet asks for.
pub(crate) fn call_of(rules: &Rules, packet: &Packet) -> Result<Call, Condition> {
    let uri = packet.uri.as_ref().ok_or(Condition::BadRequest)?;
    let target = Target::parse(uri).map_err(|error| match error {
        // As in Zurl, where these fail when the request is about to be made.
        TargetError::Byte { byte: b' ' | b'{' | b'}' } => Condition::Undefined,
        _ => Condition::BadRequest,
    })?;
    let websocket = target.scheme.is_websocket();
    let method = match &packet.method {
        Some(method) => String::from_utf8_lossy(method).into_owned(),
        None if websocket => "GET".to_owned(),
        None => return Err(Condition::BadRequest),
    };
    if method == "HEAD" && (packet.more || !packet.body.is_empty()) {
        return Err(Condition::ContentNotAllowed);
    }
    let open = packet.ignore_policies && rules.allow_ignore_policies;
    let policy = Arc::clone(if open { &rules.open_policy } else { &rules.policy });
    let mut call = Call::new(&method, target, policy);
    call.headers = packet.headers.iter().filter(|(name, value)| passes(rules, name, value)).cloned().collect();
    let id = packet.ids.as_slice().first().map(|id| id.id.clone());
    call.who = packet.from.clone().or(id).unwrap_or_default();
    if let Some(host) = &packet.connect_host {
        let host = Host::parse_bare(host).map_err(|_cause| Condition::BadRequest)?;
        call.connect = Some((host, packet.connect_port.filter(|port| *port != 0).unwrap_or(call.target.port)));
    } else if let Some(port) = packet.connect_port.filter(|port| *port != 0) {
        call.connect = Some((call.target.host.clone(), port));
    }
    call.trust_connect_host = packet.trust_connect_host;
    call.ignore_tls_errors = packet.ignore_tls_errors && rules.allow_ignore_tls_errors;
    if let (Some(certificates), Some(key)) = (&packet.client_cert, &packet.client_key) {
        call.identity = Some(ClientIdentity { certificates: certificates.clone(), key: key.clone() });
    }
    if packet.follow_redirects {
        call.redirects = Redirects::Follow { max: REDIRECTS_MAX, keep_method: true };
    }
    call.decode = !websocket;
    Ok(call)
}

/// Whether a header line of the client is sent. Empty ones are not, as in Zurl.
fn passes(rules: &Rules, name: &[u8], value: &[u8]) -> bool {
    let hardened = !rules.allow_ignore_policies;
    let is_one_of = |names: &[&str]| names.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()));
    let dropped = is_one_of(&DROPPED_HEADERS) || (hardened && is_one_of(&INNER_HEADERS));
    !value.is_empty() && !dropped
}

/// The word for a failure.
pub(crate) fn condition(error: &CallError) -> Condition {
    match error {
        CallError::Connect(_) | CallError::Resolve => Condition::RemoteConnectionFailed,
        CallError::ConnectTimeout => Condition::ConnectionTimeout,
        // A redirect to another scheme.
        CallError::Denied(_) | CallError::Target(TargetError::Scheme) => Condition::PolicyViolation,
        CallError::Frame(waft_websocket::connection::Error::FrameTooLarge { .. }) => Condition::FrameTooLarge,
        CallError::Request => Condition::BadRequest,
        CallError::Tls(_) => Condition::TlsError,
        CallError::TooManyRedirects { .. } => Condition::TooManyRedirects,
        _ => Condition::Undefined,
    }
}
