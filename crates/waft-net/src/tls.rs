//! TLS for accepted connections, and for those to servers.

mod certificates;
mod client;
mod refusal;
mod server;
mod session;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use self::certificates::{CertificateProblem, Certificates};
pub use self::client::{ClientIdentity, Trust, client_config, client_config_trusting};
pub use self::refusal::TlsConnectError;
pub(crate) use self::server::is_plain_http;
pub use self::server::{ClientAuth, Shown, TlsAcceptError, TlsAcceptor};
pub(crate) use self::session::Session;

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The authorities for clients cannot be used.
    #[error("the authorities for client certificates in {path} cannot be used: {error}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// What is to be shown to servers cannot be read as PEM.
    #[error("the client {part} cannot be read: {error}; it must be PEM")]
    ClientCertificate {
        /// `certificate`, `key` or `authority`.
        part: &'static str,
        /// What reading it said.
        error: rustls::pki_types::pem::Error,
    },
    /// No authority to trust.
    #[error("there is no certificate of an authority; give at least one in PEM")]
    NoAuthority,
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

/// A chain and its key from PEM files.
fn read_pair(cert: &Path, key: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| TlsError::File { path, error }
    };
    let chain =
        CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed(cert))?;
    Ok((chain, PrivateKeyDer::from_pem_file(key).map_err(failed(key))?))
}
