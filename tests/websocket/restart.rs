//! Many WebSockets over one backend process that is killed and started again while they talk.
//!
//! `WAFT_TEST_SOCKETS=15000` makes it as many; a process may have 20,000 descriptors.
#![allow(clippy::print_stderr, reason = "how long it took is of interest too")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use waft_testkit::{Opcode, Process, Server, Setup, WebSocket, free_port, program, waft_only};

/// Messages of each client while the backend is away, after one before that.
const SAID: usize = 3;
const THREADS: usize = 8;
/// Repetitions of a request take 31 seconds and up to a second more each.
const PATIENCE: Duration = Duration::from_secs(60);

fn start_backend(port: u16) -> Process {
    let direct = free_port().to_string();
    let mut backend = program("node").args(["tests/conformance/echo.mjs", &direct, &port.to_string()]).start();
    backend.wait_for_port(port);
    backend
}

#[derive(Debug, Default)]
struct Outcome {
    answered: AtomicUsize,
    sent_away: AtomicUsize,
}

/// Reads what became of the messages of one client.
fn judge(socket: &mut WebSocket, outcome: &Outcome) {
    for number in 2..2 + SAID {
        let (opcode, content) = socket.message();
        if opcode == Opcode::Close {
            // The request under way when the backend died: nobody knows whether it was seen, so it is not repeated.
            assert_eq!(content, b"\x03\xf5target unavailable", "{}", content.escape_ascii());
            outcome.sent_away.fetch_add(1, Ordering::Relaxed);
            return;
        }
        assert_eq!(String::from_utf8_lossy(&content), format!("{number}"), "out of order");
    }
    outcome.answered.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn every_client_is_answered_after_a_restart_or_told_to_come_back() {
    waft_only!("it cuts such clients off");
    let count = std::env::var("WAFT_TEST_SOCKETS").map_or(2000, |count| count.parse().unwrap());
    let port = free_port();
    let backend = start_backend(port);
    let server = Server::start(Setup::new().route(format!("* 127.0.0.1:{port},over_http")));
    let open = || {
        let mut connection = server.connect();
        connection.set_deadline(PATIENCE);
        let mut socket = WebSocket::open(connection, "/ws", "");
        socket.send_text("1");
        socket.expect_text("1");
        socket
    };
    let begun = Instant::now();
    let crowds: Vec<Vec<WebSocket>> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| (0..count / THREADS).map(|_| open()).collect())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let opened = begun.elapsed();
    let outcome = Outcome::default();
    let spoken = AtomicUsize::new(0);
    let begun = thread::scope(|scope| {
        for mut crowd in crowds {
            let (outcome, spoken) = (&outcome, &spoken);
            scope.spawn(move || {
                for number in 2..2 + SAID {
                    for socket in &mut crowd {
                        socket.send_text(&number.to_string());
                        spoken.fetch_add(1, Ordering::Release);
                    }
                }
                crowd.iter_mut().for_each(|socket| judge(socket, outcome));
            });
        }
        // In the middle of it.
        while spoken.load(Ordering::Acquire) < count / 2 {
            thread::yield_now();
        }
        drop(backend);
        let begun = Instant::now();
        while spoken.load(Ordering::Acquire) < count / THREADS * THREADS * SAID {
            thread::yield_now();
        }
        // It has to live until all were judged.
        (start_backend(port), begun)
    });
    let (answered, sent_away) = (outcome.answered.into_inner(), outcome.sent_away.into_inner());
    let took = begun.1.elapsed();
    eprintln!("opened in {opened:?}; {answered} answered and {sent_away} told to come back within {took:?}");
    assert_eq!(answered + sent_away, count / THREADS * THREADS);
    assert!(answered > sent_away, "{answered} answered, {sent_away} told to come back");
}
