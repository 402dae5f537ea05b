//! May this be called? Pure rules: no socket, no resolver, no clock.
//!
//! A caller asks [`Policy::check_target`] before it resolves, [`Policy::permitted`] with the addresses that
//! came back, connects to one of those it returns and to nothing else, and asks
//! [`Policy::check_redirect`] for each further hop, which then goes through the same steps.

mod pattern;
mod ranges;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

pub use self::pattern::Pattern;
use self::pattern::parse_network;
use crate::target::{Host, Scheme, Target, canonical};

/// The rules for one group of callers.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How addresses and names are judged.
    pub profile: Profile,
    /// Whether a denial has an effect or is only logged.
    pub mode: Mode,
    /// Whether IPv6 addresses are used at all.
    pub allow_ipv6: bool,
    /// Whether public IPv4 addresses behind the well-known NAT64 prefix are accepted. Hardened profile.
    pub allow_nat64: bool,
    /// Whether the URL may carry user and password.
    pub allow_userinfo: bool,
    /// Whether a redirect may lead from https to http.
    pub allow_downgrade: bool,
    /// Refuse a name if any of its addresses is denied, instead of using the others.
    pub strict_answers: bool,
    /// Where this program itself listens, as seen from outside: never called.
    pub self_addresses: Vec<SocketAddr>,
    /// Ports that may be called; an empty list means all.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Ports that may not be called, whatever `ports` says.
    pub ports_denied: Vec<u16>,
}

/// How addresses and names are judged.
#[derive(Clone, Debug)]
pub enum Profile {
    /// Public addresses and names alone, for URLs that strangers gave.
    Hardened {
        /// What the operator allows beyond.
        exceptions: Vec<Exception>,
        /// What the operator denies beyond; wins over exceptions.
        deny: Vec<Pattern>,
    },
    /// Everything, for URLs that the operator gave.
    Open,
    /// The decisions of Zurl.
    Zurl {
        /// Whether what no pattern matches is allowed.
        default_allow: bool,
        /// Exceptions if the default is allow, the list of the allowed if it is deny.
        allow: Vec<Pattern>,
        /// The denied.
        deny: Vec<Pattern>,
    },
}

/// Whether denials have an effect.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// A denied call fails.
    #[default]
    Enforce,
    /// A denied call is logged and made: to learn what a policy would do.
    ReportOnly,
}

/// A hole in the hardened profile, made by the operator: `HOST`, `HOST:PORT`, `CIDR` or `CIDR:PORT`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exception {
    place: Place,
    port: Option<u16>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Place {
    Name(String),
    Network(IpNet),
}

/// A rule said no.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{rule} ({detail})")]
pub struct Denial {
    /// Which rule.
    pub rule: Rule,
    /// What it looked at.
    pub detail: String,
}

/// The rules, as they appear in logs and metrics.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Rule {
    /// The address is denied by pattern or is not public.
    Address,
    /// A redirect from https to http.
    Downgrade,
    /// The address family is switched off.
    Ipv6,
    /// The name is denied.
    Name,
    /// The port is denied.
    Port,
    /// A redirect to a scheme that may not be reached that way.
    Scheme,
    /// The program's own address.
    SelfAddress,
    /// User and password in the URL.
    Userinfo,
}

impl Rule {
    /// All rules.
    pub const ALL: [Self; 8] = [
        Self::Address,
        Self::Downgrade,
        Self::Ipv6,
        Self::Name,
        Self::Port,
        Self::Scheme,
        Self::SelfAddress,
        Self::Userinfo,
    ];
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Address => "egress-address-refused",
            Self::Downgrade => "egress-downgrade-refused",
            Self::Ipv6 => "egress-ipv6-refused",
            Self::Name => "egress-name-refused",
            Self::Port => "egress-port-refused",
            Self::Scheme => "egress-scheme-refused",
            Self::SelfAddress => "egress-self-refused",
            Self::Userinfo => "egress-userinfo-refused",
        })
    }
}

/// Ports of services that speak something else: the fetch standard's list, and common data stores.
pub const SERVICE_PORTS: [u16; 89] = [
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110,
    111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532,
    540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061,
    6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 9200, 10080, 11211, 27017, 3306, 5432, 2379,
];

/// Names that belong to inner networks, with everything below them.
const INNER_DOMAINS: [&str; 10] =
    ["localhost", "local", "internal", "intranet", "lan", "home.arpa", "corp", "home", "onion", "localdomain"];

impl Policy {
    /// For URLs that strangers gave: public names, addresses and ports alone.
    pub fn hardened() -> Self {
        Self {
            profile: Profile::Hardened { exceptions: Vec::new(), deny: Vec::new() },
            allow_ipv6: true,
            allow_userinfo: false,
            allow_downgrade: false,
            ports: vec![80..=80, 443..=443, 1_024..=65_535],
            ports_denied: SERVICE_PORTS.into(),
            ..Self::open()
        }
    }

    /// For URLs that the operator gave: no rule.
    pub fn open() -> Self {
        Self {
            profile: Profile::Open,
            mode: Mode::Enforce,
            allow_ipv6: true,
            allow_nat64: false,
            allow_userinfo: true,
            allow_downgrade: true,
            strict_answers: false,
            self_addresses: Vec::new(),
            ports: Vec::new(),
            ports_denied: Vec::new(),
        }
    }

    /// The decisions of Zurl.
    pub fn zurl(default_allow: bool, allow: &[String], deny: &[String], allow_ipv6: bool) -> Self {
        let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::parse(text)).collect();
        Self {
            profile: Profile::Zurl { default_allow, allow: patterns(allow), deny: patterns(deny) },
            allow_ipv6,
            ..Self::open()
        }
    }

    /// Whether the call may be tried. A literal address is judged here too, so that it is refused at once.
    pub fn check_target(&self, target: &Target) -> Result<(), Denial> {
        if target.userinfo.is_some() && !self.allow_userinfo {
            return Err(denial(Rule::Userinfo, "user and password in the url"));
        }
        self.check_place(&target.host, target.port)
    }

    /// Whether the host and port may be tried, of a target or of a `connect-host`.
    pub fn check_place(&self, host: &Host, port: u16) -> Result<(), Denial> {
        let exempt = self.exceptions().iter().any(|exception| exception.is_for(host, port));
        let port_allowed = self.ports.is_empty() || self.ports.iter().any(|range| range.contains(&port));
        if !exempt && (!port_allowed || self.ports_denied.contains(&port)) {
            return Err(denial(Rule::Port, port));
        }
        match host {
            Host::Address(address) => self.check_address(host, SocketAddr::new(*address, port)),
            Host::Name(name) => self.check_name(name, exempt),
        }
    }

    /// The addresses of a name (or the literal) that may be connected to, in their order. The error is the
    /// denial of the first one if none is left; an empty answer stays empty.
    pub fn permitted(&self, host: &Host, port: u16, addresses: &[IpAddr]) -> Result<Vec<SocketAddr>, Denial> {
        let mut permitted = Vec::with_capacity(addresses.len());
        let mut first = None;
        for address in addresses {
            let address = SocketAddr::new(canonical(*address), port);
            match self.check_address(host, address) {
                Ok(()) => permitted.push(address),
                Err(denial) => {
                    if self.strict_answers {
                        return Err(denial);
                    }
                    first.get_or_insert(denial);
                }
            }
        }
        match first {
            Some(denial) if permitted.is_empty() => Err(denial),
            _ => Ok(permitted),
        }
    }

    /// Whether a connection to `address` may serve a call to `host`. Asked before connecting and before a
    /// pooled connection is used again.
    pub fn check_address(&self, host: &Host, address: SocketAddr) -> Result<(), Denial> {
        let ip = canonical(address.ip());
        if self.self_addresses.contains(&SocketAddr::new(ip, address.port())) {
            return Err(denial(Rule::SelfAddress, address));
        }
        if ip.is_ipv6() && !self.allow_ipv6 {
            return Err(denial(Rule::Ipv6, ip));
        }
        match &self.profile {
            Profile::Open => Ok(()),
            Profile::Zurl { default_allow, allow, deny } => {
                let all = equivalents(ip);
                let any = |patterns: &[Pattern], ip| patterns.iter().any(|pattern| pattern.matches_address(ip));
                let allowed = if *default_allow {
                    all.iter().all(|ip| !any(deny, *ip) || any(allow, *ip))
                } else {
                    any(allow, ip) && !all.iter().any(|ip| any(deny, *ip))
                };
                if allowed { Ok(()) } else { Err(denial(Rule::Address, ip)) }
            }
            Profile::Hardened { exceptions, deny } => {
                if equivalents(ip).iter().any(|ip| deny.iter().any(|pattern| pattern.matches_address(*ip))) {
                    return Err(denial(Rule::Address, ip));
                }
                let exempt = |exception: &Exception| {
                    exception.is_for(host, address.port()) || exception.is_for(&Host::Address(ip), address.port())
                };
                if exceptions.iter().any(exempt) {
                    return Ok(());
                }
                match ranges::special(ip, self.allow_nat64) {
                    None => Ok(()),
                    Some(reason) => Err(denial(Rule::Address, format_args!("{ip}: {reason}"))),
                }
            }
        }
    }

    /// Whether a redirect may lead from `from` to `to`; `to` is then judged as any target.
    pub fn check_redirect(&self, from: &Target, to: &Target) -> Result<(), Denial> {
        if from.scheme.is_websocket() != to.scheme.is_websocket() {
            return Err(denial(Rule::Scheme, to.scheme.as_str()));
        }
        if from.scheme.is_tls() && !to.scheme.is_tls() && !self.allow_downgrade {
            return Err(denial(Rule::Downgrade, Scheme::as_str(to.scheme)));
        }
        Ok(())
    }

    fn check_name(&self, name: &str, exempt: bool) -> Result<(), Denial> {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches_name(name));
        let allowed = match &self.profile {
            Profile::Open => true,
            Profile::Zurl { default_allow: true, allow, deny } => !any(deny) || any(allow),
            Profile::Zurl { default_allow: false, allow, deny } => any(allow) && !any(deny),
            Profile::Hardened { deny, .. } => {
                let below =
                    |domain: &str| name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                let inner = !name.contains('.') || INNER_DOMAINS.iter().any(|domain| below(domain));
                !any(deny) && (exempt || !inner)
            }
        };
        if allowed { Ok(()) } else { Err(denial(Rule::Name, name)) }
    }

    fn exceptions(&self) -> &[Exception] {
        match &self.profile {
            Profile::Hardened { exceptions, .. } => exceptions,
            Profile::Open | Profile::Zurl { .. } => &[],
        }
    }
}

impl Exception {
    /// Reads `HOST`, `HOST:PORT`, `CIDR` or `CIDR:PORT`; an IPv6 network with a port is written
    /// `[NETWORK]:PORT`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (place, port) = match bracketed {
            Some((place, "")) => (place, None),
            Some((place, rest)) => (place, Some(rest.strip_prefix(':')?)),
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(place, port)| (place, Some(port))),
        };
        let port = match port {
            None => None,
            Some(port) => Some(port.parse().ok()?),
        };
        let place = match parse_network(place) {
            Some(network) => Place::Network(network),
            None => match Host::parse_bare(place.as_bytes()).ok()? {
                Host::Address(address) => Place::Network(address.into()),
                Host::Name(name) => Place::Name(name),
            },
        };
        Some(Self { place, port })
    }

    fn is_for(&self, host: &Host, port: u16) -> bool {
        self.port.is_none_or(|only| only == port)
            && match (&self.place, host) {
                (Place::Name(name), Host::Name(host)) => name == host,
                (Place::Network(network), Host::Address(address)) => network.contains(address),
                (Place::Name(_), Host::Address(_)) | (Place::Network(_), Host::Name(_)) => false,
            }
    }
}

/// The address, and every address it reaches under another name: those inside an IPv6 address, and
/// loopback for the unspecified one. A deny pattern for any of them denies it.
fn equivalents(ip: IpAddr) -> Vec<IpAddr> {
    let mut all = vec![ip];
    if let IpAddr::V6(address) = ip {
        all.extend(ranges::embedded(address).into_iter().flatten().map(IpAddr::V4));
    }
    if all.iter().any(|ip| ip.is_unspecified() || matches!(ip, IpAddr::V4(v4) if v4.octets().first() == Some(&0))) {
        all.push(Ipv4Addr::LOCALHOST.into());
    }
    all
}

fn denial(rule: Rule, detail: impl ToString) -> Denial {
    Denial { rule, detail: detail.to_string() }
}
