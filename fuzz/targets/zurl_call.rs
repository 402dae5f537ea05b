//! A first packet to the egress door: whatever it says, what comes of it is a call that has been read strictly, or a
//! condition.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use waft_outbound::target::Target;
use waft_outbound::zurl::{Config, Rules};

static RULES: OnceLock<[Rules; 2]> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    let rules = RULES.get_or_init(|| {
        ["in_req_spec=a\ndeny=10.*\n", "in_req_spec=a\nprofile=hardened\n"]
            .map(|text| Rules::new(&Config::parse(text).unwrap()))
    });
    for (hardened, rules) in [(false, &rules[0]), (true, &rules[1])] {
        let Ok(call) = rules.read_call(input) else { continue };
        let shown = call.target.to_string();
        assert_eq!(Target::parse(shown.as_bytes()), Ok(Target { userinfo: None, ..call.target.clone() }));
        assert!(!hardened || !call.ignore_tls_errors);
        assert!(call.headers.iter().all(|(_, value)| !value.is_empty()));
        call.policy.check_target(&call.target).ok();
    }
});
