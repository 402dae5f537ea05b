//! Where a route sends its requests.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use waft_mongrel2::Protocol;

/// One place that a route sends requests to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it is.
    pub address: TargetAddress,
    /// Speak TLS to it.
    pub ssl: bool,
    /// Hold it to the policy for outside addresses: no private, loopback or link-local ones.
    pub untrusted: bool,
    /// Check its certificate against the host of the address rather than the Host header sent.
    pub trust_connect_host: bool,
    /// Skip certificate checks.
    pub insecure: bool,
    /// `host[:port]` to send as Host header.
    pub host: Option<String>,
    /// Channels that every hold of this target is subscribed to. The channel prefix of the route is
    /// not added to them.
    pub subs: Vec<String>,
    /// Speak WebSocket-over-HTTP to it.
    pub over_http: bool,
    /// Send one WebSocket event a request.
    pub one_event: bool,
    /// Permissions of the Unix sockets that are bound for a ZeroMQ target.
    pub ipc_file_mode: Option<u32>,
    /// Connect to the sockets of a ZeroMQ target instead of binding them.
    pub connect: bool,
    /// PEM file with the client certificate to show to it.
    pub client_cert: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    pub client_key: Option<PathBuf>,
}

impl Target {
    /// A trusted plain target at `address`.
    pub fn new(address: TargetAddress) -> Self {
        Self {
            address,
            ssl: false,
            untrusted: false,
            trust_connect_host: false,
            insecure: false,
            host: None,
            subs: Vec::new(),
            over_http: false,
            one_event: false,
            ipc_file_mode: None,
            connect: false,
            client_cert: None,
            client_key: None,
        }
    }
}

/// Where a target is. Written as `host:port`, `[v6]:port`, `unix:/path`, `dir:/path`, `test`, `demo`,
/// `zhttp/SPEC` or `zhttpreq/SPEC`; a Mongrel2 handler has too many parts to be one word.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetAddress {
    /// The built-in demonstration pages.
    Demo,
    /// Files of a directory.
    Dir(Arc<Directory>),
    /// Mongrel2 handlers on two sockets (PUSH, SUB) that are bound.
    Handler(Arc<Handler>),
    /// An HTTP server.
    Http {
        /// Name or address; an IPv6 address stands without brackets.
        host: String,
        /// TCP port, never 0.
        port: u16,
    },
    /// The built-in test handler.
    Test,
    /// An HTTP server on a Unix socket.
    Unix(PathBuf),
    /// ZHTTP workers on three sockets (PUSH, ROUTER, SUB) that are bound by this ZeroMQ spec.
    Zhttp(String),
    /// ZHTTP workers on one DEALER socket, whole messages only.
    ZhttpReq(String),
}

/// Files of a directory, as a target. The path of its route is taken off the path of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Directory {
    /// The directory.
    pub path: PathBuf,
    /// The file that stands for a directory; empty for none.
    pub index: String,
    /// Content type of files whose extension is unknown.
    pub default_type: String,
    /// Content types by extension, before those that are known anyway.
    pub types: Vec<(String, String)>,
    /// Serve files and directories whose names begin with a dot.
    pub dotfiles: bool,
    /// Follow symbolic links that lead out of the directory.
    pub links: bool,
}

impl Directory {
    /// The files below `path`, with `index.html` for directories.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            index: "index.html".to_owned(),
            default_type: "application/octet-stream".to_owned(),
            types: Vec::new(),
            dotfiles: false,
            links: false,
        }
    }
}

/// Mongrel2 handlers, as a target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Handler {
    /// ZeroMQ address to which requests are pushed; bound.
    pub send_spec: String,
    /// The name that stands in requests.
    pub send_ident: String,
    /// ZeroMQ address at which responses are published; bound.
    pub recv_spec: String,
    /// What responses begin with; empty for all.
    pub recv_ident: String,
    /// How headers are written.
    pub protocol: Protocol,
}

/// Why a target cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetAddressError {
    /// It is nothing that a target can be.
    #[error("target bad format")]
    BadFormat,
    /// The part behind the host is no port from 1 to 65535.
    #[error("target invalid port")]
    InvalidPort,
}

impl FromStr for TargetAddress {
    type Err = TargetAddressError;

    fn from_str(text: &str) -> Result<Self, TargetAddressError> {
        match text {
            "demo" => return Ok(Self::Demo),
            "test" => return Ok(Self::Test),
            _ => {}
        }
        for (prefix, make) in [("zhttp/", Self::Zhttp as fn(String) -> Self), ("zhttpreq/", Self::ZhttpReq)] {
            if let Some(spec) = text.strip_prefix(prefix) {
                return if spec.is_empty() { Err(TargetAddressError::BadFormat) } else { Ok(make(spec.to_owned())) };
            }
        }
        if let Some(path) = text.strip_prefix("dir:").filter(|path| path.contains('/')) {
            return Ok(Self::Dir(Arc::new(Directory::new(path))));
        }
        // A host may be called `unix`, so that only what cannot be a port is taken for a path.
        if let Some(path) = text.strip_prefix("unix:").filter(|path| path.contains('/')) {
            return Ok(Self::Unix(path.into()));
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once("]:").ok_or(TargetAddressError::BadFormat)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_not_ipv6| TargetAddressError::BadFormat)?;
                (host, port)
            }
            None => text.rsplit_once(':').ok_or(TargetAddressError::BadFormat)?,
        };
        if host.is_empty() || (host.contains(':') && !text.starts_with('[')) || host.contains('/') {
            return Err(TargetAddressError::BadFormat);
        }
        match port.parse::<u16>() {
            Ok(port) if port != 0 => Ok(Self::Http { host: host.to_owned(), port }),
            _ => Err(TargetAddressError::InvalidPort),
        }
    }
}

impl fmt::Display for TargetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Demo => f.write_str("demo"),
            Self::Dir(directory) => write!(f, "dir:{}", directory.path.display()),
            Self::Handler(handler) => write!(f, "handler:{}", handler.send_spec),
            Self::Http { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Http { host, port } => write!(f, "{host}:{port}"),
            Self::Test => f.write_str("test"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Zhttp(spec) => write!(f, "zhttp/{spec}"),
            Self::ZhttpReq(spec) => write!(f, "zhttpreq/{spec}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<TargetAddress, TargetAddressError>) {
        let got = text.parse::<TargetAddress>();
        assert_eq!(got, expected, "{text:?}");
        if let Ok(address) = got {
            assert_eq!(address.to_string(), text, "written as read");
        }
    }

    #[test]
    fn addresses_are_read_and_written_alike() {
        let http = |host: &str, port| Ok(TargetAddress::Http { host: host.to_owned(), port });
        check("localhost:8000", http("localhost", 8000));
        check("127.0.0.1:1", http("127.0.0.1", 1));
        check("[::1]:65535", http("::1", 65535));
        check("unix:80", http("unix", 80));
        check("unix:/run/app.sock", Ok(TargetAddress::Unix("/run/app.sock".into())));
        check("dir:80", http("dir", 80));
        check("dir:/srv/www", Ok(TargetAddress::Dir(Arc::new(Directory::new("/srv/www")))));
        check("test", Ok(TargetAddress::Test));
        check("demo", Ok(TargetAddress::Demo));
        check("zhttp/tcp://127.0.0.1:10000", Ok(TargetAddress::Zhttp("tcp://127.0.0.1:10000".to_owned())));
        check("zhttpreq/ipc:///tmp/app", Ok(TargetAddress::ZhttpReq("ipc:///tmp/app".to_owned())));
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        for text in ["", "localhost", ":80", "::1:80", "[::1]", "[x]:80", "[", "zhttp/", "zhttpreq/", "http://a:80"] {
            check(text, Err(TargetAddressError::BadFormat));
        }
        for text in ["localhost:", "localhost:0", "localhost:65536", "localhost:http", "unix:"] {
            check(text, Err(TargetAddressError::InvalidPort));
        }
    }
}
