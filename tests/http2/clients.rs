use waft_testkit::{Authority, Reply, Server, Setup, Target, program, python};

use crate::serve;

#[test]
fn curl_gets_a_stream_with_prior_knowledge() {
    let (_target, server) = serve();
    let url = format!("http://{}/hold/c", server.address());
    let curl = program("curl").args(["-sSN", "--http2-prior-knowledge", "-D", "-", &url]).start();
    curl.wait_for_output("HTTP/2 200", 1);
    curl.wait_for_output("open\n", 1);
    server.publish_text("c", "one\n");
    curl.wait_for_output("one\n", 1);
}

#[test]
fn curl_uploads_and_downloads() {
    let (_target, server) = serve();
    let file = server.directory().join("upload");
    std::fs::write(&file, "0123456789".repeat(200_000)).unwrap();
    let data = format!("@{}", file.display());
    let out = server.directory().join("download");
    let url = format!("http://{}/echo", server.address());
    program("curl")
        .args(["-sSf", "--http2-prior-knowledge", "--data-binary", &data, "-o", out.to_str().unwrap(), &url])
        .succeed();
    assert!(std::fs::read(&out).unwrap() == std::fs::read(&file).unwrap(), "the upload came back changed");
}

#[test]
fn httpx_shares_a_connection() {
    let (_target, server) = serve();
    let output = python("tests/http2/with_httpx.py").arg(server.address().to_string()).succeed();
    assert!(output.contains("HTTP/2 200 answer to /19"), "{output}");
}

#[test]
fn h2load_gets_an_answer_to_every_request() {
    let (_target, server) = serve();
    let url = format!("http://{}/a", server.address());
    let output = program("h2load").args(["-n", "2000", "-c", "4", "-m", "20", &url]).succeed();
    assert!(output.contains("2000 succeeded, 0 failed, 0 errored"), "{output}");
}

#[test]
fn curl_agrees_on_http2_by_tls() {
    let authority = Authority::new();
    let target = Target::start(|_| Reply::hold("stream", "c").body("open\n"));
    let setup = Setup::native(format!(
        "[server]\nlisten = [\"FRONT?tls\"]\ntls_certs = \"DIRECTORY/certs\"\n\n[control]\nlisten = [\"CONTROL\"]\n\n\
         [[route]]\ntargets = [\"{}\"]\n",
        target.address()
    ));
    let server = Server::start(setup.certificate(&authority.issue(&["app.example"]), "certs/any"));
    let address = server.address();
    let at = format!("app.example:{}:{}", address.port(), address.ip());
    let url = format!("https://app.example:{}/stream", address.port());
    let authorities = authority.file();
    let authorities = authorities.to_str().unwrap();
    let common = ["-sSN", "-D", "-", "--cacert", authorities, "--resolve", &at];
    for (offer, spoken) in [("--http2", "HTTP/2 200"), ("--http1.1", "HTTP/1.1 200 OK")] {
        let curl = program("curl").args(common).args([offer, &url]).start();
        curl.wait_for_output(spoken, 1);
        curl.wait_for_output("open\n", 1);
        server.publish_text("c", "one\n");
        curl.wait_for_output("one\n", 1);
    }
}
