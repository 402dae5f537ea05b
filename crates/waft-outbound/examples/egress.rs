//! The egress door as a program of its own, without a queue for durable requests: `cargo run --example egress -- --config=zurl.conf`.

use std::process::ExitCode;

fn main() -> ExitCode {
    waft_outbound::zurl::main(std::env::args().skip(1), |_config| Ok(None))
}
