//! TLS for accepted connections, and for those to servers.

mod client;
mod refusal;
mod session;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use self::client::{ClientIdentity, client_config};
pub use self::refusal::TlsConnectError;
pub(crate) use self::session::Session;
use crate::stream::Stream;

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// What is to be shown to servers cannot be read as PEM.
    #[error("the client {part} cannot be read: {error}; it must be PEM")]
    ClientCertificate {
        /// `certificate` or `key`.
        part: &'static str,
        /// What reading it said.
        error: rustls::pki_types::pem::Error,
    },
    /// A file cannot be read as PEM.
    #[error("cannot read {path}: {error}; it must be a PEM file")]
    File {
        /// The file.
        path: PathBuf,
        /// What reading it said.
        error: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit together, or one of them cannot be used.
    #[error("the certificate and key cannot be used together: {0}")]
    Pair(#[from] rustls::Error),
    /// A file cannot be read at all.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
}

/// Accepts TLS on a listening socket.
#[derive(Clone)]
pub struct TlsAcceptor {
    config: Arc<ServerConfig>,
}

impl std::fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsAcceptor").finish_non_exhaustive()
    }
}

impl TlsAcceptor {
    /// An acceptor with one certificate chain and its key, both PEM files.
    ///
    /// # Errors
    /// When a file cannot be read, or certificate and key do not belong together.
    pub fn from_files(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| TlsError::File { path, error }
        };
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(failed(cert))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(failed(key))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// Performs the handshake.
    ///
    /// # Errors
    /// The peer's or the system's failure.
    pub async fn accept(&self, stream: Stream) -> io::Result<Stream> {
        let session = Session::server(Arc::clone(&self.config)).map_err(io::Error::other)?;
        stream.encrypt(session).await
    }
}
