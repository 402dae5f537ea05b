//! The command line of `condure`, as a plan: one route for each of its interfaces, with nothing but ZHTTP workers behind
//! it.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use waft_route::{Condition, HostPattern, Route, Target, TargetAddress};

use crate::mistake::{Mistake, Mistakes};
use crate::plan::Plan;
use crate::value::{ByteSize, Duration, Level, Listen, OctalMode, OrOff, PingMode, WorkerRole};

/// What `condure --help` prints.
pub const USAGE: &str = "\
Usage: condure [OPTIONS]

  --listen <[addr:]port[,params...]>...  Port to listen on, `stream` or `req` [default: 0.0.0.0:8000,stream]
  --zclient-stream <spec-base>...        PUSH/ROUTER/SUB spec base [default: ipc://client]
  --zclient-req <spec>...                DEALER spec [default: ipc://client]
  --zclient-connect                      Connect to these specs instead of binding them
  --ipc-file-mode <octal>                Permissions of bound ipc sockets
  --id <ID>                              Beginning of the addresses that workers answer to [default: condure]
  --workers <N>                          Number of worker threads [default: 2]
  --stream-maxconn <N>                   Connections in stream mode [default: 10000]
  --req-maxconn <N>                      Connections in req mode [default: 100]
  --stream-timeout <N>                   Seconds of silence, stream mode [default: 1800]
  --req-timeout <N>                      Seconds of silence, req mode [default: 30]
  --buffer-size <N>                      Bytes of a body on their way from a worker [default: 8192]
  --body-buffer-size <N>                 Largest body in req mode [default: 100000]
  --messages-max <N>                     Accepted; memory is bounded by bytes here
  --compression                          Take offers of WebSocket compression
  --tls-identities-dir <directory>       Directory with NAME.crt and NAME.key, for ports with `tls` [default: .]
  --log-level <N>                        0 errors to 4 traces [default: 2]
  --sizes                                Print the sizes of objects
  -h, --help                             Print this text
  -V, --version                          Print the version
";

/// The id of the route with the workers of the stream interface.
const STREAM: &str = "stream";
/// The id of the route with the workers of the request/reply interface.
const REQ: &str = "req";

/// What the arguments of `condure` ask for.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// The usage.
    Help,
    /// To run.
    Run(Box<Plan>),
    /// The sizes of objects.
    Sizes,
    /// The version.
    Version,
}

/// Reads the arguments of `condure`, without its name.
///
/// # Errors
/// Arguments that cannot be understood, or ask for what is not served.
pub fn args(args: impl IntoIterator<Item = String>) -> Result<Asked, Mistakes> {
    let mut options = Options::default();
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
            _ => (arg.clone(), None),
        };
        match name.as_str() {
            "-h" | "--help" => return Ok(Asked::Help),
            "-V" | "--version" => return Ok(Asked::Version),
            "--sizes" => return Ok(Asked::Sizes),
            "--compression" => options.compression = true,
            "--zclient-connect" => options.connect = true,
            "--listen" | "--zclient-stream" | "--zclient-req" => {
                let mut values: Vec<String> = inline.into_iter().collect();
                // Each of these takes several values, up to the next option.
                while values.is_empty() || args.peek().is_some_and(|next| !next.starts_with('-')) {
                    let Some(value) = args.next().filter(|value| !value.starts_with('-')) else {
                        return Err(Mistakes::one(name, "needs a value"));
                    };
                    values.push(value);
                }
                match name.as_str() {
                    "--listen" => options.listen.extend(values),
                    "--zclient-stream" => options.stream.extend(values),
                    _ => options.req.extend(values),
                }
            }
            _ => {
                let Some(value) = inline.or_else(|| args.next()) else {
                    return Err(Mistakes::one(name, "needs a value, or is unknown; see --help"));
                };
                options.set(&name, &value)?;
            }
        }
    }
    options.into_plan().map(|plan| Asked::Run(Box::new(plan)))
}

#[derive(Debug)]
struct Options {
    listen: Vec<String>,
    stream: Vec<String>,
    req: Vec<String>,
    connect: bool,
    ipc_file_mode: Option<u32>,
    id: String,
    workers: usize,
    stream_maxconn: usize,
    req_maxconn: usize,
    stream_timeout: u64,
    req_timeout: u64,
    buffer_size: u64,
    body_buffer_size: u64,
    compression: bool,
    tls_identities: PathBuf,
    log_level: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            stream: Vec::new(),
            req: Vec::new(),
            connect: false,
            ipc_file_mode: None,
            id: "condure".to_owned(),
            workers: 2,
            stream_maxconn: 10_000,
            req_maxconn: 100,
            stream_timeout: 1_800,
            req_timeout: 30,
            buffer_size: 8_192,
            body_buffer_size: 100_000,
            compression: false,
            tls_identities: ".".into(),
            log_level: 2,
        }
    }
}

impl Options {
    /// Takes an option with one value.
    fn set(&mut self, name: &str, value: &str) -> Result<(), Mistakes> {
        let number = || {
            value.parse::<u64>().map_err(|_no_number| Mistakes::one(name, format!("must be a number, not `{value}`")))
        };
        let count = || number().map(|number| usize::try_from(number).unwrap_or(usize::MAX));
        match name {
            "--body-buffer-size" => self.body_buffer_size = number()?,
            "--buffer-size" => self.buffer_size = number()?.max(1),
            "--id" => value.clone_into(&mut self.id),
            "--ipc-file-mode" => {
                let mode: OctalMode = value.parse().map_err(|_no_mode| {
                    Mistakes::one(name, format!("must be an octal mode such as 660, not `{value}`"))
                })?;
                self.ipc_file_mode = Some(mode.0);
            }
            "--log-level" => self.log_level = number()?,
            "--messages-max" => drop(number()?),
            "--req-maxconn" => self.req_maxconn = count()?,
            "--req-timeout" => self.req_timeout = number()?,
            "--stream-maxconn" => self.stream_maxconn = count()?,
            "--stream-timeout" => self.stream_timeout = number()?,
            "--tls-identities-dir" => self.tls_identities = value.into(),
            "--workers" => self.workers = count()?,
            _ => return Err(Mistakes::one(name, "is unknown; see --help")),
        }
        Ok(())
    }

    fn into_plan(mut self) -> Result<Plan, Mistakes> {
        for (list, default) in [
            (&mut self.listen, "0.0.0.0:8000,stream"),
            (&mut self.stream, "ipc://client"),
            (&mut self.req, "ipc://client"),
        ] {
            if list.is_empty() {
                list.push(default.to_owned());
            }
        }
        let mut mistakes = Vec::new();
        let mut plan = Plan::default();
        plan.server.listen = self.listen.iter().filter_map(|text| listener(text, &mut mistakes)).collect();
        if !mistakes.is_empty() {
            return Err(Mistakes(mistakes));
        }
        let serves = |id: &str| plan.server.listen.iter().any(|listen| listen.route.as_deref() == Some(id));
        let (stream, req) = (serves(STREAM), serves(REQ));
        plan.control.listen = Vec::new();
        plan.server.http2 = false;
        if plan.server.listen.iter().any(|listen| listen.tls) {
            plan.server.tls_certs = Some(self.tls_identities);
        }
        plan.server.shards = self.workers;
        let connections = if stream { self.stream_maxconn } else { 0 } + if req { self.req_maxconn } else { 0 };
        plan.server.client_max = NonZeroUsize::new(connections).unwrap_or(NonZeroUsize::MIN);
        plan.websocket.compression = self.compression;
        // Messages are passed on piece by piece, whatever their size; pings are the workers' to answer.
        plan.websocket.ping_mode = PingMode::Forward;
        plan.websocket.ping_interval = OrOff::Off;
        plan.grip.request_body_max = ByteSize(self.body_buffer_size);
        plan.workers.role = WorkerRole::Front;
        plan.workers.name.clone_from(&self.id);
        plan.workers.window = ByteSize(self.buffer_size);
        plan.logging.access = self.log_level > 2;
        plan.logging.level = match self.log_level {
            0 => Level::Error,
            1 => Level::Warn,
            2 => Level::Info,
            3 => Level::Debug,
            _ => Level::Trace,
        };
        let base = plan.base_options();
        let route = |id: &str, targets: Vec<TargetAddress>, timeout: u64| {
            // Found by its id alone: the port that a client comes by says which it is.
            let condition = Condition { host: HostPattern::None, ..Condition::default() };
            let targets = targets.into_iter().map(|address| Target {
                connect: self.connect,
                ipc_file_mode: self.ipc_file_mode,
                ..Target::new(address)
            });
            let mut route = Route::new(condition, targets.collect());
            route.id = id.into();
            route.explicit_id = true;
            route.options = base.clone();
            route.options.no_grip = true;
            route.options.log = false;
            route.options.websocket.ping_interval = None;
            route.options.websocket.answer_pings = false;
            let timeout = Duration::from_secs(timeout).0;
            // Whoever waits for a worker waits as long as for its answer.
            route.options.timeouts.connect = timeout;
            route.options.timeouts.response_idle = Some(timeout);
            route
        };
        plan.routes = Vec::new();
        if stream {
            let specs = self.stream.iter().cloned().map(TargetAddress::Zhttp).collect();
            plan.routes.push(route(STREAM, specs, self.stream_timeout));
        }
        if req {
            let specs = self.req.iter().cloned().map(TargetAddress::ZhttpReq).collect();
            plan.routes.push(route(REQ, specs, self.req_timeout));
        }
        Ok(plan)
    }
}

/// An address of `--listen`, with its parameters.
fn listener(text: &str, mistakes: &mut Vec<Mistake>) -> Option<Listen> {
    let mut refuse = |why: String| {
        mistakes.push(Mistake { place: format!("--listen {text}"), text: why });
        None
    };
    let mut parts = text.split(',');
    let address = parts.next().unwrap_or_default();
    let (mut route, mut local, mut tls, mut query) = (STREAM, false, false, Vec::new());
    for part in parts {
        match part.split_once('=') {
            None if part == "stream" => route = STREAM,
            None if part == "req" => route = REQ,
            None if part == "local" => local = true,
            Some(("mode" | "user" | "group", _)) => query.push(part),
            None if part == "tls" => tls = true,
            Some(("default-cert", _)) => {
                return refuse("`default-cert` is not served; call the files default.crt and default.key".to_owned());
            }
            _ => return refuse(format!("the parameter `{part}` is unknown")),
        }
    }
    let address = if local { format!("unix:{address}?{}", query.join("&")) } else { address.to_owned() };
    match address.parse::<Listen>() {
        Ok(listen) => Some(Listen { route: Some(route.to_owned()), tls, ..listen }),
        Err(_no_address) => refuse("must be `port`, `addr:port`, or a path with `local`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        match args(text.split_whitespace().map(str::to_owned)).unwrap() {
            Asked::Run(plan) => *plan,
            other => panic!("{other:?}"),
        }
    }

    fn routes(plan: &Plan) -> Vec<String> {
        let targets = |route: &Route| route.targets.iter().map(|target| target.address.to_string()).collect::<Vec<_>>();
        plan.routes.iter().map(|route| format!("{} {}", route.id, targets(route).join(" "))).collect()
    }

    #[test]
    fn the_defaults_are_those_of_condure() {
        let plan = plan("");
        assert_eq!(plan.server.listen[0].to_string(), "8000");
        assert_eq!(routes(&plan), ["stream zhttp/ipc://client"]);
        assert_eq!((plan.server.shards, plan.server.client_max.get()), (2, 10_000));
        assert_eq!(
            (plan.workers.role, &*plan.workers.name, plan.workers.window.0),
            (WorkerRole::Front, "condure", 8_192)
        );
        assert!(plan.control.listen.is_empty());
    }

    #[test]
    fn options_are_taken_in_every_form() {
        let plan = plan(
            "--listen 127.0.0.1:1,stream 127.0.0.1:2,req --zclient-stream ipc://a ipc://b --zclient-req=ipc://c \
             --zclient-connect --ipc-file-mode 660 --id x --workers 1 --req-maxconn 5 --stream-maxconn=6 --log-level 3 \
             --buffer-size 100 --messages-max 3 --stream-timeout 9 --tls-identities-dir /x --compression",
        );
        assert_eq!(routes(&plan), ["stream zhttp/ipc://a zhttp/ipc://b", "req zhttpreq/ipc://c"]);
        let listen: Vec<_> = plan.server.listen.iter().map(|listen| listen.route.clone().unwrap()).collect();
        assert_eq!(listen, ["stream", "req"]);
        let target = &plan.routes[0].targets[0];
        assert!(target.connect && target.ipc_file_mode == Some(0o660));
        assert_eq!((plan.server.client_max.get(), plan.server.shards, plan.workers.window.0), (11, 1, 100));
        assert!(plan.websocket.compression && plan.logging.level == Level::Debug);
    }

    #[test]
    fn ports_with_tls_have_their_certificates() {
        let both = plan("--listen 443,stream,tls 80 --tls-identities-dir /certs");
        assert_eq!(both.server.listen.iter().map(|listen| listen.tls).collect::<Vec<_>>(), [true, false]);
        assert_eq!(both.server.tls_certs, Some("/certs".into()));
        assert_eq!(plan("--listen 80").server.tls_certs, None);
    }

    #[test]
    fn what_cannot_be_served_is_said() {
        let refused = |text: &str| args(text.split_whitespace().map(str::to_owned)).unwrap_err().to_string();
        assert!(refused("--listen 443,tls,default-cert=x").contains("call the files default.crt"));
        assert!(refused("--listen 443,quic").contains("`quic` is unknown"));
        assert!(refused("--listen x").contains("must be `port`"));
        assert!(refused("--listen").contains("needs a value"));
        assert!(refused("--nonsense 1").contains("is unknown"));
        assert!(refused("--workers x").contains("must be a number"));
        assert_eq!(args(["--help".to_owned()]).unwrap(), Asked::Help);
    }
}
