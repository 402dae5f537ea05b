//! The counters of the door for Prometheus, on a small HTTP server of their own.

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use waft_http1::{HeadLimits, HeadWriter, Parsed, parse_request};

use super::door::Door;

/// How long a scrape may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Scrapes at once; further ones wait.
const SCRAPES_MAX: usize = 8;

/// Answers scrapes for as long as the door is open.
pub(crate) async fn serve(door: Rc<Door>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(SCRAPES_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let door = Rc::clone(&door);
                tokio::task::spawn_local(async move {
                    if tokio::time::timeout(LIMIT, answer(&door, stream)).await.is_err() {
                        tracing::debug!("A scrape took too long.");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "A scrape could not be accepted.");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(door: &Door, mut stream: TcpStream) -> std::io::Result<()> {
    let limits = HeadLimits::default();
    let mut input = Vec::new();
    let (status, body) = loop {
        match parse_request(&input, &limits) {
            Ok(Parsed::Complete { head, .. }) => match (head.method(), head.path()) {
                ("GET" | "HEAD", "/" | "/metrics") => break (200, render(door)),
                ("GET" | "HEAD", _) => break (404, "Not Found: the metrics are at /metrics.\n".to_owned()),
                _ => break (405, "Method not allowed: metrics are only read.\n".to_owned()),
            },
            Ok(Parsed::Partial) => {
                if stream.read_buf(&mut input).await? == 0 {
                    return Ok(());
                }
            }
            Err(_) => break (400, "Bad Request\n".to_owned()),
        }
    };
    let mut out = Vec::with_capacity(body.len() + 256);
    let mut head = HeadWriter::new(&mut out);
    head.status_line(status, waft_http1::reason_phrase(status))
        .field("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        .field("Connection", "close")
        .content_length(body.len() as u64);
    head.finish();
    out.extend_from_slice(body.as_bytes());
    stream.write_all(&out).await?;
    stream.shutdown().await
}

fn render(door: &Door) -> String {
    let mut out = String::new();
    let counters = &door.counters;
    let unheard = door.publisher.borrow().as_ref().map_or(0, super::Publisher::dropped);
    let rows = [
        ("waft_egress_exchanges", "Exchanges under way.", "gauge", door.open_exchanges() as u64),
        ("waft_egress_begun_total", "Exchanges begun.", "counter", counters.begun.get()),
        ("waft_egress_failed_total", "Exchanges that ended with an error.", "counter", counters.failed.get()),
        (
            "waft_egress_malformed_total",
            "Messages that were no packets, or not right.",
            "counter",
            counters.malformed.get(),
        ),
        ("waft_egress_unknown_total", "Packets for exchanges that are not open.", "counter", counters.unknown.get()),
        (
            "waft_egress_violations_total",
            "Exchanges ended for packets out of order or beyond their credits.",
            "counter",
            counters.violations.get(),
        ),
        (
            "waft_egress_expired_total",
            "Exchanges whose client was silent for too long.",
            "counter",
            counters.expired.get(),
        ),
        ("waft_egress_unheard_total", "Packets that nobody subscribed to.", "counter", unheard),
        ("waft_outbound_idle", "Connections kept for another call.", "gauge", door.client.idle_connections() as u64),
    ];
    // Writing into a string cannot fail.
    for (name, help, kind, value) in rows {
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}").ok();
    }
    door.client.metrics().write(&mut out).ok();
    if let Some(queue) = &door.config.queue {
        queue.metrics(&mut out);
    }
    out
}
