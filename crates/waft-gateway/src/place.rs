//! What links are relative to, and whether they lead away from the client's own origin.

use std::sync::Arc;

use url::{Origin, Url};
use waft_http1::RequestHead;

/// What a relative link is relative to: the URI of the client's request, or of the link that was followed last.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Base {
    url: Option<Url>,
    /// The origin of the client's own request.
    home: Arc<str>,
}

impl Base {
    /// The URI of a client's request, as the client knows it.
    pub(crate) fn of(head: &RequestHead, secure: bool) -> Self {
        Self::parse(&uri_of(head, secure))
    }

    /// A request's URI in the form of [`uri_of`].
    pub(crate) fn parse(uri: &str) -> Self {
        let url = Url::parse(uri).ok();
        let home = url.as_ref().map_or_else(|| Arc::from(""), |url| origin(url).into());
        Self { url, home }
    }

    /// The URI that a link means. WebSocket schemes become those of HTTP.
    pub(crate) fn join(&self, link: &str) -> Option<Self> {
        let url = match &self.url {
            Some(base) => base.join(link).ok(),
            None => Url::parse(link).ok(),
        };
        let mut url = url?;
        let plain = match url.scheme() {
            "ws" => Some("http"),
            "wss" => Some("https"),
            _ => None,
        };
        if let (Some(plain), Some((_, rest))) = (plain, url.as_str().split_once(':')) {
            url = Url::parse(&format!("{plain}:{rest}")).ok()?;
        }
        url.set_fragment(None);
        Some(Self { url: Some(url), home: Arc::clone(&self.home) })
    }

    /// Whether this place is where the client's own request went, so that its route leads there.
    pub(crate) fn is_home(&self) -> bool {
        self.url.as_ref().is_some_and(|url| *origin(url) == *self.home)
    }

    /// Whether this is a place that can be asked over HTTP.
    pub(crate) fn is_http(&self) -> bool {
        self.url.as_ref().is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
    }

    /// The whole URI.
    pub(crate) fn as_str(&self) -> &str {
        self.url.as_ref().map_or("", Url::as_str)
    }

    /// The path and query.
    pub(crate) fn path_and_query(&self) -> String {
        let Some(url) = &self.url else { return "/".to_owned() };
        match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        }
    }

    /// Host and port for the Host field.
    pub(crate) fn authority(&self) -> String {
        let Some(url) = &self.url else { return "localhost".to_owned() };
        let host = url.host_str().unwrap_or("localhost");
        match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// The URI of a client's request, as the client knows it.
pub(crate) fn uri_of(head: &RequestHead, secure: bool) -> String {
    let scheme = if secure { "https" } else { "http" };
    let host = head.authority().unwrap_or("localhost");
    format!("{scheme}://{host}{}", head.path_and_query())
}

fn origin(url: &Url) -> String {
    match url.origin() {
        Origin::Opaque(_) => String::new(),
        tuple @ Origin::Tuple(..) => tuple.ascii_serialization(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_joined_and_know_their_home() {
        let base = Base::parse("http://example.com/a/b?c");
        let check = |link: &str, expected: Option<(&str, bool)>| {
            let joined = base.join(link);
            assert_eq!(joined.as_ref().map(|place| (place.as_str(), place.is_home())), expected, "{link}");
        };
        check("/x?y#z", Some(("http://example.com/x?y", true)));
        check("x", Some(("http://example.com/a/x", true)));
        check("http://EXAMPLE.com:80/x", Some(("http://example.com/x", true)));
        check("ws://example.com/x", Some(("http://example.com/x", true)));
        check("wss://example.com/x", Some(("https://example.com/x", false)));
        check("//other/x", Some(("http://other/x", false)));
        check("http://example.com:81/", Some(("http://example.com:81/", false)));
        check("data:x", Some(("data:x", false)));
        check("http://[", None);
    }

    #[test]
    fn a_page_from_elsewhere_does_not_move_the_home() {
        let away = Base::parse("http://example.com/a").join("http://other/b").unwrap();
        assert!(!away.join("c").unwrap().is_home());
        assert!(away.join("http://example.com/").unwrap().is_home());
    }
}
