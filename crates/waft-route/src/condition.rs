//! What a request must be like for a route.

use std::fmt;

use waft_mongrel2::Pattern;

/// Which requests a route is for. Every part that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Condition {
    /// The host of the request, without its port.
    pub host: HostPattern,
    /// The kind of request. `None`: both.
    pub proto: Option<Proto>,
    /// Whether the client side must (`true`) or must not (`false`) be TLS. `None`: both.
    pub ssl: Option<bool>,
    /// Whether the client must (`true`) or must not (`false`) have proved itself by a certificate. `None`: both.
    pub client_cert: Option<bool>,
    /// Prefix of the path in its percent-encoded form: `/p` matches `/pq`. Never empty.
    pub path_beg: Option<String>,
    /// What the path behind `path_beg` must match, in Mongrel2's language. A path with that beginning which does not
    /// match is left to other routes of the same beginning, never to those of a shorter one.
    pub path_pattern: Option<Pattern>,
    /// Methods, any of which fits; compared exactly. Empty: all.
    pub methods: Vec<String>,
    /// Request headers that must be there. Names are compared in any case, values exactly.
    pub headers: Vec<NamedValue>,
    /// Query parameters that must be there, in the percent-encoded form.
    pub query: Vec<NamedValue>,
}

impl Condition {
    /// The id of a route that was given none: its condition, as in `example.com,*,*,/p`.
    pub fn automatic_id(&self) -> String {
        let proto = self.proto.map_or("*", Proto::as_str);
        let ssl = self.ssl.map_or("*", |ssl| if ssl { "yes" } else { "no" });
        let path = self.path_beg.as_deref().unwrap_or(if self.path_pattern.is_some() { "" } else { "*" });
        let pattern = self.path_pattern.as_ref().map_or("", |pattern| pattern.as_str());
        let mut id = format!("{},{proto},{ssl},{path}{pattern}", self.host);
        if let Some(client_cert) = self.client_cert {
            id.push_str(if client_cert { ",client_cert=yes" } else { ",client_cert=no" });
        }
        if !self.methods.is_empty() {
            id.push_str(",method=");
            id.push_str(&self.methods.join("|"));
        }
        for (kind, wanted) in [("header", &self.headers), ("query", &self.query)] {
            for named in wanted {
                id.push_str(&format!(",{kind}={}", named.name));
                if let Some(value) = &named.value {
                    id.push_str(&format!(":{value}"));
                }
            }
        }
        id
    }
}

/// A header or query parameter that a request must carry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamedValue {
    /// Its name.
    pub name: String,
    /// Its value. `None`: any value will do.
    pub value: Option<String>,
}

/// The hosts that a route is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `*`: hosts that no other route lists, and requests without a host.
    #[default]
    Any,
    /// `.example.com`: that host (which is what the string holds) and every host below it.
    Domain(String),
    /// One host, in lower case, without a port; an IPv6 address stands without brackets.
    Exact(String),
    /// A pattern in parentheses and what follows it, as Mongrel2 writes hosts: `(.*).example.com`.
    Matching(String),
    /// None: the route is found by its id alone.
    None,
    /// `*.example.com`: every host below `example.com` (which is what the string holds), but not
    /// that host itself.
    Wildcard(String),
}

impl HostPattern {
    /// Reads a pattern as routes files write it: `*`, `*.example.com`, `.example.com`, a host, a pattern with
    /// parentheses, or nothing.
    pub fn parse(text: &str) -> Self {
        match text {
            "" => Self::None,
            "*" => Self::Any,
            _ if text.contains('(') => Self::Matching(text.to_owned()),
            _ => match text.strip_prefix("*.") {
                Some(suffix) if !suffix.is_empty() => Self::Wildcard(normal_host(suffix)),
                _ => match text.strip_prefix('.') {
                    Some(domain) if !domain.is_empty() => Self::Domain(normal_host(domain)),
                    _ => Self::Exact(normal_host(text)),
                },
            },
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Domain(domain) => write!(f, ".{domain}"),
            Self::Exact(host) | Self::Matching(host) => f.write_str(host),
            Self::None => Ok(()),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

/// The kind of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proto {
    /// An HTTP request.
    #[default]
    Http,
    /// A WebSocket handshake.
    Ws,
}

impl Proto {
    /// `http` or `ws`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Ws => "ws",
        }
    }
}

/// `host` in the form in which hosts are compared.
fn normal_host(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let host = host.strip_suffix('.').filter(|host| !host.is_empty()).unwrap_or(host);
    host.to_ascii_lowercase()
}
