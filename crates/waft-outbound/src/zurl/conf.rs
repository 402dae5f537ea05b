//! Reads zurl.conf.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::durable::Queue;
use crate::policy::{Exception, Mode, Pattern, Policy, Profile};
use crate::resolve::Lookup;

/// What the door is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The `from` address and the name of the stream socket.
    pub instance_id: Bytes,
    /// PULL endpoints for first packets.
    pub in_spec: Vec<String>,
    /// DEALER endpoints for later packets.
    pub in_stream_spec: Vec<String>,
    /// XPUB endpoints for answers.
    pub out_spec: Vec<String>,
    /// ROUTER endpoints for request/reply.
    pub in_req_spec: Vec<String>,
    /// Permissions of ipc files.
    pub ipc_file_mode: Option<u32>,
    /// The rules for calls.
    pub policy: Policy,
    /// Whether `ignore-policies` in a packet is honoured. Default true, as in Zurl; false in the hardened
    /// profile.
    pub allow_ignore_policies: bool,
    /// Whether `ignore-tls-errors` in a packet is honoured. Default as for policies.
    pub allow_ignore_tls_errors: bool,
    /// Exchanges under way, above which no first packet is read; none means no bound.
    pub max_open_requests: Option<usize>,
    /// Bytes of upload held for an exchange, and of the largest WebSocket frame. Default 200,000.
    pub buffer_size: u64,
    /// Bytes of a collected response whose request names no max-size. Default 100 MiB; 1 MiB in the hardened
    /// profile.
    pub collected_size_max: u64,
    /// Time without progress on the HTTP side. Default 600 s.
    pub timeout: Duration,
    /// Age at which a connection is not used again. Default 2 h.
    pub connection_max_time: Duration,
    /// High-water marks of the sockets.
    pub in_hwm: i32,
    /// High-water marks of the sockets.
    pub out_hwm: i32,
    /// How names are looked up.
    pub lookup: Lookup,
    /// Where metrics are served for Prometheus, if they are.
    pub metrics_listen: Option<SocketAddr>,
    /// The directory of the queue for durable requests; none if there are none.
    pub webhooks_dir: Option<PathBuf>,
    /// Bytes that the queue may take on disk. Default 10 GiB.
    pub webhooks_disk_max: u64,
    /// The queue itself, which whoever starts the door opens.
    pub queue: Option<Arc<dyn Queue>>,
    /// Options of the file that mean nothing here.
    pub unknown: Vec<String>,
}

/// Why a configuration is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The stream interface is there in part.
    #[error("in_spec, in_stream_spec and out_spec go together; set all three or none")]
    Incomplete,
    /// There is no way in.
    #[error("no endpoint is configured; set in_spec, in_stream_spec and out_spec, or in_req_spec")]
    NoEndpoint,
    /// A line that is no section, comment or assignment.
    #[error("line {line} is not `name=value`")]
    Syntax {
        /// The line, counted from 1.
        line: usize,
    },
    /// A value that its option cannot have.
    #[error("`{value}` is not a value of {name}; {hint}")]
    Value {
        /// The option.
        name: &'static str,
        /// The value.
        value: String,
        /// What it can have.
        hint: &'static str,
    },
}

impl Config {
    /// Reads the text of a zurl.conf. Options that Zurl does not know but this door does: `profile`
    /// (`zurl` or `hardened`), `exceptions`, `policy_mode` (`enforce` or `report-only`),
    /// `allow_ignore_policies`, `allow_ignore_tls_errors`, `collected_size_max`, `resolver` (`system` or
    /// `dns`), `name_servers` (addresses with ports, for `dns`), `self_addresses`, `metrics_listen`,
    /// `webhooks_dir`, `webhooks_disk_max`.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let values = Values(read_general(text)?);
        let hardened = values.choice("profile", "zurl", "hardened")?;
        let in_spec = values.list("in_spec");
        let in_stream_spec = values.list("in_stream_spec");
        let out_spec = values.list("out_spec");
        let in_req_spec = values.list("in_req_spec");
        let stream = [&in_spec, &in_stream_spec, &out_spec].map(|specs| !specs.is_empty());
        if stream.contains(&true) && stream.contains(&false) {
            return Err(ConfigError::Incomplete);
        }
        if !stream.contains(&true) && in_req_spec.is_empty() {
            return Err(ConfigError::NoEndpoint);
        }
        let instance_id = values.text("instance_id").map_or_else(random_id, str::to_owned).into();
        let open = values.integer("max_open_requests", -1)?;
        Ok(Self {
            instance_id,
            in_spec,
            in_stream_spec,
            out_spec,
            in_req_spec,
            ipc_file_mode: values.octal("ipc_file_mode")?,
            policy: values.policy(hardened)?,
            allow_ignore_policies: values.flag("allow_ignore_policies", !hardened)?,
            allow_ignore_tls_errors: values.flag("allow_ignore_tls_errors", !hardened)?,
            max_open_requests: usize::try_from(open).ok().filter(|open| *open > 0),
            buffer_size: values.positive("buffer_size", 200_000)?,
            collected_size_max: values
                .positive("collected_size_max", if hardened { 1_048_576 } else { 104_857_600 })?,
            timeout: Duration::from_secs(values.positive("timeout", 600)?),
            connection_max_time: Duration::from_secs(values.positive("connection_max_time", 7_200)?),
            in_hwm: values.hwm("in_hwm")?,
            out_hwm: values.hwm("out_hwm")?,
            lookup: values.lookup()?,
            metrics_listen: values.address("metrics_listen")?,
            webhooks_dir: values.text("webhooks_dir").map(PathBuf::from),
            webhooks_disk_max: values.positive("webhooks_disk_max", 10 << 30)?,
            queue: None,
            unknown: values.unknown(),
        })
    }
}

const ADDRESS_HINT: &str = "it is an address with a port, such as 127.0.0.1:9100";

/// Every option that means something.
const KNOWN: [&str; 28] = [
    "allow",
    "allow_ignore_policies",
    "allow_ignore_tls_errors",
    "allow_ipv6",
    "buffer_size",
    "collected_size_max",
    "connection_max_time",
    "defpolicy",
    "deny",
    "exceptions",
    "in_hwm",
    "in_req_spec",
    "in_spec",
    "in_stream_spec",
    "instance_id",
    "ipc_file_mode",
    "max_open_requests",
    "metrics_listen",
    "name_servers",
    "out_hwm",
    "out_spec",
    "policy_mode",
    "profile",
    "resolver",
    "self_addresses",
    "timeout",
    "webhooks_dir",
    "webhooks_disk_max",
];

struct Values(HashMap<String, String>);

impl Values {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn list(&self, name: &str) -> Vec<String> {
        let items = self.text(name).unwrap_or_default().split(',').map(str::trim);
        items.filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    fn integer(&self, name: &'static str, default: i64) -> Result<i64, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().map_err(|_cause| bad(name, text, "it is a whole number"))
    }

    fn positive(&self, name: &'static str, default: u64) -> Result<u64, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().ok().filter(|number| *number > 0).ok_or_else(|| bad(name, text, "it is a whole number above 0"))
    }

    fn hwm(&self, name: &'static str) -> Result<i32, ConfigError> {
        let number = self.integer(name, 1_000)?;
        i32::try_from(number)
            .ok()
            .filter(|number| *number >= 0)
            .ok_or_else(|| bad(name, &number.to_string(), "it is a number of messages"))
    }

    fn octal(&self, name: &'static str) -> Result<Option<u32>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
        mode.map(Some).ok_or_else(|| bad(name, text, "it is an octal number up to 777"))
    }

    fn flag(&self, name: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.text(name) {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(text) => Err(bad(name, text, "it is true or false")),
        }
    }

    fn address(&self, name: &'static str) -> Result<Option<SocketAddr>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_cause| bad(name, text, ADDRESS_HINT))
    }

    fn addresses(&self, name: &'static str) -> Result<Vec<SocketAddr>, ConfigError> {
        let parse = |text: &String| text.parse().map_err(|_cause| bad(name, text, ADDRESS_HINT));
        self.list(name).iter().map(parse).collect()
    }

    fn lookup(&self) -> Result<Lookup, ConfigError> {
        let servers = self.addresses("name_servers")?;
        Ok(match self.choice("resolver", "system", "dns")? {
            false => Lookup::System,
            true if servers.is_empty() => Lookup::Dns,
            true => Lookup::Servers(servers.into()),
        })
    }

    fn unknown(&self) -> Vec<String> {
        let mut unknown: Vec<String> = self.0.keys().filter(|name| !KNOWN.contains(&name.as_str())).cloned().collect();
        unknown.sort();
        unknown
    }

    /// False for the first word, which is the default, true for the second.
    fn choice(&self, name: &'static str, first: &str, second: &'static str) -> Result<bool, ConfigError> {
        match self.text(name) {
            None => Ok(false),
            Some(text) if text == first => Ok(false),
            Some(text) if text == second => Ok(true),
            Some(text) => Err(bad(name, text, "see the list of options for its words")),
        }
    }

    fn policy(&self, hardened: bool) -> Result<Policy, ConfigError> {
        let (allow, deny) = (self.list("allow"), self.list("deny"));
        // Judged in both profiles, so that a wrong word is never overlooked.
        let default_deny = self.choice("defpolicy", "allow", "deny")?;
        let mut policy = if hardened {
            let exception = |text: &String| {
                Exception::parse(text)
                    .ok_or_else(|| bad("exceptions", text, "it is HOST, HOST:PORT, CIDR or CIDR:PORT"))
            };
            let exceptions = self.list("exceptions").iter().map(exception).collect::<Result<_, _>>()?;
            let deny = deny.iter().map(|text| Pattern::parse(text)).collect();
            Policy { profile: Profile::Hardened { exceptions, deny }, ..Policy::hardened() }
        } else {
            Policy::zurl(!default_deny, &allow, &deny, false)
        };
        policy.self_addresses = self.addresses("self_addresses")?;
        policy.allow_ipv6 = self.flag("allow_ipv6", hardened)?;
        if self.choice("policy_mode", "enforce", "report-only")? {
            policy.mode = Mode::ReportOnly;
        }
        Ok(policy)
    }
}

fn bad(name: &'static str, value: &str, hint: &'static str) -> ConfigError {
    ConfigError::Value { name, value: value.to_owned(), hint }
}

/// The assignments of the section `General`, quotes removed.
fn read_general(text: &str) -> Result<HashMap<String, String>, ConfigError> {
    let mut values = HashMap::new();
    let mut in_general = true;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            in_general = section.trim_end_matches(']').eq_ignore_ascii_case("general");
            continue;
        }
        let (name, value) = line.split_once('=').ok_or(ConfigError::Syntax { line: index + 1 })?;
        if in_general {
            let value: String = value.trim().chars().filter(|letter| *letter != '"').collect();
            values.insert(name.trim().to_owned(), value);
        }
    }
    Ok(values)
}

/// A random UUID in braces, as Zurl names itself.
fn random_id() -> String {
    let number = (fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{number:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{{{}-{}-{}-{}-{}}}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "[General]\n# a comment\ninstance_id=\nin_spec=ipc:///tmp/in\nin_stream_spec=ipc:///tmp/in-stream\n\
        out_spec=ipc:///tmp/out\nin_req_spec=ipc:///tmp/req\nipc_file_mode=660\ndefpolicy=allow\nallow=\n\
        deny=127.*,10.*,192.168.*,*.local\nmax_open_requests=2000\nbuffer_size=200000\ntimeout=600\nin_hwm=1000\nout_hwm=1000\n";

    #[test]
    fn the_file_of_debian_is_read() {
        let config = Config::parse(DEBIAN).unwrap();
        assert_eq!(config.in_spec, ["ipc:///tmp/in"]);
        assert_eq!((config.ipc_file_mode, config.max_open_requests), (Some(0o660), Some(2_000)));
        assert_eq!((config.buffer_size, config.timeout), (200_000, Duration::from_secs(600)));
        assert!(!config.policy.allow_ipv6 && config.allow_ignore_policies);
        let Profile::Zurl { default_allow, allow, deny } = config.policy.profile else { panic!("the profile of Zurl") };
        assert!(default_allow && allow.is_empty());
        assert_eq!(deny.len(), 4);
        assert_eq!(config.instance_id.len(), 38);
    }

    #[test]
    fn quoted_lists_and_several_endpoints_are_read() {
        let config =
            Config::parse("in_req_spec=\"ipc:///tmp/a,tcp://127.0.0.1:1\"\ninstance_id=me\ndefpolicy=deny\n").unwrap();
        assert_eq!(config.in_req_spec, ["ipc:///tmp/a", "tcp://127.0.0.1:1"]);
        assert_eq!(config.instance_id, "me");
    }

    #[test]
    fn the_hardened_profile_trusts_no_packet() {
        let text = "profile=hardened\nexceptions=10.0.0.0/8:80,hooks.internal\nin_req_spec=ipc:///tmp/a\npolicy_mode=report-only\n";
        let config = Config::parse(text).unwrap();
        assert!(!config.allow_ignore_policies && !config.allow_ignore_tls_errors && config.policy.allow_ipv6);
        assert_eq!((config.policy.mode, config.collected_size_max), (Mode::ReportOnly, 1_048_576));
        assert!(matches!(config.policy.profile, Profile::Hardened { exceptions, .. } if exceptions.len() == 2));
    }

    #[test]
    fn every_option_is_in_the_guide() {
        let guide = include_str!("../../../../docs/zurl.md");
        let options = guide.split("## Options of zurl.conf").nth(1).unwrap().split("\n## ").next().unwrap();
        for option in KNOWN {
            assert!(options.contains(&format!("| `{option}` | ")), "{option} is not in docs/zurl.md");
        }
        assert_eq!(options.matches("\n| `").count(), KNOWN.len());
    }

    #[test]
    fn options_of_its_own_are_read_and_unknown_ones_are_told() {
        let text = "in_req_spec=a\nresolver=dns\nname_servers=127.0.0.1:53,[::1]:5353\nself_addresses=192.0.2.1:80\n\
                    metrics_listen=127.0.0.1:9100\nin_spek=b\nzzz=\n";
        let config = Config::parse(text).unwrap();
        assert!(matches!(&config.lookup, Lookup::Servers(servers) if servers.len() == 2));
        assert_eq!(config.metrics_listen, "127.0.0.1:9100".parse().ok());
        assert_eq!(config.policy.self_addresses, ["192.0.2.1:80".parse().unwrap()]);
        assert_eq!(config.unknown, ["in_spek", "zzz"]);
        assert!(Config::parse(DEBIAN).unwrap().unknown.is_empty());
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_hint() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Config::parse(text).unwrap_err().to_string(), expected, "{text}");
        };
        check("", "no endpoint is configured; set in_spec, in_stream_spec and out_spec, or in_req_spec");
        check("in_spec=a\nout_spec=b\n", "in_spec, in_stream_spec and out_spec go together; set all three or none");
        check("in_req_spec=a\nnonsense\n", "line 2 is not `name=value`");
        let words = "see the list of options for its words";
        check("in_req_spec=a\ndefpolicy=maybe\n", &format!("`maybe` is not a value of defpolicy; {words}"));
        check(
            "in_req_spec=a\nipc_file_mode=9\n",
            "`9` is not a value of ipc_file_mode; it is an octal number up to 777",
        );
        check("in_req_spec=a\nbuffer_size=0\n", "`0` is not a value of buffer_size; it is a whole number above 0");
        check("in_req_spec=a\ntimeout=x\n", "`x` is not a value of timeout; it is a whole number above 0");
        check(
            "in_req_spec=a\nmetrics_listen=9100\n",
            "`9100` is not a value of metrics_listen; it is an address with a port, such as 127.0.0.1:9100",
        );
        check("in_req_spec=a\nallow_ipv6=yes\n", "`yes` is not a value of allow_ipv6; it is true or false");
        let hint = "it is HOST, HOST:PORT, CIDR or CIDR:PORT";
        check(
            "in_req_spec=a\nprofile=hardened\nexceptions=a b\n",
            &format!("`a b` is not a value of exceptions; {hint}"),
        );
    }
}
