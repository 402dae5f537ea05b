//! Tests of the way from Mongrel2's configuration to a plan.

use waft_mongrel2::conf::parse;

use super::*;
use crate::check::report;
use crate::native::{Sources, load};

const SITE: &str = r#"
chat = Handler(send_spec='tcp://127.0.0.1:9999', send_ident='chat-1', recv_spec='tcp://127.0.0.1:9998', recv_ident='',
               protocol='tnetstring')
files = Dir(base='static/', index_file='index.html', default_ctype='text/plain', cache_ttl=1)
site = Host(name="example.com", routes={ '/chat': chat, '/static/': files, '@chat': chat,
    '/api/(v[12])/.*$': Proxy(addr='127.0.0.1', port=8080) })
wild = Host(name="w", matching="(a+).wild.test", routes={ '/': files })
main = Server(uuid="u-1", name="main", port=6767, access_log="/logs/access.log", error_log="/logs/error.log",
    chroot="/srv/m2", pid_file="/run/m2.pid", default_host="example.com", hosts=[site, wild])
servers = [main]
settings = {"zeromq.threads": 1, "limits.content_length": 4096, "upload.temp_store": "/tmp/u.XXXXXX",
    "upload.temp_store_mode": "0640", "upload.stream": 1, "no_clobber_xff": 1, "control_port": "ipc://c",
    "limits.kill_limit": 1, "nonsense": 1, "server.daemonize": 0, "limits.buffer_size": 1024}
mimetypes = {'.wf': 'application/x-waft'}
"#;

fn plan_of(text: &str) -> Plan {
    plan(&parse(text).unwrap(), None, "m2.conf").unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

#[test]
fn hosts_and_routes_keep_their_meaning() {
    let plan = plan_of(SITE);
    let routes: Vec<_> = report(&plan).lines().filter(|line| line.contains(" -> ")).map(str::to_owned).collect();
    let expected = [
        "  .example.com/chat* -> handler:tcp://127.0.0.1:9999",
        "  .example.com/static/* -> dir:/srv/m2/static/",
        "  .example.com/api/(v[12])/.*$ -> 127.0.0.1:8080",
        "  */chat* -> handler:tcp://127.0.0.1:9999",
        "  */static/* -> dir:/srv/m2/static/",
        "  */api/(v[12])/.*$ -> 127.0.0.1:8080",
        "  (a+).wild.test/* -> dir:/srv/m2/static/",
    ];
    assert_eq!(routes, expected);
}

#[test]
fn settings_have_a_meaning_or_a_note() {
    let plan = plan_of(SITE);
    let mongrel2 = &plan.mongrel2;
    assert_eq!(mongrel2.body_max, crate::value::ByteSize(4096));
    assert_eq!(mongrel2.upload_store.as_deref(), Some(Path::new("/tmp/u.XXXXXX")));
    assert_eq!(mongrel2.upload_mode.0, 0o640);
    assert!(mongrel2.upload_stream && !mongrel2.replace_forwarded_for);
    assert_eq!(mongrel2.control.as_deref(), Some("ipc://c"));
    assert_eq!(mongrel2.access_log.as_deref(), Some(Path::new("/srv/m2/logs/access.log")));
    assert_eq!(mongrel2.pid_file.as_deref(), Some(Path::new("/srv/m2/run/m2.pid")));
    assert_eq!(plan.server.listen[0].to_string(), "6767");
    assert_eq!(plan.limits.header_bytes, crate::value::ByteSize(65_536));
    let about: Vec<_> = plan.notes.iter().filter_map(|note| note.split_once(" has no effect").map(|it| it.0)).collect();
    let expected = [
        "chroot /srv/m2",
        "setting zeromq.threads",
        "setting limits.kill_limit",
        "setting nonsense",
        "cache_ttl",
        "route @chat of host example.com",
    ];
    let mut sorted = about.clone();
    sorted.sort_unstable();
    let mut wanted = expected;
    wanted.sort_unstable();
    assert_eq!(sorted, wanted);
}

#[test]
fn an_imported_configuration_means_the_same() {
    let conf = parse(SITE).unwrap();
    let text = import(&conf, Some("u-1"), "m2.conf").unwrap();
    let sources = Sources { file: Some("waft.toml".into()), ..Sources::default() };
    let again = load(&sources, &|_| Ok(text.clone())).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"));
    let mut plan = plan_of(SITE);
    plan.notes.clear();
    assert_eq!(again, plan, "{text}");
}

#[test]
fn what_cannot_be_served_is_refused() {
    let check = |text: &str, uuid: Option<&str>, expected: &str| {
        let refused = plan(&parse(text).unwrap(), uuid, "m2.conf").unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    };
    check(SITE, Some("u-2"), "there is no server with the uuid u-2; there are: u-1");
    check(&SITE.replace("servers = [main]", "servers = [main main]"), None, "there are several servers");
    check(&SITE.replace("(v[12])", "(v[12)"), None, "the pattern has a `[` without a `]`");
    check(&SITE.replace("port=6767", "port=0"), None, "are no address to listen on");
    check(&SITE.replace("u.XXXXXX", "u"), None, "the name must end in XXXXXX");
    check(&SITE.replace("\"upload.stream\": 1", "\"upload.stream\": 'yes'"), None, "`yes` is not 0 or 1");
    check(&SITE.replace("'chat-1'", "'chat 1'"), None, "is not a word without blanks");
}
