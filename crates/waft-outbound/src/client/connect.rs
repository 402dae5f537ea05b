//! From a target to a connection: judge, resolve, judge again, and dial by number.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::pool::Place;
use super::stream::Stream;
use super::tls::TlsChoice;
use super::{Call, Inner};
use crate::CallError;
use crate::policy::{Denial, Mode, Profile, Rule};
use crate::target::{Host, canonical};

impl Inner {
    /// Where a call's connection leads, after the policy has judged all that can be judged without a lookup.
    pub(super) fn place(&self, call: &Call, http1_only: bool) -> Result<Box<Place>, CallError> {
        let target = &call.target;
        self.enforce(call, target, call.policy.check_target(target))?;
        if let Some((host, port)) = &call.connect {
            self.enforce(call, target, call.policy.check_place(host, *port))?;
        }
        let (host, port) = call.connect.clone().unwrap_or_else(|| (target.host.clone(), target.port));
        let tls = target.scheme.is_tls().then(|| {
            let name = if call.trust_connect_host { host.clone() } else { target.host.clone() };
            let choice = TlsChoice {
                unverified: call.ignore_tls_errors,
                authorities: call.authorities.clone(),
                http1_only,
                identity: call.identity.clone(),
            };
            (name, choice)
        });
        let policy = match call.policy.profile {
            Profile::Open => 0,
            Profile::Hardened { .. } => 1,
            Profile::Zurl { .. } => 2,
        };
        Ok(Box::new(Place { host, port, tls, policy }))
    }

    /// Whether a connection that was made before may serve the call by today's rules.
    pub(super) fn may_reuse(call: &Call, place: &Place, address: SocketAddr) -> bool {
        call.policy.mode == Mode::ReportOnly || call.policy.check_address(&place.host, address).is_ok()
    }

    /// A new connection for the call.
    pub(super) async fn connect(&self, call: &Call, place: &Place) -> Result<(Stream, SocketAddr), CallError> {
        let found = match &place.host {
            Host::Address(address) => std::rc::Rc::new([*address]),
            Host::Name(name) => self.resolver.resolve(name, Instant::now()).await,
        };
        let all = || found.iter().map(|address| SocketAddr::new(canonical(*address), place.port)).collect::<Vec<_>>();
        // A literal was judged with its URL, and what is only reported is reported once.
        let judged = matches!(place.host, Host::Address(_)) && call.policy.mode == Mode::ReportOnly;
        let verdict = if judged { Ok(all()) } else { call.policy.permitted(&place.host, place.port, &found) };
        let addresses = match verdict {
            Ok(addresses) if addresses.len() == found.len() => addresses,
            Ok(some) => {
                self.tell_left_out(call, place, &all());
                if call.policy.mode == Mode::ReportOnly { all() } else { some }
            }
            Err(denial) => {
                self.enforce(call, &call.target, Err(denial))?;
                all()
            }
        };
        let mut failure = CallError::Resolve;
        let share = self.limits.connect_timeout / u32::try_from(addresses.len().max(1)).unwrap_or(1);
        for address in addresses {
            match tokio::time::timeout(share, self.dial(place, address)).await {
                Ok(Ok(stream)) => return Ok((stream, address)),
                Ok(Err(error)) => failure = error,
                Err(_elapsed) => failure = CallError::ConnectTimeout,
            }
        }
        Err(failure)
    }

    /// Logs the addresses of a name that are not used while others are.
    fn tell_left_out(&self, call: &Call, place: &Place, addresses: &[SocketAddr]) {
        for address in addresses {
            let verdict = call.policy.check_address(&place.host, *address);
            // A family that is switched off is no reason to log each call to a name with both.
            if verdict.as_ref().is_err_and(|denial| denial.rule != Rule::Ipv6) {
                // The call goes on with the others.
                self.enforce(call, &call.target, verdict).ok();
            }
        }
    }

    async fn dial(&self, place: &Place, address: SocketAddr) -> Result<Stream, CallError> {
        self.metrics.connecting();
        let tcp = TcpStream::connect(address).await.map_err(connect_error)?;
        tcp.set_nodelay(true).map_err(CallError::Connect)?;
        let peer = tcp.peer_addr().map_err(CallError::Connect)?;
        if (canonical(peer.ip()), peer.port()) != (canonical(address.ip()), address.port()) {
            return Err(Denial { rule: Rule::Address, detail: format!("{peer} answered for {address}") }.into());
        }
        let Some((name, choice)) = &place.tls else { return Ok(Stream::Tcp(tcp)) };
        let name = match name {
            Host::Address(address) => ServerName::from(*address),
            Host::Name(name) => {
                ServerName::try_from(name.clone()).map_err(|error| CallError::Tls(io::Error::other(error)))?
            }
        };
        let config = self.tls.config(choice).map_err(CallError::Tls)?;
        let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(CallError::Tls)?;
        Ok(Stream::Tls(Box::new(tls)))
    }
}

fn connect_error(error: io::Error) -> CallError {
    if error.kind() == io::ErrorKind::TimedOut { CallError::ConnectTimeout } else { CallError::Connect(error) }
}
