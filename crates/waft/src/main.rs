//! The waft binary: reads a configuration, judges it, binds, runs and drains.

mod cli;
mod egress;
mod logging;
mod mongrel2;
mod persona;
mod pid_file;
mod probe;
mod publish;
mod reload;
mod serve;
mod settings;
mod tls;
mod webhooks;
mod zurl;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match persona::run() {
        Ok(code) => code,
        Err(error) => {
            // The log may not be set up yet, and a person is waiting for this line.
            say_error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes a line that a person asked for.
#[expect(clippy::print_stdout, reason = "the answer to a command")]
fn say(text: &str) {
    print!("{text}");
}

/// Writes an error for a person.
#[expect(clippy::print_stderr, reason = "the answer to a command")]
fn say_error(text: &str) {
    eprintln!("waft: {text}");
}
