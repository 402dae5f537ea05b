//! Certificates of an authority of our own, and TLS by OpenSSL before and behind the program under test.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use serde_json::Value;

use crate::script::workspace_root;
use crate::server::Directory;
use crate::{Connection, Process, Target};

/// An authority that signs certificates; its files go away with it.
#[derive(Debug)]
pub struct Authority {
    directory: Directory,
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// The files of a certificate, PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority that nobody knows.
    pub fn new() -> Self {
        let directory = Directory::create();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        fs::write(directory.path().join("authority.pem"), &certificate).unwrap();
        Self { directory, issuer: Issuer::new(params, key), certificate }
    }

    /// Its own certificate, for those who are to trust it.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A certificate for these hosts, names and addresses. The files are called by the first.
    pub fn issue(&self, names: &[&str]) -> Certificate {
        self.sign(names, |_params| {})
    }

    /// A certificate whose time is over.
    pub fn issue_expired(&self, names: &[&str]) -> Certificate {
        self.sign(names, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 1);
        })
    }

    /// A certificate for a client of this name.
    pub fn issue_for_client(&self, name: &str) -> Certificate {
        self.sign(&[name], |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    fn sign(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let hosts: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0]);
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |kind: &str| self.directory.path().join(format!("{}.{kind}", names[0].replace('*', "_")));
        let files = Certificate { cert: file("crt"), key: file("key") };
        fs::write(&files.cert, certificate.pem() + &self.certificate).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// A process that speaks TLS for others, and tells of every handshake.
#[derive(Debug)]
pub struct TlsRelay {
    process: Process,
    port: u16,
}

impl TlsRelay {
    /// Puts TLS before a target, which stays plain itself.
    pub fn before(target: &Target, shown: &Certificate) -> Self {
        Self::start(&["accept", &target.address().to_string(), &text(&shown.cert), &text(&shown.key)])
    }

    /// The same, for clients that show a certificate of this authority.
    pub fn demanding(target: &Target, shown: &Certificate, clients: &Authority) -> Self {
        let place = target.address().to_string();
        Self::start(&["accept", &place, &text(&shown.cert), &text(&shown.key), &text(&clients.file())])
    }

    /// Opens a plain port whose connections go by TLS to `server`, which has to prove that it is `name`.
    pub fn to(server: SocketAddr, name: &str, authority: &Authority) -> Self {
        Self::start(&["connect", &server.to_string(), name, &text(&authority.file())])
    }

    /// The same, with a certificate of the client's own.
    pub fn to_with(server: SocketAddr, name: &str, authority: &Authority, shown: &Certificate) -> Self {
        let (cert, key) = (text(&shown.cert), text(&shown.key));
        Self::start(&["connect", &server.to_string(), name, &text(&authority.file()), &cert, &key])
    }

    /// The same, speaking no newer TLS than 1.2.
    pub fn to_by_tls12(server: SocketAddr, name: &str, authority: &Authority) -> Self {
        Self::start(&["connect", &server.to_string(), name, &text(&authority.file()), "1.2"])
    }

    fn start(arguments: &[&str]) -> Self {
        let script = workspace_root().join("crates/waft-testkit/programs/tls_relay.py");
        let process = Process::start("the TLS relay", Command::new("python3").arg(script).args(arguments));
        process.wait_for_output("\"port\"", 1);
        let port = said(&process).find_map(|said| said["port"].as_u64()).unwrap();
        Self { process, port: u16::try_from(port).unwrap() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection through it.
    pub fn connect(&self) -> Connection {
        Connection::tcp(self.address())
    }

    /// Waits for the handshake with this number, from 1 on, and returns what is known of it: `name` that was asked for,
    /// `reused`, `alpn`, `version`, names of the `peer`.
    pub fn handshake(&self, number: usize) -> Value {
        self.process.wait_for_output("\"handshake\"", number);
        let mut handshakes = said(&self.process).filter(|said| said.get("handshake").is_some());
        handshakes.nth(number - 1).unwrap()["handshake"].take()
    }

    /// Waits for the failure with this number, from 1 on, and returns its text.
    pub fn failure(&self, number: usize) -> String {
        self.process.wait_for_output("\"failed\"", number);
        let mut failures = said(&self.process).filter_map(|said| said["failed"].as_str().map(str::to_owned));
        failures.nth(number - 1).unwrap()
    }

    /// Handshakes so far.
    pub fn handshake_count(&self) -> usize {
        said(&self.process).filter(|said| said.get("handshake").is_some()).count()
    }
}

fn said(process: &Process) -> impl Iterator<Item = Value> {
    let output = process.output();
    let said: Vec<Value> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    said.into_iter()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
