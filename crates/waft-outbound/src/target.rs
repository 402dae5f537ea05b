//! The one parser for the addresses of calls: everything that judges, resolves, connects or writes a
//! request uses its result.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Longest URL in bytes: what servers commonly accept.
pub const URL_SIZE_MAX: usize = 8_192;

/// Longest host name in bytes (RFC 1035 section 2.3.4).
const HOST_SIZE_MAX: usize = 253;

/// An absolute `http`, `https`, `ws` or `wss` URL in its canonical form.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// The scheme.
    pub scheme: Scheme,
    /// User and password, still percent-encoded, if the URL has them.
    pub userinfo: Option<String>,
    /// The host.
    pub host: Host,
    /// The port, the scheme's own if the URL names none.
    pub port: u16,
    /// Path and query as they are sent: never empty, no fragment.
    pub path: String,
}

/// The schemes that can be called.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Scheme {
    /// HTTP.
    Http,
    /// HTTP over TLS.
    Https,
    /// WebSocket.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

/// Where to call: an address, or a name to be resolved.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Host {
    /// An address, however it was written: `0x7f.1` is 127.0.0.1.
    Address(IpAddr),
    /// A name in lower-case ASCII, without a trailing dot.
    Name(String),
}

/// Why a text is no target.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// A control character, blank, backslash, or another character that no URL may have.
    #[error("the url has the forbidden byte {byte:#04x}")]
    Byte {
        /// The byte.
        byte: u8,
    },
    /// The host is empty, malformed, or a number that is no address.
    #[error("the url's host is not valid")]
    Host,
    /// Longer than [`URL_SIZE_MAX`].
    #[error("the url is longer than {URL_SIZE_MAX} bytes")]
    Length,
    /// The port is 0 or no number up to 65535.
    #[error("the url's port is not valid")]
    Port,
    /// The scheme is missing or is none of the four.
    #[error("the url's scheme is none of http, https, ws and wss")]
    Scheme,
}

impl Target {
    /// Reads an absolute URL.
    pub fn parse(url: &[u8]) -> Result<Self, TargetError> {
        let url = screen(url)?;
        let (scheme, rest) = url.split_once("://").ok_or(TargetError::Scheme)?;
        let scheme = Scheme::parse(scheme).ok_or(TargetError::Scheme)?;
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (userinfo, host) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo.to_owned()), host),
            None => (None, authority),
        };
        let (host, port) = split_port(host)?;
        Ok(Self {
            scheme,
            userinfo,
            host: Host::parse(host)?,
            port: port.unwrap_or_else(|| scheme.port()),
            path: sent_path(path),
        })
    }

    /// Reads the `Location` of a redirect from this target: absolute or relative.
    pub fn join(&self, location: &[u8]) -> Result<Self, TargetError> {
        let text = screen(location)?;
        let text = text.split_once('#').map_or(text, |(before, _)| before);
        let has_scheme = text.find(':').is_some_and(|colon| colon < text.find(['/', '?']).unwrap_or(text.len()));
        if has_scheme {
            return Self::parse(location);
        }
        if let Some(authority) = text.strip_prefix("//") {
            return Self::parse(format!("{}://{authority}", self.scheme.as_str()).as_bytes());
        }
        let path = self.path.split_once('?').map_or(self.path.as_str(), |(path, _)| path);
        let joined = if text.starts_with('/') {
            text.to_owned()
        } else if text.starts_with('?') {
            format!("{path}{text}")
        } else if text.is_empty() {
            self.path.clone()
        } else {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{folder}/{text}")
        };
        Ok(Self { path: without_dots(&sent_path(&joined)), userinfo: None, ..self.clone() })
    }

    /// The value of the Host field: without the port if it is the scheme's own.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.port() { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Whether credentials meant for `self` may be sent to `other`.
    pub fn same_origin(&self, other: &Self) -> bool {
        (self.scheme, &self.host, self.port) == (other.scheme, &other.host, other.port)
    }
}

impl fmt::Display for Target {
    /// The URL without user and password, which belong into no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority(), self.path)
    }
}

impl Scheme {
    fn parse(word: &str) -> Option<Self> {
        [Self::Http, Self::Https, Self::Ws, Self::Wss]
            .into_iter()
            .find(|scheme| scheme.as_str().eq_ignore_ascii_case(word))
    }

    /// The scheme in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// The port of the scheme.
    pub fn port(self) -> u16 {
        if self.is_tls() { 443 } else { 80 }
    }

    /// Whether TLS is spoken.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Wss)
    }

    /// Whether a WebSocket is wanted.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

impl Host {
    /// Reads a host: a name of any script, an IPv4 address in any of the forms that resolvers take, or an
    /// IPv6 address in brackets.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        // Percent-encoded names would be read twice, differently.
        if text.is_empty() || text.contains(['%', '@', '/', '?', '#']) {
            return Err(TargetError::Host);
        }
        match url::Host::parse(text).map_err(|_cause| TargetError::Host)? {
            url::Host::Ipv4(address) => Ok(Self::Address(address.into())),
            url::Host::Ipv6(address) => Ok(Self::Address(canonical(address.into()))),
            url::Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase();
                // A number with a trailing dot is an address as well.
                if let Ok(url::Host::Ipv4(address)) = url::Host::parse(&name) {
                    return Ok(Self::Address(address.into()));
                }
                let label_is_valid = |label: &str| {
                    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                    (1..=63).contains(&label.len()) && label.bytes().all(allowed)
                };
                let is_valid = name.len() <= HOST_SIZE_MAX && name.split('.').all(label_is_valid);
                if is_valid { Ok(Self::Name(name)) } else { Err(TargetError::Host) }
            }
        }
    }

    /// Reads a host that stands alone, as in `connect-host`: an IPv6 address needs no brackets.
    pub fn parse_bare(text: &[u8]) -> Result<Self, TargetError> {
        let text = screen(text)?;
        match text.parse::<Ipv6Addr>() {
            Ok(address) => Ok(Self::Address(canonical(address.into()))),
            Err(_) => Self::parse(text),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// An IPv4-mapped address is that IPv4 address: the kernel connects to it as such.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Refuses bytes that parsers are known to disagree about.
fn screen(url: &[u8]) -> Result<&str, TargetError> {
    if url.len() > URL_SIZE_MAX {
        return Err(TargetError::Length);
    }
    let forbidden = |byte: &&u8| byte.is_ascii_control() || b" \\\"<>^`{|}".contains(byte);
    if let Some(&byte) = url.iter().find(forbidden) {
        return Err(TargetError::Byte { byte });
    }
    std::str::from_utf8(url).map_err(|_cause| TargetError::Byte { byte: 0xff })
}

fn split_port(host: &str) -> Result<(&str, Option<u16>), TargetError> {
    let after_bracket = host.rfind(']').map_or(0, |bracket| bracket + 1);
    let tail = host.get(after_bracket..).unwrap_or_default();
    if after_bracket > 0 && !tail.is_empty() && !tail.starts_with(':') {
        return Err(TargetError::Host);
    }
    let Some((before, port)) = tail.rsplit_once(':') else { return Ok((host, None)) };
    let host = host.get(..after_bracket + before.len()).unwrap_or_default();
    if port.is_empty() {
        return Ok((host, None));
    }
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port != 0).ok_or(TargetError::Port)?;
    Ok((host, Some(port)))
}

/// Path and query for the request line: begins with a slash, other scripts are percent-encoded.
fn sent_path(path: &str) -> String {
    let mut sent = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        sent.push('/');
    }
    for byte in path.bytes() {
        if byte.is_ascii() {
            sent.push(char::from(byte));
        } else {
            sent.push_str(&format!("%{byte:02X}"));
        }
    }
    sent
}

/// RFC 3986 section 5.2.4, for the result of a relative reference.
fn without_dots(path: &str) -> String {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    let mut joined = format!("/{}", kept.join("/"));
    if let Some(query) = query {
        joined.push('?');
        joined.push_str(query);
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(url: &str, expected: Result<&str, TargetError>) {
        let target = Target::parse(url.as_bytes()).map(|target| target.to_string());
        assert_eq!(target.as_deref().map_err(|error| *error), expected, "{url}");
    }

    #[test]
    fn targets_are_read_in_one_form() {
        check("http://example.com", Ok("http://example.com/"));
        check("HTTPS://EXAMPLE.com:443/a?b#c", Ok("https://example.com/a?b"));
        check("ws://example.com:80/", Ok("ws://example.com/"));
        check("wss://example.com:8443?x", Ok("wss://example.com:8443/?x"));
        check("http://example.com./", Ok("http://example.com/"));
        check("http://user:secret@example.com/", Ok("http://example.com/"));
        check("http://a_b.example.com:/", Ok("http://a_b.example.com/"));
        check("http://BÜCHER.example/ü", Ok("http://xn--bcher-kva.example/%C3%BC"));
        check("http://[::ffff:10.0.0.1]/", Ok("http://10.0.0.1/"));
        check("http://[2001:DB8::1]:81/", Ok("http://[2001:db8::1]:81/"));
        for loopback in
            ["127.1", "2130706433", "0x7f000001", "017700000001", "0x7f.1", "127.0.0.1.", "１２７。０。０。１"]
        {
            check(&format!("http://{loopback}/"), Ok("http://127.0.0.1/"));
        }
    }

    #[test]
    fn what_parsers_disagree_about_is_refused() {
        for (byte, url) in [
            (b' ', "http://example.com/a b"),
            (b'\\', "http://example.com\\@127.0.0.1/"),
            (b'\r', "http://example.com/\r\nX: y"),
            (b'\t', "http://exa\tmple.com/"),
            (b'{', "http://example.com/{}"),
            (0, "http://example.com/\0"),
        ] {
            check(url, Err(TargetError::Byte { byte }));
        }
        for url in
            ["", "example.com/", "//example.com/", "ftp://example.com/", "file:///etc/passwd", "http:/example.com"]
        {
            check(url, Err(TargetError::Scheme));
        }
        for host in [
            "",
            ":80",
            "a..b",
            ".a",
            "127.0.0.1.5",
            "256.0.0.1",
            "0x100000000",
            "foo.1",
            "[::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "exa%6dple.com",
            "[]",
            "[127.0.0.1]",
            "::1",
            "a,b",
            "-.a..",
            &"a.".repeat(130),
        ] {
            check(&format!("http://{host}/"), Err(TargetError::Host));
        }
        for port in ["0", "65536", "-1", "+80", "8o", "80:80x"] {
            check(&format!("http://example.com:{port}/"), Err(TargetError::Port));
        }
        check(&format!("http://a/{}", "x".repeat(URL_SIZE_MAX)), Err(TargetError::Length));
    }

    #[test]
    fn locations_are_joined() {
        let base = Target::parse(b"http://example.com:81/a/b?c").unwrap();
        for (location, expected) in [
            ("/x", "http://example.com:81/x"),
            ("x?y#z", "http://example.com:81/a/x?y"),
            ("../x", "http://example.com:81/x"),
            ("../../../x/.", "http://example.com:81/x/"),
            ("?y", "http://example.com:81/a/b?y"),
            ("", "http://example.com:81/a/b?c"),
            ("//other/x", "http://other/x"),
            ("https://other/x:y", "https://other/x:y"),
            ("/x:y", "http://example.com:81/x:y"),
        ] {
            assert_eq!(base.join(location.as_bytes()).unwrap().to_string(), expected, "{location}");
        }
        assert_eq!(base.join(b"ftp://example.com/"), Err(TargetError::Scheme));
        assert_eq!(base.join(b"javascript:alert(1)"), Err(TargetError::Scheme));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_read_is_stable(url in proptest::collection::vec(any::<u8>(), 0..60), prefix: bool) {
            let url = if prefix { [b"http://", &url[..]].concat() } else { url };
            if let Ok(target) = Target::parse(&url) {
                prop_assert_eq!(Target::parse(target.to_string().as_bytes()), Ok(Target { userinfo: None, ..target.clone() }));
                target.join(&url).ok();
            }
        }

        #[test]
        fn addresses_of_any_spelling_are_addresses(number: u32) {
            let address = std::net::Ipv4Addr::from(number);
            let [a, b, c, d] = address.octets();
            let low = number & 0xff_ffff;
            for spelling in [
                number.to_string(), format!("{number:#x}"), format!("0{number:o}"), format!("{a}.{low}"),
                format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"), format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"), format!("[::ffff:{address}]"),
            ] {
                prop_assert_eq!(Host::parse(&spelling), Ok(Host::Address(address.into())), "{}", spelling);
            }
        }
    }
}
