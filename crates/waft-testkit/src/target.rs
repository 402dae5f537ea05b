use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::connection::Socket;
use crate::port::free_port;
use crate::wait::eventually;
use crate::{Connection, DEADLINE, Head};

/// A backend that does what a closure says. Dropping it closes all its connections.
pub struct Target {
    address: Listening,
    shared: Arc<Shared>,
    arrived: Mutex<Receiver<Request>>,
}

/// A request as the backend saw it, with its whole body.
#[derive(Clone, Debug)]
pub struct Request {
    /// Request line and headers.
    pub head: Head,
    /// The body without its framing.
    pub body: Vec<u8>,
}

impl Request {
    /// Path and query.
    pub fn path(&self) -> &str {
        self.head.path()
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as text.
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An answer of a backend: 200 without headers and body until told otherwise.
#[derive(Clone, Debug)]
pub struct Reply {
    status: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Reply {
    /// With a status line such as `404 Not Found`.
    pub fn status(status: &str) -> Self {
        Self { status: status.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// 200 with a text.
    pub fn text(body: impl AsRef<[u8]>) -> Self {
        Self::status("200 OK").header("Content-Type", "text/plain").body(body)
    }

    /// A JSON instruction.
    pub fn instruct(body: &serde_json::Value) -> Self {
        Self::status("200 OK").header("Content-Type", "application/grip-instruct").body(body.to_string())
    }

    /// A hold of this mode on a channel.
    pub fn hold(mode: &str, channel: &str) -> Self {
        Self::text("").header("Grip-Hold", mode).header("Grip-Channel", channel)
    }

    /// Adds a header line.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(format!("{name}: {value}\r\n"));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// The bytes for the wire; with HEAD the body is left out.
    pub fn to_bytes(&self, method: &str) -> Vec<u8> {
        let length = self.body.len();
        let mut bytes = format!("HTTP/1.1 {}\r\n{}", self.status, self.headers.concat()).into_bytes();
        if !(self.status.starts_with("204") || self.status.starts_with("304")) {
            bytes.extend(format!("Content-Length: {length}\r\n").into_bytes());
        }
        bytes.extend(b"\r\n");
        if method != "HEAD" {
            bytes.extend(&self.body);
        }
        bytes
    }
}

impl Target {
    /// Answers every request with what the closure returns; connections are kept alive.
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), answer)
    }

    /// Like [`Target::start`], on an address of the caller's choice.
    pub fn start_on(address: SocketAddr, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(address, move |connection, target| target.serve(connection, &answer))
    }

    /// Like [`Target::start`], on a Unix socket.
    pub fn start_unix(path: &Path, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let accept = move || listener.accept().map(|(stream, _)| Socket::Unix(stream));
        Self::run(Listening::Unix(path.to_owned()), accept, move |connection, target| target.serve(connection, &answer))
    }

    /// Gives each connection to the closure, which does what it likes with it. Requests are recorded only where the
    /// closure calls [`Arrivals::record`].
    pub fn raw(handle: impl Fn(Connection, &Arrivals) + Send + Sync + 'static) -> Self {
        Self::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), move |connection, shared| {
            handle(connection, &Arrivals(Arc::clone(shared)));
        })
    }

    /// Where it listens: `address:port`.
    pub fn address(&self) -> SocketAddr {
        match &self.address {
            Listening::Tcp(address) => *address,
            Listening::Unix(path) => panic!("a target on {path:?} has no port"),
        }
    }

    /// Waits for the next request and returns it; each is returned once.
    pub fn next_request(&self) -> Request {
        let arrived = self.arrived.lock().unwrap().recv_timeout(DEADLINE);
        arrived.unwrap_or_else(|_| panic!("no request reached the target within {DEADLINE:?}"))
    }

    /// The requests that came so far and were not returned yet.
    pub fn requests(&self) -> Vec<Request> {
        self.arrived.lock().unwrap().try_iter().collect()
    }

    /// How many requests came so far.
    pub fn request_count(&self) -> usize {
        self.shared.requests.load(Ordering::Acquire)
    }

    /// How many connections were accepted so far.
    pub fn connection_count(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    fn listen(address: SocketAddr, handle: impl Fn(Connection, &Arc<Shared>) + Send + Sync + 'static) -> Self {
        let mut address = address;
        if address.port() == 0 {
            // From outside the range of outgoing connections, so that a target can come back on its port.
            address.set_port(free_port());
        }
        // The target that was here before may still be closing.
        let listener = eventually("the address of the target is free", || TcpListener::bind(address).ok());
        let address = listener.local_addr().unwrap();
        let accept = move || {
            let (stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            Ok(Socket::Tcp(stream))
        };
        Self::run(Listening::Tcp(address), accept, handle)
    }

    fn run(
        address: Listening,
        accept: impl Fn() -> std::io::Result<Socket> + Send + 'static,
        handle: impl Fn(Connection, &Arc<Shared>) + Send + Sync + 'static,
    ) -> Self {
        let (sender, receiver) = mpsc::channel();
        let shared = Arc::new(Shared {
            stopped: AtomicBool::new(false),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            open: Mutex::new(HashMap::new()),
            sender: Mutex::new(sender),
        });
        let handle = Arc::new(handle);
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            loop {
                let Ok(socket) = accept() else { return };
                if accepting.stopped.load(Ordering::Acquire) {
                    return;
                }
                let number = accepting.connections.fetch_add(1, Ordering::AcqRel);
                let connection = Connection::from_socket(socket);
                if let Ok(socket) = connection.duplicate() {
                    accepting.open.lock().unwrap().insert(number, socket);
                }
                let (handle, shared) = (Arc::clone(&handle), Arc::clone(&accepting));
                let serve = move || {
                    handle(connection, &shared);
                    // With the duplicate goes the last descriptor, so that the connection closes, or resets, now.
                    shared.open.lock().unwrap().remove(&number);
                };
                thread::Builder::new().stack_size(256 * 1024).spawn(serve).unwrap();
            }
        });
        Self { address, shared, arrived: Mutex::new(receiver) }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        // The accepting thread sees the flag at its next connection, which is this one.
        match &self.address {
            Listening::Tcp(address) => drop(TcpStream::connect(address)),
            Listening::Unix(path) => drop(UnixStream::connect(path)),
        }
        for (_, socket) in self.shared.open.lock().unwrap().drain() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Lets a closure of [`Target::raw`] record the requests it has read.
pub struct Arrivals(Arc<Shared>);

impl Arrivals {
    /// Makes a request known to [`Target::next_request`].
    pub fn record(&self, head: &Head, body: &[u8]) {
        self.0.record(Request { head: head.clone(), body: body.to_vec() });
    }
}

impl fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrivals").finish_non_exhaustive()
    }
}

/// Something that threads wait for: closed at first, opened once.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everyone through, for good.
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until the gate is open.
    pub fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        let (open, _) = self.0.1.wait_timeout_while(open, DEADLINE, |open| !*open).unwrap();
        assert!(*open, "nobody opened the gate within {DEADLINE:?}");
    }
}

#[derive(Debug)]
enum Listening {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

struct Shared {
    stopped: AtomicBool,
    requests: AtomicUsize,
    connections: AtomicUsize,
    open: Mutex<HashMap<usize, Socket>>,
    sender: Mutex<Sender<Request>>,
}

impl Shared {
    fn record(&self, request: Request) {
        self.requests.fetch_add(1, Ordering::AcqRel);
        // Nobody listens any more once the test is over.
        let _ = self.sender.lock().unwrap().send(request);
    }

    fn serve(&self, mut connection: Connection, answer: &impl Fn(&Request) -> Reply) {
        while let Some(head) = connection.head_or_end() {
            if head.header("Expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
                connection.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            let body = connection.body(&head);
            let request = Request { head, body };
            self.record(request.clone());
            let bytes = answer(&request).to_bytes(request.head.method());
            if connection.try_send(bytes).is_err() || request.header("Connection") == Some("close") {
                return;
            }
        }
    }
}
