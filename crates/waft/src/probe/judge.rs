//! What is wrong with an answer to OPEN, in plain words.

use std::fmt::{self, Write as _};
use std::io;

use bytes::Bytes;
use waft_outbound::CallError;
use waft_websocket::control::{FromTarget, GripExtension, parse_grip_extension};
use waft_websocket::over_http::codec::{DecodeError, Decoder, Event, MEDIA_TYPE};

use super::{BODY_MAX, LIMIT};

/// An answer, read to its end or to a little more than may be.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) reason: Bytes,
    pub(super) headers: Vec<(Bytes, Bytes)>,
    pub(super) body: Bytes,
}

/// Why there is no answer; without an error it took too long.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) place: String,
    pub(super) error: Option<CallError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// Worth knowing; it works.
    Note,
    /// It does not work like this.
    Problem,
}

/// What was found, and what to do.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) level: Level,
    what: String,
    advice: String,
}

impl Finding {
    pub(super) fn problem(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Problem, what: what.into(), advice: advice.into() }
    }

    pub(super) fn note(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Note, what: what.into(), advice: advice.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Note => "note",
            Level::Problem => "problem",
        };
        writeln!(f, "{level}: {}", self.what)?;
        if self.advice.is_empty() { Ok(()) } else { writeln!(f, "  -> {}", self.advice) }
    }
}

impl Answer {
    /// What came, in a line.
    pub(super) fn summary(&self) -> String {
        let mut line = format!("answer {} {}", self.status, String::from_utf8_lossy(&self.reason));
        if let Some(kind) = self.header("content-type") {
            // Writing to a String cannot fail.
            let _infallible = write!(line, ", Content-Type: {kind}");
        }
        format!("{}, {} bytes of body\n", line.trim_end(), self.body.len())
    }

    fn header(&self, wanted: &str) -> Option<String> {
        let found = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()));
        found.map(|(_, value)| String::from_utf8_lossy(value).trim().to_owned())
    }

    fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.headers.iter().filter_map(|(name, value)| Some((str::from_utf8(name).ok()?, &**value)))
    }

    /// The beginning of the body, for people.
    fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let short: String = line.chars().take(120).collect();
        if short.is_empty() { "its body is empty".to_owned() } else { format!("it says: {short}") }
    }

    fn mentions(&self, word: &str) -> bool {
        String::from_utf8_lossy(&self.body).to_ascii_lowercase().contains(word)
    }
}

/// Why nothing came.
pub(super) fn trouble(trouble: &Trouble) -> Finding {
    let place = &trouble.place;
    let limit = LIMIT.as_secs();
    match &trouble.error {
        None => Finding::problem(
            format!("{place} took the request and did not answer within {limit} s; clients would wait, then get 502"),
            "answer each request at once: events to come later are published, not waited for",
        ),
        Some(CallError::Resolve) => Finding::problem(
            format!("the name in {place} has no address; clients would get 502"),
            "correct the name, or write the address itself",
        ),
        Some(CallError::Connect(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Finding::problem(
            format!("nothing listens at {place}: the connection was refused; clients would get 502"),
            "start the backend, or correct the port; in a container, 127.0.0.1 is the container itself",
        ),
        Some(CallError::Connect(error)) => Finding::problem(
            format!("{place} cannot be reached: {error}; clients would get 502"),
            "see to it that this machine can reach the backend",
        ),
        Some(CallError::ConnectTimeout) => Finding::problem(
            format!("{place} does not answer to the attempt to connect; clients would get 502"),
            "look for a firewall between, or a wrong address; write http:// if the backend has no TLS there",
        ),
        Some(CallError::Tls(error)) => Finding::problem(
            format!("{place} was not reached by TLS: {error}"),
            "write http:// if the backend has no TLS there; otherwise correct its certificate",
        ),
        Some(CallError::Closed) => Finding::problem(
            format!("{place} closed the connection without an answer; clients would get 502"),
            "look into the backend's log: its program may have crashed, or speaks another protocol",
        ),
        Some(CallError::ResponseHead(error)) => Finding::problem(
            format!("{place} does not answer in HTTP/1: {error}; clients would get 502"),
            "see what listens there: TLS, HTTP/2 alone, or no web server at all",
        ),
        Some(error) => Finding::problem(
            format!("the answer of {place} cannot be read: {error}; clients would get 502"),
            "look into the backend's log",
        ),
    }
}

/// Whether the target has accepted, however well.
pub(super) fn is_accepted(answer: &Answer) -> bool {
    answer.status == 200
        && answer.header("content-type").as_deref() == Some(MEDIA_TYPE)
        && Decoder::new(answer.body.clone()).next_event() == Ok(Some(Event::Open))
}

/// What is to be said of an answer; an empty list does not occur.
pub(super) fn answer(answer: &Answer) -> Vec<Finding> {
    if answer.status != 200 {
        return vec![status(answer)];
    }
    let mut findings = Vec::new();
    if let Some(coding) = answer.header("content-encoding").filter(|coding| !coding.eq_ignore_ascii_case("identity")) {
        findings.push(Finding::problem(
            format!("the answer is compressed ({coding}) although nobody asked for that"),
            format!("switch compression off for answers of the type {MEDIA_TYPE}"),
        ));
        return findings;
    }
    if let Some(finding) = content_type(answer) {
        findings.push(finding);
        return findings;
    }
    if answer.body.len() > BODY_MAX {
        findings.push(Finding::problem(
            format!("the answer has more than {BODY_MAX} bytes"),
            "send less at once; publish the rest",
        ));
        return findings;
    }
    match events(answer) {
        Ok(more) => findings.extend(more),
        Err(finding) => findings.push(finding),
    }
    findings
}

/// An answer that is no acceptance by its status. Clients get it as it is.
fn status(answer: &Answer) -> Finding {
    let (code, says) = (answer.status, answer.excerpt());
    let problem = |what: &str, advice: &str| Finding::problem(format!("{what}; {says}"), advice);
    match code {
        300..=399 => redirect(answer),
        401 => problem(
            "the backend wants a login (401)",
            "let it judge by the client's own headers, which waft passes on with every event",
        ),
        403 if answer.mentions("csrf") => problem(
            "the backend refuses the POST because it carries no CSRF token (403)",
            "exempt this path from CSRF protection (in Django: @csrf_exempt), and check Grip-Sig or Origin instead",
        ),
        403 => problem(
            "the backend refuses (403)",
            "see that it knows the key of Grip-Sig (grip.sig_key), and that its checks let POST requests through",
        ),
        404 => problem(
            "the backend has nothing at this path (404)",
            "correct the path, or add a handler for POST there; the path of a client is passed on as it is",
        ),
        405 => problem(
            "the handler at this path takes no POST (405)",
            "let it take POST: with WebSocket-over-HTTP every event comes as one",
        ),
        400 | 411 | 413 | 415 | 422 => problem(
            &format!("the backend does not take the request ({code})"),
            "let the handler read the raw body: its type is application/websocket-events, its bytes are OPEN\\r\\n",
        ),
        101 | 426 => problem(
            &format!("the backend wants a WebSocket (status {code}), not events"),
            "it speaks WebSocket itself: remove over_http from the target",
        ),
        501 => problem(
            "the backend says that it cannot do this (501)",
            "libraries for GRIP say so when they do not know the proxy: give them the key of Grip-Sig (grip.sig_key)",
        ),
        502..=504 => problem(
            &format!("a proxy before the backend did not reach it ({code})"),
            "ask the backend itself, or look into the log of the proxy",
        ),
        500..=599 => {
            problem(&format!("the backend failed ({code})"), "look into its log for the error behind this answer")
        }
        200..=299 => {
            problem(&format!("the backend answered {code}, and only 200 accepts a WebSocket"), "answer with status 200")
        }
        _ => problem(&format!("the backend refuses with {code}"), "clients get this answer as it is"),
    }
}

fn redirect(answer: &Answer) -> Finding {
    let location = answer.header("location").unwrap_or_default();
    let advice = if location.starts_with("https:") {
        "the backend wants TLS: let it take plain requests of waft, or give the target ssl"
    } else if location.split(['?', '#']).next().is_some_and(|path| path.ends_with('/')) {
        "clients should ask for the path with the slash at its end, or the backend should take it without"
    } else {
        "let the handler answer itself; a login page cannot be shown to a WebSocket"
    };
    Finding::problem(
        format!("the backend redirects ({}) to {location}, and waft follows no redirects of targets", answer.status),
        advice,
    )
}

fn content_type(answer: &Answer) -> Option<Finding> {
    let set = format!("set the header Content-Type: {MEDIA_TYPE}");
    let kind = answer.header("content-type").unwrap_or_default();
    if kind == MEDIA_TYPE {
        return None;
    }
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let looks_right = answer.body.starts_with(b"OPEN");
    Some(if kind.is_empty() {
        Finding::problem(format!("the answer has no Content-Type; {}", answer.excerpt()), set)
    } else if essence == MEDIA_TYPE {
        Finding::problem(
            format!("the Content-Type has parameters ({kind}), and has to be {MEDIA_TYPE} exactly"),
            "keep the framework from adding a charset",
        )
    } else if essence.eq_ignore_ascii_case(MEDIA_TYPE) {
        Finding::problem(format!("the Content-Type is written {kind}, and has to be lower case"), set)
    } else if looks_right {
        Finding::problem(format!("the body has events, but the Content-Type is {kind}"), set)
    } else if essence == "application/grip-instruct" || answer.header("grip-hold").is_some() {
        Finding::problem(
            "the answer holds an HTTP request (GRIP instruct), and a WebSocket was asked for",
            format!("answer requests with Content-Type {MEDIA_TYPE} with events"),
        )
    } else if essence == "text/html" {
        Finding::problem(
            format!("the backend answered an ordinary page; {}", answer.excerpt()),
            "the path leads to a handler that knows no WebSocket-over-HTTP: correct it, or the route",
        )
    } else {
        Finding::problem(
            format!("the Content-Type is {kind}, not {MEDIA_TYPE}; {}", answer.excerpt()),
            "answer with events: OPEN\\r\\n first",
        )
    })
}

/// What the events of the answer say, from OPEN on.
fn events(answer: &Answer) -> Result<Vec<Finding>, Finding> {
    if answer.body.is_empty() {
        return Ok(vec![undecided(answer)?]);
    }
    let mut decoder = Decoder::new(answer.body.clone());
    let read = |decoder: &mut Decoder| decoder.next_event().map_err(|error| malformed(answer, error));
    match read(&mut decoder)? {
        Some(Event::Open) => {}
        _ if answer.body.trim_ascii() == b"OPEN" || answer.body.starts_with(b"OPEN\n") => {
            return Err(malformed(answer, DecodeError::UnendedLine));
        }
        _ => {
            return Err(Finding::problem(
                format!("the first event is not OPEN; {}", answer.excerpt()),
                "begin the answer to OPEN with OPEN\\r\\n; what follows may be messages",
            ));
        }
    }
    let grip = parse_grip_extension(answer.fields());
    let mut findings = Vec::new();
    loop {
        match read(&mut decoder)? {
            None => break,
            Some(Event::Open) => {
                return Err(Finding::problem("OPEN stands there twice", "send it once, at the beginning"));
            }
            Some(Event::Text(content)) => findings.extend(message(grip.as_ref(), true, &content)),
            Some(Event::Binary(content)) => findings.extend(message(grip.as_ref(), false, &content)),
            Some(Event::Close(_) | Event::Disconnect) => {
                findings.push(Finding::note("the backend accepts and closes at once", ""));
            }
            Some(Event::Ping(_) | Event::Pong(_)) => {}
        }
    }
    findings.extend(lengths(&answer.body));
    if grip.is_none() {
        findings.push(extension(answer));
    }
    if findings.iter().all(|finding| finding.level == Level::Note) {
        let layer = if grip.is_some() { " and takes the control layer (grip)" } else { "" };
        findings.insert(0, Finding::note(format!("the backend accepts WebSockets over HTTP{layer}"), ""));
    }
    Ok(findings)
}

fn undecided(answer: &Answer) -> Result<Finding, Finding> {
    let interval = answer.header("keep-alive-interval").and_then(|value| value.parse::<u32>().ok());
    match interval.filter(|seconds| *seconds > 0) {
        Some(seconds) => Ok(Finding::note(
            format!("the backend is undecided: waft asks again every {} s while the client waits", seconds.max(20)),
            "answer OPEN\\r\\n to accept",
        )),
        None => Err(Finding::problem(
            "the answer has no body; clients would get 502",
            "answer with the event OPEN: the bytes OPEN\\r\\n",
        )),
    }
}

fn malformed(answer: &Answer, error: DecodeError) -> Finding {
    if answer.body.contains(&b'\n') && !answer.body.windows(2).any(|pair| pair == b"\r\n") {
        return Finding::problem(
            "the lines of the events end with \\n; clients would get 502",
            "end each line with \\r\\n, as HTTP does",
        );
    }
    Finding::problem(
        format!("the events are malformed: {error}; {}", answer.excerpt()),
        "write each as TYPE\\r\\n, or TYPE, a space, the length in hexadecimal, \\r\\n, the content, \\r\\n",
    )
}

/// Lengths that do not fit: the bytes behind a content are no line end.
fn lengths(body: &[u8]) -> Option<Finding> {
    let mut rest = body;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let line = String::from_utf8_lossy(rest.get(..end)?).into_owned();
        rest = rest.get(end + 2..)?;
        let Some((_, digits)) = line.split_once(' ') else { continue };
        let len = usize::from_str_radix(digits, 16).ok()?;
        let behind = rest.get(len..);
        if !behind.is_some_and(|behind| behind.starts_with(b"\r\n")) {
            let decimal =
                digits.parse().is_ok_and(|len: usize| rest.get(len..).is_some_and(|it| it.starts_with(b"\r\n")));
            let advice = if decimal {
                "write the length in hexadecimal; this one is decimal"
            } else {
                "count the bytes of the content, not its characters, and end it with \\r\\n"
            };
            return Some(Finding::problem(
                format!("the length of the event `{line}` does not fit its content"),
                advice,
            ));
        }
        rest = behind?.get(2..)?;
    }
    None
}

fn message(grip: Option<&GripExtension>, is_text: bool, content: &Bytes) -> Option<Finding> {
    let shown: String = String::from_utf8_lossy(content).chars().take(80).collect();
    let Some(grip) = grip else {
        return (is_text && content.starts_with(b"c:")).then(|| {
            Finding::problem(
                format!(
                    "the control message `{shown}` goes to the client as it is: the control layer is not switched on"
                ),
                "add the header Sec-WebSocket-Extensions: grip to the answer",
            )
        });
    };
    match grip.classify(is_text, content) {
        FromTarget::Control(Ok(_)) | FromTarget::Relay(_) => None,
        FromTarget::Control(Err(error)) => Some(Finding::problem(
            format!("the control message `{shown}` has no effect: {error}"),
            "send c: and a JSON object with a type and its fields",
        )),
        FromTarget::Drop => Some(Finding::problem(
            format!("the message `{shown}` is dropped: with the control layer on, messages need a prefix"),
            format!(
                "begin what is meant for the client with {:?}, or answer with the extension grip; message-prefix=\"\"",
                grip.message_prefix()
            ),
        )),
    }
}

/// What there is instead of the extension.
fn extension(answer: &Answer) -> Finding {
    let advice = "to subscribe clients to channels, add the header Sec-WebSocket-Extensions: grip to the answer";
    match answer.header("sec-websocket-extensions") {
        Some(value) => Finding::problem(
            format!("the header Sec-WebSocket-Extensions: {value} does not switch the control layer on"),
            "write it exactly: Sec-WebSocket-Extensions: grip",
        ),
        None => Finding::note(
            "the answer has no Sec-WebSocket-Extensions: grip: messages go to the client as they are, and it has no \
             channels but those of its route",
            advice,
        ),
    }
}
