//! The control port: a request is a TNetString list of a command and a map, a reply is a map.

use bytes::{Bytes, BytesMut};
use waft_zhttp::Value;

/// A command of the control port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Close the control port.
    ControlStop,
    /// List the commands.
    Help,
    /// Show how the server was configured.
    Info,
    /// Close a connection.
    Kill(u64),
    /// Read the configuration again.
    Reload,
    /// List the connections.
    StatusNet,
    /// List the tasks.
    StatusTasks,
    /// End when requests under way have ended.
    Stop,
    /// End.
    Terminate,
    /// Tell the time.
    Time,
    /// Tell the uuid of the server.
    Uuid,
}

/// The commands that `help` lists, with what they do.
pub const COMMANDS: [(&str, &str); 10] = [
    ("stop", "ends the server when the requests under way have ended (SIGINT)"),
    ("reload", "reads the configuration again (SIGHUP)"),
    ("help", "lists the commands"),
    ("control_stop", "closes the control port"),
    ("kill", "closes the connection with this id"),
    ("status", "lists connections (what=net) or tasks (what=tasks)"),
    ("terminate", "ends the server (SIGTERM)"),
    ("time", "tells the server's time"),
    ("uuid", "tells the server's uuid"),
    ("info", "tells how the server is configured"),
];

impl Command {
    /// Reads a request. A NUL behind it is tolerated.
    ///
    /// # Errors
    /// The reply that refuses it.
    pub fn parse(request: &Bytes) -> Result<Self, Reply> {
        let request = match request.split_last() {
            Some((0, rest)) => request.slice_ref(rest),
            _ => request.clone(),
        };
        let items = match Value::decode(&request) {
            Ok(Value::List(items)) if items.len() == 2 => items,
            Ok(Value::List(_)) => return Err(Reply::invalid_request()),
            Ok(_) => return Err(Reply::invalid_request()),
            Err(_) => return Err(Reply::invalid_data()),
        };
        let [Value::Bytes(name), arguments @ Value::Map(_)] = items.as_slice() else {
            return Err(Reply::invalid_data());
        };
        Ok(match name.as_ref() {
            b"control_stop" => Self::ControlStop,
            b"help" => Self::Help,
            b"info" => Self::Info,
            b"kill" => match arguments.field("id") {
                Some(Value::Integer(id)) => {
                    Self::Kill(u64::try_from(*id).map_err(|_negative| Reply::invalid_argument())?)
                }
                _ => return Err(Reply::invalid_argument()),
            },
            b"reload" => Self::Reload,
            b"status" => match arguments.field("what") {
                Some(Value::Bytes(what)) if what == "net" => Self::StatusNet,
                Some(Value::Bytes(what)) if what == "tasks" => Self::StatusTasks,
                Some(Value::Bytes(_)) => return Err(Reply::status_of_what()),
                _ => return Err(Reply::invalid_argument()),
            },
            b"stop" => Self::Stop,
            b"terminate" => Self::Terminate,
            b"time" => Self::Time,
            b"uuid" => Self::Uuid,
            _ => return Err(Reply::error("CALLBACK_NOT_FOUND", "Callback requested was not found.")),
        })
    }
}

/// A request for the control port: a command with text and number arguments.
pub fn request(command: &str, arguments: &[(&str, Value)]) -> Bytes {
    let map = arguments.iter().map(|(name, value)| (Bytes::copy_from_slice(name.as_bytes()), value.clone())).collect();
    encode(&Value::List(vec![text(command), Value::Map(map)]))
}

/// A reply of the control port.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply(Value);

impl Reply {
    /// A table.
    pub fn table(headers: &[&str], rows: Vec<Vec<Value>>) -> Self {
        let headers = Value::List(headers.iter().map(|name| text(name)).collect());
        let rows = Value::List(rows.into_iter().map(Value::List).collect());
        Self(Value::Map(vec![("headers".into(), headers), ("rows".into(), rows)]))
    }

    /// A table of one value.
    pub fn single(header: &str, value: Value) -> Self {
        Self::table(&[header], vec![vec![value]])
    }

    /// An error with its code.
    pub fn error(code: &str, error: &str) -> Self {
        Self(Value::Map(vec![("code".into(), text(code)), ("error".into(), text(error))]))
    }

    /// The id names no connection, or an argument is missing or of another type.
    pub fn invalid_argument() -> Self {
        Self::error("INVALID_ARGUMENT", "Invalid argument type.")
    }

    fn invalid_request() -> Self {
        Self::error("INVALID_REQUEST", "Invalid request format, must be a list with two elements in it.")
    }

    fn invalid_data() -> Self {
        Self::error("INVALID_DATA", "Invalid data, expecting a list with a string and a hash in it.")
    }

    fn status_of_what() -> Self {
        Self(Value::Map(vec![("error".into(), text("Expected argument what=['net'|'tasks']."))]))
    }

    /// The bytes of it.
    pub fn encode(&self) -> Bytes {
        encode(&self.0)
    }
}

/// A text as a value.
pub fn text(text: &str) -> Value {
    Value::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

fn encode(value: &Value) -> Bytes {
    let mut out = BytesMut::new();
    value.encode(&mut out);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let check = |request: &str, expected: Command| {
            assert_eq!(Command::parse(&Bytes::copy_from_slice(request.as_bytes())), Ok(expected), "{request}");
        };
        check("10:4:time,0:}]", Command::Time);
        check("10:4:time,0:}]\0", Command::Time);
        check("26:6:status,13:4:what,3:net,}]", Command::StatusNet);
        check("19:4:kill,9:2:id,1:7#}]", Command::Kill(7));
        assert_eq!(request("kill", &[("id", Value::Integer(7))]), "19:4:kill,9:2:id,1:7#}]");
        for (name, _) in COMMANDS {
            let arguments = [("id", Value::Integer(1)), ("what", text("net"))];
            assert!(Command::parse(&request(name, &arguments)).is_ok(), "{name}");
        }
    }

    #[test]
    fn replies_are_written_as_clients_know_them() {
        let check = |reply: Reply, expected: &str| assert_eq!(reply.encode(), expected.as_bytes());
        check(Reply::single("time", text("1795448684")), "49:7:headers,7:4:time,]4:rows,18:14:10:1795448684,]]}");
        let net = ["id", "fd", "type", "last_ping", "last_read", "last_write", "bytes_read", "bytes_written"];
        let row = [1, 35, 1, 0, 0, 0, 38, 0].map(Value::Integer).to_vec();
        check(
            Reply::table(&net, vec![row]),
            "149:7:headers,86:2:id,2:fd,4:type,9:last_ping,9:last_read,10:last_write,10:bytes_read,13:bytes_written,]4:rows,38:34:1:1#2:35#1:1#1:0#1:0#1:0#2:38#1:0#]]}",
        );
        check(Reply::single("status", text("OK")), "40:7:headers,9:6:status,]4:rows,8:5:2:OK,]]}");
    }

    #[test]
    fn what_is_no_command_is_refused_as_clients_know_it() {
        let check = |request: &str, expected: &str| {
            let refused = Command::parse(&Bytes::copy_from_slice(request.as_bytes())).unwrap_err();
            assert_eq!(refused.encode(), expected.as_bytes(), "{request}");
        };
        let not_a_list = "101:4:code,15:INVALID_REQUEST,5:error,63:Invalid request format, must be a list with two elements in it.,}";
        let junk =
            "97:4:code,12:INVALID_DATA,5:error,62:Invalid data, expecting a list with a string and a hash in it.,}";
        let argument = "61:4:code,16:INVALID_ARGUMENT,5:error,22:Invalid argument type.,}";
        check("1:x,", not_a_list);
        check("7:4:time,]", not_a_list);
        check("junk", junk);
        check("8:1:a,1:b,]", junk);
        check("10:4:noop,0:}]", "74:4:code,18:CALLBACK_NOT_FOUND,5:error,33:Callback requested was not found.,}");
        check("10:4:kill,0:}]", argument);
        check("12:6:status,0:}]", argument);
        check("25:6:status,12:4:what,2:xx,}]", "51:5:error,39:Expected argument what=['net'|'tasks'].,}");
    }
}
