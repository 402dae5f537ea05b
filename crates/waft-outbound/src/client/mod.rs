//! Calls over pooled connections, each to an address that the policy has judged.

mod body;
mod connect;
mod http1;
mod http2;
mod inflate;
mod pool;
mod request;
mod response;
mod stream;
mod tls;
mod websocket;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use waft_net::ClientIdentity;

pub use self::body::{BodySource, Replay, RequestBody};
use self::pool::Pool;
pub use self::response::{Response, ResponseBody};
use self::tls::TlsConfigs;
pub use self::tls::check_tls;
pub use self::websocket::{Answer, WebSocket};
use crate::policy::{Denial, Mode, Policy};
use crate::resolve::{Lookup, Resolver};
use crate::target::{Host, Target};
use crate::{CallError, Limits, Metrics};

/// Makes calls for one thread: connections, names and TLS sessions are remembered between them.
///
/// Works inside a [`tokio::task::LocalSet`] on a current-thread runtime.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: Limits,
    pool: RefCell<Pool>,
    resolver: Resolver,
    tls: TlsConfigs,
    metrics: Arc<Metrics>,
}

/// A call to be made.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method, a token. Not used for WebSockets.
    pub method: String,
    /// Where to.
    pub target: Target,
    /// Header lines; those that concern the connection are the client's business and are left out.
    pub headers: Vec<(Bytes, Bytes)>,
    /// The body.
    pub body: RequestBody,
    /// The rules for the caller.
    pub policy: Arc<Policy>,
    /// Who calls, for the log of denials.
    pub who: Bytes,
    /// Connect here instead of to the target's host and port.
    pub connect: Option<(Host, u16)>,
    /// Expect the certificate of `connect` instead of that of the target.
    pub trust_connect_host: bool,
    /// Accept any certificate.
    pub ignore_tls_errors: bool,
    /// Authorities to trust instead of those of the system, PEM.
    pub authorities: Option<Bytes>,
    /// A certificate to present.
    pub identity: Option<ClientIdentity>,
    /// Whether and how to follow redirects.
    pub redirects: Redirects,
    /// Ask for compressed responses and decode them.
    pub decode: bool,
}

/// Whether and how to follow redirects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Redirects {
    /// Up to so many. `keep_method` repeats a POST after 301 and 302, and after 303 without its body, as
    /// Zurl does; otherwise it becomes a GET, as in browsers.
    Follow {
        /// The most hops.
        max: u8,
        /// Whether the method is kept.
        keep_method: bool,
    },
    /// A redirect is a response like any other.
    Show,
}

impl Call {
    /// A call without headers, body or options.
    pub fn new(method: &str, target: Target, policy: Arc<Policy>) -> Self {
        Self {
            method: method.to_owned(),
            target,
            headers: Vec::new(),
            body: RequestBody::Whole(Bytes::new()),
            policy,
            who: Bytes::new(),
            connect: None,
            trust_connect_host: false,
            ignore_tls_errors: false,
            authorities: None,
            identity: None,
            redirects: Redirects::Show,
            decode: false,
        }
    }
}

impl Client {
    /// A client without connections.
    pub fn new(limits: Limits, lookup: Lookup) -> Self {
        Self::counted(limits, lookup, Arc::default())
    }

    /// A client without connections that counts into `metrics`, with others if they have the same.
    pub fn counted(limits: Limits, lookup: Lookup, metrics: Arc<Metrics>) -> Self {
        let resolver = Resolver::new(&lookup, limits.names_max, Arc::clone(&metrics));
        let inner = Inner { limits, pool: RefCell::default(), resolver, tls: TlsConfigs::new(), metrics };
        Self { inner: Rc::new(inner) }
    }

    /// What its calls are counted by.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// What the policy says about a call before anything is looked up; a denial is logged. The same is asked
    /// again when the call is made.
    pub fn judge(&self, call: &Call) -> Result<(), CallError> {
        self.inner.place(call, false).map(|_place| ())
    }

    /// Makes a call, following redirects as it says. Dropping the future ends it. A boxed call makes for a
    /// smaller future.
    pub async fn call(&self, call: impl Into<Box<Call>>) -> Result<Response, CallError> {
        let _under_way = self.inner.metrics.begin();
        self.call_on(call.into()).await.inspect_err(|_error| self.inner.metrics.failed())
    }

    async fn call_on(&self, mut call: Box<Call>) -> Result<Response, CallError> {
        let mut hops = 0;
        loop {
            let response = self.inner.hop(&call).await?;
            let Redirects::Follow { max, keep_method } = call.redirects else { return Ok(response) };
            let Some(location) = response.location() else { return Ok(response) };
            if hops >= max {
                return Err(CallError::TooManyRedirects { limit: max });
            }
            hops += 1;
            self.inner.redirect(&mut call, &location, response.status, keep_method)?;
            response.body.finish().await;
        }
    }

    /// Opens a WebSocket, following redirects as the call says.
    pub async fn websocket(&self, call: impl Into<Box<Call>>) -> Result<Answer, CallError> {
        let _under_way = self.inner.metrics.begin();
        self.websocket_on(call.into()).await.inspect_err(|_error| self.inner.metrics.failed())
    }

    async fn websocket_on(&self, mut call: Box<Call>) -> Result<Answer, CallError> {
        let mut hops = 0;
        loop {
            let response = match self.inner.open(&call).await? {
                Answer::Refused(response) => response,
                open @ Answer::Open(_) => {
                    self.inner.metrics.websocket();
                    return Ok(open);
                }
            };
            let Redirects::Follow { max, .. } = call.redirects else { return Ok(Answer::Refused(response)) };
            let Some(location) = response.location() else { return Ok(Answer::Refused(response)) };
            if hops >= max {
                return Err(CallError::TooManyRedirects { limit: max });
            }
            hops += 1;
            self.inner.redirect(&mut call, &location, response.status, true)?;
        }
    }

    /// A bare connection to the host and port of a call, judged like any other. For proxies; nothing is sent.
    pub async fn tunnel(&self, call: impl Into<Box<Call>>) -> Result<tokio::net::TcpStream, CallError> {
        let call = call.into();
        let place = self.inner.place(&call, true)?;
        match Box::pin(self.inner.connect(&call, &place)).await?.0 {
            stream::Stream::Tcp(tcp) => Ok(tcp),
            stream::Stream::Tls(_) => Err(CallError::Request),
        }
    }

    /// Connections that wait for another call.
    pub fn idle_connections(&self) -> usize {
        self.inner.pool.borrow().len()
    }

    /// Closes connections that have rested for too long. To be called now and then.
    pub fn sweep(&self, now: Instant) {
        self.inner.pool.borrow_mut().sweep(&self.inner.limits, now);
    }
}

impl Inner {
    /// Turns a call into that of the next hop. The policy judges it when it is made.
    fn redirect(&self, call: &mut Call, location: &[u8], status: u16, keep_method: bool) -> Result<(), CallError> {
        let target = call.target.join(location)?;
        self.enforce(call, &target, call.policy.check_redirect(&call.target, &target))?;
        self.metrics.redirected();
        turn(call, target, status, keep_method)
    }

    /// Logs a denial, and makes an error of it unless the policy only reports.
    fn enforce(&self, call: &Call, target: &Target, verdict: Result<(), Denial>) -> Result<(), Denial> {
        let Err(denial) = verdict else { return Ok(()) };
        self.metrics.denied(denial.rule, call.policy.mode);
        let enforced = call.policy.mode == Mode::Enforce;
        tracing::warn!(
            who = %call.who.escape_ascii(),
            url = %target,
            rule = %denial.rule,
            address = %denial.detail,
            enforced,
            "The policy denies an outbound call."
        );
        if enforced { Err(denial) } else { Ok(()) }
    }
}

/// Makes a call to `target` of one that was redirected there.
fn turn(call: &mut Call, target: Target, status: u16, keep_method: bool) -> Result<(), CallError> {
    if !call.target.same_origin(&target) {
        let is_secret = |name: &[u8]| {
            [&b"authorization"[..], b"cookie", b"proxy-authorization"]
                .iter()
                .any(|secret| name.eq_ignore_ascii_case(secret))
        };
        call.headers.retain(|(name, _)| !is_secret(name));
        call.authorities = None;
        call.identity = None;
        if (&call.target.host, call.target.port) != (&target.host, target.port) {
            call.connect = None;
            call.trust_connect_host = false;
        }
    }
    let becomes_get = match status {
        301 | 302 => call.method == "POST",
        303 => call.method != "HEAD",
        _ => false,
    };
    if becomes_get && !keep_method {
        call.method = "GET".into();
        call.body = RequestBody::Whole(Bytes::new());
    } else if status == 303 {
        call.body = RequestBody::Whole(Bytes::new());
    } else if let RequestBody::Stream(replay, length) = &call.body {
        call.body = RequestBody::Stream(replay.rewound().ok_or(CallError::Replay)?, *length);
    }
    call.target = target;
    Ok(())
}
