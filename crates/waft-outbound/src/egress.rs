//! The address policy for programs that make their calls themselves: an HTTP proxy that opens tunnels (`CONNECT`,
//! RFC 9110 section 9.3.6) to public addresses alone.
//!
//! A name is resolved here, judged, and dialled by number, as for every other call. Requests that are no `CONNECT` are
//! refused: a program whose proxy is set for `http` URLs too must be told to tunnel those.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};
use waft_http1::{HeadLimits, Parsed, RequestHead, parse_request};

use crate::policy::{Exception, Mode, Pattern, Policy, Profile};
use crate::target::{Host, Scheme, Target};
use crate::{Call, CallError, Client, Limits, Lookup};

/// Tunnels and requests at once; further connections wait.
const CONNECTIONS_MAX: usize = 10_000;

/// Bytes of a request's head.
const HEAD_MAX: usize = 16_384;

/// Time for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Time to reach the other side.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a tunnel may rest in both directions.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Bytes of a tunnel that are read at once.
const PIECE: usize = 16_384;

/// What the proxy is told to do.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// What is let through beyond public addresses.
    pub allow: Vec<Exception>,
    /// What is refused beyond.
    pub deny: Vec<Pattern>,
    /// What callers must show as the password of `Proxy-Authorization`.
    pub password: Option<String>,
    /// Denials are only logged.
    pub report_only: bool,
}

struct Proxy {
    client: Client,
    policy: Arc<Policy>,
    password: Option<String>,
}

/// Why a request was not served.
enum Refusal {
    Authorization,
    Call(CallError),
    Method,
    Place,
}

/// Serves until SIGINT or SIGTERM, on the calling thread.
///
/// # Errors
/// The system's, when the address cannot be listened on.
pub fn serve(config: Config) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let policy = Policy {
            profile: Profile::Hardened { exceptions: config.allow, deny: config.deny },
            mode: if config.report_only { Mode::ReportOnly } else { Mode::Enforce },
            self_addresses: vec![address],
            ..Policy::hardened()
        };
        let limits = Limits { connect_timeout: CONNECT_TIMEOUT, ..Limits::default() };
        let client = Client::new(limits, Lookup::System);
        let proxy = Rc::new(Proxy { client, policy: Arc::new(policy), password: config.password });
        info!(%address, "The egress proxy is ready");
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            () = accept(&listener, proxy) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("Stopped.");
        Ok(())
    })
}

async fn accept(listener: &TcpListener, proxy: Rc<Proxy>) {
    let places = Rc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(place) = acquire(&places).await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let proxy = Rc::clone(&proxy);
                let places = Rc::clone(&places);
                tokio::task::spawn_local(async move {
                    attend(&proxy, stream, peer).await;
                    places.add_permits(place);
                });
            }
            Err(error) => {
                warn!(%error, "Cannot accept a connection; are there too many open files?");
                places.add_permits(place);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Takes a place for a connection; whoever has it gives it back.
async fn acquire(places: &Semaphore) -> Result<usize, tokio::sync::AcquireError> {
    places.acquire().await?.forget();
    Ok(1)
}

async fn attend(proxy: &Proxy, mut client: TcpStream, peer: SocketAddr) {
    let mut read = Vec::new();
    let head = match tokio::time::timeout(HEAD_TIMEOUT, read_head(&mut client, &mut read)).await {
        Ok(Ok(Some(head))) => head,
        Ok(Ok(None)) => return answer(&mut client, "400 Bad Request", "malformed request").await,
        Ok(Err(error)) => return debug!(%peer, %error, "A client of the proxy has gone."),
        Err(_elapsed) => return answer(&mut client, "408 Request Timeout", "the request came too slowly").await,
    };
    let began = Instant::now();
    match open(proxy, &head, peer).await {
        Ok(mut server) => {
            let established = b"HTTP/1.1 200 Connection Established\r\n\r\n";
            let sent = async {
                client.write_all(established).await?;
                // What the client sent behind its head belongs to the other side.
                server.write_all(&read).await
            };
            let ended = match sent.await {
                Ok(()) => tunnel(&mut client, &mut server).await,
                Err(error) => Err(error),
            };
            debug!(%peer, target = head.target(), elapsed = ?began.elapsed(), result = ?ended, "A tunnel has ended.");
        }
        Err(Refusal::Authorization) => {
            let status = "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"waft egress\"";
            answer(&mut client, status, "show the password of this proxy").await;
        }
        Err(Refusal::Method) => answer(&mut client, "405 Method Not Allowed\r\nAllow: CONNECT", "only CONNECT").await,
        Err(Refusal::Place) => answer(&mut client, "400 Bad Request", "the place is no host and port").await,
        Err(Refusal::Call(CallError::Denied(denial))) => {
            answer(&mut client, "403 Forbidden", &denial.rule.to_string()).await;
        }
        Err(Refusal::Call(CallError::ConnectTimeout)) => {
            answer(&mut client, "504 Gateway Timeout", "no connection").await
        }
        Err(Refusal::Call(error)) => answer(&mut client, "502 Bad Gateway", &error.to_string()).await,
    }
}

/// The head of the request; what came behind it stays in `read`. None if it is malformed.
async fn read_head(client: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<Option<RequestHead>> {
    let limits = HeadLimits { bytes_max: HEAD_MAX, ..HeadLimits::default() };
    loop {
        match parse_request(read, &limits) {
            Ok(Parsed::Complete { head, consumed }) => {
                read.drain(..consumed);
                return Ok(Some(head));
            }
            Ok(Parsed::Partial) => {}
            Err(_) => return Ok(None),
        }
        if client.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn open(proxy: &Proxy, head: &RequestHead, peer: SocketAddr) -> Result<TcpStream, Refusal> {
    if let Some(password) = &proxy.password
        && !shows(head, password)
    {
        return Err(Refusal::Authorization);
    }
    if head.method() != "CONNECT" {
        return Err(Refusal::Method);
    }
    let (host, port) = head.target().rsplit_once(':').ok_or(Refusal::Place)?;
    let host = Host::parse(host).map_err(|_cause| Refusal::Place)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or(Refusal::Place)?;
    let target = Target { scheme: Scheme::Http, userinfo: None, host, port, path: "/".to_owned() };
    let mut call = Call::new("CONNECT", target, Arc::clone(&proxy.policy));
    call.who = Bytes::from(peer.to_string());
    proxy.client.tunnel(call).await.map_err(Refusal::Call)
}

/// Whether a request shows the password.
fn shows(head: &RequestHead, password: &str) -> bool {
    let field = head.field("Proxy-Authorization").and_then(|value| value.split_at_checked(6));
    let Some((scheme, encoded)) = field else { return false };
    let Ok(pair) = STANDARD.decode(encoded.trim_ascii()) else { return false };
    let shown = pair.iter().position(|byte| *byte == b':').and_then(|colon| pair.get(colon + 1..));
    // The lengths may differ in time, the contents not.
    scheme.eq_ignore_ascii_case(b"basic ")
        && shown.is_some_and(|shown| {
            shown.len() == password.len()
                && shown.iter().zip(password.as_bytes()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
        })
}

/// Copies both ways until both sides have ended, or nothing came for a while.
async fn tunnel(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let active = Cell::new(Instant::now());
    let both = async {
        let (up, down) = tokio::join!(
            copy(&mut from_client, &mut to_server, &active),
            copy(&mut from_server, &mut to_client, &active)
        );
        up.and(down)
    };
    let idle = async {
        loop {
            let rested = active.get().elapsed();
            if rested >= IDLE_TIMEOUT {
                return;
            }
            tokio::time::sleep(IDLE_TIMEOUT - rested).await;
        }
    };
    tokio::select! {
        result = both => result,
        () = idle => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn copy(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>, active: &Cell<Instant>) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from.read(&mut buffer).await?;
        active.set(Instant::now());
        match buffer.get(..count).filter(|piece| !piece.is_empty()) {
            Some(piece) => to.write_all(piece).await?,
            None => return to.shutdown().await,
        }
    }
}

async fn answer(client: &mut TcpStream, status: &str, text: &str) {
    let length = text.len() + 1;
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n");
    let written = client.write_all(format!("{head}Connection: close\r\n\r\n{text}\n").as_bytes()).await;
    if let Err(error) = written {
        debug!(%error, "A client of the proxy has gone.");
    }
}
