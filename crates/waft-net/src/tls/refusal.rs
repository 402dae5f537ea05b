//! Why a TLS connection did not come about, in words that say what to do.

use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// Why a server was not spoken with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsConnectError {
    /// The host that is to be proved is neither a name nor an address.
    #[error("`{name}` is no host name that a certificate can prove; set the target's `host` or `trust_connect_host`")]
    Name {
        /// What was to be proved.
        name: String,
    },
    /// The connection broke.
    #[error("the TLS handshake failed: {0}")]
    Io(io::Error),
    /// One side does not accept what the other has shown.
    #[error("{}", Refusal { error, name })]
    Refused {
        /// The host that was to be proved.
        name: String,
        /// What was wrong.
        error: Error,
    },
}

impl TlsConnectError {
    pub(crate) fn new(name: &str, error: io::Error) -> Self {
        let kind = error.kind();
        match error.into_inner().map(|inner| inner.downcast::<Failed>()) {
            Some(Ok(error)) => Self::Refused { name: name.to_owned(), error: error.0 },
            Some(Err(inner)) => Self::Io(io::Error::new(kind, inner)),
            None => Self::Io(kind.into()),
        }
    }
}

/// What a session failed by, where that is not the system's: as the cause of an [`io::Error`].
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) Error);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In TLS 1.3 a server judges a client's certificate after the handshake has ended for the client.
        Refusal { error: &self.0, name: "it" }.fmt(f)
    }
}

impl std::error::Error for Failed {}

struct Refusal<'a> {
    error: &'a Error,
    name: &'a str,
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        match self.error {
            Error::InvalidCertificate(error) => match error {
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => write!(
                    f,
                    "its certificate is not for `{name}`; set the target's `host`, or `trust_connect_host` to check the name it is reached by"
                ),
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    write!(f, "its certificate for `{name}` has expired; renew it")
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    write!(f, "its certificate for `{name}` is not valid yet; look at the clocks of both machines")
                }
                CertificateError::UnknownIssuer => write!(
                    f,
                    "its certificate for `{name}` is from an authority that this system does not know; add that to the system's certificates, or set `insecure`"
                ),
                other => write!(f, "its certificate for `{name}` cannot be accepted: {other}"),
            },
            Error::AlertReceived(AlertDescription::CertificateRequired) => {
                f.write_str("it demands a client certificate; set `client_cert` and `client_key`")
            }
            Error::AlertReceived(
                alert @ (AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::AccessDenied),
            ) => write!(f, "it refused our side of the handshake ({alert:?}); look at `client_cert` and `client_key`"),
            Error::AlertReceived(AlertDescription::UnrecognisedName) => {
                write!(f, "it has no certificate for `{name}`; set the target's `host`, or `trust_connect_host`")
            }
            Error::InvalidMessage(_) => {
                f.write_str("it does not speak TLS on this port; leave `ssl` away or use its other port")
            }
            error => write!(f, "the TLS handshake failed: {error}"),
        }
    }
}
