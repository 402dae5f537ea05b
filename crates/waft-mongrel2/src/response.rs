//! What a handler sends: `UUID SP LENGTH ':' ID (SP ID)* ',' SP BODY`.

use bytes::Bytes;
use waft_zhttp::Value;

/// Connections that one response may be for, unless `limits.handler_targets` says otherwise.
pub const TARGETS_MAX: usize = 128;

/// A response: bytes for some connections, or an order about them.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// What stands at its beginning: the handler's name for the server.
    pub sender: Bytes,
    /// The connections it is for, at least one.
    pub ids: Vec<u64>,
    /// What is to be written to each. Empty: each is to be closed. Nothing, if there is a command.
    pub body: Bytes,
    /// What is to be done instead, if the response is an extended one.
    pub command: Option<Command>,
}

/// An order of a handler about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `ctl`
    Ctl(Ctl),
    /// `sendfile`: write the bytes of this file.
    SendFile(Bytes),
    /// Something else, or what cannot be understood: the connection is to be closed.
    Unknown,
}

/// What `ctl` asks for, any of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ctl {
    /// The connection is not idle.
    pub keep_alive: bool,
    /// So many more bytes of an upload may be sent.
    pub credits: u64,
    /// Close the connection at once, and say nothing of it.
    pub cancel: bool,
}

/// Why a message is no response. It is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// It does not begin with a name and a blank.
    #[error("the message does not begin with the server's uuid and a blank")]
    Sender,
    /// The list of connection ids has no valid length, or does not end where it says.
    #[error("the list of connection ids is no netstring, or no blank follows it")]
    IdList,
    /// An id is no number.
    #[error("a connection id is not a number")]
    Id,
    /// It is for nobody.
    #[error("the message names no connection")]
    NoIds,
    /// It is for too many.
    #[error("the message is for more than {max} connections; send several")]
    TooManyIds {
        /// How many it may be for.
        max: usize,
    },
}

impl Response {
    /// Reads a message of a handler. One for more than `targets_max` connections is refused.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(message: &Bytes, targets_max: usize) -> Result<Self, ResponseError> {
        let blank = message.iter().position(|byte| *byte == b' ').ok_or(ResponseError::Sender)?;
        let (sender, rest) = message.split_at_checked(blank).ok_or(ResponseError::Sender)?;
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        if sender.is_empty() || !sender.iter().all(is_name) {
            return Err(ResponseError::Sender);
        }
        let (list, body) = split_list(rest.get(1..).unwrap_or_default()).ok_or(ResponseError::IdList)?;
        let mut words = list.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).peekable();
        let is_extended = words.next_if(|word| *word == b"X").is_some();
        let mut ids = Vec::with_capacity(1);
        for word in words {
            if ids.len() == targets_max {
                return Err(ResponseError::TooManyIds { max: targets_max });
            }
            ids.push(read_id(word).ok_or(ResponseError::Id)?);
        }
        if ids.is_empty() {
            return Err(ResponseError::NoIds);
        }
        let body = message.slice_ref(body);
        let sender = message.slice_ref(sender);
        Ok(if is_extended {
            Self { sender, ids, command: Some(Command::parse(&body)), body: Bytes::new() }
        } else {
            Self { sender, ids, command: None, body }
        })
    }
}

/// `LENGTH ':' LIST ',' SP BODY` into list and body.
fn split_list(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    /// Digits of the longest list's length.
    const DIGITS_MAX: usize = 5;
    let colon = rest.iter().take(DIGITS_MAX + 1).position(|byte| *byte == b':')?;
    let (digits, rest) = rest.split_at_checked(colon)?;
    let length = usize::try_from(read_id(digits)?).ok()?;
    let (list, rest) = rest.get(1..)?.split_at_checked(length)?;
    Some((list, rest.strip_prefix(b", ")?))
}

/// A decimal number, digits only.
fn read_id(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

impl Command {
    fn parse(payload: &Bytes) -> Self {
        let Ok(Value::List(items)) = Value::decode(payload) else { return Self::Unknown };
        match items.as_slice() {
            [Value::Bytes(name), map @ Value::Map(_)] if name == "ctl" => {
                let is = |key| matches!(map.field(key), Some(Value::Bool(true)));
                let credits = match map.field("credits") {
                    Some(Value::Integer(count)) => u64::try_from(*count).unwrap_or(0),
                    _ => 0,
                };
                Self::Ctl(Ctl { keep_alive: is("keep-alive"), credits, cancel: is("cancel") })
            }
            [Value::Bytes(name), Value::Bytes(path)] if name == "sendfile" => Self::SendFile(path.clone()),
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(message: &str) -> Result<Response, ResponseError> {
        Response::parse(&Bytes::copy_from_slice(message.as_bytes()), TARGETS_MAX)
    }

    #[test]
    fn ids_and_body_are_read() {
        let check = |message: &str, ids: &[u64], body: &str| {
            let response = parse(message).unwrap();
            assert_eq!((&response.ids[..], &response.body[..], response.command), (ids, body.as_bytes(), None));
        };
        check("hand-1 1:7, HTTP/1.1 200 OK\r\n\r\n", &[7], "HTTP/1.1 200 OK\r\n\r\n");
        check("hand-1 7:7 12 30, hi", &[7, 12, 30], "hi");
        check("hand-1 1:7, ", &[7], "");
        check("82209006-86FF-4982-B5EA-D1E29E55D481 2:17,  x", &[17], " x");
    }

    #[test]
    fn what_is_no_response_is_refused_with_its_reason() {
        let check = |message: &str, why| assert_eq!(parse(message), Err(why), "{message}");
        check("", ResponseError::Sender);
        check("hand-1", ResponseError::Sender);
        check(" 1:7, x", ResponseError::Sender);
        check("h\u{e9} 1:7, x", ResponseError::Sender);
        check("hand-1 2:7, x", ResponseError::IdList);
        check("hand-1 1:7,x", ResponseError::IdList);
        check("hand-1 1:7", ResponseError::IdList);
        check("hand-1 :7, x", ResponseError::IdList);
        check("hand-1 999999:7, x", ResponseError::IdList);
        check("hand-1 0:, x", ResponseError::NoIds);
        check("hand-1 1:X, x", ResponseError::NoIds);
        check("hand-1 2:-7, x", ResponseError::Id);
        check("hand-1 20:99999999999999999999, x", ResponseError::Id);
        let crowd = vec!["1"; TARGETS_MAX + 1].join(" ");
        check(&format!("hand-1 {}:{crowd}, x", crowd.len()), ResponseError::TooManyIds { max: TARGETS_MAX });
    }

    #[test]
    fn orders_are_read() {
        let check = |message: &str, expected: Command| {
            assert_eq!(parse(message).unwrap().command, Some(expected), "{message}");
        };
        let ctl = |keep_alive, credits, cancel| Command::Ctl(Ctl { keep_alive, credits, cancel });
        check("hand-1 3:X 7, 31:3:ctl,21:10:keep-alive,4:true!}]", ctl(true, 0, false));
        check("hand-1 3:X 7, 26:3:ctl,16:6:cancel,4:true!}]", ctl(false, 0, true));
        check("hand-1 3:X 7, 27:3:ctl,17:7:credits,4:5000#}]", ctl(false, 5000, false));
        check("hand-1 3:X 7, 20:8:sendfile,6:/srv/a,]", Command::SendFile("/srv/a".into()));
        check("hand-1 3:X 7, 17:5:other,6:/srv/a,]", Command::Unknown);
        check("hand-1 3:X 7, nonsense", Command::Unknown);
        check("hand-1 3:X 7, ", Command::Unknown);
    }

    proptest! {
        #[test]
        fn what_a_handler_writes_is_read(
            ids in proptest::collection::vec(any::<u64>(), 1..TARGETS_MAX),
            body in any::<Vec<u8>>(),
        ) {
            let list = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let mut message = format!("name {}:{list}, ", list.len()).into_bytes();
            message.extend_from_slice(&body);
            let response = Response::parse(&message.into(), TARGETS_MAX).unwrap();
            prop_assert_eq!(response.ids, ids);
            prop_assert_eq!(&response.body[..], &body[..]);
        }

        #[test]
        fn any_bytes_are_judged_without_panic(message in any::<Vec<u8>>()) {
            let _judged = Response::parse(&message.into(), TARGETS_MAX);
        }
    }
}
