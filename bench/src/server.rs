//! The servers under test: how each is configured, started, spoken to and stopped.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::process;

/// Ports are taken below those the kernel gives to clients, so that no client sits on one by chance.
static NEXT_PORT: AtomicU16 = AtomicU16::new(20_000);
/// How long a server may take until it accepts connections.
const START_LIMIT: Duration = Duration::from_secs(15);
/// The core that servers run on; the load has the other.
pub const SERVER_CORE: usize = 0;
/// The core of the load generator and the origin.
pub const LOAD_CORE: usize = 1;

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The bare loop of this suite.
    Bare,
    /// waft with one shard.
    Waft,
    /// waft with two shards, on both cores.
    WaftTwo,
    /// Pushpin with Condure and Zurl.
    Pushpin,
    /// nginx with the nchan module, one worker.
    Nginx,
    /// HAProxy, one thread.
    Haproxy,
    /// The npm package ws in Node, holding WebSockets without a backend.
    NodeWs,
}

impl Kind {
    /// All, in the order of tables.
    pub const ALL: [Self; 7] =
        [Self::Bare, Self::Waft, Self::WaftTwo, Self::Pushpin, Self::Nginx, Self::Haproxy, Self::NodeWs];

    /// The name in options and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Waft => "waft",
            Self::WaftTwo => "waft-2",
            Self::Pushpin => "pushpin",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::NodeWs => "node-ws",
        }
    }

    /// Whether it holds exchanges as a backend instructs.
    pub const fn speaks_grip(self) -> bool {
        matches!(self, Self::Bare | Self::Waft | Self::WaftTwo | Self::Pushpin)
    }

    /// Whether it holds such exchanges at all: nchan and ws do so without a backend.
    pub const fn holds(self, transport: Transport) -> bool {
        match self {
            Self::Nginx => true,
            _ if matches!(transport, Transport::Encrypted) => matches!(self, Self::Waft | Self::WaftTwo),
            Self::NodeWs => matches!(transport, Transport::Socket),
            _ => self.speaks_grip(),
        }
    }

    /// Whether it passes requests on.
    pub const fn proxies(self) -> bool {
        !matches!(self, Self::NodeWs)
    }

    /// Whether figures that belong to one core are of interest.
    pub const fn is_single(self) -> bool {
        !matches!(self, Self::WaftTwo)
    }

    /// How much less work it gets, so that a slow server does not take minutes.
    pub const fn share(self) -> usize {
        match self {
            Self::Pushpin => 8,
            _ => 1,
        }
    }

    /// The cores it is bound to, as `taskset` reads them.
    fn cores(self) -> String {
        match self {
            Self::WaftTwo => format!("{SERVER_CORE},{LOAD_CORE}"),
            _ => SERVER_CORE.to_string(),
        }
    }

    /// The version it reports.
    pub fn version(self, setting: &Setting) -> String {
        let (program, option) = match self {
            Self::Bare => return "of this suite".to_owned(),
            Self::Waft | Self::WaftTwo => (setting.waft.display().to_string(), "--version"),
            Self::Pushpin => ("pushpin".to_owned(), "--version"),
            Self::Nginx => ("nginx".to_owned(), "-v"),
            Self::Haproxy => ("haproxy".to_owned(), "-v"),
            Self::NodeWs => ("node".to_owned(), "--version"),
        };
        let Ok(output) = Command::new(program).arg(option).output() else { return "unknown".to_owned() };
        let text = [output.stdout, output.stderr].concat();
        let version = String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").trim().to_owned();
        if self != Self::NodeWs {
            return version;
        }
        let package = fs::read_to_string(setting.node.join("node_modules/ws/package.json")).unwrap_or_default();
        let ws = package.lines().find_map(|line| line.trim().strip_prefix("\"version\":"));
        format!("ws {} on node {version}", ws.unwrap_or("unknown").trim_matches([' ', '"', ',']))
    }
}

/// What is held open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A chunked HTTP response.
    Stream,
    /// A WebSocket; towards the backend it is WebSocket-over-HTTP.
    Socket,
    /// A chunked HTTP response over TLS.
    Encrypted,
}

/// What every server is started with.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The waft binary.
    pub waft: PathBuf,
    /// Where the npm package ws is installed, and the script that uses it.
    pub node: PathBuf,
    /// Where configurations and logs go.
    pub dir: PathBuf,
    /// The backend.
    pub origin: SocketAddr,
}

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct Server {
    /// What it is.
    pub kind: Kind,
    /// Where clients connect.
    pub clients: SocketAddr,
    /// Where clients connect that speak TLS.
    pub encrypted: SocketAddr,
    /// Where publishers connect.
    pub control: SocketAddr,
    /// The certificate that it shows to those.
    pub certificate: PathBuf,
    child: Child,
}

impl Server {
    /// Starts it and waits until both its doors accept connections.
    pub fn start(kind: Kind, setting: &Setting) -> Result<Self, String> {
        let (clients, encrypted, control) = (free_port(), free_port(), free_port());
        make_certificate(&setting.dir)?;
        let dir = setting.dir.join(format!("{}-{}", kind.name(), clients.port()));
        fs::create_dir_all(&dir).map_err(|error| format!("cannot create {}: {error}", dir.display()))?;
        let command = command(kind, setting, &dir, Doors { clients, encrypted, control })
            .map_err(|error| format!("cannot configure {}: {error}", kind.name()))?;
        let log = |name: &str| fs::File::create(dir.join(name)).map_or_else(|_| Stdio::null(), Stdio::from);
        // The server ends with this process, however this process ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "taskset", "-c", &kind.cores()])
            .args(command)
            .current_dir(&dir)
            .env("NODE_PATH", setting.node.join("node_modules"))
            .stdin(Stdio::null())
            .stdout(log("stdout"))
            .stderr(log("stderr"))
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", kind.name()))?;
        let mut own = Self { kind, clients, encrypted, control, certificate: certificate(&setting.dir), child };
        let begin = Instant::now();
        let mut doors = vec![clients];
        if kind != Kind::Haproxy {
            doors.push(control);
        }
        while let Some(door) = doors.last() {
            if TcpStream::connect(door).is_ok() {
                doors.pop();
            } else if let Ok(Some(status)) = own.child.try_wait() {
                let said = fs::read_to_string(dir.join("stderr")).unwrap_or_default();
                return Err(format!("{} ended with {status}: {}", kind.name(), said.trim()));
            } else if begin.elapsed() > START_LIMIT {
                return Err(format!("{} does not accept connections at {door}", kind.name()));
            } else {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        if kind == Kind::Pushpin {
            // Its front accepts before the processes behind it have found each other.
            std::thread::sleep(Duration::from_secs(2));
        }
        process::settle(own.pid(), Duration::from_secs(3));
        Ok(own)
    }

    /// The process at the root of the server.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The request that becomes a hold on a channel.
    pub fn hold_request(&self, transport: Transport, channel: &str) -> Vec<u8> {
        if transport == Transport::Socket {
            return socket_request(&format!("/ws?channel={channel}"));
        }
        // The header is nchan's condition for chunks; the others drop it.
        let te = if self.kind == Kind::Nginx { "TE: chunked\r\n" } else { "" };
        format!("GET /stream?channel={channel} HTTP/1.1\r\nHost: bench\r\n{te}\r\n").into_bytes()
    }

    /// The request that becomes a response hold on a channel.
    pub fn poll_request(&self, channel: &str) -> Vec<u8> {
        format!("GET /poll?channel={channel} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes()
    }

    /// The request that publishes to a channel's holds.
    pub fn publish_hold(&self, transport: Transport, channel: &str, message: &[u8]) -> Vec<u8> {
        let format = match transport {
            Transport::Encrypted | Transport::Stream => "http-stream",
            Transport::Socket => "ws-message",
        };
        self.publish(channel, message, |text| format!(r#""{format}":{{"content":"{text}"}}"#))
    }

    /// The request that answers a channel's long-polls.
    pub fn publish_response(&self, channel: &str, message: &[u8]) -> Vec<u8> {
        self.publish(channel, message, |text| format!(r#""http-response":{{"body":"{text}"}}"#))
    }

    fn publish(&self, channel: &str, message: &[u8], format: impl Fn(&str) -> String) -> Vec<u8> {
        let (path, body) = match self.kind {
            Kind::Bare | Kind::Nginx | Kind::Haproxy | Kind::NodeWs => {
                (format!("/publish?channel={channel}"), message.to_vec())
            }
            Kind::Waft | Kind::WaftTwo | Kind::Pushpin => {
                let text = String::from_utf8_lossy(message).replace('\n', "\\n");
                let formats = format(&text);
                let body = format!(r#"{{"items":[{{"channel":"{channel}","formats":{{{formats}}}}}]}}"#);
                ("/publish/".to_owned(), body.into_bytes())
            }
        };
        let kind = if body.first() == Some(&b'{') { "application/json" } else { "text/plain" };
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), &body].concat()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let family = process::family(self.pid());
        signal(&family[..1], rustix::process::Signal::TERM);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Whatever did not go by itself; Pushpin's parts outlive it when it is killed.
        let left: Vec<u32> = family.into_iter().filter(|pid| is_alive(*pid, self.kind)).collect();
        signal(&left, rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Whether a process that belonged to a server still runs, and is not another with its number.
fn is_alive(pid: u32, kind: Kind) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let known: &[&str] = match kind {
        Kind::Bare => &["waft-bench"],
        Kind::Waft | Kind::WaftTwo => &["waft"],
        Kind::Pushpin => &["pushpin", "condure", "zurl"],
        Kind::Nginx => &["nginx"],
        Kind::Haproxy => &["haproxy"],
        Kind::NodeWs => &["node"],
    };
    known.iter().any(|known| name.starts_with(known))
}

/// The handshake of a WebSocket.
pub fn socket_request(target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
        crate::ws::CLIENT_KEY
    )
    .into_bytes()
}

fn signal(pids: &[u32], signal: rustix::process::Signal) {
    for pid in pids {
        if let Some(pid) = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// A port of the loopback interface where nothing listens.
fn free_port() -> SocketAddr {
    loop {
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 32_000, "no free port between 20000 and 32000");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// The certificate that all servers show, and the load generator trusts.
pub fn certificate(dir: &Path) -> PathBuf {
    dir.join("certs/bench.crt")
}

/// Makes that certificate if it is not there yet.
fn make_certificate(dir: &Path) -> Result<(), String> {
    let cert = certificate(dir);
    if cert.exists() {
        return Ok(());
    }
    let made = fs::create_dir_all(dir.join("certs")).and_then(|()| {
        Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=bench", "-addext", "subjectAltName=DNS:bench"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(cert.with_extension("key"))
            .arg("-out")
            .arg(&cert)
            .stderr(Stdio::null())
            .status()
    });
    match made {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("openssl made no certificate: {other:?}")),
    }
}

/// The addresses of a server.
#[derive(Clone, Copy, Debug)]
struct Doors {
    clients: SocketAddr,
    encrypted: SocketAddr,
    control: SocketAddr,
}

/// Writes what the server reads at its start, and says how to start it.
fn command(kind: Kind, setting: &Setting, dir: &Path, doors: Doors) -> std::io::Result<Vec<String>> {
    let Doors { clients, encrypted, control } = doors;
    let certs = setting.dir.join("certs").display().to_string();
    let origin = setting.origin;
    let path = |name: &str| dir.join(name).display().to_string();
    Ok(match kind {
        Kind::Bare => {
            let own = std::env::current_exe()?.display().to_string();
            vec![own, "bare".to_owned(), clients.to_string(), control.to_string(), origin.to_string()]
        }
        Kind::Waft | Kind::WaftTwo => {
            let shards = if kind == Kind::Waft { 1 } else { 2 };
            fs::write(
                dir.join("waft.toml"),
                format!(
                    "[server]\nlisten = [\"{clients}\", \"{encrypted}?tls\"]\ntls_certs = \"{certs}\"\nshards = {shards}\n\n\
                     [control]\nlisten = [\"{control}\"]\n\n\
                     [[route]]\nhost = \"*\"\npath = \"/direct\"\ntargets = [\"{origin}\"]\n\n\
                     [[route]]\nhost = \"*\"\ntargets = [\"{origin},over_http\"]\n"
                ),
            )?;
            vec![setting.waft.display().to_string(), "--config".to_owned(), path("waft.toml")]
        }
        Kind::Pushpin => {
            fs::write(dir.join("routes"), format!("*,path_beg=/direct {origin}\n* {origin},over_http\n"))?;
            fs::create_dir_all(dir.join("run"))?;
            fs::write(dir.join("pushpin.conf"), pushpin_conf(dir, clients, control))?;
            vec!["pushpin".to_owned(), format!("--config={}", path("pushpin.conf"))]
        }
        Kind::Nginx => {
            fs::write(dir.join("nginx.conf"), nginx_conf(dir, doors, &certs, origin))?;
            vec!["nginx".to_owned(), "-p".to_owned(), dir.display().to_string(), "-c".to_owned(), path("nginx.conf")]
        }
        Kind::NodeWs => vec![
            "node".to_owned(),
            setting.node.join("ws-server.js").display().to_string(),
            clients.port().to_string(),
            control.port().to_string(),
        ],
        Kind::Haproxy => {
            fs::write(
                dir.join("haproxy.cfg"),
                format!(
                    "global\n  nbthread 1\n  maxconn 9000\n  tune.bufsize 16384\n\ndefaults\n  mode http\n  \
                     timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  timeout tunnel 600s\n  \
                     option http-keep-alive\n  \
                     option forwardfor\n  http-reuse always\n\nfrontend front\n  bind {clients}\n  \
                     default_backend back\n\nbackend back\n  server one {origin} pool-max-conn -1\n"
                ),
            )?;
            vec!["haproxy".to_owned(), "-db".to_owned(), "-f".to_owned(), path("haproxy.cfg")]
        }
    })
}

/// Pushpin as packaged, with its limits on message rate and queue taken away.
fn pushpin_conf(dir: &Path, clients: SocketAddr, control: SocketAddr) -> String {
    let run = dir.join("run").display().to_string();
    let logs = dir.display();
    let (port, control_port) = (clients.port(), control.port());
    format!(
        "[global]\ninclude={{libdir}}/internal.conf\nrundir={run}\nipc_prefix=bench-\nport_offset=0\n\
         stats_connection_ttl=120\n\n\
         [runner]\nservices=condure,zurl,pushpin-proxy,pushpin-handler\nhttp_port=127.0.0.1:{port}\nlogdir={logs}\n\
         log_level=1\nclient_buffer_size=8192\nclient_maxconn=15000\ncondure_bin=condure\nzurl_bin=zurl\n\n\
         [proxy]\nroutesfile=routes\ndebug=false\nauto_cross_origin=false\n\
         set_x_forwarded_protocol=proto-only\nx_forwarded_for=truncate:0,append\nsig_iss=pushpin\n\
         sig_key=changeme\nupdates_check=off\n\
         zurl_out_specs=ipc://{run}/bench-zurl-in\nzurl_out_stream_specs=ipc://{run}/bench-zurl-in-stream\n\
         zurl_in_specs=ipc://{run}/bench-zurl-out\n\n\
         [handler]\npush_in_spec=ipc://{run}/bench-push\npush_in_sub_specs=ipc://{run}/bench-sub\n\
         push_in_sub_connect=false\npush_in_http_addr=127.0.0.1\npush_in_http_port={control_port}\n\
         push_in_http_max_headers_size=10000\npush_in_http_max_body_size=1000000\n\
         stats_spec=ipc://{run}/bench-stats\ncommand_spec=ipc://{run}/bench-command\n\
         message_rate=0\nmessage_hwm=25000000\nmessage_wait=5000\nid_cache_ttl=60\n\
         connection_subscription_max=20\nsubscription_linger=60\nstats_subscription_ttl=60\n\
         stats_report_interval=10\nstats_format=tnetstring\n"
    )
}

/// nginx with nchan, one worker, and connections to the origin kept open.
fn nginx_conf(dir: &Path, doors: Doors, certs: &str, origin: SocketAddr) -> String {
    let Doors { clients, encrypted, control } = doors;
    let dir = dir.display();
    format!(
        "daemon off;\nuser root;\nworker_processes 1;\nworker_rlimit_nofile 20000;\npid {dir}/nginx.pid;\n\
         error_log {dir}/error.log crit;\nload_module /usr/lib/nginx/modules/ngx_nchan_module.so;\n\
         events {{ worker_connections 19000; }}\n\
         http {{\n access_log off;\n keepalive_requests 1000000000;\n keepalive_timeout 600s;\n\
         client_body_temp_path {dir}/body;\n proxy_temp_path {dir}/proxy;\n fastcgi_temp_path {dir}/fastcgi;\n\
         uwsgi_temp_path {dir}/uwsgi;\n scgi_temp_path {dir}/scgi;\n\
         upstream origin {{ server {origin}; keepalive 256; keepalive_requests 1000000000; }}\n\
         server {{\n listen {clients} backlog=4096;\n listen {encrypted} ssl backlog=4096;\n\
         ssl_certificate {certs}/bench.crt;\n ssl_certificate_key {certs}/bench.key;\n\
         location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}\n\
         location = /stream {{ nchan_subscriber http-chunked; nchan_channel_id $arg_channel;\n\
         nchan_subscriber_first_message newest; }}\n\
         location /direct {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;\n\
         proxy_set_header Connection \"upgrade\"; }}\n\
         location = /ws {{ nchan_subscriber websocket; nchan_channel_id $arg_channel;\n\
         nchan_subscriber_first_message newest; }}\n\
         location = /poll {{ nchan_subscriber longpoll; nchan_channel_id $arg_channel;\n\
         nchan_subscriber_first_message newest; }}\n }}\n\
         server {{\n listen {control};\n\
         location = /publish {{ nchan_publisher http; nchan_channel_id $arg_channel; nchan_store_messages off;\n\
         client_body_buffer_size 64k; }}\n }}\n}}\n"
    )
}
