//! Signatures of requests to targets.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::error;
use waft_route::Route;

use crate::settings::Settings;

/// Signatures made lately, by route. A signature says nothing but issuer and expiry in whole
/// seconds, so all requests of one route in one second carry the same.
#[derive(Debug, Default)]
pub(crate) struct Signatures {
    made: RefCell<Vec<Signature>>,
}

#[derive(Debug)]
struct Signature {
    route: Arc<str>,
    /// When it was made, in seconds since 1970.
    at: u64,
    token: Arc<str>,
}

/// Routes whose signature is kept.
const KEPT: usize = 64;

impl Signatures {
    /// The `Grip-Sig` for a request of `route`, if its requests are signed.
    pub(crate) fn sign(&self, settings: &Settings, route: &Route) -> Option<Arc<str>> {
        let key = settings.signing_keys.get(&route.id)?;
        let now = unix_seconds();
        let mut made = self.made.borrow_mut();
        if let Some(signature) = made.iter().find(|made| made.at == now && Arc::ptr_eq(&made.route, &route.id)) {
            return Some(Arc::clone(&signature.token));
        }
        let token: Arc<str> = match key.sign(&route.options.sig_iss, now) {
            Ok(token) => token.into(),
            Err(error) => {
                error!(route = %route.id, %error, "A request goes out unsigned; check the route's signing key.");
                return None;
            }
        };
        made.retain(|made| made.at == now);
        made.truncate(KEPT);
        made.push(Signature { route: Arc::clone(&route.id), at: now, token: Arc::clone(&token) });
        Some(token)
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
