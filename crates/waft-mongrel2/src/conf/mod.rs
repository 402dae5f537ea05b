//! Mongrel2's configuration: the language in which `m2sh` reads it, and what it says.
//!
//! [`parse`] reads a text into [`Conf`]; whoever reads the database that `m2sh` writes makes the same [`Conf`].

mod lex;
mod read;
mod syntax;

pub use lex::ConfError;
pub use read::parse;

use crate::request::Protocol;

/// Everything that a configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    /// The servers, of which one is run.
    pub servers: Vec<Server>,
    /// Settings, in the order in which they stand.
    pub settings: Vec<(String, String)>,
    /// Content types by extension, with its dot.
    pub mimetypes: Vec<(String, String)>,
    /// What was read and means nothing, a sentence each.
    pub notes: Vec<String>,
}

/// One server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// What it is run by.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// Address that clients connect to.
    pub bind_addr: String,
    /// Port that clients connect to.
    pub port: u16,
    /// Whether clients use TLS.
    pub use_ssl: bool,
    /// Directory that the paths below begin in.
    pub chroot: String,
    /// File of the access log.
    pub access_log: String,
    /// File of the error log.
    pub error_log: String,
    /// File with the number of the process.
    pub pid_file: String,
    /// ZeroMQ address of the control port; empty: the setting `control_port` counts.
    pub control_port: String,
    /// Name of the host for requests that no host is for.
    pub default_host: String,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// Modules that see each connection, which are not run here.
    pub filters: Vec<Module>,
    /// Modules that add commands for handlers.
    pub xrequests: Vec<Module>,
}

/// One host with its routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Which hosts it is for, as [`crate::HostRule`] reads it.
    pub matching: String,
    /// Path and target of each route, in order.
    pub routes: Vec<(String, Backend)>,
}

/// A loaded module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// Path of the shared object.
    pub name: String,
    /// Its settings, as a TNetString.
    pub settings: String,
}

/// What a route leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Files.
    Dir(Dir),
    /// Programs behind ZeroMQ.
    Handler(Handler),
    /// An HTTP server.
    Proxy {
        /// Its name or address.
        addr: String,
        /// Its port.
        port: u16,
    },
}

/// Files of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dir {
    /// The directory, below the chroot.
    pub base: String,
    /// The file that stands for a directory.
    pub index_file: String,
    /// Content type where the extension is unknown.
    pub default_ctype: String,
    /// Seconds that what is known of a file may be remembered.
    pub cache_ttl: u32,
}

/// Programs behind ZeroMQ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handler {
    /// Where requests go.
    pub send_spec: String,
    /// The name that stands in requests, and that of the socket.
    pub send_ident: String,
    /// Where responses come from.
    pub recv_spec: String,
    /// What responses begin with.
    pub recv_ident: String,
    /// Whether messages to JSON sockets are sent without base64.
    pub raw_payload: bool,
    /// How headers are written.
    pub protocol: Protocol,
}

#[cfg(test)]
mod tests;
