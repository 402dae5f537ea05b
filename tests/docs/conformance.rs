use std::time::Duration;

use waft_testkit::{Connection, Server, Setup, waft_only};

use crate::page::rows;
use crate::read;

/// The request of a row, as bytes.
fn request(cell: &str) -> Vec<u8> {
    let text = cell.trim_matches('`').replace("\\r", "\r").replace("\\n", "\n");
    text.replace("...", &"a".repeat(70_000)).into_bytes()
}

/// What came back, in the words of the page.
fn answer(mut client: Connection, expected: &str) -> String {
    let wanted = expected.split(", ").filter(|word| *word != "closed").count();
    let mut said = Vec::new();
    for _ in 0..wanted {
        let Some(head) = client.head_or_end() else { break };
        if head.status() != 100 && head.content_length().is_some() && !head.first_line().is_empty() {
            // A body belongs to every answer but one to HEAD, which has none behind it.
            client.is_readable_within(Duration::from_millis(100));
            let length = head.content_length().unwrap();
            if client.peek().len() >= length {
                client.exactly(length);
            }
        }
        said.push(head.status().to_string());
    }
    let mut is_closed = false;
    if expected.ends_with("closed") || said.len() < wanted {
        client.expect_close();
        is_closed = true;
    } else {
        // It serves another request.
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        is_closed |= client.head_or_end().is_none();
    }
    if is_closed {
        said.push("closed".to_owned());
    }
    said.join(", ")
}

#[test]
fn every_case_of_the_page_is_answered_as_it_says() {
    waft_only!("the page is about waft");
    let server = Server::start(Setup::new().route("* test"));
    let page = read("docs/conformance-http.md");
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in rows(&page) {
        let [case, bytes, expected] = row.as_slice() else { panic!("{row:?}") };
        let mut client = server.connect();
        client.send(request(bytes));
        let came = answer(client, expected);
        if came != *expected {
            wrong.push(format!("{case}: {came}, not {expected}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 40);
}
