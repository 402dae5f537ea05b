//! `waft egress`: the address policy for other programs, as an HTTP CONNECT proxy.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, Result};
use waft_outbound::egress::{Config, serve};
use waft_outbound::policy::{Exception, Pattern};

/// Where to listen, and what to let through.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Address for the programs that are to be protected.
    #[arg(long, default_value = "127.0.0.1:4750", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Let this through beyond public addresses: HOST, HOST:PORT, CIDR or CIDR:PORT; may be repeated.
    #[arg(long, value_name = "PLACE")]
    allow: Vec<String>,
    /// Refuse this beyond: `*.example.com`, `93.184.*`; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    deny: Vec<String>,
    /// Text that callers must show as the password of Proxy-Authorization.
    #[arg(long, env = "WAFT_EGRESS_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Log what would be refused, and let it through.
    #[arg(long)]
    report_only: bool,
}

pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    let parse = |text: &String| {
        Exception::parse(text).with_context(|| format!("--allow {text}: write HOST, HOST:PORT, CIDR or CIDR:PORT"))
    };
    let config = Config {
        listen: args.listen,
        allow: args.allow.iter().map(parse).collect::<Result<_>>()?,
        deny: args.deny.iter().map(|text| Pattern::parse(text)).collect(),
        password: args.password.clone(),
        report_only: args.report_only,
    };
    let _log = crate::logging::Log::start(&waft_config::Logging::default())?;
    serve(config)?;
    Ok(ExitCode::SUCCESS)
}
