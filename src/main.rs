//! The `sluice` program.

use std::process::ExitCode;

use sluice::cli::{self, Exit};

fn main() -> ExitCode {
    match cli::main(std::env::args_os()) {
        Ok(exit) => exit.into(),
        Err(error) => {
            anstream::eprintln!("error: {}", cli::explain::explain(&error));
            Exit::Error.into()
        }
    }
}
