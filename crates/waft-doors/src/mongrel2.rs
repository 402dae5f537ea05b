//! Mongrel2's control port: a REP socket, one request after the other.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Signal, getpid, kill_process};
use tracing::{error, info};
use waft_gateway::{Gateway, HandlerConnection};
use waft_mongrel2::control::{COMMANDS, Command, Reply, text};
use waft_zhttp::Value;
use waft_zmq::{Message, Opened};

/// Where Mongrel2's control port is, and what it tells of the server.
#[derive(Clone, Debug, Default)]
pub struct ControlPort {
    /// The address that is bound.
    pub address: String,
    /// The port of clients.
    pub port: u16,
    /// The address of clients.
    pub bind_addr: String,
    /// The uuid of the server.
    pub uuid: String,
    /// The access log; empty for none.
    pub access_log: String,
    /// The log; empty for none.
    pub error_log: String,
    /// The file with the number of the process; empty for none.
    pub pid_file: String,
    /// The host that requests for unknown hosts go to.
    pub default_host: String,
}

/// Answers requests until it is told to stop.
pub(crate) async fn run(opened: Opened, port: ControlPort, gateway: Arc<Gateway>) {
    let Opened { sender, mut receiver, .. } = opened;
    let mut batch = Vec::new();
    while receiver.receive(&mut batch).await {
        for message in batch.drain(..) {
            let request = message.frames.first().cloned().unwrap_or_default();
            let command = Command::parse(&request);
            let reply = match command.clone() {
                Ok(command) => perform(command, &port, &gateway).await,
                Err(refused) => refused,
            };
            if let Err(error) = sender.send(Message::single(reply.encode())) {
                error!(%error, "The control port could not answer.");
            }
            if command == Ok(Command::ControlStop) {
                info!("The control port is closed, as it was asked for.");
                return;
            }
        }
    }
}

async fn perform(command: Command, port: &ControlPort, gateway: &Gateway) -> Reply {
    match command {
        Command::ControlStop => Reply::single("msg", text("stopping control port")),
        Command::Help => {
            let rows = COMMANDS.iter().map(|(name, help)| vec![text(name), text(help)]).collect();
            Reply::table(&["name", "help"], rows)
        }
        Command::Info => info_of(port),
        Command::Kill(id) => match gateway.end_handler_connection(id).await {
            true => Reply::single("status", text("OK")),
            false => Reply::invalid_argument(),
        },
        Command::Reload => signal(Signal::HUP, "reload signal sent"),
        Command::StatusNet => status(&gateway.handler_connections().await),
        Command::StatusTasks => tasks(gateway),
        Command::Stop => signal(Signal::INT, "stop signal sent"),
        Command::Terminate => signal(Signal::TERM, "terminate signal sent"),
        Command::Time => Reply::single("time", text(&unix_seconds().to_string())),
        Command::Uuid => Reply::single("uuid", text(&port.uuid)),
    }
}

fn signal(signal: Signal, done: &str) -> Reply {
    match kill_process(getpid(), signal) {
        Ok(()) => Reply::single("msg", text(done)),
        Err(error) => Reply::error("SIGNAL_FAILED", &format!("The signal could not be sent: {error}.")),
    }
}

fn info_of(port: &ControlPort) -> Reply {
    let headers = ["port", "bind_addr", "uuid", "chroot", "access_log", "error_log", "pid_file", "default_hostname"];
    let row = vec![
        Value::Integer(port.port.into()),
        text(&port.bind_addr),
        text(&port.uuid),
        text("./"),
        text(&port.access_log),
        text(&port.error_log),
        text(&port.pid_file),
        text(&port.default_host),
    ];
    Reply::table(&headers, vec![row])
}

/// The connections, with seconds since something happened on them.
fn status(connections: &[HandlerConnection]) -> Reply {
    /// What Mongrel2 calls a connection that speaks HTTP.
    const TYPE_HTTP: i64 = 1;
    let headers = ["id", "fd", "type", "last_ping", "last_read", "last_write", "bytes_read", "bytes_written"];
    let now = unix_seconds();
    let number = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let since = |at: u64| number(now.saturating_sub(at));
    let rows = connections.iter().map(|connection| {
        vec![
            number(connection.id),
            Value::Integer(0),
            Value::Integer(TYPE_HTTP),
            since(connection.last_ping),
            since(connection.last_read),
            since(connection.last_write),
            number(connection.bytes_read),
            number(connection.bytes_written),
        ]
    });
    Reply::table(&headers, rows.collect())
}

/// What runs: the shards.
fn tasks(gateway: &Gateway) -> Reply {
    let rows = (0..gateway.shards()).map(|shard| {
        let number = Value::Integer(i64::try_from(shard).unwrap_or(0) + 1);
        vec![number, Value::Bool(false), text(&format!("shard-{shard}")), text("serve"), text("running")]
    });
    Reply::table(&["id", "system", "name", "state", "status"], rows.collect())
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
