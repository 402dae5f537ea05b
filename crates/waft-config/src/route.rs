//! Routes as the native file writes them.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use waft_mongrel2::Pattern;
use waft_route::{
    Condition, HostPattern, JsonPMode, NamedValue, Proto, Route, RouteOptions, SlowClient, SockJs, Source,
};

use crate::section::section;
use crate::settings::{Grip, WebSocket};
use crate::target::TargetEntry;
use crate::value::{CloseCode, Duration, JsonPForm, NotAValue, OrOff, PingMode, RequestKind, SlowReader, as_text};

section! {
    /// What holds for routes that do not say otherwise.
    Defaults {
        /// Put the reason into error responses.
        debug: bool = false;
        /// Automatic cross-origin headers and JSON-P.
        aco: bool = false;
        /// Keep the log of channels, and answer returning listeners from it.
        log: bool = true;
        /// What happens to a client that reads too slowly: `close` (it comes back and catches up) or `drop` (it misses
        /// items; an event stream is told of that).
        slow_client: SlowReader = SlowReader::Close;
        /// Time to connect to a target, before the next one is tried.
        connect_timeout: Duration = Duration::from_secs(5);
        /// Time from the request sent to the head of the response.
        response_head_timeout: OrOff<Duration> = OrOff::Off;
        /// Time between two bytes of a response.
        response_idle_timeout: OrOff<Duration> = OrOff::On(Duration::from_secs(1800));
        /// Origin headers that are let in, as in `https://app.example.com` or `https://*.example.com`. Empty: all.
        origins: Vec<String> = Vec::new();
    }
}

section! {
    /// One route. The table may stand many times; without any, and without `routes_file`, all requests go to the
    /// built-in demonstration.
    RouteEntry {
        /// Host of the request: exact, `*.example.com`, `.example.com` for both, a pattern of Mongrel2 in parentheses as in
        /// `(a+).example.com`, `*` for all that no other route lists, or empty for a route found by id alone.
        host: String = "*".to_owned();
        /// Prefix of the path, percent-encoded.
        path: Option<String> = None, as "\"/api\"";
        /// What the path behind `path` must match, in Mongrel2's pattern language. One with that beginning which does not
        /// match is never left to a shorter `path`.
        path_pattern: Option<PathPattern> = None, as "\".*\"";
        /// Name in logs and statistics.
        id: Option<String> = None, as "\"api\"";
        /// Kind of request, `http` or `ws`. Absent: both.
        proto: Option<RequestKind> = None, as "\"ws\"";
        /// Whether the client must use TLS. Absent: does not matter.
        ssl: Option<bool> = None, as "true";
        /// Whether the client must have shown a certificate of an authority in `client_ca` of its address. Absent: does
        /// not matter.
        client_cert: Option<bool> = None, as "true";
        /// Methods, any of which fits. Empty: all.
        methods: Vec<String> = Vec::new();
        /// Headers that must be there: `Name` or `Name: value`.
        match_headers: Vec<HeaderMatch> = Vec::new();
        /// Query parameters that must be there: `name` or `name=value`.
        match_query: Vec<QueryMatch> = Vec::new();
        /// Targets, the first that can be reached is used: `host:port`, `unix:/path`, `dir:/path`, `test`, `demo`,
        /// `zhttp/SPEC` or `zhttpreq/SPEC`, with parameters as in `localhost:8000,over_http`, or tables as in
        /// `{ address = "localhost:8000", over_http = true }`, `{ dir = "/srv/www", index = "index.html" }` or
        /// `{ handler = "tcp://127.0.0.1:9997", recv = "tcp://127.0.0.1:9996", ident = "app" }`.
        targets: Vec<TargetEntry> = Vec::new();
        /// Instead of `grip.sig_iss`.
        sig_iss: Option<String> = None, as "\"waft\"";
        /// Instead of `grip.sig_key`. Empty: requests are not signed.
        sig_key: Option<String> = None, as "\"base64:c2VjcmV0\"";
        /// Put before the name of every channel that a target names.
        prefix: Option<String> = None, as "\"api-\"";
        /// Send a marked copy of the original request headers.
        orig_headers: bool = false;
        /// Host header sent to targets.
        as_host: Option<String> = None, as "\"internal.example.com\"";
        /// Leading bytes of the path to remove.
        path_rem: usize = 0;
        /// What to put in the place of `path`.
        replace_beg: Option<String> = None, as "\"/v1\"";
        /// Request headers to set, `Name: value`; without a value the header is removed.
        headers: Vec<HeaderLine> = Vec::new();
        /// Instead of `defaults.debug`.
        debug: Option<bool> = None, as "true";
        /// Instead of `defaults.aco`.
        aco: Option<bool> = None, as "true";
        /// Form of JSON-P answers, `extended` or `basic`.
        jsonp_mode: JsonPForm = JsonPForm::Extended;
        /// Query parameter with the name of the JSON-P callback.
        jsonp_cb: String = "callback".to_owned();
        /// Query parameter with the body of a JSON-P request.
        jsonp_body: Option<String> = None, as "\"body\"";
        /// Callback for JSON-P requests that have a body and no callback.
        jsonp_defcb: Option<String> = None, as "\"cb\"";
        /// Method for JSON-P requests that name none.
        jsonp_defmethod: Option<String> = None, as "\"POST\"";
        /// Use the session state service.
        session: bool = false;
        /// Serve SockJS below this path.
        sockjs: Option<String> = None, as "\"/sockjs\"";
        /// Path that targets see for SockJS.
        sockjs_as_path: Option<String> = None, as "\"/ws\"";
        /// Add no GRIP headers, and never act on responses.
        no_grip: bool = false;
        /// Highest log level of request lines: 0 errors, 1 warnings, 2 information, 3 debugging, 4 tracing.
        log_level: Option<u8> = None, as "1";
        /// Instead of `defaults.log`.
        log: Option<bool> = None, as "false";
        /// Instead of `defaults.slow_client`.
        slow_client: Option<SlowReader> = None, as "\"close\"";
        /// Instead of `defaults.connect_timeout`.
        connect_timeout: Option<Duration> = None, as "\"2s\"";
        /// Instead of `defaults.response_head_timeout`.
        response_head_timeout: Option<OrOff<Duration>> = None, as "\"30s\"";
        /// Instead of `defaults.response_idle_timeout`.
        response_idle_timeout: Option<OrOff<Duration>> = None, as "\"5m\"";
        /// Instead of `websocket.ping_interval`.
        ping_interval: Option<OrOff<Duration>> = None, as "\"off\"";
        /// Instead of `websocket.ping_mode`.
        ping_mode: Option<PingMode> = None, as "\"forward\"";
        /// Instead of `websocket.compression`.
        compression: Option<bool> = None, as "true";
        /// Text message for a WebSocket client that has missed items and cannot get them from the log any more.
        /// `{channel}` and `{last-id}` in it become the channel and the last item before the gap, escaped for JSON.
        gap_message: Option<String> = None, as "'{\"gap\": \"{channel}\"}'";
        /// Code to close such a client with, after the message: 1000, 1001, 1008, 1011 to 1014, or 3000 to 4999.
        gap_close: Option<CloseCode> = None, as "4000";
        /// Realm whose clients it is for. Without targets, waft answers all requests itself; with targets it answers those
        /// to `/bayeux`, and the channels that targets name are the realm's.
        realm: Option<String> = None, as "\"default\"";
        /// Instead of `defaults.origins`.
        origins: Option<Vec<String>> = None, as "[\"https://app.example.com\"]";
    }
}

/// The options of a route that sets none.
pub(crate) fn base_options(grip: &Grip, websocket: &WebSocket, defaults: &Defaults) -> RouteOptions {
    let mut options = RouteOptions {
        sig_iss: grip.sig_iss.clone(),
        sig_key: filled(&grip.sig_key),
        debug: defaults.debug,
        aco: defaults.aco,
        log: defaults.log,
        slow_client: defaults.slow_client.into(),
        origins: defaults.origins.clone(),
        ..RouteOptions::default()
    };
    options.timeouts.connect = defaults.connect_timeout.0;
    options.timeouts.response_head = defaults.response_head_timeout.duration();
    options.timeouts.response_idle = defaults.response_idle_timeout.duration();
    options.websocket.ping_interval = websocket.ping_interval.duration();
    options.websocket.answer_pings = websocket.ping_mode == PingMode::Answer;
    options.websocket.compression = websocket.compression;
    options
}

impl RouteEntry {
    /// The route that is meant, where all others have the options of `base`.
    pub(crate) fn to_route(&self, base: &RouteOptions, source: Source) -> Route {
        let condition = Condition {
            host: HostPattern::parse(&self.host),
            proto: self.proto.map(Into::into),
            ssl: self.ssl,
            client_cert: self.client_cert,
            path_beg: self.path.clone().filter(|path| !path.is_empty()),
            path_pattern: self.path_pattern.clone().map(|pattern| pattern.0),
            methods: self.methods.clone(),
            headers: self.match_headers.iter().map(|wanted| wanted.0.clone()).collect(),
            query: self.match_query.iter().map(|wanted| wanted.0.clone()).collect(),
        };
        let mut route = Route::new(condition, self.targets.iter().map(|target| target.0.clone()).collect());
        route.source = source;
        if let Some(id) = self.id.as_ref().filter(|id| !id.is_empty()) {
            route.id = id.as_str().into();
            route.explicit_id = true;
        }
        route.options = self.options(base);
        route
    }

    fn options(&self, base: &RouteOptions) -> RouteOptions {
        let mut options = base.clone();
        set(&mut options.sig_iss, self.sig_iss.clone());
        set(&mut options.sig_key, self.sig_key.as_deref().map(filled));
        set(&mut options.prefix, self.prefix.clone());
        set(&mut options.debug, self.debug);
        set(&mut options.aco, self.aco);
        set(&mut options.log, self.log);
        set(&mut options.slow_client, self.slow_client.map(Into::into));
        set(&mut options.origins, self.origins.clone());
        set(&mut options.timeouts.connect, self.connect_timeout.map(|timeout| timeout.0));
        set(&mut options.timeouts.response_head, self.response_head_timeout.map(OrOff::duration));
        set(&mut options.timeouts.response_idle, self.response_idle_timeout.map(OrOff::duration));
        set(&mut options.websocket.ping_interval, self.ping_interval.map(OrOff::duration));
        set(&mut options.websocket.answer_pings, self.ping_mode.map(|mode| mode == PingMode::Answer));
        set(&mut options.websocket.compression, self.compression);
        options.websocket.gap.message.clone_from(&self.gap_message);
        options.websocket.gap.close = self.gap_close.map(|code| code.0);
        options.orig_headers = self.orig_headers;
        options.as_host.clone_from(&self.as_host);
        options.path_rem = self.path_rem;
        options.replace_beg.clone_from(&self.replace_beg);
        options.headers = self.headers.iter().map(|line| (line.name.clone(), line.value.clone())).collect();
        options.jsonp.mode = self.jsonp_mode.into();
        options.jsonp.callback_param.clone_from(&self.jsonp_cb);
        options.jsonp.body_param.clone_from(&self.jsonp_body);
        options.jsonp.default_callback.clone_from(&self.jsonp_defcb);
        options.jsonp.default_method.clone_from(&self.jsonp_defmethod);
        options.session = self.session;
        options.sockjs = self.sockjs.clone().map(|path| SockJs { path, as_path: self.sockjs_as_path.clone() });
        options.no_grip = self.no_grip;
        options.log_level = self.log_level;
        if let Some(realm) = &self.realm {
            options.prefix = waft_realm::channel_prefix(realm) + &options.prefix;
            options.realm = Some(realm.as_str().into());
        }
        options
    }

    /// The entry that means `route`, where all others have the options of `base`.
    pub(crate) fn from_route(route: &Route, base: &RouteOptions) -> Self {
        let condition = &route.condition;
        let options = &route.options;
        let or_off = |duration: Option<std::time::Duration>| duration.map_or(OrOff::Off, |it| OrOff::On(Duration(it)));
        let pings = |answered| if answered { PingMode::Answer } else { PingMode::Forward };
        let (timeouts, ws) = (&options.timeouts, &options.websocket);
        Self {
            host: condition.host.to_string(),
            path: condition.path_beg.clone(),
            path_pattern: condition.path_pattern.clone().map(PathPattern),
            id: route.shown_id().map(ToString::to_string),
            proto: condition.proto.map(Into::into),
            ssl: condition.ssl,
            client_cert: condition.client_cert,
            methods: condition.methods.clone(),
            match_headers: condition.headers.iter().cloned().map(HeaderMatch).collect(),
            match_query: condition.query.iter().cloned().map(QueryMatch).collect(),
            targets: route.targets.iter().cloned().map(TargetEntry).collect(),
            sig_iss: changed(&options.sig_iss, &base.sig_iss),
            sig_key: changed(&options.sig_key, &base.sig_key).map(Option::unwrap_or_default),
            prefix: changed(&plain_prefix(options), &base.prefix),
            orig_headers: options.orig_headers,
            as_host: options.as_host.clone(),
            path_rem: options.path_rem,
            replace_beg: options.replace_beg.clone(),
            headers: options
                .headers
                .iter()
                .map(|(name, value)| HeaderLine { name: name.clone(), value: value.clone() })
                .collect(),
            debug: changed(&options.debug, &base.debug),
            aco: changed(&options.aco, &base.aco),
            jsonp_mode: options.jsonp.mode.into(),
            jsonp_cb: options.jsonp.callback_param.clone(),
            jsonp_body: options.jsonp.body_param.clone(),
            jsonp_defcb: options.jsonp.default_callback.clone(),
            jsonp_defmethod: options.jsonp.default_method.clone(),
            session: options.session,
            sockjs: options.sockjs.as_ref().map(|sockjs| sockjs.path.clone()),
            sockjs_as_path: options.sockjs.as_ref().and_then(|sockjs| sockjs.as_path.clone()),
            no_grip: options.no_grip,
            log_level: options.log_level,
            log: changed(&options.log, &base.log),
            slow_client: changed(&options.slow_client, &base.slow_client).map(Into::into),
            connect_timeout: changed(&timeouts.connect, &base.timeouts.connect).map(Duration),
            response_head_timeout: changed(&timeouts.response_head, &base.timeouts.response_head).map(or_off),
            response_idle_timeout: changed(&timeouts.response_idle, &base.timeouts.response_idle).map(or_off),
            ping_interval: changed(&ws.ping_interval, &base.websocket.ping_interval).map(or_off),
            ping_mode: changed(&ws.answer_pings, &base.websocket.answer_pings).map(pings),
            compression: changed(&ws.compression, &base.websocket.compression),
            gap_message: ws.gap.message.clone(),
            gap_close: ws.gap.close.map(CloseCode),
            realm: options.realm.as_deref().map(str::to_owned),
            origins: changed(&options.origins, &base.origins),
        }
    }
}

/// What the rest of a path must match, in Mongrel2's language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern(pub Pattern);

impl Serialize for PathPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Pattern::new(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

/// The prefix of a route as it was written.
fn plain_prefix(options: &RouteOptions) -> String {
    let own = options.realm.as_deref().map(waft_realm::channel_prefix).unwrap_or_default();
    options.prefix.strip_prefix(own.as_str()).unwrap_or(&options.prefix).to_owned()
}

/// A request header that a route sets, `Name: value`; without a value the header is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderLine {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A header that a request must carry, `Name` or `Name: value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch(pub NamedValue);

/// A query parameter that a request must carry, `name` or `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch(pub NamedValue);

as_text! {
    HeaderLine => "a header such as \"Name: value\"",
    HeaderMatch => "a header such as \"Name\" or \"Name: value\"",
    QueryMatch => "a query parameter such as \"name\" or \"name=value\"",
}

impl FromStr for HeaderLine {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        let (name, value) = text.split_once(':').ok_or(NotAValue)?;
        let name = name.trim();
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
        let is_value = value.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7f));
        let line = Self { name: name.to_owned(), value: value.trim().to_owned() };
        if is_name && is_value { Ok(line) } else { Err(NotAValue) }
    }
}

impl fmt::Display for HeaderLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.value)
    }
}

impl FromStr for HeaderMatch {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        named(text, ':').map(|(name, value)| Self(NamedValue { name, value: value.map(|v| v.trim().to_owned()) }))
    }
}

impl fmt::Display for HeaderMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)?;
        self.0.value.as_ref().map_or(Ok(()), |value| write!(f, ": {value}"))
    }
}

impl FromStr for QueryMatch {
    type Err = NotAValue;

    fn from_str(text: &str) -> Result<Self, NotAValue> {
        named(text, '=').map(|(name, value)| Self(NamedValue { name, value: value.map(ToOwned::to_owned) }))
    }
}

impl fmt::Display for QueryMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)?;
        self.0.value.as_ref().map_or(Ok(()), |value| write!(f, "={value}"))
    }
}

fn named(text: &str, separator: char) -> Result<(String, Option<&str>), NotAValue> {
    let (name, value) = text.split_once(separator).map_or((text, None), |(name, value)| (name, Some(value)));
    let name = name.trim();
    if name.is_empty() { Err(NotAValue) } else { Ok((name.to_owned(), value)) }
}

/// Defines the way between a word of the configuration and what routes know it as.
macro_rules! alike {
    ($word:ident, $known:ident, $($variant:ident),+) => {
        impl From<$word> for $known {
            fn from(word: $word) -> Self {
                match word { $( $word::$variant => Self::$variant, )+ }
            }
        }

        impl From<$known> for $word {
            fn from(known: $known) -> Self {
                match known { $( $known::$variant => Self::$variant, )+ }
            }
        }
    };
}

alike!(RequestKind, Proto, Http, Ws);
alike!(JsonPForm, JsonPMode, Basic, Extended);
alike!(SlowReader, SlowClient, Close, Drop);

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn changed<T: Clone + PartialEq>(value: &T, base: &T) -> Option<T> {
    (value != base).then(|| value.clone())
}

/// `text`, unless it is empty.
fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
