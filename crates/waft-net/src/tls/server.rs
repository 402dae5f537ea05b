//! TLS on listening sockets.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, RootCertStore};

use super::TlsError;
use super::certificates::Certificates;
use super::session::Session;
use crate::stream::Stream;

/// What a listening socket shows to its clients.
#[derive(Clone, Debug)]
pub enum Shown {
    /// One certificate for all.
    Files {
        /// The chain, PEM.
        cert: PathBuf,
        /// Its key, PEM.
        key: PathBuf,
    },
    /// The one for the name that a client asks for.
    ByName {
        /// All of them.
        certificates: Arc<Certificates>,
        /// Names of files, without extension: the first that is there is for clients that ask for no name that is known.
        defaults: Vec<String>,
    },
}

/// Which clients are let in.
#[derive(Clone, Debug)]
pub struct ClientAuth {
    /// The authorities whose certificates are accepted, PEM.
    pub ca: PathBuf,
    /// Clients without a certificate are let in too.
    pub optional: bool,
}

/// Accepts TLS on a listening socket. Clones share what a reload changes.
#[derive(Clone)]
pub struct TlsAcceptor {
    shared: Arc<Shared>,
}

struct Shared {
    shown: Shown,
    client_auth: Option<ClientAuth>,
    /// What may be agreed to be spoken, the preferred first (ALPN).
    protocols: &'static [&'static [u8]],
    config: ArcSwap<ServerConfig>,
    /// What the configuration was made of beside the certificates: the authorities of clients.
    authorities: Mutex<Vec<u8>>,
}

/// Why a client was not let in.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsAcceptError {
    /// The client speaks HTTP without TLS. It can be told so.
    PlainHttp(Stream),
    /// The handshake failed.
    Failed(io::Error),
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor").field("shown", &self.shared.shown).finish_non_exhaustive()
    }
}

impl TlsAcceptor {
    /// An acceptor that shows this, lets such clients in, and agrees on HTTP/2 with those that offer it if `http2`.
    ///
    /// # Errors
    /// When a file cannot be read, or certificate and key do not belong together.
    pub fn new(shown: Shown, client_auth: Option<ClientAuth>, http2: bool) -> Result<Self, TlsError> {
        let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        let authorities = read_authorities(client_auth.as_ref())?;
        let config = config(&shown, client_auth.as_ref(), &authorities, Ticketer::new()?, protocols)?;
        let config = ArcSwap::from_pointee(config);
        let authorities = Mutex::new(authorities);
        Ok(Self { shared: Arc::new(Shared { shown, client_auth, protocols, config, authorities }) })
    }

    /// Reads its files again, but for [`Certificates`], which have a reload of their own. Clients that come back are
    /// known by their tickets as before, unless other authorities vouch for clients now.
    ///
    /// # Errors
    /// As [`TlsAcceptor::new`]; what there was stays in force.
    pub fn reload(&self) -> Result<(), TlsError> {
        let Shared { shown, client_auth, protocols, config: current, authorities } = &*self.shared;
        let next = read_authorities(client_auth.as_ref())?;
        let mut authorities = authorities.lock().unwrap_or_else(PoisonError::into_inner);
        let same = *authorities == next;
        if same && matches!(shown, Shown::ByName { .. }) {
            return Ok(());
        }
        let ticketer = if same { Arc::clone(&current.load().ticketer) } else { Ticketer::new()? };
        current.store(Arc::new(config(shown, client_auth.as_ref(), &next, ticketer, protocols)?));
        *authorities = next;
        Ok(())
    }

    /// Performs the handshake.
    ///
    /// # Errors
    /// The peer's or the system's failure, told apart where there is something to tell the client.
    pub async fn accept(&self, stream: Stream) -> Result<Stream, TlsAcceptError> {
        let session = Session::server(self.shared.config.load_full())
            .map_err(|error| TlsAcceptError::Failed(io::Error::other(error)))?;
        match stream.encrypt(session).await {
            Ok(stream) => Ok(stream),
            Err((error, Some(plain))) => match error.kind() {
                io::ErrorKind::InvalidData => Err(TlsAcceptError::PlainHttp(plain)),
                _ => Err(TlsAcceptError::Failed(error)),
            },
            Err((error, None)) => Err(TlsAcceptError::Failed(error)),
        }
    }
}

fn read_authorities(client_auth: Option<&ClientAuth>) -> Result<Vec<u8>, TlsError> {
    let Some(ClientAuth { ca, .. }) = client_auth else { return Ok(Vec::new()) };
    std::fs::read(ca).map_err(|error| TlsError::Unreadable { path: ca.clone(), error })
}

fn config(
    shown: &Shown,
    client_auth: Option<&ClientAuth>,
    authorities: &[u8],
    ticketer: Arc<dyn ProducesTickets>,
    protocols: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match client_auth {
        None => builder.with_no_client_auth(),
        Some(ClientAuth { ca, optional }) => {
            let unusable =
                |error: &dyn fmt::Display| TlsError::Authorities { path: ca.clone(), error: error.to_string() };
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(authorities) {
                let certificate = certificate.map_err(|error| unusable(&error))?;
                roots.add(certificate).map_err(|error| unusable(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            let verifier = if *optional { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| unusable(&error))?)
        }
    };
    let resolver: Arc<dyn ResolvesServerCert> = match shown {
        Shown::ByName { certificates, defaults } => {
            Arc::new(ByName { certificates: Arc::clone(certificates), defaults: defaults.clone() })
        }
        Shown::Files { cert, key } => {
            let (chain, key) = super::read_pair(cert, key)?;
            Arc::new(SingleCertAndKey::from(CertifiedKey::from_der(chain, key, &provider)?))
        }
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    // Tickets are kept by the clients, so that resumption costs no memory here.
    config.ticketer = ticketer;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// Whether a handshake failed because the first thing a client sent was no TLS but looks like HTTP.
pub(crate) fn is_plain_http(error: &io::Error, first: u8) -> bool {
    let failed = error.get_ref().and_then(|inner| inner.downcast_ref::<super::refusal::Failed>());
    first.is_ascii_uppercase() && failed.is_some_and(|failed| matches!(failed.0, Error::InvalidMessage(_)))
}

#[derive(Debug)]
struct ByName {
    certificates: Arc<Certificates>,
    defaults: Vec<String>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificates.choose(&hello, &self.defaults)
    }
}
