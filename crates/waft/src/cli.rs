//! The command line of `waft`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use waft_config::{Plan, Sources};

use crate::serve::{self, Configuration};
use crate::{egress, mongrel2, probe, publish, say, webhooks, zurl};

/// The realtime gateway that lets any HTTP backend push data.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file: waft.toml, a pushpin.conf, a zurl.conf, or the configuration of Mongrel2 as text or database.
    /// Without one the embedded defaults count.
    #[arg(short, long, env = "WAFT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key, over file and environment: `--set server.listen=8080`.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// A line of a routes file; such lines replace all other routes: `--route '* localhost:8000'`.
    #[arg(long, value_name = "LINE")]
    route: Vec<String>,
    /// With a configuration of Mongrel2: the uuid of the server in it. Not needed if there is only one.
    #[arg(value_name = "UUID")]
    server: Option<String>,
    /// Log level: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Judge a configuration and say what would be served, or probe a backend.
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// Ask the backend at this URL to open a WebSocket over HTTP, and say what is wrong with its answer. Ends with
        /// 0 if it accepts, 1 if it answers wrongly or its route does not fit, and 3 if it does not answer.
        #[arg(long, value_name = "URL")]
        probe: Option<String>,
    },
    /// Publish an item over HTTP.
    Publish(publish::Args),
    /// Send webhooks, look at them, and send them again.
    Webhooks(webhooks::Args),
    /// Be a proxy (HTTP CONNECT) through which other programs reach public addresses alone.
    Egress(egress::Args),
    /// Print the native configuration that means the same as a pushpin.conf or a configuration of Mongrel2.
    Import {
        /// The file.
        file: PathBuf,
        /// With a configuration of Mongrel2: the uuid of the server in it. Not needed if there is only one.
        server: Option<String>,
    },
    /// Print the configuration.
    Config {
        #[command(flatten)]
        config: ConfigArgs,
        /// Every key with its default and what it means, instead of what is configured.
        #[arg(long)]
        print_defaults: bool,
    },
}

pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        None => {
            let file = cli.config.config.clone();
            if let Some(path) = file.as_deref().filter(|path| is_zurl(path)) {
                return Ok(zurl::main([format!("--config={}", path.display())]));
            }
            let config = cli.config;
            serve::run(&Configuration { file, load: Box::new(move || config.load()), ready: Box::new(|| {}) })
        }
        Some(Command::Check { config, probe }) => {
            let plan = config.load()?;
            if let Some(url) = probe {
                return probe::run(&url, &plan, config.is_given());
            }
            // What the types of the plan cannot know is judged by making of it what would run.
            crate::settings::from_plan(&plan)?;
            crate::settings::webhooks(&plan)?;
            say(&waft_config::report(&plan));
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Publish(args)) => publish::command(args),
        Some(Command::Webhooks(args)) => webhooks::command(args),
        Some(Command::Egress(args)) => egress::command(&args),
        Some(Command::Import { file, server }) => {
            say(&match mongrel2::read(&file)? {
                Some(conf) => waft_config::mongrel2::import(&conf, server.as_deref(), &file.display().to_string())?,
                None => waft_config::pushpin::import(&file, &read)?,
            });
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Config { print_defaults: true, .. }) => {
            say(&waft_config::print_defaults());
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Config { config, .. }) => {
            say(&waft_config::to_toml(&config.load()?));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Whether a configuration is that of an egress daemon: it is called zurl.conf.
fn is_zurl(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "zurl.conf")
}

fn read(path: &Path) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}

impl ConfigArgs {
    /// Whether routes were given to compare with, rather than the built-in demonstration.
    fn is_given(&self) -> bool {
        self.config.is_some() || !self.route.is_empty() || !self.set.is_empty()
    }

    /// Reads the configuration.
    pub(crate) fn load(&self) -> Result<Plan> {
        let mut sets = self.set.clone();
        if let Some(level) = &self.log_level {
            sets.push(format!("logging.level={level}"));
        }
        let native = self.config.as_deref().is_none_or(|path| path.extension().is_some_and(|kind| kind == "toml"));
        if let Some(path) = self.config.as_deref().filter(|_| !native)
            && let Some(conf) = mongrel2::read(path)?
        {
            anyhow::ensure!(
                self.set.is_empty() && self.route.is_empty(),
                "--set and --route work with a native configuration; `waft import {}` makes one",
                path.display()
            );
            let plan = waft_config::mongrel2::plan(&conf, self.server.as_deref(), &path.display().to_string());
            return plan.context("the mongrel2 configuration cannot be used");
        }
        anyhow::ensure!(self.server.is_none(), "a uuid names a server in a configuration of Mongrel2 only");
        if !native {
            let args = waft_config::pushpin::Args {
                config: self.config.clone(),
                loglevel: self.log_level.clone(),
                routes: self.route.clone(),
                merge_output: true,
                ..Default::default()
            };
            let path = self.config.as_deref().unwrap_or(Path::new("")).display().to_string();
            anyhow::ensure!(
                self.set.is_empty(),
                "--set works with a native configuration; `waft import {path}` makes one"
            );
            return waft_config::pushpin::load(&args, &read).context("the pushpin configuration cannot be used");
        }
        let sources =
            Sources { file: self.config.clone(), env: std::env::vars().collect(), sets, routes: self.route.clone() };
        waft_config::load(&sources, &read).context("the configuration cannot be used")
    }
}
