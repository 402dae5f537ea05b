//! Tables of lines, and what they mean.

use proptest::prelude::*;

use super::*;
use crate::{Condition, HostPattern, JsonPMode, Proto, Severity, SockJs, Target, TargetAddress};

fn one(line: &str) -> Route {
    let (mut routes, problems) = parse_routes(line, "routes");
    assert!(problems.is_empty(), "{line:?}: {problems:?}");
    assert_eq!(routes.len(), 1, "{line:?}");
    routes.remove(0)
}

/// Reads `line`, compares with `expected`, writes it and reads it again.
fn check(line: &str, expected: impl FnOnce(&mut Route)) {
    let mut route = Route::new(Condition::default(), vec![Target::new(TargetAddress::Test)]);
    expected(&mut route);
    if !route.explicit_id {
        route.id = route.condition.automatic_id().into();
    }
    let got = one(line);
    assert_eq!(got, route, "{line:?}");
    assert_eq!(one(&Line(&got).to_string()), route, "{line:?} written as {}", Line(&got));
}

fn check_option(param: &str, expected: impl FnOnce(&mut RouteOptions)) {
    check(&format!("*,{param} test"), |route| expected(&mut route.options));
}

fn check_target(target: &str, expected: impl FnOnce(&mut Target)) {
    check(&format!("* {target}"), |route| {
        route.targets = vec![Target::new(TargetAddress::Http { host: "a".to_owned(), port: 80 })];
        expected(&mut route.targets[0]);
    });
}

fn check_problem(line: &str, expected: &str) {
    let (routes, problems) = parse_routes(&format!("* test\n{line}\n"), "routes");
    let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(texts, [format!("routes:2: {expected}")], "{line:?}");
    let skipped = problems.iter().any(|problem| problem.severity == Severity::Skipped);
    assert_eq!(routes.len(), if skipped { 1 } else { 2 }, "{line:?}: the other line stays");
}

#[test]
fn a_condition_is_read_with_every_param() {
    check("* test", |_| {});
    check("Example.COM test", |route| route.condition.host = HostPattern::Exact("example.com".to_owned()));
    check("[::1] test", |route| route.condition.host = HostPattern::Exact("::1".to_owned()));
    check("*.example.com test", |route| route.condition.host = HostPattern::Wildcard("example.com".to_owned()));
    check("*,proto=ws test", |route| route.condition.proto = Some(Proto::Ws));
    check("*,proto=http test", |route| route.condition.proto = Some(Proto::Http));
    check("*,ssl=yes test", |route| route.condition.ssl = Some(true));
    check("*,ssl=no test", |route| route.condition.ssl = Some(false));
    check("*,path_beg=/a%20b test", |route| route.condition.path_beg = Some("/a%20b".to_owned()));
    check("*,id=main test", |route| {
        route.explicit_id = true;
        route.id = "main".into();
    });
    check(",id=main test", |route| {
        route.condition.host = HostPattern::None;
        route.explicit_id = true;
        route.id = "main".into();
    });
}

#[test]
fn an_id_is_derived_from_the_condition() {
    for (line, id) in [
        ("* test", "*,*,*,*"),
        ("*,path_beg=/p test", "*,*,*,/p"),
        ("example.com,proto=ws,ssl=no,path_beg=/p test", "example.com,ws,no,/p"),
    ] {
        let route = one(line);
        assert_eq!(&*route.id, id, "{line:?}");
        assert_eq!(route.shown_id(), None, "{line:?}");
    }
}

#[test]
fn every_option_is_read() {
    check_option("sig_iss=me,sig_key=base64:aGk=", |options| {
        options.sig_iss = "me".to_owned();
        options.sig_key = Some("base64:aGk=".to_owned());
    });
    check_option("prefix=p-", |options| options.prefix = "p-".to_owned());
    check_option("orig_headers", |options| options.orig_headers = true);
    check_option("as_host=b:81", |options| options.as_host = Some("b:81".to_owned()));
    check_option("path_rem=4", |options| options.path_rem = 4);
    check_option("replace_beg=/q", |options| options.replace_beg = Some("/q".to_owned()));
    check_option(r#"header="X-A: b c, d",header=X-B:,header=X-C:u:v"#, |options| {
        let headers = [("X-A", "b c, d"), ("X-B", ""), ("X-C", "u:v")];
        options.headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    });
    check_option("debug", |options| options.debug = true);
    check_option("aco", |options| options.aco = true);
    check_option("jsonp_mode=basic,jsonp_cb=c,jsonp_body=b,jsonp_defcb=d,jsonp_defmethod=PUT", |options| {
        options.jsonp.mode = JsonPMode::Basic;
        options.jsonp.callback_param = "c".to_owned();
        options.jsonp.body_param = Some("b".to_owned());
        options.jsonp.default_callback = Some("d".to_owned());
        options.jsonp.default_method = Some("PUT".to_owned());
    });
    check_option("jsonp_mode=extended", |_| {});
    check_option("session", |options| options.session = true);
    check_option("sockjs=/s", |options| options.sockjs = Some(SockJs { path: "/s".to_owned(), as_path: None }));
    check_option("sockjs_as_path=/w,sockjs=/s", |options| {
        options.sockjs = Some(SockJs { path: "/s".to_owned(), as_path: Some("/w".to_owned()) });
    });
    check_option("no_grip", |options| options.no_grip = true);
    check_option("log_level=3", |options| options.log_level = Some(3));
}

#[test]
fn every_target_param_is_read() {
    check_target("a:80", |_| {});
    check_target("a:80,ssl,untrusted,trust_connect_host,insecure", |target| {
        target.ssl = true;
        target.untrusted = true;
        target.trust_connect_host = true;
        target.insecure = true;
    });
    check_target("a:80,host=b:81,sub=c,sub=\"d e\",over_http,one_event", |target| {
        target.host = Some("b:81".to_owned());
        target.subs = vec!["c".to_owned(), "d e".to_owned()];
        target.over_http = true;
        target.one_event = true;
    });
    check_target("a:80,ipc_file_mode=660,client_cert=/c.pem,client_key=/k.pem", |target| {
        target.ipc_file_mode = Some(0o660);
        target.client_cert = Some("/c.pem".into());
        target.client_key = Some("/k.pem".into());
    });
    check("* a:80 test zhttpreq/tcp://127.0.0.1:5 unix:/s", |route| {
        route.targets = ["a:80", "test", "zhttpreq/tcp://127.0.0.1:5", "unix:/s"]
            .map(|address| Target::new(address.parse().unwrap()))
            .to_vec();
    });
}

#[test]
fn a_target_is_read_alone() {
    let target = parse_target("a:80,over_http").unwrap();
    assert!(target.over_http);
    assert_eq!(TargetText(&target).to_string(), "a:80,over_http");
    for (text, expected) in [
        ("a:80,sl", "unknown target param `sl` has no effect"),
        ("a:80 b:80", "target bad format"),
        ("", "target bad format"),
        ("a:80,", "expecting prop"),
    ] {
        assert_eq!(parse_target(text).unwrap_err().text, expected, "{text:?}");
    }
}

#[test]
fn mistakes_are_told_with_file_and_line() {
    check_problem("*", "must specify condition and at least one target");
    check_problem("* # test", "must specify condition and at least one target");
    check_problem("* \"test", "unterminated quoted section");
    check_problem("*,a=\"\\x\" test", "unexpected escape character: x");
    check_problem("*, test", "expecting prop");
    check_problem("*,=a test", "empty prop name");
    check_problem(",debug test", "condition has no domain or id");
    check_problem("*,proto=ftp test", "proto must be set to 'http' or 'ws'");
    check_problem("*,ssl test", "ssl must be set to 'yes' or 'no'");
    check_problem("*,path_beg= test", "path_beg must not be empty");
    check_problem("*,id= test", "id must not be empty");
    check_problem("*,path_rem=x test", "path_rem must be a number");
    check_problem("*,log_level=-1 test", "log_level must be a number");
    check_problem("*,header=x test", "header must use format 'name:value'");
    check_problem("*,header=:x test", "header must use format 'name:value'");
    check_problem("*,jsonp_mode=x test", "jsonp_mode must be set to 'basic' or 'extended'");
    check_problem("* localhost", "target bad format");
    check_problem("* localhost:99999", "target invalid port");
    check_problem("* a:80,ipc_file_mode=9", "ipc_file_mode must be an octal number up to 777");
    check_problem("* a:80,sub=", "sub must not be empty");
}

#[test]
fn what_has_no_effect_is_told_and_the_route_is_used() {
    check_problem("a,frobnicate=1 test", "unknown condition param `frobnicate` has no effect");
    check_problem("a a:80,sl", "unknown target param `sl` has no effect");
    check_problem("a,sockjs_as_path=/x test", "sockjs_as_path has no effect without sockjs");
}

#[test]
fn options_of_all_routes_are_taken_over_and_overridden() {
    let defaults = RouteOptions { sig_key: Some("all".to_owned()), debug: true, ..RouteOptions::default() };
    let (routes, _) = parse_routes_with("* test\na,sig_key=own test\n", "routes", &defaults);
    let keys: Vec<_> = routes.iter().map(|route| (route.options.sig_key.as_deref(), route.options.debug)).collect();
    assert_eq!(keys, [(Some("all"), true), (Some("own"), true)]);
}

/// A value that a line can hold.
fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z/:*.\\[\\]=]{1,12}", "[^\n]{1,12}"].prop_map(|text| text.replace(['\r', '\n'], ""))
}

fn section() -> impl Strategy<Value = String> {
    let names = "id|proto|ssl|path_beg|header|sub|host|prefix|sockjs|log_level|aco|over_http|x";
    let param = (names, prop::option::of(value())).prop_map(|(name, value)| match value {
        Some(value) => format!(",{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
        None => format!(",{name}"),
    });
    ("(\\*|a\\.b|\"c d\"|a:80|test|zhttp/x|unix:/y z|)", prop::collection::vec(param, 0..4))
        .prop_map(|(value, params)| value + &params.concat())
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in any::<String>()) {
        let _ = parse_routes(&text, "routes");
    }

    #[test]
    fn text_that_looks_like_routes_is_read_without_panic(text in "[*a-z:0-9,=\"\\\\ #\n/.]{0,60}") {
        let _ = parse_routes(&text, "routes");
    }

    #[test]
    fn what_is_written_reads_the_same(sections in prop::collection::vec(section(), 2..4)) {
        let line = sections.join(" ");
        let (routes, _) = parse_routes(&line, "routes");
        for route in routes {
            let written = Line(&route).to_string();
            prop_assert_eq!(one(&written), route, "{} written as {}", line, written);
        }
    }
}
