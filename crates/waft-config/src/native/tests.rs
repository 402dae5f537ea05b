//! Layers, mistakes and their places.

use proptest::prelude::*;

use super::*;
use crate::value::{ByteSize, Level, OrOff};

fn load_text(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Result<Plan, Mistakes> {
    let sources = Sources {
        file: Some("etc/waft.toml".into()),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        sets: sets.iter().map(|set| (*set).to_owned()).collect(),
        routes: Vec::new(),
    };
    let files = |path: &Path| match path.to_str() {
        Some("etc/waft.toml") => Ok(text.to_owned()),
        Some("etc/routes") => Ok("* a:80\nbad\n".to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    load(&sources, &files)
}

fn plan(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Plan {
    load_text(text, env, sets).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn check_mistakes(text: &str, expected: &[&str]) {
    let mistakes = load_text(text, &[], &[]).expect_err(text);
    assert_eq!(mistakes.to_string(), expected.join("\n"), "{text}");
}

fn check_set(set: &str, expected: &str) {
    let mistakes = load_text("", &[], &[set]).expect_err(set);
    let key = set.split('=').next().unwrap_or_default();
    assert_eq!(mistakes.to_string(), format!("--set {key}: {expected}"));
}

#[test]
fn nothing_configured_is_the_default() {
    assert_eq!(load(&Sources::default(), &|_| panic!("no file is read")).unwrap(), Plan::default());
    assert_eq!(plan("", &[], &[]), Plan::default());
    let plan = Plan::default();
    assert_eq!(plan.server.listen[0].to_string(), "7999");
    assert_eq!(plan.control.listen[0].to_string(), "127.0.0.1:5561");
    assert_eq!(pushpin::Line(&plan.routes[0]).to_string(), "*,sig_key=changeme demo");
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let file = "[server]\nshards = 1\nclient_max = 1\ndrain_timeout = \"1s\"\n[logging]\nlevel = \"warn\"\n";
    let env = [("WAFT_SERVER__SHARDS", "2"), ("WAFT_SERVER__CLIENT_MAX", "2"), ("PATH", "/bin"), ("WAFT_PORT", "x")];
    let plan = plan(file, &env, &["server.shards=3", "server.shards = 4"]);
    assert_eq!(plan.server.shards, 4);
    assert_eq!(plan.server.client_max.get(), 2);
    assert_eq!(plan.server.drain_timeout.to_string(), "1s");
    assert_eq!(plan.logging.level, Level::Warn);
}

#[test]
fn outside_a_file_texts_need_no_quotes_and_lists_no_brackets() {
    let sets = [
        "server.listen=8000,unix:/run/w",
        "control.listen=[]",
        "control.token=12345",
        "grip.sig_iss=\"quoted\"",
        "limits.queue_bytes=64 KiB",
        "limits.idle_timeout=off",
        "zmq.sub=tcp://a:1",
        "log.items=7",
        "metrics.listen=9100",
        "route=[{ host = \"a\", targets = [\"b:80\"] }]",
    ];
    let plan = plan("", &[], &sets);
    assert_eq!(plan.server.listen.iter().map(ToString::to_string).collect::<Vec<_>>(), ["8000", "unix:/run/w"]);
    assert!(plan.control.listen.is_empty());
    assert_eq!(plan.control.token.as_deref(), Some("12345"));
    assert_eq!(plan.grip.sig_iss, "quoted");
    assert_eq!(plan.limits.queue_bytes, ByteSize(65_536));
    assert_eq!(plan.limits.idle_timeout, OrOff::Off);
    assert_eq!(plan.zmq.sub, ["tcp://a:1"]);
    assert_eq!(plan.log.items, 7);
    assert_eq!(plan.metrics.listen.as_ref().map(ToString::to_string).as_deref(), Some("9100"));
    assert_eq!(plan.routes[0].condition.host.to_string(), "a");
}

#[test]
fn unknown_keys_are_told_with_place_and_nearest_name() {
    check_mistakes("[server]\nshrads = 1\n", &["etc/waft.toml:2:1: unknown key `shrads`; did you mean `shards`?"]);
    check_mistakes("[sevrer]\nshards = 1\n", &["etc/waft.toml:2:1: unknown key `sevrer`; did you mean `server`?"]);
    check_mistakes(
        "routesfile = \"r\"\n",
        &["etc/waft.toml:1:1: unknown key `routesfile`; did you mean `routes_file`?"],
    );
    check_mistakes(
        "\n[[route]]\ntargets = [\"test\"]\n  hots = \"a\"\n",
        &["etc/waft.toml:4:3: unknown key `hots`; did you mean `host`?"],
    );
    check_mistakes(
        "[[route]]\ntargets = [{ address = \"test\", sll = true }]\n",
        &["etc/waft.toml:2:1: unknown key `sll`; did you mean `ssl`?"],
    );
    check_mistakes("[sockjs]\nxyzzy = 1\n", &["etc/waft.toml:2:1: unknown key `xyzzy`; known are client_url"]);
    check_set("server.shrads=1", "unknown key `shrads`; did you mean `shards`?");
    let mistakes = load_text("", &[("WAFT_SERVER__SHRADS", "1")], &[]).unwrap_err();
    assert_eq!(mistakes.to_string(), "WAFT_SERVER__SHRADS: unknown key `shrads`; did you mean `shards`?");
}

#[test]
fn wrong_values_are_told_with_key_and_expected_form() {
    check_mistakes(
        "[server]\ndrain_timeout = \"soon\"\nshards = \"x\"\nlisten = [\"a\"]\n",
        &[
            "etc/waft.toml:2:1: server.drain_timeout: `soon` is not a duration such as \"30s\", \"5m\" or \"100ms\"",
            "etc/waft.toml:4:1: server.listen: `a` is not an address: \"7999\", \"127.0.0.1:7999\", \"443?tls\" or \"unix:/path?mode=660\"",
            "etc/waft.toml:3:1: server.shards: invalid type: string \"x\", expected usize",
        ],
    );
    check_set("server.client_max=0", "server.client_max: invalid value: integer `0`, expected a nonzero usize");
    check_set(
        "limits.queue_bytes=lots",
        "limits.queue_bytes: `lots` is not a size such as 65536, \"64 KiB\" or \"1 MB\"",
    );
    check_set(
        "limits.idle_timeout=5",
        "limits.idle_timeout: `5` is not a duration such as \"30s\", \"5m\" or \"100ms\", or \"off\"",
    );
    check_set(
        "logging.level=loud",
        "logging.level: `loud` is not a level: \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
    );
    check_set(
        "forward.x_forwarded_for=chop",
        "forward.x_forwarded_for: `chop` is not a rule such as \"truncate:0,append\", \"append\" or \"\"",
    );
    check_set("server", "write it as section.key=value");
    check_mistakes("[[route]]\ntargets = [\"a\"]\n", &["etc/waft.toml:2:1: route.targets: `a`: target bad format"]);
    check_mistakes(
        "[[route]]\nheaders = [\"a\"]\ntargets = [\"test\"]\n",
        &["etc/waft.toml:2:1: route.headers: `a` is not a header such as \"Name: value\""],
    );
    check_mistakes("server = 5\n", &["etc/waft.toml:1:1: server: invalid type: integer `5`, expected struct Server"]);
}

#[test]
fn a_file_that_is_no_toml_is_told_with_its_place() {
    let mistakes = load_text("[server]\nshards = \n", &[], &[]).unwrap_err().to_string();
    assert!(mistakes.starts_with("etc/waft.toml:2:"), "{mistakes}");
    let sources = Sources { file: Some("nowhere".into()), ..Sources::default() };
    let error = load(&sources, &|_| Err(io::Error::from(io::ErrorKind::NotFound))).unwrap_err();
    assert_eq!(error.to_string(), "nowhere: cannot be read: entity not found");
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    for (text, expected) in [
        ("[server]\nlisten = []", "server.listen: no address for clients; name at least one, such as \"7999\""),
        (
            "[server]\nlisten = [\"443?tls\"]",
            "server.listen: `?tls` needs certificates; set server.tls_certs to their directory",
        ),
        ("[control]\ncert = \"c\"", "control.cert and control.key: one needs the other; set both or none"),
        (
            "[log]\nbytes = \"1 GiB\"",
            "log.bytes: one channel may not keep more than log.total_bytes; lower it or raise that",
        ),
        (
            "[[route]]\ntargets = [\"a:1,client_cert=c\"]",
            "target a:1: client_cert and client_key need each other; set both or none",
        ),
        (
            "routes_file = \"routes\"\n[[route]]\ntargets = [\"test\"]",
            "both [[route]] and routes_file are set; keep one of them",
        ),
        ("routes_file = \"none\"", "routes_file etc/none: cannot be read: entity not found"),
    ] {
        check_mistakes(text, &[&format!("etc/waft.toml: {expected}")]);
    }
    check_mistakes(
        "[[route]]\nhost = \"a\"\n\n[[route]]\ntargets = [\"test\"]\n[[route]]\ntargets = [\"demo\"]",
        &[
            "etc/waft.toml:1: must specify condition and at least one target",
            "etc/waft.toml:6: skipping duplicate condition",
        ],
    );
}

#[test]
fn a_routes_file_lies_beside_the_configuration_and_keeps_its_good_lines() {
    let plan = plan("routes_file = \"routes\"", &[], &[]);
    assert_eq!(plan.routes_file.as_deref(), Some(Path::new("etc/routes")));
    assert_eq!(plan.routes.len(), 1);
    assert_eq!(plan.notes, ["etc/routes:2: must specify condition and at least one target"]);
}

#[test]
fn routes_of_the_command_line_are_all_there_are() {
    let sources = Sources { routes: vec!["a b:80".to_owned(), "c d:80".to_owned()], ..Sources::default() };
    let plan = load(&sources, &|_| Err(io::Error::from(io::ErrorKind::NotFound))).unwrap();
    assert_eq!(plan.routes.len(), 2);
}

#[test]
fn options_of_all_routes_reach_each_route() {
    let text = "[grip]\nsig_key = \"k\"\n[defaults]\ndebug = true\nconnect_timeout = \"1s\"\n[websocket]\nping_interval = \"off\"\n\
                [[route]]\nhost = \"a\"\ntargets = [\"a:1\"]\n[[route]]\nhost = \"b\"\ndebug = false\nsig_key = \"\"\ntargets = [\"a:1\"]";
    let plan = plan(text, &[], &[]);
    let [a, b] = plan.routes.as_slice() else { panic!("two routes") };
    assert!(a.options.debug && !b.options.debug);
    assert_eq!(a.options.sig_key.as_deref(), Some("k"));
    assert_eq!(b.options.sig_key, None);
    assert_eq!(b.options.timeouts.connect, std::time::Duration::from_secs(1));
    assert_eq!(b.options.websocket.ping_interval, None);
}

proptest! {
    #[test]
    fn any_text_is_judged_without_panic(file in any::<String>(), set in "[a-z_.]{0,12}=?.{0,12}", route in any::<String>()) {
        let sources = Sources { file: Some("f".into()), sets: vec![set], routes: vec![route], ..Sources::default() };
        let _ = load(&sources, &|_| Ok(file.clone()));
    }

    #[test]
    fn text_that_looks_like_a_file_is_judged_without_panic(
        file in "(\\[(server|\\[route\\]|log)\\]\n|(host|listen|bytes|targets|shards) = (1|\"[a-z:?]{0,4}\"|\\[\"é:1\"\\]|\\{x=1\\})\n){0,8}",
    ) {
        let sources = Sources { file: Some("f".into()), ..Sources::default() };
        let _ = load(&sources, &|_| Ok(file.clone()));
    }
}
