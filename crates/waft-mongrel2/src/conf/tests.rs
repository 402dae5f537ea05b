//! Tests of the configuration language.

use proptest::prelude::*;

use super::*;

const SITE: &str = r#"
# A site as many have it.
chat = Handler(send_spec='tcp://127.0.0.1:9999', send_ident='chat-1'
               recv_spec='tcp://127.0.0.1:9998' recv_ident='')
main = Server(uuid="u-1", name="main", port=6767, access_log="/logs/access.log", error_log="/logs/error.log"
              chroot="./", pid_file="/run/m2.pid", default_host="example.com", hosts=[site])
site = Host(name="example.com", routes={
    '/chat': chat
    '/static/': Dir(base='static/', index_file='index.html', default_ctype='text/plain', cache_ttl=3),
    '/api/(v[12])/\d+$': Proxy(addr='127.0.0.1', port=8080)
})
settings = {"zeromq.threads": 1, "upload.temp_store": "/tmp/m2.XXXXXX"}
mimetypes = {'.wf': 'application/x-waft'}
servers = [main]
"#;

#[test]
fn a_site_is_read_whole() {
    let conf = parse(SITE).unwrap();
    let server = &conf.servers[0];
    assert_eq!((server.uuid.as_str(), server.port, server.bind_addr.as_str()), ("u-1", 6767, "0.0.0.0"));
    let host = &server.hosts[0];
    assert_eq!((host.name.as_str(), host.matching.as_str()), ("example.com", "example.com"));
    let chat = Handler {
        send_spec: "tcp://127.0.0.1:9999".into(),
        send_ident: "chat-1".into(),
        recv_spec: "tcp://127.0.0.1:9998".into(),
        ..Handler::default()
    };
    let files = Dir {
        base: "static/".into(),
        index_file: "index.html".into(),
        default_ctype: "text/plain".into(),
        cache_ttl: 3,
    };
    let expected = [
        ("/chat".to_owned(), Backend::Handler(chat)),
        ("/static/".to_owned(), Backend::Dir(files)),
        (r"/api/(v[12])/\d+$".to_owned(), Backend::Proxy { addr: "127.0.0.1".into(), port: 8080 }),
    ];
    assert_eq!(host.routes, expected);
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(conf.settings, [pair("zeromq.threads", "1"), pair("upload.temp_store", "/tmp/m2.XXXXXX")]);
    assert_eq!(conf.mimetypes, [pair(".wf", "application/x-waft")]);
    assert!(conf.notes.is_empty(), "{:?}", conf.notes);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let check = |text: &str, expected: &str| assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
    check("a = 1", "line 1: the list `servers` is missing; name the servers in it, as in `servers = [main]`");
    check("servers = [\nmain]", "line 2: `main` is assigned nowhere; is it misspelt?");
    check("a = a\nservers = a", "line 2: the name stands for itself");
    check("a = 'x", "line 1: the text has no closing '");
    check("\na = ?", "line 2: `?` has no meaning here");
    check("a = ", "line 1: the file ends where a value is expected");
    check("a 1", "line 1: `1` stands where `=` is expected");
    check("a = )", "line 1: `)` stands where a value is expected");
    check("servers = [Host()]", "line 1: Server(...) is expected, not Host(...)");
    check("servers = [Server()]", "line 1: Server(...) needs the parameter `uuid`");
    check(
        &SITE.replace("Proxy(", "Redirect("),
        "line 10: a route leads to Handler(...), Proxy(...) or Dir(...), not to Redirect(...)",
    );
    check(&SITE.replace("port=8080", "port=80800"), "line 10: a number that fits is expected");
    check(&format!("a = {}", "[".repeat(50)), "line 1: values are nested deeper than 32");
}

#[test]
fn parameters_that_mean_nothing_are_noted_once() {
    let conf = parse(&SITE.replace("recv_ident=''", "recv_ident='' colour='red'")).unwrap();
    assert_eq!(conf.notes, ["line 3: Handler: the parameter `colour` is unknown and has no effect"]);
}

#[test]
fn modules_keep_their_settings_as_a_tnetstring() {
    let text = SITE.replace("hosts=[site]", "hosts=[site] filters=[Filter(name='a.so', settings={'x': [1 'y']})]");
    let module = Module { name: "a.so".into(), settings: "15:1:x,8:1:1#1:y,]}".into() };
    assert_eq!(parse(&text).unwrap().servers[0].filters, [module]);
}

proptest! {
    #[test]
    fn any_text_is_judged_without_panic(text in r#"[ -~\n]{0,80}"#) {
        let _judged = parse(&text);
    }

    #[test]
    fn damaged_sites_are_judged_without_panic(at in 0..SITE.len(), byte in "[ -~]") {
        let damaged = format!("{}{byte}{}", &SITE[..at], &SITE[at + 1..]);
        let _judged = parse(&damaged);
    }
}
