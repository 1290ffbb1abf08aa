//! The `sluice` program.

use std::process::ExitCode;

use sluice::cli::{self, Exit};

fn main() -> ExitCode {
    match cli::main(std::env::args_os()) {
        Ok(exit) => exit.into(),
        Err(error) => {
            anstream::eprintln!("error: {}", chain(&error.into()));
            Exit::Error.into()
        }
    }
}

/// What was attempted, and why it failed, in one line. Some libraries put their cause into their
/// own words already; once is enough.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause);
        }
    }
    text
}
