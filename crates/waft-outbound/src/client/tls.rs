//! TLS towards receivers: always verified, unless a call that may say so says otherwise.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use waft_net::{ClientIdentity, TlsError, Trust, client_config_trusting};

/// Configurations with a client certificate that are remembered.
const IDENTITIES_MAX: usize = 256;

/// What a connection's TLS depends on.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct TlsChoice {
    pub(crate) unverified: bool,
    /// Trust these authorities, PEM, instead of those of the system.
    pub(crate) authorities: Option<Bytes>,
    pub(crate) http1_only: bool,
    pub(crate) identity: Option<ClientIdentity>,
}

/// Builds configurations and remembers them.
#[derive(Debug)]
pub(crate) struct TlsConfigs {
    provider: Arc<CryptoProvider>,
    built: RefCell<HashMap<u64, Arc<ClientConfig>>>,
}

impl TlsConfigs {
    pub(crate) fn new() -> Self {
        Self { provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()), built: RefCell::default() }
    }

    pub(crate) fn config(&self, choice: &TlsChoice) -> io::Result<Arc<ClientConfig>> {
        let mut hasher = DefaultHasher::new();
        choice.hash(&mut hasher);
        let key = hasher.finish();
        if let Some(config) = self.built.borrow().get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = build(choice).map_err(io::Error::other)?;
        let mut built = self.built.borrow_mut();
        if built.len() >= IDENTITIES_MAX {
            built.clear();
        }
        built.insert(key, Arc::clone(&config));
        Ok(config)
    }

    /// Bytes that nobody can predict, as WebSocket keys and masks need them.
    pub(crate) fn random<const N: usize>(&self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.provider.secure_random.fill(&mut bytes).map_err(|_cause| io::Error::other("no random bytes"))?;
        Ok(bytes)
    }
}

/// Judges what a call would show and trust in TLS, so that it is not found out at the call.
///
/// # Errors
/// When the identity or the authorities, all PEM, cannot be used.
pub fn check_tls(identity: Option<&ClientIdentity>, authorities: Option<&Bytes>) -> Result<(), TlsError> {
    let (identity, authorities) = (identity.cloned(), authorities.cloned());
    build(&TlsChoice { unverified: authorities.is_none(), http1_only: true, authorities, identity }).map(drop)
}

fn build(choice: &TlsChoice) -> Result<Arc<ClientConfig>, TlsError> {
    let protocols: &[&[u8]] = if choice.http1_only { &[b"http/1.1"] } else { &[b"h2", b"http/1.1"] };
    let trust = match &choice.authorities {
        _ if choice.unverified => Trust::Any,
        Some(authorities) => Trust::Authorities(authorities),
        None => Trust::System,
    };
    client_config_trusting(trust, choice.identity.as_ref(), protocols)
}
