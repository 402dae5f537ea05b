//! The client against a server that is told what to do on each connection.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where something is not as expected")]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use waft_outbound::policy::{Exception, Pattern, Policy, Profile, Rule};
use waft_outbound::target::Target;
use waft_outbound::{BodySource, Call, CallError, Client, Limits, Lookup, Redirects, Replay, RequestBody};

/// What the server does with the requests of one connection, in order.
#[derive(Clone, Copy, Debug)]
enum Act {
    Answer(&'static str),
    Hang,
    HangUp,
}

struct Server {
    port: u16,
    accepted: Rc<Cell<usize>>,
}

impl Server {
    async fn start(script: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Rc::new(Cell::new(0));
        let count = Rc::clone(&accepted);
        tokio::task::spawn_local(async move {
            for acts in script {
                let (stream, _) = listener.accept().await.unwrap();
                count.set(count.get() + 1);
                tokio::task::spawn_local(serve(stream, acts));
            }
        });
        Self { port, accepted }
    }

    fn target(&self) -> Target {
        Target::parse(format!("http://127.0.0.1:{}/hook", self.port).as_bytes()).unwrap()
    }
}

async fn serve(mut stream: TcpStream, acts: Vec<Act>) {
    for act in acts {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") && !request.ends_with(b"end") {
            let mut piece = [0; 4_096];
            match stream.read(&mut piece).await {
                Ok(length @ 1..) => request.extend_from_slice(&piece[..length]),
                Ok(0) | Err(_) => return,
            }
        }
        match act {
            Act::Answer(response) => stream.write_all(response.as_bytes()).await.unwrap(),
            Act::Hang => std::future::pending().await,
            Act::HangUp => return,
        }
    }
}

const OK: Act = Act::Answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");

fn loopback() -> Arc<Policy> {
    let exceptions = vec![Exception::parse("127.0.0.1").unwrap()];
    Arc::new(Policy { profile: Profile::Hardened { exceptions, deny: Vec::new() }, ..Policy::hardened() })
}

async fn read(client: &Client, call: Call) -> Result<(u16, Vec<u8>), CallError> {
    let mut response = client.call(call).await?;
    let mut body = Vec::new();
    while let Some(piece) = response.body.piece().await? {
        body.extend_from_slice(&piece);
    }
    Ok((response.status, body))
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let deadline = std::time::Duration::from_secs(30);
    LocalSet::new().block_on(&runtime, async { tokio::time::timeout(deadline, test).await.unwrap() });
}

fn client() -> Client {
    Client::new(Limits::default(), Lookup::System)
}

#[test]
fn a_connection_serves_many_calls() {
    run(async {
        let server = Server::start(vec![vec![OK; 5]]).await;
        let client = client();
        for _ in 0..5 {
            let call = Call::new("GET", server.target(), loopback());
            assert_eq!(read(&client, call).await.unwrap(), (200, b"ok".to_vec()));
        }
        assert_eq!((server.accepted.get(), client.idle_connections()), (1, 1));
    });
}

#[test]
fn a_connection_that_ended_while_it_rested_is_replaced() {
    run(async {
        let server = Server::start(vec![vec![OK, Act::HangUp], vec![OK]]).await;
        let client = client();
        for _ in 0..2 {
            let mut call = Call::new("POST", server.target(), loopback());
            call.body = RequestBody::Whole("the end".into());
            assert_eq!(read(&client, call).await.unwrap().0, 200);
        }
        assert_eq!(server.accepted.get(), 2);
    });
}

#[test]
fn a_new_connection_that_ends_without_an_answer_is_an_error() {
    run(async {
        let server = Server::start(vec![vec![Act::HangUp], vec![OK]]).await;
        let call = Call::new("GET", server.target(), loopback());
        assert!(matches!(read(&client(), call).await, Err(CallError::Closed | CallError::Io(_))));
        assert_eq!(server.accepted.get(), 1);
    });
}

#[test]
fn a_pooled_connection_is_judged_by_the_rules_of_today() {
    run(async {
        let server = Server::start(vec![vec![OK; 2]]).await;
        let client = client();
        let mut target = server.target();
        target.host = waft_outbound::target::Host::Name("localhost".into());
        let lax = Arc::new(Policy::zurl(true, &[], &[], false));
        assert_eq!(read(&client, Call::new("GET", target.clone(), lax)).await.unwrap().0, 200);
        let strict = Arc::new(Policy::zurl(true, &[], &["127.*".to_owned()], false));
        let error = read(&client, Call::new("GET", target, strict)).await.unwrap_err();
        assert!(matches!(error, CallError::Denied(denial) if denial.rule == Rule::Address));
        assert_eq!(server.accepted.get(), 1);
    });
}

#[test]
fn no_redirect_leads_to_a_denied_place() {
    run(async {
        for (location, rule) in [
            ("http://10.0.0.1/", Rule::Address),
            ("http://[::ffff:169.254.169.254]/", Rule::Address),
            ("http://metadata.google.internal/", Rule::Name),
            ("http://127.0.0.1:22/", Rule::Address),
            ("ws://127.0.0.1/", Rule::Scheme),
        ] {
            let head = format!("HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n");
            let server = Server::start(vec![vec![Act::Answer(head.leak())]]).await;
            let exceptions = vec![Exception::parse(&format!("127.0.0.1:{}", server.port)).unwrap()];
            let deny = vec![Pattern::parse("*.evil.example")];
            let policy = Policy {
                profile: Profile::Hardened { exceptions, deny },
                ports_denied: vec![],
                ports: vec![],
                ..Policy::hardened()
            };
            let mut call = Call::new("GET", server.target(), Arc::new(policy));
            call.redirects = Redirects::Follow { max: 8, keep_method: false };
            let error = read(&client(), call).await.unwrap_err();
            assert!(matches!(&error, CallError::Denied(denial) if denial.rule == rule), "{location} {error:?}");
        }
    });
}

#[test]
fn a_browser_like_redirect_turns_a_post_into_a_get() {
    run(async {
        let server = Server::start(vec![vec![
            Act::Answer("HTTP/1.1 302 Found\r\nContent-Length: 2\r\nLocation: /there\r\n\r\nno"),
            OK,
        ]])
        .await;
        let mut call = Call::new("POST", server.target(), loopback());
        call.body = RequestBody::Whole("the end".into());
        call.redirects = Redirects::Follow { max: 1, keep_method: false };
        assert_eq!(read(&client(), call).await.unwrap().0, 200);
        // The body of the redirect was read, so that its connection could be used again.
        assert_eq!(server.accepted.get(), 1);
    });
}

/// Gives its pieces one after the other.
struct Pieces(Vec<Bytes>);

impl BodySource for Pieces {
    fn poll_piece(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        Poll::Ready(if self.0.is_empty() { None } else { Some(self.0.remove(0)) })
    }
}

fn pieces(pieces: &[&'static str], length: Option<u64>) -> RequestBody {
    let source = Pieces(pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes())).collect());
    RequestBody::Stream(Replay::new(Box::new(source), 100), length)
}

#[test]
fn a_streamed_body_is_sent_again_after_a_redirect() {
    run(async {
        let redirect = "HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\nLocation: /there\r\n\r\n";
        let server = Server::start(vec![vec![Act::Answer(redirect), OK]]).await;
        let mut call = Call::new("POST", server.target(), loopback());
        call.body = pieces(&["the ", "end"], Some(7));
        call.redirects = Redirects::Follow { max: 1, keep_method: true };
        assert_eq!(read(&client(), call).await.unwrap().0, 200);
    });
}

#[test]
fn a_body_that_is_not_as_long_as_said_is_an_error() {
    run(async {
        for (body, length) in [("too long, the end", 3), ("short", 20)] {
            let server = Server::start(vec![vec![Act::Hang]]).await;
            let mut call = Call::new("POST", server.target(), loopback());
            call.body = pieces(&[body], Some(length));
            let outcome = tokio::time::timeout(std::time::Duration::from_secs(5), read(&client(), call)).await;
            assert!(matches!(outcome, Ok(Err(CallError::Io(_)))), "{outcome:?}");
        }
    });
}

#[test]
fn calls_that_cannot_be_written_are_refused() {
    run(async {
        let server = Server::start(vec![vec![OK]]).await;
        let call = Call::new("GE T", server.target(), loopback());
        assert!(matches!(read(&client(), call).await, Err(CallError::Request)));
    });
}
