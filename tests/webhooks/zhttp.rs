//! Durable requests by ZHTTP, as programs send them that have URLs and no endpoints.

use waft_testkit::{python, waft_binary};

#[test]
fn durable_requests_by_zhttp_are_answered_when_they_are_kept_and_arrive() {
    let report = python("tests/webhooks/zhttp.py").arg(waft_binary()).succeed();
    eprintln!("{report}");
    assert!(report.contains("all passed"), "{report}");
}
