use std::collections::BTreeMap;

use waft_testkit::{Server, Setup, waft_only};

use crate::page::rows;
use crate::read;

/// Names and kinds of the metrics on a page of the Prometheus text format.
fn kinds(page: &str) -> BTreeMap<String, String> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split_once(' ').unwrap()).map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

#[test]
fn every_metric_is_on_the_page_with_its_kind() {
    waft_only!("Pushpin has metrics of its own");
    let queue = std::env::temp_dir().join(format!("waft-docs-webhooks-{}", std::process::id()));
    let native = format!(
        "[server]\nlisten = [\"FRONT\"]\n[control]\nlisten = [\"CONTROL\"]\n[webhooks]\ndir = \"{}\"\n\
         [metrics]\npushpin_names = true\nprefix = \"pushpin_\"\n",
        queue.display()
    );
    let server = Server::start(Setup::native(native));
    let scraped = server.control("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").body_text();
    let page = read("docs/metrics.md");
    let told: BTreeMap<String, String> =
        rows(&page).map(|row| (row[0].trim_matches('`').to_owned(), row[1].clone())).collect();
    assert!(told.len() > 20, "the table was not found");
    assert_eq!(told, kinds(&scraped));
    drop(server);
    std::fs::remove_dir_all(queue).unwrap();
}

#[test]
fn every_label_is_on_the_page() {
    waft_only!("Pushpin has metrics of its own");
    let server = Server::start(Setup::new().route("* test"));
    let scraped = server.control("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").body_text();
    let page = read("docs/metrics.md");
    for line in scraped.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket{")) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let (label, value) = rest.split_once("=\"").unwrap();
        let value = value.split('"').next().unwrap();
        let row = rows(&page).find(|row| row[0] == format!("`{name}`")).unwrap();
        assert!(row[2].contains(&format!("`{label}`")), "{name} has the label {label}");
        assert!(label == "version" || row[2].contains(&format!("`{value}`")), "{name} has {label}={value}");
    }
}
