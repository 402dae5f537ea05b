//! Addresses that callbacks have no business with, and the IPv4 addresses hidden inside IPv6 ones.
//!
//! The rows come from the IANA special-purpose registries and from the metadata services of clouds.
//! Everything is compared as a number, never as text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 ranges: network, prefix length, what it is.
const V4: [(Ipv4Addr, u32, &str); 22] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this network"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "carrier NAT"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(168, 63, 129, 16), 32, "cloud metadata"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link local"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "protocol assignments"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "documentation"),
    (Ipv4Addr::new(192, 31, 196, 0), 24, "AS112"),
    (Ipv4Addr::new(192, 52, 193, 0), 24, "AMT"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "6to4 relay"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private"),
    (Ipv4Addr::new(192, 175, 48, 0), 24, "AS112"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "benchmark"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(233, 252, 0, 0), 24, "documentation"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved"),
    (Ipv4Addr::new(255, 255, 255, 255), 32, "broadcast"),
    (Ipv4Addr::new(100, 100, 100, 200), 32, "cloud metadata"),
];

/// IPv6 ranges inside 2000::/3; everything outside of it is refused anyway. The well-known NAT64 prefix is
/// not here, it depends on a setting.
const V6: [(Ipv6Addr, u32, &str); 6] = [
    // Teredo, benchmark, AMT, AS112, ORCHID, drone ids and whatever comes next.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "protocol assignments"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "documentation"),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "6to4"),
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48, "AS112"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "documentation"),
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16, "old test network"),
];

/// 2000::/3, all of the IPv6 internet.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// 64:ff9b::/96, an IPv4 address behind a translator.
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Why the address is not public, if it is not. `allow_nat64` accepts public IPv4 addresses behind the
/// well-known NAT64 prefix.
pub(crate) fn special(address: IpAddr, allow_nat64: bool) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => {
            let inside = embedded(address);
            if let Some(reason) = inside.iter().flatten().find_map(|inside| special_v4(*inside)) {
                return Some(reason);
            }
            if allow_nat64 && contains_v6(NAT64, address) {
                return None;
            }
            if !contains_v6(GLOBAL_V6, address) {
                return Some("outside of 2000::/3");
            }
            V6.iter().find(|(network, length, _)| contains_v6((*network, *length), address)).map(|row| row.2)
        }
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let matches = |network: &Ipv4Addr, length: u32| {
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        u32::from(*network) == u32::from(address) & mask
    };
    V4.iter().find(|(network, length, _)| matches(network, *length)).map(|row| row.2)
}

fn contains_v6((network, length): (Ipv6Addr, u32), address: Ipv6Addr) -> bool {
    let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
    u128::from(network) == u128::from(address) & mask
}

/// The IPv4 addresses that an IPv6 address stands for: mapped, compatible, translated (SIIT), NAT64, 6to4,
/// Teredo (server and client), ISATAP. An address can be of two forms at once.
pub(crate) fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let bits = u128::from(address);
    let at = |shift: u32| {
        let [.., a, b, c, d] = (bits >> shift).to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    let segments = address.segments();
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => [Some(at(0)), None],
        [0x64, 0xff9b, ..] => [Some(at(0)), None],
        [0x2002, ..] => [Some(at(80)), isatap(segments).then(|| at(0))],
        [0x2001, 0, ..] => {
            let client = Ipv4Addr::from(!u32::from(at(0)));
            [Some(at(64)), Some(client)]
        }
        _ if isatap(segments) => [Some(at(0)), None],
        _ => [None, None],
    }
}

fn isatap(segments: [u16; 8]) -> bool {
    let [_, _, _, _, universal, marker, _, _] = segments;
    marker == 0x5efe && matches!(universal, 0 | 0x200)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(addresses: &[&str], expected: bool) {
        for address in addresses {
            let reason = special(address.parse().unwrap(), false);
            assert_eq!(reason.is_some(), expected, "{address}: {reason:?}");
        }
    }

    #[test]
    fn the_first_and_the_last_address_of_each_range_are_special() {
        check(&["0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255"], true);
        check(
            &["127.0.0.0", "127.255.255.255", "169.254.0.0", "169.254.255.255", "172.16.0.0", "172.31.255.255"],
            true,
        );
        check(&["192.0.0.0", "192.0.0.255", "192.0.2.0", "192.31.196.1", "192.52.193.1", "192.88.99.1"], true);
        check(&["192.168.0.0", "192.168.255.255", "192.175.48.9", "198.18.0.0", "198.19.255.255"], true);
        check(&["198.51.100.7", "203.0.113.7", "224.0.0.0", "239.255.255.255", "240.0.0.0", "255.255.255.255"], true);
        check(&["168.63.129.16", "100.100.100.200"], true);
    }

    #[test]
    fn their_neighbours_are_public() {
        check(&["1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"], false);
        check(&["128.0.0.0", "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0"], false);
        check(&["172.15.255.255", "172.32.0.0", "192.0.1.0", "192.0.3.0", "192.167.255.255", "192.169.0.0"], false);
        check(&["198.17.255.255", "198.20.0.0", "203.0.112.255", "203.0.114.0", "223.255.255.255"], false);
        check(&["2600::1", "2001:200::1", "2a00:1450::1", "2003::1", "3ffd::1", "2620:4f:7fff::1"], false);
    }

    #[test]
    fn special_ipv6_addresses_are_known_in_every_form() {
        check(
            &["::", "::1", "::8.8.8.8", "::ffff:10.0.0.1", "::ffff:0:8.8.8.8", "64:ff9b::8.8.8.8", "64:ff9b::10.0.0.1"],
            true,
        );
        check(
            &["64:ff9b:1::1", "100::1", "100:0:0:1::1", "2001::1", "2001:0:7f00:1::1", "2001:1::1", "2001:2::1"],
            true,
        );
        check(&["2001:3::1", "2001:4:112::1", "2001:10::1", "2001:20::1", "2001:30::1", "2001:1ff:ffff::1"], true);
        check(&["2001:db8::1", "3fff::1", "2002:808:808::1", "2002:7f00:1::1", "2620:4f:8000::1", "5f00::1"], true);
        check(
            &[
                "fc00::1",
                "fd00:ec2::254",
                "fd20:ce::254",
                "fe80::1",
                "fe80::a9fe:a9fe",
                "fec0::1",
                "ff02::1",
                "4000::1",
            ],
            true,
        );
        check(&["2600::5efe:10.0.0.1", "2600::200:5efe:127.0.0.1"], true);
        check(&["2600::5efe:8.8.8.8", "2600::200:5efe:8.8.8.8"], false);
    }

    #[test]
    fn nat64_is_accepted_only_where_allowed_and_only_to_public_addresses() {
        assert_eq!(special("64:ff9b::8.8.8.8".parse().unwrap(), true), None);
        assert_eq!(special("64:ff9b::10.0.0.1".parse().unwrap(), true), Some("private"));
        assert_eq!(special("64:ff9b:1::8.8.8.8".parse().unwrap(), true), Some("outside of 2000::/3"));
    }

    #[test]
    fn the_address_inside_is_found() {
        let check = |outer: &str, expected: [&str; 2]| {
            let found =
                embedded(outer.parse().unwrap()).map(|inner| inner.map_or(String::new(), |inner| inner.to_string()));
            assert_eq!(found, expected, "{outer}");
        };
        check("::ffff:1.2.3.4", ["1.2.3.4", ""]);
        check("::1.2.3.4", ["1.2.3.4", ""]);
        check("::ffff:0:1.2.3.4", ["1.2.3.4", ""]);
        check("64:ff9b::1.2.3.4", ["1.2.3.4", ""]);
        check("2002:102:304::1", ["1.2.3.4", ""]);
        check("2001:0:102:304:0:0:fefd:fcfb", ["1.2.3.4", "1.2.3.4"]);
        check("2600::5efe:1.2.3.4", ["1.2.3.4", ""]);
        check("2600::1", ["", ""]);
    }
}
