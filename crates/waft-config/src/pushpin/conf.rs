//! The keys of `pushpin.conf`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use waft_route::pushpin::parse_routes_with;

use super::args::Args;
use super::ini::{Entry, entries};
use crate::mistake::{Mistake, Mistakes};
use crate::native::ReadFile;
use crate::plan::{File, Plan};
use crate::value::{ByteSize, Duration, Level, Listen, OrOff, SlowReader};

/// Where Debian's package keeps what is included.
const LIBDIR: &str = "/usr/lib/pushpin";

/// What the names of ipc sockets begin with.
const IPC_PREFIX: &str = "pushpin-";

/// The plan that `pushpin.conf` and the arguments mean.
pub(super) fn plan(path: &Path, text: &str, args: &Args, read: ReadFile<'_>) -> Result<Plan, Mistakes> {
    let mut reading = Reading::new(path, args);
    let mut found = reading.collect(path, text, read);
    reading.directories(&mut found);
    for (key, entry) in found {
        let value = reading.expand(&entry.value);
        if let Err(expected) = reading.take(&key, &value) {
            let place = format!("{}:{}", entry.file.display(), entry.line);
            reading.mistakes.push(Mistake { place, text: format!("{key}: `{value}` is not {expected}") });
        }
    }
    reading.finish(args, read)
}

/// A value found in one of the files.
struct Found {
    file: PathBuf,
    line: usize,
    value: String,
    included: bool,
}

/// What has been read so far.
struct Reading {
    plan: Plan,
    mistakes: Vec<Mistake>,
    config_dir: PathBuf,
    name: String,
    rundir: String,
    libdir: String,
    ipc_prefix: String,
    port_offset: u32,
    http_ports: Vec<String>,
    https_ports: Vec<String>,
    local_ports: Vec<String>,
    control_addr: String,
    control_port: Option<u16>,
    logdir: Option<String>,
    routes_file: String,
}

impl Reading {
    fn new(path: &Path, args: &Args) -> Self {
        let mut plan = File::default().into_plan();
        // What counts where a key is missing, as far as that differs from waft's own defaults.
        plan.control.listen.clear();
        plan.grip.sig_key.clear();
        plan.log.id_cache_ttl = OrOff::Off;
        plan.logging.access = true;
        plan.server.http2 = false;
        // Pushpin keeps no items, and drops what a slow client does not take.
        plan.defaults.log = false;
        plan.defaults.slow_client = SlowReader::Drop;
        plan.forward.set_x_forwarded_proto = crate::value::ForwardedProto::Off;
        // Pushpin trusts the links of its targets, unless they are marked.
        plan.outbound.rules = crate::value::OutboundRules::Open;
        plan.sockjs.client_url = "http://cdn.jsdelivr.net/sockjs/0.3.4/sockjs.min.js".to_owned();
        let id = args.id.map(|id| format!("p{id}-"));
        Self {
            plan,
            mistakes: Vec::new(),
            config_dir: path.parent().unwrap_or(Path::new("")).to_owned(),
            name: path.display().to_string(),
            rundir: "run".to_owned(),
            libdir: LIBDIR.to_owned(),
            ipc_prefix: id.unwrap_or_else(|| IPC_PREFIX.to_owned()),
            port_offset: args.id.map_or(0, |id| id * 10),
            http_ports: Vec::new(),
            https_ports: Vec::new(),
            local_ports: Vec::new(),
            control_addr: "127.0.0.1".to_owned(),
            control_port: None,
            logdir: None,
            routes_file: "routes".to_owned(),
        }
    }

    fn note(&mut self, key: &str, why: &str) {
        self.plan.notes.push(format!("{key} has no effect: {why}"));
    }

    /// All values by `section/key`: those of the file, then those of the included file that are missing.
    fn collect(&mut self, path: &Path, text: &str, read: ReadFile<'_>) -> BTreeMap<String, Found> {
        let mut found = BTreeMap::new();
        self.collect_file(&mut found, path, text, false);
        if let Some(libdir) = found.get("global/libdir") {
            self.libdir.clone_from(&libdir.value);
        }
        let Some(include) = found.remove("global/include").map(|include| include.value) else { return found };
        let path = match include.as_str() {
            "internal.conf" => Path::new(&self.libdir).join("internal.conf"),
            other => self.config_dir.join(self.expand(other)),
        };
        match read(&path) {
            Ok(text) => self.collect_file(&mut found, &path, &text, true),
            // It holds addresses between Pushpin's own processes, which are not needed here.
            Err(_missing) if path.ends_with("internal.conf") => {}
            Err(error) => self.mistakes.push(Mistake {
                place: self.name.clone(),
                text: format!("include {}: cannot be read: {error}", path.display()),
            }),
        }
        found
    }

    fn collect_file(&mut self, found: &mut BTreeMap<String, Found>, path: &Path, text: &str, included: bool) {
        let (list, strange) = entries(text);
        for line in strange {
            self.plan.notes.push(format!("{}:{line}: neither a section nor key=value; passed over", path.display()));
        }
        for Entry { section, key, value, line } in list {
            let key = format!("{section}/{key}");
            let value = Found { file: path.to_owned(), line, value, included };
            if included {
                found.entry(key).or_insert(value);
            } else {
                found.insert(key, value);
            }
        }
    }

    /// Takes out first what values are expanded with, and what only Pushpin's own processes need.
    fn directories(&mut self, found: &mut BTreeMap<String, Found>) {
        let mut take = |key: &str| found.remove(key).map(|found| found.value);
        let (rundir, old_rundir) = (take("global/rundir"), take("runner/rundir"));
        if let Some(rundir) = rundir.or(old_rundir) {
            self.rundir = rundir;
        }
        // The number of the instance makes a prefix of its own.
        let prefix = take("global/ipc_prefix").filter(|_| self.ipc_prefix == IPC_PREFIX);
        if let Some(prefix) = prefix {
            self.ipc_prefix = prefix;
        }
        if let Some(offset) = take("global/port_offset") {
            match offset.parse::<u32>() {
                Ok(offset) => self.port_offset = self.port_offset.saturating_add(offset),
                Err(_no_number) => self.mistakes.push(Mistake {
                    place: self.name.clone(),
                    text: format!("global/port_offset: `{offset}` is not a number"),
                }),
            }
        }
        found.remove("global/libdir");
        found.retain(|key, found| !(found.included && is_between_processes(key)));
    }

    fn expand(&self, value: &str) -> String {
        value
            .replace("{libdir}", &self.libdir)
            .replace("{rundir}", &self.rundir)
            .replace("{ipc_prefix}", &self.ipc_prefix)
    }

    /// Takes in one key; the error says what was expected.
    fn take(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        match key.split_once('/') {
            Some(("global", name)) => self.take_global(key, name, value),
            Some(("runner", name)) => self.take_runner(key, name, value),
            Some(("proxy", name)) => self.take_proxy(key, name, value),
            Some(("handler", name)) => self.take_handler(key, name, value),
            _ => {
                self.note(key, "its section is unknown");
                Ok(())
            }
        }
    }

    fn take_global(&mut self, key: &str, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "stats_connection_send" => self.plan.stats.connection_send = boolean(value)?,
            "stats_connection_ttl" => self.plan.stats.connection_ttl = seconds(value)?,
            _ => self.unknown(key),
        }
        Ok(())
    }

    fn take_runner(&mut self, key: &str, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "http_port" => self.http_ports = list(value),
            "https_ports" => self.https_ports = list(value),
            "local_ports" => self.local_ports = list(value),
            "logdir" => self.logdir = Some(value.to_owned()).filter(|dir| !dir.is_empty()),
            "log_level" => self.plan.logging.level = level(value)?,
            "client_buffer_size" => self.plan.limits.header_bytes = size(value)?,
            "client_maxconn" => self.plan.server.client_max = count(value)?,
            "allow_compression" => self.plan.websocket.compression = boolean(value)?,
            "services" => self.note(key, "one process does the work of all services"),
            "condure_bin" | "connmgr_bin" | "m2adapter_bin" | "m2sh_bin" | "mongrel2_bin" | "proxy_bin"
            | "handler_bin" | "zurl_bin" => self.note(key, "no other program is started"),
            _ => self.unknown(key),
        }
        Ok(())
    }

    fn take_proxy(&mut self, key: &str, name: &str, value: &str) -> Result<(), &'static str> {
        let plan = &mut self.plan;
        match name {
            "routesfile" => value.clone_into(&mut self.routes_file),
            "debug" => plan.defaults.debug = boolean(value)?,
            "auto_cross_origin" => plan.defaults.aco = boolean(value)?,
            "accept_x_forwarded_protocol" => plan.forward.accept_x_forwarded_proto = boolean(value)?,
            "set_x_forwarded_protocol" => {
                // Anything else means neither header.
                plan.forward.set_x_forwarded_proto = value.parse().unwrap_or(crate::value::ForwardedProto::Off);
            }
            "x_forwarded_for" => plan.forward.x_forwarded_for = rule(value)?,
            "x_forwarded_for_trusted" => plan.forward.x_forwarded_for_trusted = rule(value)?,
            "orig_headers_need_mark" => plan.forward.orig_headers_need_mark = list(value),
            "accept_pushpin_route" => plan.forward.accept_route_header = boolean(value)?,
            "cdn_loop" => plan.forward.cdn_loop = text(value),
            "log_from" => plan.logging.client = boolean(value)?,
            "log_user_agent" => plan.logging.user_agent = boolean(value)?,
            "sig_iss" => value.clone_into(&mut plan.grip.sig_iss),
            "sig_key" => value.clone_into(&mut plan.grip.sig_key),
            "upstream_key" => plan.grip.upstream_key = text(value),
            "sockjs_url" => value.clone_into(&mut plan.sockjs.client_url),
            "prometheus_port" | "prometheus_prefix" => {
                self.note(key, "one process counts for all; handler/prometheus_port serves its numbers");
            }
            "workers" => plan.server.shards = value.parse().map_err(|_no_number| "a number")?,
            "max_open_requests" => self.note(key, "runner/client_maxconn bounds the work"),
            "ipc_file_mode" => plan.zmq.ipc_file_mode = Some(word(value, "an octal mode such as 660")?),
            "stats_report_interval" | "stats_connections_max_ttl" => {
                self.note(
                    key,
                    "it was between Pushpin's processes; handler/stats_report_interval is the one that counts",
                );
            }
            "updates_check" | "organization_name" => self.note(key, "nothing is reported to anyone"),
            _ => self.unknown(key),
        }
        Ok(())
    }

    fn take_handler(&mut self, key: &str, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "push_in_spec" => self.plan.zmq.pull = text(value).map(|spec| self.shifted(&spec)),
            "push_in_sub_spec" | "push_in_sub_specs" => {
                self.plan.zmq.sub = list(value).iter().map(|spec| self.shifted(spec)).collect();
            }
            "push_in_sub_connect" => self.plan.zmq.sub_connect = boolean(value)?,
            "push_in_http_addr" => value.clone_into(&mut self.control_addr),
            "push_in_http_port" if value.is_empty() => {}
            "push_in_http_port" => self.control_port = Some(value.parse().map_err(|_no_port| "a port")?),
            "push_in_http_max_headers_size" => self.plan.control.header_max = size(value)?,
            "push_in_http_max_body_size" => self.plan.control.body_max = size(value)?,
            "stats_spec" => self.plan.zmq.stats = text(value).map(|spec| self.shifted(&spec)),
            "command_spec" => self.plan.zmq.command = text(value).map(|spec| self.shifted(&spec)),
            "ipc_file_mode" => self.plan.zmq.ipc_file_mode = Some(word(value, "an octal mode such as 660")?),
            "message_rate" => self.plan.limits.delivery_rate = unlimited_or(value)?,
            "message_hwm" => {
                let most = unlimited_or(value)?;
                let most = usize::try_from(most).ok().and_then(NonZeroUsize::new);
                self.plan.limits.delivery_queue = most.unwrap_or(self.plan.limits.delivery_queue);
            }
            "message_block_size" => self.plan.stats.block_size = ByteSize(unlimited_or(value)?),
            "message_wait" => self.plan.log.message_wait = millis(value)?,
            "id_cache_ttl" => self.plan.log.id_cache_ttl = seconds_or_off(value)?,
            "update_on_first_subscription" => self.plan.grip.update_on_first_subscription = boolean(value)?,
            "connection_subscription_max" => self.plan.limits.subscriptions_max = count(value)?,
            "subscription_linger" => self.plan.stats.subscription_linger = seconds(value)?,
            "stats_subscription_ttl" => self.plan.stats.subscription_ttl = seconds(value)?,
            "stats_report_interval" => self.plan.stats.report_interval = seconds_or_off(value)?,
            "stats_format" => self.plan.stats.format = word(value, "\"tnetstring\" or \"json\"")?,
            "prometheus_port" if value.is_empty() => {}
            "prometheus_port" => {
                let address =
                    value.strip_prefix("ipc://").map_or_else(|| value.to_owned(), |path| format!("unix:{path}"));
                self.plan.metrics.listen = Some(word(&address, "a port, an address with a port, or ipc://path")?);
                self.plan.metrics.pushpin_names = true;
            }
            "prometheus_prefix" => value.clone_into(&mut self.plan.metrics.prefix),
            "share_all" => {
                if boolean(value)? {
                    self.note(key, "each request is sent to the target for itself");
                }
            }
            "state_spec" => {
                if !value.is_empty() {
                    self.note(key, "there is no session state service");
                }
            }
            _ => self.unknown(key),
        }
        Ok(())
    }

    fn unknown(&mut self, key: &str) {
        if is_between_processes(key) {
            self.note(key, "it is an address between Pushpin's processes, and there is one process");
        } else {
            self.note(key, "the key is unknown");
        }
    }

    /// A ZeroMQ address with the port offset added.
    fn shifted(&self, spec: &str) -> String {
        let shifted = spec.strip_prefix("tcp://").and_then(|rest| {
            let (host, port) = rest.rsplit_once(':')?;
            Some(format!("tcp://{host}:{}", port.parse::<u32>().ok()?.saturating_add(self.port_offset)))
        });
        shifted.unwrap_or_else(|| spec.to_owned())
    }

    fn finish(mut self, args: &Args, read: ReadFile<'_>) -> Result<Plan, Mistakes> {
        self.listeners(args);
        self.control();
        self.logging(args);
        let base = self.plan.base_options();
        if args.routes.is_empty() {
            let path = self.config_dir.join(&self.routes_file);
            let shown = path.display().to_string();
            match read(&path) {
                Ok(text) => self.plan.take_lines(parse_routes_with(&text, &shown, &base)),
                Err(error) => {
                    self.mistakes.push(Mistake { place: shown, text: format!("routes file cannot be read: {error}") });
                }
            }
            self.plan.routes_file = Some(path);
        } else {
            self.plan.take_lines(parse_routes_with(&args.routes.join("\n"), "--route", &base));
        }
        if self.mistakes.is_empty() {
            self.plan.judge(&self.name, &mut self.mistakes);
        }
        if self.mistakes.is_empty() { Ok(self.plan) } else { Err(Mistakes(self.mistakes)) }
    }

    fn listeners(&mut self, args: &Args) {
        let mut addresses: Vec<String> = Vec::new();
        if let Some(port) = &args.port {
            addresses.push(port.clone());
        } else {
            addresses.append(&mut self.http_ports);
            addresses.extend(self.https_ports.iter().map(|port| format!("{port}?tls")));
            addresses.extend(self.local_ports.iter().map(|path| format!("unix:{path}")));
        }
        self.plan.server.listen.clear();
        for address in addresses {
            match address.parse::<Listen>() {
                Ok(listen) => {
                    if listen.tls {
                        self.plan.server.tls_certs = Some(self.config_dir.join("runner/certs"));
                    }
                    self.plan.server.listen.push(listen);
                }
                Err(_no_address) => self.refuse(format!("`{address}` is no address to listen on")),
            }
        }
        if self.plan.server.listen.is_empty() && self.mistakes.is_empty() {
            self.refuse("no server ports configured".to_owned());
        }
    }

    fn control(&mut self) {
        let Some(port) = self.control_port else { return };
        let port = u16::try_from(u32::from(port).saturating_add(self.port_offset)).unwrap_or(port);
        let host = &self.control_addr;
        let address = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]:{port}")
        } else if host.is_empty() {
            port.to_string()
        } else {
            format!("{host}:{port}")
        };
        match address.parse() {
            Ok(listen) => self.plan.control.listen = vec![listen],
            Err(_no_address) => {
                self.refuse(format!("handler/push_in_http_addr: `{address}` is no address to listen on"))
            }
        }
    }

    fn logging(&mut self, args: &Args) {
        if args.verbose {
            self.plan.logging.level = Level::Debug;
        }
        if let Some(text) = &args.loglevel {
            match level(text) {
                Ok(level) => self.plan.logging.level = level,
                Err(expected) => self.refuse(format!("--loglevel: `{text}` is not {expected}")),
            }
        }
        let in_dir = || self.logdir.as_ref().map(|dir| Path::new(dir).join(log_name(args.id)));
        self.plan.logging.file = match &args.logfile {
            Some(file) => Some(file.clone()),
            None if args.merge_output => None,
            None => in_dir(),
        };
    }

    fn refuse(&mut self, text: String) {
        self.mistakes.push(Mistake { place: self.name.clone(), text });
    }
}

fn log_name(id: Option<u32>) -> String {
    id.map_or_else(|| "pushpin.log".to_owned(), |id| format!("p{id}-pushpin.log"))
}

/// Whether a key is an address between Pushpin's own processes. The handler's doors are none.
fn is_between_processes(key: &str) -> bool {
    let doors = ["handler/push_in_spec", "handler/push_in_sub_spec", "handler/push_in_sub_specs"];
    let doors =
        doors.contains(&key) || ["handler/stats_spec", "handler/command_spec", "handler/state_spec"].contains(&key);
    !doors && (key.ends_with("_spec") || key.ends_with("_specs"))
}

fn boolean(value: &str) -> Result<bool, &'static str> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" | "" => Ok(false),
        _ => Err("true or false"),
    }
}

fn seconds(value: &str) -> Result<Duration, &'static str> {
    value.parse().map(Duration::from_secs).map_err(|_no_number| "a number of seconds")
}

fn seconds_or_off(value: &str) -> Result<OrOff<Duration>, &'static str> {
    let seconds = seconds(value)?;
    Ok(if seconds == Duration::from_secs(0) { OrOff::Off } else { OrOff::On(seconds) })
}

fn millis(value: &str) -> Result<Duration, &'static str> {
    value.parse().map(Duration::from_millis).map_err(|_no_number| "a number of milliseconds")
}

fn size(value: &str) -> Result<ByteSize, &'static str> {
    value.parse().map(ByteSize).map_err(|_no_number| "a number of bytes")
}

fn count(value: &str) -> Result<NonZeroUsize, &'static str> {
    value.parse().map_err(|_no_number| "a number above 0")
}

/// A number; 0 and what is below it mean that there is no limit.
fn unlimited_or(value: &str) -> Result<u64, &'static str> {
    let number: i64 = value.parse().map_err(|_no_number| "a number")?;
    Ok(u64::try_from(number).unwrap_or(0))
}

fn rule(value: &str) -> Result<crate::value::ForwardedFor, &'static str> {
    word(value, "a rule such as truncate:0,append")
}

fn word<T: FromStr>(value: &str, expected: &'static str) -> Result<T, &'static str> {
    value.parse().map_err(|_other| expected)
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(ToOwned::to_owned).collect()
}

/// A level as a number, or as a list of numbers by service, of which the highest counts.
fn level(value: &str) -> Result<Level, &'static str> {
    let numbers = value.split(',').map(|part| part.rsplit(':').next().unwrap_or(part).trim().parse::<u8>());
    let highest = numbers.collect::<Result<Vec<_>, _>>().ok().and_then(|levels| levels.into_iter().max());
    match highest.ok_or("a level from 0 to 4")? {
        0 => Ok(Level::Error),
        1 => Ok(Level::Warn),
        2 => Ok(Level::Info),
        3 => Ok(Level::Debug),
        4 => Ok(Level::Trace),
        _ => Err("a level from 0 to 4"),
    }
}
