//! Requests as targets see them: every one is built anew, nothing is copied through unread.

use std::borrow::Cow;
use std::sync::Arc;

use waft_grip::feature;
use waft_http1::{Framing, HeadWriter, RequestHead, is_hop_by_hop};
use waft_net::PeerAddr;
use waft_route::{Route, Target, TargetAddress};

use crate::settings::{Forward, ForwardedFor, SchemeHeaders};

/// Prefix of the marked copies of original headers.
const ORIGINAL: &str = "eb9bf0f5-";

/// What a request to a target is made from.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) head: &'a RequestHead,
    pub(crate) route: &'a Route,
    pub(crate) target: &'a Target,
    pub(crate) forward: &'a Forward,
    pub(crate) peer: &'a PeerAddr,
    pub(crate) secure: bool,
    /// The client is a GRIP proxy in front of this one.
    pub(crate) trusted: bool,
    pub(crate) signature: Option<Arc<str>>,
    /// Positions to tell: channel (as the target calls it) and id.
    pub(crate) last: &'a [(String, String)],
}

/// Which headers a request loses on its way, by what they mean.
fn is_dropped(name: &str) -> bool {
    match name.len() {
        4 => name.eq_ignore_ascii_case("host"),
        6 => name.eq_ignore_ascii_case("expect"),
        14 => name.eq_ignore_ascii_case("content-length"),
        _ => is_hop_by_hop(name),
    }
}

/// Whether `name` begins with `prefix`, in any case.
pub(crate) fn begins_with(name: &str, prefix: &str) -> bool {
    name.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// [`begins_with`] for names that a target may read with either `-` or `_`, as many do.
fn may_pass_for(name: &str, prefix: &str) -> bool {
    let start = name.as_bytes().get(..prefix.len());
    let same = |(byte, wanted): (&u8, u8)| byte.eq_ignore_ascii_case(&wanted) || (*byte == b'_' && wanted == b'-');
    start.is_some_and(|start| start.iter().zip(prefix.bytes()).all(same))
}

impl Outgoing<'_> {
    /// Whether GRIP is spoken with the target.
    pub(crate) fn is_grip(&self) -> bool {
        !self.trusted && !self.route.options.no_grip
    }

    /// Writes the request head.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut writer = HeadWriter::new(out);
        writer.request_line(self.head.method(), &self.path());
        self.write_fields(&mut writer, is_dropped);
        if self.is_grip() {
            if let Some(signature) = &self.signature {
                writer.field("Grip-Sig", signature.as_bytes());
            }
            writer.field("Grip-Feature", feature::FEATURES);
        }
        for (channel, id) in self.last {
            if let Some(last) = feature::last(channel, id) {
                writer.field(feature::LAST, last);
            }
        }
        match self.head.framing() {
            Framing::Length(length) => {
                writer.content_length(length);
            }
            Framing::Chunked => {
                writer.field("Transfer-Encoding", "chunked");
            }
            Framing::None | Framing::UntilClose => {
                // Methods that usually carry a body say so when they have none.
                if matches!(self.head.method(), "POST" | "PUT" | "PATCH") {
                    writer.content_length(0);
                }
            }
        }
        writer.finish();
    }

    /// Writes the fields that come from the client and the route, without those that `is_dropped`.
    pub(crate) fn write_fields(&self, writer: &mut HeadWriter<'_>, is_dropped: fn(&str) -> bool) {
        let options = &self.route.options;
        writer.field("Host", self.host().as_bytes());
        for (name, value) in self.head.end_to_end_fields() {
            if !is_dropped(name) && !self.is_replaced(name) {
                writer.field(name, value);
            }
        }
        for (name, value) in &options.headers {
            if !value.is_empty() && !name.eq_ignore_ascii_case("host") {
                writer.field(name, value);
            }
        }
        if options.orig_headers && !self.trusted {
            self.write_originals(writer);
        }
        self.write_forwarded(writer);
    }

    /// Whether something else takes the place of a header of the client.
    fn is_replaced(&self, name: &str) -> bool {
        let options = &self.route.options;
        let first = name.as_bytes().first().map_or(0, u8::to_ascii_lowercase);
        let replaced = match first {
            b'a' => self.is_grip() && name.eq_ignore_ascii_case("accept-encoding"),
            b'g' => !self.trusted && may_pass_for(name, "grip-"),
            b'p' => name.eq_ignore_ascii_case("pushpin-route"),
            // Marked headers survive only where marking is on, and then as they are.
            b'e' => !options.orig_headers && may_pass_for(name, ORIGINAL),
            b'c' => !self.forward.cdn_loop.is_empty() && name.eq_ignore_ascii_case("cdn-loop"),
            b'x' => {
                let scheme = self.forward.accept_scheme || self.forward.set_scheme != SchemeHeaders::None;
                (scheme
                    && (name.eq_ignore_ascii_case("x-forwarded-proto")
                        || name.eq_ignore_ascii_case("x-forwarded-protocol")))
                    || (self.forwarded_for() != ForwardedFor::default() && name.eq_ignore_ascii_case("x-forwarded-for"))
            }
            _ => false,
        };
        replaced || options.headers.iter().any(|(set, _)| set.eq_ignore_ascii_case(name))
    }

    fn forwarded_for(&self) -> ForwardedFor {
        self.forward.rule(self.trusted)
    }

    /// Writes the marked copies: of the headers as they are after the route has set its own.
    fn write_originals(&self, writer: &mut HeadWriter<'_>) {
        let set = &self.route.options.headers;
        let sent =
            self.head.fields().filter(|(name, _)| !set.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)));
        let set =
            set.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).filter(|(_, value)| !value.is_empty());
        for (name, value) in sent.chain(set) {
            let needs_mark = self.forward.orig_headers_need_mark.iter().any(|listed| listed.eq_ignore_ascii_case(name));
            if !begins_with(name, ORIGINAL) && !needs_mark {
                writer.field(format!("{ORIGINAL}{name}"), value);
            }
        }
    }

    fn write_forwarded(&self, writer: &mut HeadWriter<'_>) {
        if self.secure {
            let scheme = if self.head.upgrade().is_some() { "wss" } else { "https" };
            if self.forward.set_scheme != SchemeHeaders::None {
                writer.field("X-Forwarded-Proto", scheme);
            }
            if self.forward.set_scheme == SchemeHeaders::Both {
                writer.field("X-Forwarded-Protocol", scheme);
            }
        }
        let rule = self.forwarded_for();
        if rule != ForwardedFor::default() {
            let mut values = list_of(self.head, "x-forwarded-for");
            if let Some(keep) = rule.truncate {
                values.drain(..values.len().saturating_sub(keep));
            }
            if rule.append {
                values.push(self.peer.to_string());
            }
            if !values.is_empty() {
                writer.field("X-Forwarded-For", values.join(", "));
            }
        }
        if !self.forward.cdn_loop.is_empty() {
            let mut values = list_of(self.head, "cdn-loop");
            values.push(self.forward.cdn_loop.clone());
            writer.field("CDN-Loop", values.join(", "));
        }
    }

    /// The path and query the target is asked for.
    pub(crate) fn path(&self) -> Cow<'_, str> {
        rewritten(self.route, self.head.path_and_query())
    }

    /// The value of the Host header.
    pub(crate) fn host(&self) -> Cow<'_, str> {
        host(self.target, self.route, self.head)
    }
}

/// The Host header that a target gets.
fn host<'a>(target: &'a Target, route: &'a Route, head: &'a RequestHead) -> Cow<'a, str> {
    if let Some(host) = target.host.as_deref().or(route.options.as_host.as_deref()) {
        return host.into();
    }
    if let Some(host) = head.authority() {
        return host.into();
    }
    match &target.address {
        TargetAddress::Http { .. } => target.address.to_string().into(),
        _ => "localhost".into(),
    }
}

/// What a target that is spoken to by TLS has to prove that it is. None for a target without TLS.
pub(crate) fn proved_name(target: &Target, route: &Route, head: &RequestHead) -> Option<Box<str>> {
    target.ssl.then(|| proved_host(target, &host(target, route, head)))
}

/// The same for a request with this Host header: it is that host, unless the target is trusted to be the one by whose
/// name it is reached.
pub(crate) fn proved_host(target: &Target, host: &str) -> Box<str> {
    if let (true, TargetAddress::Http { host, .. }) = (target.trust_connect_host, &target.address) {
        return host.as_str().into();
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.to_ascii_lowercase().into()
}

/// A path as a route presents it to its targets.
pub(crate) fn rewritten<'a>(route: &Route, path: &'a str) -> Cow<'a, str> {
    let options = &route.options;
    if let Some(replacement) = &options.replace_beg {
        let prefix = route.condition.path_beg.as_deref().unwrap_or_default();
        return match path.strip_prefix(prefix) {
            Some(rest) => format!("{replacement}{rest}").into(),
            None => path.into(),
        };
    }
    if options.path_rem > 0 {
        // The query is no part of the path, however many bytes are to be removed.
        let end = memchr::memchr(b'?', path.as_bytes()).unwrap_or(path.len());
        let rest = path.get(options.path_rem.min(end)..).unwrap_or_default();
        return if rest.starts_with('/') { rest.into() } else { format!("/{rest}").into() };
    }
    path.into()
}

/// The members of a list header, over all its lines.
fn list_of(head: &RequestHead, name: &str) -> Vec<String> {
    head.fields_named(name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|member| String::from_utf8_lossy(member).trim().to_owned())
        .filter(|member| !member.is_empty())
        .collect()
}
