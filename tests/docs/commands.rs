//! The commands on the pages are run as they stand, on ports that are free, and must write what the pages say.
//!
//! A block `sh` is run to its end, and a block `text` right behind it is all that it writes. With `name=...` the
//! commands stay running under that name, for as long as nothing else takes it, and `listens=...` says on which port of
//! the page they accept. A block `text` with `from=...` is what the commands of that name write sooner or later.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use waft_testkit::{
    Connection, Process, Script, eventually, free_port, metric_sum, program, waft_binary, waft_only, workspace_root,
};

use crate::page::{Block, blocks};
use crate::read;

/// The ports that the pages use: clients, control API, backend.
const PORTS: [&str; 3] = ["7999", "5561", "8000"];

struct Reader {
    /// A free port for each of [`PORTS`].
    ports: Vec<u16>,
    waft: PathBuf,
    running: BTreeMap<String, Process>,
}

impl Reader {
    fn new() -> Self {
        let ports = PORTS.iter().map(|_| free_port()).collect();
        Self { ports, waft: waft_binary(), running: BTreeMap::new() }
    }

    fn port(&self, written: &str) -> u16 {
        self.ports[PORTS.iter().position(|port| *port == written).unwrap()]
    }

    /// What is typed here in the place of what stands on the page.
    fn typed(&self, text: &str) -> String {
        let mut typed = text.replace("target/debug/waft", "waft");
        for port in PORTS {
            for before in ["localhost:", "127.0.0.1:"] {
                typed = typed.replace(&format!("{before}{port}"), &format!("{before}{}", self.port(port)));
            }
        }
        typed
    }

    fn script(&self, block: &Block) -> Script {
        let text = self.typed(&block.text);
        // `make run` builds the program first; it is built already, and must not be run under the eyes of make.
        let functions = "make() { test \"$1\" = run; shift; local ARGS= \"$@\"; eval exec '\"$WAFT\"' \"$ARGS\"; }\n\
                         waft() { \"$WAFT\" \"$@\"; }\n";
        program("bash")
            .args(["-euo", "pipefail", "-c", &format!("{functions}{text}")])
            .env("WAFT", &self.waft)
            .env("WAFT_SERVER__LISTEN", format!("127.0.0.1:{}", self.port("7999")))
            .env("WAFT_CONTROL__LISTEN", format!("127.0.0.1:{}", self.port("5561")))
            .env("GRIP_URL", format!("http://localhost:{}", self.port("5561")))
            .env("CONTROL", format!("http://localhost:{}", self.port("5561")))
            .env("WAFT_CONTROL_URL", format!("http://localhost:{}", self.port("5561")))
            .env("PORT", self.port("8000").to_string())
    }

    fn start(&mut self, name: &str, block: &Block) {
        // What had the name has to give up its port first.
        self.running.remove(name);
        let mut process = self.script(block).start();
        if let Some(port) = block.mark("listens") {
            process.wait_for_port(self.port(port));
        }
        if let Some(holds) = block.mark("holds") {
            self.wait_for_holds(holds.parse().unwrap());
        }
        self.running.insert(name.to_owned(), process);
    }

    fn wait_for_holds(&self, count: usize) {
        let control = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port("5561")));
        eventually("the metric waft_holds", || {
            let page = Connection::tcp(control).fetch("GET /metrics HTTP/1.1\r\nHost: control\r\n\r\n").body_text();
            (metric_sum(&page, "waft_holds").unwrap_or(0.0) >= count as f64).then_some(())
        });
    }

    /// Does what a page says from its first block to its last.
    fn follow(&mut self, page: &str) {
        let blocks = blocks(page);
        for (number, block) in blocks.iter().enumerate() {
            match (block.language.as_str(), block.mark("name"), block.mark("from")) {
                ("sh", Some(name), _) => self.start(name, block),
                ("sh", None, _) => {
                    let written = self.script(block).succeed();
                    if let Some(next) = blocks.get(number + 1).filter(|next| next.language == "text")
                        && next.mark("from").is_none()
                    {
                        assert_eq!(written, next.text, "what these commands write:\n{}", block.text);
                    }
                }
                ("text", _, Some(name)) => self.running[name].wait_for_output(&block.text, 1),
                _ => {}
            }
        }
    }
}

#[test]
fn the_first_ten_minutes_go_as_they_are_told() {
    waft_only!("it is waft that is told of");
    let page = read("docs/getting-started.md");
    assert!(blocks(&page).iter().filter(|block| block.language == "sh").count() >= 8);
    Reader::new().follow(&page);
}

#[test]
fn the_tour_of_the_readme_goes_as_it_is_told() {
    waft_only!("it is waft that is told of");
    Reader::new().follow(&read("README.md"));
}

#[test]
fn the_guide_to_webhooks_goes_as_it_is_told() {
    waft_only!("it is waft that is told of");
    let page = read("docs/webhooks.md");
    assert!(blocks(&page).iter().filter(|block| block.language == "sh").count() >= 6);
    Reader::new().follow(&page);
}

#[test]
fn the_guide_to_the_push_service_goes_as_it_is_told() {
    waft_only!("it is waft that is told of");
    let page = read("docs/push-service.md");
    assert!(blocks(&page).iter().filter(|block| block.language == "sh").count() >= 4);
    Reader::new().follow(&page);
}

#[test]
fn make_run_runs_the_program_with_the_arguments_that_are_given() {
    let makefile = std::fs::read_to_string(workspace_root().join("Makefile")).unwrap();
    assert!(makefile.contains("\nrun:\n\tcargo run --package waft -- $(ARGS)\n"), "the pages rely on this");
}
