use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::{Authority, Certificate, Target};

/// How a server is set up, in the terms of Pushpin's files, which both programs read.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    routes: Vec<String>,
    runner: Vec<String>,
    proxy: Vec<String>,
    handler: Vec<String>,
    listen: Vec<String>,
    native: Option<String>,
    environment: Vec<(String, String)>,
    copies: Vec<(PathBuf, String)>,
}

/// The addresses a server is told to use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) front: SocketAddr,
    pub(crate) control: SocketAddr,
    pub(crate) pull: u16,
    pub(crate) command: u16,
}

impl Setup {
    /// Without a route.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one route, from everything to this target.
    pub fn to(target: &Target) -> Self {
        Self::new().route(format!("* {}", target.address()))
    }

    /// Adds a line of the routes file.
    pub fn route(mut self, line: impl Into<String>) -> Self {
        self.routes.push(line.into());
        self
    }

    /// Adds a line `key=value` to the section `[runner]`.
    pub fn runner(mut self, line: impl Into<String>) -> Self {
        self.runner.push(line.into());
        self
    }

    /// Adds a line `key=value` to the section `[proxy]`.
    pub fn proxy(mut self, line: impl Into<String>) -> Self {
        self.proxy.push(line.into());
        self
    }

    /// Adds a line `key=value` to the section `[handler]`.
    pub fn handler(mut self, line: impl Into<String>) -> Self {
        self.handler.push(line.into());
        self
    }

    /// Adds an address to listen on for clients, as `address:port`.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen.push(address.into());
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Copies a file to a path beside the configuration.
    pub fn copy(mut self, from: &Path, to: &str) -> Self {
        self.copies.push((from.to_owned(), to.to_owned()));
        self
    }

    /// Copies a certificate and its key, as `to` with `.crt` and `.key`.
    pub fn certificate(self, certificate: &Certificate, to: &str) -> Self {
        self.copy(&certificate.cert, &format!("{to}.crt")).copy(&certificate.key, &format!("{to}.key"))
    }

    pub(crate) fn copy_into(&self, directory: &Path) {
        for (from, to) in &self.copies {
            let to = directory.join(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(from, to).unwrap();
        }
    }

    /// Makes an authority one of those that the system knows.
    pub fn trusting(self, authority: &Authority) -> Self {
        self.env("SSL_CERT_FILE", authority.file().display().to_string())
    }

    pub(crate) fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Uses a waft.toml instead of Pushpin's files; `FRONT` and `CONTROL` in it become the addresses,
    /// `DIRECTORY` the one it is in. For waft alone.
    pub fn native(toml: impl Into<String>) -> Self {
        Self { native: Some(toml.into()), ..Self::default() }
    }

    pub(crate) fn is_native(&self) -> bool {
        self.native.is_some()
    }

    pub(crate) fn native_text(&self, directory: &Path, addresses: &Addresses) -> String {
        let text = self.native.as_deref().unwrap_or_default().replace("DIRECTORY", &directory.display().to_string());
        text.replace("FRONT", &addresses.front.to_string()).replace("CONTROL", &addresses.control.to_string())
    }

    pub(crate) fn routes_text(&self) -> String {
        self.routes.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// The text of pushpin.conf. Keys that a test gives come first and win.
    pub(crate) fn conf_text(&self, directory: &Path, addresses: &Addresses) -> String {
        let run = directory.join("run");
        let run = run.display();
        let Addresses { front, control, pull, command } = *addresses;
        let mut listen = front.to_string();
        for address in &self.listen {
            write!(listen, ",{address}").unwrap();
        }
        let mut text = format!("[global]\ninclude=internal.conf\nrundir={run}\n");
        section(
            &mut text,
            "runner",
            &self.runner,
            &[
                "services=condure,zurl,pushpin-proxy,pushpin-handler",
                &format!("http_port={listen}"),
                &format!("logdir={}", directory.join("log").display()),
                "log_level=2",
                "client_buffer_size=8192",
                "client_maxconn=50000",
            ],
        );
        section(
            &mut text,
            "proxy",
            &self.proxy,
            &[
                "routesfile=routes",
                "sig_iss=pushpin",
                "sig_key=changeme",
                "set_x_forwarded_protocol=proto-only",
                &format!("zurl_out_specs=ipc://{run}/pushpin-zurl-in"),
                &format!("zurl_out_stream_specs=ipc://{run}/pushpin-zurl-in-stream"),
                &format!("zurl_in_specs=ipc://{run}/pushpin-zurl-out"),
            ],
        );
        section(
            &mut text,
            "handler",
            &self.handler,
            &[
                &format!("push_in_spec=tcp://127.0.0.1:{pull}"),
                &format!("push_in_http_addr={}", control.ip()),
                &format!("push_in_http_port={}", control.port()),
                &format!("command_spec=tcp://127.0.0.1:{command}"),
                "message_rate=2500",
                "message_hwm=25000",
                "message_wait=5000",
                "id_cache_ttl=60",
                "connection_subscription_max=20",
                "subscription_linger=60",
            ],
        );
        text
    }
}

fn section(text: &mut String, name: &str, given: &[String], defaults: &[&str]) {
    writeln!(text, "[{name}]").unwrap();
    let key = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    for line in given {
        writeln!(text, "{line}").unwrap();
    }
    for line in defaults.iter().filter(|line| !given.iter().any(|other| key(other) == key(line))) {
        writeln!(text, "{line}").unwrap();
    }
}
