//! A URL of a call and the location of a redirect from there: what is read means the same when it is read again, and the
//! hardened rules let no inner address through, however it is written.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use waft_outbound::policy::Policy;
use waft_outbound::target::{Host, Target};

fn check(policy: &Policy, target: &Target) {
    let shown = target.to_string();
    let again = Target::parse(shown.as_bytes()).unwrap_or_else(|error| panic!("{shown}: {error}"));
    assert_eq!(again, Target { userinfo: None, ..target.clone() });
    assert!(!target.path.bytes().any(|byte| byte <= b' ' || byte >= 0x7f), "{shown}");
    if policy.check_target(target).is_err() {
        return;
    }
    match &target.host {
        Host::Address(IpAddr::V4(address)) => assert!(
            !address.is_loopback() && !address.is_private() && !address.is_link_local() && !address.is_unspecified(),
            "{shown}"
        ),
        Host::Address(IpAddr::V6(address)) => {
            assert!(address.segments()[0] & 0xe000 == 0x2000 && address.to_ipv4().is_none(), "{shown}");
        }
        Host::Name(name) => assert!(name.contains('.') && !name.ends_with("localhost"), "{shown}"),
    }
    assert!(target.userinfo.is_none(), "{shown}");
}

fuzz_target!(|input: &[u8]| {
    let policy = Policy::hardened();
    let (url, location) = match input.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &b"/x"[..]),
    };
    let Ok(target) = Target::parse(url) else { return };
    check(&policy, &target);
    if let Ok(next) = target.join(location) {
        check(&policy, &next);
        let allowed = policy.check_redirect(&target, &next).is_ok();
        assert!(!allowed || target.scheme.is_websocket() == next.scheme.is_websocket());
    }
});
