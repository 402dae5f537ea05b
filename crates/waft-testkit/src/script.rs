use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::server::waft_binary;
use crate::{Process, eventually};

/// A program of another world (Python, Node, a browser) to be run with a deadline.
pub struct Script {
    name: String,
    command: Command,
    deadline: Duration,
}

/// How a script ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it wrote.
    pub output: String,
}

/// The root of the workspace.
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// A Python script, given relative to the workspace, in the environment that `scripts/install-test-tools` makes.
pub fn python(script: &str) -> Script {
    let python = workspace_root().join("target/test-tools/python/bin/python");
    assert!(python.exists(), "there is no {}; run scripts/install-test-tools", python.display());
    Script::new(script, &python)
        .arg(workspace_root().join(script))
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONWARNINGS", "ignore")
}

/// A Node script, given relative to the workspace; it finds the packages beside it.
pub fn node(script: &str) -> Script {
    let script_path = workspace_root().join(script);
    let packages = script_path.with_file_name("node_modules");
    assert!(packages.exists(), "there is no {}; run scripts/install-test-tools", packages.display());
    Script::new(script, Path::new("node")).arg(&script_path)
}

/// The waft program itself, for its commands.
pub fn waft() -> Script {
    Script::new("waft", &waft_binary())
}

/// Any other program.
pub fn program(name: &str) -> Script {
    Script::new(name, Path::new(name))
}

/// A headless browser that opens the page at `url` and keeps its profile in `profile`.
pub fn chromium(url: &str, profile: &Path) -> Script {
    let profile = format!("--user-data-dir={}", profile.display());
    program("chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--remote-debugging-port=0", &profile, url])
}

impl Script {
    fn new(name: &str, program: &Path) -> Self {
        let mut command = Command::new(program);
        command.current_dir(workspace_root());
        Self { name: name.to_owned(), command, deadline: Duration::from_secs(60) }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Gives it more or less time than a minute to end.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs it in this directory instead of the root of the workspace.
    pub fn directory(mut self, directory: &str) -> Self {
        self.command.current_dir(workspace_root().join(directory));
        self
    }

    /// Starts it and leaves it running.
    pub fn start(mut self) -> Process {
        Process::start(&self.name, &mut self.command)
    }

    /// Starts it and leaves it running, with lines to be said to it.
    pub fn start_listening(mut self) -> Process {
        Process::start_listening(&self.name, &mut self.command)
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Finished {
        let mut process = Process::start(&self.name, &mut self.command);
        let give_up = Instant::now() + self.deadline;
        while !process.has_ended() && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(process.has_ended(), "{} did not end within {:?}", self.name, self.deadline);
        let status = process.wait_for_exit();
        // The pipes are read by other threads, which see the end a moment later.
        Finished { status, output: process.output_at_end() }
    }

    /// Runs it to its end, checks that it succeeded, and returns what it wrote.
    pub fn succeed(self) -> String {
        let name = self.name.clone();
        let finished = self.run();
        assert!(finished.status.success(), "{name} failed ({}):\n{}", finished.status, finished.output);
        finished.output
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.command.fmt(f)
    }
}

impl Process {
    /// Waits until a port is open, which this process is expected to open.
    pub fn wait_for_port(&mut self, port: u16) {
        eventually(&format!("a listener on port {port}"), || {
            assert!(!self.has_ended(), "it ended instead of listening:\n{}", self.output());
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
    }
}
