//! JSON-P: requests that a page makes by loading a script, and the script that answers them.
//!
//! [`read`] finds out what request a script URL stands for, and [`Call`] makes the script from a response. Nothing
//! here waits or reads: bytes in, bytes out.

use std::borrow::Cow;

use url::form_urlencoded;
use waft_http1::{Fields, HeadLimits, Parsed, RequestHead, Version, is_hop_by_hop, parse_request};
use waft_route::{JsonP, JsonPMode};

/// The function call that a response becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    callback: Box<str>,
    mode: JsonPMode,
}

/// The request that a script URL stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Meant {
    pub(crate) call: Call,
    pub(crate) head: RequestHead,
    pub(crate) body: Vec<u8>,
}

/// What is wrong with a script URL, as the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    Callback,
    Method,
    Headers,
}

impl Mistake {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Callback => "Invalid callback parameter.",
            Self::Method => "Invalid _method parameter.",
            Self::Headers => "Invalid _headers parameter.",
        }
    }
}

/// Longest name of a callback, in bytes: generated ones have about 40.
const CALLBACK_MAX: usize = 256;

/// The parameters of a script URL that this gateway takes for itself.
#[derive(Debug, Default)]
struct Params {
    callback: Option<String>,
    method: Option<String>,
    headers: Option<String>,
    body: Option<String>,
    /// The rest of the query, as it was.
    rest: Vec<String>,
}

/// What request `head` stands for, if it asks for JSON-P.
///
/// # Errors
/// [`Mistake`], for an answer with status 400.
pub(crate) fn read(head: &RequestHead, options: &JsonP) -> Result<Option<Meant>, Mistake> {
    if head.method() != "GET" {
        return Ok(None);
    }
    let Some(query) = head.query() else { return Ok(None) };
    let params = Params::read(query, options);
    let callback = match (params.callback.as_deref(), &options.default_callback) {
        (Some(callback), _) => callback,
        (None, Some(default)) if options.body_param.is_some() && params.body.is_some() => default,
        (None, _) => return Ok(None),
    };
    if !is_callback(callback) {
        return Err(Mistake::Callback);
    }
    let call = Call { callback: callback.into(), mode: options.mode };
    let default_method = options.default_method.as_deref().unwrap_or(match options.mode {
        JsonPMode::Basic => "POST",
        JsonPMode::Extended => "GET",
    });
    let method = params.method.as_deref().unwrap_or(default_method);
    if !is_method(method) {
        return Err(Mistake::Method);
    }
    let given = match &params.headers {
        Some(text) => headers(text).ok_or(Mistake::Headers)?,
        None => Vec::new(),
    };
    let body = params.body.unwrap_or_default().into_bytes();
    let json = options.body_param.is_some();
    let bytes = request(head, method, &params.rest, &given, (&body, json));
    let unlimited = HeadLimits { bytes_max: usize::MAX, target_max: usize::MAX, fields_max: usize::MAX };
    match parse_request(&bytes, &unlimited) {
        Ok(Parsed::Complete { head, .. }) => Ok(Some(Meant { call, head, body })),
        Ok(Parsed::Partial) | Err(_) => Err(Mistake::Headers),
    }
}

impl Params {
    fn read(query: &str, options: &JsonP) -> Self {
        let mut params = Self::default();
        let body = options.body_param.as_deref().unwrap_or("_body");
        for item in query.split('&') {
            let Some((name, value)) = form_urlencoded::parse(item.as_bytes()).next() else { continue };
            let place = match &*name {
                name if name == options.callback_param => &mut params.callback,
                name if name == body => &mut params.body,
                "_method" => &mut params.method,
                "_headers" => &mut params.headers,
                _ => {
                    params.rest.push(item.to_owned());
                    continue;
                }
            };
            place.get_or_insert_with(|| value.into_owned());
        }
        params
    }
}

/// Whether `name` can be called and does nothing else: a URL is written by whoever makes the link, and must not be
/// able to put a script of its own into the answer.
pub(crate) fn is_callback(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_$.[]\"'-".contains(&byte);
    !name.is_empty() && name.len() <= CALLBACK_MAX && name.bytes().all(allowed)
}

fn is_method(method: &str) -> bool {
    !method.is_empty()
        && method.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
        && method != "CONNECT"
}

/// The headers in the JSON object `text`.
fn headers(text: &str) -> Option<Vec<(String, String)>> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    object.into_iter().map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect()
}

/// Headers that a script URL cannot set: they belong to the connection or to how this request is framed.
fn is_fixed(name: &str) -> bool {
    const FIXED: [&str; 5] = ["host", "accept", "accept-encoding", "content-length", "expect"];
    is_hop_by_hop(name) || FIXED.iter().any(|fixed| fixed.eq_ignore_ascii_case(name))
}

/// The bytes of the head of the request that is meant.
fn request(
    head: &RequestHead,
    method: &str,
    rest: &[String],
    given: &[(String, String)],
    (body, json): (&[u8], bool),
) -> Vec<u8> {
    let query = rest.join("&");
    let mark = if query.is_empty() { "" } else { "?" };
    let version = match head.version() {
        Version::Http10 => "1.0",
        Version::Http11 => "1.1",
    };
    let mut out = format!("{method} {}{mark}{query} HTTP/{version}\r\n", head.path()).into_bytes();
    let mut fields = Fields::new();
    let replaced = |name: &str| {
        const REPLACED: [&str; 5] = ["accept", "accept-encoding", "content-length", "expect", "transfer-encoding"];
        REPLACED.iter().any(|fixed| fixed.eq_ignore_ascii_case(name))
            || (json && name.eq_ignore_ascii_case("content-type"))
            || given.iter().any(|(other, _)| !is_fixed(other) && other.eq_ignore_ascii_case(name))
    };
    for (name, value) in head.fields().filter(|(name, _)| !replaced(name)) {
        fields.push(name, value);
    }
    if json && !body.is_empty() {
        fields.push("Content-Type", "application/json");
    }
    for (name, value) in given {
        if !is_fixed(name) && !fields.contains(name) {
            fields.push(name, value);
        }
    }
    fields.push("Accept", "*/*");
    if !body.is_empty() {
        fields.push("Content-Length", body.len().to_string());
    }
    waft_http1::HeadWriter::new(&mut out).fields(fields.iter()).finish();
    out
}

impl Call {
    /// The beginning of the script for a response, and what makes the rest of it from the body.
    pub(crate) fn begin(&self, status: u16, reason: &str, fields: &Fields, out: &mut Vec<u8>) -> Encoder {
        // The comment keeps the callback from being the first bytes of something that is no script.
        out.extend_from_slice(b"/**/");
        out.extend_from_slice(self.callback.as_bytes());
        out.push(b'(');
        if self.mode == JsonPMode::Extended {
            let headers = serde_json::Value::Object(headers_object(fields)).to_string();
            let reason = serde_json::Value::from(reason).to_string();
            let start = format!(r#"{{"code": {status}, "reason": {reason}, "headers": {headers}, "body": ""#);
            out.extend_from_slice(start.as_bytes());
        }
        Encoder { mode: self.mode, rest: Vec::new() }
    }

    /// The script for a whole response.
    pub(crate) fn whole(&self, status: u16, reason: &str, fields: &Fields, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(body.len() + 256);
        let mut encoder = self.begin(status, reason, fields, &mut out);
        encoder.push(body, &mut out);
        encoder.finish(&mut out);
        out
    }
}

fn headers_object(fields: &Fields) -> serde_json::Map<String, serde_json::Value> {
    let mut object = serde_json::Map::new();
    for (name, value) in fields.iter() {
        let value = String::from_utf8_lossy(value);
        let known = object.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name));
        match known.map(|(_, known)| known) {
            Some(known) => *known = format!("{}, {value}", known.as_str().unwrap_or_default()).into(),
            None => {
                object.insert(name.to_owned(), value.into());
            }
        }
    }
    object
}

/// Turns the body of a response into the rest of a script, piece by piece.
#[derive(Debug)]
pub(crate) struct Encoder {
    mode: JsonPMode,
    /// Bytes whose meaning depends on what follows: an unfinished character, or a newline that may be the last.
    rest: Vec<u8>,
}

impl Encoder {
    /// Takes the next piece of body.
    pub(crate) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if piece.is_empty() {
            return;
        }
        let joined: Cow<'_, [u8]> = match self.rest.is_empty() {
            true => piece.into(),
            false => [&self.rest, piece].concat().into(),
        };
        let kept = match self.mode {
            JsonPMode::Basic => {
                let kept = usize::from(joined.ends_with(b"\n"));
                out.extend_from_slice(joined.get(..joined.len() - kept).unwrap_or_default());
                kept
            }
            JsonPMode::Extended => escape(&joined, out),
        };
        self.rest = joined.get(joined.len() - kept..).unwrap_or_default().to_vec();
    }

    /// Ends the script.
    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        match self.mode {
            JsonPMode::Basic => out.extend_from_slice(b");\n"),
            JsonPMode::Extended => {
                if !self.rest.is_empty() {
                    out.extend_from_slice(REPLACEMENT.as_bytes());
                }
                out.extend_from_slice(b"\"});\n");
            }
        }
    }
}

/// What stands for bytes that are no text.
const REPLACEMENT: &str = "\u{fffd}";

/// Appends bytes as they stand within a JSON string; returns how many at their end are an unfinished character.
fn escape(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let mut unread = bytes;
    loop {
        match str::from_utf8(unread) {
            Ok(text) => {
                escape_text(text, out);
                return 0;
            }
            Err(error) => {
                let (valid, after) = unread.split_at_checked(error.valid_up_to()).unwrap_or_default();
                escape_text(str::from_utf8(valid).unwrap_or_default(), out);
                let Some(bad) = error.error_len() else { return after.len() };
                out.extend_from_slice(REPLACEMENT.as_bytes());
                unread = after.get(bad..).unwrap_or_default();
            }
        }
    }
}

fn escape_text(text: &str, out: &mut Vec<u8>) {
    let quoted = serde_json::Value::from(text).to_string();
    let inner = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    if inner.contains(['\u{2028}', '\u{2029}']) {
        // Older engines take these for line ends, which a string in a script cannot hold.
        let inner = inner.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
        out.extend_from_slice(inner.as_bytes());
    } else {
        out.extend_from_slice(inner.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> RequestHead {
        match parse_request(text.as_bytes(), &HeadLimits::default()) {
            Ok(Parsed::Complete { head, .. }) => head,
            other => panic!("no request: {other:?}"),
        }
    }

    fn get(query: &str) -> RequestHead {
        parse(&format!("GET /p{query} HTTP/1.1\r\nHost: h\r\nX-Old: 1\r\nAccept: image/png\r\n\r\n"))
    }

    fn options(change: impl FnOnce(&mut JsonP)) -> JsonP {
        let mut options = JsonP::default();
        change(&mut options);
        options
    }

    fn meant(query: &str, options: &JsonP, request: &str, callback: &str) {
        let meant = read(&get(query), options).unwrap().unwrap();
        let fields: Vec<String> =
            meant.head.fields().map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value))).collect();
        let text = format!("{} {}|{}", meant.head.method(), meant.head.target(), fields.join("|"));
        assert_eq!((text.as_str(), &*meant.call.callback), (request, callback));
    }

    #[test]
    fn the_query_says_what_request_is_meant() {
        let plain = JsonP::default();
        meant("?callback=f", &plain, "GET /p|Host: h|X-Old: 1|Accept: */*", "f");
        meant("?a=%20&callback=f.g&b", &plain, "GET /p?a=%20&b|Host: h|X-Old: 1|Accept: */*", "f.g");
        meant(
            "?callback=f&_method=PUT&_body=%7B%7D",
            &plain,
            "PUT /p|Host: h|X-Old: 1|Accept: */*|Content-Length: 2",
            "f",
        );
        meant(
            "?callback=f&_headers=%7B%22X-Old%22:%222%22,%22Host%22:%22x%22,%22content-length%22:%229%22%7D",
            &plain,
            "GET /p|Host: h|X-Old: 2|Accept: */*",
            "f",
        );
    }

    #[test]
    fn the_route_says_how_the_query_is_read() {
        let basic = options(|options| options.mode = JsonPMode::Basic);
        meant("?callback=f", &basic, "POST /p|Host: h|X-Old: 1|Accept: */*", "f");
        let own = options(|options| {
            options.callback_param = "cb".to_owned();
            options.default_method = Some("DELETE".to_owned());
        });
        meant("?cb=f&callback=x", &own, "DELETE /p?callback=x|Host: h|X-Old: 1|Accept: */*", "f");
        let body = options(|options| {
            options.body_param = Some("data".to_owned());
            options.default_callback = Some("def".to_owned());
        });
        let request = "GET /p|Host: h|X-Old: 1|Content-Type: application/json|Accept: */*|Content-Length: 1";
        meant("?data=1", &body, request, "def");
        assert_eq!(read(&get("?other=1"), &body), Ok(None));
    }

    #[test]
    fn other_requests_stay_as_they_are() {
        assert_eq!(read(&get(""), &JsonP::default()), Ok(None));
        assert_eq!(read(&get("?callbacks=f"), &JsonP::default()), Ok(None));
        assert_eq!(read(&parse("POST /?callback=f HTTP/1.1\r\nHost: h\r\n\r\n"), &JsonP::default()), Ok(None));
    }

    #[test]
    fn mistakes_are_told() {
        let cases = [
            ("?callback=", Mistake::Callback),
            ("?callback=alert(1)%3Bf", Mistake::Callback),
            ("?callback=f&_method=", Mistake::Method),
            ("?callback=f&_method=A%20B", Mistake::Method),
            ("?callback=f&_headers=x", Mistake::Headers),
            ("?callback=f&_headers=%7B%22A%22:1%7D", Mistake::Headers),
        ];
        for (query, mistake) in cases {
            assert_eq!(read(&get(query), &JsonP::default()), Err(mistake), "{query}");
        }
    }

    fn script(mode: JsonPMode, pieces: &[&[u8]]) -> String {
        let call = Call { callback: "f".into(), mode };
        let fields: Fields = [("X-One", "1"), ("x-one", "2"), ("A", "\"")].into_iter().collect();
        let mut out = Vec::new();
        let mut encoder = call.begin(404, "Not \"there\"", &fields, &mut out);
        for piece in pieces {
            encoder.push(piece, &mut out);
        }
        encoder.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_extended_script_tells_the_whole_response() {
        assert_eq!(
            script(JsonPMode::Extended, &[b"say \"hi\"\n\xff", "\u{2028}é".as_bytes()]),
            "/**/f({\"code\": 404, \"reason\": \"Not \\\"there\\\"\", \"headers\": {\"A\":\"\\\"\",\"X-One\":\"1, 2\"}, \
             \"body\": \"say \\\"hi\\\"\\n\u{fffd}\\u2028é\"});\n"
        );
    }

    #[test]
    fn a_basic_script_is_the_body_without_its_last_newline() {
        assert_eq!(script(JsonPMode::Basic, &[b"{\"a\":1}\n"]), "/**/f({\"a\":1});\n");
        assert_eq!(script(JsonPMode::Basic, &[b"1\n", b"\n"]), "/**/f(1\n);\n");
        assert_eq!(script(JsonPMode::Basic, &[]), "/**/f();\n");
    }

    proptest! {
        #[test]
        fn a_script_depends_on_the_body_and_not_on_its_pieces(
            body in proptest::collection::vec(any::<u8>(), 0..40),
            cuts in proptest::collection::vec(0..40usize, 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &body[cut[0]..cut[1]]).collect();
            prop_assert_eq!(script(JsonPMode::Extended, &pieces), script(JsonPMode::Extended, &[&body]));
            let text: Vec<u8> = String::from_utf8_lossy(&body).replace('x', "\n").into_bytes();
            let half = text.len() / 2;
            prop_assert_eq!(script(JsonPMode::Basic, &[&text[..half], &text[half..]]), script(JsonPMode::Basic, &[&text]));
        }

        #[test]
        fn an_extended_script_holds_the_body_as_json(body in any::<String>()) {
            let script = script(JsonPMode::Extended, &[body.as_bytes()]);
            let json = script.strip_prefix("/**/f(").and_then(|script| script.strip_suffix(");\n")).unwrap();
            let value: serde_json::Value = serde_json::from_str(json).unwrap();
            prop_assert_eq!(value["body"].as_str(), Some(body.as_str()));
        }

        #[test]
        fn any_query_is_read_without_panic(query in "[ -~&&[^ #]]{0,60}") {
            let _outcome = read(&get(&format!("?callback=f&{query}")), &JsonP::default());
        }
    }
}
