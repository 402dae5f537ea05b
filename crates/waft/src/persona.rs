//! The names the binary answers to.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use clap::Parser;
use waft_config::Plan;
use waft_config::condure::Asked;

use crate::cli::{self, Cli};
use crate::serve::{self, Configuration};
use crate::{mongrel2, publish, say, zurl};

/// Does what the command line asks for, under the name it was called by.
pub(crate) fn run() -> Result<ExitCode> {
    let mut args = std::env::args();
    let name = args.next().unwrap_or_default();
    let name = Path::new(&name).file_name().and_then(|name| name.to_str()).unwrap_or("waft");
    match name {
        "pushpin" => pushpin(args),
        "mongrel2" => mongrel2::server::main(args.collect()),
        "m2sh" => Ok(mongrel2::m2sh::main(args.collect())),
        "condure" => condure(args),
        "zurl" => Ok(zurl::main(args)),
        "pushpin-publish" => publish::command(publish::Args::parse()),
        _ => cli::run(Cli::parse()),
    }
}

/// `condure`, with the options its users know.
fn condure(args: std::env::Args) -> Result<ExitCode> {
    let arguments: Vec<String> = args.collect();
    let plan = match waft_config::condure::args(arguments.clone())? {
        Asked::Help => {
            say(waft_config::condure::USAGE);
            return Ok(ExitCode::SUCCESS);
        }
        Asked::Version => {
            say(concat!("waft ", env!("CARGO_PKG_VERSION"), " as condure\n"));
            return Ok(ExitCode::SUCCESS);
        }
        Asked::Sizes => {
            say("no connection has a task or a buffer of a fixed size here; see docs/benchmarks.md for memory\n");
            return Ok(ExitCode::SUCCESS);
        }
        Asked::Run(_) => move || match waft_config::condure::args(arguments.clone())? {
            Asked::Run(plan) => Ok(*plan),
            Asked::Help | Asked::Sizes | Asked::Version => bail!("the arguments ask for no service"),
        },
    };
    serve::run(&Configuration { file: None, load: Box::new(plan), ready: Box::new(|| {}) })
}

/// `pushpin`, with the options its users know.
fn pushpin(args: std::env::Args) -> Result<ExitCode> {
    let args =
        waft_config::pushpin::args(args).map_err(|error| anyhow!("{error}\n\n{}", waft_config::pushpin::USAGE))?;
    if args.help {
        say(waft_config::pushpin::USAGE);
        return Ok(ExitCode::SUCCESS);
    }
    if args.version {
        say(concat!("waft ", env!("CARGO_PKG_VERSION"), " as pushpin\n"));
        return Ok(ExitCode::SUCCESS);
    }
    let file = args.config.clone();
    let load =
        move || -> Result<Plan> { Ok(waft_config::pushpin::load(&args, &|path| std::fs::read_to_string(path))?) };
    serve::run(&Configuration { file, load: Box::new(load), ready: Box::new(|| {}) })
}
