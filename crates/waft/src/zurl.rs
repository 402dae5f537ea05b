//! `zurl`: the egress door, with a queue for durable requests if its configuration names a directory.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use waft_outbound::zurl::{Config, Queue};
use waft_webhooks::core::CoreLimits;
use waft_webhooks::{Webhooks, WebhooksConfig};

/// How long a try may take: what is durable is tried again.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Tries under way at once.
const IN_FLIGHT_MAX: usize = 1_000;

/// Bytes of a request's body, so that a record has room for its headers, too.
const BODY_MAX: usize = 8 << 20;

pub(crate) fn main(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    waft_outbound::zurl::main(arguments, queue)
}

/// The queue of a configuration. It keeps to the policy of the file, as all calls of this door do.
fn queue(config: &Config) -> Result<Option<Arc<dyn Queue>>, String> {
    let Some(directory) = config.webhooks_dir.clone() else { return Ok(None) };
    let started = Webhooks::start(WebhooksConfig {
        directory,
        disk_max: config.webhooks_disk_max,
        limits: CoreLimits::default(),
        policy: config.policy.clone(),
        allow_insecure: config.allow_ignore_tls_errors,
        timeout: TIMEOUT,
        in_flight_max: IN_FLIGHT_MAX,
        body_max: BODY_MAX,
        apps: Vec::new(),
        endpoints: Vec::new(),
    });
    let causes = |error: &dyn std::error::Error| match error.source() {
        Some(cause) => format!("webhooks_dir: {error}: {cause}"),
        None => format!("webhooks_dir: {error}"),
    };
    started.map(|webhooks| Some(webhooks as Arc<dyn Queue>)).map_err(|error| causes(&error))
}
