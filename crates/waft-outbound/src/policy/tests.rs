//! The table of hostile forms, and of those that must not be refused.

use super::*;
use crate::target::TargetError;

/// What became of a URL whose name resolves to the given addresses.
#[derive(Debug, PartialEq)]
enum Outcome {
    Called,
    Denied(Rule),
    Malformed(TargetError),
}

fn outcome(policy: &Policy, url: &str, answer: &[&str]) -> Outcome {
    let target = match Target::parse(url.as_bytes()) {
        Ok(target) => target,
        Err(error) => return Outcome::Malformed(error),
    };
    if let Err(denial) = policy.check_target(&target) {
        return Outcome::Denied(denial.rule);
    }
    let answer = match &target.host {
        Host::Address(address) => vec![*address],
        Host::Name(_) => answer.iter().map(|address| address.parse().unwrap()).collect(),
    };
    match policy.permitted(&target.host, target.port, &answer) {
        Ok(_) => Outcome::Called,
        Err(denial) => Outcome::Denied(denial.rule),
    }
}

fn check(policy: &Policy, url: &str, answer: &[&str], expected: Outcome) {
    assert_eq!(outcome(policy, url, answer), expected, "{url} {answer:?}");
}

/// Hosts that are inner addresses, however they are written.
const HOSTILE_ADDRESSES: [&str; 78] = [
    "127.0.0.1",
    "127.0.0.2",
    "127.1",
    "127.0.1",
    "127.255.255.255",
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "017700000001",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f.1",
    "00000177.0.0.1",
    "127.0.0.1.",
    "0",
    "0.0.0.0",
    "0x0",
    "0.0.0.1",
    "00",
    "10.0.0.1",
    "10.1",
    "0xa000001",
    "167772161",
    "012.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "169.254.170.2",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "0xa9.0xfe.0xa9.0xfe",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.1",
    "3232235521",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "１２７.０.０.１",
    "127。0。0。1",
    "①②⑦.⓪.⓪.①",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:10.0.0.1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b::8.8.8.8]",
    "[64:ff9b:1::1]",
    "[2002:7f00:1::]",
    "[2002:a00:1::1]",
    "[2002:808:808::1]",
    "[2001:0:7f00:1::]",
    "[2001::f5ff:fffe]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fe80::a9fe:a9fe]",
    "[fec0::1]",
    "[ff02::1]",
    "[2001:db8::1]",
    "[100::1]",
    "[2600::5efe:10.0.0.1]",
    "[5f00::1]",
];

/// Names that belong to inner networks.
const HOSTILE_NAMES: [&str; 18] = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "printer.local",
    "printer.local.",
    "db.internal",
    "metadata.google.internal",
    "x.intranet",
    "router.lan",
    "nas.home.arpa",
    "ad.corp",
    "tv.home",
    "abc.onion",
    "db",
    "metadata",
    "localhost.localdomain",
    "ｌｏｃａｌｈｏｓｔ",
];

/// URLs that are no URLs.
const MALFORMED: [&str; 22] = [
    "http://127.0.0.1\\@example.com/",
    "http://example.com\\.evil.com/",
    "http://exam ple.com/",
    "http://example.com\r\nHost: x/",
    "http://example.com%00.evil/",
    "http://%31%32%37.0.0.1/",
    "http://[fe80::1%25eth0]/",
    "http://[::1",
    "http://256.256.256.256/",
    "http://1.2.3.4.5/",
    "http://0x1ffffffff/",
    "http://foo.0x7f/",
    "http:///etc/passwd",
    "http://:80/",
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://a..b/",
    "file:///etc/passwd",
    "ftp://example.com/",
    "gopher://127.0.0.1:6379/_x",
    "javascript:alert(1)",
    "//example.com/",
];

#[test]
fn hostile_urls_are_refused_before_anything_is_sent() {
    let policy = Policy::hardened();
    for host in HOSTILE_ADDRESSES {
        for scheme in ["http", "https", "ws", "wss"] {
            check(&policy, &format!("{scheme}://{host}/"), &[], Outcome::Denied(Rule::Address));
        }
    }
    for host in HOSTILE_NAMES {
        check(&policy, &format!("http://{host}/"), &["93.184.216.34"], Outcome::Denied(Rule::Name));
    }
    for url in MALFORMED {
        let outcome = outcome(&policy, url, &["93.184.216.34"]);
        assert!(matches!(outcome, Outcome::Malformed(_)), "{url} {outcome:?}");
    }
}

#[test]
fn names_are_judged_by_their_addresses() {
    let policy = Policy::hardened();
    for address in [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "::1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
        "fd00::1",
    ] {
        check(&policy, "http://evil.example/", &[address], Outcome::Denied(Rule::Address));
        check(&policy, "http://evil.example/", &[address, "93.184.216.34"], Outcome::Called);
    }
    let strict = Policy { strict_answers: true, ..Policy::hardened() };
    check(&strict, "http://evil.example/", &["93.184.216.34", "10.0.0.1"], Outcome::Denied(Rule::Address));
}

#[test]
fn the_denied_addresses_of_a_name_are_left_out() {
    let host = Host::Name("evil.example".into());
    let answer = ["10.0.0.1", "93.184.216.34", "::ffff:8.8.8.8", "fe80::1"].map(|address| address.parse().unwrap());
    let permitted = Policy::hardened().permitted(&host, 80, &answer).unwrap();
    assert_eq!(permitted, ["93.184.216.34:80", "8.8.8.8:80"].map(|address| address.parse().unwrap()));
}

#[test]
fn good_urls_are_called() {
    let policy = Policy::hardened();
    for url in [
        "http://example.com/",
        "https://example.com/",
        "wss://example.com/",
        "http://example.com:8080/hook?x=1#y",
        "https://example.com:8443/",
        "http://example.com:3000/",
        "http://93.184.216.34/",
        "http://[2606:2800:220:1:248:1893:25c8:1946]/",
        "http://example.com./",
        "http://bücher.example/",
        "http://a-b_c.example.com/",
        "http://localhost.example.com/",
        "http://internal.example.com/",
        "http://mylocal.com/",
        "http://128.0.0.1/",
        "http://11.0.0.1/",
        "http://172.32.0.1/",
        "http://100.128.0.1/",
        "http://[2600::5efe:8.8.8.8]/",
    ] {
        check(&policy, url, &["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"], Outcome::Called);
    }
}

#[test]
fn ports_of_other_services_are_refused() {
    let policy = Policy::hardened();
    for port in SERVICE_PORTS.into_iter().chain([2, 24, 81, 442, 444, 1_023]) {
        check(&policy, &format!("http://example.com:{port}/"), &["93.184.216.34"], Outcome::Denied(Rule::Port));
    }
    check(&Policy::zurl(true, &[], &[], false), "http://example.com:22/", &["93.184.216.34"], Outcome::Called);
}

#[test]
fn user_and_password_are_refused() {
    check(&Policy::hardened(), "http://a:b@example.com/", &["93.184.216.34"], Outcome::Denied(Rule::Userinfo));
    check(&Policy::hardened(), "http://example.com@127.0.0.1/", &[], Outcome::Denied(Rule::Userinfo));
    check(&Policy::zurl(true, &[], &[], false), "http://a:b@example.com/", &["93.184.216.34"], Outcome::Called);
}

#[test]
fn exceptions_open_exactly_what_they_name() {
    let exceptions = ["hooks.internal:8022", "10.1.0.0/16", "127.0.0.1:22", "[fd00::/8]:80", "::1"];
    let exceptions = exceptions.iter().map(|text| Exception::parse(text).unwrap()).collect();
    let deny = vec![Pattern::parse("10.1.9.*")];
    let policy = Policy { profile: Profile::Hardened { exceptions, deny }, ..Policy::hardened() };
    check(&policy, "http://hooks.internal:8022/", &["10.0.0.1"], Outcome::Called);
    check(&policy, "http://hooks.internal:8023/", &["10.0.0.1"], Outcome::Denied(Rule::Name));
    check(&policy, "http://a.hooks.internal:8022/", &["10.0.0.1"], Outcome::Denied(Rule::Name));
    check(&policy, "http://evil.example:8022/", &["10.0.0.1"], Outcome::Denied(Rule::Address));
    check(&policy, "http://10.1.2.3/", &[], Outcome::Called);
    check(&policy, "http://example.com/", &["10.1.2.3"], Outcome::Called);
    check(&policy, "http://10.2.2.3/", &[], Outcome::Denied(Rule::Address));
    check(&policy, "http://10.1.9.3/", &[], Outcome::Denied(Rule::Address));
    check(&policy, "http://127.0.0.1:22/", &[], Outcome::Called);
    check(&policy, "http://127.0.0.1/", &[], Outcome::Denied(Rule::Address));
    check(&policy, "http://[fd00::5]/", &[], Outcome::Called);
    check(&policy, "http://[fd00::5]:8080/", &[], Outcome::Denied(Rule::Address));
    check(&policy, "http://[::1]/", &[], Outcome::Called);
    for text in ["", "a b", "10.0.0.0/33", "a:b", "a:70000", "[::1]x"] {
        assert_eq!(Exception::parse(text), None, "{text}");
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn the_decisions_of_zurl_are_kept() {
    let policy =
        Policy::zurl(true, &strings(&["10.0.0.5", "ok.local"]), &strings(&["127.*", "10/8", "*.local"]), false);
    check(&policy, "http://example.com/", &["93.184.216.34"], Outcome::Called);
    check(&policy, "http://192.168.0.1/", &[], Outcome::Called);
    check(&policy, "http://127.0.0.1/", &[], Outcome::Denied(Rule::Address));
    check(&policy, "http://10.0.0.4/", &[], Outcome::Denied(Rule::Address));
    check(&policy, "http://10.0.0.5/", &[], Outcome::Called);
    check(&policy, "http://a.local/", &["93.184.216.34"], Outcome::Denied(Rule::Name));
    check(&policy, "http://ok.local/", &["93.184.216.34"], Outcome::Called);
    check(&policy, "http://evil.example/", &["127.0.0.1"], Outcome::Denied(Rule::Address));
    let policy = Policy::zurl(false, &strings(&["example.com", "93.184.*"]), &strings(&["93.184.0.*"]), false);
    check(&policy, "http://example.com/", &["93.184.216.34"], Outcome::Called);
    check(&policy, "http://example.com/", &["93.184.0.1"], Outcome::Denied(Rule::Address));
    check(&policy, "http://example.com/", &["8.8.8.8"], Outcome::Denied(Rule::Address));
    check(&policy, "http://other.com/", &["93.184.216.34"], Outcome::Denied(Rule::Name));
}

#[test]
fn the_ways_around_zurls_patterns_are_closed() {
    let deny = strings(&["127.*", "10.*", "*.local", "denied.example"]);
    let policy = Policy::zurl(true, &[], &deny, true);
    for host in [
        "0.0.0.0",
        "0",
        "127.1",
        "0x7f.1",
        "2130706433",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::10.0.0.1]",
        "[2002:a00:1::1]",
        "[::]",
        "[::127.0.0.1]",
    ] {
        check(&policy, &format!("http://{host}/"), &[], Outcome::Denied(Rule::Address));
    }
    for host in ["name.local.", "NAME.LOCAL", "denied.example.", "DENIED.example"] {
        check(&policy, &format!("http://{host}/"), &["93.184.216.34"], Outcome::Denied(Rule::Name));
    }
}

#[test]
fn ipv6_can_be_switched_off() {
    let policy = Policy::zurl(true, &[], &[], false);
    check(&policy, "http://[2606::1]/", &[], Outcome::Denied(Rule::Ipv6));
    check(&policy, "http://example.com/", &["2606::1"], Outcome::Denied(Rule::Ipv6));
    check(&policy, "http://example.com/", &["2606::1", "8.8.8.8"], Outcome::Called);
    check(&policy, "http://[::ffff:8.8.8.8]/", &[], Outcome::Called);
}

#[test]
fn the_program_does_not_call_itself() {
    let policy = Policy { self_addresses: vec!["93.184.216.34:443".parse().unwrap()], ..Policy::open() };
    check(&policy, "https://me.example/", &["93.184.216.34"], Outcome::Denied(Rule::SelfAddress));
    check(&policy, "https://93.184.216.34/", &[], Outcome::Denied(Rule::SelfAddress));
    check(&policy, "http://me.example/", &["93.184.216.34"], Outcome::Called);
}

#[test]
fn redirects_keep_to_their_kind() {
    let check = |policy: &Policy, from: &str, to: &str, expected: Option<Rule>| {
        let (from, to) = (Target::parse(from.as_bytes()).unwrap(), Target::parse(to.as_bytes()).unwrap());
        assert_eq!(policy.check_redirect(&from, &to).err().map(|denial| denial.rule), expected, "{from} {to}");
    };
    let hardened = Policy::hardened();
    check(&hardened, "http://a.example/", "https://a.example/", None);
    check(&hardened, "https://a.example/", "http://a.example/", Some(Rule::Downgrade));
    check(&hardened, "wss://a.example/", "ws://a.example/", Some(Rule::Downgrade));
    check(&hardened, "ws://a.example/", "http://a.example/", Some(Rule::Scheme));
    check(&hardened, "http://a.example/", "ws://a.example/", Some(Rule::Scheme));
    check(&Policy::open(), "https://a.example/", "http://a.example/", None);
    check(&Policy::open(), "ws://a.example/", "http://a.example/", Some(Rule::Scheme));
}
