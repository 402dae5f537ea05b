//! TLS towards servers: what is shown to them, and what is asked of them.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

use super::TlsError;

/// A certificate to show to a server, PEM.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct ClientIdentity {
    /// The chain, the own certificate first.
    pub certificates: Bytes,
    /// Its key.
    pub key: Bytes,
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientIdentity").finish_non_exhaustive()
    }
}

impl ClientIdentity {
    /// Reads both parts from PEM files.
    ///
    /// # Errors
    /// When a file cannot be read. What is in it is judged by [`client_config`].
    pub fn from_files(certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map(Bytes::from).map_err(|error| TlsError::Unreadable { path: path.to_owned(), error })
        };
        Ok(Self { certificates: read(certificates)?, key: read(key)? })
    }
}

/// A configuration for connections to servers. Each has tickets of its own, by which servers know it again.
///
/// With `unverified`, any certificate will do; otherwise the authorities of the system are asked. `protocols` are
/// offered in this order.
///
/// # Errors
/// When the identity cannot be used, or the system has no authorities.
pub fn client_config(
    unverified: bool,
    identity: Option<&ClientIdentity>,
    protocols: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_trusting(if unverified { Trust::Any } else { Trust::System }, identity, protocols)
}

/// Whose certificates are good.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Any will do.
    Any,
    /// Those that these authorities have signed, PEM, and no others.
    Authorities(&'a [u8]),
    /// Those that the authorities of the system have signed.
    System,
}

/// The same as [`client_config`], with the authorities to be trusted.
///
/// # Errors
/// When the identity or the authorities cannot be used, or the system has none.
pub fn client_config_trusting(
    trust: Trust<'_>,
    identity: Option<&ClientIdentity>,
    protocols: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Any => Arc::new(Unverified(provider)),
        Trust::Authorities(pem) => own_verifier(pem, provider)?,
        Trust::System => system_verifier(provider)?,
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(&identity.certificates)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| TlsError::ClientCertificate { part: "certificate", error })?;
            let key = PrivateKeyDer::from_pem_slice(&identity.key)
                .map_err(|error| TlsError::ClientCertificate { part: "key", error })?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Authorities of somebody's own. One certificate that cannot be read spoils them all, so that none is missed silently.
fn own_verifier(pem: &[u8], provider: Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|error| TlsError::ClientCertificate { part: "authority", error })?)?;
    }
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    built.map_err(|_none| TlsError::NoAuthority)
}

/// The authorities of the system. Reading them takes many milliseconds, so they are shared, and read anew after a while.
fn system_verifier(provider: Arc<CryptoProvider>) -> Result<Arc<Verifier>, rustls::Error> {
    const GOOD_FOR: Duration = Duration::from_secs(60);
    static SHARED: Mutex<Option<(Instant, Arc<Verifier>)>> = Mutex::new(None);
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((read, verifier)) = shared.as_ref().filter(|(read, _)| read.elapsed() < GOOD_FOR) {
        let _fresh = read;
        return Ok(Arc::clone(verifier));
    }
    let verifier = Arc::new(Verifier::new(provider)?);
    *shared = Some((Instant::now(), Arc::clone(&verifier)));
    Ok(verifier)
}

/// Accepts any certificate; the handshake's signatures are still checked, so that the peer at least holds
/// the key it shows.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
