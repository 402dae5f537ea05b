//! What the sender is told to do.

use std::path::PathBuf;
use std::time::Duration;

use waft_outbound::policy::Policy;

use crate::core::{CoreLimits, EndpointSettings};

/// What the sender is told to do.
#[derive(Clone, Debug)]
pub struct WebhooksConfig {
    /// Where the queue lies.
    pub directory: PathBuf,
    /// Bytes that it may take on disk.
    pub disk_max: u64,
    /// Limits of the queue.
    pub limits: CoreLimits,
    /// What may be called.
    pub policy: Policy,
    /// Whether an endpoint may have any certificate.
    pub allow_insecure: bool,
    /// How long a try may take.
    pub timeout: Duration,
    /// Tries under way at once.
    pub in_flight_max: usize,
    /// Bytes of a message's body.
    pub body_max: usize,
    /// Applications that are always there.
    pub apps: Vec<ConfiguredApp>,
    /// Endpoints that are always there.
    pub endpoints: Vec<ConfiguredEndpoint>,
}

/// An application of the configuration.
#[derive(Clone, Debug)]
pub struct ConfiguredApp {
    /// Its name.
    pub id: String,
    /// Its token; none if only operators may act for it.
    pub token: Option<String>,
}

/// An endpoint of the configuration.
#[derive(Clone, Debug)]
pub struct ConfiguredEndpoint {
    /// Its name.
    pub id: String,
    /// The name of its application.
    pub app: String,
    /// Its secrets, the newest first.
    pub secrets: Vec<String>,
    /// Its settings.
    pub settings: EndpointSettings,
}

/// Why the sender cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store cannot be opened.
    #[error("the webhook queue cannot be opened")]
    Store(#[from] waft_store::Error),
    /// The thread cannot be had.
    #[error("the thread for webhooks cannot be started")]
    Thread(#[from] std::io::Error),
    /// An endpoint of the configuration cannot be used.
    #[error("the configured webhook endpoint `{id}` cannot be used: {cause}")]
    Endpoint {
        /// Its name.
        id: String,
        /// Why.
        cause: String,
    },
}
