//! The command line of Zurl.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use tracing::Level;

use super::log::Output;
use super::{Config, Queue, run};

/// Where the configuration is looked for.
const CONFIG: &str = "/etc/zurl.conf";

const HELP: &str = "\
Performs HTTP and WebSocket requests for programs that speak ZHTTP over ZeroMQ.

Usage: zurl [OPTIONS]

  --config=FILE    the configuration (default /etc/zurl.conf)
  --logfile=FILE   where to log (default standard output); SIGHUP opens it again
  --loglevel=N     0 errors, 1 warnings, 2 information (default), 3 debugging
  --verbose        the same as --loglevel=3
  --version        print the version
  --help           print this
";

#[derive(Debug, Eq, PartialEq)]
struct Options {
    config: PathBuf,
    logfile: Option<PathBuf>,
    level: Level,
}

#[derive(Debug, Eq, PartialEq)]
enum Command {
    Help,
    Run(Options),
    Version,
}

/// Opens the queue of a configuration, if it has one; an error is a clause for the operator.
pub type OpenQueue = fn(&Config) -> Result<Option<Arc<dyn Queue>>, String>;

/// The whole program: reads the command line (without the program's name) and the configuration, serves, and
/// returns the exit status. A start that fails is 1. `open` opens the queue for durable requests.
pub fn main(arguments: impl IntoIterator<Item = String>, open: OpenQueue) -> ExitCode {
    match start(arguments, open) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // With no log and no standard output there is nobody left to tell.
            writeln!(std::io::stderr(), "[ERR] {message}").ok();
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: impl IntoIterator<Item = String>, open: OpenQueue) -> Result<(), String> {
    let mut stdout = std::io::stdout();
    let options = match parse(arguments)? {
        Command::Help => return stdout.write_all(HELP.as_bytes()).map_err(|error| error.to_string()),
        Command::Version => {
            let version = concat!("Zurl 1.11.1 (waft ", env!("CARGO_PKG_VERSION"), ")");
            return writeln!(stdout, "{version}").map_err(|error| error.to_string());
        }
        Command::Run(options) => options,
    };
    let output =
        Output::open(options.logfile.as_deref()).map_err(|error| format!("cannot open the log file: {error}"))?;
    output.install(options.level);
    watch_hangups(&output).map_err(|error| format!("cannot watch for SIGHUP: {error}"))?;
    let path = options.config.display();
    let text = std::fs::read_to_string(&options.config)
        .map_err(|error| format!("cannot read {path}: {error}; name another file with --config"))?;
    let mut config = Config::parse(&text).map_err(|error| format!("{path}: {error}"))?;
    config.queue = open(&config)?;
    run(config).map_err(|error| error.to_string())
}

fn watch_hangups(output: &Output) -> std::io::Result<()> {
    let output = output.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut hangups = {
        let _inside = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?
    };
    let wait = move || {
        runtime.block_on(async {
            while hangups.recv().await.is_some() {
                output.reopen();
            }
        });
    };
    std::thread::Builder::new().name("waft-hangup".into()).spawn(wait).map(|_thread| ())
}

fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut options = Options { config: CONFIG.into(), logfile: None, level: Level::INFO };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        let mut value = || value.clone().or_else(|| arguments.next()).ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--config" => options.config = value()?.into(),
            "--logfile" => options.logfile = Some(value()?.into()),
            "--loglevel" => options.level = level(&value()?)?,
            "--verbose" => options.level = Level::DEBUG,
            "--version" => return Ok(Command::Version),
            "--help" | "-h" => return Ok(Command::Help),
            other => return Err(format!("unknown option {other}; --help lists the options")),
        }
    }
    Ok(Command::Run(options))
}

fn level(text: &str) -> Result<Level, String> {
    match text {
        "0" => Ok(Level::ERROR),
        "1" => Ok(Level::WARN),
        "2" => Ok(Level::INFO),
        "3" => Ok(Level::DEBUG),
        other => Err(format!("`{other}` is no log level; levels are 0 to 3")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_both_spellings() {
        let check = |line: &str, expected: Result<Command, &str>| {
            let parsed = parse(line.split_whitespace().map(str::to_owned));
            assert_eq!(parsed, expected.map_err(str::to_owned), "{line}");
        };
        let run = |config: &str, logfile: Option<&str>, level| {
            Ok(Command::Run(Options { config: config.into(), logfile: logfile.map(Into::into), level }))
        };
        check("", run(CONFIG, None, Level::INFO));
        check("--config=/a --logfile /b --loglevel=0", run("/a", Some("/b"), Level::ERROR));
        check("--loglevel 1 --verbose", run(CONFIG, None, Level::DEBUG));
        check("--version", Ok(Command::Version));
        check("--help", Ok(Command::Help));
        check("--config", Err("--config needs a value"));
        check("--loglevel=7", Err("`7` is no log level; levels are 0 to 3"));
        check("--frobnicate", Err("unknown option --frobnicate; --help lists the options"));
    }
}
