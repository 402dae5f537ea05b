//! Files as people have them, and what they mean.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;
use crate::native;
use crate::value::{ByteSize, Duration, ForwardedProto, Level, OrOff, StatsFormat};

/// A configuration with what the usual one sets.
const USUAL: &str = "\
[global]
include={libdir}/internal.conf
rundir=/var/run/pushpin
ipc_prefix=pushpin-
port_offset=0
stats_connection_ttl=120
[runner]
services=condure,pushpin-proxy,pushpin-handler
http_port=7999
logdir=/var/log/pushpin
log_level=2
client_buffer_size=8192
client_maxconn=50000
zurl_bin=zurl
[proxy]
routesfile=routes
debug=false
set_x_forwarded_protocol=proto-only
x_forwarded_for=
sig_iss=pushpin
sig_key=changeme
updates_check=off
[handler]
push_in_spec=tcp://127.0.0.1:5560
push_in_sub_specs=tcp://127.0.0.1:5562
push_in_http_addr=127.0.0.1
push_in_http_port=5561
stats_spec=ipc://{rundir}/{ipc_prefix}stats
command_spec=tcp://127.0.0.1:5563
message_rate=2500
id_cache_ttl=60
";

const INTERNAL: &str = "\
[proxy]
stats_spec=ipc://{rundir}/{ipc_prefix}proxy-stats
zurl_out_specs=ipc://x
[handler]
proxy_inspect_spec=ipc://y
message_wait=7000
id_cache_ttl=1
";

fn load_files(files: &[(&str, &str)], line: &[&str]) -> Result<Plan, Mistakes> {
    let files: HashMap<&str, &str> = files.iter().copied().collect();
    let args = args(line.iter().map(|arg| (*arg).to_owned())).unwrap();
    let read = |path: &Path| {
        let text = path.to_str().and_then(|path| files.get(path));
        text.map(|text| (*text).to_owned()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    load(&args, &read)
}

fn plan_of(conf: &str, line: &[&str]) -> Plan {
    let routes = "example.com,id=r localhost:80,over_http\n* test\n";
    let files = [("c/pushpin.conf", conf), ("c/routes", routes), ("/usr/lib/pushpin/internal.conf", INTERNAL)];
    let line: Vec<&str> = ["--config=c/pushpin.conf"].into_iter().chain(line.iter().copied()).collect();
    load_files(&files, &line).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn check_mistake(conf: &str, line: &[&str], expected: &str) {
    let files = [("c/pushpin.conf", conf), ("c/routes", "* test\n")];
    let line: Vec<&str> = ["--config=c/pushpin.conf"].into_iter().chain(line.iter().copied()).collect();
    assert_eq!(load_files(&files, &line).expect_err(conf).to_string(), expected, "{conf}");
}

/// Checks what one key in one section changes.
fn check_key(section: &str, line: &str, change: impl FnOnce(&mut Plan)) {
    let mut expected = plan_of("[runner]\nhttp_port=1\n", &[]);
    change(&mut expected);
    let got = plan_of(&format!("[runner]\nhttp_port=1\n[{section}]\n{line}\n"), &[]);
    assert_eq!(got, expected, "[{section}] {line}");
}

#[test]
fn the_usual_file_is_read() {
    let plan = plan_of(USUAL, &[]);
    assert_eq!(plan.server.listen[0].to_string(), "7999");
    assert_eq!(plan.control.listen[0].to_string(), "127.0.0.1:5561");
    assert_eq!(plan.grip.sig_key, "changeme");
    assert_eq!(plan.zmq.pull.as_deref(), Some("tcp://127.0.0.1:5560"));
    assert_eq!(plan.zmq.stats.as_deref(), Some("ipc:///var/run/pushpin/pushpin-stats"));
    assert_eq!(plan.forward.set_x_forwarded_proto, ForwardedProto::ProtoOnly);
    assert_eq!(plan.limits.header_bytes, ByteSize(8192));
    assert_eq!(plan.logging.file.as_deref(), Some(Path::new("/var/log/pushpin/pushpin.log")));
    assert_eq!(plan.log.message_wait, Duration::from_secs(7), "the included file gives what is missing");
    assert_eq!(plan.log.id_cache_ttl, OrOff::On(Duration::from_secs(60)), "and nothing else");
    assert_eq!(plan.routes.len(), 2);
    assert_eq!(plan.routes[0].options.sig_key.as_deref(), Some("changeme"));
    assert_eq!(plan.routes_file.as_deref(), Some(Path::new("c/routes")));
    let noted = ["proxy/updates_check", "runner/services", "runner/zurl_bin"];
    assert_eq!(plan.notes.iter().filter_map(|note| note.split(' ').next()).collect::<Vec<_>>(), noted);
}

#[test]
fn the_arguments_go_before_the_file() {
    let line = ["-m", "--port=[::1]:80", "--loglevel=2,proxy:3", "--id=2", "--route=a b:80", "--route", "c d:80"];
    let plan = plan_of(USUAL, &line);
    assert_eq!(plan.server.listen.iter().map(ToString::to_string).collect::<Vec<_>>(), ["[::1]:80"]);
    assert_eq!(plan.logging.level, Level::Debug);
    assert_eq!(plan.logging.file, None);
    assert_eq!(plan.routes.len(), 2);
    assert_eq!(plan.routes_file, None);
    assert_eq!(plan.zmq.pull.as_deref(), Some("tcp://127.0.0.1:5580"));
    assert_eq!(plan.zmq.stats.as_deref(), Some("ipc:///var/run/pushpin/p2-stats"));
    assert_eq!(plan.control.listen[0].to_string(), "127.0.0.1:5581");
    assert_eq!(plan_of(USUAL, &["--id=2"]).logging.file.as_deref(), Some(Path::new("/var/log/pushpin/p2-pushpin.log")));
    assert_eq!(plan_of(USUAL, &["--logfile=l"]).logging.file.as_deref(), Some(Path::new("l")));
    assert_eq!(plan_of(USUAL, &["--verbose"]).logging.level, Level::Debug);
}

#[test]
fn all_kinds_of_ports_are_listened_on() {
    let conf = "[global]\nrundir=/r\n[runner]\nhttp_port=80,127.0.0.1:81\nhttps_ports=443\n\
                local_ports={rundir}/s?mode=666&user=u\n";
    let plan = plan_of(conf, &[]);
    let listen: Vec<_> = plan.server.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["80", "127.0.0.1:81", "443?tls", "unix:/r/s?mode=666&user=u"]);
    assert_eq!(plan.server.tls_certs.as_deref(), Some(Path::new("c/runner/certs")));
}

#[test]
fn what_is_missing_takes_pushpins_default() {
    let plan = plan_of("[runner]\nhttp_port=1\n", &[]);
    assert!(plan.control.listen.is_empty());
    assert_eq!(plan.routes[0].options.sig_key, None);
    assert_eq!(plan.zmq.pull, None);
    assert_eq!(plan.log.id_cache_ttl, OrOff::Off);
    assert_eq!(plan.forward.set_x_forwarded_proto, ForwardedProto::Off);
    assert_eq!(plan.notes, Vec::<String>::new());
}

#[test]
fn each_key_reaches_its_setting() {
    check_key("global", "stats_connection_send=false", |plan| plan.stats.connection_send = false);
    check_key("global", "stats_connection_ttl=5", |plan| plan.stats.connection_ttl = Duration::from_secs(5));
    check_key("runner", "client_maxconn=7", |plan| plan.server.client_max = 7.try_into().unwrap());
    check_key("runner", "allow_compression=true", |plan| {
        plan.websocket.compression = true;
        plan.routes.iter_mut().for_each(|route| route.options.websocket.compression = true);
    });
    check_key("proxy", "workers=2", |plan| plan.server.shards = 2);
    check_key("proxy", "accept_x_forwarded_protocol=1", |plan| plan.forward.accept_x_forwarded_proto = true);
    check_key("proxy", "set_x_forwarded_protocol=true", |plan| {
        plan.forward.set_x_forwarded_proto = ForwardedProto::On;
    });
    check_key("proxy", "x_forwarded_for=truncate:1,append", |plan| {
        plan.forward.x_forwarded_for = "truncate:1,append".parse().unwrap();
    });
    check_key("proxy", "x_forwarded_for_trusted=append", |plan| {
        plan.forward.x_forwarded_for_trusted = "append".parse().unwrap();
    });
    check_key("proxy", "orig_headers_need_mark=A, B", |plan| {
        plan.forward.orig_headers_need_mark = vec!["A".to_owned(), "B".to_owned()];
    });
    check_key("proxy", "accept_pushpin_route=true", |plan| plan.forward.accept_route_header = true);
    check_key("proxy", "cdn_loop=x", |plan| plan.forward.cdn_loop = Some("x".to_owned()));
    check_key("proxy", "log_from=true", |plan| plan.logging.client = true);
    check_key("proxy", "log_user_agent=true", |plan| plan.logging.user_agent = true);
    check_key("proxy", "upstream_key=k", |plan| plan.grip.upstream_key = Some("k".to_owned()));
    check_key("proxy", "sockjs_url=u", |plan| plan.sockjs.client_url = "u".to_owned());
    check_key("proxy", "debug=true", |plan| {
        plan.defaults.debug = true;
        plan.routes.iter_mut().for_each(|route| route.options.debug = true);
    });
    check_key("proxy", "auto_cross_origin=true", |plan| {
        plan.defaults.aco = true;
        plan.routes.iter_mut().for_each(|route| route.options.aco = true);
    });
    check_key("handler", "push_in_sub_spec=tcp://*:1", |plan| plan.zmq.sub = vec!["tcp://*:1".to_owned()]);
    check_key("handler", "push_in_sub_connect=true", |plan| plan.zmq.sub_connect = true);
    check_key("handler", "push_in_http_max_body_size=9", |plan| plan.control.body_max = ByteSize(9));
    check_key("handler", "message_rate=9", |plan| plan.limits.delivery_rate = 9);
    check_key("handler", "message_rate=-1", |plan| plan.limits.delivery_rate = 0);
    check_key("handler", "message_hwm=9", |plan| plan.limits.delivery_queue = NonZeroUsize::new(9).unwrap());
    check_key("handler", "message_block_size=9", |plan| plan.stats.block_size = ByteSize(9));
    check_key("handler", "push_in_http_max_headers_size=9", |plan| plan.control.header_max = ByteSize(9));
    check_key("handler", "ipc_file_mode=777", |plan| plan.zmq.ipc_file_mode = Some("777".parse().unwrap()));
    check_key("handler", "message_wait=100", |plan| plan.log.message_wait = Duration::from_millis(100));
    check_key("handler", "update_on_first_subscription=true", |plan| plan.grip.update_on_first_subscription = true);
    check_key("handler", "connection_subscription_max=9", |plan| {
        plan.limits.subscriptions_max = 9.try_into().unwrap();
    });
    check_key("handler", "subscription_linger=9", |plan| plan.stats.subscription_linger = Duration::from_secs(9));
    check_key("handler", "stats_subscription_ttl=9", |plan| plan.stats.subscription_ttl = Duration::from_secs(9));
    check_key("handler", "stats_report_interval=0", |plan| plan.stats.report_interval = OrOff::Off);
    check_key("handler", "stats_format=json", |plan| plan.stats.format = StatsFormat::Json);
    check_key("handler", "prometheus_port=9100\nprometheus_prefix=p_", |plan| {
        plan.metrics.listen = Some("9100".parse().unwrap());
        plan.metrics.pushpin_names = true;
        plan.metrics.prefix = "p_".to_owned();
    });
}

#[test]
fn keys_without_meaning_are_noted_with_the_reason() {
    for (section, line, expected) in [
        ("proxy", "max_open_requests=5", "runner/client_maxconn bounds the work"),
        ("proxy", "zurl_out_specs=ipc://x", "it is an address between Pushpin's processes, and there is one process"),
        ("handler", "share_all=true", "each request is sent to the target for itself"),
        ("handler", "state_spec=ipc://x", "there is no session state service"),
        ("handler", "frob=1", "the key is unknown"),
        ("other", "frob=1", "its section is unknown"),
    ] {
        let key = line.split('=').next().unwrap();
        let note = format!("{section}/{key} has no effect: {expected}");
        check_key(section, line, |plan| plan.notes = vec![note]);
    }
}

#[test]
fn what_cannot_be_understood_is_refused_with_its_place() {
    let at = |line: &str, expected: &str| {
        check_mistake(
            &format!("[runner]\nhttp_port=1\n[handler]\n{line}\n"),
            &[],
            &format!("c/pushpin.conf:4: {expected}"),
        );
    };
    at("message_wait=x", "handler/message_wait: `x` is not a number of milliseconds");
    at("stats_format=x", "handler/stats_format: `x` is not \"tnetstring\" or \"json\"");
    at("push_in_sub_connect=x", "handler/push_in_sub_connect: `x` is not true or false");
    at("connection_subscription_max=0", "handler/connection_subscription_max: `0` is not a number above 0");
    at("push_in_http_port=99999", "handler/push_in_http_port: `99999` is not a port");
    check_mistake("[runner]\nhttp_port=\n", &[], "c/pushpin.conf: no server ports configured");
    check_mistake("[runner]\nhttp_port=x\n", &[], "c/pushpin.conf: `x` is no address to listen on");
    check_mistake(
        "[runner]\nhttp_port=1\n",
        &["--loglevel=9"],
        "c/pushpin.conf: --loglevel: `9` is not a level from 0 to 4",
    );
    check_mistake(
        "[global]\ninclude=x.conf\n[runner]\nhttp_port=1\n",
        &[],
        "c/pushpin.conf: include c/x.conf: cannot be read: entity not found",
    );
    check_mistake(
        "[runner]\nhttp_port=1\n[proxy]\nroutesfile=r\n",
        &[],
        "c/r: routes file cannot be read: entity not found",
    );
}

#[test]
fn the_file_is_searched_where_pushpin_does() {
    let files = [("./pushpin.conf", "[runner]\nhttp_port=5\n"), ("./routes", "* test\n")];
    assert_eq!(load_files(&files, &[]).unwrap().server.listen[0].to_string(), "5");
    let none = load_files(&[], &[]).unwrap_err().to_string();
    assert!(none.starts_with("pushpin.conf: no configuration file found. Tried: ./config/pushpin.conf "), "{none}");
}

#[test]
fn an_imported_file_means_the_same() {
    for conf in
        [USUAL, "[runner]\nhttp_port=80\nhttps_ports=443\n[proxy]\ndebug=true\n[handler]\nstats_report_interval=0\n"]
    {
        let routes = "a,id=x,sig_key=k,header=\"X: y z\" b:80,sub=c test\nbad\n* zhttp/tcp://127.0.0.1:1\n";
        let read = |path: &Path| match path.to_str() {
            Some("pushpin.conf") => Ok(conf.to_owned()),
            Some("routes") => Ok(routes.to_owned()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        let toml = import(Path::new("pushpin.conf"), &read).unwrap();
        let sources = native::Sources { file: Some("waft.toml".into()), ..native::Sources::default() };
        let imported = native::load(&sources, &|_| Ok(toml.clone())).unwrap_or_else(|error| panic!("{error}\n{toml}"));
        let args = Args { config: Some("pushpin.conf".into()), merge_output: true, ..Args::default() };
        let original = load(&args, &read).unwrap();
        assert!(toml.contains("# routes:2: must specify condition"), "{toml}");
        assert_eq!(imported, Plan { notes: Vec::new(), routes_file: None, ..original }, "{toml}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(conf in any::<String>(), line in "[a-z_]{0,10}=[^\n]{0,10}") {
        let conf = format!("[handler]\n{line}\n{conf}");
        let args = Args { config: Some("c".into()), ..Args::default() };
        let _ = load(&args, &|_| Ok(conf.clone()));
    }
}
