//! Webhooks: durable submits, a million queued deliveries, a start with them, and their delivery to a fast receiver.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::origin::Origin;
use crate::process;

/// Clients that submit at the same time.
const CLIENTS: usize = 16;

/// Bytes of a payload's text; a message is a little longer.
const TEXT: usize = 250;

/// What is measured.
#[derive(Debug)]
pub struct Plan {
    /// The waft binary.
    pub waft: PathBuf,
    /// Where the queue lies: on the disk that is to be measured.
    pub dir: PathBuf,
    /// Messages of one client, each in a call of its own.
    pub single: usize,
    /// Messages that are queued before they are delivered.
    pub queued: usize,
}

/// A line of the result.
struct Line {
    what: &'static str,
    measured: String,
    wanted: &'static str,
}

/// Measures, and returns a table.
pub fn run(plan: &Plan) -> Result<String, String> {
    let origin = Origin::start().map_err(|error| format!("cannot start the receiver: {error}"))?;
    let _ = fs::remove_dir_all(&plan.dir);
    fs::create_dir_all(&plan.dir).map_err(|error| format!("cannot create {}: {error}", plan.dir.display()))?;
    let mut lines = Vec::new();
    let sync = sync_latency(&plan.dir)?;
    lines.push(Line { what: "one fdatasync of 4 KB on this disk, median", measured: micros(sync), wanted: "" });
    let mut server = Server::start(plan)?;
    single(plan, &server, &mut lines)?;
    // Switched off, so that all stays in the queue.
    let endpoint = server.endpoint(&origin, true)?;
    queue(plan, &server, &mut lines)?;
    server = restart(plan, server, &mut lines)?;
    deliver(plan, &server, &origin, &endpoint, &mut lines)?;
    drop(server);
    let _ = fs::remove_dir_all(&plan.dir);
    let mut table = String::from("| What | Measured | Wanted |\n|---|---|---|\n");
    for line in lines {
        table.push_str(&format!("| {} | {} | {} |\n", line.what, line.measured, line.wanted));
    }
    Ok(table)
}

/// Every client submits one message after the other and waits until it is on the disk.
fn single(plan: &Plan, server: &Server, lines: &mut Vec<Line>) -> Result<(), String> {
    let (begun, cpu) = (Instant::now(), process::cpu(server.pid()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (control, count) = (server.control, plan.single);
            std::thread::spawn(move || {
                let mut connection = Connection::open(control)?;
                for n in 0..count {
                    connection.call("POST", "messages", &message(client * count + n))?;
                }
                Ok::<(), String>(())
            })
        })
        .collect();
    for client in clients {
        client.join().map_err(|_| "a client panicked".to_owned())??;
    }
    let count = CLIENTS * plan.single;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    lines.push(Line {
        what: "durable submits, 16 clients, one message a call",
        measured: format!("{rate:.0}/s"),
        wanted: "10,000/s",
    });
    let cpu = (process::cpu(server.pid()) - cpu).as_secs_f64() * 1e6 / count as f64;
    lines.push(Line { what: "CPU of one such submit", measured: format!("{cpu:.1} us"), wanted: "" });
    Ok(())
}

/// The same clients submit calls of 500 messages until the queue is as long as it should be.
fn queue(plan: &Plan, server: &Server, lines: &mut Vec<Line>) -> Result<(), String> {
    const CALL: usize = 500;
    let (begun, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (control, next, queued) = (server.control, Arc::clone(&next), plan.queued as u64);
            std::thread::spawn(move || {
                let mut connection = Connection::open(control)?;
                loop {
                    let first = next.fetch_add(CALL as u64, Ordering::Relaxed);
                    if first >= queued {
                        return Ok::<(), String>(());
                    }
                    let messages: Vec<String> = (0..CALL).map(|n| message(first as usize + n)).collect();
                    connection.call("POST", "messages", &format!("{{\"messages\":[{}]}}", messages.join(",")))?;
                }
            })
        })
        .collect();
    for client in clients {
        client.join().map_err(|_| "a client panicked".to_owned())??;
    }
    let rate = plan.queued as f64 / begun.elapsed().as_secs_f64();
    lines.push(Line {
        what: "durable submits, 16 clients, 500 messages a call",
        measured: format!("{rate:.0}/s"),
        wanted: "10,000/s",
    });
    let disk = disk_bytes(&plan.dir.join("queue")) as f64 / 1e6;
    let scale = plan.queued as f64 / 1e6;
    lines.push(Line { what: "queued deliveries", measured: format!("{:.2} million", scale), wanted: "1 million" });
    lines.push(Line { what: "disk that they take", measured: format!("{disk:.0} MB"), wanted: "1,000 MB" });
    let memory = process::memory(server.pid()) as f64 / 1e6;
    lines.push(Line { what: "memory with them queued", measured: format!("{memory:.0} MB"), wanted: "200 MB" });
    Ok(())
}

fn restart(plan: &Plan, server: Server, lines: &mut Vec<Line>) -> Result<Server, String> {
    drop(server);
    let begun = Instant::now();
    let server = Server::start(plan)?;
    lines.push(Line {
        what: "start with them",
        measured: format!("{:.2} s", begun.elapsed().as_secs_f64()),
        wanted: "5 s",
    });
    let memory = process::memory(server.pid()) as f64 / 1e6;
    lines.push(Line { what: "memory after that start", measured: format!("{memory:.0} MB"), wanted: "200 MB" });
    Ok(server)
}

/// Switches the endpoint on and waits until everything has been delivered.
fn deliver(plan: &Plan, server: &Server, origin: &Origin, endpoint: &str, lines: &mut Vec<Line>) -> Result<(), String> {
    let before = origin.answered.load(Ordering::Relaxed);
    let cpu = process::cpu(server.pid());
    let mut connection = Connection::open(server.control)?;
    let begun = Instant::now();
    connection.call("PUT", &format!("endpoints/{endpoint}"), &settings(origin, false))?;
    let wanted = plan.queued as u64;
    loop {
        let done = origin.answered.load(Ordering::Relaxed) - before;
        if done >= wanted {
            break;
        }
        if begun.elapsed() > Duration::from_secs(600) {
            return Err(format!("only {done} of {wanted} were delivered"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let rate = wanted as f64 / begun.elapsed().as_secs_f64();
    lines.push(Line { what: "deliveries to a fast receiver", measured: format!("{rate:.0}/s"), wanted: "25,000/s" });
    let cpu = (process::cpu(server.pid()) - cpu).as_secs_f64() * 1e6 / wanted as f64;
    lines.push(Line { what: "CPU of one delivery", measured: format!("{cpu:.1} us"), wanted: "40 us" });
    Ok(())
}

fn message(number: usize) -> String {
    // Bytes that differ, as those of real messages do.
    let mut text = String::with_capacity(TEXT);
    let mut state = number as u64;
    while text.len() < TEXT {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{state:016x}"));
    }
    format!("{{\"type\":\"order.paid\",\"payload\":{{\"n\":{number},\"text\":\"{}\"}}}}", &text[..TEXT])
}

fn settings(origin: &Origin, disabled: bool) -> String {
    format!("{{\"url\":\"http://{}/bytes?n=0\",\"concurrency_max\":64,\"disabled\":{disabled}}}", origin.address)
}

/// How long the disk takes to keep 4 KB, the median of 100.
fn sync_latency(dir: &Path) -> Result<Duration, String> {
    let path = dir.join("sync");
    let failed = |error: std::io::Error| format!("cannot use {}: {error}", path.display());
    let mut file = fs::File::create(&path).map_err(failed)?;
    let mut times = Vec::new();
    for _ in 0..100 {
        file.write_all(&[1; 4_096]).map_err(failed)?;
        let begun = Instant::now();
        file.sync_data().map_err(failed)?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn micros(time: Duration) -> String {
    format!("{} us", time.as_micros())
}

fn disk_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// A waft with webhooks.
struct Server {
    child: Child,
    control: SocketAddr,
}

impl Server {
    fn start(plan: &Plan) -> Result<Self, String> {
        let port = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let (front, control) = (port().map_err(|e| e.to_string())?, port().map_err(|e| e.to_string())?);
        let config = plan.dir.join("waft.toml");
        let text = format!(
            "[server]\nlisten = [\"{front}\"]\nshards = 1\n[control]\nlisten = [\"{control}\"]\n[webhooks]\ndir = \"{}\"\n\
             allow = [\"127.0.0.1\"]\n",
            plan.dir.join("queue").display()
        );
        fs::write(&config, text).map_err(|error| error.to_string())?;
        let log = fs::File::create(plan.dir.join("log")).map_err(|error| error.to_string())?;
        let mut command = Command::new(&plan.waft);
        let child = command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(log).stderr(Stdio::null()).spawn();
        let server = Self { child: child.map_err(|error| format!("cannot start waft: {error}"))?, control };
        let begun = Instant::now();
        while TcpStream::connect(control).is_err() {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err(format!("waft did not start; see {}", plan.dir.join("log").display()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn endpoint(&self, origin: &Origin, disabled: bool) -> Result<String, String> {
        let answer = Connection::open(self.control)?.call("POST", "endpoints", &settings(origin, disabled))?;
        let id = answer.split("\"id\":\"ep_").nth(1).and_then(|rest| rest.split('"').next());
        id.map(|id| format!("ep_{id}")).ok_or_else(|| format!("no endpoint: {answer}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A connection to the API that is kept.
struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    fn open(control: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(control).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(|error| error.to_string())?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// The body of the answer, if the call was taken.
    fn call(&mut self, method: &str, path: &str, body: &str) -> Result<String, String> {
        let length = body.len();
        let request =
            format!("{method} /webhooks/{path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
        self.stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let mut piece = [0; 65_536];
        loop {
            if let Some(end) = memchr::memmem::find(&self.read, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
                let length: usize = head
                    .lines()
                    .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok())
                    .unwrap_or(0);
                if self.read.len() >= end + 4 + length {
                    let body = String::from_utf8_lossy(&self.read[end + 4..end + 4 + length]).into_owned();
                    self.read.drain(..end + 4 + length);
                    return if head.starts_with("HTTP/1.1 2") { Ok(body) } else { Err(format!("{head}\n{body}")) };
                }
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Err("the connection was closed".to_owned()),
                Ok(count) => self.read.extend_from_slice(&piece[..count]),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}
