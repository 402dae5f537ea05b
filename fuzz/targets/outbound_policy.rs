//! Patterns and exceptions of an operator, and an address or name against them: no panic, and an exception is a hole for
//! what it names alone.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use waft_outbound::policy::{Exception, Pattern, Policy, Profile};
use waft_outbound::target::Host;

fuzz_target!(|input: &[u8]| {
    let Some((bits, text)) = input.split_first_chunk::<16>() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    let v6 = Ipv6Addr::from(*bits);
    let v4 = Ipv4Addr::new(bits[0], bits[1], bits[2], bits[3]);
    let pattern = Pattern::parse(text);
    pattern.matches_name(text);
    let deny = Policy::zurl(true, &[], &[text.to_owned()], true);
    for ip in [IpAddr::V4(v4), IpAddr::V6(v6)] {
        let host = Host::Address(ip.to_canonical());
        let address = SocketAddr::new(ip, 443);
        // What a denying pattern matches is denied.
        if pattern.matches_address(ip.to_canonical()) {
            assert!(deny.check_address(&host, address).is_err(), "{text} {ip}");
        }
        let Some(exception) = Exception::parse(text) else { continue };
        let profile = Profile::Hardened { exceptions: vec![exception], deny: vec![Pattern::parse("*")] };
        let closed = Policy { profile, ..Policy::hardened() };
        assert!(closed.check_address(&host, address).is_err(), "a denying pattern goes before exceptions");
    }
});
