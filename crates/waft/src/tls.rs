//! The certificates of all listening sockets, and what becomes of them with a reload.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use tracing::{error, info, warn};
use waft_config::{Listen, Plan};
use waft_net::{
    CertificateProblem, Certificates, ClientAuth, ClientIdentity, Endpoint, Shown, TlsAcceptor, client_config,
};

/// How listening sockets are encrypted.
#[derive(Debug)]
pub(crate) struct Tls {
    certificates: Option<Arc<Certificates>>,
    /// For each address for clients, in the order of the plan.
    pub(crate) front: Vec<Option<TlsAcceptor>>,
    /// For the control API.
    pub(crate) control: Option<TlsAcceptor>,
}

impl Tls {
    /// What the plan asks for.
    pub(crate) fn new(plan: &Plan) -> Result<Self> {
        let wanted = plan.server.listen.iter().any(|listen| listen.tls);
        let directory = plan.server.tls_certs.as_ref().filter(|_| wanted);
        let certificates = directory.map(|directory| {
            let (certificates, problems) = Certificates::read(directory);
            tell(&certificates, &problems);
            Arc::new(certificates)
        });
        let acceptor = |listen: &Listen| -> Result<Option<TlsAcceptor>> {
            let Some(certificates) = certificates.as_ref().filter(|_| listen.tls) else { return Ok(None) };
            let port = match &listen.endpoint {
                Endpoint::Tcp(address) => Some(format!("default_{}", address.port())),
                Endpoint::Unix { .. } => None,
            };
            let defaults = port.into_iter().chain(["default".to_owned()]).collect();
            let shown = Shown::ByName { certificates: Arc::clone(certificates), defaults };
            let optional = listen.client_optional;
            let client_auth = listen.client_ca.clone().map(|ca| ClientAuth { ca, optional });
            TlsAcceptor::new(shown, client_auth, plan.server.http2)
                .map(Some)
                .with_context(|| format!("server.listen: {} cannot be served", listen.endpoint))
        };
        let front = plan.server.listen.iter().map(acceptor).collect::<Result<_>>()?;
        let control = match (&plan.control.cert, &plan.control.key) {
            (Some(cert), Some(key)) => {
                Some(TlsAcceptor::new(Shown::Files { cert: cert.clone(), key: key.clone() }, None, false)?)
            }
            _ => None,
        };
        Ok(Self { certificates, front, control })
    }

    /// Reads all files again. What is connected stays so; what cannot be used is told, and the old stays in force.
    pub(crate) fn reload(&self) {
        if let Some(certificates) = &self.certificates {
            let problems = certificates.reload();
            tell(certificates, &problems);
        }
        for acceptor in self.front.iter().chain([&self.control]).flatten() {
            if let Err(error) = acceptor.reload() {
                error!(%error, "Certificates could not be read again; the old ones stay in force.");
            }
        }
    }

    /// The directories whose changes matter.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        self.certificates.as_ref().map_or_else(Vec::new, |certificates| certificates.directories())
    }
}

fn tell(certificates: &Certificates, problems: &[CertificateProblem]) {
    for problem in problems {
        warn!(%problem, "A certificate for clients needs attention.");
    }
    match certificates.count() {
        0 => error!(
            "There is no certificate for clients, so that no TLS connection can be served; look at server.tls_certs."
        ),
        count => info!(count, "Certificates for clients were read."),
    }
}

/// Says at once which targets cannot be shown the certificate that they want, and not only when they are needed.
pub(crate) fn tell_unusable(plan: &Plan) {
    for target in plan.routes.iter().flat_map(|route| &route.targets).filter(|target| target.ssl) {
        if let (Some(cert), Some(key)) = (&target.client_cert, &target.client_key) {
            let usable = ClientIdentity::from_files(cert, key)
                .and_then(|identity| client_config(true, Some(&identity), &[]).map(drop));
            if let Err(error) = usable {
                error!(target = %target.address, %error, "A target cannot be called until its client certificate can be used.");
            }
        }
    }
}
