use serde_json::json;
use waft_testkit::{Reply, Script, Target, waft};

use crate::{Hooks, Queue};

fn webhooks(hooks: &Hooks, args: &[&str]) -> Script {
    waft().arg("webhooks").args(args).args(["--url", &format!("http://{}", hooks.0.control_address())])
}

#[test]
fn the_command_line_sends_lists_shows_and_resends() {
    let target = Target::start(|_| Reply::status("200 OK"));
    let queue = Queue::new();
    let hooks = queue.serve("");
    let endpoint = hooks.endpoint(&format!("http://{}/", target.address()), json!({}));
    let id = webhooks(&hooks, &["send", "order.paid", r#"{"n":1}"#]).succeed();
    let id = id.trim();
    assert_eq!(target.next_request().body_text(), r#"{"n":1}"#);
    hooks.wait_for(id, "delivered");
    let list = webhooks(&hooks, &["list", "--status", "delivered"]).succeed();
    assert_eq!(list, format!("{id}  order.paid  {endpoint}=delivered\n"));
    let attempts = webhooks(&hooks, &["attempts", id]).succeed();
    assert!(attempts.contains(&endpoint) && attempts.contains("  200  "), "{attempts}");
    assert_eq!(webhooks(&hooks, &["resend", id]).succeed(), "1 deliveries are sent again\n");
    target.next_request();
    let endpoints = webhooks(&hooks, &["endpoints"]).succeed();
    assert_eq!(endpoints, format!("{endpoint}  default  http://{}/  open\n", target.address()));
    let failed = webhooks(&hooks, &["attempts", "msg_1"]).run();
    assert!(!failed.status.success() && failed.output.contains("there is no message"), "{}", failed.output);
}
