use waft_testkit::{waft, waft_only};

use crate::read;

/// What stands before and after the program's own words on the page.
const FRAME: (&str, &str) = ("```toml\n", "```\n");

#[test]
fn the_page_of_all_keys_is_what_the_program_prints() {
    waft_only!("Pushpin has keys of its own");
    let page = read("docs/configuration.md");
    let begin = page.find(FRAME.0).unwrap() + FRAME.0.len();
    let end = begin + page[begin..].find(FRAME.1).unwrap();
    let printed = waft().args(["config", "--print-defaults"]).succeed();
    assert!(
        page[begin..end] == *printed,
        "docs/configuration.md is not what `waft config --print-defaults` prints; run scripts/write-configuration-page"
    );
}
