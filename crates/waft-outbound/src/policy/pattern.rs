//! The allow and deny patterns of zurl.conf.

use std::net::IpAddr;

use ipnet::IpNet;

/// One pattern: a subnet, a text with one `*`, or an exact text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern {
    network: Option<IpNet>,
    /// Text before and after the `*`; without one, the whole text.
    text: (String, Option<String>),
}

impl Pattern {
    /// Any text is a pattern. Short networks such as `10/8` are understood.
    pub fn parse(text: &str) -> Self {
        let lower = text.trim().to_ascii_lowercase();
        let halves = lower.split_once('*').map(|(before, after)| (before.to_owned(), Some(after.to_owned())));
        Self { network: parse_network(&lower), text: halves.unwrap_or_else(|| (plain(&lower).to_owned(), None)) }
    }

    /// Whether the pattern matches an address, as a number or as text.
    pub fn matches_address(&self, address: IpAddr) -> bool {
        match self.network {
            Some(network) => network.contains(&address),
            None => self.matches_name(&address.to_string()),
        }
    }

    /// Whether the pattern matches a name in lower case.
    pub fn matches_name(&self, name: &str) -> bool {
        match &self.text {
            (before, Some(after)) => {
                name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
            }
            (whole, None) => name == whole,
        }
    }
}

/// A trailing dot means the same name.
fn plain(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// `ADDRESS/LENGTH`, where trailing octets of an IPv4 address may be left out.
pub(crate) fn parse_network(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let length = length.parse().ok()?;
    let address = match address.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => {
            let missing = 3_usize.checked_sub(address.matches('.').count())?;
            format!("{}{}", address.trim_end_matches('.'), ".0".repeat(missing)).parse().ok()?
        }
    };
    IpNet::new(address, length).ok().map(|network| network.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_zurl() {
        let check = |pattern: &str, address: &str, expected: bool| {
            let found = Pattern::parse(pattern).matches_address(address.parse().unwrap());
            assert_eq!(found, expected, "{pattern} {address}");
        };
        check("10/8", "10.1.2.3", true);
        check("10/8", "11.1.2.3", false);
        check("192.168/16", "192.168.255.1", true);
        check("10.0.0.0/8", "10.1.2.3", true);
        check("fd00::/8", "fd12::1", true);
        check("fd00::/8", "10.1.2.3", false);
        check("127.*", "127.0.0.1", true);
        check("127.*", "12.7.0.1", false);
        check("*", "1.2.3.4", true);
        check("1.2.3.4", "1.2.3.4", true);
        check("1.2.3.4", "1.2.3.40", false);
        check("::1", "::1", true);
    }

    #[test]
    fn names_match_without_regard_to_case_and_trailing_dots() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(Pattern::parse(pattern).matches_name(name), expected, "{pattern} {name}");
        };
        check("*.LOCAL", "a.local", true);
        check("*.local", "local", false);
        check("example.com", "example.com", true);
        check("example.com.", "example.com", true);
        check("example.com", "www.example.com", false);
        check("a*a", "a", false);
        check("a*a", "aa", true);
        check("10/8", "10/8", true);
    }
}
