use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::setup::Addresses;
use crate::{
    Connection, Process, Response, Setup, Subject, eventually, free_port, resident_bytes, subject, workspace_root,
};

/// The program under test, running in a directory of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    subject: Subject,
    process: Process,
    addresses: Addresses,
    directory: Directory,
    /// How often Pushpin had told of a subscription before the test began.
    subscriptions_before: usize,
}

/// What Pushpin logs for each channel of a hold.
const SUBSCRIBED: &str = " subscribe ";

/// A host with routes of Pushpin's own, to see whether its processes have found each other.
const WARM_UP_HOST: &str = "warm-up.invalid";

impl Server {
    /// Starts the program under test and waits until it accepts.
    pub fn start(setup: Setup) -> Self {
        Self::start_as(subject(), setup)
    }

    /// Starts one of the two programs, whichever is under test: for tests of both together.
    pub fn start_as(subject: Subject, setup: Setup) -> Self {
        let directory = Directory::create();
        let port = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let addresses = Addresses { front: port(), control: port(), pull: free_port(), command: free_port() };
        let config = write_files(subject, &setup, &directory.0, &addresses);
        let process = match subject {
            Subject::Pushpin => start_pushpin(&config, setup.environment()),
            Subject::Waft => start_waft(&config, setup.environment()),
        };
        let mut server = Self { subject, process, addresses, directory, subscriptions_before: 0 };
        server.wait_until_ready();
        server
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.addresses.front
    }

    /// The address of the HTTP control port.
    pub fn control_address(&self) -> SocketAddr {
        self.addresses.control
    }

    /// The address of the PULL socket.
    pub fn pull_address(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.addresses.pull)
    }

    /// The address of the socket for commands.
    pub fn command_address(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.addresses.command)
    }

    /// The directory with its configuration; the test may put files there.
    pub fn directory(&self) -> &Path {
        &self.directory.0
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its own memory in RAM, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.id())
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Waits until it has logged `text`.
    pub fn wait_for_log(&self, text: &str) {
        self.process.wait_for_output(text, 1);
    }

    /// Opens a client connection.
    pub fn connect(&self) -> Connection {
        Connection::tcp(self.addresses.front)
    }

    /// Opens a client connection and sends a GET request for `path`.
    pub fn get(&self, path: &str) -> Connection {
        let mut client = self.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n\r\n"));
        client
    }

    /// Sends a request on a connection of its own and reads the whole response.
    pub fn fetch(&self, request: impl AsRef<[u8]>) -> Response {
        self.connect().fetch(request)
    }

    /// Publishes items through the HTTP control port and checks that they are taken.
    pub fn publish(&self, items: Value) {
        let answer = self.post_control("/publish/", &json!({ "items": items }).to_string());
        assert_eq!((answer.status(), answer.body_text().as_str()), (200, "Published\n"));
    }

    /// Publishes text to the response and stream holds and WebSockets of a channel.
    pub fn publish_text(&self, channel: &str, text: &str) {
        self.publish(json!([item(channel, text)]));
    }

    /// Publishes text to a held client until it has an answer: when the hold begins only the program knows.
    ///
    /// Only for holds that end with the first item.
    pub fn publish_until_answered(&self, client: &mut Connection, items: &Value) {
        eventually("an answer to the hold", || {
            self.publish(items.clone());
            client.is_readable_within(Duration::from_millis(50)).then_some(())
        });
    }

    /// Sends a POST request to the control port.
    pub fn post_control(&self, path: &str, body: &str) -> Response {
        let length = body.len();
        self.control(format!("POST {path} HTTP/1.1\r\nHost: control\r\nContent-Length: {length}\r\n\r\n{body}"))
    }

    /// Sends a request to the control port on a connection of its own.
    pub fn control(&self, request: impl AsRef<[u8]>) -> Response {
        Connection::tcp(self.addresses.control).fetch(request)
    }

    /// The sum of all samples of a metric, over its labels; `None` when there is no such metric. For waft alone.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let page = self.control("GET /metrics HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\r\n");
        metric_sum(&page.body_text(), name)
    }

    /// Waits until this many clients are held.
    ///
    /// Pushpin tells of holds in its log only, once for each first subscription of a client to a channel.
    pub fn wait_for_holds(&self, count: usize) {
        match self.subject {
            Subject::Pushpin => self.process.wait_for_output(SUBSCRIBED, self.subscriptions_before + count),
            Subject::Waft => eventually("the metric waft_holds", || {
                (self.metric("waft_holds").unwrap_or(0.0) >= count as f64).then_some(())
            }),
        }
    }

    /// Waits until `channel` has a listener, which is the `nth` subscription that this test makes.
    pub fn wait_for_listener(&self, channel: &str, nth: usize) {
        match self.subject {
            Subject::Pushpin => self.wait_for_holds(nth),
            Subject::Waft => eventually("a listener of the channel", || {
                let page = self.control(format!("GET /channels?prefix={channel} HTTP/1.1\r\nHost: control\r\n\r\n"));
                page.body_text().contains(&format!("\"{channel}\"")).then_some(())
            }),
        }
    }

    /// Replaces the routes file; the program notices by itself.
    pub fn write_routes(&self, lines: &[String]) {
        let text = lines.iter().fold(String::new(), |text, line| text + line + "\n");
        fs::write(self.directory.0.join("routes"), text).unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Asks it to reload its configuration, as `systemctl reload` does.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for its end.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        self.process.wait_for_exit()
    }

    fn wait_until_ready(&mut self) {
        match self.subject {
            Subject::Pushpin => {
                for part in ["zurl", "proxy", "handler"] {
                    self.process.wait_for_output(&format!("[{part}] started"), 1);
                }
            }
            Subject::Waft => self.process.wait_for_output("waft is ready", 1),
        }
        for address in [self.addresses.front, self.addresses.control] {
            eventually(&format!("a listener on {address}"), || TcpStream::connect(address).ok());
        }
        if self.subject == Subject::Pushpin {
            self.warm_up();
        }
    }

    /// Waits until the processes of Pushpin hear each other; messages of the first moments may be lost.
    fn warm_up(&mut self) {
        for (path, status) in [("/stream?channel=warm-up", "HTTP/1.1 200"), ("/target", "HTTP/1.1 502")] {
            eventually("an answer through all of Pushpin", || {
                let mut client = self.connect();
                client.send(format!("GET {path} HTTP/1.1\r\nHost: {WARM_UP_HOST}\r\n\r\n"));
                client.is_readable_within(Duration::from_millis(300)).then_some(())?;
                client.peek().starts_with(status.as_bytes()).then_some(())
            });
        }
        self.subscriptions_before = self.log().matches(SUBSCRIBED).count();
    }
}

/// An item for all three kinds of holds.
pub(crate) fn item(channel: &str, text: &str) -> Value {
    json!({ "channel": channel, "formats": {
        "http-response": { "body": text },
        "http-stream": { "content": text },
        "ws-message": { "content": text },
    }})
}

/// The sum of all samples of a metric in a page of the Prometheus text format.
pub fn metric_sum(page: &str, name: &str) -> Option<f64> {
    let samples = page
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{')));
    let values: Vec<f64> = samples.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

fn write_files(subject: Subject, setup: &Setup, directory: &Path, addresses: &Addresses) -> PathBuf {
    setup.copy_into(directory);
    if setup.is_native() {
        let path = directory.join("waft.toml");
        fs::write(&path, setup.native_text(directory, addresses)).unwrap();
        return path;
    }
    let path = directory.join("pushpin.conf");
    fs::write(&path, setup.conf_text(directory, addresses)).unwrap();
    let mut routes = setup.routes_text();
    if subject == Subject::Pushpin {
        routes += &format!("{WARM_UP_HOST} test\n{WARM_UP_HOST},path_beg=/target 127.0.0.1:1\n");
    }
    fs::write(directory.join("routes"), routes).unwrap();
    fs::create_dir_all(directory.join("run")).unwrap();
    path
}

fn start_pushpin(config: &Path, environment: &[(String, String)]) -> Process {
    assert!(config.ends_with("pushpin.conf"), "Pushpin cannot read {config:?}; mark the test `waft_only!`");
    Process::start(
        "pushpin",
        Command::new("pushpin").arg("-m").arg("--config").arg(config).envs(environment.iter().cloned()),
    )
}

fn start_waft(config: &Path, environment: &[(String, String)]) -> Process {
    let environment = environment.iter().cloned();
    Process::start("waft", Command::new(waft_binary()).arg("--config").arg(config).envs(environment))
}

/// The path of the waft program: `WAFT_BIN`, or the one cargo builds in the directory this test was built in.
pub fn waft_binary() -> PathBuf {
    if let Some(path) = env::var_os("WAFT_BIN") {
        return path.into();
    }
    static BUILD: Once = Once::new();
    let test = env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap().to_owned();
    BUILD.call_once(|| {
        let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--package", "waft", "--bin", "waft"]).current_dir(workspace_root());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "waft does not build");
    });
    profile.join("waft")
}

/// A directory that goes away with its owner, unless the test failed.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn create() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("waft-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the files of the server are in {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_labels_and_similar_names_are_left_out() {
        let page = "# HELP a x\na{k=\"1\"} 2\na{k=\"2\"} 3.5\nab 9\na_total 7\n";
        assert_eq!(metric_sum(page, "a"), Some(5.5));
        assert_eq!(metric_sum(page, "a_total"), Some(7.0));
        assert_eq!(metric_sum(page, "b"), None);
    }
}
