//! Names to addresses, remembered for a while, one lookup per name at a time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::sync::OnceCell;

use crate::Metrics;

type Builder = hickory_resolver::ResolverBuilder<TokioRuntimeProvider>;

/// Shortest time an answer is used: a name whose answers expire at once is still asked once a second.
const POSITIVE_MIN: Duration = Duration::from_secs(1);

/// Longest time an answer is used, so that a move is noticed.
const POSITIVE_MAX: Duration = Duration::from_secs(60);

/// How long a failure is remembered.
const NEGATIVE: Duration = Duration::from_secs(5);

/// How long an answer without a lifetime of its own is used.
const SYSTEM: Duration = Duration::from_secs(10);

/// How names are looked up.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Lookup {
    /// By asking the servers of `/etc/resolv.conf`, after a look into `/etc/hosts`. Search domains are not
    /// applied.
    Dns,
    /// By asking these name servers over UDP, and over TCP where an answer is too long for that. `/etc/hosts` is
    /// looked into before.
    Servers(Arc<[SocketAddr]>),
    /// By the system's `getaddrinfo`, with whatever `nsswitch.conf` says, on a thread.
    #[default]
    System,
}

/// Looks names up for one thread.
#[derive(Debug)]
pub(crate) struct Resolver {
    dns: Option<TokioResolver>,
    names: RefCell<HashMap<String, Rc<OnceCell<Answer>>>>,
    names_max: usize,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Answer {
    addresses: Rc<[IpAddr]>,
    until: Instant,
}

impl Resolver {
    pub(crate) fn new(lookup: &Lookup, names_max: usize, metrics: Arc<Metrics>) -> Self {
        let built = match lookup {
            Lookup::System => None,
            Lookup::Dns => Some(build_dns(TokioResolver::builder_tokio())),
            Lookup::Servers(servers) => Some(build_dns(Ok(builder_for(servers)))),
        };
        let dns = built.and_then(|built| {
            built
                .map_err(|error| tracing::warn!(%error, "Cannot ask name servers, so getaddrinfo is used for names."))
                .ok()
        });
        Self { dns, names: RefCell::default(), names_max, metrics }
    }

    /// The addresses of a name; none if there are none or the lookup failed.
    pub(crate) async fn resolve(&self, name: &str, now: Instant) -> Rc<[IpAddr]> {
        if name == "localhost" || name.ends_with(".localhost") {
            // RFC 6761 section 6.3: never asked of anyone.
            return Rc::new([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let cell = self.cell(name, now);
        let answer = cell.get_or_init(|| async {
            let (addresses, lifetime) = self.look_up(name, now).await;
            let lifetime = if addresses.is_empty() { NEGATIVE } else { lifetime };
            Answer { addresses, until: now + lifetime }
        });
        Rc::clone(&answer.await.addresses)
    }

    fn cell(&self, name: &str, now: Instant) -> Rc<OnceCell<Answer>> {
        let mut names = self.names.borrow_mut();
        if let Some(cell) = names.get(name)
            && cell.get().is_none_or(|answer| answer.until > now)
        {
            return Rc::clone(cell);
        }
        if names.len() >= self.names_max {
            names.retain(|_, cell| cell.get().is_some_and(|answer| answer.until > now));
            if names.len() >= self.names_max {
                names.clear();
            }
        }
        let cell = Rc::new(OnceCell::new());
        names.insert(name.to_owned(), Rc::clone(&cell));
        cell
    }

    async fn look_up(&self, name: &str, now: Instant) -> (Rc<[IpAddr]>, Duration) {
        self.metrics.looked_up();
        let Some(dns) = &self.dns else {
            let found = tokio::net::lookup_host((name, 0)).await;
            let addresses = found.map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default();
            return (deduplicate(addresses), SYSTEM);
        };
        // The trailing dot keeps search domains away.
        match dns.lookup_ip(format!("{name}.")).await {
            Ok(found) => {
                let lifetime = found.valid_until().saturating_duration_since(now);
                (deduplicate(found.iter().collect()), lifetime.clamp(POSITIVE_MIN, POSITIVE_MAX))
            }
            Err(error) => {
                tracing::debug!(name, %error, "A name has no address.");
                (Rc::new([]), NEGATIVE)
            }
        }
    }
}

fn build_dns(builder: Result<Builder, NetError>) -> Result<TokioResolver, NetError> {
    let mut builder = builder?;
    let options = builder.options_mut();
    options.ndots = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    // Answers are remembered here, where the bounds on their lifetime are.
    options.cache_size = 0;
    builder.build()
}

fn builder_for(servers: &[SocketAddr]) -> Builder {
    let mut config = ResolverConfig::from_name_servers(Vec::new());
    for server in servers {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        config.add_name_server(NameServerConfig::new(server.ip(), true, connections.into()));
    }
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
}

fn deduplicate(addresses: Vec<IpAddr>) -> Rc<[IpAddr]> {
    let mut unique: Vec<IpAddr> = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    unique.into()
}
