//! The command `m2sh`: loads configurations, shows them, and starts and stops servers.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use waft_config::mongrel2::below_chroot;
use waft_mongrel2::conf::{Conf, Server};
use waft_mongrel2::{AccessLine, HostRule, PathRule, control};
use waft_zhttp::Value;
use waft_zmq::{Kind, LocalContext, Message, SocketOptions};

use super::{database, read};
use crate::{pid_file, say, say_error};

/// The commands, with what they do.
const COMMANDS: [(&str, &str); 18] = [
    ("load", "reads a configuration into a database (-config FILE -db FILE)"),
    ("config", "the same as load"),
    ("shell", "reads commands and does them"),
    ("access", "prints an access log for people (-log FILE)"),
    ("servers", "lists the servers of a database (-db FILE)"),
    ("hosts", "lists the hosts of a server (-server NAME or -uuid UUID)"),
    ("routes", "lists the routes of a host (-server NAME -host NAME)"),
    ("commit", "adds a line to the log of a database (-what, -why, -where, -how)"),
    ("log", "prints the log of a database"),
    ("start", "starts servers (-every, -name, -host or -uuid)"),
    ("stop", "stops servers (the same; -murder for those that do not listen)"),
    ("reload", "lets servers read their configuration again (the same)"),
    ("running", "tells which servers run (the same)"),
    ("control", "talks to the control port of a server (the same)"),
    ("route", "tries a pattern (-match TEXT -pattern PATTERN)"),
    ("version", "prints the version"),
    ("help", "lists the commands"),
    ("uuid", "prints a new random uuid"),
];

/// Does what the arguments say.
pub(crate) fn main(args: Vec<String>) -> ExitCode {
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let Some((command, rest)) = args.split_first() else {
        bail!("name a command; `m2sh help` lists them");
    };
    let options = Options::parse(rest)?;
    match command.as_str() {
        "load" | "config" => load(&options),
        "servers" => servers(&options),
        "hosts" => hosts(&options),
        "routes" => routes(&options),
        "access" => access(&options),
        "commit" => commit(&options),
        "log" => log(&options),
        "start" => each_server(&options, start),
        "stop" => each_server(&options, stop),
        "reload" => each_server(&options, |server, options| signal(server, options, Signal::HUP)),
        "running" => each_server(&options, running),
        "control" => talk(&options),
        "route" => route(&options),
        "shell" => shell(),
        "version" => {
            say(concat!("waft ", env!("CARGO_PKG_VERSION"), " as m2sh\n"));
            Ok(())
        }
        "help" => help(&options),
        "uuid" => {
            say(&format!("{}\n", uuid()));
            Ok(())
        }
        other => bail!("`{other}` is no command; `m2sh help` lists them"),
    }
}

/// Options with one dash or two, those without a value too.
#[derive(Default)]
struct Options(HashMap<String, String>);

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut found = HashMap::new();
        let mut args = args.iter().peekable();
        while let Some(arg) = args.next() {
            let name = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'));
            let name = name.with_context(|| format!("`{arg}` is not an option; options begin with a dash"))?;
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, args.next_if(|next| !next.starts_with('-')).cloned()),
            };
            found.insert(name.to_owned(), value.unwrap_or_default());
        }
        Ok(Self(found))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn database(&self) -> PathBuf {
        self.get("db").unwrap_or("config.sqlite").into()
    }

    fn needed(&self, name: &str) -> Result<&str> {
        self.get(name).filter(|value| !value.is_empty()).with_context(|| format!("-{name} is missing"))
    }
}

fn load(options: &Options) -> Result<()> {
    let path = Path::new(options.get("config").unwrap_or("mongrel2.conf"));
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let conf = waft_mongrel2::conf::parse(&text).with_context(|| format!("{} cannot be used", path.display()))?;
    for note in &conf.notes {
        say_error(note);
    }
    let database = options.database();
    database::write(&database, &conf)?;
    database::add_log(&database, &who(), "load", "", "m2sh", "loaded from the command line")
}

fn conf(options: &Options) -> Result<Conf> {
    let path = options.database();
    read(&path)?.with_context(|| format!("{} is no configuration of Mongrel2", path.display()))
}

fn servers(options: &Options) -> Result<()> {
    let mut out = String::from("SERVERS:\n------\n");
    for server in &conf(options)?.servers {
        let _ = writeln!(out, "{} {} {}", server.name, server.default_host, server.uuid);
    }
    say(&out);
    Ok(())
}

/// The server that options name.
fn named<'a>(conf: &'a Conf, options: &Options) -> Result<&'a Server> {
    let is_meant = |server: &&Server| {
        options.get("server").is_some_and(|name| server.name == name)
            || options.get("uuid").is_some_and(|uuid| server.uuid == uuid)
            || (options.get("server").is_none() && options.get("host").is_some_and(|host| server.default_host == host))
    };
    conf.servers.iter().find(is_meant).context("no server is meant; name one with -server, -uuid or -host")
}

fn hosts(options: &Options) -> Result<()> {
    let conf = conf(options)?;
    let server = named(&conf, options)?;
    let mut out = format!("HOSTS in {}:\n-----\n", server.name);
    for (number, host) in server.hosts.iter().enumerate() {
        let _ = writeln!(out, "{} {}: {}", number + 1, host.name, host.matching);
    }
    say(&out);
    Ok(())
}

fn routes(options: &Options) -> Result<()> {
    let conf = conf(options)?;
    let server = named(&conf, options).or_else(|missing| match conf.servers.as_slice() {
        [only] => Ok(only),
        _ => Err(missing),
    })?;
    let wanted = options.needed("host")?;
    let host = server.hosts.iter().find(|host| host.name == wanted);
    let host = host.with_context(|| format!("the server {} has no host {wanted}", server.name))?;
    let mut out = format!("ROUTES in host {}, server {}\n-----\n", host.name, server.name);
    for (number, (path, _)) in host.routes.iter().enumerate() {
        let _ = writeln!(out, "{}: {path}", number + 1);
    }
    say(&out);
    Ok(())
}

fn access(options: &Options) -> Result<()> {
    let path = options.get("log").unwrap_or("logs/access.log");
    let file = std::fs::File::open(path).with_context(|| format!("{path} cannot be read"))?;
    for (number, line) in std::io::BufReader::new(file).split(b'\n').enumerate() {
        let line = Bytes::from(line.with_context(|| format!("{path} cannot be read"))?);
        let shown = AccessLine::read(&line, |line| format!("{line}\n"));
        say(&shown.with_context(|| format!("{path}:{}", number + 1))?);
    }
    Ok(())
}

fn commit(options: &Options) -> Result<()> {
    let or = |name, default| options.get(name).unwrap_or(default).to_owned();
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let (place, how) = (or("where", host.trim()), or("how", "m2sh"));
    database::add_log(&options.database(), &who(), options.needed("what")?, &place, &how, options.needed("why")?)
}

fn log(options: &Options) -> Result<()> {
    let mut out = String::from("LOG MESSAGES:\n------\n");
    for line in database::log(&options.database())? {
        out.push_str(&line);
        out.push('\n');
    }
    say(&out);
    Ok(())
}

/// Who is at work.
fn who() -> String {
    ["LOGNAME", "USER"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_else(|| "unknown".to_owned())
}

/// Does something with every server that is meant; each is tried.
fn each_server(options: &Options, act: impl Fn(&Server, &Options) -> Result<()>) -> Result<()> {
    let given = ["every", "name", "host", "uuid"].iter().filter(|name| options.has(name)).count();
    ensure!(given == 1, "say which servers: just one of -every, -name, -host and -uuid");
    let conf = conf(options)?;
    let is_meant = |server: &&Server| {
        options.has("every")
            || options.get("name").is_some_and(|name| server.name == name)
            || options.get("host").is_some_and(|host| server.default_host == host)
            || options.get("uuid").is_some_and(|uuid| server.uuid == uuid)
    };
    let meant: Vec<_> = conf.servers.iter().filter(is_meant).collect();
    ensure!(!meant.is_empty(), "there is no such server in {}", options.database().display());
    let mut failed = None;
    for server in meant {
        if let Err(error) = act(server, options) {
            say_error(&format!("{}: {error:#}", server.name));
            failed = Some(anyhow!("not all servers could be reached"));
        }
    }
    failed.map_or(Ok(()), Err)
}

fn start(server: &Server, options: &Options) -> Result<()> {
    let program = std::env::current_exe().context("the program cannot find itself")?;
    let mut command = if options.has("sudo") {
        let mut command = Command::new("sudo");
        // A name tells the program what it is to be, which sudo does not pass on.
        command.arg(program).args(["--config".as_ref(), options.database().as_os_str()]).arg(&server.uuid);
        command
    } else {
        let mut command = Command::new(program);
        std::os::unix::process::CommandExt::arg0(&mut command, "mongrel2");
        command.arg(options.database()).arg(&server.uuid);
        command
    };
    let status = command.status().context("the server cannot be started")?;
    ensure!(status.success(), "the server could not be started ({status})");
    Ok(())
}

/// The process of a server.
fn process(server: &Server) -> Result<Option<(Pid, PathBuf)>> {
    ensure!(!server.pid_file.is_empty(), "it has no pid_file, so that its process is not known");
    let path = below_chroot(server, &server.pid_file);
    Ok(pid_file::living(&path).and_then(Pid::from_raw).map(|pid| (pid, path)))
}

fn signal(server: &Server, _options: &Options, signal: Signal) -> Result<()> {
    let (pid, _) = process(server)?.context("it does not run")?;
    kill_process(pid, signal).with_context(|| format!("the process {} cannot be signalled", pid.as_raw_nonzero()))
}

fn stop(server: &Server, options: &Options) -> Result<()> {
    signal(server, options, if options.has("murder") { Signal::TERM } else { Signal::INT })
}

fn running(server: &Server, _options: &Options) -> Result<()> {
    match process(server)? {
        Some((pid, _)) => {
            say(&format!("mongrel2 at PID {} running.\n", pid.as_raw_nonzero()));
            Ok(())
        }
        None => bail!("it does not run"),
    }
}

/// Sends the commands that are typed to a control port.
fn talk(options: &Options) -> Result<()> {
    let conf = conf(options)?;
    let mut address = None;
    each_server(options, |_, _| Ok(()))?;
    let setting = conf.settings.iter().find(|(key, _)| key == "control_port").map(|(_, value)| value.clone());
    for server in &conf.servers {
        let own = (!server.control_port.is_empty()).then(|| server.control_port.clone());
        let is_meant = options.has("every")
            || options.get("name").is_some_and(|name| server.name == name)
            || options.get("host").is_some_and(|host| server.default_host == host)
            || options.get("uuid").is_some_and(|uuid| server.uuid == uuid);
        if is_meant && address.is_none() {
            address = Some(own.or(setting.clone()).unwrap_or_else(|| "ipc://run/control".to_owned()));
        }
    }
    let address = address.context("there is no such server")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(async move {
        let context = LocalContext::default();
        let connect = SocketOptions { connect: vec![address.clone()], linger_ms: 0, ..SocketOptions::new(Kind::Req) };
        let mut opened = context.open(&connect).with_context(|| format!("{address} cannot be connected to"))?;
        let is_terminal = std::io::stdin().is_terminal();
        for line in std::io::stdin().lock().lines() {
            let line = line?;
            let mut words = line.split_whitespace();
            let Some(command) = words.next() else { continue };
            if matches!(command, "quit" | "exit") {
                break;
            }
            let arguments: Vec<_> = words.filter_map(|word| word.split_once('=')).map(argument).collect();
            opened.sender.queue(Message::single(control::request(command, &arguments)))?;
            opened.sender.flush();
            let mut batch = Vec::new();
            let waiting = opened.receiver.receive(&mut batch);
            let answered = tokio::time::timeout(std::time::Duration::from_secs(5), waiting).await;
            ensure!(answered.is_ok(), "nobody answers at {address}");
            for frame in batch.iter().flat_map(|message| &message.frames) {
                say(&shown(frame));
            }
            if is_terminal {
                say("\n");
            }
        }
        Ok(())
    }))
}

fn argument<'a>((name, value): (&'a str, &str)) -> (&'a str, Value) {
    (name, value.parse().map_or_else(|_| control::text(value), Value::Integer))
}

/// A reply of the control port for people: a line of names, and one for each row.
fn shown(reply: &Bytes) -> String {
    let Ok(value) = Value::decode(reply) else { return "The answer cannot be read.\n".to_owned() };
    if let Some(error) = value.field("error") {
        return format!("ERROR: {}\n", plain(error));
    }
    let line = |row: &Value| match row {
        Value::List(values) => values.iter().map(plain).collect::<Vec<_>>().join("  "),
        other => plain(other),
    };
    let mut out = value.field("headers").map(line).unwrap_or_default();
    out.push('\n');
    if let Some(Value::List(rows)) = value.field("rows") {
        for row in rows {
            out.push_str(&line(row));
            out.push('\n');
        }
    }
    out
}

fn plain(value: &Value) -> String {
    match value {
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        _ => String::new(),
    }
}

fn route(options: &Options) -> Result<()> {
    let (text, pattern) = (options.needed("match")?, options.needed("pattern")?);
    let matches = if options.has("reversed") || options.has("suffix") {
        HostRule::parse(pattern)?.matches(&text.to_ascii_lowercase())
    } else {
        PathRule::parse(pattern)?.matches(text)
    };
    ensure!(matches, "'{text}' does not match '{pattern}'");
    say(&format!("'{text}' matches '{pattern}'\n"));
    Ok(())
}

/// Does the commands that are typed.
fn shell() -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let words: Vec<String> = line?.split_whitespace().map(ToOwned::to_owned).collect();
        match words.first().map(String::as_str) {
            None => {}
            Some("quit" | "exit") => break,
            Some("shell") => say_error("this is the shell"),
            Some(_) => {
                if let Err(error) = run(&words) {
                    say_error(&format!("{error:#}"));
                }
            }
        }
    }
    Ok(())
}

fn help(options: &Options) -> Result<()> {
    let wanted = options.get("on");
    let mut out = String::new();
    for (name, about) in COMMANDS.iter().filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name)) {
        let _ = writeln!(out, "{name:>8}  {about}");
    }
    ensure!(!out.is_empty(), "there is no such command; `m2sh help` lists them");
    say(&out);
    Ok(())
}

/// A random uuid (RFC 9562, version 4).
fn uuid() -> String {
    let bits = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Options {
        Options::parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn options_have_one_dash_or_two() {
        let options = options(&["-db", "a.sqlite", "--every", "-why=be cause"]);
        assert_eq!(options.get("db"), Some("a.sqlite"));
        assert!(options.has("every"));
        assert_eq!(options.get("why"), Some("be cause"));
        assert!(Options::parse(&["word".to_owned()]).is_err());
    }

    #[test]
    fn replies_are_shown_as_tables() {
        let reply = control::Reply::table(&["a", "b"], vec![vec![Value::Integer(1), control::text("x")]]);
        assert_eq!(shown(&reply.encode()), "a  b\n1  x\n");
        assert_eq!(shown(&control::Reply::error("C", "E").encode()), "ERROR: E\n");
    }
}
