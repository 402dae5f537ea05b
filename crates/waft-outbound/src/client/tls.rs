//! TLS towards receivers: always verified, unless a call that may say so says otherwise.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;

/// Configurations with a client certificate that are remembered.
const IDENTITIES_MAX: usize = 256;

/// A certificate to present, PEM.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ClientIdentity {
    /// The chain, the own certificate first.
    pub certificates: Bytes,
    /// Its key.
    pub key: Bytes,
}

/// What a connection's TLS depends on.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct TlsChoice {
    pub(crate) unverified: bool,
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
        let config = Arc::new(self.build(choice).map_err(io::Error::other)?);
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

    fn build(&self, choice: &TlsChoice) -> Result<ClientConfig, rustls::Error> {
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&self.provider)).with_safe_default_protocol_versions()?;
        let builder = if choice.unverified {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(Arc::clone(&self.provider))))
        } else {
            builder.with_platform_verifier()?
        };
        let mut config = match &choice.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let unreadable = |error: rustls::pki_types::pem::Error| rustls::Error::General(error.to_string());
                let chain = CertificateDer::pem_slice_iter(&identity.certificates)
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(unreadable)?;
                let key = PrivateKeyDer::from_pem_slice(&identity.key).map_err(unreadable)?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols =
            if choice.http1_only { vec![b"http/1.1".into()] } else { vec![b"h2".into(), b"http/1.1".into()] };
        Ok(config)
    }
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
