use std::fs;

use waft_testkit::{Connection, Process, free_port, node, program, python, workspace_root};

use crate::site::{Site, Which};

/// Programs that were written for Mongrel2 answer through both programs.
fn answers(site: &Site, path: &str, expected: &str) {
    let mut client = Connection::tcp(([127, 0, 0, 1], site.port).into());
    // A handler that publishes before its subscription has come through is not heard; it is asked again.
    let answer = waft_testkit::eventually("an answer of the handler", || {
        let mut client = Connection::tcp(([127, 0, 0, 1], site.port).into());
        client.send(format!("GET {path}?first HTTP/1.1\r\nHost: one.test\r\n\r\n"));
        client.is_readable_within(std::time::Duration::from_secs(1)).then(|| client.response())
    });
    assert_eq!(answer.status(), 200, "{}", answer.body_text());
    for number in 0..3 {
        let answer = client.fetch(format!("GET {path}?n={number} HTTP/1.1\r\nHost: one.test\r\n\r\n"));
        assert_eq!((answer.status(), answer.body_text().contains(expected)), (200, true), "{}", answer.body_text());
    }
    let post = format!("POST {path} HTTP/1.1\r\nHost: one.test\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.fetch(post).status(), 200);
    // One that goes away is nobody's trouble.
    let mut gone = Connection::tcp(([127, 0, 0, 1], site.port).into());
    gone.send(format!("GET {path} HTTP/1.1\r\nHost: one.test\r\n\r\n"));
    gone.reset();
    let mut crowd: Vec<_> = (0..50).map(|_| Connection::tcp(([127, 0, 0, 1], site.port).into())).collect();
    for client in &mut crowd {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: one.test\r\n\r\n"));
    }
    assert!(crowd.iter_mut().all(|client| client.response().status() == 200));
}

fn for_both(name: &str, settings: &str, start: impl Fn(&Site) -> Process, path: &str, expected: &str) {
    for which in [Which::Mongrel2, Which::Waft] {
        let site = Site::start(which, name, settings);
        let _handler = start(&site);
        answers(&site, path, expected);
    }
}

#[test]
fn the_adapter_of_debian_takes_requests_to_a_zhttp_worker() {
    let settings = r#""upload.stream": 1, "download.flow_control": 1"#;
    for which in [Which::Mongrel2, Which::Waft] {
        let site = Site::start(which, "adapter", settings);
        let path = site.directory.display();
        let [zhttp_out, zhttp_in, stream] = [(); 3].map(|()| format!("tcp://127.0.0.1:{}", free_port()));
        let config = format!(
            "[General]\nm2_in_specs=tcp://127.0.0.1:{}\nm2_out_specs=tcp://127.0.0.1:{}\nm2_send_idents=two\n\
             m2_control_specs=ipc://{path}/control\nzhttp_in_specs={zhttp_in}\nzhttp_out_specs={zhttp_out}\n\
             zhttp_out_stream_specs={stream}\nzws_in_specs=ipc://{path}/zws-in\nzws_out_specs=ipc://{path}/zws-out\n\
             zws_out_stream_specs=ipc://{path}/zws-stream\n",
            site.base + 2,
            site.base + 3,
        );
        fs::write(site.directory.join("m2adapter.conf"), config).unwrap();
        let file = site.directory.join("m2adapter.conf");
        let adapter = program("m2adapter").arg("--config").arg(&file).start();
        let worker = python("tests/mongrel2/zhttp_worker.py").args([&zhttp_out, &zhttp_in]).start();
        worker.wait_for_output("connected", 1);
        answers(&site, "/map/x", "GET map/x?n=");
        drop(adapter);
    }
}

#[test]
fn m2node_answers() {
    let start = |site: &Site| {
        let specs = [site.base, site.base + 1].map(|port| format!("tcp://127.0.0.1:{port}"));
        let handler = node("tests/mongrel2/node/handler.js").args(specs).start();
        handler.wait_for_output("connected", 1);
        handler
    };
    for_both("m2node", "", start, "/json", "m2node: /json");
}

#[test]
fn m2wsgi_answers() {
    let python = workspace_root().join("target/test-tools/m2wsgi/bin/python");
    let start = |site: &Site| {
        let specs = [site.base + 2, site.base + 3].map(|port| format!("tcp://127.0.0.1:{port}"));
        let handler = program(python.to_str().unwrap()).arg("tests/mongrel2/wsgi_handler.py").args(specs).start();
        handler.wait_for_output("connected", 1);
        handler
    };
    for_both("m2wsgi", "", start, "/map/x", "m2wsgi: /map/x");
}
