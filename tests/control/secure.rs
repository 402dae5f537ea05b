use waft_testkit::{Server, Setup, program, waft, waft_only};

#[test]
fn the_control_port_may_ask_for_a_token_and_speak_tls() {
    waft_only!("Pushpin's control port has neither");
    let directory = std::env::temp_dir().join(format!("waft-control-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = |name: &str| directory.join(name).display().to_string();
    let (cert, key) = (file("control.crt"), file("control.key"));
    program("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", &key, "-out", &cert])
        .succeed();
    let config = format!(
        "[server]\nlisten = [\"FRONT\"]\n\n[control]\nlisten = [\"CONTROL\"]\ntoken = \"open sesame\"\n\
         cert = \"{cert}\"\nkey = \"{key}\"\n"
    );
    let server = Server::start(Setup::native(config));
    let address = server.control_address();
    let publish = |authorization: &str| {
        let item = r#"{"items":[{"channel":"c","formats":{"http-stream":{"content":"x"}}}]}"#;
        program("curl")
            .args(["-sS", "--cacert", &cert, "--resolve", &format!("localhost:{}:127.0.0.1", address.port())])
            .args(["-H", authorization, "-w", "%{http_code}", "-d", item])
            .arg(format!("https://localhost:{}/publish/", address.port()))
            .succeed()
    };
    assert_eq!(publish("Authorization: Bearer open sesame"), "Published\n200");
    assert!(publish("Authorization: Bearer guessed").ends_with("401"));
    assert!(publish("X-No: token").ends_with("401"));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn the_command_line_publishes_with_a_token() {
    waft_only!("pushpin-publish sends a token over TLS only");
    let config = "[server]\nlisten = [\"FRONT\"]\n\n[control]\nlisten = [\"CONTROL\"]\ntoken = \"t\"\n\n\
                  [[route]]\ntargets = [\"test\"]\n";
    let server = Server::start(Setup::native(config));
    let mut client = server.get("/stream?channel=c");
    client.expect_head(200);
    client.expect_stream("[stream opened]\n");
    let spec = format!("http://{}", server.control_address());
    let publish = || waft().args(["publish", "c", "hello", "--spec", &spec]);
    assert_eq!(publish().args(["-B", "t"]).succeed(), "Published\n");
    client.expect_stream("hello\n");
    assert!(!publish().run().status.success(), "published without the token");
}
