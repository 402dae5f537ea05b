//! The command line of `pushpin`.

use std::path::PathBuf;

/// What `pushpin --help` prints.
pub const USAGE: &str = "\
Usage: pushpin [options]

  --config=FILE         Read this pushpin.conf.
  --logfile=FILE        Write the log to this file.
  --loglevel=LEVEL      Log level, 0 to 4, or a list as in 2,proxy:3.
  --verbose             Same as --loglevel=3.
  -m, --merge-output    Log to standard output.
  --port=[ADDR:]PORT    Listen there instead of where the configuration says.
  --id=N                Number of this instance, when there are several on a machine.
  --route=LINE          Add a route; the routes file is not read then. May be repeated.
  --version             Print the version.
  --help                Print this text.
";

/// The arguments of `pushpin`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// The configuration to read. `None`: search.
    pub config: Option<PathBuf>,
    /// File to log to.
    pub logfile: Option<PathBuf>,
    /// Log level, or a list with levels by service.
    pub loglevel: Option<String>,
    /// Log debugging details.
    pub verbose: bool,
    /// Log to standard output rather than into the log directory.
    pub merge_output: bool,
    /// `port` or `addr:port` to listen on instead of all that is configured.
    pub port: Option<String>,
    /// Number of this instance.
    pub id: Option<u32>,
    /// Lines that replace the routes file.
    pub routes: Vec<String>,
    /// Print the version and end.
    pub version: bool,
    /// Print the usage and end.
    pub help: bool,
}

/// Arguments that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// The option takes no value.
    #[error("--{0} takes no value")]
    Excess(String),
    /// The option needs a value.
    #[error("--{0} needs a value; write --{0}=VALUE")]
    Missing(String),
    /// The number of the instance is none.
    #[error("--id must be a number from 0 to 5000, not `{0}`")]
    NoId(String),
    /// The option or argument is unknown.
    #[error("unknown argument `{0}`; see --help")]
    Unknown(String),
}

/// Reads the arguments of `pushpin`, without the name of the program.
///
/// # Errors
/// The first that cannot be understood.
pub fn args<I: IntoIterator<Item = String>>(given: I) -> Result<Args, ArgsError> {
    let mut args = Args::default();
    let mut given = given.into_iter();
    while let Some(arg) = given.next() {
        let (name, value) = match (arg.as_str(), arg.strip_prefix("--")) {
            ("-m", _) => ("merge-output", None),
            ("-h", _) => ("help", None),
            ("-v", _) => ("version", None),
            (_, Some(long)) => long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value))),
            _ => return Err(ArgsError::Unknown(arg)),
        };
        if let Some(flag) = args.flag(name) {
            *flag = true;
            if value.is_some() {
                return Err(ArgsError::Excess(name.to_owned()));
            }
            continue;
        }
        if !["config", "logfile", "loglevel", "port", "id", "route"].contains(&name) {
            return Err(ArgsError::Unknown(arg));
        }
        let value = value.map(ToOwned::to_owned).or_else(|| given.next());
        let value = value.filter(|value| !value.is_empty()).ok_or_else(|| ArgsError::Missing(name.to_owned()))?;
        args.option(name, value)?;
    }
    Ok(args)
}

impl Args {
    fn flag(&mut self, name: &str) -> Option<&mut bool> {
        match name {
            "help" => Some(&mut self.help),
            "merge-output" => Some(&mut self.merge_output),
            "verbose" => Some(&mut self.verbose),
            "version" => Some(&mut self.version),
            _ => None,
        }
    }

    fn option(&mut self, name: &str, value: String) -> Result<(), ArgsError> {
        match name {
            "config" => self.config = Some(value.into()),
            "logfile" => self.logfile = Some(value.into()),
            "loglevel" => self.loglevel = Some(value),
            "port" => self.port = Some(value),
            "id" => {
                // Ports go up by ten for each instance and must stay ports.
                let id = value.parse().ok().filter(|id| *id <= 5000);
                self.id = Some(id.ok_or(ArgsError::NoId(value))?);
            }
            _ => self.routes.push(value),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<Args, &str>) {
        let got = args(line.split_whitespace().map(ToOwned::to_owned));
        assert_eq!(got.map_err(|error| error.to_string()), expected.map_err(ToOwned::to_owned), "{line:?}");
    }

    #[test]
    fn every_option_is_read_in_both_forms() {
        check("", Ok(Args::default()));
        let all = Args {
            config: Some("c".into()),
            logfile: Some("l".into()),
            loglevel: Some("2,proxy:3".to_owned()),
            verbose: true,
            merge_output: true,
            port: Some("127.0.0.1:80".to_owned()),
            id: Some(3),
            routes: vec!["a=b".to_owned(), "c".to_owned()],
            version: true,
            help: true,
        };
        let equals = "--config=c --logfile=l --loglevel=2,proxy:3 --verbose --merge-output --port=127.0.0.1:80 --id=3 \
                      --route=a=b --route=c --version --help";
        check(equals, Ok(all.clone()));
        let spaces = "--config c --logfile l --loglevel 2,proxy:3 --verbose -m --port 127.0.0.1:80 --id 3 \
                      --route a=b --route c -v -h";
        check(spaces, Ok(all));
    }

    #[test]
    fn what_cannot_be_understood_is_told() {
        check("--config", Err("--config needs a value; write --config=VALUE"));
        check("--port=", Err("--port needs a value; write --port=VALUE"));
        check("--verbose=1", Err("--verbose takes no value"));
        check("--id=x", Err("--id must be a number from 0 to 5000, not `x`"));
        check("--id=5001", Err("--id must be a number from 0 to 5000, not `5001`"));
        check("--frob", Err("unknown argument `--frob`; see --help"));
        check("frob", Err("unknown argument `frob`; see --help"));
    }
}
